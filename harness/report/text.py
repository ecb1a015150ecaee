"""Results as text and as a table, with each failure as one block.

Two broken results of a subject are one failure if they have the same cause: if the same attribute
is missing from its ``state_dict``, or if they show the same values in the same trace, apart from
the way of resuming.
"""

from __future__ import annotations

import collections
import functools
import itertools
import math
import shlex
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.core.ledger import BUG, NO_REPORT, ROUNDED, entry_text, version_of
from harness.core.operations import GO_BACK, STEPS, epochs, operations_of, path_to
from harness.core.output import count, one_line, printable
from harness.core.relations import every_relation, relations, shows_of, ulps_of
from harness.core.result import Counterexample, LostAttribute, Promise, Result, grouped, shorten
from harness.core.run import Looked
from harness.core.verdict import Reason, Verdict

if TYPE_CHECKING:
    from rich.table import Table

PROGRAM = "lr-resume-harness"


@dataclass(frozen=True)
class Failure:
    """The broken checks of a subject that have one cause; `results` are simplest first."""

    results: tuple[Result, ...]

    @property
    def result(self) -> Result:
        """The result with the simplest counterexample: fewest operations, steps, characters."""
        return self.results[0]

    @property
    def counterexample(self) -> Counterexample:
        """The simplest counterexample."""
        found = self.result.counterexample
        assert found is not None
        return found

    @property
    def checks(self) -> tuple[str, ...]:
        """The names of the checks that fail for this cause."""
        return tuple(result.check for result in self.results)

    @property
    def lost(self) -> LostAttribute | None:
        """The attribute that is missing from the ``state_dict``; None if no such is known."""
        return _missing(self.counterexample)

    @property
    def relations(self) -> tuple[str, ...]:
        """How the wrong value relates to the right one in every result, in words."""
        every = [relations(r.counterexample) for r in self.results if r.counterexample]
        return tuple(sorted(frozenset.intersection(*every)))

    @property
    def headline(self) -> str:
        """The cause if it is known, else the checks that fail."""
        if self.lost is not None:
            return f"{self.lost.name} is not in the state_dict"
        return ", ".join(self.checks)


def failures(results: Iterable[Result]) -> list[Failure]:
    """The failures in `results`, in the order of their first result.

    Every BROKEN result is in exactly one failure.

    >>> from harness import check_subject, Subject
    >>> from harness.checks.registry import select_checks
    >>> from torch.optim.lr_scheduler import StepLR
    >>> subject = Subject("decays", StepLR, options={"step_size": 3, "gamma": 0.5})
    >>> checks = select_checks(["resume_by_last_epoch"])
    >>> [failure] = failures(check_subject(subject, checks))
    >>> failure.relations
    ('multiplied a second time by the factor of the last step',)
    """
    broken = (result for result in results if result.verdict == Verdict.BROKEN)
    groups = grouped((result for result in broken if result.counterexample is not None), _key)
    return [Failure(tuple(sorted(group, key=_size))) for group in groups.values()]


def _missing(found: Counterexample) -> LostAttribute | None:
    return next((lost for lost in found.lost if not lost.saved), None)


def _key(result: Result) -> tuple[str, ...]:
    """A key that is equal for results with the same cause."""
    found = result.counterexample
    assert found is not None
    lost = _missing(found)
    if lost is not None:
        return result.subject, "lost", lost.name
    options = repr(sorted(map(repr, found.trace.options)))
    values = repr((found.expected, found.actual))
    return result.subject, options, *_without_routes(result, found), values


def _without_routes(result: Result, found: Counterexample) -> Sequence[str]:
    """The operations without the way of resuming. A check at every save resumes at each save."""
    words = []
    for operation in found.trace.operations:
        if operation.kind in GO_BACK:
            words.append(f"back:{operation.slot}")
        else:
            words.append(str(operation))
            if operation.kind == "save" and result.promise.resumes_at_saves:
                words.append(f"back:{operation.slot}")
    return words


def _size(result: Result) -> tuple[int, int, int]:
    found = result.counterexample
    assert found is not None
    return len(_without_routes(result, found)), found.trace.steps, len(str(found.trace))


# ------------------------------------------------------------------------------- as text


def broken_text(failure: Failure) -> str:
    """A failure as text: what was promised, a counterexample, and how to reproduce it."""
    result, found = failure.result, failure.counterexample
    lines = [
        f"BROKEN {result.subject}: {failure.headline} (torch {result.torch})",
        *aligned(broken_rows(failure)),
    ]
    return "\n".join([*lines, "  Reproduce with:", *_commands(result, str(found.trace))])


