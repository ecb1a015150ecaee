import math
import os
import subprocess
import sys
import threading
from dataclasses import replace

import ending
import faulty
import pytest
import torch
from helpers import served, verdicts_of
from hypothesis import strategies as st
from time_is_up import ring_soon
from torch.optim.lr_scheduler import ExponentialLR, LambdaLR, OneCycleLR, ReduceLROnPlateau, StepLR

from harness import (
    Budget,
    Subject,
    SubjectError,
    check_subject,
    replay,
    resume_check,
    state_check,
    step_with_metric,
)
from harness.checks.registry import IN_THIS_PROCESS, as_check, select_checks
from harness.core.verdict import Reason
from lr_schedules.faults import FAULTS

PLAIN = "resume_optimizer_then_scheduler"

DEFAULT = [check.name for check in select_checks()]
SERVED = served(check.name for check in IN_THIS_PROCESS)


def verdicts(subject, checks=IN_THIS_PROCESS, **budget):
    """Searched with few traces, unless `budget` says otherwise."""
    budget = Budget(**{"max_examples": 5, **budget})
    results = check_subject(subject, [as_check(check) for check in checks], budget)
    return {result.check: result for result in results}


@pytest.mark.parametrize("name", sorted(check.name for check in IN_THIS_PROCESS))
def test_every_check_says_where_it_looked(name):
    subject = Subject("x", StepLR, options={"step_size": 3}, contract="saved", length=4)
    ways = [PLAIN, "resume_by_deepcopy"] if name == "resumes_mixed" else []
    result = verdicts(subject, [*ways, name], max_examples=0)[name]
    assert result.verdict in ("HOLDS", "BROKEN"), result.reason
    tally, check = result.tally, as_check(name)
    assert min(tally.looked.epochs) <= 1
    assert ("SGD", 2) in tally.looked.optimizers
    assert tally.comparisons if check.kind == "state" else tally.resumes
    assert check.kind == "resume" or check.compares == "values" or not tally.resumes


def broken(subject, checks=IN_THIS_PROCESS, **budget):
    found = verdicts(subject, checks, **budget)
    return {name for name, result in found.items() if result.verdict == "BROKEN"}


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_correct_schedulers_raise_no_alarm(seed):
    """What a scheduler that does not write the LR on load can't serve is opt-in."""
    opt_in = {check.name for check in IN_THIS_PROCESS if not check.default}
    for subject in (faulty.COUNTER, faulty.WITH_FUNCTIONS):
        found = verdicts(replace(subject, length=6), seed=seed)
        assert not [r for r in found.values() if r.verdict == "UNKNOWN"]
        assert all(r.weights for r in found.values())
        assert {r.check for r in found.values() if r.verdict == "BROKEN"} <= opt_in


STATE_DICT_RESUMES = {
    PLAIN,
    "resume_scheduler_then_optimizer",
    "resume_from_file",
    "resume_twice_from_one_dict",
    "resume_at_every_save",
    "resume_built_on_loaded_optimizer",
    "resume_scheduler_alone",
}


@pytest.mark.parametrize(
    ("fault", "caught_by"),
    [
        ("Forgets", STATE_DICT_RESUMES | {"roll_back_in_place"}),
        ("RaisesOnLoad", {*STATE_DICT_RESUMES, "roll_back_in_place",
                          "loading_leaves_its_argument_alone", "saving_after_loading_is_the_same"}),
        ("Drains", {"resume_twice_from_one_dict", "loading_leaves_its_argument_alone"}),
        ("Aliases", {"saved_state_is_a_snapshot"}),
        ("SecondGroup", {*STATE_DICT_RESUMES, "roll_back_in_place"}),
        ("StaleReport", {"last_lr_is_the_groups_lr"}),
        ("LateFault", {PLAIN, "resume_from_file", "resume_at_every_save"}),
        ("NotOneToOne", {PLAIN, "resume_from_file"}),
    ],
)  # fmt: skip
def test_a_fault_is_caught_by_its_checks(fault, caught_by):
    subject = Subject(fault, getattr(faulty, fault))
    if fault in ("Drains", "Aliases"):
        assert broken(subject, DEFAULT) == caught_by
    else:
        assert broken(subject, caught_by) == served(caught_by)


def test_the_search_finds_what_the_sweep_cannot():
    """What a load forgets of optimizer steps that wait to be counted."""
    [subject] = [fault.subject for fault in FAULTS if fault.name == "PendingNotLoaded"]

    def verdict(**budget):
        return verdicts(subject, [PLAIN], **budget)[PLAIN].verdict

    assert verdict(max_examples=0) == "HOLDS"
    assert [verdict(seed=seed, max_examples=25) for seed in range(5)] == ["BROKEN"] * 5


