"""Schedulers made of schedulers: SequentialLR, ChainedScheduler, and two on one optimizer.

Their parts are written as terms, such as
``schedulers=[LinearLR(total_iters=3),ExponentialLR(gamma=0.5)]``. The word of a scheduler
is a *maker*: when called, it returns a function that makes the scheduler for an optimizer.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from hypothesis import strategies as st
from torch.optim import Optimizer, lr_scheduler, swa_utils

from harness import Term
from harness.subjects.drawn_options import OptionsStrategy
from lr_schedules.callables import STATELESS
from lr_schedules.drawn import BY_EPOCHS, called, chainable, jointly
from lr_schedules.linear_annealing import LRScheduler

Maker: TypeAlias = Callable[..., LRScheduler]

MILESTONES = st.integers(0, 6)


def build_sequential(
    optimizer: Optimizer, schedulers: list[Maker], milestones: list[int], last_epoch: int = -1
) -> lr_scheduler.SequentialLR:
    """A SequentialLR of new schedulers; only it gets ``last_epoch``, not its parts."""
    made = [make(optimizer) for make in schedulers]
    return lr_scheduler.SequentialLR(optimizer, made, milestones, last_epoch=last_epoch)


def build_chained(
    optimizer: Optimizer, schedulers: list[Maker], last_epoch: int = -1
) -> lr_scheduler.ChainedScheduler:
    """A ChainedScheduler; each part gets ``last_epoch``, the chain takes none."""
    return lr_scheduler.ChainedScheduler(
        [make(optimizer, last_epoch=last_epoch) for make in schedulers]
    )


class TwoSchedulers:
    """Independent schedulers on one optimizer, stepped in order."""

    def __init__(self, optimizer: Optimizer, schedulers: list[Maker], last_epoch: int = -1) -> None:
        self.schedulers = [make(optimizer, last_epoch=last_epoch) for make in schedulers]

    def step(self) -> None:
        """Step each."""
        for scheduler in self.schedulers:
            scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        """The state of each."""
        return {"schedulers": [scheduler.state_dict() for scheduler in self.schedulers]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the state of each."""
        for scheduler, state in zip(self.schedulers, state_dict["schedulers"], strict=True):
            scheduler.load_state_dict(state)

    def get_last_lr(self) -> Any:
        """The LRs that the last of them reports, because it wrote the LR last."""
        return self.schedulers[-1].get_last_lr()


_MADE: dict[str, Callable[..., LRScheduler]] = {
    **{
        name: getattr(lr_scheduler, name)
        for name in (*BY_EPOCHS, "LambdaLR", "MultiplicativeLR", "CyclicLR")
    },
    "SWALR": swa_utils.SWALR,
    "SequentialLR": build_sequential,
    "ChainedScheduler": build_chained,
}

MAKERS: Mapping[str, Callable[..., Any]] = {
    **STATELESS,
    **{name: functools.partial(functools.partial, made) for name, made in _MADE.items()},
}
"""The words for schedulers inside others, and for the callables that they take."""


# ------------------------------------------------------------------------------- strategies


def _schedulers(depth: int) -> st.SearchStrategy[Term]:
    """A scheduler inside another, with up to `depth` compositions inside each other."""
    if not depth:
        return chainable()
    composed = {"SequentialLR": _sequential, "ChainedScheduler": _chained}
    return st.one_of(
        [chainable(), *(called(name, options(depth)) for name, options in composed.items())]
    )


@st.composite
def _sequential(draw: st.DrawFn, depth: int) -> dict[str, object]:
    """The options of a SequentialLR that contains up to `depth` - 1 nested compositions.

    Only its first scheduler may be a composition: torch's SequentialLR calls
    ``_update_lr(0)`` on each following one, which compositions do not have.
    """
    first = draw(_schedulers(depth - 1))
    rest = draw(st.lists(chainable(), min_size=0 if depth > 1 else 1, max_size=2))
    count = len(rest)
    milestones = sorted(draw(st.lists(MILESTONES, min_size=count, max_size=count)))
    return {"schedulers": [first, *rest], "milestones": milestones}


def _chained(depth: int) -> OptionsStrategy:
    """The options of a ChainedScheduler, with the same nesting."""
    schedulers = st.lists(_schedulers(depth - 1), min_size=1, max_size=3)
    return st.fixed_dictionaries({"schedulers": schedulers})


def _two(depth: int) -> OptionsStrategy:
    """The options of `TwoSchedulers`, with the same nesting."""
    schedulers = st.lists(_schedulers(depth - 1), min_size=2, max_size=2)
    return st.fixed_dictionaries({"schedulers": schedulers})


def _up_to_depth_3(options: Callable[[int], OptionsStrategy]) -> OptionsStrategy:
    return st.sampled_from((1, 2, 3)).flatmap(lambda depth: jointly(options(depth)))


DRAWN_COMPOSITIONS: dict[str, OptionsStrategy] = {
    "SequentialLR": _up_to_depth_3(_sequential),
    "ChainedScheduler": _up_to_depth_3(_chained),
    "TwoSchedulers": _up_to_depth_3(_two),
}
"""The strategy for each subject, by name."""
