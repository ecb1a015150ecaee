"""Watches a long uninterrupted run of a schedule, and chooses the epochs at which long traces save.

Most defects show within a few epochs, but some only after a restart or a milestone that comes
later. So the run goes on for `FAR` epochs. `save_points` are a geometric series, and the epochs
around those where a series of numbers changes its shape: the LRs, momenta, weight decays and betas
of all groups, and the numbers in the scheduler's state. Each kind of point finds defects that the
other misses.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from harness.core.relations import floats_of
from harness.core.run import Observation, as_float, same
from harness.core.types import Scheduler

HYPERPARAMETERS = ("lr", "momentum", "betas", "weight_decay")
FAR = 2000
"""How many epochs the uninterrupted run is watched."""
SERIES = (16, 24, 36, 54, 81, 121, 182, 273)
"""Epochs at which long traces save, whatever happens there."""
AROUND = (-2, -1, 0, 1)
"""Where long traces save, in epochs from a change of shape."""
FIRST = 4
"""How many changes of shape count, from the first one; then some of the later ones."""
MOST = 8
"""How many changes of shape count at most."""
JUMP = 1.25
"""The factor by which the growth of a series may change from one epoch to the next."""
NOISE = 1e-9
"""Differences up to this part of the largest number in a series are rounding."""
SHORT = 4
"""Lists of up to this many numbers in a state are watched."""


@dataclass(frozen=True)
class Horizon:
    """What an uninterrupted run of `epochs` epochs showed.

    `changes` are the epochs at which a hyperparameter changes the shape of its series, and
    `state_changes` those at which a number in the state does. `first_change` is the first epoch at
    which a hyperparameter has another value than at the start; None if there is none.
    """

    epochs: int = 0
    changes: tuple[int, ...] = ()
    state_changes: tuple[int, ...] = ()
    first_change: int | None = None

    def points(self, early: int) -> tuple[int, ...]:
        """Where long traces save, after the first `early` epochs."""
        others = (save_points(changes, early, self.epochs)
                  for changes in (self.changes, self.state_changes))  # fmt: skip
        return tuple(sorted({point for points in others for point in points}))


@dataclass
class Watch:
    """Collects the numbers in a scheduler's state while an uninterrupted run goes on.

    Call it after each step; it returns whether the run may go on. It may not after `deadline`, a
    reading of ``time.monotonic()``.
    """

    deadline: float = math.inf
    series: dict[str, list[float]] = field(default_factory=dict)
    steps: int = 0
    out_of_time: bool = False

    def __call__(self, scheduler: Scheduler) -> bool:
        """Add what the state holds now."""
        self.steps += 1
        try:
            state = scheduler.state_dict()
        except Exception:  # the checks will report it
            state = None
        if isinstance(state, Mapping):
            for name, number in _numbers_in(state):
                self.series.setdefault(name, [math.nan] * (self.steps - 1)).append(number)
        self.out_of_time = time.monotonic() > self.deadline
        return not self.out_of_time

    def horizon(self, observations: Sequence[Observation]) -> Horizon:
        """What the run showed; nothing if it ran out of time.

        `observations` begin before its first step.
        """
        if self.out_of_time:
            return Horizon()
        hyperparameters = _hyperparameters(observations)
        state = [[math.nan, *values] for values in self.series.values()
                 if len(values) == self.steps]  # fmt: skip
        changes, state_changes = (
            tuple(sorted({epoch for values in several for epoch in changes_of_shape(values)}))
            for several in (hyperparameters, state)
        )
        return Horizon(len(observations) - 1, changes, state_changes, first_change(observations))


def _numbers_in(state: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers in a state, each with the name of its place; None counts as -1."""
    for name, value in state.items():
        place = f"{prefix}.{name}"
        if value is None:
            yield place, -1.0
        elif isinstance(value, (int, float)):
            yield place, as_float(value)
        elif isinstance(value, (list, tuple)):
            yield f"{place} length", float(len(value))
            if len(value) <= SHORT:
                yield from _numbers_in({str(i): item for i, item in enumerate(value)}, place)
        elif isinstance(value, Mapping) and not prefix:
            yield from _numbers_in(value, place)


def first_change(observations: Sequence[Observation]) -> int | None:
    """The first epoch at which a hyperparameter has another value than at the start, or None."""
    start = _hyperparameters_at(observations[0])
    epochs = (
        i for i, seen in enumerate(observations) if not same(_hyperparameters_at(seen), start)
    )
    return next(epochs, None)


def _hyperparameters_at(seen: Observation) -> list[object]:
    return [seen.get(name) for name in HYPERPARAMETERS]


def _hyperparameters(observations: Sequence[Observation]) -> list[list[float]]:
    """A series for each number that a schedule sets in an optimizer."""
    rows = [
        [number for value in _hyperparameters_at(seen) for number, _ in floats_of(value)]
        for seen in observations
    ]
    if not rows or any(len(row) != len(rows[0]) for row in rows):
        return []
    return [list(column) for column in zip(*rows, strict=True)]


def changes_of_shape(values: Sequence[float]) -> Iterator[int]:
    """The indices at which a series goes on in another way than before.

    It changes its shape where its difference to the value before becomes zero, or gets another
    sign, or where its growth jumps. A straight line, an exponential and a slow curve do not.

    >>> list(changes_of_shape([8, 8, 8, 4, 4, 4]))
    [3, 4]
    >>> list(changes_of_shape([1, 2, 3, 4, 0, 1, 2]))
    [4, 5]
    >>> list(changes_of_shape([1, 10, 100, 1000]))
    []
    """
    finite = [abs(value) for value in values if math.isfinite(value)]
    small = NOISE * max(finite, default=0.0)
    growth = before = None
    for index in range(1, len(values)):
        difference = values[index] - values[index - 1]
        if not math.isfinite(difference):
            same = repr(values[index]) == repr(values[index - 1])
            difference = 0.0 if same else math.inf
        elif abs(difference) <= small:
            difference = 0.0
        if before is not None:
            turned = (difference > 0) - (difference < 0) != (before > 0) - (before < 0)
            ratio = difference / before if before and math.isfinite(before) else None
            jumped = (
                ratio is not None and growth is not None and bool(ratio) and bool(growth)
                and not 1 / JUMP <= abs(ratio / growth) <= JUMP
            )  # fmt: skip
            if turned or jumped:
                yield index
            growth = None if turned else ratio
        before = difference


def save_points(changes: Sequence[int], early: int, end: int) -> tuple[int, ...]:
    """The epochs after the first `early` and up to `end` at which long traces save.

    >>> save_points([3, 50], 12, 2000)[:8]
    (16, 24, 36, 48, 49, 50, 51, 54)
    >>> save_points([], 12, 30)
    (16, 24)
    """
    late = [epoch for epoch in changes if epoch > early]
    starts = [epoch for epoch in late if epoch - 1 not in late]
    chosen = starts[:FIRST]
    rank = FIRST
    while rank < len(starts) and len(chosen) < MOST and starts[rank] <= SERIES[-1]:
        chosen.append(starts[rank])
        rank = rank * 3 // 2
    around = {epoch + offset for epoch in chosen for offset in AROUND}
    return tuple(sorted(epoch for epoch in {*SERIES, *around} if early < epoch <= end))
