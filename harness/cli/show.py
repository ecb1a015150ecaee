"""Prints what a run found, and writes its scripts."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import click
from rich.console import Console

from harness.cli.options import BROKEN_FOUND, FAILED, OK
from harness.core.check import Check
from harness.core.errors import HarnessError, ScriptError
from harness.core.files import file_name, write_bytes, write_text
from harness.core.result import BROKEN, HOLDS, STALE, UNKNOWN, Result
from harness.engine.grouping import explain as causes_of
from harness.report import text as report
from harness.report.script import script_of
from harness.subjects.discover import Found
from harness.subjects.subject import Subject

FEW = 3
"""How many entries for a ledger are printed with a report."""


def show_results(
    results: Sequence[Result],
    checks: Mapping[str, Check],
    *,
    subjects: Sequence[Subject] = (),
    scripts: Path | None = None,
    plots: Path | None = None,
    explain: bool = False,
    ledger: bool = False,
) -> int:
    """Print everything that was found, write scripts and pictures, and return the exit status.

    `checks` are those that are broken, by name, and `subjects` those of the results, one each,
    where there are `scripts` or `plots`. With a `ledger` what is broken is printed as its
    entries, too.
    """
    if not results:
        return FAILED
    reasons = {result.reason for result in results}
    if len(reasons) == 1 and all(result.verdict == UNKNOWN for result in results):
        click.echo(f"error: {reasons.pop()}", err=True)
        return FAILED
    broken = [i for i, result in enumerate(results) if result.verdict == BROKEN]
    causes = causes_of(results[i] for i in broken) if explain else []
    if causes:
        click.echo(f"{report.causes_text(causes, checks)}\n")
    index = {id(result): i for i, result in enumerate(results)}
    for group in report.alike(results):
        if not explain:
            click.echo(report.broken_text(group[0], checks[group[0].check], group[1:]))
        for result in group:
            place, chosen = index[id(result)], checks[result.check]
            if scripts is not None:
                click.echo(f"  {_script_file(scripts, subjects[place], chosen, result)}")
            if plots is not None:
                click.echo(f"  {_picture_file(plots, subjects[place], chosen, result)}")
        if not explain:
            click.echo()
    if explain and broken and (scripts or plots):
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
    if causes:
        click.echo(f"{report.causes_count(causes)}\n")
    if ledger and (entries := report.entries(results)):
        if len(entries) <= FEW:
            click.echo("In no ledger. To accept what is broken, put this into one:\n")
            click.echo("\n\n".join(entries) + "\n")
        else:
            click.echo(
                f"{len(entries)} are in no ledger. The entries to accept them, of --json FILE:"
            )
            click.echo("  python -m harness ledger update FILE\n")
    if any(result.verdict != HOLDS for result in results):
        terminal = sys.stdout.isatty()
        Console(width=None if terminal else 100, highlight=False).print(report.table(results))
        click.echo()
        click.echo(report.legend(results))
        click.echo()
    click.echo(report.summary(results))
    if broken or any(result.verdict == STALE for result in results):
        return BROKEN_FOUND
    return FAILED if any(result.verdict == UNKNOWN for result in results) else OK


def show_missed(found: Found) -> None:
    """Print what was found and can't be checked."""
    for line in found.unread:
        click.echo(f"note: {line}", err=True)
    for missed in found.missed:
        click.echo(f"{missed}\n")


def _script_file(folder: Path, subject: Subject, chosen: Check, result: Result) -> str:
    """Write the script of one counterexample, and say where it is."""
    assert result.counterexample is not None
    path = folder / f"{file_name(subject.name)}-{chosen.name}.py"
    try:
        write_text(path, script_of(subject, chosen, result, result.counterexample.trace))
    except ScriptError as error:
        return f"No script: {error}"
    return f"Script: {path}"


def _picture_file(folder: Path, subject: Subject, chosen: Check, result: Result) -> str:
    """Write the picture of one counterexample, and say where it is."""
    from harness.report.picture import picture_of

    path = folder / f"{file_name(subject.name)}-{chosen.name}.svg"
    try:
        content = picture_of(subject, chosen, result)
    except HarnessError as error:
        return f"No picture: {error}"
    if content is None:
        return "No picture: it is about the state, which no LR shows"
    write_bytes(path, content)
    return f"Picture: {path}"
