"""HTML pages, one for a run and one for the matrix. Each is a single file that needs no network.

This module computes what a page shows, as values. The templates define how it looks, and escape
all text.
"""

from __future__ import annotations

import base64
import collections
import hashlib
import itertools
import platform
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import jinja2
from markupsafe import Markup

import harness
from harness.core.errors import HarnessError
from harness.core.result import Budget, Counterexample, Result
from harness.core.safe_text import printable
from harness.core.verdict import Verdict
from harness.report.failures import Failure, failures
from harness.report.matrix import COLOURS, LETTERS, SHOWN, Matrix, Pair
from harness.report.picture import picture_of
from harness.report.text import broken_rows, evidence, replay_command, tally_text, values_text

__all__ = ["Scripts", "matrix_page", "run_page"]

Scripts: TypeAlias = Mapping[tuple[str, str], str | HarnessError]
"""The script of a counterexample, or why there is not one, by the names of subject and check."""
HEADINGS = {
    Verdict.BROKEN: "Broken",
    Verdict.STALE: "Stale: a ledger entry is not true here",
    Verdict.UNKNOWN: "Unknown: could not be decided",
    Verdict.KNOWN: "Known: broken as the ledger says",
    Verdict.DECLINED: "Declined",
    Verdict.HOLDS: "Holds: nothing was found",
}
"""The verdicts in the order of the page, each with its heading."""


@dataclass(frozen=True)
class Key:
    """An entry of the legend. Without a letter, it explains an empty cell."""

    letter: str
    shown: str
    meaning: str


@dataclass(frozen=True)
class Fact:
    """A text with its label. If it has an `id`, a button copies it."""

    label: str
    text: str
    code: bool = False
    id: str = ""


@dataclass(frozen=True)
class Cell:
    """A verdict in a table: `id` is the section it links to, `facts` unfold from it."""

    letter: str
    shown: str
    title: str
    id: str = ""
    facts: tuple[Fact, ...] = ()


@dataclass(frozen=True)
class Row:
    """A subject and its cells; None if it was not run."""

    name: str
    cells: tuple[Cell | None, ...]


@dataclass(frozen=True)
class Picture:
    """A picture as a ``data:`` address, and what it shows, in words."""

    alt: str
    source: str


@dataclass(frozen=True)
class Script:
    """A script, with the `id` of the element that holds its text."""

    id: str
    text: str


@dataclass(frozen=True)
class Section:
    """A failure, or a pair with a counterexample.

    `missing` holds the reasons for a missing picture or script.
    """

    id: str
    verdict: str
    letter: str
    title: str
    reason: str
    facts: tuple[Fact, ...]
    picture: Picture | None
    script: Script | None
    missing: tuple[str, ...]


@dataclass(frozen=True)
class NamedCheck:
    """A check in a list; `tried` says how much was tried."""

    id: str
    name: str
    tried: str


@dataclass(frozen=True)
class Group:
    """Checks of one subject that have the same verdict for the same reason."""

    subject: str
    checks: tuple[NamedCheck, ...]
    reason: str


@dataclass(frozen=True)
class Part:
    """All results with one verdict."""

    heading: str
    sections: tuple[Section, ...]
    groups: tuple[Group, ...]


@dataclass(frozen=True)
class Untried:
    """An operation that was not tried with these subjects, and why."""

    operation: str
    subjects: str
    reason: str


@dataclass(frozen=True)
class RunPage:
    """The content of the page of one run."""

    title: str
    counts: str
    tried: str
    about: str
    complete: bool
    legend: tuple[Key, ...]
    checks: tuple[str, ...]
    rows: tuple[Row, ...]
    parts: tuple[Part, ...]
    untried: tuple[Untried, ...]


