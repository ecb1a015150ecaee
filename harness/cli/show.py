"""Prints what a run found, and writes its scripts and pictures."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import click

from harness.cli.options import Exit
from harness.cli.outputs import Outputs, print_error, print_out, print_table
from harness.core.check import Check
from harness.core.errors import HarnessError, ScriptError
from harness.core.output import file_names, write_bytes, write_text
from harness.core.result import Result, nothing_was_checked
from harness.core.verdict import Verdict
from harness.report import text as report
from harness.report.script import script_of
from harness.report.text import failures
from harness.subjects.discover import Missed
from harness.subjects.subject import Subject

FEW = 3
"""The most ledger entries that are printed with a report."""


def show_results(
    results: Sequence[Result],
    *,
    files: Mapping[tuple[str, str], Sequence[str]] = MappingProxyType({}),
    ledger: bool = False,
    planned: int = 0,
    verbose: bool = False,
    quiet: bool = False,
) -> None:
    """Print the whole report.

    `files` holds lines about the files of a counterexample, by pair. With `ledger`, failures are
    also printed as ledger entries. With `verbose`, a line for each pair says where it was looked
    at, and every operation that was not tried is listed. If `quiet`, only what fails is printed,
    and the counts.
    """
    if not results:
        return
    if reason := _only_reason(results):
        print_error(f"error: {reason}")
        return
    for failure in failures(results):
        print_out(report.broken_text(failure))
        for line in files.get(failure.result.pair, ()):
            print_out(f"  {line}")
        print_out()
    if quiet:
        for verdict in (Verdict.STALE, Verdict.UNKNOWN):
            if text := report.reasons_text(results, verdict):
                print_out(text + "\n")
        print_out(report.summary(results, planned))
        return
    for text in (
        report.reasons_text(results, Verdict.KNOWN, Verdict.STALE),
        report.note_text(results),
        report.reasons_text(results, Verdict.DECLINED),
        report.reasons_text(results, Verdict.UNKNOWN),
        report.untried_text(results, every=verbose),
    ):
        if text:
            print_out(text + "\n")
    if ledger and (entries := report.entries(results)):
        if len(entries) <= FEW:
            print_out("Not in any ledger. To accept these failures, add this to one:\n")
            print_out("\n\n".join(entries) + "\n")
        else:
            print_out(
                f"{len(entries)} failures are not in any ledger. To print entries for them from a "
                "file that check --json wrote:"
            )
            print_out("  lr-resume-harness ledger update FILE\n")
    several = len({result.subject for result in results}) > 1
    if several and any(result.verdict != Verdict.HOLDS for result in results):
        print_table(report.table(results))
        print_out()
        print_out(report.legend(results))
        print_out()
    if verbose:
        for line in report.looked_lines(results):
            print_out(line)
        print_out()
    if looked := report.looked_text(results):
        print_out(looked)
    print_out(report.summary(results, planned))


def show_in_format(name: str, results: Sequence[Result], json_text: str) -> None:
    """Print the results in a format of another tool, or as the text of a JSON file."""
    from harness.report.formats import FORMATS
    from harness.report.github import annotated

    if name == "github":
        for line in annotated(results):
            click.echo(line)
    else:
        click.echo(json_text if name == "json" else FORMATS[name](results), nl=False)


def status_of(results: Sequence[Result]) -> Exit:
    """The exit status for these results; undecided if nothing changes in any schedule."""
    if nothing_was_checked(results):
        return Exit.UNDECIDED
    return status_of_verdicts({result.verdict for result in results} or {Verdict.UNKNOWN})


def status_of_verdicts(verdicts: Collection[Verdict]) -> Exit:
    """The exit status for these verdicts."""
    if Verdict.BROKEN in verdicts or Verdict.STALE in verdicts:
        return Exit.BROKEN
    return Exit.UNDECIDED if Verdict.UNKNOWN in verdicts else Exit.OK


def _only_reason(results: Sequence[Result]) -> str:
    """Why every result is UNKNOWN, if it is the same reason for all; else empty."""
    reasons = {result.reason for result in results}
    unknown = all(result.verdict == Verdict.UNKNOWN for result in results)
    return reasons.pop() if unknown and len(reasons) == 1 else ""


def show_missed(missed: Sequence[Missed], notes: Sequence[str]) -> None:
    """Print what was found but can't be checked, and which modules can't be imported."""
    for line in notes:
        print_error(f"note: {line}")
    for one in missed:
        print_out(f"{one}\n")


def script_for(subject: Subject, check: Check, result: Result) -> str | HarnessError | None:
    """A script for a failure or a stale entry; the error if it can't be written."""
    found = result.counterexample
    if found is None or result.verdict not in (Verdict.BROKEN, Verdict.STALE):
        return None
    try:
        return script_of(subject, check, result, found.trace)
    except HarnessError as error:
        return error
    except Exception as error:  # the harness's own: the other outputs are still written
        return ScriptError(f"error of the harness itself, please report it: {error!r}")


def write_files(
    results: Sequence[Result],
    made: Mapping[tuple[str, str], str | HarnessError],
    outputs: Outputs,
    *,
    scripts: Path | None,
    plots: Path | None,
) -> dict[tuple[str, str], list[str]]:
    """Write the scripts that were `made`, and pictures, to these folders.

    Returns lines about the files of each failure, by pair.
    """
    from harness.report.picture import picture_or_why

    broken = failures(results)
    stems = file_names(_stem(failure.result) for failure in broken)
    lines: dict[tuple[str, str], list[str]] = {}
    for failure in broken:
        result, stem = failure.result, stems[_stem(failure.result)]
        of_it = lines[result.pair] = []
        if scripts is not None:
            of_it.append(script_file(scripts / f"{stem}.py", made[result.pair], outputs))
        if plots is not None:
            of_it.append(picture_file(plots / f"{stem}.svg", picture_or_why(result), outputs))
    return lines


def _stem(result: Result) -> str:
    return f"{result.subject}-{result.check}"


def script_file(path: Path, script: str | HarnessError, outputs: Outputs) -> str:
    """Write a script; returns a line that says where it is."""
    if isinstance(script, HarnessError):
        return f"No script: {script}"
    with outputs.one():
        write_text(path, script)
        return f"Script: {path}"
    return "No script: it can't be written"


def picture_file(path: Path, content: bytes | str, outputs: Outputs) -> str:
    """Write a picture, unless `content` says why there is none; returns a line that says where."""
    if isinstance(content, str):
        return content
    with outputs.one():
        write_bytes(path, content)
        return f"Picture: {path}"
    return "No picture: it can't be written"
