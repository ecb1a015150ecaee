"""The verdict on a training script, with what was seen from each checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum

from harness.training.compare import Difference
from harness.training.recording import Recording, Step

__all__ = ["Finding", "Outcome", "TrainingResult", "Verdict", "findings", "to_json"]


class Verdict(StrEnum):
    """The verdict on a resume, or on a command: the first of these that some resume has."""

    BROKEN = "BROKEN"
    """It resumes, and the schedule differs."""
    CANNOT_RESUME = "CANNOT RESUME"
    """It fails from this state of the checkpoints."""
    UNKNOWN = "UNKNOWN"
    HOLDS = "HOLDS"


@dataclass(frozen=True)
class Outcome:
    """What happened after the resume from one snapshot.

    `starts` is the number of steps of the recorded run that the checkpoint stands for, by rank.
    `data` is where only the data or the random state differ. `resumed` are the resumed recordings.
    """

    kill_points: tuple[int, ...]
    verdict: Verdict
    reason: str = ""
    starts: Mapping[int, int] = field(default_factory=dict)
    difference: Difference | None = None
    data: Difference | None = None
    resumed: Mapping[int, Recording] = field(default_factory=dict, repr=False)

    @property
    def from_scratch(self) -> bool:
        """Whether the resumed run did not use the checkpoint."""
        return bool(self.resumed) and not any(self.starts.values()) and self.kill_points[0] > 0


@dataclass(frozen=True)
class Finding:
    """The resumes that fail in one way, and the relations that they have in common."""

    outcomes: tuple[Outcome, ...]
    relations: tuple[str, ...]

    @property
    def first(self) -> Outcome:
        """The one with the smallest kill point."""
        return self.outcomes[0]

    @property
    def kill_points(self) -> tuple[int, ...]:
        """All kill points that lead to it."""
        return tuple(sorted(k for outcome in self.outcomes for k in outcome.kill_points))


@dataclass(frozen=True)
class TrainingResult:
    """The verdict on a command, with everything that it rests on.

    `steps` is the number of optimizer steps of the recorded run; `before` holds the kill points
    at which there was no checkpoint yet. `planned` is the number of snapshots to resume from.
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

    @property
    def complete(self) -> bool:
        """Whether every snapshot was resumed from."""
        return len(self.outcomes) == self.planned


def verdict_of(outcomes: tuple[Outcome, ...]) -> Verdict:
    """The first verdict, in the order of `Verdict`, that one of the outcomes has."""
    found = {outcome.verdict for outcome in outcomes}
    return next((verdict for verdict in Verdict if verdict in found), Verdict.UNKNOWN)


def findings(outcomes: tuple[Outcome, ...]) -> list[Finding]:
    """What does not hold, the outcomes with the same cause together, by verdict and kill point."""
    found: list[Finding] = []
    for outcome in sorted(outcomes, key=lambda outcome: outcome.kill_points):
        if outcome.verdict == Verdict.HOLDS:
            continue
        for index, finding in enumerate(found):
            joined = _joined(finding, outcome)
            if joined is not None:
                found[index] = joined
                break
        else:
            relations = outcome.difference.relations if outcome.difference else ()
            found.append(Finding((outcome,), relations))
    order = list(Verdict)
    return sorted(found, key=lambda finding: order.index(finding.first.verdict))


def _joined(finding: Finding, outcome: Outcome) -> Finding | None:
    """`finding` with the outcome, if it has the same cause as far as is known."""
    if _kind(finding.first) != _kind(outcome):
        return None
    own = outcome.difference.relations if outcome.difference else ()
    common = tuple(text for text in finding.relations if text in own)
    if not common and (finding.relations or own):
        return None
    return Finding((*finding.outcomes, outcome), common)


def _kind(outcome: Outcome) -> tuple[object, ...]:
    difference = outcome.difference
    if difference is None:
        return outcome.verdict, outcome.reason
    place = difference.rank, difference.optimizer, difference.group
    return outcome.verdict, difference.field, *place


def to_json(result: TrainingResult) -> dict[str, object]:
    """Everything in the result, as JSON has it; `format` names the layout."""
    return {
        "format": "lr-resume-harness train 1",
        "command": list(result.command),
        "resume": list(result.resume),
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


def _trajectories(recordings: Mapping[int, Recording]) -> dict[str, list[dict[str, object]]]:
    return {
        str(rank): [_step(step) for step in recording.steps]
        for rank, recording in recordings.items()
    }


def _step(step: Step) -> dict[str, object]:
    return {"optimizer": step.optimizer, **step.values}
