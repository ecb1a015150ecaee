"""What a run found as one HTML page: it needs no other file, and no network."""

from __future__ import annotations

import base64
import collections
import platform
from collections.abc import Mapping, Sequence

import harness
from harness.core.check import Check
from harness.core.errors import HarnessError
from harness.core.result import Budget, Result, Verdict
from harness.report.failures import Failure
from harness.report.html_page import escaped, framed, key_of, rows_of
from harness.report.matrix import SHOWN
from harness.report.picture import picture_of
from harness.report.script import script_of
from harness.report.text import broken_rows, evidence, replay_command, tally_text
from harness.subjects.subject import Subject

STYLE = """
h2 { font-size: 1.2rem; margin: 1.8rem 0 .5rem; border-bottom: 2px solid var(--line); }
h3 { font-size: 1rem; margin: 0 0 .4rem; }
td { min-width: 2.1rem; }
td a { display: block; padding: .25rem 0; color: inherit; text-decoration: none; }
td a:hover, td a:focus { outline: 3px solid Highlight; }
thead th { vertical-align: bottom; }
thead th[scope=col] > span { writing-mode: vertical-rl; transform: rotate(180deg);
  white-space: nowrap; font-weight: normal; }
thead th + th { padding: .3rem 0; text-align: center; }
.pair { border: 1px solid var(--line); border-left-width: .4rem; padding: .7rem; margin: .8rem 0; }
.pair, .pair * { scroll-margin-top: 1rem; }
.BROKEN, .STALE { border-left-color: #b3261e; } .KNOWN { border-left-color: #e89a1c; }
.pair p { margin: .3rem 0 .5rem; }
.picture { overflow-x: auto; margin: .6rem 0; }
.picture img { display: block; width: 100%; min-width: 36rem; max-width: 52rem; background: white; }
pre { overflow-x: auto; background: var(--soft); padding: .6rem; margin: .4rem 0; }
pre code { overflow-wrap: normal; }
button { font: inherit; font-size: .85em; margin-left: .4rem; }
details { margin: .4rem 0; } summary { cursor: pointer; }
.list dt { opacity: 1; font-weight: bold; overflow-wrap: anywhere; }
.list dl { grid-template-columns: minmax(0, 14rem) minmax(0, 1fr); }
.list dd { margin-bottom: .4rem; }
.list small { opacity: .75; }
:target { outline: 3px solid Highlight; outline-offset: 2px; }
@media print {
  td { min-width: 1.3rem; }
  .pair h3, .pair dl, .picture { break-inside: avoid; }
  .picture img { min-width: 0; }
  button, .script { display: none; }
}
"""
SCRIPT = """
for (const button of document.querySelectorAll("button")) {
  const code = document.getElementById(button.dataset.of);
  button.hidden = false;
  button.addEventListener("click", async () => {
    getSelection().selectAllChildren(code);
    let copied = document.execCommand("copy");
    if (!copied) {
      try { await navigator.clipboard.writeText(code.textContent); copied = true; } catch {}
    }
    button.textContent = copied ? "copied" : "selected: copy it by key";
  });
}
"""
"""Shows the buttons, which do nothing without it."""
HEADINGS = {
    Verdict.BROKEN: "Broken", Verdict.STALE: "Stale: no longer as the ledger has it",
    Verdict.UNKNOWN: "Unknown: it could not be decided",
    Verdict.KNOWN: "Known: broken as the ledger has it",
    Verdict.DECLINED: "Declined", Verdict.HOLDS: "Holds: nothing was found",
}  # fmt: skip
"""In the order of the page."""


def html_report(
    results: Sequence[Result],
    subjects: Mapping[str, Subject],
    checks: Mapping[str, Check],
    budget: Budget,
    *,
    complete: bool,
    shard: str = "1/1",
) -> str:
    """The page; `subjects` and `checks` are those of the results, by name.

    The traces of what is broken are run again, for their pictures and scripts. The same results
    make the same page.
    """
    counts = collections.Counter(result.verdict for result in results)
    version = results[0].torch if results else ""
    said = ", ".join(f"{counts[verdict]} {verdict}" for verdict in Verdict if counts[verdict])
    facts = [f"torch {version}"] if version else []
    facts += [f"Python {platform.python_version()}", f"lr-resume-harness {harness.__version__}"]
    facts += [f"seed {budget.seed}", f"{budget.max_examples} traces of the search for each pair"]
    if shard != "1/1":
        facts.append(f"part {shard} of the pairs")
    body = [
        "<p>Does a learning-rate schedule go on after a checkpoint as if nothing had happened? "
        "Each row is a scheduler, each column a check: a way of resuming, or a promise about the "
        "checkpoint. Choose a cell for what is behind it.</p>",
        f"<p><b>{said or 'Nothing was checked.'}</b> {escaped(tally_text(results))}</p>",
        f"<p>{escaped(', '.join(facts))}</p>",
    ]
    if not complete:
        body.append("<p><b>The run was stopped</b>: what is not here was not checked.</p>")
    body += _table(results)
    for verdict, heading in HEADINGS.items():
        chosen = {i: result for i, result in enumerate(results) if result.verdict == verdict}
        if chosen:
            body.append(f"<h2>{heading} ({len(chosen)})</h2>")
        shown = [i for i, result in chosen.items() if result.counterexample is not None]
        for index in shown:
            result = chosen.pop(index)
            subject = (
                subjects[result.subject] if verdict in (Verdict.BROKEN, Verdict.STALE) else None
            )
            body.append(_part(index, result, checks[result.check], subject))
        if chosen:
            body.append(_listed(chosen))
    body += _untried(results)
    return framed(f"Schedules and checkpoints, torch {version}", body, STYLE, SCRIPT)


