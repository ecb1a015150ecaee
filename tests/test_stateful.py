"""The machine for Hypothesis, in this process and in pytest."""

import unittest

import hypothesis
import pytest
import torch
from hypothesis import Phase
from hypothesis.database import InMemoryExampleDatabase
from hypothesis.stateful import run_state_machine_as_test
from torch.optim.lr_scheduler import ConstantLR, ExponentialLR, StepLR

from harness import (
    BrokenSchedule,
    CheckError,
    Subject,
    SubjectError,
    UndecidedError,
    resume_check,
    resume_machine,
    settings,
)
from harness.checks.registry import as_check, checks_used, select_checks
from harness.core.errors import LedgerError
from harness.core.ledger import entry_text
from harness.core.trace import Trace
from harness.engine.live import Broken, _alone
from harness.engine.machine import DrawPlan, draw_operations
from harness.engine.one_run import LiveRun, Runner, Stop, TraceRun
from lr_schedules.controls import CONTROLS
from lr_schedules.faults import FAULTS

STEP = {"step_size": 3, "gamma": 0.5}
TRACE = "step_size=3 gamma=0.5 train:3 save:a resume:a"
LAST = "resume_by_last_epoch"
MAX_EXAMPLES = 100
"""The default of Hypothesis: what a user's test tries."""
FAULTY = (
    "SavesNoPosition", "LoadsADelta", "OffByOne", "BaseFromDecayed", "IgnoresInitialLR",
    "AppliesAgain", "StartsAnew", "OptionReset", "MilestonesUsedUp", "BestLost",
    "CooldownLost", "WrongAtAMilestone", "SecondResumeWrong", "PendingKept", "ClassAttribute",
    "LoadAfterACopy",
)  # fmt: skip
SUBJECTS = {fault.name: fault.subject for fault in FAULTS}
BY_NAME = {fault.name: fault for fault in FAULTS}
DEFAULT = {
    check.name
    for check in select_checks()
    if check.kind == "resume" and not (check.mixes or check.event)
}


@pytest.fixture(autouse=True)
def unhurried(monkeypatch):
    """A busy machine is no failure."""
    monkeypatch.setattr(settings, "current", settings.Settings(time_limit=3600))


def run(machine, max_examples=MAX_EXAMPLES, seed=0, **given):
    """Run the test of a machine with a seed; what it raises is raised."""
    case = machine.TestCase
    given = {"database": None, "max_examples": max_examples, **given}
    case.settings = hypothesis.settings(case.settings, **given)
    hypothesis.seed(seed)(machine)
    case("runTest").runTest()
    return machine._live()


def failure(machine, **given):
    """The only result of a machine that fails."""
    with pytest.raises(BrokenSchedule) as caught:
        run(machine, **given)
    [result] = caught.value.results
    return result


# --------------------------------------------------------------------------- what it finds


def test_steplr_fails_with_the_minimal_trace():
    result = failure(resume_machine(StepLR, **STEP))
    assert (result.check, str(result.counterexample.trace)) == (LAST, TRACE)


@pytest.mark.parametrize("name", ["LoadsADelta", "WrongAtAMilestone"])
def test_planted_faults_are_found(name):
    assert failure(resume_machine(SUBJECTS[name])).check in BY_NAME[name].caught_by


@pytest.mark.parametrize("index", [0, 9])
def test_controls_are_silent(index):
    live = run(resume_machine(CONTROLS[index]), max_examples=3, stateful_step_count=20)
    assert live.tally.resumes > 3


@pytest.mark.slow
@pytest.mark.parametrize("name", [*FAULTY, "StepLR"])
def test_every_fault_of_the_list_is_found_with_19_of_20_seeds(name):
    found = []
    for seed in range(20):
        machine = (
            resume_machine(StepLR, **STEP) if name == "StepLR" else resume_machine(SUBJECTS[name])
        )
        try:
            run(machine, seed=seed)
        except BrokenSchedule as error:
            found.append(error.results[0])
        machine._live.cache_clear()  # what 20 of them know is a lot
    caught_by = (LAST,) if name == "StepLR" else (*BY_NAME[name].caught_by, "resumes_mixed")
    assert {result.check for result in found} <= set(caught_by)
    assert len(found) >= 19
    if name == "StepLR":
        assert {str(result.counterexample.trace) for result in found} == {TRACE}


