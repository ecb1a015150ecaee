"""HTML pages: of a run, the matrix, a training script. Each is one file that needs no network.

This module computes what a page shows, as values. The templates define how it looks, and escape
all text.
"""

from __future__ import annotations

import base64
import hashlib
import platform
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import jinja2
from markupsafe import Markup

import harness
from harness.core.errors import HarnessError
from harness.core.output import printable
from harness.core.result import Budget, Result, grouped
from harness.core.verdict import MEANINGS, Verdict
from harness.report.matrix import COLOURS, LETTERS, SHOWN, Matrix, Row
from harness.report.picture import picture_or_why
from harness.report.text import (
    Failure,
    broken_rows,
    by_reason,
    counts_text,
    difference_rows,
    failures,
    looked_text,
    no_other_failure_text,
    replay_command,
    tally_text,
    untried,
    values_text,
)  # fmt: skip
from harness.report.training_picture import training_picture
from harness.training.recording import InsideSave
from harness.training.result import Finding, Outcome, TrainingResult, findings
from harness.training.result import Verdict as Training
from harness.training.text import (
    finding_headline,
    finding_rows,
    first_start,
    inside_text,
    other_lines,
    reproduction,
    script_name,
    stops,
    summary,
)

Scripts: TypeAlias = Mapping[tuple[str, str], str | HarnessError]
"""For each pair, the script of its counterexample, or the error why there is none."""
Group: TypeAlias = tuple[str, list[str], list[tuple[str, str, str]]]
"""A subject, lines about it, and its checks: the id, the name, how much was tried."""
ORDER = (
    Verdict.BROKEN, Verdict.STALE, Verdict.UNKNOWN, Verdict.KNOWN, Verdict.DECLINED, Verdict.HOLDS,
)  # fmt: skip
"""The verdicts in the order of the page."""


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
    title: str
    id: str = ""
    facts: tuple[Fact, ...] = ()
    check: str = ""


Rows: TypeAlias = dict[str, list[Cell | None]]
"""The cells of each subject; None for a pair that was not run."""


@dataclass(frozen=True)
class Other:
    """Another failure of the same cause, in short: its counterexample, and how to replay it."""

    id: str
    title: str
    facts: tuple[Fact, ...]


@dataclass(frozen=True)
class Section:
    """A failure, or a pair with a counterexample; `others` have the same cause.

    `picture` is a ``data:`` address, and `alt` the picture in words. `script` is its text. For
    those that are missing, `missing` has the reasons.
    """

    id: str
    verdict: str
    title: str
    reasons: tuple[str, ...]
    facts: tuple[Fact, ...]
    picture: str
    alt: str
    script: str
    missing: tuple[str, ...]
    others: tuple[Other, ...] = ()


@dataclass(frozen=True)
class Resume:
    """A row of the table of resumes; `letter` is its colour."""

    killed: str
    start: str
    verdict: str
    letter: str


RESUME_LETTERS = {
    Training.HOLDS: "H", Training.BROKEN: "B", Training.CANNOT_RESUME: "B", Training.UNKNOWN: "U",
}  # fmt: skip
"""The colour of each verdict on a resume."""


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
    version = results[0].torch if results else ""
    about = [f"torch {version}"] if version else []
    about += [f"Python {platform.python_version()}", f"lr-resume-harness {harness.__version__}"]
    about += [f"seed {budget.seed}", f"{budget.max_examples} random traces for each pair"]
    if shard != "1/1":
        about.append(f"part {shard} of the pairs")
    checks = list(dict.fromkeys(result.check for result in results))
    rows = _rows(results, checks, groups)
    return _render(
        "run",
        title=f"Schedules and checkpoints, torch {version}",
        counts=counts_text(results) or "Nothing was checked.",
        tried=tally_text(results),
        looked=looked_text(results).splitlines(),
        about=", ".join(about),
        complete=complete,
        legend=_legend(rows.values()),
        checks=checks,
        rows=rows,
        parts=list(_parts(results, groups, scripts)),
        untried=untried(results),
        script="copy.js",
    )