def test_a_fault_of_the_second_resume_is_found_by_the_sweep():
    subject = Subject("LateFault", faulty.LateFault)
    found = verdicts(subject, [PLAIN], max_examples=0)[PLAIN]
    trace = found.counterexample.trace
    assert trace.resumes == 2
    assert trace.operations[0].count == 8


def test_a_hold_says_what_was_tried():
    checks = [each for each in DEFAULT if not as_check(each).event]  # it can do neither by hand
    found = verdicts(replace(faulty.COUNTER, length=6), checks).values()
    assert verdicts_of(found) == {"HOLDS"}
    for result in (result for result in found if result.verdict == "HOLDS"):
        assert result.tally.traces
        assert result.tally.steps
        assert result.tally.resumes or result.tally.comparisons


@pytest.mark.parametrize("check", ["resume_by_last_epoch", "resume_by_initial_lr"])
def test_nothing_tried_is_no_hold(check):
    @resume_check(from_epoch=500)
    def resume_much_later(new_optimizer, build, checkpoint):
        """Resumes where the uninterrupted run has long ended."""
        raise AssertionError("never called")

    result = verdicts(faulty.COUNTER, [resume_much_later], max_examples=0)["resume_much_later"]
    assert result.verdict == "UNKNOWN"
    assert result.why == Reason.NOTHING_TRIED
    assert verdicts(faulty.COUNTER, [check])[check].verdict == "HOLDS"


def test_declined_checks_have_their_reason():
    subject = Subject(
        "x", faulty.NoStateDict, state_dict=faulty.take_count, load_state_dict=faulty.give_count,
        declines={"lr_is_never_negative": "it may be"}, length=4,
    )  # fmt: skip
    found = verdicts(
        subject, [check for check in IN_THIS_PROCESS if check.name in SERVED], max_examples=0
    )
    reasons = {name: r.reason for name, r in found.items() if r.verdict == "DECLINED"}
    assert reasons == {
        "lr_is_never_negative": "it may be",
        "last_lr_is_the_groups_lr": "it has no get_last_lr",
        "last_lr_goes_on": "it has no get_last_lr",
        "resume_by_last_epoch": "its build takes no last_epoch",
        "resume_by_initial_lr": "its build takes no last_epoch",
        "resume_with_changed_options": "it has no options to change",
    }


def test_a_scheduler_without_a_state_is_refused():
    found = verdicts(Subject("x", faulty.NoStateDict), DEFAULT)
    assert {result.verdict for result in found.values()} == {"UNKNOWN"}
    assert "two functions in their place" in found[PLAIN].reason


def test_a_declined_check_that_does_not_exist_is_refused():
    found = verdicts(faulty.UNKNOWN_DECLINE, DEFAULT)
    assert {result.verdict for result in found.values()} == {"UNKNOWN"}


class EndsAt(ending.Ends):
    def __init__(self, optimizer, last_epoch=-1, *, last):
        self.last = last
        super().__init__(optimizer, last_epoch)


@pytest.mark.parametrize("total", [1, 2, 5])
@pytest.mark.parametrize("build", [EndsAt, OneCycleLR])
def test_a_short_uninterrupted_run_is_checked_to_its_end(build, total):
    ends = {EndsAt: {"last": total}, OneCycleLR: {"max_lr": 0.1, "total_steps": total}}
    checks = [check for check in select_checks() if not check.event]
    if build is OneCycleLR:  # before torch 2.3 its state held what weights_only refuses
        checks = [check for check in checks if "weights_only" not in check.needs]
    found = verdicts(Subject("x", build, options=ends[build], constant=True), checks)
    assert verdicts_of(found.values()) == {"HOLDS"}
    assert f"at epoch {total + 1}: nothing later is tried" in found[PLAIN].reason


@state_check(at="step")
def last_epoch_is_never_five(scheduler):
    """Asks for an attribute that a scheduler need not have."""
    return {"five": False}, {"five": scheduler.last_epoch == 5}


@state_check(at="step")
def rate_is_at_most_a_twentieth(optimizer):
    """A promise that a constant schedule breaks."""
    rates = [group["lr"] for group in optimizer.param_groups]
    return [min(rate, 0.05) for rate in rates], rates


@pytest.mark.parametrize("check", [last_epoch_is_never_five, rate_is_at_most_a_twentieth])
def test_the_control_excuses_no_subject_for_what_a_constant_schedule_lacks(check):
    subject = Subject("x", ExponentialLR, options={"gamma": 0.9})
    [result] = verdicts(subject, [check]).values()
    assert result.verdict == "BROKEN"


