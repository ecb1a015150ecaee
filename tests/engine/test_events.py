"""What happens now and then in a training loop, and where a planned end is passed."""

import math

import ending
import pytest
import torch
from helpers import served, verdicts_of
from torch.optim.lr_scheduler import ExponentialLR, StepLR

from harness import (
    Budget,
    Subject,
    Trace,
    TraceError,
    check_scheduler,
    check_subject,
    replay,
    step_with_metric,
    write_script,
)
from harness.checks.registry import IN_THIS_PROCESS, as_check, select_checks
from harness.core.operations import (
    EVENTS,
    STEPS,
    branches,
    epochs,
    gradients,
    groups_added,
    operations_of,
)
from harness.engine import option_sets as cases
from harness.engine import pair_tester
from harness.engine.one_run import Runner
from lr_schedules.correct import Halving
from lr_schedules.faults import FAULTS, events

PLAIN = "resume_optimizer_then_scheduler"

# Of the order of steps and of step(epoch), which is deprecated: the harness ignores them, too.
pytestmark = pytest.mark.filterwarnings("ignore")

FAULT_OF = {
    "skip": "OverflowNotSaved",
    "epoch": "GivenEpochNotSaved",
    "halve_lr": "UndoesWhatWasSetByHand",
    "add_group": "ForgetsAddedGroups",
}
"""The planted fault that shows through an event alone."""
ENDING = {subject.name: subject for subject in ending.SUBJECTS}


def observations(path, build=ExponentialLR, **options):
    bound = Subject("x", build, options=options or {"gamma": 0.5}).bind({})
    return Runner(bound).uninterrupted(path).observations


@pytest.mark.parametrize("kind", STEPS)
def test_every_kind_prints_parses_back_and_has_a_path(kind):
    trace = Trace.parse(f"train:1 {kind}:2 save:a resume:a")
    assert Trace.parse(str(trace)) == trace
    [path] = set(branches(Trace.parse(f"{kind}:3").operations))
    assert [str(operation) for operation in operations_of(path)] == [f"{kind}:3"]


def test_what_counts_as_an_epoch_a_gradient_and_a_group():
    assert epochs("toskehg") == 4
    assert gradients("toskehg") == 4
    assert groups_added("gthg") == 2


def test_a_skipped_step_leaves_the_weights_and_steps_the_schedule():
    start, skipped = observations("k")
    assert skipped["weights"] == start["weights"]
    assert skipped["lr"] == [0.05, 0.005]


def test_the_gradients_of_a_skipped_step_have_overflowed():
    seen = []

    class Looks(ExponentialLR):
        def step(self, epoch=None):
            grads = [p.grad for g in self.optimizer.param_groups for p in g["params"]]
            seen.append([None if grad is None else grad.tolist() for grad in grads])
            super().step(epoch)

    observations("k", Looks)
    assert seen == [[None, None], [[math.inf, math.inf], [math.inf]]]


def test_after_a_skipped_step_the_next_gradients_come():
    """The batch is gone, as it is for GradScaler."""
    assert observations("kt")[2]["weights"] != observations("st")[2]["weights"]
    assert observations("kt")[2]["lr"] == observations("st")[2]["lr"]


def test_in_a_step_without_gradients_the_optimizer_steps_and_finds_none():
    seen = []

    class Looks(torch.optim.SGD):
        def step(self, closure=None):
            seen.append([p.grad is None for g in self.param_groups for p in g["params"]])
            return super().step(closure)

    def optimizer():
        return Looks([torch.nn.Parameter(torch.ones(2))], lr=0.1, momentum=0.9)

    subject = Subject("x", ExponentialLR, options={"gamma": 0.5}, optimizer=optimizer)
    _, stepped, without = Runner(subject.bind({})).uninterrupted("tz").observations
    assert seen == [[False], [True]]
    assert without["weights"] == stepped["weights"]
    assert (stepped["lr"], without["lr"]) == ([0.05], [0.025])


class EmptyStepNotSaved(Halving):
    """Lowers the LR for good after a step without gradients, and does not save that."""

    scale = 1.0

    def step(self):
        if self.optimizer.was_empty:
            self.scale = 0.125
        super().step()

    def factor(self):
        return super().factor() * self.scale


class KnowsEmptySteps(torch.optim.SGD):
    was_empty = False

    def step(self, closure=None):
        self.was_empty = all(p.grad is None for g in self.param_groups for p in g["params"])
        return super().step(closure)


def test_a_fault_of_a_step_without_gradients_is_found_through_it_alone(monkeypatch):
    def optimizer():
        return KnowsEmptySteps([torch.nn.Parameter(torch.ones(1))], lr=0.1)

    subject = Subject("EmptyStepNotSaved", EmptyStepNotSaved, optimizer=optimizer)
    found = verdicts(subject, [as_check(PLAIN)])[PLAIN].counterexample
    assert str(found.trace) == "zero_grad_step:1 save:a resume:a"
    others = tuple(kind for kind in EVENTS if kind != "zero_grad_step")
    monkeypatch.setattr(cases, "EVENTS", others)
    assert verdicts(subject, [as_check(PLAIN)])[PLAIN].verdict == "HOLDS"