def broken_rows(failure: Failure) -> list[tuple[str, str]]:
    """What was promised, and what the counterexample shows, each with its label."""
    result, found = failure.result, failure.counterexample
    several = len(failure.checks) > 1
    promise = result.promise.text
    rows = [
        ("promise", f"{result.check}: {promise}" if several else promise),
        ("topic", result.promise.about),
        ("counterexample", str(found.trace)),
        *difference_rows(found, result.promise, result.check),
    ]
    if several or failure.lost is not None:
        rows.insert(0, ("checks" if several else "check", ", ".join(failure.checks)))
    which = () if "raises" in found.actual else failure.relations
    if which:
        got = next(place for place, (label, _) in enumerate(rows) if label == "got")
        rows.insert(got + 1, ("which is", "; ".join(which)))
    ulps = ulps_of(found)
    if ulps is not None:
        rows.insert(0, ("rounding", f"the values are at most {ulps} units in the last place apart"))
    if result.note:
        rows.append(("note", result.note))
    return rows


def difference_rows(found: Counterexample, promise: Promise, check: str) -> list[tuple[str, str]]:
    """Where a counterexample of `check` differs, what was expected there, and what it got."""
    where, path = _where(found)
    sides = told_apart(found.expected, found.actual)
    expected, got = map(values_text, sides)
    if expected == got:  # they differ only in a part that was cut from a long value
        expected, got = (values_text(side, shortened=False) for side in sides)
    if promise.compares == "trajectory":
        run = " ".join(map(str, operations_of(path))) or "no steps"
        what = "uninterrupted runs" if promise.changes_options else "uninterrupted run"
        ways = dict.fromkeys(
            op.check or check for op in found.trace.operations if op.kind in GO_BACK
        )
        how = f"after resuming with {' and '.join(ways or [check])}"
        expected += f" in the {what} ({run})"
        got += f" {how if promise.kind == 'resume' else 'after a save'}"
    return [
        ("at", f"{where}, epoch {epochs(path)}"),
        ("expected", expected),
        ("got", got),
        *([("state", "; ".join(map(str, found.lost)))] if found.lost else []),
    ]


def aligned(rows: Sequence[tuple[str, str]]) -> list[str]:
    """A line for each text, after its label; the texts are aligned."""
    width = max((len(label) for label, _ in rows), default=0)
    return [f"  {label:{width}}  {text}" for label, text in rows]


def _where(found: Counterexample) -> tuple[str, str]:
    """The operation at which a counterexample differs, and the uninterrupted path to it."""
    operations = found.trace.operations
    operation = operations[found.operation]
    path = path_to(operations, found.operation, found.step)
    number = f"operation {found.operation + 1} of {len(operations)}"
    if operation.kind not in STEPS:
        return f"{operation} ({number})", path
    if not found.step:
        return "the start", path
    return f"step {found.step} of {operation} ({number})", path


DIGITS = range(6, 18)
"""How many digits of a number are shown: as few of these as tell two values apart."""


def told_apart(
    expected: Mapping[str, object], actual: Mapping[str, object]
) -> tuple[dict[str, object], dict[str, object]]:
    """Both with their numbers rounded to the fewest digits that still tell them apart.

    >>> told_apart({"lr": [0.07500000000000001, 0.1]}, {"lr": [0.095, 0.1]})
    ({'lr': [0.075, 0.1]}, {'lr': [0.095, 0.1]})
    """
    exact = list(zip(_floats(expected), _floats(actual), strict=False))
    for digits in DIGITS:
        sides = (
            {n: _rounded(v, digits) for n, v in expected.items()},
            {n: _rounded(v, digits) for n, v in actual.items()},
        )
        shown = zip(*map(_floats, sides), strict=False)
        if all((a == b) == (c == d) for (a, b), (c, d) in zip(exact, shown, strict=True)):
            return sides
    return dict(expected), dict(actual)


def _floats(value: Any) -> list[float]:
    """The numbers in plain values, in their order."""
    if isinstance(value, float):
        return [value] if math.isfinite(value) else []
    if isinstance(value, Mapping):
        value = list(value.values())
    return [one for item in value for one in _floats(item)] if type(value) in (list, tuple) else []


def _rounded(value: Any, digits: int) -> Any:
    if type(value) is float:
        return float(f"{value:.{digits}g}")
    if type(value) in (list, tuple):
        return type(value)(_rounded(item, digits) for item in value)
    if type(value) is dict:
        return {key: _rounded(item, digits) for key, item in value.items()}
    return value


def values_text(values: Mapping[str, object], *, shortened: bool = True) -> str:
    """What was observed or raised, as text; long values are cut if `shortened`."""
    if set(values) == {"raises"}:
        return f"raises {values['raises']}"
    return ", ".join(
        f"{name} {shorten(value) if shortened else one_line(str(value))}"
        for name, value in values.items()
    )


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
    """A command of the harness, quoted for a shell."""
    return " ".join([PROGRAM, *map(_quote, words)])