def test_a_build_that_only_passes_keywords_on_declines_too():
    def build(optimizer, **options):
        return ReduceLROnPlateau(optimizer, **options)

    subject = Subject("x", build, step=step_with_metric)
    assert verdicts(subject, ["resume_by_last_epoch"])["resume_by_last_epoch"].verdict == "DECLINED"


def test_what_does_not_depend_on_the_steps_alone_is_unknown():
    found = verdicts(Subject("Random", faulty.Random))
    assert {result.verdict for result in found.values()} == {"UNKNOWN"}
    assert found[PLAIN].why == Reason.NOT_REPEATABLE


@pytest.mark.parametrize(
    ("subject", "reason"),
    [
        (Subject("x", faulty.raises), "ValueError: no such luck"),
        (
            Subject("x", faulty.returns_none),
            "returns_none returns None: let it end with return scheduler",
        ),
        (Subject("x", lambda optimizer, last_epoch=-1: 7), "with a step() (got 7)"),
    ],
)
def test_a_subject_that_cannot_run_is_unknown(subject, reason):
    found = verdicts(subject, DEFAULT)
    assert {result.verdict for result in found.values()} == {"UNKNOWN"}
    assert reason in found[PLAIN].reason


def test_a_hang_is_unknown_in_time():
    found = verdicts(Subject("Hangs", faulty.Hangs), [PLAIN], time_limit=0.3)
    assert found[PLAIN].verdict == "UNKNOWN"
    assert found[PLAIN].why == Reason.TIME_LIMIT


def test_a_hang_after_a_resume_is_unknown_with_its_trace():
    class HangsOnLoad(faulty.Counter):
        def load_state_dict(self, state):
            ring_soon()
            threading.Event().wait()

    found = verdicts(Subject("x", HangsOnLoad), [PLAIN], time_limit=600.0)
    assert found[PLAIN].reason.endswith(
        "in the trace save:a resume:a save:b resume:b train:12 resume:a train:12"
    )


def test_without_signals_the_clock_is_read_between_operations():
    class Slow(faulty.Counter):
        def step(self):
            super().step()
            threading.Event().wait(0.02)

    found = []
    thread = threading.Thread(
        target=lambda: found.append(verdicts(Subject("x", Slow), DEFAULT, time_limit=0.1))
    )
    thread.start()
    thread.join()
    assert found[0][PLAIN].why == Reason.TIME_LIMIT


def test_an_error_of_the_harness_is_unknown_and_says_where(monkeypatch):
    def fail(*arguments):
        raise ZeroDivisionError("ours")

    monkeypatch.setattr("harness.engine.search.sweep", fail)
    result = verdicts(faulty.COUNTER, [PLAIN])[PLAIN]
    assert result.verdict == "UNKNOWN"
    assert result.why == Reason.HARNESS_ERROR
    assert "ZeroDivisionError: ours (fail, line" in result.reason


def test_an_error_of_the_harness_before_the_first_check_is_unknown_too(monkeypatch):
    monkeypatch.setattr("harness.engine.option_sets.what_scheduler_lacks", lambda *arguments: 1 / 0)
    result = verdicts(faulty.COUNTER, [PLAIN])[PLAIN]
    assert result.verdict == "UNKNOWN"
    assert result.why == Reason.HARNESS_ERROR
    assert "ZeroDivisionError" in result.reason


class Amnesiac(torch.optim.SGD):
    """An optimizer that loses its momentum buffers."""

    def load_state_dict(self, state):
        super().load_state_dict({"state": {}, "param_groups": state["param_groups"]})


def amnesiac():
    return Amnesiac([torch.nn.Parameter(torch.ones(1))], lr=0.1, momentum=0.9)


def test_what_the_optimizer_loses_is_not_charged_to_the_scheduler():
    right = Subject("right", faulty.Counter, optimizer=amnesiac)
    result = verdicts(right, [PLAIN])[PLAIN]
    assert result.verdict == "HOLDS"
    assert not result.weights
    wrong = Subject("wrong", faulty.Forgets, optimizer=amnesiac)
    result = verdicts(wrong, [PLAIN])[PLAIN]
    assert result.verdict == "BROKEN"
    assert "lr" in result.counterexample.actual


class Unloadable(torch.optim.SGD):
    """An optimizer that loads nothing."""

    def load_state_dict(self, state):
        raise RuntimeError("not me")


