"""The checks: each one promise about a scheduler, in plain torch.

A *resume check* is one way of resuming. It rebuilds the optimizer and the
scheduler from a checkpoint and returns them, and the run goes on with these; it
is broken where the run then differs from the uninterrupted one. A *state check*
is about the checkpoint itself: it returns what must be and what is.

A check is a plain function with a docstring, whose first line is the promise. It takes what it
needs by the names of its parameters:

==================  =======================================================
``new_optimizer``   makes a new optimizer, with the parameters' first values
``build``           ``build(optimizer)`` or ``build(optimizer, last_epoch=n)``
``checkpoint``      what the check's save function returned at the save
``optimizer``       the live optimizer
``scheduler``       the live scheduler
==================  =======================================================

A function of one's own becomes a check by the same decorators:

>>> @resume_check
... def resume_without_optimizer(new_optimizer, build, checkpoint):
...     '''Build both, and load the scheduler alone.'''
...     optimizer = new_optimizer()
...     scheduler = build(optimizer)
...     scheduler.load_state_dict(checkpoint["scheduler"])
...     return optimizer, scheduler
>>> as_check(resume_without_optimizer).doc
'Build both, and load the scheduler alone.'
>>> @state_check(at="step")
... def lr_stays_below_one(optimizer):
...     '''No LR reaches 1.'''
...     rates = [group["lr"] for group in optimizer.param_groups]
...     return {"lr": [min(rate, 0.99) for rate in rates]}, {"lr": rates}

It is used by ``--check my_package.checks:lr_stays_below_one`` or
``check_scheduler(..., checks=[...])``. ``python -m harness list`` shows the harness's own.

The parameters (the weights of the model) are given their saved values by the
harness after a resume, as loading the model does.

What is slow, or what many schedulers cannot serve, is opt-in: ``--check NAME``, or
``--all-checks``: files in other formats than torch's own (`harness.transports`), another process
or another torch (`harness.worker`), and changed options (`harness.contracts`). Which are the
default ones follows from two things that were learned:

* Of the documented ways, the plainest (optimizer, then scheduler) is the hardest to justify, as
  most faults that it catches are caught through a file or a shared dict as well; it is there for
  schedulers that can do neither.
* `lr_is_never_negative` is one of them because an optimizer refuses such an LR when it is built.
"""

from __future__ import annotations

import copy
import difflib
import io
import pickle
from collections.abc import Iterable
from typing import Any

import torch

from harness import transports
from harness.decorators import Check, resume_check, state_check
from harness.errors import CheckError
from harness.loop import (
    plain,
    save_deepcopy,
    save_file,
    save_live,
    save_optimizer,
    save_pickle,
    snapshot,
)
from harness.subject import import_attribute

__all__ = ["CHANGED", "CHECKS", "HERE", "MIXED", "as_check", "select_checks"]

BY_HAND = ("halve_lr", "add_group")
"""What is no part of a schedule, so that its options and the epoch don't tell it."""

# ---------------------------------------------------------------- documented ways of resuming


@resume_check
def resume_optimizer_then_scheduler(new_optimizer: Any, build: Any, checkpoint: Any) -> Any:
    """Build both, load the optimizer's state, then the scheduler's."""
    optimizer = new_optimizer()
    scheduler = build(optimizer)
    optimizer.load_state_dict(checkpoint["optimizer"])
    scheduler.load_state_dict(checkpoint["scheduler"])
    return optimizer, scheduler


@resume_check
def resume_scheduler_then_optimizer(new_optimizer: Any, build: Any, checkpoint: Any) -> Any:
    """Build both, load the scheduler's state, then the optimizer's."""
    optimizer = new_optimizer()
    scheduler = build(optimizer)
    scheduler.load_state_dict(checkpoint["scheduler"])
    optimizer.load_state_dict(checkpoint["optimizer"])
    return optimizer, scheduler


@resume_check(save=save_file, needs=("weights_only",))
def resume_from_file(new_optimizer: Any, build: Any, checkpoint: Any) -> Any:
    """Load what torch.save wrote with torch.load(weights_only=True), into both built anew."""
    loaded = torch.load(io.BytesIO(checkpoint["file"]), weights_only=True)
    optimizer = new_optimizer()
    scheduler = build(optimizer)
    optimizer.load_state_dict(loaded["optimizer"])
    scheduler.load_state_dict(loaded["scheduler"])
    return optimizer, scheduler


