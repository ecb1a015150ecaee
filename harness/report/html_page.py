"""The frame of an HTML page that is one file and asks for nothing else."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Collection, Iterable
from html import escape

from harness.report.matrix import COLOURS, LETTERS, SHOWN

STYLE = """
:root { color-scheme: light dark; --line: #8886; --soft: #8882; }
* { box-sizing: border-box; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 1.5rem; overflow-wrap: anywhere; }
h1 { font-size: 1.4rem; margin: 0 0 .3rem; }
p { max-width: 60rem; margin: .4rem 0; }
code { font-family: ui-monospace, monospace; font-size: .92em; }
table { border-collapse: separate; border-spacing: 0; }
th { font-weight: normal; text-align: left; padding: .1rem .6rem; white-space: nowrap; }
thead th { font-weight: bold; border-bottom: 2px solid var(--line); }
th[scope=row], thead th:first-child { position: sticky; left: 0; background: Canvas; z-index: 1; }
td { border: 1px solid Canvas; padding: 0; text-align: center; }
td, td summary, .key { font-family: ui-monospace, monospace; }
.key { display: inline-block; min-width: 1.6em; text-align: center; padding: 0 .2em; }
.keys > span { white-space: nowrap; margin-right: 1rem; }
.H { background: var(--soft); }
.wide { overflow-x: auto; margin: 1rem 0; }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .15rem 1rem;
  margin: 0; }
dt { opacity: .75; } dd { margin: 0; }
@media (max-width: 40rem) {
  body { margin: .8rem; }
  th[scope=row] { white-space: normal; min-width: 8.5rem; max-width: 8.5rem; font-size: .78em; }
  dl { display: block; } dd { margin: 0 0 .4rem; }
}
@media print {
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  body { font-size: 10px; margin: 0; }
  .wide { overflow: visible; }
}
""" + "".join(
    f".{letter} {{ background: {colour}; color: {ink}; }}\n"
    for letter, (colour, ink) in COLOURS.items()
    if letter != "H"  # most cells: as the page is, light or dark
)


def framed(title: str, body: Iterable[str], style: str = "", script: str = "") -> str:
    """The page: a browser is told to run this script alone, and to load nothing.

    `title` is text, `body` HTML; `style` is added to what all pages have.
    """
    style = STYLE + style
    allowed = ["default-src 'none'", "img-src data:", f"style-src {_hash(style)}"]
    allowed += ["base-uri 'none'", "form-action 'none'"]
    if script:
        allowed.append(f"script-src {_hash(script)}")
    return "\n".join([
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{"; ".join(allowed)}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escaped(title)}</title>",
        f"<style>{style}</style></head><body>",
        f"<h1>{escaped(title)}</h1>",
        *body,
        *([f"<script>{script}</script>"] if script else []),
        "</body></html>\n",
    ])  # fmt: skip


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def escaped(text: str) -> str:
    """`text` as HTML shows it; what is no character of a page is shown as a question mark."""
    return escape(re.sub(r"[\0-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]", "\ufffd", text))


def key_of(letters: Collection[str]) -> str:
    """What those of the verdicts' letters mean that are there."""
    said = [
        f'<span><span class="key {letter}">{SHOWN.get(letter, letter)}</span> {text}</span>'
        for letter, text in LETTERS.items()
        if letter in letters
    ]
    if "" in letters:
        said.append("<span>An empty cell was not run.</span>")
    return f'<p class="keys">{" ".join(said)}</p>'


def rows_of(rows: Iterable[tuple[str, str]]) -> str:
    """A list of labels, each with its HTML."""
    return "<dl>" + "".join(f"<dt>{label}</dt><dd>{html}</dd>" for label, html in rows) + "</dl>"
