import ast
import functools
import re
import subprocess
import sys
import warnings
from pathlib import Path

import faulty
import pytest
from helpers import verdicts_of
from torch.optim.lr_scheduler import ConstantLR, ExponentialLR, LambdaLR, StepLR

import harness
from harness import (
    BrokenSchedule,
    CheckError,
    HarnessError,
    Subject,
    SubjectError,
    TraceError,
    UndecidedError,
    check_scheduler,
    failures,
    replay,
    resume_check,
    state_check,
)
from harness.checks.registry import ABOUT_EVENTS, select_checks
from harness.core.errors import LedgerError
from harness.core.ledger import entry_text
from harness.report.text import broken_text
from harness.subjects.lookup import as_subject
from lr_schedules import LinearAnnealingLR

DEFAULT = [check.name for check in select_checks()]


def test_check_scheduler_returns_what_holds():
    options = {"num_annealing_steps": 2, "num_total_steps": 4}
    subject = Subject("x", LinearAnnealingLR, options=options, length=5)
    results = check_scheduler(subject, max_examples=1)
    assert [result.check for result in results] == DEFAULT
    declined = {check.name for check in ABOUT_EVENTS.values()}  # its next step replaces such an LR
    assert verdicts_of(each for each in results if each.check not in declined) == {"HOLDS"}
    assert {each.verdict for each in results if each.check in declined} <= {"DECLINED"}


def test_check_scheduler_raises_an_assertion_with_the_report():
    with pytest.raises(AssertionError) as caught:
        check_scheduler(StepLR, step_size=3, gamma=0.5, max_examples=1)
    assert isinstance(caught.value, BrokenSchedule)
    assert len(caught.value.results) == len(DEFAULT)
    [failure] = failures(caught.value.results)
    assert str(caught.value) == broken_text(failure)
    assert failure.checks == ("resume_by_last_epoch",)
    trace = "step_size=3 gamma=0.5 train:3 save:a resume:a"
    assert str(failure.counterexample.trace) == trace
    assert failure.result.references[0] == "torch.optim.lr_scheduler:StepLR"


def test_check_scheduler_does_not_pass_if_nothing_was_checked():
    what = "^nothing was checked, because nothing changes in the schedule: .*DECLINED ConstantLR"
    with pytest.raises(UndecidedError, match=f"(?s){what}"):
        check_scheduler(ConstantLR, factor=1.0, checks=DEFAULT[:2])
    meant = Subject("x", ConstantLR, options={"factor": 1.0}, constant=True)
    assert verdicts_of(check_scheduler(meant, checks=DEFAULT[:2])) == {"HOLDS"}


def test_check_scheduler_takes_known_failures(tmp_path):
    entry = {
        "subject": "torch.optim.lr_scheduler:StepLR",
        "check": "resume_by_last_epoch",
        "torch": ">=1.13",
        "trace": "step_size=3 gamma=0.5 train:3 save:a resume:a",
        "shows": "lr is [0.025, 0.0025] and should be [0.05, 0.005]",
        "relation": "multiplied a second time by the factor of the last step",
        "kind": "bug",
        "tracked": "like pytorch/pytorch#102261",
        "reason": "It decays again.",
    }
    (tmp_path / "known.toml").write_text(entry_text(entry))
    known = tmp_path / "known.toml"
    check = functools.partial(
        check_scheduler, StepLR, step_size=3, gamma=0.5, max_examples=5,
        checks=["resume_by_last_epoch", "resume_by_pickle", "lr_is_never_negative"],
    )  # fmt: skip
    results = check(ledger=str(known))
    assert [r.check for r in results if r.verdict == "KNOWN"] == ["resume_by_last_epoch"]
    assert verdicts_of(r for r in results if r.verdict != "KNOWN") == {"HOLDS"}
    stale = tmp_path / "stale.toml"
    stale.write_text(entry_text({**entry, "check": "resume_by_pickle"}))
    with pytest.raises(BrokenSchedule, match=r"STALE StepLR: resume_by_pickle\n  .*stale.toml:1"):
        check(ledger=[known, stale])
    with pytest.raises(LedgerError, match=r"none\.toml"):
        check_scheduler(StepLR, step_size=3, ledger=tmp_path / "none.toml")