@pytest.mark.slow
@pytest.mark.parametrize("control", CONTROLS, ids=lambda control: control.name)
def test_every_control_is_silent(control):
    machine = resume_machine(control)
    assert run(machine).tally.resumes > 100
    machine._live.cache_clear()


def test_it_goes_back_in_all_default_ways_and_by_initial_lr_where_that_holds():
    groups = resume_machine(CONTROLS[1])._live().groups
    ways = {way.name for group in groups for way in group.routes}
    assert ways == DEFAULT | {"resume_by_initial_lr"}
    groups = resume_machine(ExponentialLR, gamma=0.5)._live().groups
    assert {way.name for group in groups for way in group.routes} == DEFAULT
    assert groups[0].check.name == "resumes_mixed"


def test_checks_are_chosen():
    result = failure(resume_machine(ExponentialLR, gamma=0.5, checks=["resume_by_initial_lr"]))
    assert str(result.counterexample.trace) == "gamma=0.5 train:1 save:a resume:a"
    result = failure(resume_machine(SUBJECTS["OffByOne"], checks=["resume_at_every_save"]))
    assert (result.check, result.counterexample.trace.resumes) == ("resume_at_every_save", 0)


def test_a_check_about_an_operation_by_hand_is_tried_with_the_others():
    [fault] = [f for f in FAULTS if f.caught_by == ("resume_after_halve_lr",)][:1]
    # Hypothesis draws other examples where other modules are imported; 100 find it 7 times of 8.
    result = failure(resume_machine(fault.subject), max_examples=1000)
    assert result.check == "resume_after_halve_lr"
    assert "halve_lr" in str(result.counterexample.trace)


def test_a_check_of_the_user_is_tried_alone():
    @resume_check
    def start_anew(new_optimizer, build):
        """Forget everything."""
        optimizer = new_optimizer()
        return optimizer, build(optimizer)

    machine = resume_machine(ExponentialLR, gamma=0.5, checks=["resume_by_pickle", start_anew])
    result = failure(machine)
    assert (result.check, str(result.counterexample.trace)) == (
        "start_anew", "gamma=0.5 train:1 save:a resume:a"
    )  # fmt: skip


def test_drawn_options_are_tried():
    result = failure(resume_machine(StepLR, checks=[LAST]))
    options = dict(result.counterexample.trace.options)
    assert options["step_size"] >= 1


# ------------------------------------------------------------------ what it says otherwise


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"checks": ["lr_is_finite"]}, CheckError, "a machine cannot try lr_is_finite: "),
        ({"checks": ["resume_in_another_process"]}, CheckError, "use check_scheduler for the"),
        ({"checks": ["resume_by_pickel"]}, CheckError, "did you mean resume_by_pickle"),
        ({"gama": 0.5}, SubjectError, r"'gama' \(did you mean gamma\?\)"),
        ({"ledger": "none.toml"}, LedgerError, "none.toml"),
    ],
)
def test_wrong_arguments_are_refused_at_once(arguments, error, message):
    with pytest.raises(error, match=message):
        resume_machine(ExponentialLR, **arguments)


def test_nothing_changes_and_cannot_be_built_are_errors():
    with pytest.raises(UndecidedError, match=r"^nothing was checked, because nothing changes"):
        run(resume_machine(ConstantLR, factor=1.0))
    with pytest.raises(UndecidedError, match="ZeroDivisionError"):
        run(resume_machine(Subject("bad", lambda optimizer, last_epoch=-1: 1 / 0)))


def test_a_machine_without_checks_left_is_skipped():
    subject = Subject("x", ExponentialLR, options={"gamma": 0.5}, declines={LAST: "it has none"})
    with pytest.raises(unittest.SkipTest, match="DECLINED x: resume_by_last_epoch\n  it has none"):
        run(resume_machine(subject, checks=[LAST]))


ENTRY = {
    "subject": "torch.optim.lr_scheduler:StepLR",
    "check": LAST,
    "torch": ">=1.13",
    "trace": TRACE,
    "shows": "lr is [0.025, 0.0025] and should be [0.05, 0.005]",
    "relation": "multiplied a second time by the factor of the last step",
    "kind": "bug",
    "tracked": "like pytorch/pytorch#102261",
    "reason": "It decays again.",
}


