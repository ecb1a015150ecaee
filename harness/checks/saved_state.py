"""Checks of the state that a scheduler saves and of what it reports, in plain torch."""

from __future__ import annotations

import io
import math
from typing import Any, TypeAlias

import torch
from torch.optim import Optimizer

from harness.checks.transports import save_live
from harness.core.check import state_check
from harness.core.operations import BY_HAND
from harness.core.training_loop import plain, snapshot
from harness.core.types import Build, NewOptimizer, Pair, Saved, Scheduler

Values: TypeAlias = tuple[object, object]
"""What a check expects, and what it finds."""


@state_check(at="save", compares="trajectory")
def saving_changes_nothing(optimizer: Optimizer, scheduler: Scheduler) -> Pair:
    """Calling state_dict() of both does not change the run."""
    return optimizer, scheduler


@state_check(at="step", save=save_live)
def saved_state_is_a_snapshot(checkpoint: Saved) -> Values:
    """A saved state does not change when training goes on."""
    return checkpoint["then"], checkpoint["kept"]


@state_check(at="save")
def loading_leaves_its_argument_alone(
    new_optimizer: NewOptimizer, build: Build, checkpoint: Saved
) -> Values:
    """Loading a state does not change the given dict."""
    given = snapshot(checkpoint["scheduler"])
    before = plain(given)
    build(new_optimizer()).load_state_dict(given)
    return before, given


@state_check(at="save")
def saving_after_loading_is_the_same(
    new_optimizer: NewOptimizer, build: Build, checkpoint: Saved
) -> Values:
    """After a state is loaded, saving gives the same state again."""
    optimizer = new_optimizer()
    scheduler = build(optimizer)
    optimizer.load_state_dict(checkpoint["optimizer"])
    scheduler.load_state_dict(snapshot(checkpoint["scheduler"]))
    return checkpoint["scheduler"], scheduler.state_dict()


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
