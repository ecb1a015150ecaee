"""The verdict on a training script, with what was seen from each checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import TypeAlias

from harness.core.relations import NUMBER
from harness.training.compare import Difference
from harness.training.injected.snapshots import SavedFile
from harness.training.recording import InsideSave, Recording, Step

__all__ = [
    "BrokenTraining", "Chain", "Finding", "Outcome", "Signal", "Stop", "TrainingResult", "Verdict",
    "findings", "to_json", "verdict_of",
]  # fmt: skip


class Verdict(StrEnum):
    """The verdict on a resume, or on a command: the first of these that some resume has."""

    BROKEN = "BROKEN"
    """It resumes, and the schedule differs."""
    CANNOT_RESUME = "CANNOT RESUME"
    """It fails from this state of the checkpoints."""
    UNKNOWN = "UNKNOWN"
    HOLDS = "HOLDS"


@dataclass(frozen=True)
class Signal:
    """A signal, such as ``SIGTERM``, that the run got after a number of steps."""

    name: str
    after: int


@dataclass(frozen=True)
class Chain:
    """A run in several attempts, each of which is killed after `every` steps of its own."""

    every: int
    attempts: int


Stop: TypeAlias = InsideSave | Signal | Chain
"""How a run was stopped, if it was not killed right before an optimizer step."""


@dataclass(frozen=True)
class Outcome:
    """What happened after the resume from one snapshot, or from several, one after the other.

    `kill_points` are the numbers of steps after which the run ended, as it says in `stop`.
    `starts` is the number of steps of the recorded run that the checkpoint stands for, by rank.
    `data` is where only the data or the random state differ. `resumed` are the resumed recordings.
    `saved` holds the checkpoints if no kill after a step leaves them, and they are small.
    """

    kill_points: tuple[int, ...]
    verdict: Verdict
    reason: str = ""
    starts: Mapping[int, int] = field(default_factory=dict)
    difference: Difference | None = None
    data: Difference | None = None
    resumed: Mapping[int, Recording] = field(default_factory=dict, repr=False)
    stop: Stop | None = None
    saved: tuple[SavedFile, ...] = field(default=(), repr=False)

    @property
    def from_scratch(self) -> bool:
        """Whether the resumed run did not use the checkpoint."""
        if isinstance(self.stop, Chain):
            return False
        return bool(self.resumed) and not any(self.starts.values()) and self.kill_points[0] > 0


@dataclass(frozen=True)
class Finding:
    """The resumes that fail in one way.

    Those after a kill right before a step come first, and then the one with the smallest kill
    point.
    """

    outcomes: tuple[Outcome, ...]

    @property
    def first(self) -> Outcome:
        """The one with the smallest kill point."""
        return self.outcomes[0]

    def stopped_by(self, kind: type[Stop] | type[None]) -> list[Outcome]:
        """Those of its resumes that came after a stop of this kind."""
        return [outcome for outcome in self.outcomes if isinstance(outcome.stop, kind)]

    @property
    def relations(self) -> tuple[str, ...]:
        """What is known about the values of all its resumes, the most telling one first."""
        each = [o.difference.relations if o.difference else () for o in self.outcomes]
        return tuple(text for text in each[0] if all(text in own for own in each))

    @property
    def kill_points(self) -> tuple[int, ...]:
        """All kill points that lead to it, after a stop as in the first of its resumes."""
        return points_of(self.stopped_by(type(self.first.stop)))

    @property
    def kill_point(self) -> int:
        """The smallest kill point that leads to it; the one before the first step comes last."""
        return next((k for k in self.first.kill_points if k), 0)


@dataclass(frozen=True)
class TrainingResult:
    """The verdict on a command, with everything that it rests on.

    `steps` is the number of optimizer steps of the recorded run; `before` holds the kill points
    at which there was no checkpoint yet. `planned` is the number of snapshots to resume from.
    `checkpoints` are the paths of the checkpoints, as they were given.
    """

    command: tuple[str, ...]
    resume: tuple[str, ...]
    verdict: Verdict
    reason: str = ""
    steps: int = 0
    recordings: Mapping[int, Recording] = field(default_factory=dict, repr=False)
    outcomes: tuple[Outcome, ...] = ()
    before: tuple[int, ...] = ()
    planned: int = 0
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    """Wall time."""
    checkpoints: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether every snapshot was resumed from."""
        return len(self.outcomes) == self.planned


