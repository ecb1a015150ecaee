"""Says what was found: as text, as a table, and as data.

``python -m harness check --json FILE`` writes the data: see `to_json`. What reads it depends on
``schema``, which goes up when a key changes its sense.
"""

from __future__ import annotations

import collections
import math
import platform
import shlex
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from harness.checks.registry import CHANGED
from harness.core.check import Check
from harness.core.ledger import NO_REPORT, entry_text, shows_of, version_of
from harness.core.operations import epochs, path_to, unpath
from harness.core.result import (
    BROKEN,
    DECLINED,
    HOLDS,
    KNOWN,
    OUT_OF_TIME,
    STALE,
    UNKNOWN,
    Budget,
    Counterexample,
    Result,
    shorten,
)
from harness.core.trace import BACK, STEPS
from harness.engine.grouping import Cause, explain, relations

if TYPE_CHECKING:
    from rich.table import Table

VERDICTS = (HOLDS, BROKEN, KNOWN, STALE, DECLINED, UNKNOWN)
"""In the order of a report."""
SCHEMA = 1
"""The version of what `to_json` returns; it goes up when a key changes its sense or goes."""
PROGRAM = "python -m harness"


def alike(results: Iterable[Result]) -> list[list[Result]]:
    """What is broken; results of one subject that one trace breaks in the same values together."""
    groups: dict[tuple[str, ...], list[Result]] = collections.defaultdict(list)
    for result in results:
        found = result.counterexample
        if result.verdict == BROKEN and found is not None:
            shown = repr((found.operation, found.step, found.expected, found.actual))
            groups[result.subject, str(found.trace), shown].append(result)
    return list(groups.values())


def broken_text(result: Result, check: Check, others: Sequence[Result] = ()) -> str:
    """A broken pair: what was promised, the counterexample, and how to reproduce it.

    `others` are broken in the same way (`alike`).
    """
    found = result.counterexample
    rows = broken_rows(result, check, others)
    assert found is not None
    lines = [f"BROKEN {result.subject}: {result.check} (torch {result.torch})", *_lined_up(rows)]
    return "\n".join([*lines, "  Reproduce with:", *_commands(result, str(found.trace))])


def broken_rows(
    result: Result, check: Check, others: Sequence[Result] = ()
) -> list[tuple[str, str]]:
    """What was promised, and what the counterexample shows, each with its label."""
    found = result.counterexample
    if found is None:
        raise ValueError(f"{result.subject} {result.check} is not broken")
    rows = [
        ("promise", check.doc),
        ("about", check.about),
        ("counterexample", str(found.trace)),
        *evidence(found, check),
    ]
    if others:
        rows.insert(3, ("it breaks also", ", ".join(other.check for other in others)))
    which = [] if "raises" in found.actual else sorted(relations(found))
    if which:
        got = next(place for place, (label, _) in enumerate(rows) if label == "got")
        rows.insert(got + 1, ("which is", "; ".join(which)))
    if result.note:
        rows.append(("note", result.note))
    return rows


def causes_text(causes: Sequence[Cause], checks: Mapping[str, Check]) -> str:
    """What is broken, a block for each cause; `checks` are those that were made, by their names."""
    blocks = []
    for number, cause in enumerate(causes, 1):
        result, found = cause.smallest
        shown = ", ".join(
            name if sets == 1 else f"{name} ({sets} sets of options)"
            for name, sets in cause.subjects.items()
        )
        several = len(cause.checks) > 1
        rows = [
            ("checks" if several else "check", ", ".join(cause.checks)),
            ("promise", f"of {result.check}: {checks[result.check].doc}")
            if several
            else ("promise", checks[result.check].doc),
            ("subject", shown)
            if len(cause.subjects) == 1
            else ("subjects", f"it looks the same in {shown}"),
            ("smallest", f"{result.subject} {found.trace}"),
            *evidence(found, checks[result.check]),
        ]
        lines = [f"CAUSE {number} of {len(causes)}: at {cause.operation}, {cause.relation}"]
        lines += [*_lined_up(rows), "  Reproduce with:", *_commands(result, str(found.trace))]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def causes_count(causes: Sequence[Cause]) -> str:
    """How many counterexamples there are, and causes."""
    members = sum(len(cause.members) for cause in causes)
    return f"{_count(members, 'counterexample')}, {_count(len(causes), 'cause')}"


def evidence(found: Counterexample, check: Check) -> list[tuple[str, str]]:
    """Where a counterexample shows, with what was expected and what was got there."""
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
    return [
        ("at", f"{where}, epoch {epochs(path)}"),
        ("expected", f"{values_text(found.expected)}, {because}"),
        ("got", f"{values_text(found.actual)}, {however}"),
        *([("state", found.state)] if found.state else []),
    ]


def _lined_up(rows: Sequence[tuple[str, str]]) -> list[str]:
    width = max(len(label) for label, _ in rows)
    return [f"  {label:{width}}  {text}" for label, text in rows]


