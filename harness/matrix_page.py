"""The matrix as one HTML page that needs nothing else: no script, no other file."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from html import escape
from typing import Any

from harness.checks import CHECKS
from harness.matrix import COLOURS, LETTERS, SHOWN, Matrix, Pair
from harness.report import command, values_text

__all__ = ["page"]

STYLE = """
:root { color-scheme: light dark; --line: #8886; --soft: #8882; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 1.5rem; padding-bottom: 45vh; }
h1 { font-size: 1.4rem; margin: 0 0 .3rem; }
p { max-width: 60rem; margin: .4rem 0; }
code { font-family: ui-monospace, monospace; font-size: .92em; }
table { border-collapse: separate; border-spacing: 0; margin: 1rem 0; }
th { font-weight: normal; text-align: left; white-space: nowrap; padding: .1rem .6rem; }
thead th { position: sticky; top: 0; background: Canvas; border-bottom: 2px solid var(--line);
  font-weight: bold; text-align: center; z-index: 1; }
tbody tr:first-child th { padding-top: .9rem; }
tbody th[scope=row] { position: sticky; left: 0; background: Canvas; }
td { border: 1px solid Canvas; padding: 0; text-align: center; min-width: 3.4rem; }
td, td summary, .key { font-family: ui-monospace, monospace; }
td > span, summary.cell { display: block; padding: .1rem 0; }
summary.cell { cursor: pointer; list-style: none; }
summary.cell::-webkit-details-marker { display: none; }
details[open] > summary.cell { outline: 3px solid Highlight; }
.key { display: inline-block; min-width: 1.6em; text-align: center; padding: 0 .2em; }
.H { background: var(--soft); }
.behind { position: fixed; inset: auto 0 0; max-height: 42vh; overflow: auto;
  background: Canvas; color: CanvasText; border-top: 3px solid Highlight; padding: .7rem 1.5rem;
  font-family: system-ui, sans-serif; text-align: left; z-index: 2; }
.behind dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: 0; }
.behind dt { opacity: .75; } .behind dd { margin: 0; overflow-wrap: anywhere; }
"""

STYLE += "".join(
    f".{letter} {{ background: {colour}; color: {ink}; }}\n"
    for letter, (colour, ink) in COLOURS.items()
    if letter != "H"  # most cells: as the page is, light or dark
)

Row = Mapping[str, Any]


def page(matrix: Matrix) -> str:
    """The page: a row for each pair, and behind a cell its counterexample or its reason."""
    versions = matrix.versions
    heading = f"Schedules and checkpoints, torch {versions[0]} to {versions[-1]}"
    if len(versions) == 1:
        heading = f"Schedules and checkpoints, torch {versions[0]}"
    head = "".join(f'<th scope="col">{escape(version)}</th>' for version in versions)
    bodies = [
        _body(check, list(pairs), versions)
        for check, pairs in itertools.groupby(matrix.shown, lambda pair: pair.check)
    ]
    seen = {letter for pair in matrix.shown for letter in pair.letters}
    keys = "".join(
        f'<span class="key {letter}">{SHOWN.get(letter, letter)}</span> {text} &ensp;'
        for letter, text in LETTERS.items()
        if letter in seen
    )
    empty = "An empty cell was not run. " if "" in seen else ""
    return "\n".join([
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width">',
        f"<title>{escape(heading)}</title>",
        f"<style>{STYLE}</style></head><body>",
        f"<h1>{escape(heading)}</h1>",
        "<p>Does a learning-rate schedule go on after a checkpoint as if nothing had happened? "
        "Each row is a scheduler under the check that stands above it, each column a version "
        "of torch. Click a cell for what is behind it, and again to close it.</p>",
        f"<p>{keys}{empty}</p>",
        f"<p>{escape(matrix.uneven)}</p>",
        f'<table><thead><tr><th scope="col">torch</th>{head}</tr></thead>',
        *bodies,
        "</table>",
        *_left_out(matrix),
        *_sources(matrix),
        "</body></html>\n",
    ])  # fmt: skip


def _body(check: str, pairs: list[Pair], versions: list[str]) -> str:
    """The rows of one check, under its name and promise."""
    promises = {known.name: known.doc for known in CHECKS}
    said = f"<b><code>{escape(check)}</code></b> {escape(promises.get(check, ''))}"
    name = f'<tr><th colspan="{len(versions) + 1}">{said}</th></tr>'
    rows = [
        f'<tr><th scope="row">{escape(pair.subject)}</th>'
        + "".join(_cell(pair, index, versions) for index in range(len(versions)))
        + "</tr>"
        for pair in pairs
    ]
    return "\n".join(["<tbody>", name, *rows, "</tbody>"])


def _cell(pair: Pair, index: int, versions: list[str]) -> str:
    row, letter = pair.rows[index], pair.letters[index]
    if row is None:
        return "<td></td>"
    where = escape(f"{pair.subject}, {pair.check}, torch {versions[index]}: {row['verdict']}")
    shown = SHOWN.get(letter, letter)
    facts = _facts(pair, row, versions)
    if not facts:
        tried = escape(f"{row.get('traces', 0)} traces, {row.get('resumes', 0)} resumes")
        return f'<td class="{letter}" title="{where} ({tried})"><span>{shown}</span></td>'
    said = "".join(f"<dt>{label}</dt><dd>{text}</dd>" for label, text in facts)
    return (
        f'<td class="{letter}" title="{where}"><details name="cell">'
        f'<summary class="cell">{shown}</summary>'
        f'<div class="behind"><p><b>{where}</b></p><dl>{said}</dl></div>'
        "</details></td>"
    )


def _facts(pair: Pair, row: Row, versions: list[str]) -> list[tuple[str, str]]:
    """What is behind a verdict, as labels and HTML."""
    facts = []
    if row.get("trace"):
        replay = command("replay", pair.subject, pair.check, row["trace"])
        facts += [
            ("counterexample", f"<code>{escape(row['trace'])}</code>"),
            ("expected", escape(values_text(row.get("expected", {})))),
            ("got", escape(values_text(row.get("actual", {})))),
            ("found by", escape(str(row.get("found_by", "")))),
            ("replay", f"<code>{escape(replay)}</code>"),
            ("just the same on", ", ".join(
                escape(version) for version, other in zip(versions, pair.rows, strict=True)
                if other is not None and other is not row and _evidence(other) == _evidence(row)
            )),
        ]  # fmt: skip
    if row["verdict"][0] != "H":
        facts.append(("note" if row.get("trace") else "reason", escape(str(row.get("reason", "")))))
    return [(label, text) for label, text in facts if text]


def _evidence(row: Row) -> list[Any]:
    return [row.get(key) for key in ("verdict", "trace", "expected", "actual")]


def _left_out(matrix: Matrix) -> list[str]:
    """The pairs that are not in the table, folded."""
    parts = []
    for letter, said in (("H", "hold"), ("D", "are declined")):
        pairs = matrix.everywhere(letter)
        items = [
            f"<li><code>{escape(check)}</code>: "
            f"{escape(', '.join(pair.subject for pair in of_check))}</li>"
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
        f"<li>torch {escape(str(source.torch))}, Python {escape(source.python)}, seed "
        f"{escape(str(source.seed))}, {escape(str(source.max_examples))} traces of the search for "
        f"each pair: {escape(source.result)}</li>"
        for source in matrix.sources
    ]
    return ["<p>Made by <code>python -m harness matrix</code> of these results:</p>",
            f"<ul>{''.join(items)}</ul>"]  # fmt: skip
