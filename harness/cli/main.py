"""The command line: see ``python -m harness --help``."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import click

from harness import __version__
from harness.cli.check import check, list_
from harness.cli.interrupts import heard, interruptible
from harness.cli.ledger import ledger
from harness.cli.options import (
    BROKEN_FOUND,
    CI,
    FAILED,
    INTERRUPTED,
    OK,
    RESUME_PYTHON,
    check_python,
)
from harness.cli.plot import plot
from harness.cli.progress import bar
from harness.core.errors import HarnessError
from harness.core.files import stdout_kept


def main() -> None:
    """Run the command line; the exit status is 0, 1 (broken), 2 (error or unknown), 130 or 143."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the shell
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 (open until the end)
    if os.getcwd() not in sys.path:  # as `python -m` has it, for module:attribute
        sys.path.insert(0, os.getcwd())
    with interruptible() as interrupted, stdout_kept():
        status = _status()
    # Python dies of SIGINT, whatever the status, if a KeyboardInterrupt ever passed through an
    # exec of text (dataclasses does that at import) and nothing was executed so since
    exec("")
    sys.exit(*interrupted or (status,))


def _status() -> int:
    status: int
    try:
        status = cli.main(standalone_mode=False)
        sys.stdout.flush()
    except SystemExit:  # not Click's, which returns a status
        click.echo("error: a subject or a check ended the program by sys.exit", err=True)
        status = FAILED
    except HarnessError as error:
        click.echo(f"error: {error}", err=True)
        status = FAILED
    except click.Abort:
        status = INTERRUPTED
    except click.ClickException as error:
        error.show()
        status = FAILED
    except (BrokenPipeError, _ReaderIsGone):  # who reads the pipe has seen enough
        _no_more_output()
        status = FAILED
    except OSError as error:
        _no_more_output()
        click.echo(f"error: cannot write the output: {error.strerror}", err=True)
        status = FAILED
    return status


class _ReaderIsGone(Exception):
    """A BrokenPipeError, at which Click would end the program by sys.exit, as a subject may."""


class _Commands(click.Group):
    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except BrokenPipeError:
            raise _ReaderIsGone from None


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def cli() -> None:
    """Check that a PyTorch learning-rate schedule survives a checkpoint.

    A SUBJECT is a listed name, or module:attribute: a harness.Subject, or a
    scheduler class or function build(optimizer, last_epoch=-1). A CHECK is a
    listed name, or module:attribute. See both by: python -m harness list
    """


