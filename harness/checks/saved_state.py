"""Checks of the state that a scheduler saves and of what it reports, in plain torch."""

from __future__ import annotations

import contextlib
import copy
import io
import math
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import torch
from torch.optim import Optimizer

from harness.checks.transports import save_live, save_live_optimizer, save_nothing
from harness.core.check import state_check
from harness.core.operations import BY_HAND, with_groups
from harness.core.run import MISSING, same
from harness.core.training_loop import plain, snapshot
from harness.core.types import (
    Build,
    Checkpoint,
    NewOptimizer,
    OptimizerAndScheduler,
    Scheduler,
    State,
    Step,
)

Values: TypeAlias = tuple[object, object]
"""What a check expects, and what it finds."""


@state_check(at="save", compares="trajectory")
def saving_changes_nothing(optimizer: Optimizer, scheduler: Scheduler) -> OptimizerAndScheduler:
    """Calling state_dict() of the optimizer and the scheduler does not change the run."""
    return optimizer, scheduler


@state_check(at="save", compares="trajectory", save=save_nothing, about="what schedulers share")
def other_schedulers_change_nothing(
    optimizer: Optimizer, scheduler: Scheduler, new_optimizer: NewOptimizer, build_other: Build,
    step: Step,
) -> OptimizerAndScheduler:  # fmt: skip
    """A scheduler of the same class with other options, built and stepped, changes nothing."""
    try:
        step(build_other(new_optimizer()), 0)
    except Exception:
        return optimizer, scheduler  # it refuses these options
    return optimizer, scheduler


@state_check(at="step", save=save_live)
def saved_state_is_a_snapshot(checkpoint: Checkpoint) -> Values:
    """A saved state does not change when training goes on."""
    return checkpoint["then"], checkpoint["kept"]


@state_check(at="save")
def saving_again_gives_the_same_state(
    new_optimizer: NewOptimizer, build: Build, scheduler: Scheduler, step: Step,
    checkpoint: Checkpoint,
) -> Values:  # fmt: skip
    """A second save gives the same state, even after another scheduler is built and stepped."""
    saved = checkpoint["scheduler"]
    again = plain(scheduler.state_dict())
    if same(plain(saved), again):
        with contextlib.suppress(Exception):  # it may have no step to make
            step(build(new_optimizer()), 0)
        again = plain(scheduler.state_dict())
    return saved, again


@state_check(at="step", save=save_live)
def saved_states_are_independent(scheduler: Scheduler, checkpoint: Checkpoint) -> Values:
    """A saved state does not change when another state is saved and then emptied."""
    before = plain(checkpoint["kept"])
    another = scheduler.state_dict()
    if isinstance(another, dict):
        another.clear()
    return before, checkpoint["kept"]


# PyTorch does not promise this: an optimizer's state_dict holds the tensors themselves, so that a
# checkpoint in memory needs copy.deepcopy.
@state_check(
    at="step", save=save_live_optimizer, default=False, search=False, about="the optimizer's state"
)
def optimizer_state_is_a_snapshot(checkpoint: Checkpoint) -> Values:
    """The optimizer's saved state does not change when training goes on."""
    return checkpoint["then"], checkpoint["kept"]


def state_for_more_groups(new_optimizer: NewOptimizer, build: Build) -> State | None:
    """The state of a new scheduler on one more param group; None if it can't be built there."""
    try:
        state: State = build(with_groups(new_optimizer, 1)).state_dict()
    except Exception:
        return None
    return state


@state_check(at="save")
def loading_leaves_its_argument_alone(
    new_optimizer: NewOptimizer, build: Build, checkpoint: Checkpoint
) -> Values:
    """Loading a state does not change the given dict, even if loading fails."""
    given = snapshot(checkpoint["scheduler"])
    before = plain(given)
    build(new_optimizer()).load_state_dict(given)
    wider = None if checkpoint["epoch"] else state_for_more_groups(new_optimizer, build)
    if wider is None or not same(before, plain(given)):
        return before, given
    given = snapshot(wider)
    before = plain(given)
    with contextlib.suppress(Exception):  # it need not be loaded
        build(new_optimizer()).load_state_dict(given)
    return before, given


COPIED_UNTIL = 3
"""Copies are checked up to this epoch: they are slow, and later ones lose the same."""