@dataclass(frozen=True)
class CheckRows:
    """The rows of one check, with its promise."""

    check: str
    promise: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class LeftOut:
    """Pairs with the same verdict on every version: each check with its subjects."""

    heading: str
    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class MatrixPage:
    """The content of the page of the matrix."""

    title: str
    legend: tuple[Key, ...]
    uneven: str
    versions: tuple[str, ...]
    parts: tuple[CheckRows, ...]
    left_out: tuple[LeftOut, ...]
    sources: tuple[str, ...]


def run_page(
    results: Sequence[Result],
    scripts: Scripts,
    budget: Budget,
    *,
    complete: bool,
    shard: str = "1/1",
) -> str:
    """The page of one run, with a section for each failure.

    Nothing is run: the same results and scripts always give the same page.
    """
    groups = failures(results)
    counts = collections.Counter(result.verdict for result in results)
    counted = ", ".join(f"{counts[verdict]} {verdict}" for verdict in Verdict if counts[verdict])
    version = results[0].torch if results else ""
    about = [f"torch {version}"] if version else []
    about += [f"Python {platform.python_version()}", f"lr-resume-harness {harness.__version__}"]
    about += [f"seed {budget.seed}", f"{budget.max_examples} random traces for each pair"]
    if shard != "1/1":
        about.append(f"part {shard} of the pairs")
    checks = tuple(dict.fromkeys(result.check for result in results))
    page = RunPage(
        title=f"Schedules and checkpoints, torch {version}",
        counts=counted or "Nothing was checked.",
        tried=tally_text(results),
        about=", ".join(about),
        complete=complete,
        legend=_legend(_letters(results, checks)),
        checks=checks,
        rows=_rows(results, checks, groups),
        parts=tuple(_parts(results, groups, scripts)),
        untried=_untried(results),
    )
    return _render("run", page, script="copy.js")


def matrix_page(matrix: Matrix) -> str:
    """The page of a matrix: a row for each pair; a click on a cell shows its details."""
    versions = tuple(matrix.versions)
    named = versions[0] if len(versions) == 1 else f"{versions[0]} to {versions[-1]}"
    parts = []
    for check, chosen in itertools.groupby(matrix.shown, lambda pair: pair.check):
        pairs = list(chosen)
        results = (result for pair in pairs for result in pair.results if result)
        rows = tuple(
            Row(pair.subject, tuple(_matrix_cell(pair, i, versions) for i in range(len(versions))))
            for pair in pairs
        )
        promise = next((result.promise.text for result in results), "")
        parts.append(CheckRows(check, promise, rows))
    page = MatrixPage(
        title=f"Schedules and checkpoints, torch {named}",
        legend=_legend({letter for pair in matrix.shown for letter in pair.letters}),
        uneven=matrix.uneven,
        versions=versions,
        parts=tuple(parts),
        left_out=_left_out(matrix),
        sources=tuple(
            f"torch {source.torch}, Python {source.python}, seed {source.seed}, "
            f"{source.max_examples} random traces for each pair: {source.result}"
            for source in matrix.sources
        ),
    )
    return _render("matrix", page)


# ------------------------------------------------------------------------- both pages


def _render(name: str, page: RunPage | MatrixPage, script: str = "") -> str:
    """The page as text. Its policy lets a browser run only this script, and load nothing."""
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("harness.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_printable,
    )

    def source(file: str) -> str:
        assert templates.loader is not None
        return templates.loader.get_source(templates, file)[0]

    colours = "".join(
        f".{letter} {{ background: {colour}; color: {ink}; }}\n"
        for letter, (colour, ink) in COLOURS.items()
        if letter != "H"  # most cells hold: they have the colours of the page, light or dark
    )
    style = source("page.css") + colours + source(f"{name}.css")
    code = source(script) if script else ""
    policy = ["default-src 'none'", "img-src data:", f"style-src {_hash(style)}"]
    policy += ["base-uri 'none'", "form-action 'none'"]
    if code:
        policy.append(f"script-src {_hash(code)}")
    return templates.get_template(f"{name}.html.j2").render(
        page=page, policy=Markup("; ".join(policy)), style=Markup(style), script=Markup(code)
    )