def replay_command(result: Result, trace: str) -> str:
    """The command that replays `trace`; a line of Python if no command can name the pair."""
    return _commands(result, trace)[0].strip()


def _quote(word: str) -> str:
    """A word quoted for a shell, in double quotes if they are enough."""
    quoted = shlex.quote(word)
    return quoted if quoted == word or set('"$`\\!') & set(word) else f'"{word}"'


def by_reason(results: Iterable[Result]) -> dict[tuple[str, str], list[Result]]:
    """The results of each subject that have the same reason, by subject and reason."""
    return grouped(results, lambda result: (result.subject, result.reason))


def _reasons(results: Sequence[Result], chosen: Iterable[Result], title: str) -> list[str]:
    """Lines that show each reason of the `chosen` results once, with its subject and checks."""
    totals = collections.Counter(result.subject for result in results)
    lines = []
    for (subject, reason), group in by_reason(chosen).items():
        every = len(group) == totals[subject] > 1
        checks = "every check" if every else ", ".join(result.check for result in group)
        looked = no_other_failure_text(group)
        lines += [
            f"{title} {subject}: {checks}",
            f"  {reason}",
            *([f"  {looked}"] if looked else []),
        ]
    return lines


def reasons_text(results: Sequence[Result], *verdicts: Verdict) -> str:
    """The pairs with one of these verdicts, and the reasons."""
    lines = []
    for verdict in verdicts:
        lines += _reasons(results, (r for r in results if r.verdict == verdict), verdict)
    return "\n".join(lines)


def note_text(results: Sequence[Result]) -> str:
    """The notes on verdicts: see `harness.core.result.Result.note`."""
    return "\n".join(_reasons(results, (result for result in results if result.note), "NOTE"))


def entries(results: Sequence[Result]) -> list[str]:
    """Ledger entries for the failures that no ledger entry explains."""
    return [
        new_entry(
            result.references[0] or result.subject, result.references[1] or result.check,
            f">={version_of(result.torch)}", result.counterexample,
        )
        for result in results
        if result.verdict in (Verdict.BROKEN, Verdict.STALE) and result.counterexample is not None
    ]  # fmt: skip


def new_entry(subject: str, check: str, torch: str, found: Counterexample) -> str:
    """A draft of a ledger entry for a counterexample on the versions `torch`."""
    reason = f"Expected {values_text(found.expected)}, got {values_text(found.actual)}."
    if "raises" in found.actual:
        reason = f"It raises {found.actual['raises']}."
    return entry_text(
        {
            "subject": subject,
            "check": check,
            "torch": torch,
            "trace": str(found.trace),
            **what_it_shows(found),
            "tracked": NO_REPORT,
            "reason": reason,
        }
    )


def what_it_shows(found: Counterexample) -> dict[str, str]:
    """The keys of a ledger entry that follow from a counterexample.

    If the values differ by rounding, the largest distance; else the most telling relation.
    """
    ulps, true = ulps_of(found), every_relation(found)
    if ulps is not None:
        return {"shows": shows_of(found), "kind": ROUNDED, "ulps": str(ulps)}
    relation = {"relation": true[0]} if true else {}
    return {"shows": shows_of(found), **relation, "kind": BUG}


def untried(results: Sequence[Result]) -> dict[tuple[str, str], list[str]]:
    """For each operation that was not tried, with the reason: the subjects it was not tried on."""
    every = dict.fromkeys((what, result.subject) for result in results for what in result.untried)
    groups = grouped(every, lambda pair: pair[0])
    return {what: [subject for _, subject in group] for what, group in groups.items()}


def untried_text(results: Sequence[Result], *, every: bool = True) -> str:
    """The operations that no trace contained, for which subjects, and why; else in one line."""
    found = untried(results)
    if found and not every:
        operations = dict.fromkeys(operation for operation, _ in found)
        return f"NOT TRIED: {', '.join(operations)} (-v says why)"
    return "\n".join(
        f"NOT TRIED {operation}: {', '.join(names)}\n  {reason}"
        for (operation, reason), names in found.items()
    )


def tried_text(results: Sequence[Result]) -> str:
    """The verdicts on one subject in one line, with how much was tried."""
    return f"{counts_text(results)} ({_totals(results)})"


def counts_text(results: Sequence[Result], verdicts: Iterable[Verdict] = Verdict) -> str:
    """How many results have each of these verdicts; a verdict that none has is left out."""
    counts = collections.Counter(result.verdict for result in results)
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in verdicts if counts[verdict])


def _totals(results: Sequence[Result]) -> str:
    seconds = sum(result.seconds for result in results)
    return ", ".join(filter(None, [tally_text(results), f"{seconds:.1f} s"]))