def matrix_page(matrix: Matrix) -> str:
    """The page of a matrix: a row for each pair; a click on a cell shows its details."""
    versions = matrix.versions
    named = versions[0] if len(versions) == 1 else f"{versions[0]} to {versions[-1]}"
    rows: dict[str, Rows] = {}
    promises: dict[str, str] = {}
    for row in matrix.shown:
        cells = [_matrix_cell(row, place, versions) for place in range(len(versions))]
        rows.setdefault(row.check, {})[row.subject] = cells
        promises.update((r.check, r.promise.text) for r in row.results if r)
    return _render(
        "matrix",
        title=f"Schedules and checkpoints, torch {named}",
        legend=_legend(cells for group in rows.values() for cells in group.values()),
        uneven=matrix.uneven,
        versions=versions,
        rows=rows,
        promises=promises,
        left_out=[
            (
                f"Not shown: pairs that {what} on every version ({len(same)})",
                grouped(same, lambda row: row.check),
            )
            for letter, what in (("H", "hold"), ("D", "are declined"))
            if (same := matrix.everywhere(letter))
        ],
        sources=matrix.sources,
    )


def training_page(result: TrainingResult, scripts: Sequence[str | HarnessError]) -> str:
    """The page of a training script: a section for each of its `findings`, and every resume.

    `scripts` holds the script of each finding, or the error why there is none.
    """
    found = findings(result.outcomes)
    sections = [
        _finding_section(f"p{index}", result, finding, script)
        for index, (finding, script) in enumerate(zip(found, scripts, strict=True))
    ]
    if not found:
        sections = [_holding_section(result, one) for one in result.outcomes if one.starts][:1]
    facts = [Fact("command", shlex.join(result.command), code=True)]
    if result.resume != result.command:
        facts.append(Fact("resumed with", shlex.join(result.resume), code=True))
    facts.append(Fact("checkpoints", shlex.join(result.checkpoints), code=True))
    return _render(
        "training",
        css="run",
        title=f"{script_name(result.command)}: {result.verdict}",
        summary=summary(result),
        reason=result.reason,
        complete=result.complete,
        facts=facts,
        lines=other_lines(result),
        sections=sections,
        rows=[
            Resume(
                _stop(result, outcome),
                str(first_start(outcome)) if outcome.starts else "",
                outcome.verdict,
                RESUME_LETTERS[outcome.verdict],
            )
            for outcome in result.outcomes
        ],
        about=f"Python {platform.python_version()}, lr-resume-harness {harness.__version__}",
        script="copy.js",
    )


# ------------------------------------------------------------------------- all pages