def _where(found: Counterexample) -> tuple[str, str]:
    """The operation at which a counterexample shows, and the uninterrupted path to there."""
    operations = found.trace.operations
    operation = operations[found.operation]
    path = path_to(operations, found.operation, found.step)
    number = f"operation {found.operation + 1} of {len(operations)}"
    if operation.kind not in STEPS:
        return f"{operation} ({number})", path
    if not found.step:
        return "the start", path
    return f"step {found.step} of {operation} ({number})", path


def values_text(values: Mapping[str, Any]) -> str:
    """What was observed, or what was raised."""
    if set(values) == {"raises"}:
        return f"raises {values['raises']}"
    return ", ".join(f"{name} {shorten(value)}" for name, value in values.items())


def _commands(result: Result, trace: str) -> list[str]:
    subject, check = result.references
    if not subject or not check:
        arguments = (
            f"subject, {result.check!r}, {trace!r}" if check else f"subject, check, {trace!r}"
        )
        if result.resume_python:
            arguments += f", resume_python={result.resume_python!r}"
        return [
            f"    print(harness.replay({arguments}).verdict)",
            f"    print(harness.write_script({arguments}))",
        ]
    words = [subject, check, trace]
    if result.resume_python:
        words += ["--resume-python", result.resume_python]
    return [f"    {command(name, *words)}" for name in ("replay", "script")]


def command(*words: str) -> str:
    """A command of the harness, as it is typed into a shell."""
    return " ".join([PROGRAM, *map(_quote, words)])


def replay_command(result: Result, trace: str) -> str:
    """The command that replays `trace`; a line of Python where no command can name the pair."""
    return _commands(result, trace)[0].strip()


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


def known_text(results: Sequence[Result]) -> str:
    """What is broken as the ledger says, and what is not."""
    return "\n".join([*_grouped(results, KNOWN), *_grouped(results, STALE)])


def stale_text(results: Sequence[Result]) -> str:
    """What the ledger tells and is not true here."""
    return "\n".join(_grouped(results, STALE))


def entries(results: Sequence[Result]) -> list[str]:
    """Entries for a ledger: what is broken, and in none as it is."""
    entries = []
    for result in results:
        found = result.counterexample
        if result.verdict in (BROKEN, STALE) and found is not None:
            subject, check = result.references
            entries.append(
                entry_text(
                    {
                        "subject": subject or result.subject,
                        "check": check or result.check,
                        "torch": f">={version_of(result.torch)}",
                        "trace": str(found.trace),
                        "shows": shows_of(found),
                        "kind": "bug",
                        "tracked": NO_REPORT,
                        "reason": _reason(found),
                    }
                )
            )
    return entries


def _reason(found: Counterexample) -> str:
    if "raises" in found.actual:
        return f"It raises {found.actual['raises']}."
    return f"It has {values_text(found.actual)} there, and must have {values_text(found.expected)}."


def untried_text(results: Sequence[Result]) -> str:
    """The operations that no trace had, with whom, and why."""
    subjects: dict[tuple[str, str], dict[str, None]] = collections.defaultdict(dict)
    for result in results:
        for pair in result.untried:
            subjects[pair][result.subject] = None
    lines = []
    for (kind, reason), names in subjects.items():
        lines += [f"NOT TRIED {kind}: {', '.join(names)}", f"  {reason}"]
    return "\n".join(lines)


def tried_text(results: Sequence[Result]) -> str:
    """The verdicts on one subject in one line, with what was tried for them."""
    counts = collections.Counter(result.verdict for result in results)
    verdicts = ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict])
    return f"{verdicts} ({_totals(results)})"


def _totals(results: Sequence[Result]) -> str:
    seconds = sum(result.seconds for result in results)
    return ", ".join(filter(None, [tally_text(results), f"{seconds:.1f} s"]))


def tally_text(results: Sequence[Result]) -> str:
    """What was tried, in numbers."""
    tallies = [result.tally for result in results]
    parts = [
        (sum(tally.traces for tally in tallies), "trace"),
        (sum(tally.steps for tally in tallies), "step"),
        (sum(tally.resumes for tally in tallies), "resume"),
        (sum(tally.comparisons for tally in tallies), "state comparison"),
    ]
    return ", ".join(_count(*part) for part in parts if part[0])


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
    between = " " if len(columns) < 26 else ""  # so that it fits in 80 columns
    grid.add_column(between.join(columns.values()), no_wrap=True)
    rows: dict[str, dict[str, str]] = collections.defaultdict(dict)
    for result in results:
        rows[result.subject][result.check] = result.verdict
    styles = {BROKEN: "bold red", STALE: "bold red", UNKNOWN: "bold yellow", DECLINED: "dim"}
    for subject, verdicts in rows.items():
        cells = [verdicts.get(check, " ") for check in columns]
        marked = [f"[{styles[cell]}]{cell[0]}[/]" if cell in styles else cell[0] for cell in cells]
        grid.add_row(subject, between.join(marked))
    return grid


