"""The commands ``check`` and ``list``."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli_options import (
    FAILED,
    INTERRUPTED,
    LEDGER,
    OK,
    RESUME_PYTHON,
    check_python,
    options_of,
)
from harness.errors import TraceError
from harness.progress import progress

if TYPE_CHECKING:
    from harness.decorators import Check
    from harness.ledger import Ledger
    from harness.results import Budget, Result
    from harness.subject import Subject

__all__ = ["check", "list_"]


def _list_checks(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        click.echo("\n".join(_check_lines()))
        context.exit()


@click.command()
@click.argument("subjects", metavar="[SUBJECT]...", nargs=-1)
@click.option("--installed", is_flag=True, help="Those that installed packages ship.")
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
    installed: bool,
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

    A package or module stands for all schedulers that it defines; with one that can't
    be built, or can't be loaded, the exit status is not 0.

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
    options = options_of(kwargs)
    found = choose_subjects(subjects, options, installed=installed)
    chosen = found.subjects
    selected = select_checks(checks, all_checks=all_checks, elsewhere=bool(resume_python))
    check_python(resume_python)
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
    from harness.show import show_missed, show_results

    show_missed(found)
    status = show_results(results, chosen, selected, scripts, explain, not no_ledger)
    if json_file is not None:
        from harness.cases import uninterrupted_rates
        from harness.output import write_text
        from harness.report import to_json

        names = {result.subject for result in results}
        runs = {s.name: uninterrupted_rates(s, seed, time_limit) for s in chosen if s.name in names}
        data = to_json(results, budget, complete=complete, runs=runs)
        data["not_checked"] = {missed.what: missed.why for missed in found.missed}
        write_text(json_file, json.dumps(data, indent=1, allow_nan=False) + "\n")
    if found.missed:
        status = status or FAILED
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
    from harness.pairs import check_subject

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


def _check_lines() -> list[str]:
    from harness.checks import CHECKS

    width = max(len(check.name) for check in CHECKS)
    return [
        f"{check.name:{width}}  {'' if check.default else '(opt-in) '}{check.doc}"
        for check in CHECKS
    ]


@click.command("list")
@click.argument("subjects", metavar="[SUBJECT]...", nargs=-1)
@click.option("--installed", is_flag=True, help="Those that installed packages ship.")
def list_(subjects: tuple[str, ...], installed: bool) -> int:
    """Show the subjects and the checks, a line each; of a package what it defines."""
    from harness.catalogue import choose_subjects
    from harness.show import show_missed

    found = choose_subjects(subjects, {}, installed=installed)
    show_missed(found)
    width = max((len(subject.name) for subject in found.subjects), default=0)
    click.echo("Subjects:")
    for subject in found.subjects:
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