def environment(*, html: bool) -> jinja2.Environment:
    """The templates of this folder; what they are given is escaped for HTML if `html`."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("harness.report"),
        autoescape=html,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_printable if html else None,
    )


def _render(name: str, *, css: str = "", script: str = "", **content: object) -> str:
    """The page as text, with the style `css`, which is called as the page is by default.

    Its Content-Security-Policy lets a browser run only this script and load nothing.
    """
    templates = environment(html=True)

    def source(file: str) -> str:
        assert templates.loader is not None
        return templates.loader.get_source(templates, file)[0]

    colours = "".join(
        f".{letter} {{ background: {colour}; color: {ink}; }}\n"
        for letter, (colour, ink) in COLOURS.items()
        if letter != "H"  # most cells hold: they have the colours of the page, light or dark
    )
    style = source("page.css") + colours + source(f"{css or name}.css")
    code = source(script) if script else ""
    policy = ["default-src 'none'", "img-src data:", f"style-src {_hash(style)}"]
    policy += ["base-uri 'none'", "form-action 'none'"]
    if code:
        policy.append(f"script-src {_hash(code)}")
    return templates.get_template(f"{name}.html.j2").render(
        **content,
        shown=SHOWN,
        policy=Markup("; ".join(policy)),
        style=Markup(style),
        script=Markup(code),
    )


def _printable(value: object) -> object:
    """A value for a template: text in printable characters, unless it is marked as HTML."""
    return printable(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _legend(rows: Iterable[Sequence[Cell | None]]) -> list[tuple[str, str]]:
    """The letters in these rows, each with its meaning; ``""`` if some cells are empty."""
    letters = {cell.letter if cell else "" for cells in rows for cell in cells}
    meanings = {**LETTERS, "": "empty: not run"}
    return [(letter, meaning) for letter, meaning in meanings.items() if letter in letters]


# ------------------------------------------------------------------------- one run


def _rows(results: Sequence[Result], checks: Sequence[str], groups: Sequence[Failure]) -> Rows:
    """The table: the cells of each subject, where each cell links to the section about it."""
    ids = _ids(results)
    ids |= {each.pair: ids[group.result.pair] for group in groups for each in group.results}
    cells = {
        result.pair: Cell(
            result.verdict[0],
            f"{result.subject}: {result.check}: {result.verdict}{_looked(result)}",
            ids[result.pair],
            check=result.check,
        )
        for result in results
    }
    subjects = dict.fromkeys(result.subject for result in results)
    return {subject: [cells.get((subject, check)) for check in checks] for subject in subjects}


def _looked(result: Result) -> str:
    """Where a pair that holds was looked at, as the end of a title."""
    text = looked_text([result])
    return f"; {text}" if text else ""


def _ids(results: Sequence[Result]) -> dict[tuple[str, str], str]:
    """The id of the section about each pair."""
    return {result.pair: f"p{index}" for index, result in enumerate(results)}


def _parts(
    results: Sequence[Result], groups: Sequence[Failure], scripts: Scripts
) -> Iterator[tuple[str, list[Section], list[Group]]]:
    """For each verdict: a heading, the sections, and the pairs without a counterexample."""
    ids = _ids(results)
    for verdict in ORDER:
        chosen = [result for result in results if result.verdict == verdict]
        if not chosen:
            continue
        shown = [Failure((result,)) for result in chosen if result.counterexample is not None]
        number = str(len(chosen))
        if verdict == Verdict.BROKEN:
            shown = list(groups)
        causes = list(grouped(shown, _cause).values())
        if 0 < len(causes) < len(chosen):
            number += " from one cause" if len(causes) == 1 else f" from {len(causes)} causes"
        sections = [_section(ids, cause, scripts) for cause in causes]
        rest = by_reason(result for result in chosen if result.counterexample is None)
        tried = tally_text if verdict == Verdict.HOLDS else lambda results: ""
        lists = [
            (
                subject,
                [*filter(None, [reason]), *looked_text(group).splitlines()],
                [(ids[r.pair], r.check, tried([r])) for r in group],
            )
            for (subject, reason), group in rest.items()
        ]
        yield f"{verdict.capitalize()}: {MEANINGS[verdict]} ({number})", sections, lists


def _cause(failure: Failure) -> tuple[object, ...]:
    """What is equal for failures of several subjects that are shown once."""
    result = failure.result
    if result.verdict == Verdict.KNOWN:
        return result.check, result.reason
    if result.verdict == Verdict.BROKEN and failure.relations and failure.lost is None:
        return failure.checks, failure.relations
    return result.pair


def _other(id_: str, failure: Failure) -> Other:
    """A failure whose cause is shown already."""
    result, found = failure.result, failure.counterexample
    name = failure.headline if result.verdict == Verdict.BROKEN else result.check
    return Other(
        id_,
        f"{result.subject}: {name}",
        (
            Fact("expected", values_text(found.expected)),
            Fact("got", values_text(found.actual)),
            Fact("replay", replay_command(result, str(found.trace)), code=True, id=f"r{id_[1:]}"),
        ),
    )


def _section(
    ids: Mapping[tuple[str, str], str], cause: Sequence[Failure], scripts: Scripts
) -> Section:
    """The first failure of a cause in full, and the others in short."""
    failure = cause[0]
    id_ = ids[failure.result.pair]
    result, trace = failure.result, str(failure.counterexample.trace)
    broken = result.verdict == Verdict.BROKEN
    facts = [
        Fact(label, text, code=label == "counterexample") for label, text in broken_rows(failure)
    ]
    command = replay_command(result, trace)
    facts.append(Fact("reproduce with", command, code=True, id=f"r{id_[1:]}"))
    rows = difference_rows(failure.counterexample, result.promise, result.check)
    in_words = "; ".join(f"{label}: {text}" for label, text in rows)
    picture, missing = _picture(result)
    script = scripts.get(result.pair, "")
    if isinstance(script, HarnessError):
        missing, script = (*missing, f"No script: {script}"), ""
    return Section(
        id=id_,
        verdict=result.verdict,
        title=f"{result.subject}: {failure.headline if broken else result.check}",
        reasons=()
        if broken
        else tuple(filter(None, [result.reason, no_other_failure_text([result])])),
        facts=tuple(facts),
        picture=picture,
        alt=f"The uninterrupted and the resumed run of {result.subject} by epoch; {in_words}",
        script=script,
        missing=missing,
        others=tuple(_other(ids[other.result.pair], other) for other in cause[1:]),
    )


def _picture(result: Result) -> tuple[str, tuple[str, ...]]:
    """The picture of a broken or stale result, or the reason for not having one."""
    if result.verdict not in (Verdict.BROKEN, Verdict.STALE):
        return "", ()
    return _address(picture_or_why(result))


def _address(content: bytes | str) -> tuple[str, tuple[str, ...]]:
    """The ``data:`` address of a picture; or the reason for not having one."""
    if isinstance(content, str):
        return "", (content,)
    return f"data:image/svg+xml;base64,{base64.b64encode(content).decode()}", ()


# ------------------------------------------------------------------------- a training script


def _stop(result: TrainingResult, outcome: Outcome) -> str:
    """How the run was stopped before a resume, in words."""
    [text] = stops([outcome], result.steps)
    if isinstance(outcome.stop, InsideSave):
        return f"{text}; {inside_text(outcome.stop)}"
    return text


def _finding_section(
    id_: str, result: TrainingResult, finding: Finding, script: str | HarnessError
) -> Section:
    facts = [Fact(label, text) for label, text in finding_rows(result, finding)]
    facts += [
        Fact(
            "reproduce with" if not index else "and then", text, code=True, id=f"r{id_[1:]}-{index}"
        )
        for index, text in enumerate(reproduction(result, finding))
    ]
    picture, missing = _address(training_picture(result, finding.first))
    if isinstance(script, HarnessError):
        missing, script = (*missing, f"No script: {script}"), ""
    in_words = "; ".join(f"{label}: {text}" for label, text in finding_rows(result, finding))
    return Section(
        id=id_,
        verdict="UNKNOWN" if finding.first.verdict == Training.UNKNOWN else "BROKEN",
        title=finding_headline(result, finding),
        reasons=(),
        facts=tuple(facts),
        picture=picture,
        alt=f"The uninterrupted and the resumed run by optimizer step; {in_words}",
        script=script,
        missing=missing,
    )


def _holding_section(result: TrainingResult, outcome: Outcome) -> Section:
    """A resumed run that goes on as it should, as an example."""
    picture, missing = _address(training_picture(result, outcome))
    return Section(
        id="p0",
        verdict="HOLDS",
        title=f"A resumed run, from the checkpoint of step {first_start(outcome)}",
        reasons=(),
        facts=(),
        picture=picture,
        alt="The uninterrupted and the resumed run by optimizer step; their schedules are the same",
        script="",
        missing=missing,
    )


# ------------------------------------------------------------------------- the matrix


def _matrix_cell(row: Row, index: int, versions: Sequence[str]) -> Cell | None:
    result, letter = row.results[index], row.letters[index]
    if result is None:
        return None
    title = f"{row.subject}, {row.check}, torch {versions[index]}: {result.verdict}"
    facts = _facts(row, result, versions)
    if not facts:
        title += f" ({result.tally.traces} traces, {result.tally.resumes} resumes){_looked(result)}"
    return Cell(letter, title, facts=facts)


def _facts(row: Row, result: Result, versions: Sequence[str]) -> tuple[Fact, ...]:
    """The details of a verdict."""
    facts = []
    found = result.counterexample
    if found is not None:
        trace = str(found.trace)
        alike = [
            version
            for version, other in zip(versions, row.results, strict=True)
            if other is not None
            and other is not result
            and (other.verdict, other.counterexample) == (result.verdict, found)
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