def test_check_scheduler_takes_what_a_subject_has():
    check = functools.partial(check_scheduler, StepLR, step_size=3, gamma=0.5, max_examples=0)
    steps = []

    def step(scheduler, epoch):
        steps.append(epoch)
        scheduler.step()

    results = check(
        checks=["lr_is_finite", "resume_by_pickle", "resume_by_last_epoch"], length=4, step=step,
        optimizer="AdamW(groups=1)", declines={"resume_by_pickle": "not now"},
        expected_failures={"resume_by_last_epoch": "issue 12"},
    )  # fmt: skip
    assert [result.verdict for result in results] == ["HOLDS", "DECLINED", "KNOWN"]
    assert results[2].reason == "expected to fail: issue 12"
    assert str(results[2].counterexample.trace).startswith("optimizer=AdamW(groups=1) ")
    assert steps
    with pytest.raises(BrokenSchedule, match="it holds: remove it from 'expected_failures'"):
        check(checks=["lr_is_finite"], expected_failures={"lr_is_finite": "issue 13"})


def test_a_subject_without_a_name_on_the_command_line_is_reproduced_in_python():
    subject = Subject("mine", faulty.Drains)
    with pytest.raises(BrokenSchedule) as caught:
        check_scheduler(subject, checks=["resume_twice_from_one_dict"])
    line = str(caught.value).splitlines()[-2].strip()
    with pytest.MonkeyPatch.context() as patch:
        seen = []
        patch.setattr("builtins.print", seen.append)
        eval(line, {"harness": harness, "subject": subject, "print": print})
    assert seen == ["BROKEN"]


def test_check_scheduler_says_what_it_could_not_decide():
    with pytest.raises(UndecidedError, match="UNKNOWN Random: "):
        check_scheduler(Subject("Random", faulty.Random))


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((3,), {}, "Subject"),
        ((StepLR,), {"step_size": 3, "gama": 0.5}, "'gama' .*gamma"),
        ((StepLR,), {"step_size": 3, "last_epoch": 2}, "'last_epoch'"),
        (
            (StepLR,),
            {"step_size": 3, "checks": ["resume_from_fil"]},
            "resume_from_file",
        ),
        ((StepLR,), {"step_size": 3, "checks": [len]}, "resume_check"),
        ((StepLR,), {"step_size": 3, "max_examples": -1}, "got -1"),
        ((StepLR,), {"step_size": 3, "time_limit": 0}, "got 0"),
    ],
)
def test_bad_arguments_are_refused(arguments, options, message):
    with pytest.raises(HarnessError, match=message):
        check_scheduler(*arguments, **options)


def test_a_users_own_check_is_used():
    @state_check(at="step")
    def rate_is_below_one(optimizer):
        """No LR reaches 1."""
        rates = [group["lr"] for group in optimizer.param_groups]
        return {"lr": [min(rate, 0.99) for rate in rates]}, {"lr": rates}

    assert rate_is_below_one.__name__ == "rate_is_below_one"
    [result] = check_scheduler(ExponentialLR, gamma=0.9, checks=[rate_is_below_one])
    assert result.verdict == "HOLDS"
    with pytest.raises(BrokenSchedule, match=rate_is_below_one.__doc__):
        check_scheduler(ExponentialLR, gamma=2.0, checks=[rate_is_below_one])


@pytest.mark.parametrize(
    ("decorate", "message"),
    [
        (lambda: resume_check(lambda optimizer: None), "docstring"),
        (lambda: resume_check(at="never"), "'never'"),
        (lambda: state_check(at="resume"), "'resume'"),
        (lambda: state_check(at="save", compares="all"), "'all'"),
    ],
)
def test_what_is_no_check_is_refused(decorate, message):
    with pytest.raises(CheckError, match=message):
        decorate()


def test_a_parameter_that_no_check_can_take_is_refused():
    def resume(model):
        """Restores the model."""

    with pytest.raises(CheckError, match="'model'"):
        resume_check(resume)


@pytest.mark.parametrize(
    ("trace", "verdict", "reason"),
    [
        ("step_size=3 gamma=0.5 train:3 save:a resume:a", "BROKEN", ""),
        ("step_size=3 gamma=0.5 train:4 save:a resume:a", "HOLDS", ""),
        ("step_size=3 gamma=0.5 train:4 save:a", "UNKNOWN", ""),
        ("step_size=0 train:4 save:a resume:a", "UNKNOWN", "ZeroDivisionError"),
    ],
)
def test_replay_runs_exactly_one_trace(trace, verdict, reason):
    result = replay(StepLR, "resume_by_last_epoch", trace)
    assert result.verdict == verdict
    assert reason in result.reason


def test_replay_refuses_what_is_no_trace():
    with pytest.raises(TraceError):
        replay(StepLR, "resume_by_last_epoch", "train:3 resume:a")


def test_warnings_of_the_run_are_not_shown():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_scheduler(ExponentialLR, gamma=0.9, checks=["resume_from_file", "resume_by_pickle"])


def test_a_subject_may_be_named_by_its_place():
    [result] = check_scheduler("faulty:Counter", checks=["resume_at_every_save"])
    assert (result.subject, result.verdict) == ("Counter", "HOLDS")
    with pytest.raises(SubjectError, match="module:attribute"):
        check_scheduler("StepLR")


