"""What is saved and resumed across the ranks of a gloo group, each a process."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from torch.optim.lr_scheduler import MultiStepLR, StepLR

from harness import Budget, CheckError, Subject, check_subject, replay, write_script
from harness.checks import CHECKS, as_check, select_checks
from harness.decorators import resume_check
from harness.needs import lacking
from harness.ranks import agreed, gather, on_ranks
from harness.sweep import sweep
from lr_schedules.controls import Halving
from lr_schedules.faults import FAULTS
from lr_schedules.faults.ranks import rank_and_ranks

ON, FROM, ACROSS = RANKS = (
    "resume_on_two_ranks", "resume_from_two_ranks", "resume_across_two_ranks"
)  # fmt: skip
BY_NAME = {fault.name: fault for fault in FAULTS}

pytestmark = pytest.mark.skipif(
    bool(lacking("distributed_checkpoint") or lacking("gloo")),
    reason=lacking("distributed_checkpoint") or lacking("gloo") or "none",
)


def verdicts(subject, checks=RANKS, **given):
    return {
        result.check: result for result in check_subject(subject, map(as_check, checks), **given)
    }


def test_a_correct_one_holds_whatever_the_number_of_ranks():
    subject = Subject("StepLR", StepLR, options={"step_size": 3})
    found = verdicts(subject)
    assert [result.verdict for result in found.values()] == ["HOLDS"] * 3
    assert all(result.weights and not result.reason for result in found.values())
    assert all(result.tally.resumes >= 12 for result in found.values())


@pytest.mark.parametrize(
    ("fault", "caught_by"),
    [
        ("CountsForAllRanks", [ON, FROM]),
        ("StartsAgainOnMore", [ON]),
        ("StartsAgainOnFewer", [FROM]),
        ("FirstRankSaves", [ON, ACROSS]),
        ("NewRankSavesLate", [ACROSS]),
    ],
)
def test_each_way_sees_what_the_others_do_not(fault, caught_by):
    subject = BY_NAME[fault].subject
    found = {check: replay(subject, check, BY_NAME[fault].trace).verdict for check in RANKS}
    assert [check for check in RANKS if found[check] == "BROKEN"] == caught_by
    held = replay(subject, "resume_from_distributed_checkpoint", BY_NAME[fault].trace)
    assert held.verdict == "HOLDS"


def test_a_rank_that_differs_is_named():
    fault = BY_NAME["FirstRankSaves"]
    found = replay(fault.subject, ON, fault.trace).counterexample
    assert found.expected["lr"] == [0.05, 0.005]
    assert found.actual["lr"] == "[0.05, 0.005] on rank 0, [0.1, 0.01] on rank 1"


def test_milestones_of_torch_break_across_ranks_as_in_one_process():
    subject = Subject("MultiStepLR", MultiStepLR, options={"milestones": [2]})
    trace = "milestones=[2] train:1 save:a resume:a save:b"
    found = {check: replay(subject, check, trace) for check in RANKS}
    alone = replay(subject, "resume_from_distributed_checkpoint", trace)
    assert alone.verdict == "BROKEN"
    assert {result.verdict for result in found.values()} == {"BROKEN"}
    raised = {result.counterexample.actual["raises"] for result in (alone, *found.values())}
    assert len(raised) == 1


class ForAllRanks(Halving):
    """Has another schedule on more ranks."""

    def factor(self):
        return super().factor() / rank_and_ranks()[1]


def test_a_schedule_that_depends_on_the_ranks_is_not_compared():
    for result in verdicts(Subject("x", ForAllRanks)).values():
        assert result.verdict == "UNKNOWN"
        assert "the schedule itself differs on 2 ranks, without any resume" in result.reason
        assert "lr is [0.1, 0.01] here and [0.05, 0.005] there" in result.reason


class RaisesOnTheSecond(Halving):
    def load_state_dict(self, state):
        if rank_and_ranks()[0] == 1:
            raise ValueError("not for me")
        super().load_state_dict(state)


def test_an_error_on_one_rank_is_not_waited_for_by_the_other():
    started = time.monotonic()
    result = replay(Subject("x", RaisesOnTheSecond), ON, "train:1 save:a resume:a save:b")
    assert result.counterexample.actual == {"raises": "ValueError: not for me"}
    assert time.monotonic() - started < 60


class DiesOnTheSecond(Halving):
    def load_state_dict(self, state):
        if rank_and_ranks()[0] == 1:
            os._exit(3)
        super().load_state_dict(state)


def test_a_rank_that_dies_is_unknown():
    result = replay(Subject("x", DiesOnTheSecond), ON, "train:1 save:a resume:a")
    assert (result.verdict, "rank 1: it died" in result.reason) == ("UNKNOWN", True)


class HangsOnTheSecond(Halving):
    def load_state_dict(self, state):
        if rank_and_ranks()[0] == 1:
            time.sleep(1000)
        super().load_state_dict(state)


def test_ranks_that_hang_end_with_the_time_limit():
    [result] = check_subject(Subject("x", HangsOnTheSecond), [as_check(ON)], Budget(time_limit=3.0))
    assert (result.verdict, "time limit" in result.reason) == ("UNKNOWN", True)


def test_without_gloo_or_fork_they_are_declined(monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_gloo_available", lambda: False)
    found = verdicts(Subject("x", Halving), [ON])
    assert (found[ON].verdict, found[ON].reason) == ("DECLINED", "this torch has no gloo")
    monkeypatch.delattr(os, "fork")
    assert lacking("gloo") == "this system can't fork a process"


def test_they_are_asked_for_by_name_and_swept_at_few_points():
    checks = [as_check(name) for name in RANKS]
    assert [check for check in CHECKS if check.ranks > 1] == checks
    assert not any(check.default or check.search for check in checks)
    assert not any(check in select_checks(elsewhere=True) for check in checks)
    starts = [str(operations[0]) for operations in sweep(checks[0], 12)]
    assert starts == ["train:1", "train:2", "train:6", "train:12"]


@pytest.mark.parametrize("given", [{"ranks": 2}, {"ranks": 0, "elsewhere": "all"}])
def test_ranks_are_processes_elsewhere(given):
    def resume(new_optimizer, build, checkpoint):
        """Resume."""

    with pytest.raises(CheckError, match="'ranks' must be 1, or more with 'elsewhere'"):
        resume_check(**given)(resume)


# ---------------------------------------------------------------------------- what they reply


def segment(request):
    return {"seen": [{"lr": rank_and_ranks()}], "saved": [], "raised": "", **request}


def test_every_rank_is_a_process_of_one_group():
    assert on_ranks(segment, 3, {})["seen"] == [
        {"lr": "(0, 3) on rank 0, (1, 3) on rank 1, (2, 3) on rank 2"}
    ]


def test_what_goes_wrong_in_a_rank_is_said():
    with pytest.raises(RuntimeError, match="rank 0: TypeError"):
        on_ranks(lambda: None, 1, {})


def reply(*seen, saved=(), raised=""):
    return {"seen": [{"lr": value} for value in seen], "saved": list(saved), "raised": raised}


@pytest.mark.parametrize(
    ("replies", "expected"),
    [
        ([reply(1, 2), reply(1, 2)], reply(1, 2)),
        ([reply(1, saved="a"), reply(1, saved="b")], reply(1, saved="a")),
        ([reply(1, 2), reply(1, 3)], reply(1, "2 on rank 0, 3 on rank 1")),
        ([reply(1, 2), reply(1, raised="here")], reply(1, raised="here")),
        ([reply(1, raised="first"), reply(1, raised="second")], reply(1, raised="first")),
        ([reply(1, 2, raised="late"), reply(1, raised="soon")], reply(1, raised="soon")),
    ],
)
def test_the_ranks_agree_on_one_reply(replies, expected):
    assert agreed(replies) == expected


def test_a_rank_that_waits_for_one_that_raised_is_left_out():
    import pickle

    (first, _open), (second, sink) = os.pipe(), os.pipe()
    os.write(sink, pickle.dumps(reply(raised="gone")))
    os.close(sink)
    assert gather([first, second]) == [reply(raised="gone")]


def test_no_rank_outlives_who_started_it():
    code = (
        "import os, time, harness.ranks\n"
        "from harness.ranks import on_ranks\n"
        "def wait(request):\n"
        "    os.write(1, b'%d\\n' % os.getpid())\n"  # whole, whatever the other rank writes
        "    time.sleep(1000)\n"
        "on_ranks(wait, 2, {})\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    ) as parent:
        try:
            ranks = [int(parent.stdout.readline()) for _ in range(2)]
        finally:
            parent.send_signal(signal.SIGKILL)
        parent.stdout.read()  # ends when no process has it open
    end = time.monotonic() + 20
    while any(map(alive, ranks)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(map(alive, ranks))


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        return file.read().rpartition(")")[2].split()[0] != "Z"


# ---------------------------------------------------------------------------------- the script


@pytest.mark.slow
def test_a_script_starts_the_ranks(run_script):
    fault = BY_NAME["StartsAgainOnFewer"]
    text = write_script(fault.subject, FROM, fault.trace)
    done = run_script(text)
    assert (done.returncode, done.stderr) == (1, "")
    assert "lr must be [0.05, 0.005], and is [0.1, 0.01]" in done.stdout
    done = run_script(text.replace('if rank_and_ranks()[1] >= state["ranks"]', "if True"))
    assert (done.returncode, done.stderr) == (0, "")
