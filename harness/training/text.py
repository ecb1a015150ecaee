"""The report on a training script, as text."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from types import MappingProxyType

from harness.core.run import ranges
from harness.training.compare import Difference, Field
from harness.training.result import Finding, Outcome, TrainingResult, Verdict, findings

__all__ = [
    "finding_headline", "finding_rows", "finding_text", "first_start", "kill_moment",
    "other_lines", "reproduction", "result_text", "script_name", "summary",
]  # fmt: skip


def result_text(
    result: TrainingResult, files: Mapping[int, Sequence[str]] = MappingProxyType({})
) -> str:
    """The whole report: each finding, what else was seen, and a line that sums it up.

    `files` holds lines about what was written for a finding, by its index in `findings`.
    """
    parts = []
    for index, finding in enumerate(findings(result.outcomes)):
        lines = [f"  {line}" for line in files.get(index, ())]
        parts.append("\n".join([finding_text(result, finding), *lines]))
    if result.reason:
        parts.append(f"{result.verdict} {script_name(result.command)}: {result.reason}")
    if lines := other_lines(result):
        parts.append("\n".join(lines))
    parts.append(summary(result))
    return "\n\n".join(parts)


def other_lines(result: TrainingResult) -> list[str]:
    """What was seen besides the findings."""
    lines = [
        *_data_lines(result.outcomes, result.steps),
        *(f"note: {note}" for note in result.notes),
    ]
    if result.before:
        lines.append(
            f"no checkpoint yet {_after(result.before, result.steps)}: a run starts from scratch"
        )
    return lines


def finding_text(result: TrainingResult, finding: Finding) -> str:
    """One way in which resumes fail, with the smallest kill point that shows it."""
    lines = [finding_headline(result, finding)]
    lines += [f"  {label:9} {text}" for label, text in finding_rows(finding)]
    if commands := reproduction(result, finding):
        lines += ["  Reproduce with:", *(f"    {command}" for command in commands)]
    return "\n".join(lines)


def finding_headline(result: TrainingResult, finding: Finding) -> str:
    """The verdict, the script, and when it must be killed for it to fail."""
    outcome = finding.first
    killed = f"killed {_after(finding.kill_points, result.steps)}"
    resumed = ""
    if outcome.starts:
        resumed = f", resumed from the checkpoint of step {first_start(outcome)}"
    return f"{outcome.verdict} {script_name(result.command)}: {killed}{resumed}"


def finding_rows(finding: Finding) -> list[tuple[str, str]]:
    """What is known about a finding, each text with its label."""
    outcome = finding.first
    rows = [("reason", outcome.reason)] if outcome.reason else []
    if outcome.difference is not None:
        rows += _rows(outcome.difference, finding.relations)
    return rows


def reproduction(result: TrainingResult, finding: Finding) -> list[str]:
    """The commands that show a finding; none if it is not known to be a failure."""
    if finding.first.verdict == Verdict.UNKNOWN:
        return []
    moment = kill_moment(result, finding)
    return [f"{shlex.join(result.command)}    # kill it {moment}", shlex.join(result.resume)]


def kill_moment(result: TrainingResult, finding: Finding) -> str:
    """When to kill the command to get the first checkpoint of a finding."""
    if finding.kill_point >= result.steps:
        return "after its last step"
    return f"right before its step {finding.kill_point + 1}"


def first_start(outcome: Outcome) -> int:
    """How many steps the checkpoint stands for, on the rank that differs."""
    rank = outcome.difference.rank if outcome.difference else min(outcome.starts)
    return outcome.starts.get(rank, min(outcome.starts.values()))


def _rows(difference: Difference, relations: tuple[str, ...]) -> list[tuple[str, str]]:
    place = f"step {difference.step}, rank {difference.rank}, optimizer {difference.optimizer}"
    if difference.group >= 0:
        place += f", group {difference.group}"
    name = "" if difference.field in (Field.STATE, Field.STEPS) else f"{difference.field} "
    later = ""
    if difference.group >= 0:
        later = f" ({difference.later} of {difference.following} later steps differ)"
    rows = [
        ("first", place),
        ("expected", f"{name}{difference.expected}"),
        ("got", f"{name}{difference.actual}{later}"),
    ]
    if relations:
        rows.append(("cause", relations[0]))
    elif difference.relations:
        rows.append(("cause", f"{difference.relations[0]}; it differs between kill points"))
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
