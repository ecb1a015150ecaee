"""The command line: see ``python -m harness --help``."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness import __version__
from harness.cli_ledger import ledger
from harness.errors import HarnessError, TraceError
from harness.progress import progress

if TYPE_CHECKING:
    from harness.decorators import Check
    from harness.ledger import Ledger
    from harness.results import Budget, Result
    from harness.subject import Subject

__all__ = ["main"]

OK, BROKEN_FOUND, FAILED, INTERRUPTED = 0, 1, 2, 130

LEDGER = click.option(
    "--ledger",
    "ledgers",
    metavar="FILE",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Known failures of your own, beside ours of PyTorch; repeatable.",
)

RESUME_PYTHON = click.option(
    "--resume-python",
    metavar="PATH",
    default="",
    help="Another Python, with another torch: save with one and resume with the other.",
)


def main() -> None:
    """Run the command line; the exit status is 0, 1 (broken), 2 (error or unknown) or 130."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the shell
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 (open until the end)
    if os.getcwd() not in sys.path:  # as `python -m` has it, for module:attribute
        sys.path.insert(0, os.getcwd())
    try:
        status = cli.main(standalone_mode=False)
        sys.stdout.flush()
    except HarnessError as error:
        click.echo(f"error: {error}", err=True)
        status = FAILED
    except click.Abort:
        status = INTERRUPTED
    except click.ClickException as error:
        error.show()
        status = FAILED
    except BrokenPipeError:  # the reader of the pipe has seen enough
        _no_more_output()
        status = FAILED
    except OSError as error:
        _no_more_output()
        click.echo(f"error: cannot write the output: {error.strerror}", err=True)
        status = FAILED
    sys.exit(status)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
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


