"""Results on GitHub: annotations at the lines of the source, and a summary of the job."""

from __future__ import annotations

import collections
import filecmp
import html
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import click

from harness.core.errors import OutputError
from harness.core.output import printable
from harness.core.result import Counterexample, Result, grouped
from harness.core.verdict import FAILING, Verdict
from harness.report import text as report
from harness.report.matrix import escaped, markdown_row
from harness.report.text import failures
from harness.training import text as training
from harness.training.result import TrainingResult, findings
from harness.training.text import script_name

IN_LEDGER = (Verdict.KNOWN, Verdict.STALE)
"""The verdicts on pairs with a ledger entry."""
MOST = 10
"""The most errors that GitHub shows for a step."""
ROOM = 2**20
"""The most bytes of a step's summary. GitHub drops a longer one completely."""
FEW = 3
"""The most broken pairs that are shown unfolded."""


def annotate(
    ci: str, results: Sequence[Result], *, not_checked: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Print annotations, if `ci` (the option ``--ci``) asks for them.

    `not_checked` maps schedulers that can't be built to the reason.
    """
    if not _on_github(ci):
        return
    for line in annotated(results):
        click.echo(line)
    for what, why in not_checked.items():
        click.echo(f"::error title={_property(f'NOT CHECKED {what}')}::{_data(why)}")


def write_summary(ci: str, results: Sequence[Result], *, complete: bool = True) -> None:
    """Append to the job's summary, if `ci` (the option ``--ci``) asks for it.

    Raises `OutputError`.
    """
    if results:
        _append_to_summary(ci, lambda room: job_summary(results, complete=complete, room=room))


def annotate_training(ci: str, result: TrainingResult) -> None:
    """Print annotations about a training script, if `ci` (the option ``--ci``) asks for them."""
    if _on_github(ci):
        for line in training_annotations(result):
            click.echo(line)


def write_training_summary(ci: str, result: TrainingResult) -> None:
    """Append to the job's summary, if `ci` (the option ``--ci``) asks for it.

    Raises `OutputError`.
    """
    _append_to_summary(ci, lambda room: training_summary(result, room=room))


def _append_to_summary(ci: str, text: Callable[[int], str]) -> None:
    """Append what `text` returns for the number of bytes that are left in the job's summary."""
    name = os.environ.get("GITHUB_STEP_SUMMARY")
    if not _on_github(ci) or not name:
        return
    try:
        with Path(name).open("a", encoding="utf-8", newline="\n") as file:
            file.write(text(ROOM - file.tell()))
    except OSError as error:
        raise OutputError(f"cannot write the job's summary to {name}: {error.strerror}") from None


def _on_github(ci: str) -> bool:
    return ci == "github" or (ci == "auto" and os.environ.get("GITHUB_ACTIONS") == "true")


def annotated(results: Sequence[Result]) -> list[str]:
    """A workflow command for each pair that is broken, stale or unknown.

    Pairs of a subject that are stale or unknown for the same reason share one. If there are more
    than GitHub shows, the last one counts the rest.
    """
    worst_first = sorted(_wrong(results), key=lambda result: FAILING.index(result.verdict))
    return _at_most([_annotation(group) for group in grouped(worst_first, _shared).values()])


def _at_most(commands: list[str]) -> list[str]:
    """The commands; if there are more than GitHub shows, the last one counts the rest."""
    left = len(commands) - MOST + 1
    if left < 2:
        return commands
    return [*commands[: MOST - 1], f"::error::{left} more are in the job's summary and log"]


def _command(properties: Mapping[str, str], message: str) -> str:
    listed = ",".join(f"{key}={_property(value)}" for key, value in properties.items())
    return f"::error {listed}::{_data(message)}"


def _shared(result: Result) -> tuple[str, ...]:
    """What results that share an annotation have in common."""
    check = result.check if result.verdict == Verdict.BROKEN else ""
    return result.verdict, result.subject, check, result.reason, result.place


def _wrong(results: Sequence[Result]) -> list[Result]:
    return [result for result in results if result.verdict in FAILING]


def _annotation(group: Sequence[Result]) -> str:
    result, found = group[0], group[0].counterexample
    named = ", ".join(each.check for each in group) if len(group) <= FEW else f"{len(group)} checks"
    properties = _in_repository(result.place)
    properties["title"] = f"{result.verdict} {result.subject}: {named} (torch {result.torch})"
    message = result.reason
    if result.verdict == Verdict.BROKEN and found is not None:
        lines = [
            _sentence(found, result),
            f"counterexample: {found.trace}",
            f"reproduce with: {report.replay_command(result, str(found.trace))}",
        ]
        message = "\n".join(lines + ([f"note: {result.note}"] if result.note else []))
    return _command(properties, message)


def _sentence(found: Counterexample, result: Result) -> str:
    """What was expected, what was found instead, and where."""
    rows = dict(report.difference_rows(found, result.promise, result.check))
    return f"expected {rows['expected']}; got {rows['got']}; at {rows['at']}"


def _in_repository(place: str) -> dict[str, str]:
    """``path:line`` as GitHub's ``file`` and ``line``; empty if it is not in the repository.

    For a file of an installed package, the same file in the repository is used.
    """
    path, _, line = place.rpartition(":")
    if not line.isdecimal():
        path, line = place, ""
    root = Path(os.environ.get("GITHUB_WORKSPACE") or ".").resolve()
    try:
        resolved = Path(path).resolve()
    except ValueError:  # no file has this name: a NUL or a lone surrogate is in it
        return {}
    for file in _same_files(resolved, root):
        if file.is_file() and file.is_relative_to(root):
            where = {"file": file.relative_to(root).as_posix()}
            return where | ({"line": line} if line else {})
    return {}


def _same_files(path: Path, root: Path) -> Iterator[Path]:
    installed = next(
        (p for p in path.parents if p.name in ("site-packages", "dist-packages")), None
    )
    if installed is None:
        yield path
        return
    for folder in (root, root / "src"):
        file = folder / path.relative_to(installed)
        if file.is_file() and filecmp.cmp(file, path, shallow=False):
            yield file


def _data(text: str) -> str:
    return printable(text.replace("\r\n", "\n")).replace("%", "%25").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def job_summary(results: Sequence[Result], *, complete: bool = True, room: int = ROOM) -> str:
    """The run as Markdown of at most `room` bytes: verdicts by subject, then what is wrong.

    Parts that do not fit are left out and counted.
    """
    counted = report.counts_text(results, FAILING)
    parts = [
        f"## lr-resume-harness, torch {results[0].torch}: {counted or 'nothing is broken'}\n",
        f"{escaped(report.summary(results))}\n",
        *(f"{escaped(line)}\n" for line in report.looked_text(results).splitlines()),
        "" if complete else "The run was stopped: these are the results so far.\n",
        _table(results),
        *_blocks(results),
    ]
    return _fitting(parts, room)


def _fitting(parts: Iterable[str], room: int) -> str:
    """Those parts that fit into `room` bytes; a sentence counts the others."""
    text, left = "", 0
    for part in filter(None, parts):
        # The 100 bytes are kept free for the sentence below.
        fits = len(printable(f"{text}{part}\n").encode()) <= room - 100
        text += f"{part}\n" if fits else ""
        left += not fits
    return printable(text) + (f"{left} more did not fit here: see the log.\n\n" if left else "")


def _table(results: Sequence[Result]) -> str:
    counts = collections.Counter((result.subject, result.verdict) for result in results)
    verdicts = [v for v in Verdict if any(verdict == v for _, verdict in counts)]
    rows = [["subject", *verdicts], ["---", *["--:"] * len(verdicts)]]
    for subject in dict.fromkeys(result.subject for result in results):
        numbers = [str(counts[subject, verdict] or "") for verdict in verdicts]
        rows.append([escaped(subject), *numbers])
    return "".join(f"{markdown_row(row)}\n" for row in rows)


def _blocks(results: Sequence[Result]) -> Iterator[str]:
    """A block for each failure, then one for each other verdict."""
    broken = failures(results)
    for failure in broken:
        sentence = _sentence(failure.counterexample, failure.result)
        title = f"BROKEN {failure.result.subject}: {failure.headline}: {sentence}"
        yield _block(title, report.broken_text(failure), unfolded=len(broken) <= FEW)
    stale = any(result.verdict == Verdict.STALE for result in results)
    reasons = report.reasons_text
    rest = [
        ("Stale and known" if stale else "Known", reasons(results, *IN_LEDGER), stale),
        ("Unknown", reasons(results, Verdict.UNKNOWN), True),
        ("Notes", report.note_text(results), False),
        ("Declined", reasons(results, Verdict.DECLINED), False),
        ("Not tried", report.untried_text(results), False),
    ]
    for title, text, unfolded in rest:
        if text:
            yield _block(title, text, unfolded=unfolded)


def _block(title: str, text: str, *, unfolded: bool) -> str:
    """A text in a fence, folded under a title."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    shown = " open" if unfolded else ""
    head = f"<details{shown}><summary>{html.escape(' '.join(title.split()), quote=False)}</summary>"
    return f"{head}\n\n{fence}text\n{text}\n{fence}\n\n</details>\n"


# ------------------------------------------------------------------------- a training script


def training_annotations(result: TrainingResult) -> list[str]:
    """A workflow command for each finding, or for the reason why nothing is known."""
    properties = _in_repository(script_name(result.command))
    found = []
    for finding in findings(result.outcomes):
        lines = [f"{label}: {text}" for label, text in training.finding_rows(result, finding)]
        if commands := training.reproduction(result, finding):
            lines += ["reproduce with:", *commands]
        found.append((training.finding_headline(result, finding), lines))
    if result.reason:
        found.append((f"{result.verdict} {script_name(result.command)}", [result.reason]))
    return _at_most(
        [_command({**properties, "title": title}, "\n".join(lines)) for title, lines in found]
    )


def training_summary(result: TrainingResult, *, room: int = ROOM) -> str:
    """The check of a training script as Markdown of at most `room` bytes."""
    found = findings(result.outcomes)
    parts = [
        f"## lr-resume-harness: {escaped(training.summary(result))}\n",
        f"{escaped(result.reason)}\n" if result.reason else "",
        *(f"{escaped(line.strip())}\n" for line in training.other_lines(result)),
        *(
            _block(
                training.finding_headline(result, finding),
                training.finding_text(result, finding),
                unfolded=len(found) <= FEW,
            )
            for finding in found
        ),
    ]
    return _fitting(parts, room)