@state_check(at="save")
def saving_after_loading_is_the_same(
    new_optimizer: NewOptimizer, build: Build, optimizer: Optimizer, scheduler: Scheduler,
    checkpoint: Checkpoint,
) -> Values:  # fmt: skip
    """After a state is loaded, or both are copied, saving gives the same state again."""
    saved = checkpoint["scheduler"]
    new = new_optimizer()
    loaded = build(new)
    new.load_state_dict(checkpoint["optimizer"])
    loaded.load_state_dict(snapshot(saved))
    again = loaded.state_dict()
    if checkpoint["epoch"] > COPIED_UNTIL or not same(plain(saved), plain(again)):
        return saved, again
    try:
        copied: Scheduler = copy.deepcopy((optimizer, scheduler))[1]
    except Exception:  # it can't be copied: resume_by_deepcopy looks at that
        return {}, {}
    return snapshot(scheduler.state_dict()), copied.state_dict()


STEPS_AHEAD = 8
"""After this many steps, a number that each step computes from the epoch is right again."""


def public_numbers(scheduler: Scheduler) -> dict[str, float]:
    """The numbers in the public attributes of a scheduler, by name."""
    slots = [name for cls in type(scheduler).__mro__ for name in getattr(cls, "__slots__", ())]
    names = [*getattr(scheduler, "__dict__", ()), *slots]
    values = {name: getattr(scheduler, name, None) for name in names}
    return {
        name: value
        for name, value in values.items()
        if isinstance(value, (int, float)) and not name.startswith("_")
    }


def lost_numbers(
    must: dict[str, float], resume: Callable[[], Scheduler], step: Step, epoch: int
) -> Values:
    """The public numbers that later steps depend on, and that are wrong after a resume.

    Returns their right values (from `must`) and their wrong ones. `resume` returns the resumed
    scheduler, at `epoch`.
    """
    resumed = resume()
    has = public_numbers(resumed)
    lost = [name for name in must if not same(must[name], has.get(name))]
    if not lost:
        return {}, {}
    # Do later steps depend on them? Restore them in one of two schedulers, and step both.
    complete = resume()
    for name in lost:
        setattr(complete, name, must[name])
    try:
        for ahead in range(STEPS_AHEAD):
            for each in (resumed, complete):
                step(each, epoch + ahead)
    except Exception:
        pass  # it ends here: the checks that compare runs look at what steps raise
    without, given = map(public_numbers, (resumed, complete))
    lost = [
        name
        for name in lost
        if not same(given[name], must[name]) and not same(given[name], without.get(name))
    ]
    return (
        {name: must[name] for name in lost},
        {name: has.get(name, MISSING) for name in lost},
    )


@state_check(at="save", about="what the scheduler reports")
def public_numbers_go_on(
    new_optimizer: NewOptimizer, build: Build, optimizer: Optimizer, scheduler: Scheduler,
    step: Step, checkpoint: Checkpoint,
) -> Values:  # fmt: skip
    """A public number that steps go on from, such as last_epoch, is the same after a resume."""
    must, epoch = public_numbers(scheduler), checkpoint["epoch"]

    def loaded() -> Scheduler:
        optimizer = new_optimizer()
        resumed = build(optimizer)
        optimizer.load_state_dict(snapshot(checkpoint["optimizer"]))
        resumed.load_state_dict(snapshot(checkpoint["scheduler"]))
        return resumed

    def copied() -> Scheduler:
        resumed: Scheduler = copy.deepcopy((optimizer, scheduler))[1]
        return resumed

    def built() -> Scheduler:
        optimizer = new_optimizer()
        optimizer.load_state_dict(snapshot(checkpoint["optimizer"]))
        return build(optimizer, last_epoch=epoch - 1)

    expected, actual = lost_numbers(must, loaded, step, epoch)
    if expected or epoch > COPIED_UNTIL:
        return expected, actual
    # where the other numbers are wrong without a state, the LR is wrong too
    given = {name: must[name] for name in must if name == "last_epoch"}
    for numbers, resume in ((must, copied), (given, built)):
        try:
            expected, actual = lost_numbers(numbers, resume, step, epoch) if numbers else ({}, {})
        except Exception:  # the checks that resume in this way look at that
            continue
        if expected:
            return expected, actual
    return {}, {}


def without_one_key(state: object) -> Iterator[tuple[str, object]]:
    """Copies of a state that each lack one key, of the state itself or of a dict inside.

    Yields ``(name, copy)``; the name is the path to the missing key, as in ``parts.0.gamma``.
    """
    if isinstance(state, dict):
        for key in state:
            yield str(key), {other: state[other] for other in state if other != key}
            for name, part in without_one_key(state[key]):
                yield f"{key}.{name}", {**state, key: part}
    if isinstance(state, list):
        for number, item in enumerate(state):
            for name, part in without_one_key(item):
                yield f"{number}.{name}", [*state[:number], part, *state[number + 1 :]]