def test_an_optimizer_that_needs_gradients_has_no_step_without_them():
    class NeedsGradients(torch.optim.SGD):
        def step(self, closure=None):
            if all(p.grad is None for group in self.param_groups for p in group["params"]):
                raise RuntimeError("no gradients")
            return super().step(closure)

    def optimizer():
        return NeedsGradients([torch.nn.Parameter(torch.ones(1))], lr=0.1)

    subject = Subject("x", ExponentialLR, options={"gamma": 0.5}, optimizer=optimizer)
    result = verdicts(subject, [as_check(PLAIN)])[PLAIN]
    assert result.verdict == "HOLDS"
    assert dict(result.untried) == {
        "zero_grad_step": "after an optimizer step without gradients, "
        "the uninterrupted run raises RuntimeError: no gradients"
    }


def test_an_epoch_is_said_by_its_number():
    told = []

    class Told(ExponentialLR):
        def step(self, epoch=None):
            told.append(epoch)
            super().step(epoch)

    observations("tee", Told)
    assert told == [None, None, 2, 3]


def test_the_lr_is_halved_in_every_group():
    assert observations("th")[2]["lr"] == [0.025, 0.0025]
    assert observations("tht")[3]["lr"] == [0.0125, 0.00125]


def test_a_tensor_is_halved_too():
    def tensors():
        return torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=torch.tensor(0.5))

    bound = Subject("x", ExponentialLR, options={"gamma": 1.0}, optimizer=tensors).bind({})
    assert Runner(bound).uninterrupted("h").observations[1]["lr"][0]["tensor"] == 0.25


def test_a_group_is_added_and_scheduled():
    assert observations("tgt")[2]["lr"] == [0.05, 0.005, 0.03]
    assert observations("tgt")[3]["lr"] == [0.025, 0.0025, 0.015]


def verdicts(subject, checks=None, **budget):
    results = check_subject(subject, checks or select_checks(), Budget(**budget))
    return {result.check: result for result in results}


@pytest.mark.parametrize("kind", FAULT_OF)
def test_each_fault_of_an_event_is_found_through_that_event_alone(kind, monkeypatch):
    monkeypatch.setattr(cases, "OTHER_OPTIMIZERS", ())  # a shared LR shows one of them as well
    monkeypatch.setattr(pair_tester, "ABOUT_EVENTS", {})  # it is not left to another check
    [fault] = [fault for fault in FAULTS if fault.name == FAULT_OF[kind]]
    assert fault in events_planted()
    check = as_check(PLAIN)
    result = verdicts(fault.subject, [check])[check.name]
    assert (result.verdict, result.counterexample.found.by) == ("BROKEN", "sweep")
    monkeypatch.setattr(cases, "EVENTS", tuple(other for other in EVENTS if other != kind))
    assert verdicts(fault.subject, [check])[check.name].verdict == "HOLDS"


def events_planted():
    return [value.__fault__ for value in vars(events).values() if hasattr(value, "__fault__")]


@pytest.mark.parametrize("kind", FAULT_OF)
def test_the_search_draws_every_event(kind, monkeypatch):
    """Where the sweep is switched off, the search still finds these faults, mostly."""
    monkeypatch.setattr(cases, "OTHER_OPTIMIZERS", ())
    monkeypatch.setattr(pair_tester, "ABOUT_EVENTS", {})
    [fault] = [fault for fault in FAULTS if fault.name == FAULT_OF[kind]]

    def search(subject, seed):
        return verdicts(subject, [as_check(PLAIN)], seed=seed, sweep=False)[PLAIN]

    found = [search(fault.subject, seed) for seed in range(5)]
    assert sum(result.verdict == "BROKEN" for result in found) >= 3
    assert all(
        result.counterexample.found.by == "search" for result in found if result.counterexample
    )


def test_what_a_counterexample_does_not_need_becomes_a_plain_step():
    """The decay of StepLR shows whatever kind of step leads to it."""
    result = replay(
        Subject("x", StepLR, options={"step_size": 2}),
        "resume_by_last_epoch", "skip:1 epoch:1 save:a resume:a",
    )  # fmt: skip
    assert result.verdict == "BROKEN"
    from harness.engine.minimise import minimise

    def breaks(trace):
        return replay(
            Subject("x", StepLR, options={"step_size": 2}), "resume_by_last_epoch", trace
        ).verdict == "BROKEN"  # fmt: skip

    trace = minimise(result.counterexample.trace, lambda t: not_refused(breaks, t))
    assert str(trace) == "train:2 save:a resume:a"


def not_refused(breaks, trace):
    try:
        return breaks(trace)
    except TraceError:
        return False


