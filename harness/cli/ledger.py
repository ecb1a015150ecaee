"""The commands ``ledger verify`` and ``ledger update``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.options import BROKEN_FOUND, FAILED, OK

if TYPE_CHECKING:
    from harness.core.ledger import Entry

FILES = click.option(
    "--ledger",
    "files",
    metavar="FILE",
    type=click.Path(path_type=Path),
    multiple=True,
    help="A ledger of your own in place of ours of PyTorch; repeatable.",
)


@click.group()
def ledger() -> None:
    """See whether a ledger of known failures is true, and write it anew."""


@ledger.command()
@FILES
def verify(files: tuple[Path, ...]) -> int:
    """Run the trace of every entry: true of the installed torch where its range says so, alone.

    Exit status: 0 every range is true, 1 one is not, 2 one can't be judged.
    """
    import torch

    from harness.checks.registry import as_check
    from harness.core.ledger import Ledger, version_of
    from harness.core.result import Verdict
    from harness.engine.session import check_subject
    from harness.subjects.registered import subject_called

    version = version_of(torch.__version__)
    entries = _read(files)
    about = [entry for entry in entries if entry.covers(version)]
    verdicts = []
    for name in dict.fromkeys(entry.subject for entry in entries):
        checks = {entry.check: None for entry in entries if entry.subject == name}
        subject, known = subject_called(name), Ledger(entries)
        for result in check_subject(
            subject, map(as_check, checks), ledger=known, replay_alone=True
        ):
            verdicts.append(result.verdict)
            if result.verdict in (Verdict.BROKEN, Verdict.STALE, Verdict.UNKNOWN):
                click.echo(f"{result.verdict} {name}: {result.check}\n  {result.reason}")
    more = verdicts.count(Verdict.BROKEN)
    click.echo(
        f"torch {version}: {verdicts.count(Verdict.KNOWN)} of {len(about)} entries are true of it; "
        f"of {len(entries) - len(about)} about other versions {more or 'none'} "
        f"{'is' if more < 2 else 'are'} true of it as well"
    )
    if Verdict.UNKNOWN in verdicts:
        return FAILED
    return BROKEN_FOUND if Verdict.BROKEN in verdicts or Verdict.STALE in verdicts else OK


@ledger.command()
@click.argument("results", metavar="RESULT...", type=click.Path(path_type=Path), nargs=-1,
                required=True)  # fmt: skip
@FILES
@click.option("--write", is_flag=True, help="Write the file; else it is printed.")
def update(results: tuple[Path, ...], files: tuple[Path, ...], write: bool) -> int:
    """Print the ledger as RESULTs would have it: what `check --json` wrote, a file a version.

    Ranges become true of all of them, what is broken and in no entry gets one, and what is
    not broken any more loses its. Comments stay, and so does what is said of other versions.
    """
    from harness.core.files import check_writable, write_text
    from harness.report.ledger_update import read_versions, updated
    from harness.subjects.registered import ledger_of_torch

    if len(files) > 1:
        raise click.UsageError("--ledger: one file at a time can be written anew")
    path = files[0] if files else ledger_of_torch()
    data = read_versions(results)
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    entries = _read((path,)) if text else ()
    new = updated(text, entries, data)
    if not write:
        click.echo(new, nl=False)
        return OK
    if new == text:
        click.echo(f"{path} is true of these results as it is")
        return OK
    check_writable(path)
    write_text(path, new)
    click.echo(f"wrote {path}")
    return OK


def _read(files: tuple[Path, ...]) -> tuple[Entry, ...]:
    from harness.subjects.registered import known_failures, ledger_of_torch

    return known_failures(files or (ledger_of_torch(),)).entries