@resume_check(at="load")
def roll_back_in_place(optimizer: Any, scheduler: Any, checkpoint: Any) -> Any:
    """Load the states into the live optimizer and scheduler, to go back in time."""
    optimizer.load_state_dict(checkpoint["optimizer"])
    scheduler.load_state_dict(checkpoint["scheduler"])
    return optimizer, scheduler


@resume_check(same_dict=True)
def resume_twice_from_one_dict(new_optimizer: Any, build: Any, checkpoint: Any) -> Any:
    """Load one scheduler state, the same dict each time, into two runs.

    The optimizer gets a copy: its ``load_state_dict`` goes on using the tensors
    that it is given, which is no matter of the scheduler.
    """
    optimizer = new_optimizer()
    scheduler = build(optimizer)
    optimizer.load_state_dict(copy.deepcopy(checkpoint["optimizer"]))
    scheduler.load_state_dict(checkpoint["scheduler"])
    return optimizer, scheduler


@resume_check(at="save")
def resume_at_every_save(new_optimizer: Any, build: Any, checkpoint: Any) -> Any:
    """Stop at every save, and go on from it with both built anew, in a chain."""
    optimizer = new_optimizer()
    scheduler = build(optimizer)
    optimizer.load_state_dict(checkpoint["optimizer"])
    scheduler.load_state_dict(checkpoint["scheduler"])
    return optimizer, scheduler


@resume_check(save=save_deepcopy, about="the scheduler and the optimizer together")
def resume_by_deepcopy(checkpoint: Any) -> Any:
    """Go on with a copy.deepcopy of optimizer and scheduler, made at the save."""
    optimizer, scheduler = checkpoint["pair"]
    return optimizer, scheduler


@resume_check(save=save_pickle, about="the scheduler and the optimizer together")
def resume_by_pickle(checkpoint: Any) -> Any:
    """Go on with optimizer and scheduler out of a pickle that was made at the save."""
    optimizer, scheduler = pickle.loads(checkpoint["pickle"])
    return optimizer, scheduler


@resume_check(
    save=save_optimizer, needs=("last_epoch",), from_epoch=1, about="what last_epoch stands for",
    without=BY_HAND,
)  # fmt: skip
def resume_by_last_epoch(new_optimizer: Any, build: Any, checkpoint: Any) -> Any:
    """Load the optimizer's state, then build with last_epoch=k-1 after k scheduler steps.

    The constructor makes a step of its own, so ``last_epoch=k-1`` is what makes
    the new scheduler's ``last_epoch`` that of the uninterrupted run, k. There is
    nothing to resume at k=0: ``last_epoch=-1`` is a new start.
    """
    optimizer = new_optimizer()
    optimizer.load_state_dict(checkpoint["optimizer"])
    scheduler = build(optimizer, last_epoch=checkpoint["epoch"] - 1)
    return optimizer, scheduler


# ------------------------------------------- ways that many schedulers cannot serve: opt-in


@resume_check(default=False)
def resume_built_on_loaded_optimizer(new_optimizer: Any, build: Any, checkpoint: Any) -> Any:
    """Load the optimizer's state, build the scheduler after it, load the scheduler's state."""
    optimizer = new_optimizer()
    optimizer.load_state_dict(checkpoint["optimizer"])
    scheduler = build(optimizer)
    scheduler.load_state_dict(checkpoint["scheduler"])
    return optimizer, scheduler


@resume_check(
    default=False, save=save_optimizer, needs=("last_epoch",), from_epoch=1, weights=False,
    about="what initial_lr and last_epoch stand for", without=BY_HAND,
)  # fmt: skip
def resume_by_initial_lr(new_optimizer: Any, build: Any, checkpoint: Any) -> Any:
    """Give a new optimizer's groups only initial_lr, and build with last_epoch=k-1.

    After k scheduler steps, as in `resume_by_last_epoch`; the optimizer's own
    state is lost, so the weights are not compared.
    """
    optimizer = new_optimizer()
    for group in optimizer.param_groups:
        group["initial_lr"] = copy.deepcopy(group["lr"])  # a tensor may be written in place
    scheduler = build(optimizer, last_epoch=checkpoint["epoch"] - 1)
    return optimizer, scheduler