def _no_more_output() -> None:
    """Give what is still buffered nowhere to fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@cli.command()
@click.argument("subject")
@click.argument("check_name", metavar="CHECK")
@click.argument("trace")
@RESUME_PYTHON
def replay(subject: str, check_name: str, trace: str, resume_python: str) -> int:
    """Run exactly TRACE, and say: still broken, holds, or cannot tell.

    Exit status: 1 still broken, 0 holds, 2 cannot tell.
    """
    from harness.checks.registry import as_check
    from harness.core.result import BROKEN, HOLDS
    from harness.engine.replay import replay
    from harness.report import text as report
    from harness.subjects.registered import subject_called

    chosen = as_check(check_name)
    check_python(resume_python)
    result = replay(subject_called(subject), chosen, trace, resume_python=resume_python)
    if result.verdict == BROKEN:
        click.echo("still broken\n" + report.broken_text(result, chosen))
        return BROKEN_FOUND
    if result.verdict == HOLDS:
        click.echo(f"holds on torch {result.torch}: {report.tried_text([result])}")
        if result.note:
            click.echo(f"note: {result.note}")
        return OK
    click.echo(f"cannot tell: {result.reason}")
    return FAILED


@cli.command()
@click.argument("subject")
@click.argument("check_name", metavar="CHECK")
@click.argument("trace")
@click.option("-o", "--output", metavar="FILE", type=click.Path(path_type=Path),
              help="Write to FILE rather than to standard output.")  # fmt: skip
@click.option("--imports", type=click.Choice(["torch", "library", "all"]),
              help="What the script imports; everything else is pasted into it. torch: torch "
              "alone. library: installed packages too, so that a fix in one can be tested. all: "
              "your own modules too.  [default: torch if the subject is standalone, else all]")  # fmt: skip
@RESUME_PYTHON
def script(
    subject: str,
    check_name: str,
    trace: str,
    output: Path | None,
    imports: str | None,
    resume_python: str,
) -> int:
    """Write a script that shows TRACE in plain torch code.

    The script exits with 1 while the bug is there, 0 when it is gone, and 125 when that
    can't be told, as `git bisect run` expects.
    """
    from harness.checks.registry import as_check
    from harness.core.files import check_writable, write_text
    from harness.core.result import BROKEN
    from harness.engine.replay import replay
    from harness.report.script import script_of
    from harness.subjects.registered import subject_called
    from harness.subjects.source_code import Imports

    chosen, found = as_check(check_name), subject_called(subject)
    if output is not None:
        check_writable(output)
    check_python(resume_python)
    result = replay(found, chosen, trace, resume_python=resume_python)
    text = script_of(found, chosen, result, trace, Imports(imports) if imports else None)
    if result.verdict != BROKEN:
        why = f": {result.reason}" if result.reason else ""
        click.echo(f"note: this trace is not broken on torch {result.torch}{why}", err=True)
    if output is None:
        click.echo(text, nl=False)
    else:
        write_text(output, text)
        click.echo(f"wrote {output}")
    return OK


@cli.command()
@click.option("--quick", is_flag=True,
              help="Each fault by one of its checks, the controls by the sweep alone.")  # fmt: skip
@click.option(
    "--seed", metavar="N", type=int, default=0, show_default=True, help="Seed of the search."
)
@click.option("--seeds", metavar="N", type=click.IntRange(min=1), default=1, show_default=True,
              help="Repeat it with so many seeds: a fault must be caught by 19 of 20.")  # fmt: skip
@click.option("--jobs", metavar="N", type=click.IntRange(min=1), default=os.cpu_count() or 1,
              show_default="all cores", help="Processes.")  # fmt: skip
@click.option("--json", "json_file", metavar="FILE", type=click.Path(path_type=Path),
              help="Write the trials as data.")  # fmt: skip
def selftest(quick: bool, seed: int, seeds: int, jobs: int, json_file: Path | None) -> int:
    """Prove the harness on this machine and this PyTorch.

    Planted faults, schedulers with one known defect, must each be caught by exactly
    the checks of its record; controls, correct schedulers, by none.

    Exit status: 0 all is as it must be, 1 it is not, 2 something is unknown,
    130 after Ctrl-C, 143 after SIGTERM.
    """
    from harness.core.files import check_writable, write_text
    from harness.core.result import Budget
    from harness.engine import selftest
    from harness.report import selftest as selftest_report

    if json_file is not None:
        check_writable(json_file)
    budgets = [Budget(seed=number) for number in range(seed, seed + seeds)]
    trials: list[selftest.Trial] = []
    try:
        aside = selftest.set_aside()
        planned = selftest.all_jobs(budgets, quick=quick, aside=tuple(aside))
        with bar(len(planned)) as show:
            for trial in selftest.run_jobs(planned, jobs):
                trials.append(trial)
                show(len(trials), trial.name, selftest_report.line(trial))
    except KeyboardInterrupt:
        heard()
        click.echo("interrupted: nothing is proven", err=True)
        return INTERRUPTED
    selftest_report.show(trials, aside, quick=quick)
    if json_file is not None:
        write_text(json_file, json.dumps(selftest.to_json(trials, aside), indent=1) + "\n")
    return selftest_report.status(trials)


for command in (check, list_, ledger, plot):
    cli.add_command(command)


@cli.command()
@click.argument("results", metavar="RESULT...", nargs=-1, required=True,
                type=click.Path(path_type=Path))  # fmt: skip
@click.option("--json", "json_file", metavar="FILE", type=click.Path(path_type=Path),
              help="Write the results as one file.")  # fmt: skip
@CI
def merge(results: tuple[Path, ...], json_file: Path | None, ci: str) -> int:
    """Put the RESULTs of all shards of one run together, and report as `check` does.

    Exit status: that of `check`; 2 where the files are not all the parts of one run.
    """
    from harness.checks.registry import as_check
    from harness.cli.show import show_results
    from harness.core.files import check_writable, write_text
    from harness.core.result import BROKEN, KNOWN
    from harness.report.github import tell_github
    from harness.report.merge import merged
    from harness.report.result_files import read_results, result_of

    if json_file is not None:
        check_writable(json_file)
    data = merged([(path, read_results(path)) for path in results])
    found = [result_of(row) for row in data["results"]]
    broken = [result for result in found if result.verdict == BROKEN]
    checks = {result.check: as_check(result.references[1] or result.check) for result in broken}
    known = any(result.verdict == KNOWN for result in found)
    status = show_results(found, checks, ledger=known)
    tell_github(ci, found, checks)
    if json_file is not None:
        write_text(json_file, json.dumps(data, indent=1, allow_nan=False) + "\n")
    return status


@cli.command()
@click.argument("old", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
def diff(old: Path, new: Path) -> int:
    """Say what changed from OLD to NEW, two files that check --json wrote.

    What only one of them has is named, and not compared; so it is with what a
    stopped run lacks. Drawn options differ between versions: what is broken with
    options that OLD was not checked with is told apart, and counts as newly broken.

    Exit status: 0 nothing is newly broken and no LR changed without a resume by more
    than rounding, 1 otherwise, 2 the files can't be compared.
    """
    from harness.report.diff import compare, text
    from harness.report.result_files import read_results

    difference = compare(read_results(old), read_results(new))
    click.echo(text(difference))
    return BROKEN_FOUND if difference.worse else OK


@cli.command()
@click.argument("results", metavar="RESULT...", nargs=-1, required=True,
                type=click.Path(path_type=Path))  # fmt: skip
@click.option("--markdown", "markdown_file", metavar="FILE", type=click.Path(path_type=Path),
              help="Write the table for a README.")  # fmt: skip
@click.option("--html", "html_file", metavar="FILE", type=click.Path(path_type=Path),
              help="Write a page with the counterexample behind each cell.")  # fmt: skip
def matrix(
    results: tuple[Path, ...],
    markdown_file: Path | None,
    html_file: Path | None,
) -> int:
    """Merge RESULTs of several torch versions: what is broken on which.

    Each RESULT is what `check --json` wrote, one for each version. Without an option
    the table goes to standard output, as Markdown.
    """
    from harness.core.files import check_writable, write_text
    from harness.report.matrix import markdown, merge, read
    from harness.report.matrix_page import page

    for path in (markdown_file, html_file):
        if path is not None:
            check_writable(path)
    merged = merge(map(read, results))
    made: list[tuple[Path, str]] = []
    if markdown_file is not None:
        made.append((markdown_file, markdown(merged)))
    if html_file is not None:
        made.append((html_file, page(merged)))
    for path, content in made:
        write_text(path, content)
        click.echo(f"wrote {path}")
    if merged.uneven:
        click.echo(f"note: {merged.uneven}", err=True)
    if not made:
        click.echo(markdown(merged), nl=False)
    return OK
