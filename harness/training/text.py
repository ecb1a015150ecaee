"""The report on a training script, as text."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from types import MappingProxyType

from harness.core.output import count
from harness.core.run import ranges
from harness.training.compare import Difference, Field
from harness.training.recording import InsideSave
from harness.training.result import (
    Chain,
    Finding,
    Outcome,
    Signal,
    Stop,
    TrainingResult,
    Verdict,
    findings,
    points_of,
)

__all__ = [
    "finding_headline", "finding_rows", "finding_text", "first_start", "inside_text",
    "other_lines", "reproduction", "result_text", "script_name", "stop_moment", "stops", "summary",
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
    scratch = stops(_from_scratch(result.outcomes), result.steps)
    lines += [f"note: starts from scratch when {text}" for text in scratch]
    if result.before:
        lines.append(
            f"no checkpoint yet {_after(result.before, result.steps)}: a run starts from scratch"
        )
    return lines


def finding_text(result: TrainingResult, finding: Finding) -> str:
    """One way in which resumes fail, with the smallest kill point that shows it."""
    lines = [finding_headline(result, finding)]
    lines += [f"  {label:9} {text}" for label, text in finding_rows(result, finding)]
    if commands := reproduction(result, finding):
        lines += ["  Reproduce with:", *(f"    {command}" for command in commands)]
    return "\n".join(lines)


def finding_headline(result: TrainingResult, finding: Finding) -> str:
    """The verdict, the script, and when it must be killed for it to fail."""
    outcome = finding.first
    killed, *_ = stops(finding.outcomes, result.steps)
    resumed = ""
    if outcome.starts:
        start = first_start(outcome)
        resumed = f", resumed from the checkpoint of step {start}" if start else ", started again"
    return f"{outcome.verdict} {script_name(result.command)}: {killed}{resumed}"


def finding_rows(result: TrainingResult, finding: Finding) -> list[tuple[str, str]]:
    """What is known about a finding, each text with its label."""
    outcome = finding.first
    rows = [("state", inside_text(outcome.stop))] if isinstance(outcome.stop, InsideSave) else []
    if outcome.reason:
        rows.append(("reason", outcome.reason))
    if outcome.difference is not None:
        rows += _rows(outcome.difference, finding.relations)
    _, *others = stops(finding.outcomes, result.steps)
    return [*rows, *(("also", f"when {text}") for text in others)]


def reproduction(result: TrainingResult, finding: Finding) -> list[str]:
    """The commands that show a finding; none if it is not known to be a failure."""
    if finding.first.verdict == Verdict.UNKNOWN:
        return []
    stop = finding.first.stop
    told = f"send it {stop.name}" if isinstance(stop, Signal) else "kill it"
    moment = f"{told} {stop_moment(result, finding)}"
    first = [f"{shlex.join(result.command)}    # {moment}"]
    if isinstance(stop, Chain):
        first += [f"{shlex.join(result.resume)}    # {moment}"] * (stop.attempts - 2)
    return [*first, shlex.join(result.resume)]


def stop_moment(result: TrainingResult, finding: Finding) -> str:
    """When to stop the command to get the first checkpoint of a finding."""
    stop = finding.first.stop
    if isinstance(stop, InsideSave):
        return f"in the save after its step {finding.kill_point} ({inside_text(stop)})"
    if isinstance(stop, Chain):
        return f"after {count(stop.every, 'step')}"
    point = stop.after if isinstance(stop, Signal) else finding.kill_point
    return "after its last step" if point >= result.steps else f"right before its step {point + 1}"


def inside_text(stop: InsideSave) -> str:
    """A moment inside a save in words."""
    if stop.files:
        return ", ".join(f"{f.name}: {count(f.size, 'byte')} written" for f in stop.files)
    return f"right after {stop.done}"


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


def _from_scratch(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The resumes that start from scratch, but for those inside the first save."""
    first = min((o.kill_points[0] for o in outcomes if o.stop is None), default=0)
    return [
        outcome
        for outcome in outcomes
        if outcome.from_scratch
        and not (isinstance(outcome.stop, InsideSave) and outcome.kill_points[-1] <= first)
    ]


def stops(outcomes: Iterable[Outcome], steps: int) -> list[str]:
    """How the runs were stopped, in words: one text for each way of stopping."""
    ways: dict[type[Stop] | type[None], list[Outcome]] = {}
    for outcome in outcomes:
        ways.setdefault(type(outcome.stop), []).append(outcome)
    return [_stopped(found, points_of(found), steps) for found in ways.values()]


def _stopped(outcomes: Sequence[Outcome], points: Sequence[int], steps: int) -> str:
    """How runs that were all stopped in the same way were stopped."""
    stop = outcomes[0].stop
    if isinstance(stop, InsideSave):
        one = len([k for k in points if k]) <= 1
        return f"killed inside the {'save' if one else 'saves'} {_after(points)}"
    if isinstance(stop, Signal):
        points = sorted({o.stop.after for o in outcomes if isinstance(o.stop, Signal)})
        return f"sent {stop.name} {_after(points)}"
    if isinstance(stop, Chain):
        return f"killed after every {count(stop.every, 'step')}"
    return f"killed {_after(points, steps)}"


def _data_lines(outcomes: Iterable[Outcome], steps: int) -> list[str]:
    found = [outcome for outcome in outcomes if outcome.data is not None]
    if not found:
        return []
    first = found[0].data
    assert first is not None
    return [
        f"data: {first.field} differ from step {first.step} on when "
        f"{', or '.join(stops(found, steps))}: another order of the data, or another random state.",
        "      The schedule is the same, so this is BROKEN only with --compare all.",
    ]


def summary(result: TrainingResult) -> str:
    """One line: the command, how much was tried, and the verdict."""
    ranks = len(result.recordings)
    across = f" on {ranks} ranks" if ranks > 1 else ""
    done = len([o for o in result.outcomes if not isinstance(o.stop, Chain)])
    resumed = f"{done} of {result.planned}" if not result.complete else str(done)
    what = f"{count(result.steps, 'step')}{across}, {count(resumed, 'checkpoint state')} resumed"
    chains = [o.stop for o in result.outcomes if isinstance(o.stop, Chain)]
    what += "".join(f", a chain of {count(chain.attempts, 'attempt')}" for chain in chains)
    return f"{script_name(result.command)}: {result.verdict} ({what}, {result.seconds:.1f} s)"


def _after(points: Collection[int], steps: int = 0) -> str:
    """Kill points in words; the one before the first step counts only if there is no other.

    With the number of `steps`, how many of them these are.
    """
    counted = [k for k in points if k] or list(points)
    noun = "step" if len(counted) == 1 else "steps"
    text = f"after {noun} {ranges(counted).replace('-', ' to ')}"
    return f"{text} ({len(counted)} of {steps})" if steps else text


def script_name(command: tuple[str, ...]) -> str:
    """The script in a command, or its first word."""
    return next((word for word in command if word.endswith((".py", ".sh"))), command[0])
