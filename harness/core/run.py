"""What happened when a trace was run: values that reports read and files keep."""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from harness.core.operations import LETTER, STEPS

Observation: TypeAlias = dict[str, object]
"""What the optimizer would use next, by name: ``lr``, ``momentum``, ``betas`` and
``weight_decay``, a number for each param group; ``get_last_lr`` and ``weights``. In a `Difference`
also ``raises``, or the values that a check of the state returned."""
Points: TypeAlias = list[tuple[int, list[float]]]
"""An epoch (scheduler steps made), and a number for each param group."""
MISSING = "(missing)"
"""Shown in place of a missing value."""


def same(expected: object, actual: object) -> bool:
    """Whether two plain values are exactly equal; nan equals nan."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        return expected.keys() == actual.keys() and all(
            same(item, actual[key]) for key, item in expected.items()
        )
    if isinstance(expected, list) and isinstance(actual, list):
        return len(expected) == len(actual) and all(map(same, expected, actual))
    return bool(expected == actual or (expected != expected and actual != actual))


def as_float(value: float) -> float:
    """A number as a float; infinite if it is an int that no float holds.

    >>> as_float(-(10**400))
    -inf
    """
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def number(value: object) -> float:
    """A hyperparameter as one number; nan if it is not one."""
    if isinstance(value, dict):
        value = value.get("tensor", value.get("numpy"))
    if isinstance(value, list):
        value = value[0] if value else math.nan
        return number(value)
    return as_float(value) if isinstance(value, (int, float)) else math.nan


def numbers_of(observation: Observation, quantity: str) -> list[float]:
    """The values of a quantity in an observation, a number for each param group."""
    values = observation.get(quantity, [])
    return [number(value) for value in values] if isinstance(values, list) else []


@dataclass(frozen=True)
class Looked:
    """Where a check looked: the epochs at which it resumed or compared a state, and with what.

    `optimizers` holds the class of each optimizer that was used, with its number of groups.
    """

    epochs: frozenset[int] = frozenset()
    optimizers: frozenset[tuple[str, int]] = frozenset()

    def plus(self, other: Looked) -> Looked:
        """Both together."""
        return Looked(self.epochs | other.epochs, self.optimizers | other.optimizers)

    def __str__(self) -> str:
        epochs = f"epochs {ranges(self.epochs)}" if self.epochs else "no common epoch"
        names = ", ".join(sorted({name for name, _ in self.optimizers}))
        groups = {number for _, number in self.optimizers}
        with_groups = f"{ranges(groups)} groups" if groups != {1} else "1 group"
        return "; ".join([epochs, *([names, with_groups] if names else [])])


@dataclass(frozen=True)
class Tally:
    """How much was tried: traces, steps in them, resumes, and comparisons of a saved state."""

    traces: int = 0
    steps: int = 0
    resumes: int = 0
    comparisons: int = 0
    looked: Looked = Looked()

    def plus(self, other: Tally) -> Tally:
        """The sum of both."""
        return Tally(
            self.traces + other.traces,
            self.steps + other.steps,
            self.resumes + other.resumes,
            self.comparisons + other.comparisons,
            self.looked.plus(other.looked),
        )


def ranges(numbers: Collection[int]) -> str:
    """Whole numbers as text, with ranges.

    >>> ranges({3, 1, 2, 16, 47, 48})
    '1-3, 16, 47-48'
    """
    found: list[list[int]] = []
    for each in sorted(numbers):
        if found and each == found[-1][-1] + 1:
            found[-1][1:] = [each]
        else:
            found.append([each])
    return ", ".join("-".join(map(str, part)) for part in found)


def parse_ranges(text: str) -> set[int]:
    """The numbers in `ranges`; raises `ValueError` for another text."""
    numbers: set[int] = set()
    for part in filter(None, text.split(", ")):
        match = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", part)
        if match is None:
            raise ValueError(f"epochs must be written as 1-3, 16 (got {text!r:.80})")
        numbers.update(range(int(match[1]), int(match[2] or match[1]) + 1))
    return numbers


class Role(StrEnum):
    """What a run is in a comparison."""

    UNINTERRUPTED = "uninterrupted"
    OTHER_OPTIONS = "other options"
    """An uninterrupted run with the options that a resumed run changes to."""
    BEFORE = "before"
    """The part of a run before it goes back to a checkpoint."""
    RESUMED = "resumed"


@dataclass(frozen=True)
class Seen:
    """What was observed after an operation, or after one of its steps.

    `operation` is its text, empty at the start; `epoch` is the number of scheduler steps so far.
    """

    operation: str
    epoch: int
    values: Observation


@dataclass(frozen=True)
class Run:
    """What was observed in a run from its start, or from a resume, to its end or the next resume.

    `raises` is the exception that ended it, in one line.
    """

    role: Role
    seen: tuple[Seen, ...]
    raises: str = ""
    name: str = ""

    @property
    def path(self) -> str:
        """The letters of its steps (see `harness.core.operations`)."""
        kinds = (seen.operation.partition(":")[0] for seen in self.seen)
        return "".join(LETTER[kind] for kind in kinds if kind in STEPS)


@dataclass(frozen=True)
class Difference:
    """Where a run first differed from the expected run.

    `operation` is the index of the operation in the trace, `step` how many of its
    steps were made; `expected` and `actual` hold the values that differ.
    """

    operation: int
    step: int
    expected: Observation
    actual: Observation