def state_and_groups(optimizer: Optimizer, scheduler: Scheduler) -> object:
    """The state of a scheduler and its optimizer's param groups, as plain values."""
    return plain([scheduler.state_dict(), optimizer.state_dict()["param_groups"]])


# PyTorch does not promise this: a Module.load_state_dict that raises has loaded a part as well.
@state_check(at="save", default=False)
def failed_load_changes_nothing(
    new_optimizer: NewOptimizer, build: Build, step: Step, checkpoint: Checkpoint
) -> Values:
    """If loading a state that lacks a key raises, scheduler and groups stay as they were."""

    def begin() -> OptimizerAndScheduler:
        optimizer = new_optimizer()
        scheduler = build(optimizer)
        if checkpoint["epoch"]:
            step(scheduler, 0)  # so that a load that first resets the scheduler is noticed too
        return optimizer, scheduler

    before = state_and_groups(*begin())
    for name, damaged in without_one_key(checkpoint["scheduler"]):
        optimizer, scheduler = begin()
        try:
            scheduler.load_state_dict(snapshot(damaged))
        except Exception:
            after = state_and_groups(optimizer, scheduler)
            if not same(before, after):
                where = f"after a load without {name}"
                return {where: before}, {where: after}
    return {}, {}


# PyTorch does not promise this: most of its schedulers add whatever they are given.
@state_check(at="save", default=False)
def states_of_others_are_refused(new_optimizer: NewOptimizer, build: Build) -> Values:
    """Loading the state of another class, or of one with more param groups, raises."""
    states: dict[str, State] = {"a state of another class": {"of_another_class": 1}}
    own = build(new_optimizer()).state_dict()
    wider = state_for_more_groups(new_optimizer, build)
    if wider is not None and not same(plain(wider), plain(own)):
        states["a state for more groups"] = wider
    found = {}
    for name, state in states.items():
        scheduler = build(new_optimizer())
        try:
            scheduler.load_state_dict(snapshot(state))
            found[name] = "is loaded"
        except Exception:
            found[name] = "raises"
    return dict.fromkeys(states, "raises"), found


@state_check(at="save", needs=("weights_only",))
def state_loads_with_weights_only(scheduler: Scheduler) -> Values:
    """The state is the same after torch.save and torch.load(weights_only=True)."""
    state = scheduler.state_dict()
    file = io.BytesIO()
    torch.save(state, file)
    return state, torch.load(io.BytesIO(file.getvalue()), weights_only=True)


@state_check(at="step", needs=("get_last_lr",), about="what the scheduler reports", without=BY_HAND)
def last_lr_is_the_groups_lr(optimizer: Optimizer, scheduler: Any) -> Values:
    """get_last_lr() returns the LR in the optimizer's groups."""
    rates = [group["lr"] for group in optimizer.param_groups]
    return {"get_last_lr": rates}, {"get_last_lr": scheduler.get_last_lr()}


@state_check(at="save", needs=("get_last_lr",), about="what the scheduler reports", search=False)
def last_lr_goes_on(
    new_optimizer: NewOptimizer, build: Build, scheduler: Any, checkpoint: Checkpoint
) -> Values:
    """get_last_lr() returns the same right after a resume."""
    try:
        expected = scheduler.get_last_lr()
    except Exception:  # before the first step, in some versions
        return {}, {}
    optimizer = new_optimizer()
    resumed: Any = build(optimizer)
    optimizer.load_state_dict(snapshot(checkpoint["optimizer"]))
    resumed.load_state_dict(snapshot(checkpoint["scheduler"]))
    return {"get_last_lr": expected}, {"get_last_lr": resumed.get_last_lr()}


@state_check(at="step", about="the schedule itself")
def lr_is_finite(optimizer: Optimizer) -> Values:
    """No group's LR is NaN or infinite."""
    rates = [float(group["lr"]) for group in optimizer.param_groups]
    expected = [rate if math.isfinite(rate) else "a finite number" for rate in rates]
    return {"lr": expected}, {"lr": rates}


@state_check(at="step", about="the schedule itself")
def lr_is_never_negative(optimizer: Optimizer) -> Values:
    """No group's LR is below 0; a torch optimizer would not accept one when it is built."""
    rates = [float(group["lr"]) for group in optimizer.param_groups]
    return {"lr": [max(rate, 0.0) for rate in rates]}, {"lr": rates}