def points_of(outcomes: Iterable[Outcome]) -> tuple[int, ...]:
    """All kill points of some resumes."""
    return tuple(sorted({k for outcome in outcomes for k in outcome.kill_points}))


class BrokenTraining(AssertionError):
    """A resume of a training script is broken, or fails; `result` says everything."""

    def __init__(self, text: str, result: TrainingResult) -> None:
        super().__init__(text)
        self.result = result


def verdict_of(outcomes: tuple[Outcome, ...]) -> Verdict:
    """The first verdict, in the order of `Verdict`, that one of the outcomes has."""
    found = {outcome.verdict for outcome in outcomes}
    return next((verdict for verdict in Verdict if verdict in found), Verdict.UNKNOWN)


def findings(outcomes: tuple[Outcome, ...]) -> list[Finding]:
    """What does not hold, by verdict and kill point.

    Resumes with the same exception, or with the same field wrong in the same place, are one
    finding.
    """
    groups: dict[tuple[object, ...], list[Outcome]] = {}
    for outcome in sorted(outcomes, key=lambda outcome: (bool(outcome.stop), outcome.kill_points)):
        if outcome.verdict != Verdict.HOLDS:
            groups.setdefault(_kind(outcome), []).append(outcome)
    order = list(Verdict)
    found = [Finding(tuple(group)) for group in groups.values()]
    return sorted(found, key=lambda finding: order.index(finding.first.verdict))


def _kind(outcome: Outcome) -> tuple[object, ...]:
    difference = outcome.difference
    if difference is None:
        return outcome.verdict, NUMBER.sub("N", outcome.reason)
    place = difference.rank, difference.optimizer, difference.group
    return outcome.verdict, difference.field, *place


def to_json(result: TrainingResult) -> dict[str, object]:
    """Everything in the result, as JSON has it; `format` names the layout."""
    return {
        "format": "lr-resume-harness train 1",
        "command": list(result.command),
        "resume": list(result.resume),
        "checkpoints": list(result.checkpoints),
        "verdict": result.verdict,
        "reason": result.reason,
        "steps": result.steps,
        "planned": result.planned,
        "before_the_first_checkpoint": list(result.before),
        "notes": list(result.notes),
        "seconds": result.seconds,
        "recorded": _trajectories(result.recordings),
        "resumes": [
            {
                "kill_points": list(outcome.kill_points),
                "stop": _stop(outcome.stop),
                "verdict": outcome.verdict,
                "reason": outcome.reason,
                "starts": {str(rank): steps for rank, steps in outcome.starts.items()},
                "difference": asdict(outcome.difference) if outcome.difference else None,
                "data": asdict(outcome.data) if outcome.data else None,
                "resumed": _trajectories(outcome.resumed),
            }
            for outcome in result.outcomes
        ],
    }


def _stop(stop: Stop | None) -> dict[str, object] | None:
    kinds = {InsideSave: "inside a save", Signal: "signal", Chain: "chain"}
    return {"kind": kinds[type(stop)], **asdict(stop)} if stop else None


def _trajectories(recordings: Mapping[int, Recording]) -> dict[str, list[dict[str, object]]]:
    return {
        str(rank): [_step(step) for step in recording.steps]
        for rank, recording in recordings.items()
    }


def _step(step: Step) -> dict[str, object]:
    return {"optimizer": step.optimizer, **step.values}