def legend(results: Sequence[Result]) -> str:
    """What the letters of the table stand for."""
    of_a_ledger = {result.verdict for result in results} & {KNOWN, STALE}
    more = ", K known, S stale" if of_a_ledger else ""
    lines = [f"H holds, B broken, D declined, U unknown{more}"]
    lines += [f"{letter} {check}" for check, letter in _columns(results).items()]
    return "\n".join(lines)


def summary(results: Sequence[Result]) -> str:
    """The counts in one line."""
    counts = collections.Counter(result.verdict for result in results)
    subjects = len({result.subject for result in results})
    checks = len({result.check for result in results})
    verdicts = ", ".join(
        f"{counts[v]} {v}" for v in VERDICTS if counts[v] or v not in (KNOWN, STALE)
    )
    version = results[0].torch if results else ""
    tried = f"{_count(subjects, 'subject')}, {_count(checks, 'check')}"
    short = sum(OUT_OF_TIME in result.reason and result.verdict != UNKNOWN for result in results)
    without = f", {short} not searched for want of time" if short else ""
    return f"torch {version}: {tried}: {verdicts}{without} ({_totals(results)})"


def to_json(
    results: Sequence[Result],
    budget: Budget,
    *,
    complete: bool,
    runs: Mapping[str, dict[str, list[Any]]] = MappingProxyType({}),
    shard: str = "1/1",
) -> dict[str, Any]:
    """The results as data for JSON.

    One object: ``schema`` (`SCHEMA`), ``torch``, ``python``, ``seed``,
    ``max_examples``, ``complete`` (false where the run was stopped), ``shard`` (``2/5`` for
    every fifth pair from the second on), and ``results``, a list of objects. Each has
    ``subject``, ``check``, ``verdict``, ``reason``, ``torch``, ``traces``, ``steps``,
    ``resumes``, ``comparisons``, ``seconds``, ``untried`` (operations, each with the reason);
    what is broken, stale or unknown also ``place`` (``path:line`` of the subject's class or
    function, or of the entry), where there is one; a broken pair also ``trace``, ``operation``
    (its index in the trace), ``step`` (of that operation, from 1; 0 for saves and resumes),
    ``replay`` (the command that replays it),
    ``found_by`` (``sweep`` or ``search``), ``expected`` and ``actual``, and ``state`` where
    attributes of the scheduler differ. Numbers that JSON lacks
    are the strings ``nan``, ``inf`` and ``-inf``. ``runs`` is an object by subject, of an
    object by trace: the LR of every group at the start and after each epoch, without any resume
    (`harness.engine.option_sets.uninterrupted_rates`).

    With ``budget.explain``, a broken pair has also ``others``, the traces of its
    counterexamples under other sets of options; and the object has ``causes``, a list
    of objects. Each has ``checks`` (names), ``operation``, ``relation`` and ``subjects``
    (an object: the number of sets of options by name), ``count`` (of counterexamples), and
    of the smallest of these ``subject``, ``check``, ``trace``, ``expected`` and ``actual``.
    """
    data: dict[str, Any] = {
        "schema": SCHEMA,
        "torch": results[0].torch if results else "",
        "python": platform.python_version(),
        "seed": budget.seed,
        "max_examples": budget.max_examples,
        "complete": complete,
        "shard": shard,
        "results": [_row(result) for result in results],
        "runs": _finite(dict(runs)),
    }
    if budget.explain:
        for row, result in zip(data["results"], results, strict=True):
            if result.counterexample is not None:
                row["others"] = [str(other.trace) for other in result.others]
        broken = [result for result in results if result.verdict == BROKEN]
        data["causes"] = list(map(_cause_row, explain(broken)))
    return data


def _cause_row(cause: Cause) -> dict[str, Any]:
    result, found = cause.smallest
    return {
        "checks": list(cause.checks),
        "operation": cause.operation,
        "relation": cause.relation,
        "subjects": cause.subjects,
        "count": len(cause.members),
        "subject": result.subject,
        "check": result.check,
        "trace": str(found.trace),
        "expected": _finite(found.expected),
        "actual": _finite(found.actual),
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
        "untried": dict(result.untried),
    }
    if result.place:
        row["place"] = result.place
    found = result.counterexample
    if found is not None:
        row |= {
            **_shown(found),
            "replay": replay_command(result, str(found.trace)),
            "found_by": found.found.by if found.found else "",
            "in_ledger": [_shown(known) for known in result.replays],
        }
    return row


def _shown(found: Counterexample) -> dict[str, Any]:
    return {
        "trace": str(found.trace),
        "operation": found.operation,
        "step": found.step,
        "expected": _finite(found.expected),
        "actual": _finite(found.actual),
        **({"state": found.state} if found.state else {}),
    }


def _finite(value: Any) -> Any:
    """`value` as JSON can hold it."""
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value.decode("latin-1") if isinstance(value, bytes) else value
