"""The commands ``ledger verify``, ``ledger update`` and ``ledger ranges``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.options import RESULTS, Commands, Exit, path_option
from harness.cli.outputs import print_out

if TYPE_CHECKING:
    from harness.core.ledger import Entry

FILES = path_option(
    "--ledger", "files",
    help_="Use your own ledger instead of the installed ones; repeatable.",
)  # fmt: skip


@click.group(cls=Commands)
def ledger() -> None:
    """Verify, update and examine a ledger of known failures."""


@ledger.command()
@FILES
def verify(files: tuple[Path, ...]) -> int:
    """Run the trace of every entry, to see if its range is right for the installed torch.

    Exit status: 0 every range is right, 1 at least one is wrong, else 2 if one can't be
    decided.
    """
    import torch

    from harness.checks.registry import as_check
    from harness.cli.show import status_of_verdicts
    from harness.core.ledger import Ledger, version_of
    from harness.core.verdict import Reason, Verdict
    from harness.engine.session import check_subject
    from harness.subjects.known_failures import known_to
    from harness.subjects.lookup import subject_called

    version = version_of(torch.__version__)
    entries = _read(files)
    covering = [entry for entry in entries if entry.covers(version)]
    verdicts = []
    true = more = 0
    for name in dict.fromkeys(entry.subject for entry in entries):
        checks = {entry.check: None for entry in entries if entry.subject == name}
        subject = subject_called(name)
        known = known_to(subject, Ledger(entries))
        for entry in entries:
            if entry.subject == name and entry not in known.entries:
                verdicts.append(Verdict.UNKNOWN)
                why = f"{entry.place}: the entry does not apply to the subject called {name}"
                print_out(f"{Verdict.UNKNOWN} {name}: {entry.check}\n  {why}")
        for result in check_subject(
            subject, map(as_check, checks), ledger=known, replay_alone=True
        ):
            verdicts.append(result.verdict)
            more += result.why == Reason.ENTRY_RANGE_TOO_SHORT
            if result.verdict == Verdict.KNOWN:
                named = {result.check, *result.references[1:]}
                true += sum(e.subject == name and e.check in named for e in covering)
            if result.verdict in (Verdict.BROKEN, Verdict.STALE, Verdict.UNKNOWN):
                print_out(f"{result.verdict} {name}: {result.check}\n  {result.reason}")
    print_out(
        f"torch {version}: {true} of {len(covering)} entries for this version are true; "
        f"{more or 'none'} of {len(entries) - len(covering)} entries for other versions "
        f"{'is' if more < 2 else 'are'} also true here"
    )
    return status_of_verdicts(verdicts)


@ledger.command()
@RESULTS
@FILES
@click.option("--write", is_flag=True, help="Write to the --ledger FILE instead of printing.")
def update(results: tuple[Path, ...], files: tuple[Path, ...], write: bool) -> int:
    """Print the ledger, updated to agree with the RESULTs.

    Each RESULT is a file that `check --json` wrote, one for each torch version. Ranges change
    to fit all RESULTs, a failure without an entry gets one, and an entry that is true on no
    version is deleted. Comments stay, and so do ranges for versions without a RESULT. Without
    --ledger, the installed ledger is updated and printed; installed packages are never changed.
    """
    from harness.core.ledger import read_ledger, read_text, version_of
    from harness.core.output import require_writable, write_text
    from harness.report.ledger import updated
    from harness.report.result_file import read_versions
    from harness.subjects.known_failures import by_listed_names

    if len(files) > 1:
        raise click.UsageError("--ledger: only one file can be updated at a time")
    if write and not files:
        raise click.UsageError(
            "--write needs --ledger FILE: an installed ledger is never changed. To keep a copy, "
            "redirect the output: ledger update RESULT... > known.toml"
        )
    path = files[0] if files else _installed()
    data = [one.file for one in read_versions(results, version_of)]
    exists = path.exists()
    text = read_text(path) if exists else ""
    entries = by_listed_names(read_ledger([path])).entries if exists else ()
    new = updated(text, entries, data)
    if not write:
        click.echo(new, nl=False)
        return Exit.OK
    if new == text:
        print_out(f"{path} already agrees with these results")
        return Exit.OK
    require_writable(path)
    write_text(path, new)
    print_out(f"wrote {path}")
    return Exit.OK


@ledger.command()
@RESULTS
@FILES
def ranges(results: tuple[Path, ...], files: tuple[Path, ...]) -> int:
    """List the ledger's version ranges that these RESULTs don't confirm.

    If such a range began or ended one release earlier or later, every run would still pass.
    Each RESULT is a file that `check --json` wrote on one release. There must be one for every
    release where a range begins or ends. Nothing is run.

    Exit status: 0 every range is confirmed, 1 at least one is not, 2 the files can't be compared.
    """
    from harness.report.ledger import move_ranges, moves_text, releases_in
    from harness.report.result_file import read_results

    seen = releases_in([read_results(path) for path in results])
    entries = _read(files)
    moves = move_ranges(entries, seen)
    print_out(moves_text(entries, moves))
    return Exit.BROKEN if moves.unseen else Exit.OK


def _read(files: tuple[Path, ...]) -> tuple[Entry, ...]:
    from harness.subjects.known_failures import own_failures, shipped_failures

    return own_failures(files).entries if files else shipped_failures().entries


def _installed() -> Path:
    """The one installed ledger."""
    from harness.subjects.installed import shipped_ledgers

    found = shipped_ledgers()
    if len(found) != 1:
        several = ", ".join(f"{one.path} ({one.package})" for one in found)
        raise click.UsageError(
            f"several packages ship a ledger: copy one and name the copy with --ledger: {several}"
            if found
            else "no installed package ships a ledger: name yours with --ledger FILE"
        )
    return found[0].path
