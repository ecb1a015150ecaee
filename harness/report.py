"""Says what was found: as text, as a table, and as data."""

from __future__ import annotations

import collections
import math
import platform
import shlex
import string
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from harness.checks import CHANGED
from harness.decorators import Check
from harness.paths import branches, epochs, unpath, walk
from harness.results import (
    BROKEN,
    DECLINED,
    HOLDS,
    UNKNOWN,
    Budget,
    Counterexample,
    Result,
    shorten,
)
from harness.trace import BACK, STEPS

if TYPE_CHECKING:
    from rich.table import Table

__all__ = [
    "SCHEMA",
    "broken_text",
    "declined_text",
    "legend",
    "note_text",
    "summary",
    "table",
    "to_json",
    "tried_text",
    "unknown_text",
]

SCHEMA = 1
"""The version of what `to_json` returns; it goes up when a key changes its sense or goes."""

PROGRAM = "python -m harness"


def broken_text(result: Result, check: Check) -> str:
    """A broken pair: what was promised, the counterexample, and how to reproduce it."""
    found = result.counterexample
    if found is None:
        raise ValueError(f"{result.subject} {result.check} is not broken")
    where, path = _where(found)
    if check.compares == "trajectory":
        run = " ".join(map(str, unpath(path))) or "without a step"
        because = f"because the uninterrupted run ({run}) has it there"
        if check is CHANGED:
            because = f"because the uninterrupted runs ({run}) have it there"
        ways = dict.fromkeys(
            op.check or check.name for op in found.trace.operations if op.kind in BACK
        )
        how = f"resumed by {' and '.join(ways or [check.name])}"
        however = f"however this run was {how if check.kind == 'resume' else 'saved'}"
    else:
        because = "because that is the promise"
        however = "however it is not kept there"
    rows = [
        ("promise", check.doc),
        ("about", check.about),
        ("counterexample", str(found.trace)),
        ("at", f"{where}, epoch {epochs(path)}"),
        ("expected", f"{_values(found.expected)}, {because}"),
        ("got", f"{_values(found.actual)}, {however}"),
    ]
    if result.note:
        rows.append(("note", result.note))
    width = max(len(label) for label, _ in rows)
    lines = [f"BROKEN {result.subject}: {result.check} (torch {result.torch})"]
    lines += [f"  {label:{width}}  {text}" for label, text in rows]
    return "\n".join([*lines, "  Reproduce with:", *_commands(result, str(found.trace))])


def _where(found: Counterexample) -> tuple[str, str]:
    """The operation at which a counterexample shows, and the uninterrupted path to there."""
    operations = found.trace.operations
    operation, before, after = list(walk(operations))[found.operation]
    number = f"operation {found.operation + 1} of {len(operations)}"
    if operation.kind not in STEPS:
        return f"{operation} ({number})", after
    if not found.step:
        return "the start", before
    path = branches(operations)[found.operation][: len(before) + found.step]
    return f"step {found.step} of {operation} ({number})", path


def _values(values: dict[str, Any]) -> str:
    if set(values) == {"raises"}:
        return f"raises {values['raises']}"
    return ", ".join(f"{name} {shorten(value)}" for name, value in values.items())


def _commands(result: Result, trace: str) -> list[str]:
    subject, check = result.references
    if not subject or not check:
        arguments = (
            f"subject, {result.check!r}, {trace!r}" if check else f"subject, check, {trace!r}"
        )
        return [
            f"    print(harness.replay({arguments}).verdict)",
            f"    print(harness.write_script({arguments}))",
        ]
    said = " ".join(map(_quote, (subject, check, trace)))
    return [f"    {PROGRAM} replay {said}", f"    {PROGRAM} script {said}"]


def _quote(word: str) -> str:
    """A word for a shell, in double quotes where these do."""
    quoted = shlex.quote(word)
    return quoted if quoted == word or set('"$`\\!') & set(word) else f'"{word}"'


def _grouped(results: Iterable[Result], verdict: str) -> list[str]:
    """Lines that say each reason once, with the pairs that it is given for."""
    reasons: dict[tuple[str, str], list[str]] = collections.defaultdict(list)
    totals = collections.Counter(result.subject for result in results)
    for result in results:
        if result.verdict == verdict:
            reasons[result.subject, result.reason].append(result.check)
    lines = []
    for (subject, reason), checks in reasons.items():
        every = len(checks) == totals[subject] > 1
        lines.append(f"{verdict} {subject}: {'every check' if every else ', '.join(checks)}")
        lines.append(f"  {reason}")
    return lines


def declined_text(results: Sequence[Result]) -> str:
    """What was declined, and why."""
    return "\n".join(_grouped(results, DECLINED))


def note_text(results: Sequence[Result]) -> str:
    """What the verdicts on a promise leave out."""
    notes = [replace(result, verdict="NOTE") for result in results if result.note]
    return "\n".join(_grouped(notes, "NOTE"))