def _printable(value: object) -> object:
    """A value for a template: text in printable characters, unless it is marked as HTML."""
    return printable(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _legend(letters: Collection[str]) -> tuple[Key, ...]:
    """The meanings of the letters that are in the table."""
    keys = [
        Key(letter, SHOWN.get(letter, letter), meaning)
        for letter, meaning in LETTERS.items()
        if letter in letters
    ]
    if "" in letters:
        keys.append(Key("", "", "empty: not run"))
    return tuple(keys)


# ------------------------------------------------------------------------- one run


def _letters(results: Sequence[Result], checks: Sequence[str]) -> set[str]:
    """The letters in the table, with ``""`` if some cells are empty."""
    letters = {result.verdict[0] for result in results}
    subjects = {result.subject for result in results}
    pairs = {(result.subject, result.check) for result in results}
    return letters | {""} if len(pairs) < len(subjects) * len(checks) else letters


def _rows(
    results: Sequence[Result], checks: Sequence[str], groups: Sequence[Failure]
) -> tuple[Row, ...]:
    """The table: a row for each subject, where each cell links to the section about it."""
    place = {id(result): index for index, result in enumerate(results)}
    leads = {id(each): place[id(group.result)] for group in groups for each in group.results}
    cells = {
        (result.subject, result.check): Cell(
            result.verdict[0],
            SHOWN.get(result.verdict[0], result.verdict[0]),
            f"{result.subject}: {result.check}: {result.verdict}",
            f"p{leads.get(id(result), index)}",
        )
        for index, result in enumerate(results)
    }
    subjects = dict.fromkeys(result.subject for result in results)
    return tuple(
        Row(subject, tuple(cells.get((subject, check)) for check in checks)) for subject in subjects
    )


def _parts(results: Sequence[Result], groups: Sequence[Failure], scripts: Scripts) -> list[Part]:
    place = {id(result): index for index, result in enumerate(results)}
    parts = []
    for verdict, heading in HEADINGS.items():
        chosen = [result for result in results if result.verdict == verdict]
        if not chosen:
            continue
        shown = [Failure((result,)) for result in chosen if result.counterexample is not None]
        if verdict == Verdict.BROKEN:
            shown = list(groups)
        counted = f"{heading} ({len(chosen)})"
        if len(shown) < len(chosen) and verdict == Verdict.BROKEN:
            counted = f"{heading} ({len(chosen)} from {len(shown)} causes)"
            if len(shown) == 1:
                counted = f"{heading} ({len(chosen)} from one cause)"
        sections = [_section(place[id(failure.result)], failure, scripts) for failure in shown]
        rest = [result for result in chosen if result.counterexample is None]
        parts.append(Part(counted, tuple(sections), _grouped(rest, place)))
    return parts


def _section(index: int, failure: Failure, scripts: Scripts) -> Section:
    result, trace = failure.result, str(failure.counterexample.trace)
    broken = result.verdict == Verdict.BROKEN
    facts = [
        Fact(label, text, code=label == "counterexample") for label, text in broken_rows(failure)
    ]
    command = replay_command(result, trace)
    facts.append(Fact("reproduce with", command, code=True, id=f"r{index}"))
    picture, missing = _picture(result)
    script = scripts.get((result.subject, result.check))
    if isinstance(script, HarnessError):
        missing = (*missing, f"No script: {script}")
    return Section(
        id=f"p{index}",
        verdict=result.verdict,
        letter=result.verdict[0],
        title=f"{result.subject}: {failure.headline if broken else result.check}",
        reason="" if broken else result.reason,
        facts=tuple(facts),
        picture=picture,
        script=Script(f"s{index}", script) if isinstance(script, str) else None,
        missing=missing,
    )


def _picture(result: Result) -> tuple[Picture | None, tuple[str, ...]]:
    """The picture of a broken or stale result, or the reason for not having one."""
    if result.verdict not in (Verdict.BROKEN, Verdict.STALE):
        return None, ()
    try:
        content = picture_of(result)
    except HarnessError as error:
        return None, (f"No picture: {error}",)
    if content is None:
        return None, ("No picture: this check is about the saved state, not about LRs",)
    assert result.counterexample is not None
    rows = evidence(result.counterexample, result.promise, result.check)
    facts = "; ".join(f"{label}: {text}" for label, text in rows)
    alt = f"The uninterrupted and the resumed run of {result.subject} by epoch; {facts}"
    return Picture(alt, f"data:image/svg+xml;base64,{base64.b64encode(content).decode()}"), ()


def _grouped(results: Sequence[Result], place: Mapping[int, int]) -> tuple[Group, ...]:
    """Pairs grouped by subject and reason; `place` maps the id() of a result to its index."""
    groups: dict[tuple[str, str], list[NamedCheck]] = collections.defaultdict(list)
    for result in results:
        tried = tally_text([result]) if result.verdict == Verdict.HOLDS else ""
        named = NamedCheck(f"p{place[id(result)]}", result.check, tried)
        groups[result.subject, result.reason].append(named)
    return tuple(
        Group(subject, tuple(checks), reason) for (subject, reason), checks in groups.items()
    )


def _untried(results: Sequence[Result]) -> tuple[Untried, ...]:
    """The operations that no trace had, with their subjects and the reason."""
    subjects: dict[tuple[str, str], dict[str, None]] = collections.defaultdict(dict)
    for result in results:
        for pair in result.untried:
            subjects[pair][result.subject] = None
    return tuple(
        Untried(operation, ", ".join(names), reason)
        for (operation, reason), names in subjects.items()
    )


# ------------------------------------------------------------------------- the matrix


def _matrix_cell(pair: Pair, index: int, versions: Sequence[str]) -> Cell | None:
    result, letter = pair.results[index], pair.letters[index]
    if result is None:
        return None
    title = f"{pair.subject}, {pair.check}, torch {versions[index]}: {result.verdict}"
    facts = _facts(pair, result, versions)
    if not facts:
        title += f" ({result.tally.traces} traces, {result.tally.resumes} resumes)"
    return Cell(letter, SHOWN.get(letter, letter), title, facts=facts)


def _facts(pair: Pair, result: Result, versions: Sequence[str]) -> tuple[Fact, ...]:
    """The details of a verdict."""
    facts = []
    found = result.counterexample
    if found is not None:
        trace = str(found.trace)
        alike = [
            version
            for version, other in zip(versions, pair.results, strict=True)
            if other is not None and other is not result and _evidence(other) == _evidence(result)
        ]
        facts += [
            Fact("counterexample", trace, code=True),
            Fact("expected", values_text(found.expected)),
            Fact("got", values_text(found.actual)),
            Fact("found by", found.found.by if found.found else ""),
            Fact("reproduce with", replay_command(result, trace), code=True),
            Fact("also on", ", ".join(alike)),
        ]
    if result.verdict != Verdict.HOLDS:
        facts.append(Fact("note" if found else "reason", result.reason))
    return tuple(fact for fact in facts if fact.text)


def _evidence(result: Result) -> tuple[Verdict, Counterexample | None]:
    return result.verdict, result.counterexample


def _left_out(matrix: Matrix) -> tuple[LeftOut, ...]:
    """The pairs that the table leaves out."""
    parts = []
    for letter, what in (("H", "hold"), ("D", "are declined")):
        pairs = matrix.everywhere(letter)
        rows = tuple(
            (check, ", ".join(pair.subject for pair in chosen))
            for check, chosen in itertools.groupby(pairs, lambda pair: pair.check)
        )
        if rows:
            heading = f"Not shown: pairs that {what} on every version ({len(pairs)})"
            parts.append(LeftOut(heading, rows))
    return tuple(parts)
