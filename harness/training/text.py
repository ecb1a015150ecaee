"""The report on a training script, as text."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable

from harness.core.run import ranges
from harness.training.compare import Difference, Field
from harness.training.result import Finding, Outcome, TrainingResult, Verdict, findings

__all__ = ["finding_text", "result_text"]


def result_text(result: TrainingResult) -> str:
    """The whole report: each finding, what else was seen, and a line that sums it up."""
    parts = [finding_text(result, finding) for finding in findings(result.outcomes)]
    if result.reason:
        parts.append(f"{result.verdict} {script_name(result.command)}: {result.reason}")
    lines = [
        *_data_lines(result.outcomes, result.steps),
        *(f"note: {note}" for note in result.notes),
    ]
    if result.before:
        lines.append(
            f"no checkpoint yet {_after(result.before, result.steps)}: a run starts from scratch"
        )
    if lines:
        parts.append("\n".join(lines))
    parts.append(summary(result))
    return "\n\n".join(parts)


def finding_text(result: TrainingResult, finding: Finding) -> str:
    """One way in which resumes fail, with the smallest kill point that shows it."""
    outcome = finding.first
    killed = f"killed {_after(finding.kill_points, result.steps)}"
    resumed = ""
    if outcome.starts:
        resumed = f", resumed from the checkpoint of step {_first_start(outcome)}"
    lines = [f"{outcome.verdict} {script_name(result.command)}: {killed}{resumed}"]
    if outcome.reason:
        lines.append(f"  reason    {outcome.reason}")
    if outcome.difference is not None:
        lines += _rows(outcome.difference, finding.relations)
    if outcome.verdict != Verdict.UNKNOWN:
        kill = max(outcome.kill_points[0], 1)
        lines += [
            "  Reproduce with:",
            f"    {shlex.join(result.command)}    # kill it right before its step {kill + 1}",
            f"    {shlex.join(result.resume)}",
        ]
    return "\n".join(lines)


def _first_start(outcome: Outcome) -> int:
    rank = outcome.difference.rank if outcome.difference else min(outcome.starts)
    return outcome.starts.get(rank, min(outcome.starts.values()))


def _rows(difference: Difference, relations: tuple[str, ...]) -> list[str]:
    place = f"step {difference.step}, rank {difference.rank}, optimizer {difference.optimizer}"
    if difference.group >= 0:
        place += f", group {difference.group}"
    name = "" if difference.field in (Field.STATE, Field.STEPS) else f"{difference.field} "
    later = ""
    if difference.group >= 0:
        later = f" ({difference.later} of {difference.following} later steps differ)"
    rows = [
        f"  first     {place}",
        f"  expected  {name}{difference.expected}",
        f"  got       {name}{difference.actual}{later}",
    ]
    if relations:
        rows.append(f"  cause     {relations[0]}")
    elif difference.relations:
        rows.append(f"  cause     {difference.relations[0]}; it differs between kill points")
    return rows


def _data_lines(outcomes: Iterable[Outcome], steps: int) -> list[str]:
    found = [outcome for outcome in outcomes if outcome.data is not None]
    if not found:
        return []
    points = [k for outcome in found for k in outcome.kill_points]
    first = found[0].data
    assert first is not None
    return [
        f"data: {first.field} differ from step {first.step} on when killed "
        f"{_after(points, steps)}: another order of the data, or another random state.",
        "      The schedule is the same, so this is BROKEN only with --compare all.",
    ]


def summary(result: TrainingResult) -> str:
    """One line: the command, how much was tried, and the verdict."""
    ranks = len(result.recordings)
    across = f" on {ranks} ranks" if ranks > 1 else ""
    done = len(result.outcomes)
    resumed = f"{done} of {result.planned}" if not result.complete else str(done)
    what = f"{_count(result.steps, 'step')}{across}, {_count(resumed, 'checkpoint state')} resumed"
    return f"{script_name(result.command)}: {result.verdict} ({what}, {result.seconds:.1f} s)"


def _count(number: int | str, noun: str) -> str:
    return f"{number} {noun}" if str(number) == "1" else f"{number} {noun}s"


def _after(points: Collection[int], steps: int) -> str:
    """Kill points in words; the one before the first step counts only if there is no other."""
    counted = [k for k in points if k] or list(points)
    noun = "step" if len(counted) == 1 else "steps"
    return f"after {noun} {ranges(counted).replace('-', ' to ')} ({len(counted)} of {steps})"


def script_name(command: tuple[str, ...]) -> str:
    """The script in a command, or its first word."""
    return next((word for word in command if word.endswith((".py", ".sh"))), command[0])
