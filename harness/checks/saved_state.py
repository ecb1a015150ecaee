"""The checks of what a scheduler saves and reports, in plain torch."""

from __future__ import annotations

import io
from typing import Any

import torch

from harness.core.check import state_check
from harness.core.operations import BY_HAND
from harness.core.training_loop import (
    plain,
    save_live,
    snapshot,
)


@state_check(at="save", compares="trajectory")
def saving_changes_nothing(optimizer: Any, scheduler: Any) -> Any:
    """Taking the states of both leaves the run as it was."""
    return optimizer, scheduler


@state_check(at="step", save=save_live)
def saved_state_is_a_snapshot(checkpoint: Any) -> Any:
    """A state once taken is not touched by further training."""
    return checkpoint["then"], checkpoint["kept"]


@state_check(at="save")
def loading_leaves_its_argument_alone(new_optimizer: Any, build: Any, checkpoint: Any) -> Any:
    """Loading a state leaves the given dict as it was."""
    given = snapshot(checkpoint["scheduler"])
    before = plain(given)
    build(new_optimizer()).load_state_dict(given)
    return before, given


@state_check(at="save")
def saving_after_loading_is_the_same(new_optimizer: Any, build: Any, checkpoint: Any) -> Any:
    """A state that was loaded is saved again as it was."""
    optimizer = new_optimizer()
    scheduler = build(optimizer)
    optimizer.load_state_dict(checkpoint["optimizer"])
    scheduler.load_state_dict(snapshot(checkpoint["scheduler"]))
    return checkpoint["scheduler"], scheduler.state_dict()


@state_check(at="save", needs=("weights_only",))
def state_loads_with_weights_only(scheduler: Any) -> Any:
    """The state comes back whole from torch.save and torch.load(weights_only=True)."""
    state = scheduler.state_dict()
    file = io.BytesIO()
    torch.save(state, file)
    return state, torch.load(io.BytesIO(file.getvalue()), weights_only=True)


@state_check(at="step", needs=("get_last_lr",), about="what the scheduler reports", without=BY_HAND)
def last_lr_is_the_groups_lr(optimizer: Any, scheduler: Any) -> Any:
    """What get_last_lr() returns is the LR in the optimizer's groups."""
    rates = [group["lr"] for group in optimizer.param_groups]
    return {"get_last_lr": rates}, {"get_last_lr": scheduler.get_last_lr()}


@state_check(at="step", about="the schedule itself")
def lr_is_never_negative(optimizer: Any) -> Any:
    """No group's LR is below 0, which no optimizer of torch would accept at its construction."""
    rates = [float(group["lr"]) for group in optimizer.param_groups]
    return {"lr": [max(rate, 0.0) for rate in rates]}, {"lr": rates}