def test_a_known_failure_is_no_failure_and_others_are_found(tmp_path):
    ledger = tmp_path / "known.toml"
    ledger.write_text(entry_text(ENTRY))
    few = {"max_examples": 3, "stateful_step_count": 20}
    live = run(resume_machine(StepLR, **STEP, ledger=ledger), **few)
    assert {check.name for check in live.known} == {LAST}
    assert [len(group.routes) for group in live.groups].count(1) == 2  # known, and at every save
    machine = resume_machine(StepLR, **STEP, ledger=ledger, checks=["resume_by_initial_lr", LAST])
    assert failure(machine).check == "resume_by_initial_lr"


def test_a_known_failure_that_is_not_there_fails(tmp_path):
    ledger = tmp_path / "known.toml"
    ledger.write_text(entry_text({**ENTRY, "check": "resume_by_pickle"}))
    with pytest.raises(BrokenSchedule, match=r"STALE StepLR: resume_by_pickle"):
        run(resume_machine(StepLR, **STEP, ledger=ledger))


# -------------------------------------------------------------------- a citizen of Hypothesis


def test_keys_of_the_database_differ_by_subject_options_and_checks():
    keys = []
    for machine in (
        resume_machine(StepLR, **STEP, checks=[LAST]),
        resume_machine(StepLR, **STEP, checks=[LAST]),
        resume_machine(StepLR, step_size=2, gamma=0.5, checks=[LAST]),
        resume_machine(StepLR, **STEP, checks=["resume_by_initial_lr"]),
        resume_machine(Subject("x", StepLR, options=STEP), checks=[LAST]),
    ):
        database = InMemoryExampleDatabase()
        failure(machine, database=database)
        keys.append(max(database.data, key=lambda key: len(database.data[key])))
    first, second, *others = keys
    assert first == second
    assert len({first, *others}) == 4


def test_functions_without_a_name_make_a_difference():
    half, third = (
        Subject("x", StepLR, options=STEP, step=lambda scheduler, epoch: scheduler.step()),
        Subject("x", StepLR, options=STEP, step=lambda scheduler, epoch: (scheduler.step(), 1)),
    )
    one, other = (resume_machine(each)._hypothesis_internal_add_digest for each in (half, third))
    assert one != other
    assert b" at 0x" not in one


def test_the_database_is_tried_first():
    database = InMemoryExampleDatabase()
    first = failure(resume_machine(StepLR, **STEP), database=database)
    again = failure(resume_machine(StepLR, **STEP), database=database, phases=[Phase.reuse])
    assert again.counterexample == first.counterexample


@pytest.fixture
def profile():
    """Loads a profile of Hypothesis, until the test ends."""
    before = hypothesis.settings.get_current_profile_name()

    def load(**given):
        hypothesis.settings.register_profile("of the user", **given)
        hypothesis.settings.load_profile("of the user")

    yield load
    hypothesis.settings.load_profile(before)


def test_the_users_profile_is_obeyed(profile):
    profile(max_examples=7, stateful_step_count=2, derandomize=True, database=None)
    machine = resume_machine(ExponentialLR, gamma=0.5)
    machine.TestCase("runTest").runTest()
    assert machine._live().tally.traces == 7
    used = machine.TestCase.settings
    assert (used.max_examples, used.derandomize) == (7, True)
    assert set(used.phases) == {*Phase} - {Phase.shrink, Phase.explain}


def test_what_hypothesis_sets_on_a_machine_is_obeyed():
    machine = hypothesis.settings(max_examples=5, stateful_step_count=2)(
        resume_machine(ExponentialLR, gamma=0.5)
    )
    machine.TestCase("runTest").runTest()
    assert machine._live().tally.traces == 5


def test_without_its_test_case_the_report_is_the_same():
    machine = hypothesis.seed(0)(resume_machine(StepLR, **STEP, checks=[LAST]))
    with pytest.raises(BrokenSchedule) as caught:
        run_state_machine_as_test(
            machine, settings=hypothesis.settings(machine.TestCase.settings, database=None)
        )
    assert str(caught.value.results[0].counterexample.trace) == TRACE


def test_unittest_shows_the_report_alone():
    case = resume_machine(StepLR, **STEP, checks=[LAST]).TestCase("runTest")
    result = unittest.TestResult()
    case.run(result)
    [(_, text)] = result.failures
    assert f"counterexample  {TRACE}\n" in text
    assert "harness/" not in text.partition("BROKEN")[0]
    assert "state.leg(" not in text