def tally_text(results: Sequence[Result]) -> str:
    """How much was tried: traces, steps, resumes, comparisons."""
    tallies = [result.tally for result in results]
    parts = [
        (sum(tally.traces for tally in tallies), "trace"),
        (sum(tally.steps for tally in tallies), "step"),
        (sum(tally.resumes for tally in tallies), "resume"),
        (sum(tally.comparisons for tally in tallies), "state comparison"),
    ]
    return ", ".join(count(*part) for part in parts if part[0])


def letters_of(checks: Iterable[str]) -> dict[str, str]:
    """A letter for each check, in their order; numbers after the last letter."""
    letters = itertools.chain(string.ascii_letters, map(str, itertools.count(52)))
    return dict(zip(dict.fromkeys(checks), letters, strict=False))


def table(results: Sequence[Result]) -> Table:
    """The verdicts as a table, a row for each subject and a letter for each verdict."""
    from rich.markup import escape
    from rich.table import Table

    letters = letters_of(result.check for result in results)
    grid = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="")
    grid.add_column("subject", no_wrap=True)
    between = " " if len(letters) < 26 else ""  # so that it fits in 80 columns
    grid.add_column(between.join(letters.values()), no_wrap=True)
    styles: dict[str, str] = {
        Verdict.BROKEN: "bold red",
        Verdict.STALE: "bold red",
        Verdict.UNKNOWN: "bold yellow",
        Verdict.DECLINED: "dim",
    }
    for subject, row in grouped(results, lambda result: result.subject).items():
        verdicts = {result.check: result.verdict for result in row}
        cells = [verdicts.get(check, " ") for check in letters]
        marked = [f"[{styles[cell]}]{cell[0]}[/]" if cell in styles else cell[0] for cell in cells]
        grid.add_row(escape(printable(subject)), between.join(marked))
    return grid


def legend(results: Sequence[Result]) -> str:
    """What the letters in the table mean."""
    of_a_ledger = {result.verdict for result in results} & {Verdict.KNOWN, Verdict.STALE}
    more = ", K known, S stale" if of_a_ledger else ""
    lines = [f"H holds, B broken, D declined, U unknown{more}"]
    letters = letters_of(result.check for result in results)
    lines += [f"{letter} {check}" for check, letter in letters.items()]
    return "\n".join(lines)


def looked_text(results: Sequence[Result]) -> str:
    """Where the pairs that hold were looked at; empty if none was."""
    holding = (result for result in results if result.verdict == Verdict.HOLDS)
    return "\n".join(looked_at(result.tally.looked for result in holding))


def looked_at(looked: Iterable[Looked]) -> list[str]:
    """Where pairs were looked at: in each of them, and in some; empty if none was."""
    known = [each for each in looked if each.epochs]
    if not known:
        return []
    common = Looked(
        frozenset.intersection(*(each.epochs for each in known)),
        frozenset.intersection(*(each.optimizers for each in known)),
    )
    anywhere = functools.reduce(Looked.plus, known)
    if common == anywhere:
        return [f"looked at: {common}"]
    return [f"looked at in each pair: {common}", f"in some pairs: {anywhere}"]


def looked_lines(results: Sequence[Result]) -> list[str]:
    """Where each pair was looked at."""
    return [
        f"{result.subject}: {result.check}: looked at: {result.tally.looked}"
        for result in results
        if result.tally.looked.epochs
    ]


def no_other_failure_text(results: Sequence[Result]) -> str:
    """Where KNOWN pairs were checked for failures that no entry explains; empty if nowhere."""
    known = (r for r in results if r.verdict == Verdict.KNOWN)
    lines = looked_at(r.tally.looked for r in known if r.why != Reason.EXPECTED_FAILURE)
    return f"no other failure found; {'; '.join(lines)}" if lines else ""


def summary(results: Sequence[Result], planned: int = 0) -> str:
    """The counts in one line; `planned` is the number of pairs that were to be checked."""
    counts = collections.Counter(result.verdict for result in results)
    subjects = len({result.subject for result in results})
    checks = len({result.check for result in results})
    verdicts = ", ".join(
        f"{counts[v]} {v}" for v in Verdict if counts[v] or v not in (Verdict.KNOWN, Verdict.STALE)
    )
    version = results[0].torch if results else ""
    tried = f"{count(subjects, 'subject')}, {count(checks, 'check')}"
    short = sum(
        result.why == Reason.OUT_OF_TIME and result.verdict != Verdict.UNKNOWN for result in results
    )
    without = f", {short} not searched (out of time)" if short else ""
    if planned > len(results):
        without += f", stopped after {len(results)} of {planned} pairs"
    return f"torch {version}: {tried}: {verdicts}{without} ({_totals(results)})"