def unknown_text(results: Sequence[Result]) -> str:
    """What could not be decided, and why."""
    return "\n".join(_grouped(results, UNKNOWN))


def tried_text(results: Sequence[Result]) -> str:
    """The verdicts on one subject in one line, with what was tried for them."""
    counts = collections.Counter(result.verdict for result in results)
    verdicts = ", ".join(
        f"{counts[verdict]} {verdict}" for verdict in (HOLDS, BROKEN, DECLINED, UNKNOWN)
        if counts[verdict]
    )  # fmt: skip
    return f"{verdicts} ({_totals(results)})"


def _totals(results: Sequence[Result]) -> str:
    tallies = [result.tally for result in results]
    parts = [
        (sum(tally.traces for tally in tallies), "trace"),
        (sum(tally.steps for tally in tallies), "step"),
        (sum(tally.resumes for tally in tallies), "resume"),
        (sum(tally.comparisons for tally in tallies), "state comparison"),
    ]
    seconds = sum(result.seconds for result in results)
    return ", ".join([*(_count(*part) for part in parts if part[0]), f"{seconds:.1f} s"])


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + "s" * (number != 1)


def _columns(results: Sequence[Result]) -> dict[str, str]:
    """A letter for every check, in the order of the results."""
    checks = list(dict.fromkeys(result.check for result in results))
    letters = string.ascii_lowercase + string.ascii_uppercase
    return {check: letters[i] if i < len(letters) else str(i) for i, check in enumerate(checks)}


def table(results: Sequence[Result]) -> Table:
    """The verdicts, subject by check, each by its first letter."""
    from rich.table import Table

    columns = _columns(results)
    grid = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="")
    grid.add_column("subject", no_wrap=True)
    for letter in columns.values():
        grid.add_column(letter, no_wrap=True)
    rows: dict[str, dict[str, str]] = collections.defaultdict(dict)
    for result in results:
        rows[result.subject][result.check] = result.verdict
    styles = {BROKEN: "bold red", UNKNOWN: "bold yellow", DECLINED: "dim"}
    for subject, verdicts in rows.items():
        cells = [verdicts.get(check, " ") for check in columns]
        marked = [f"[{styles[cell]}]{cell[0]}[/]" if cell in styles else cell[0] for cell in cells]
        grid.add_row(subject, *marked)
    return grid


def legend(results: Sequence[Result]) -> str:
    """What the letters of the table stand for."""
    lines = ["H holds, B broken, D declined, U unknown"]
    lines += [f"{letter} {check}" for check, letter in _columns(results).items()]
    return "\n".join(lines)


def summary(results: Sequence[Result]) -> str:
    """The counts in one line."""
    counts = collections.Counter(result.verdict for result in results)
    subjects = len({result.subject for result in results})
    checks = len({result.check for result in results})
    verdicts = ", ".join(f"{counts[v]} {v}" for v in (HOLDS, BROKEN, DECLINED, UNKNOWN))
    version = results[0].torch if results else ""
    tried = f"{_count(subjects, 'subject')}, {_count(checks, 'check')}"
    return f"torch {version}: {tried}: {verdicts} ({_totals(results)})"


def to_json(results: Sequence[Result], budget: Budget, *, complete: bool) -> dict[str, Any]:
    """The results as data for JSON.

    One object: ``schema`` (`SCHEMA`), ``torch``, ``python``, ``seed``,
    ``max_examples``, ``complete`` (false where the run was stopped), and
    ``results``, a list of objects. Each has ``subject``, ``check``, ``verdict``,
    ``reason``, ``torch``, ``traces``, ``steps``, ``resumes``, ``comparisons``,
    ``seconds``; for a broken pair also ``trace``, ``operation`` (its index in the
    trace), ``step`` (of that operation, from 1; 0 for saves and resumes),
    ``found_by`` (``sweep`` or ``search``), ``expected`` and ``actual``. Numbers
    that JSON lacks are the strings ``nan``, ``inf`` and ``-inf``.
    """
    return {
        "schema": SCHEMA,
        "torch": results[0].torch if results else "",
        "python": platform.python_version(),
        "seed": budget.seed,
        "max_examples": budget.max_examples,
        "complete": complete,
        "results": [_row(result) for result in results],
    }


def _row(result: Result) -> dict[str, Any]:
    row: dict[str, Any] = {
        "subject": result.subject,
        "check": result.check,
        "verdict": result.verdict,
        "reason": result.reason,
        "torch": result.torch,
        **vars(result.tally),
        "seconds": result.seconds,
    }
    found = result.counterexample
    if found is not None:
        row |= {
            "trace": str(found.trace),
            "operation": found.operation,
            "step": found.step,
            "found_by": found.found.by if found.found else "",
            "expected": _finite(found.expected),
            "actual": _finite(found.actual),
        }
    return row


def _finite(value: Any) -> Any:
    """`value` as JSON can hold it."""
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value.decode("latin-1") if isinstance(value, bytes) else value