USER = """
import warnings
from harness import resume_machine
from torch.optim.lr_scheduler import ExponentialLR, StepLR

class Loud(ExponentialLR):
    def __init__(self, optimizer, last_epoch=-1):
        super().__init__(optimizer, 0.5, last_epoch)
    def step(self, epoch=None):
        warnings.warn("loud")
        print("loud")
        super().step()

TestStep = resume_machine(StepLR, step_size=3, gamma=0.5).TestCase
TestLoud = resume_machine(Loud).TestCase
"""
pytest_plugins = ["pytester"]


@pytest.fixture
def user(pytester):
    """Runs pytest on `USER`, with few examples of a seed."""
    pytester.makepyfile(test_user=USER)
    pytester.makeconftest(
        "import hypothesis\n"
        "hypothesis.settings.register_profile('few', max_examples=60, stateful_step_count=12)\n"
        "hypothesis.settings.load_profile('few')\n"
    )
    plugins = ("-p", "lr_resume_harness.pytest_plugin", "-p", "no:randomly")
    before = hypothesis.settings.get_current_profile_name()
    yield lambda *more, run=pytester.runpytest_inprocess: run(
        *plugins, "-W", "error", "-W", "ignore::pytest.PytestAssertRewriteWarning",
        "--hypothesis-seed=1", "--lr-time-limit=3600", *more,
    )  # fmt: skip
    hypothesis.settings.load_profile(before)
    hypothesis.core.global_force_seed = None


def test_pytest_shows_the_report_the_line_and_no_warning(user):
    result = user("--hypothesis-show-statistics")
    assert result.parseoutcomes() == {"failed": 1, "passed": 1}
    text = result.stdout.str()
    shown = text[text.index("BROKEN") : text.index("Hypothesis Statistics")]
    assert shown.startswith(f"BROKEN StepLR: {LAST} (torch {torch.__version__})\n")
    assert f"  counterexample  {TRACE}\n" in shown
    line = (
        USER.strip().splitlines().index(next(x for x in USER.splitlines() if "TestStep" in x)) + 1
    )
    assert f"\ntest_user.py:{line}: BROKEN StepLR" in shown
    assert "state." not in text
    assert "stateful.py" not in text
    result.stdout.fnmatch_lines(
        ["*resumed with resume_by_pickle", "lr-resume-harness: looked at*epochs *"]
    )
    assert "loud" not in text.replace("Loud: its output is not shown; it begins: loud", "")


@pytest.mark.slow
def test_it_runs_in_workers_of_xdist(user, pytester):
    pytest.importorskip("xdist")
    result = user("-n", "2", run=pytester.runpytest_subprocess)
    assert result.parseoutcomes() == {"failed": 1, "passed": 1}
    assert f"  counterexample  {TRACE}\n" in result.stdout.str()


# ------------------------------------------------------------------------------ live objects


@pytest.mark.parametrize("name", ["LoadsADelta", "SecondResumeWrong", "PendingKept", None])
def test_a_live_run_sees_what_the_run_of_a_trace_sees(name):
    subject = SUBJECTS[name] if name else CONTROLS[0]
    check = as_check(BY_NAME[name].caught_by[0] if name else "resume_by_pickle")
    bound = subject.bind({})
    plan = DrawPlan(((check.at, "", check.from_epoch),), epochs=24, length=12)
    different = 0
    for operations in draw_operations(plan, 18, 3):
        trace = Trace(operations)
        expected = TraceRun(Runner(bound, left_out={"weights"}), check, trace).go()
        live, seen = LiveRun(Runner(bound, left_out={"weights"}), check), None
        try:
            live.start()
            for operation, used in zip(operations, checks_used(check, trace), strict=True):
                live.do(operation, used)
        except Stop as stop:
            seen = stop.outcome.difference
        assert seen == expected.difference
        different += seen is not None
    assert bool(different) == bool(name)


@pytest.mark.parametrize(
    ("trace", "alone"),
    [
        ("train:3 save:a resume:a@resume_by_pickle", "train:3 save:a resume:a"),
        (
            "train:1 save:a train:2 save:b resume:a@resume_from_file train:4 "
            "load:b@roll_back_in_place scheduler:1 save:a resume:a@resume_by_pickle train:1",
            "train:1 save:a train:2 save:b scheduler:1 save:a resume:a train:1",
        ),
        ("save:a train:2 resume:a@resume_from_file resume:a@resume_by_pickle", "save:a resume:a"),
    ],
)
def test_a_mixed_trace_is_read_as_one_of_its_last_check(trace, alone):
    check = as_check("resume_by_pickle")
    assert list(_alone(check, Trace.parse(trace))) == [Broken(check, Trace.parse(alone))]