# ------------------------------------------------------ what a constructor's type hints say


def halves_every(optimizer, every: int, last_epoch=-1):
    return LambdaLR(optimizer, functools.partial(_half, every), last_epoch)


def _half(every, epoch):
    return 0.5 ** (epoch // every)


class HalvesEvery(LambdaLR):
    def __init__(self, optimizer, every: int, by=None, *, unhinted=0, last_epoch=-1):
        super().__init__(optimizer, functools.partial(_half, every), last_epoch)


class NeedsAName(HalvesEvery):
    def __init__(self, optimizer, every: int, name: str, last_epoch=-1):
        super().__init__(optimizer, every, last_epoch=last_epoch)


@pytest.mark.parametrize("build", [halves_every, HalvesEvery, "test_api:HalvesEvery"])
def test_what_a_class_or_function_needs_is_drawn_by_its_type_hints(build):
    [result] = check_scheduler(build, checks=["resume_optimizer_then_scheduler"], max_examples=1)
    assert result.verdict == "HOLDS"
    subject = as_subject(build)
    assert set(subject.drawn_fields) == {"every"}
    assert as_subject(build, options={"every": 2}).options == {"every": 2}
    assert replay(build, "resume_by_pickle", "every=3 train:2 save:a resume:a").verdict == "HOLDS"


def test_what_type_hints_do_not_say_is_asked_for():
    with pytest.raises(SubjectError, match=r"name=\.\.\..* --kwargs 'name=\.\.\.'"):
        check_scheduler(NeedsAName)
    assert set(as_subject(NeedsAName, options={"name": "x"}).drawn_fields) == {"every"}


# ------------------------------------------------------------ what no schedule ends by


class Crashes(HalvesEvery):
    def __init__(self, optimizer, every: int, wrong: bool = True, last_epoch=-1):
        self.wrong = wrong
        super().__init__(optimizer, every, last_epoch=last_epoch)

    def get_lr(self):
        if self.last_epoch > 3:
            if self.wrong:
                return [no_such_name for _ in self.base_lrs]  # noqa: F821
            raise ValueError("it is over")
        return super().get_lr()


@pytest.mark.parametrize("options", [{"every": 2}, {}])
def test_a_mistake_in_the_code_is_no_end_of_a_schedule(options):
    with pytest.raises(UndecidedError) as caught:
        check_scheduler(Crashes, checks=["resume_by_deepcopy"], **options)
    assert re.search(r"NameError: .*'no_such_name'.* \(every=.* train:4\)", str(caught.value))


def test_a_value_error_may_be_the_end_of_a_schedule():
    [result] = check_scheduler(Crashes, every=2, wrong=False, checks=["resume_by_deepcopy"])
    assert (result.verdict, "it is over" in result.note) == ("HOLDS", True)


# ------------------------------------------------------------------- pairs that break alike


def test_pairs_that_one_trace_breaks_alike_are_one_block():
    ways = ["resume_optimizer_then_scheduler", "resume_scheduler_then_optimizer"]
    with pytest.raises(BrokenSchedule) as caught:
        check_scheduler(faulty.Forgets, checks=[*ways, "resume_by_last_epoch"])
    text = str(caught.value)
    assert text.count("BROKEN Forgets: ") == 1
    [failure] = [each for each in failures(caught.value.results) if len(each.checks) > 1]
    assert failure.checks == (ways[0], ways[1])
    assert ["checks", f"{ways[0]},", ways[1]] in [line.split() for line in text.splitlines()]
    assert len(caught.value.results) == 3


WITHOUT_PYTEST = """
import sys

class NoPytest:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("pytest", "_pytest"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NoPytest())
"""
SHOWS_ALL = """
import pydoc
import harness

print(*dir(harness))
names = {}
exec("from harness import *", names)
assert harness.__all__ and {*harness.__all__} <= {*names}
text = pydoc.plain(pydoc.render_doc(harness))
for name in harness.__all__:
    assert name in text, name
assert "A decorator that calls" in text
assert not {"pytest", "_pytest"} & {*sys.modules}
try:
    harness.parametrize_with_checks([])
except ModuleNotFoundError as error:
    assert error.name == "pytest"
else:
    raise AssertionError("pytest is there")
"""


def test_every_public_name_can_be_seen_without_pytest():
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_PYTEST + SHOWS_ALL],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert {*harness.__all__, "__version__"} <= {*done.stdout.split()}


def test_type_checkers_see_the_same_names():
    tree = ast.parse(Path(harness.__file__).read_text())
    [block] = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {name.asname: line.module for line in block.body for name in line.names}
    assert seen == {name: f"harness.{module}" for name, module in harness._HOME.items()}
