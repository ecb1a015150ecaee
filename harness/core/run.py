"""What runs show: observations, where one breaks, how much was tried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.core.operations import epochs


@dataclass
class Tally:
    """How much was tried."""

    traces: int = 0
    steps: int = 0
    resumes: int = 0
    comparisons: int = 0


@dataclass(frozen=True)
class Break:
    """Where a run first differed from what it must be.

    `operation` is the index of the operation in the trace, `step` how many of its
    steps were made; `expected` and `actual` hold what differs.
    """

    operation: int
    step: int
    expected: dict[str, Any]
    actual: dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What a run of one trace showed; `ended` says why it could not be run to its end.

    `refused` says whether that is because the state can't be saved in the check's way,
    `reading` is the contract that it followed where options changed (see
    `harness.checks.changed_options`).
    """

    broken: Break | None = None
    ended: str = ""
    refused: bool = False
    reading: str = ""


@dataclass(frozen=True)
class Reference:
    """The observations of an uninterrupted run, at its start and after every step.

    `raises` is the exception that ended it, in one line.
    """

    path: str
    observations: Sequence[dict[str, Any]]
    raises: str = ""

    @property
    def error(self) -> str:
        """Why it ended before its path did."""
        return self.raises and f"the uninterrupted run raises {self.raises}"

    @property
    def epochs(self) -> int:
        """How many scheduler steps it made."""
        return epochs(self.path[: len(self.observations) - 1])
