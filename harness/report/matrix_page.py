"""The matrix as one HTML page that needs nothing else: no script, no other file."""

from __future__ import annotations

import itertools

from harness.core.result import Counterexample, Result
from harness.core.verdict import Verdict
from harness.report.html_page import escaped, framed, key_of, rows_of
from harness.report.matrix import SHOWN, Matrix, Pair
from harness.report.text import replay_command, values_text

STYLE = """
body { padding-bottom: 45vh; }
thead th { position: sticky; top: 0; background: Canvas; text-align: center; z-index: 2; }
thead th:first-child { z-index: 3; }
tbody tr:first-child th { padding-top: .9rem; }
td { min-width: 3.4rem; }
.wide { max-height: 90vh; overflow: auto; }
.promise { position: sticky; left: .6rem; display: inline-block; white-space: normal;
  max-width: calc(100vw - 4rem); }
td > span, summary.cell { display: block; padding: .1rem 0; }
summary.cell { cursor: pointer; list-style: none; }
summary.cell::-webkit-details-marker { display: none; }
details[open] > summary.cell { outline: 3px solid Highlight; }
.behind { position: fixed; inset: auto 0 0; max-height: 42vh; overflow: auto;
  background: Canvas; color: CanvasText; border-top: 3px solid Highlight; padding: .7rem 1.5rem;
  font-family: system-ui, sans-serif; text-align: left; z-index: 4; }
@media (max-width: 40rem) {
  td { min-width: 2.9rem; }
  .behind { padding: .7rem; }
}
@media print {
  body { padding: 0; }
  .wide { max-height: none; }
  td { min-width: 0; }
}
"""


def page(matrix: Matrix) -> str:
    """The page: a row for each pair, and behind a cell its counterexample or its reason."""
    versions = matrix.versions
    heading = f"Schedules and checkpoints, torch {versions[0]} to {versions[-1]}"
    if len(versions) == 1:
        heading = f"Schedules and checkpoints, torch {versions[0]}"
    head = "".join(f'<th scope="col">{escaped(version)}</th>' for version in versions)
    bodies = [
        _body(check, list(pairs), versions)
        for check, pairs in itertools.groupby(matrix.shown, lambda pair: pair.check)
    ]
    seen = {letter for pair in matrix.shown for letter in pair.letters}
    body = [
        "<p>Does a learning-rate schedule go on after a checkpoint as if nothing had happened? "
        "Each row is a scheduler under the check that stands above it, each column a version "
        "of torch. Click a cell for what is behind it, and again to close it.</p>",
        key_of(seen),
        f"<p>{escaped(matrix.uneven)}</p>",
        f'<div class="wide"><table><thead><tr><th scope="col">torch</th>{head}</tr></thead>',
        *bodies,
        "</table></div>",
        *_left_out(matrix),
        *_sources(matrix),
    ]
    return framed(heading, body, STYLE)


def _body(check: str, pairs: list[Pair], versions: list[str]) -> str:
    """The rows of one check, under its name and promise."""
    results = (result for pair in pairs for result in pair.results if result)
    promise = next((result.promise.text for result in results), "")
    said = f"<b><code>{escaped(check)}</code></b> {escaped(promise)}"
    said = f'<span class="promise">{said}</span>'
    name = f'<tr><th colspan="{len(versions) + 1}">{said}</th></tr>'
    rows = [
        f'<tr><th scope="row">{escaped(pair.subject)}</th>'
        + "".join(_cell(pair, index, versions) for index in range(len(versions)))
        + "</tr>"
        for pair in pairs
    ]
    return "\n".join(["<tbody>", name, *rows, "</tbody>"])


def _cell(pair: Pair, index: int, versions: list[str]) -> str:
    result, letter = pair.results[index], pair.letters[index]
    if result is None:
        return "<td></td>"
    where = escaped(f"{pair.subject}, {pair.check}, torch {versions[index]}: {result.verdict}")
    shown = SHOWN.get(letter, letter)
    facts = _facts(pair, result, versions)
    if not facts:
        tried = escaped(f"{result.tally.traces} traces, {result.tally.resumes} resumes")
        return f'<td class="{letter}" title="{where} ({tried})"><span>{shown}</span></td>'
    return (
        f'<td class="{letter}" title="{where}"><details name="cell">'
        f'<summary class="cell">{shown}</summary>'
        f'<div class="behind"><p><b>{where}</b></p>{rows_of(facts)}</div>'
        "</details></td>"
    )


def _facts(pair: Pair, result: Result, versions: list[str]) -> list[tuple[str, str]]:
    """What is behind a verdict, as labels and HTML."""
    facts = []
    found = result.counterexample
    if found is not None:
        same = ", ".join(
            escaped(version)
            for version, other in zip(versions, pair.results, strict=True)
            if other is not None and other is not result and _evidence(other) == _evidence(result)
        )
        facts += [
            ("counterexample", f"<code>{escaped(str(found.trace))}</code>"),
            ("expected", escaped(values_text(found.expected))),
            ("got", escaped(values_text(found.actual))),
            ("found by", escaped(found.found.by if found.found else "")),
            ("replay", f"<code>{escaped(replay_command(result, str(found.trace)))}</code>"),
            ("just the same on", same),
        ]
    if result.verdict != Verdict.HOLDS:
        facts.append(("note" if found else "reason", escaped(result.reason)))
    return [(label, text) for label, text in facts if text]


def _evidence(result: Result) -> tuple[Verdict, Counterexample | None]:
    return result.verdict, result.counterexample


def _left_out(matrix: Matrix) -> list[str]:
    """The pairs that are not in the table, folded."""
    parts = []
    for letter, said in (("H", "hold"), ("D", "are declined")):
        pairs = matrix.everywhere(letter)
        items = [
            f"<li><code>{escaped(check)}</code>: "
            f"{escaped(', '.join(pair.subject for pair in of_check))}</li>"
            for check, of_check in itertools.groupby(pairs, lambda pair: pair.check)
        ]
        if items:
            parts.append(
                f"<details><summary>Left out: pairs that {said} on every version "
                f"({len(pairs)})</summary><ul>{''.join(items)}</ul></details>"
            )
    return parts


def _sources(matrix: Matrix) -> list[str]:
    items = [
        f"<li>torch {escaped(str(source.torch))}, Python {escaped(source.python)}, seed "
        f"{escaped(str(source.seed))}, {escaped(str(source.max_examples))} traces of the search "
        f"for each pair: {escaped(source.result)}</li>"
        for source in matrix.sources
    ]
    return ["<p>Made by <code>python -m harness matrix</code> of these results:</p>",
            f"<ul>{''.join(items)}</ul>"]  # fmt: skip