@resume_check(default=False, weights=False, without=BY_HAND)
def resume_scheduler_alone(new_optimizer: Any, build: Any, checkpoint: Any) -> Any:
    """Build both, and load the scheduler's state without the optimizer's.

    The optimizer's own state is lost, so the weights are not compared.
    """
    optimizer = new_optimizer()
    scheduler = build(optimizer)
    scheduler.load_state_dict(checkpoint["scheduler"])
    return optimizer, scheduler


@resume_check(default=False, elsewhere="resume", about="what the checkpoint holds")
def resume_in_another_process(new_optimizer: Any, build: Any, checkpoint: Any) -> Any:
    """Load in a new process what torch.save wrote in this one, into both built anew."""
    optimizer = new_optimizer()
    scheduler = build(optimizer)
    optimizer.load_state_dict(checkpoint["optimizer"])
    scheduler.load_state_dict(checkpoint["scheduler"])
    return optimizer, scheduler


@resume_check(default=False, elsewhere="save", about="what the checkpoint holds")
def resume_from_another_process(new_optimizer: Any, build: Any, checkpoint: Any) -> Any:
    """Load what torch.save wrote in a new process, which began the run, into both built anew."""
    optimizer = new_optimizer()
    scheduler = build(optimizer)
    optimizer.load_state_dict(checkpoint["optimizer"])
    scheduler.load_state_dict(checkpoint["scheduler"])
    return optimizer, scheduler


@resume_check(
    default=False, needs=("options",), weights=False, search=False,
    about="which option wins where the resumed run has others",
)  # fmt: skip
def resume_with_changed_options(new_optimizer: Any, build: Any, checkpoint: Any) -> Any:
    """Build with a changed option, load both: the saved one wins, or the new one, or it raises.

    In the documented order. One of the three contracts must be followed exactly at every save
    point; see `harness.contracts`.
    """
    optimizer = new_optimizer()
    scheduler = build(optimizer)
    optimizer.load_state_dict(checkpoint["optimizer"])
    scheduler.load_state_dict(checkpoint["scheduler"])
    return optimizer, scheduler


# --------------------------------------------------------------------------- state checks


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


@resume_check
def resumes_mixed() -> Any:
    """All resume checks that hold alone, mixed in one run."""


MIXED: Check = resumes_mixed.__check__  # type: ignore[attr-defined]
"""The check that has no way of its own: each resume of its traces names one."""

_DECORATED = [*globals().values(), *vars(transports).values()]

CHECKS: tuple[Check, ...] = tuple(
    sorted(
        (value.__check__ for value in _DECORATED if hasattr(value, "__check__")),
        key=lambda check: (check is MIXED, check.kind, not check.default),
    )
)
"""Every check of the harness, in the order of reports."""

HERE = tuple(check for check in CHECKS if not check.elsewhere)
"""Those that stay in this process."""

CHANGED: Check = resume_with_changed_options.__check__  # type: ignore[attr-defined]
"""The check whose traces change options on resume, and say so by ``changed={...}``."""


def as_check(value: Any) -> Check:
    """`value` as a check: a `Check`, a decorated function, or the name of one.

    A name is one of the harness's own or ``module:attribute``. Raises
    `CheckError` for anything else.
    """
    if isinstance(value, Check):
        return value
    if isinstance(value, str):
        named = {check.name: check for check in CHECKS}
        if value in named:
            return named[value]
        if ":" not in value:
            close = difflib.get_close_matches(value, named, n=1)
            hint = f"did you mean {close[0]}?" if close else "see python -m harness list."
            raise CheckError(
                f"no check is called {value!r}: {hint} One of your own is module:attribute"
            )
        value = import_attribute(value)
    check = getattr(value, "__check__", None)
    if not isinstance(check, Check):
        raise CheckError(
            f"{value!r} is no check: decorate it with harness.resume_check or harness.state_check"
        )
    return check


def select_checks(
    names: Iterable[Any] = (), *, all_checks: bool = False, elsewhere: bool = False
) -> list[Check]:
    """The checks called `names`, in that order; without names the default ones.

    `all_checks` adds the opt-in ones, `elsewhere` those that go through another process, one
    at a time, if none is among the others. Raises `CheckError` for an unknown name.
    """
    chosen = [as_check(name) for name in names]
    if not chosen or all_checks:
        chosen = [*(check for check in CHECKS if check.default or all_checks), *chosen]
    if elsewhere and not any(check.elsewhere for check in chosen):
        chosen += [check for check in CHECKS if check.elsewhere]
    return list(dict.fromkeys(chosen))