def test_what_the_optimizer_raises_is_not_charged_to_the_scheduler():
    subject = Subject(
        "x",
        faulty.Counter,
        optimizer=lambda: Unloadable([torch.nn.Parameter(torch.ones(1))], lr=1.0),
    )
    result = verdicts(subject, [PLAIN])[PLAIN]
    assert result.verdict == "UNKNOWN"
    assert result.why == Reason.OPTIMIZER


def test_a_check_that_raises_is_not_charged_to_the_scheduler():
    @resume_check
    def resume_wrongly(new_optimizer, build, checkpoint):
        """Asks for what no checkpoint has."""
        return checkpoint["nothing"]

    result = verdicts(faulty.COUNTER, [resume_wrongly])["resume_wrongly"]
    assert result.verdict == "UNKNOWN"
    assert "KeyError: 'nothing'" in result.reason


def test_mixed_interleaves_what_holds_alone():
    subject = Subject("Drains", faulty.Drains, length=6)
    found = verdicts(subject, [*DEFAULT])
    assert found["resume_twice_from_one_dict"].verdict == "BROKEN"
    assert found["resumes_mixed"].verdict == "HOLDS"
    assert found["resumes_mixed"].tally.resumes > 20
    alone = verdicts(subject, ["resumes_mixed"])["resumes_mixed"]
    assert (alone.verdict, alone.tally.steps) == ("HOLDS", found["resumes_mixed"].tally.steps)


class OnlyMixed(faulty.Counter):
    """Is right by every way alone; loading in place after a pickle was loaded is wrong."""

    unpickled = False

    def __setstate__(self, state):
        self.__dict__.update(state, unpickled=True)

    def load_state_dict(self, state):
        self.count = state["count"] - self.unpickled


def test_mixed_finds_what_no_way_finds_alone():
    found = broken(Subject("OnlyMixed", OnlyMixed, length=6))
    not_promised = {
        "resume_built_on_loaded_optimizer", "resume_scheduler_alone",
        "resume_with_other_initial_lrs", "optimizer_state_is_a_snapshot",
    }  # fmt: skip
    assert found - not_promised == {"resumes_mixed"}


def test_drawn_options_are_drawn_and_said():
    options = {"step_size": st.integers(2, 4), "gamma": 0.5}
    subject = Subject("decays", StepLR, options=options, length=6)
    found = verdicts(subject, DEFAULT)
    trace = found["resume_by_last_epoch"].counterexample.trace
    assert dict(trace.options)["gamma"] == 0.5
    assert trace.operations[0].count == dict(trace.options)["step_size"]
    assert replay(subject, "resume_by_last_epoch", str(trace)).verdict == "BROKEN"
    with pytest.raises(SubjectError, match="drawn option 'step_size'"):
        replay(subject, "resume_by_last_epoch", "train:3 save:a resume:a")


def test_a_drawn_option_that_no_trace_can_say_is_refused():
    subject = Subject("x", LambdaLR, options={"lr_lambda": st.just(math.sqrt)})
    result = verdicts(subject, [PLAIN])[PLAIN]
    assert result.verdict == "UNKNOWN"


def test_options_of_functions_are_used_and_not_said():
    subject = Subject("x", LambdaLR, options={"lr_lambda": lambda epoch: 0.5**epoch})
    assert verdicts(subject, [PLAIN])[PLAIN].verdict == "HOLDS"
    pickled = verdicts(subject, ["resume_by_pickle"])["resume_by_pickle"]
    assert pickled.verdict == "DECLINED"
    assert "lambda" in pickled.reason


SOME = [PLAIN, "resume_at_every_save", "last_lr_is_the_groups_lr"]


def test_the_same_seed_gives_the_same_results():
    runs = [
        [
            (r.check, r.verdict, r.counterexample, vars(r.tally))
            for r in check_subject(
                Subject("x", faulty.NotOneToOne), select_checks(SOME), Budget(seed=7)
            )
        ]
        for _ in range(2)
    ]
    assert runs[0] == runs[1]


def test_a_time_limit_does_not_cut_the_import_of_torch_short():
    code = (
        "import faulty; from harness import *; from torch.optim.lr_scheduler import StepLR\n"
        "subject = Subject('Hangs', faulty.Hangs)\n"
        f"print(replay(subject, '{PLAIN}', 'train:9', time_limit=0.2).reason)\n"
        f"print(replay(StepLR, '{PLAIN}', 'step_size=1 save:a resume:a').verdict)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    reason, verdict = done.stdout.splitlines()
    assert "time limit of 0.2 s" in reason
    assert verdict == "HOLDS"
