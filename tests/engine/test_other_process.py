import functools
import os
import stat
import subprocess
import sys

import leaves_behind
import pytest
from fork_server import run_python
from helpers import verdicts_of
from torch.optim.lr_scheduler import LambdaLR, StepLR

from harness import (
    Budget,
    CheckError,
    Subject,
    check_scheduler,
    check_subject,
    replay,
    write_script,
)
from harness.checks.registry import CHECKS, as_check, select_checks
from harness.core.check import resume_check
from harness.core.trace import Trace
from harness.core.verdict import Reason
from harness.engine.other_process import Worker, segments, worker_of
from harness.engine.sweep import sweep
from lr_schedules.controls import Halving

THERE = as_check("resume_in_another_process")
FROM = as_check("resume_from_another_process")
LEAVING = (leaves_behind.InAGlobal, leaves_behind.InTheClass, leaves_behind.InAClosure)


def verdicts(subject, checks=(THERE, FROM), **given):
    return {
        result.check: result
        for result in check_subject(subject, checks, Budget(max_examples=5), **given)
    }


@pytest.fixture(scope="module")
def other_python(tmp_path_factory):
    """This Python under another path, as if it were another one; all tests share its worker."""
    return python_in(tmp_path_factory.mktemp("other"))


def python_in(folder):
    path = folder / "python of another"
    path.write_text(f'#!/bin/sh\nOTHER_PYTHON=1 exec "{sys.executable}" "$@"\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


@pytest.mark.parametrize("scheduler", LEAVING, ids=lambda scheduler: scheduler.__name__)
def test_state_left_behind_in_the_process_is_seen_by_going_to_another(scheduler):
    subject = Subject(scheduler.__name__, scheduler, length=4)
    here = verdicts(subject, select_checks(["resume_from_file", "resume_by_pickle"]))
    assert verdicts_of(here.values()) == {"HOLDS"}
    found = verdicts(subject)
    assert verdicts_of(found.values()) == {"BROKEN", "HOLDS"}
    assert found[THERE.name].verdict == "BROKEN"
    assert str(found[THERE.name].counterexample.trace) == "train:2 save:a resume:a"


@pytest.mark.parametrize(("scheduler", "options"), [(Halving, {}), (StepLR, {"step_size": 3})])
def test_a_correct_one_holds_both_ways(scheduler, options):
    found = verdicts(Subject("x", scheduler, options=options))
    assert {name: result.verdict for name, result in found.items()} == dict.fromkeys(found, "HOLDS")
    assert all(result.tally.resumes >= 15 for result in found.values())


def test_state_that_torch_cannot_save_is_broken_both_ways():
    found = verdicts(Subject("x", KeepsAnIterator))
    assert [found[check.name].verdict for check in (THERE, FROM)] == ["BROKEN", "BROKEN"]
    assert all("pickle" in r.counterexample.actual["raises"] for r in found.values())


class KeepsAnIterator(Halving):
    def state_dict(self):
        return {**super().state_dict(), "rates": (rate for rate in self.base)}


class Pid(Halving):
    """Its LR is the number of the process."""

    def factor(self):
        return float(os.getpid())

    def state_dict(self):
        return {**super().state_dict(), "parent": os.getppid()}


def ask(check, subject, **request):
    from harness.engine.other_process import segment_text

    text = segment_text(subject.bind({}), check, same=True)
    return worker_of().ask(text, {"data": b"", "index": 0, "epoch": 0, "todo": "", **request}, 1e9)


def test_there_is_one_worker_and_a_fork_of_it_for_every_request():
    replies = [ask(THERE, Subject("x", Pid), todo="w") for _ in range(3)]
    assert len({reply["seen"][0]["lr"][0] for reply in replies}) == 3
    from harness.engine.other_process_main import unpack

    parents = {unpack(reply["saved"][0])["scheduler"]["parent"] for reply in replies}
    assert len(parents) == 1
    assert parents != {os.getpid()}
    assert worker_of() is worker_of("")


def test_nothing_that_one_resume_leaves_is_seen_by_the_next():
    subject = Subject("x", leaves_behind.InAGlobal)
    first, again = (ask(THERE, subject, todo="t" * 5) for _ in range(2))
    assert first == again
    trace = "train:2 save:a resume:a train:1 resume:a train:3"
    assert replay(subject, THERE, trace).counterexample == (
        replay(subject, THERE, trace).counterexample
    )


def test_a_process_that_dies_is_unknown():
    found = verdicts(Subject("x", DiesWhenLoaded))
    assert found[THERE.name].verdict == "UNKNOWN"
    assert "the process died" in found[THERE.name].reason


PID = os.getpid()


class DiesWhenLoaded(Halving):
    def load_state_dict(self, state):
        if os.getpid() != PID:
            os._exit(3)
        super().load_state_dict(state)


def test_a_scheduler_that_hangs_there_ends_with_the_time_limit():
    from harness import Budget

    [result] = check_subject(Subject("x", HangsWhenLoaded), [THERE], Budget(time_limit=1.0))
    assert (result.verdict, result.why) == ("UNKNOWN", Reason.TIME_LIMIT)
    assert replay(Subject("x", Halving), THERE, "train:1 save:a resume:a").verdict == "HOLDS"


class HangsWhenLoaded(Halving):
    def load_state_dict(self, state):
        import time

        time.sleep(100)


def test_what_has_no_source_is_declined():
    factor = 0.5
    found = verdicts(Subject("x", LambdaLR, options={"lr_lambda": lambda epoch: factor**epoch}))
    assert {result.verdict for result in found.values()} == {"DECLINED"}
    assert "a lambda that uses a variable" in found[THERE.name].reason


def test_a_lambda_goes_to_another_process():
    found = verdicts(Subject("x", LambdaLR, options={"lr_lambda": lambda epoch: 0.5**epoch}))
    assert {result.verdict for result in found.values()} == {"HOLDS"}


def test_a_partial_is_sent_as_one():
    found = verdicts(Subject("x", functools.partial(StepLR, step_size=2)))
    assert {result.verdict for result in found.values()} == {"HOLDS"}


def test_it_is_swept_at_few_points_and_not_searched():
    assert not THERE.search
    traces = [" ".join(map(str, operations)) for operations in sweep(THERE, 12)]
    assert [trace.split()[0] for trace in traces] == [
        "save:a", "train:1", "train:2", "train:6", "train:12", "save:a", "train:6",
    ]  # fmt: skip


def test_a_trace_is_cut_before_each_way_back():
    trace = Trace.parse("train:1 save:a resume:a train:2 save:b resume:b")
    assert list(segments(trace.operations)) == [range(2), range(2, 5), range(5, 6)]


def test_a_check_elsewhere_has_nothing_live():
    def roll_back(optimizer, scheduler, checkpoint):
        """Roll back."""

    def build_both(new_optimizer, build, build_other, checkpoint):
        """Build both, and another scheduler."""

    with pytest.raises(CheckError, match="no live optimizer or scheduler"):
        resume_check(other_process="resume")(roll_back)
    with pytest.raises(CheckError, match="no build_other"):
        resume_check(other_process="resume")(build_both)
    with pytest.raises(CheckError, match="'other_process' must be"):
        resume_check(other_process="moon")


def test_they_are_added_where_another_python_is_given():
    both = [check for check in CHECKS if check.other_process]
    assert both == [THERE, FROM]
    assert not any(check.other_process for check in select_checks())
    assert select_checks(["resume_from_file"], other_process=True)[1:] == both
    assert select_checks([FROM], other_process=True) == [FROM]


def test_a_default_check_does_not_import_execnet(tmp_path):
    (tmp_path / "checks.py").write_text(
        "import sys; from torch.optim.lr_scheduler import StepLR; from harness import *\n"
        "check_scheduler(StepLR, step_size=3, checks=['resume_from_file'], max_examples=2)\n"
        "sys.exit('execnet' in sys.modules)\n"
    )
    assert run_python("checks.py", folder=tmp_path, environment={}).returncode == 0


# ------------------------------------------------------------------------- another Python


class OtherOption(Halving):
    """Takes the steps of its save there, and one more."""

    def load_state_dict(self, state):
        super().load_state_dict({"epoch": state["epoch"] + ("OTHER_PYTHON" in os.environ)})


class OtherSchedule(Halving):
    """Has another schedule there."""

    def factor(self):
        return super().factor() * (0.5 if "OTHER_PYTHON" in os.environ else 1.0)


def standalone(scheduler):
    return Subject(scheduler.__name__, scheduler, standalone=True)


def test_what_resumes_wrongly_on_another_python_is_broken(other_python):
    found = verdicts(standalone(OtherOption), resume_python=other_python)
    assert [found[check.name].verdict for check in (THERE, FROM)] == ["BROKEN", "HOLDS"]
    assert "saved on torch" in found[THERE.name].note
    trace = found[THERE.name].counterexample.trace
    again = replay(standalone(OtherOption), THERE, trace, resume_python=other_python)
    assert again.verdict == "BROKEN"
    assert replay(standalone(OtherOption), THERE, trace).verdict == "HOLDS"


def test_what_another_python_saves_otherwise_is_broken(other_python):
    found = verdicts(standalone(NewName), resume_python=other_python)
    assert [found[check.name].verdict for check in (THERE, FROM)] == ["HOLDS", "BROKEN"]
    assert found[FROM.name].counterexample.actual == {"raises": "KeyError: 'epoch'"}


class NewName(Halving):
    """Saves its epoch there by another name, and reads both there alone."""

    def state_dict(self):
        return {"count" if "OTHER_PYTHON" in os.environ else "epoch": self.epoch}

    def load_state_dict(self, state):
        if "OTHER_PYTHON" in os.environ and "count" in state:
            state = {"epoch": state["count"]}
        super().load_state_dict(state)


def test_a_schedule_that_differs_without_any_resume_is_not_compared(other_python):
    found = verdicts(standalone(OtherSchedule), resume_python=other_python)
    for result in found.values():
        assert result.verdict == "UNKNOWN"
        assert "the schedule itself differs between torch" in result.reason
        assert "lr is [0.1, 0.01] here and [0.05, 0.005] there" in result.reason


def test_it_is_compared_up_to_where_the_schedules_part(other_python):
    trace = "train:2 save:a resume:a train:3"
    assert replay(standalone(Parts), THERE, trace, resume_python=other_python).verdict == "HOLDS"
    result = replay(standalone(Parts), THERE, trace + " train:9", resume_python=other_python)
    assert (result.verdict, "after 6 steps" in result.reason) == ("UNKNOWN", True)


class Parts(Halving):
    """Is another from epoch 6 on."""

    def factor(self):
        return super().factor() * (0.5 if "OTHER_PYTHON" in os.environ and self.epoch > 5 else 1.0)


def test_what_cannot_be_imported_there_is_declined(tmp_path, monkeypatch):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    found = verdicts(Subject("x", leaves_behind.InAGlobal), resume_python=python_in(tmp_path))
    assert {result.verdict for result in found.values()} == {"DECLINED"}
    assert "No module named 'leaves_behind'" in found[THERE.name].reason


def test_classes_in_a_state_come_back_by_their_own_names(other_python):
    found = verdicts(standalone(KeepsAnObject), resume_python=other_python)
    assert {result.verdict for result in found.values()} == {"HOLDS"}


class Position:
    def __init__(self, epoch):
        self.epoch = epoch


class KeepsAnObject(Halving):
    def state_dict(self):
        return {"position": Position(self.epoch)}

    def load_state_dict(self, state):
        super().load_state_dict({"epoch": state["position"].epoch})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "cannot be started"),
        ("exit 0", "is not a Python"),
        ("echo 42", "is not a Python"),
        ("echo 42 False", "older than Python 3.8"),
        (f'exec "{sys.executable}" -S -I "$@"', "No module named 'torch'"),
    ],
)
def test_a_path_that_is_no_python_with_torch(tmp_path, text, said):
    path = tmp_path / "python"
    if text is not None:
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
    with pytest.raises(CheckError, match=said):
        Worker(str(path))
    with pytest.raises(CheckError, match=said):
        check_scheduler(StepLR, step_size=3, resume_python=str(path))