def _list_checks(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        click.echo("\n".join(_check_lines()))
        context.exit()


@cli.command()
@click.argument("subjects", metavar="[SUBJECT]...", nargs=-1)
@click.option(
    "--check", "checks", metavar="NAME", multiple=True, help="Only this check; repeatable."
)
@click.option("--all-checks", is_flag=True, help="The opt-in checks too.")
@click.option(
    "--kwargs",
    metavar="OPTIONS",
    default="",
    help="Options for the SUBJECTs, such as 'step_size=3 gamma=0.5'.",
)
@click.option(
    "--max-examples",
    metavar="N",
    type=click.IntRange(min=0),
    default=25,
    show_default=True,
    help="Traces of the search for each pair, after the sweep; 0 for the sweep alone.",
)
@click.option(
    "--seed", metavar="N", type=int, default=0, show_default=True, help="Seed of the search."
)
@click.option(
    "--time-limit",
    metavar="SECONDS",
    type=click.FloatRange(min=0, max=86400, min_open=True),
    default=30.0,
    show_default=True,
    help="For each pair of subject and check.",
)
@click.option(
    "--json",
    "json_file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write the results as data.",
)
@click.option(
    "--scripts",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Write a reproduction script for every counterexample.",
)
@click.option("--explain", is_flag=True, help="Report by cause, over all sets of drawn options.")
@LEDGER
@click.option("--no-ledger", is_flag=True, help="Take nothing for known.")
@click.option("--search-known", is_flag=True,
              help="Search known failures, too, for what the ledger does not tell.")  # fmt: skip
@RESUME_PYTHON
@click.option("--list-checks", is_flag=True, is_eager=True, expose_value=False,
              callback=_list_checks, help="Show the checks and exit.")  # fmt: skip
def check(
    subjects: tuple[str, ...],
    checks: tuple[str, ...],
    all_checks: bool,
    kwargs: str,
    max_examples: int,
    seed: int,
    time_limit: float,
    json_file: Path | None,
    scripts: Path | None,
    explain: bool,
    ledgers: tuple[Path, ...],
    no_ledger: bool,
    search_known: bool,
    resume_python: str,
) -> int:
    """Check SUBJECTs; by default every scheduler of PyTorch, and ours.

    Exit status: 0 nothing is broken, 1 something is, 2 something is unknown or an
    argument is wrong, 130 after Ctrl-C.
    """
    from harness.catalogue import choose_subjects, known_failures, ledger_of_torch
    from harness.checks import select_checks
    from harness.ledger import NOTHING_KNOWN
    from harness.output import check_folder, check_writable
    from harness.results import Budget

    if kwargs and not subjects:
        raise click.UsageError("--kwargs needs a SUBJECT to give them to")
    options = _options(kwargs)
    chosen = choose_subjects(subjects, options)
    selected = select_checks(checks, all_checks=all_checks, elsewhere=bool(resume_python))
    _check_python(resume_python)
    if json_file is not None:
        check_writable(json_file)
    if scripts is not None:
        check_folder(scripts)
    if math.isnan(time_limit):
        raise click.BadParameter("must be a number of seconds", param_hint="--time-limit")
    budget = Budget(max_examples, seed, time_limit, explain)
    if no_ledger and (ledgers or search_known):
        raise click.UsageError("--no-ledger leaves nothing for --ledger or --search-known")
    known = NOTHING_KNOWN
    if not no_ledger:
        known = known_failures([ledger_of_torch(), *ledgers], chosen, selected)
    results: list[Result] = []
    complete = True
    try:
        with progress(len(chosen) * len(selected)) as show:
            for done in _checked(chosen, selected, budget, resume_python, known, search_known):
                results.append(done)
                show(*_progress(results, len(selected)))
    except KeyboardInterrupt:
        complete = False
        click.echo("interrupted: this is what was found so far", err=True)
    from harness.show import show_results

    status = show_results(results, chosen, selected, scripts, explain, not no_ledger)
    if json_file is not None:
        from harness.cases import uninterrupted_rates
        from harness.output import write_text
        from harness.report import to_json

        names = {result.subject for result in results}
        runs = {s.name: uninterrupted_rates(s, seed) for s in chosen if s.name in names}
        data = to_json(results, budget, complete=complete, runs=runs)
        write_text(json_file, json.dumps(data, indent=1, allow_nan=False) + "\n")
    return status if complete else INTERRUPTED


def _checked(
    subjects: Sequence[Subject],
    checks: Sequence[Check],
    budget: Budget,
    resume_python: str,
    ledger: Ledger,
    search_known: bool,
) -> Iterator[Result]:
    """The results of all subjects, one by one."""
    from harness.check import check_subject

    for subject in subjects:
        yield from check_subject(
            subject, checks, budget, resume_python=resume_python, ledger=ledger,
            search_known=search_known,
        )  # fmt: skip


def _progress(results: Sequence[Result], checks: int) -> tuple[str, str]:
    """What was just done, and a line for the subject once all its checks are made."""
    from harness.report import tried_text

    last = results[-1]
    made = len(results) % checks == 0
    line = f"{last.subject}: {tried_text(results[-checks:])}" if made else ""
    return f"{last.subject} {last.check}", line


@cli.command("list")
def list_() -> int:
    """Show the subjects and the checks, a line each."""
    from harness.catalogue import choose_subjects

    subjects = choose_subjects((), {})
    width = max(len(subject.name) for subject in subjects)
    click.echo("Subjects:")
    for subject in subjects:
        click.echo(f"  {subject.name:{width}}  {_built_by(subject)}")
    click.echo("\nChecks:")
    click.echo("\n".join(f"  {line}" for line in _check_lines()))
    return OK


def _built_by(subject: Subject) -> str:
    from harness.terms import format_value

    said = [f"{subject.build.__module__}.{getattr(subject.build, '__qualname__', '')}"]
    for name, value in subject.options.items():
        try:
            said.append(f"{name}={format_value(value)}")
        except TraceError:
            said.append(f"{name}=...")
    return " ".join(said)


def _check_lines() -> list[str]:
    from harness.checks import CHECKS

    width = max(len(check.name) for check in CHECKS)
    return [
        f"{check.name:{width}}  {'' if check.default else '(opt-in) '}{check.doc}"
        for check in CHECKS
    ]


@cli.command()
@click.argument("subject")
@click.argument("check_name", metavar="CHECK")
@click.argument("trace")
@RESUME_PYTHON
def replay(subject: str, check_name: str, trace: str, resume_python: str) -> int:
    """Run exactly TRACE, and say: still broken, holds, or cannot tell.

    Exit status: 1 still broken, 0 holds, 2 cannot tell.
    """
    from harness import report
    from harness.api import replay
    from harness.catalogue import subject_called
    from harness.checks import as_check
    from harness.results import BROKEN, HOLDS

    chosen = as_check(check_name)
    _check_python(resume_python)
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
@RESUME_PYTHON
def script(
    subject: str, check_name: str, trace: str, output: Path | None, resume_python: str
) -> int:
    """Write a script that shows TRACE with torch alone."""
    from harness.api import replay
    from harness.catalogue import subject_called
    from harness.checks import as_check
    from harness.output import check_writable, write_text
    from harness.results import BROKEN
    from harness.script import script_of

    chosen, found = as_check(check_name), subject_called(subject)
    if output is not None:
        check_writable(output)
    _check_python(resume_python)
    result = replay(found, chosen, trace, resume_python=resume_python)
    text = script_of(found, chosen, result, trace)
    if result.verdict != BROKEN:
        why = f": {result.reason}" if result.reason else ""
        click.echo(f"note: this trace is not broken on torch {result.torch}{why}", err=True)
    if output is None:
        click.echo(text, nl=False)
    else:
        write_text(output, text)
        click.echo(f"wrote {output}")
    return OK


def _check_python(resume_python: str) -> None:
    """Start another Python, and say at once what is wrong with it."""
    if resume_python:
        from harness.worker import worker_of

        worker_of(resume_python)


def _options(kwargs: str) -> dict[str, Any]:
    from harness.trace import parse_options

    return parse_options(kwargs)


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
    130 after Ctrl-C.
    """
    from harness import selftest, selftest_report
    from harness.output import check_writable, write_text
    from harness.results import Budget

    if json_file is not None:
        check_writable(json_file)
    budgets = [Budget(seed=number) for number in range(seed, seed + seeds)]
    trials: list[selftest.Trial] = []
    try:
        aside = selftest.set_aside()
        planned = selftest.all_jobs(budgets, quick=quick, aside=tuple(aside))
        with progress(len(planned)) as show:
            for trial in selftest.run_jobs(planned, jobs):
                trials.append(trial)
                show(trial.name, selftest_report.line(trial))
    except KeyboardInterrupt:
        click.echo("interrupted: nothing is proven", err=True)
        return INTERRUPTED
    selftest_report.show(trials, aside, quick=quick)
    if json_file is not None:
        write_text(json_file, json.dumps(selftest.to_json(trials, aside), indent=1) + "\n")
    return selftest_report.status(trials)


cli.add_command(ledger)


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
    from harness.diff import compare, read_results, text

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
@click.option("--picture", "picture_file", metavar="FILE", type=click.Path(path_type=Path),
              help="Draw it, to a name that ends with .png or .svg.")  # fmt: skip
def matrix(
    results: tuple[Path, ...],
    markdown_file: Path | None,
    html_file: Path | None,
    picture_file: Path | None,
) -> int:
    """Merge RESULTs of several torch versions: what is broken on which.

    Each RESULT is what `check --json` wrote, one for each version. Without an option
    the table goes to standard output, as Markdown.
    """
    from harness.matrix import markdown, merge, read
    from harness.matrix_page import page
    from harness.matrix_picture import draw
    from harness.output import check_writable, write_bytes

    for path in (markdown_file, html_file, picture_file):
        if path is not None:
            check_writable(path)
    merged = merge(map(read, results))
    made: list[tuple[Path, bytes]] = []
    if markdown_file is not None:
        made.append((markdown_file, markdown(merged).encode()))
    if html_file is not None:
        made.append((html_file, page(merged).encode()))
    if picture_file is not None:
        made.append((picture_file, draw(merged, picture_file.suffix)))
    for path, content in made:
        write_bytes(path, content)
        click.echo(f"wrote {path}")
    if merged.uneven:
        click.echo(f"note: {merged.uneven}", err=True)
    if not made:
        click.echo(markdown(merged), nl=False)
    return OK
