"""Prints what a run found, and writes its scripts."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console

from harness.cli.options import BROKEN_FOUND, FAILED, OK
from harness.core.check import Check
from harness.core.errors import HarnessError, OutputError
from harness.core.files import file_names, write_bytes, write_text
from harness.core.result import Result
from harness.core.verdict import Verdict
from harness.report import text as report
from harness.report.failures import failures
from harness.report.script import script_of
from harness.subjects.discover import Found
from harness.subjects.subject import Subject

FEW = 3
"""How many entries for a ledger are printed with a report."""


def show_results(
    results: Sequence[Result],
    *,
    pairs: Sequence[tuple[Subject, Check]] = (),
    scripts: Path | None = None,
    plots: Path | None = None,
    ledger: bool = False,
) -> int:
    """Print everything that was found, write scripts and pictures, and return the exit status.

    `pairs` are those of the results, one each, if there are `scripts` or `plots`. With a `ledger`
    what is broken is printed as its entries, too.
    """
    if not results:
        return FAILED
    reasons = {result.reason for result in results}
    if len(reasons) == 1 and all(result.verdict == Verdict.UNKNOWN for result in results):
        click.echo(f"error: {reasons.pop()}", err=True)
        return FAILED
    pair_of = {id(result): pair for result, pair in zip(results, pairs, strict=False)}
    broken = failures(results)
    stems = file_names(_stem(failure.result) for failure in broken)
    for failure in broken:
        click.echo(report.broken_text(failure))
        result, stem = failure.result, stems[_stem(failure.result)]
        if scripts is not None:
            click.echo(f"  {_script_file(scripts / stem, *pair_of[id(result)], result)}")
        if plots is not None:
            click.echo(f"  {_picture_file(plots / stem, result)}")
        click.echo()
    for text in (
        report.known_text(results),
        report.note_text(results),
        report.declined_text(results),
        report.unknown_text(results),
        report.untried_text(results),
    ):
        if text:
            click.echo(text + "\n")
    if ledger and (entries := report.entries(results)):
        if len(entries) <= FEW:
            click.echo("Not in any ledger. To accept what is broken, put this into one:\n")
            click.echo("\n\n".join(entries) + "\n")
        else:
            click.echo(
                f"{len(entries)} failures are not in any ledger. To print entries for them, with "
                "the file of check --json:"
            )
            click.echo("  python -m harness ledger update FILE\n")
    if any(result.verdict != Verdict.HOLDS for result in results):
        terminal = sys.stdout.isatty()
        Console(width=None if terminal else 100, highlight=False).print(report.table(results))
        click.echo()
        click.echo(report.legend(results))
        click.echo()
    click.echo(report.summary(results))
    if broken or any(result.verdict == Verdict.STALE for result in results):
        return BROKEN_FOUND
    return FAILED if any(result.verdict == Verdict.UNKNOWN for result in results) else OK


def show_missed(found: Found) -> None:
    """Print what was found and can't be checked."""
    for line in found.unread:
        click.echo(f"note: {line}", err=True)
    for missed in found.missed:
        click.echo(f"{missed}\n")


def _stem(result: Result) -> str:
    return f"{result.subject}-{result.check}"


def _script_file(stem: Path, subject: Subject, chosen: Check, result: Result) -> str:
    """Write the script of one counterexample, and say where it is."""
    assert result.counterexample is not None
    path = stem.with_name(f"{stem.name}.py")
    try:
        write_text(path, script_of(subject, chosen, result, result.counterexample.trace))
    except OutputError as error:
        click.echo(f"error: {error}", err=True)
        return "No script: it can't be written"
    except HarnessError as error:
        return f"No script: {error}"
    return f"Script: {path}"


def _picture_file(stem: Path, result: Result) -> str:
    """Write the picture of one counterexample, and say where it is."""
    from harness.report.picture import picture_of

    path = stem.with_name(f"{stem.name}.svg")
    try:
        content = picture_of(result)
    except HarnessError as error:
        return f"No picture: {error}"
    if content is None:
        return "No picture: it is about the state, which no LR shows"
    try:
        write_bytes(path, content)
    except OutputError as error:
        click.echo(f"error: {error}", err=True)
        return "No picture: it can't be written"
    return f"Picture: {path}"