@pytest.mark.parametrize(
    ("check", "trace", "message"),
    [
        (
            "resume_by_last_epoch",
            "train:1 halve_lr:1 save:a resume:a",
            "goes back to a state after halve_lr",
        ),
        ("resume_by_last_epoch", "add_group:1 train:1 save:a resume:a", "after add_group"),
        ("roll_back_in_place", "save:a add_group:1 load:a", "another number of param groups"),
        ("last_lr_is_the_groups_lr", "halve_lr:1", "promises nothing for runs with it"),
    ],
)
def test_what_a_check_does_not_cover_is_refused_in_a_sentence(check, trace, message):
    with pytest.raises(TraceError, match=message):
        replay(Subject("x", ExponentialLR, options={"gamma": 0.5}), check, trace)


def test_what_a_scheduler_cannot_do_is_not_tried_and_said(command):
    status, printed, _ = command("check", "faulty:Counter", "--check", "resume_by_pickle")
    assert status == 0
    assert "NOT TRIED: epoch, halve_lr, add_group (-v says why)\n" in printed
    _, printed, _ = command("check", "faulty:Counter", "--check", "resume_by_pickle", "-v")
    assert (
        "NOT TRIED add_group: Counter\n  after a param group was added, the uninterrupted run "
        "raises ValueError: zip()" in printed
    )
    assert "NOT TRIED halve_lr: Counter\n  its next step replaces an LR" in printed
    assert "NOT TRIED skip" not in printed


def test_what_is_declined_is_not_tried():
    subject = Subject(
        "x", ExponentialLR, options={"gamma": 0.5}, declines={"halve_lr": "never by hand"}
    )
    [result] = check_scheduler(subject, checks=[PLAIN])
    assert dict(result.untried) == {"halve_lr": "never by hand"}


def test_step_with_an_epoch_is_for_schedulers_that_are_stepped_so():
    subject = Subject("x", torch.optim.lr_scheduler.ReduceLROnPlateau, step=step_with_metric)
    [result] = check_scheduler(subject, checks=[PLAIN])
    assert dict(result.untried)["epoch"] == "it does not take both step() and step(epoch)"


class KnowsItsGroups(Halving):
    """Schedules the groups alone that were there when it was built."""

    def write(self):
        for group, rate in zip(self.optimizer.param_groups, self.rates(), strict=False):
            group["lr"] = rate


def test_what_becomes_of_a_group_that_is_added_in_mid_run_is_seen():
    """A resumed one is built on that group as well, and schedules it from then on."""
    name = "resume_after_add_group"
    found = verdicts(Subject("x", KnowsItsGroups), [as_check(name)])[name]
    assert found.verdict == "BROKEN"
    assert "add_group:1" in str(found.counterexample.trace)


# ------------------------------------------------------------------------- the planned end


def test_a_schedule_that_ends_still_does_after_a_resume():
    found = verdicts(ENDING["Ends"], IN_THIS_PROCESS, max_examples=5)
    by_hand = {"resume_after_halve_lr", "resume_after_add_group"}
    declined = {"resume_by_initial_lr", "resume_with_changed_options", *by_hand}
    broken = {"resume_with_other_initial_lrs", "optimizer_state_is_a_snapshot"}  # not promised
    others = [r for r in found.values() if r.check not in declined | broken]
    assert verdicts_of(others) == {"HOLDS"}
    assert {found[name].verdict for name in broken} == {"BROKEN"}
    assert {found[name].verdict for name in declined} <= {"HOLDS", "DECLINED"}


LOADS = {
    PLAIN, "resume_scheduler_then_optimizer", "resume_from_file",
    "roll_back_in_place", "resume_twice_from_one_dict", "resume_at_every_save",
}  # fmt: skip


@pytest.mark.parametrize("name", ["ForgetsItsEnd", "EndsSooner", "SaysAnotherEnd"])
def test_a_resumed_run_ends_where_the_uninterrupted_one_does(name, run_script):
    found = verdicts(ENDING[name], max_examples=0)
    assert {check for check, result in found.items() if result.verdict == "BROKEN"} == served(LOADS)
    result = found[PLAIN]
    steps = 5 if name == "EndsSooner" else 6
    assert str(result.counterexample.trace) == f"save:a resume:a train:{steps}"
    end = "ValueError: the schedule ends after 5 epochs"
    if steps == 6:
        assert result.counterexample.expected == {"raises": end}
    text = write_script(ENDING[name], PLAIN, result.counterexample.trace)
    done = run_script(text)
    assert (done.returncode, done.stderr) == (1, "")
    got = {
        "ForgetsItsEnd": f"The uninterrupted run raises {end} at its end\n"
        "The interrupted run raises nothing\n",
        "EndsSooner": "The interrupted run raises ValueError: the schedule ends after 4 epochs\n",
        "SaysAnotherEnd": "The interrupted run raises KeyError: 'end'\n",
    }[name]
    assert got in done.stdout
    repaired = run_script(text.replace(f"build = {name}", "build = Ends"))
    assert repaired.returncode == 0, repaired.stdout


def test_a_trace_that_ends_with_the_schedule_holds():
    assert replay(ENDING["Ends"], "resume_by_pickle", "save:a resume:a train:6").verdict == "HOLDS"
    later = replay(ENDING["Ends"], "resume_by_pickle", "save:a resume:a train:7")
    assert later.verdict == "UNKNOWN"
    assert "the uninterrupted run raises ValueError" in later.reason