def test_the_command_line_says_it_in_one_line(command):
    status, printed, errors = command("check", "StepLR", "--resume-python", "/no/such/python")
    assert (status, printed) == (2, "")
    assert errors.startswith("error: '/no/such/python' cannot be started")
    assert errors.count("\n") == 1


# ---------------------------------------------------------------------------- the script


def test_a_script_starts_itself_in_another_process(run_script):
    trace = "train:2 save:a resume:a"
    text = write_script(Subject("x", leaves_behind.InTheClass, standalone=True), THERE, trace)
    done = run_script(text)
    assert (done.returncode, done.stderr) == (1, "")
    assert "expected lr [0.025, 0.0025], got [0.05, 0.0025]" in done.stdout


@pytest.mark.slow
def test_a_script_of_a_repaired_scheduler_holds_in_another_process(run_script):
    subject = Subject("x", leaves_behind.InTheClass, standalone=True)
    text = write_script(subject, THERE, "train:2 save:a resume:a")
    fixed = text.replace("if self.epoch >= len(self.table)", "while self.epoch >= len(self.table)")
    assert fixed != text
    done = run_script(fixed)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_a_script_takes_another_python(run_script, other_python, tmp_path):
    trace = "train:2 save:a resume:a"
    text = write_script(standalone(OtherOption), THERE, trace, resume_python=other_python)
    assert run_script(text).returncode == 0
    script = tmp_path / "empty" / "script.py"
    for python, status in ((other_python, 1), ("/bin/false", 125)):
        done = subprocess.run(
            [sys.executable, script, python], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (status, "")
