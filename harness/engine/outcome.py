"""What one run of a trace tells the engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.core.observation import Observation
from harness.core.operations import epochs, unpath
from harness.core.run import Difference, Role, Run, Seen

__all__ = ["Outcome", "Reference"]


@dataclass(frozen=True)
class Outcome:
    """What a run of one trace showed; `ended` says why it stopped before the end, if it did.

    `refused` says whether it stopped because the state can't be saved in the check's format.
    `reading` is the contract that it followed, if options changed
    (see `harness.checks.changed_options`).
    """

    broken: Difference | None = None
    ended: str = ""
    refused: bool = False
    reading: str = ""


@dataclass(frozen=True)
class Reference:
    """The observations of an uninterrupted run along a path, at its start and after every step.

    `raises` is the exception that ended it, in one line.
    """

    path: str
    observations: Sequence[Observation]
    raises: str = ""

    @property
    def error(self) -> str:
        """Why it ended early; empty if it did not."""
        return self.raises and f"the uninterrupted run raises {self.raises}"

    @property
    def epochs(self) -> int:
        """The number of scheduler steps it made."""
        return epochs(self.path[: len(self.observations) - 1])

    def run(self, length: int, role: Role = Role.UNINTERRUPTED, name: str = "") -> Run:
        """Its first `length` steps as a `Run`."""
        words = ["", *(f"{op.kind}:1" for letter in self.path[:length] for op in unpath(letter))]
        seen = tuple(
            Seen(word, epochs(self.path[:place]), values)
            for place, (word, values) in enumerate(zip(words, self.observations, strict=False))
            if "raises" not in values
        )
        ended = len(self.observations) <= length
        return Run(role, seen, self.raises if ended else "", name)