def _table(results: Sequence[Result]) -> list[str]:
    """The verdicts, subject by check; each cell leads to its part."""
    cells = {(result.subject, result.check): i for i, result in enumerate(results)}
    names = list(dict.fromkeys(result.subject for result in results))
    checks = list(dict.fromkeys(result.check for result in results))
    if not cells:
        return []
    seen = {results[i].verdict[0] for i in cells.values()}
    if len(cells) < len(names) * len(checks):
        seen.add("")
    head = "".join(f'<th scope="col"><span>{escaped(check)}</span></th>' for check in checks)
    rows = [
        f'<tr><th scope="row">{escaped(name)}</th>'
        + "".join(_cell(results, cells.get((name, check))) for check in checks)
        + "</tr>"
        for name in names
    ]
    return [
        key_of(seen),
        f'<div class="wide"><table><thead><tr><th>subject</th>{head}</tr></thead><tbody>',
        *rows,
        "</tbody></table></div>",
    ]


def _cell(results: Sequence[Result], index: int | None) -> str:
    if index is None:
        return "<td></td>"
    result = results[index]
    letter = result.verdict[0]
    title = escaped(f"{result.subject}: {result.check}: {result.verdict}")
    shown = SHOWN.get(letter, letter)
    return f'<td class="{letter}"><a href="#p{index}" title="{title}">{shown}</a></td>'


def _part(index: int, result: Result, check: Check, subject: Subject | None) -> str:
    """A pair with a counterexample; of a `subject` also its picture and its script."""
    found = result.counterexample
    assert found is not None
    trace, title = escaped(str(found.trace)), escaped(f"{result.subject}: {result.check}")
    rows = broken_rows(Failure((result,)))
    replay = escaped(replay_command(result, str(found.trace)))
    said = [
        (label, f"<code>{trace}</code>" if label == "counterexample" else escaped(text))
        for label, text in rows
    ]
    said.append(("replay", f'<code id="r{index}">{replay}</code>{_button(f"r{index}")}'))
    lines = [
        f'<section class="pair {result.verdict}" id="p{index}">',
        f'<h3><span class="key {result.verdict[0]}">{result.verdict[0]}</span> {title}</h3>',
    ]
    if result.verdict != Verdict.BROKEN:
        lines.append(f"<p>{escaped(result.reason)}</p>")
    lines.append(rows_of(said))
    if subject is not None:
        lines += [_picture(subject, check, result), _script(index, subject, check, result)]
    return "\n".join([*lines, "</section>"])


def _picture(subject: Subject, check: Check, result: Result) -> str:
    try:
        content = picture_of(result)
    except HarnessError as error:
        return f"<p>No picture: {escaped(str(error))}</p>"
    if content is None:
        return "<p>No picture: it is about the state, which no LR shows</p>"
    assert result.counterexample is not None
    shown = "; ".join(
        ": ".join(row) for row in evidence(result.counterexample, result.promise, result.check)
    )
    alt = escaped(f"The uninterrupted and the resumed run of {subject.name} by epoch; {shown}")
    data = base64.b64encode(content).decode()
    return f'<div class="picture"><img alt="{alt}" src="data:image/svg+xml;base64,{data}"></div>'


def _script(index: int, subject: Subject, check: Check, result: Result) -> str:
    assert result.counterexample is not None
    try:
        text = script_of(subject, check, result, result.counterexample.trace)
    except HarnessError as error:
        return f"<p>No script: {escaped(str(error))}</p>"
    return (
        '<details class="script"><summary>Script that reproduces it with torch alone</summary>'
        f'{_button(f"s{index}")}<pre><code id="s{index}">{escaped(text)}</code></pre></details>'
    )


def _button(code: str) -> str:
    return f'<button type="button" data-of="{code}" hidden>copy</button>'


def _listed(results: Mapping[int, Result]) -> str:
    """Pairs by subject and reason, each reason once."""
    groups: dict[tuple[str, str], list[int]] = collections.defaultdict(list)
    for index, result in results.items():
        groups[result.subject, result.reason].append(index)
    rows = []
    for (subject, reason), indices in groups.items():
        names = []
        for index in indices:
            tried = tally_text([results[index]])
            more = (
                f" <small>({tried})</small>"
                if results[index].verdict == Verdict.HOLDS and tried
                else ""
            )
            names.append(
                f'<span id="p{index}"><code>{escaped(results[index].check)}</code>{more}</span>'
            )
        said = f"<br>{escaped(reason)}" if reason else ""
        rows.append((escaped(subject), ", ".join(names) + said))
    return f'<div class="list">{rows_of(rows)}</div>'


def _untried(results: Sequence[Result]) -> list[str]:
    """The operations that no trace had, with whom, and why."""
    subjects: dict[tuple[str, str], dict[str, None]] = collections.defaultdict(dict)
    for result in results:
        for pair in result.untried:
            subjects[pair][result.subject] = None
    if not subjects:
        return []
    rows = [
        (f"<code>{escaped(kind)}</code>", f"{escaped(', '.join(names))}<br>{escaped(reason)}")
        for (kind, reason), names in subjects.items()
    ]
    return ["<h2>Operations that were not tried</h2>", f'<div class="list">{rows_of(rows)}</div>']
