"""The commands ``check`` and ``list``."""

from __future__ import annotations

import math
import random
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.interrupts import heard
from harness.cli.options import (
    CI,
    FAILED,
    INTERRUPTED,
    LEDGER,
    OK,
    RESUME_PYTHON,
    check_python,
    options_of,
    path_option,
)
from harness.cli.progress import progress
from harness.core.errors import TraceError

if TYPE_CHECKING:
    from harness.core.result import Budget, Result
    from harness.engine.ordering import Make, Pair
    from harness.engine.search import Examples
    from harness.subjects.subject import Subject

SECONDS = click.FloatRange(min=0, max=86400, min_open=True)
SECONDS.name = "number of seconds"


def _shard(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> tuple[int, int]:
    if value is None:
        return 1, 1
    found = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", value)
    if not found or int(found[1]) > int(found[2]):
        raise click.BadParameter(f"must look like 2/5 for the second of five (got {value!r})")
    return int(found[1]), int(found[2])


def _list_checks(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        click.echo("\n".join(_check_lines()))
        context.exit()


@click.command()
@click.argument("subjects", metavar="[SUBJECT]...", nargs=-1)
@click.option("--installed", is_flag=True, help="Check the subjects that installed packages ship.")
@click.option("--check", "checks", metavar="NAME", multiple=True,
              help="Run only this check; repeatable.")  # fmt: skip
@click.option("--all-checks", is_flag=True, help="Run the opt-in checks too.")
@click.option("--kwargs", metavar="OPTIONS", default="",
              help="Options for every SUBJECT, such as 'step_size=3 gamma=0.5'.")  # fmt: skip
@click.option("--max-examples", metavar="N", type=click.IntRange(min=0), default=25,
              show_default=True, help="Random traces to try for each pair, after the sweep; 0 runs "
              "only the sweep.")  # fmt: skip
@click.option("--seed", metavar="N", type=int,
              help="Seed of the search.  [default: 0; a random one with explore]")  # fmt: skip
@click.option("--time-limit", metavar="SECONDS", type=SECONDS, default=30.0, show_default=True,
              help="Time limit for each pair of subject and check.")  # fmt: skip
@click.option("--time-budget", metavar="SECONDS", type=SECONDS,
              help="Time limit for all pairs together. Every pair is swept before any is "
              "searched; the report lists what was not searched.")  # fmt: skip
@click.option("--profile", type=click.Choice(["gate", "explore"]), default="gate",
              show_default=True, help="gate: check every pair once. explore: keep searching with "
              "fresh seeds until stopped, and save the counterexamples for the next "
              "run.")  # fmt: skip
@click.option("--shard", metavar="K/N", callback=_shard,
              help="Check only the K-th of N parts of the pairs, to split a run over N jobs; see "
              "`merge`.")  # fmt: skip
@path_option("--json", "json_file", help_="Write the results as JSON.")
@path_option(
    "--scripts", metavar="DIR", help_="Write a reproduction script for every counterexample."
)
@path_option(
    "--plots", metavar="DIR", help_="Draw a picture of every counterexample; needs matplotlib."
)
@path_option(
    "--html", "html_file", help_="Write the report as one HTML page, with pictures and scripts."
)
@LEDGER
@click.option("--no-ledger", is_flag=True, help="Ignore all ledgers.")
@click.option("--search-known", is_flag=True,
              help="Also search known failures for defects that are not in the "
              "ledger.")  # fmt: skip
@CI
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
    seed: int | None,
    time_limit: float,
    time_budget: float | None,
    profile: str,
    shard: tuple[int, int],
    json_file: Path | None,
    scripts: Path | None,
    plots: Path | None,
    html_file: Path | None,
    ledgers: tuple[Path, ...],
    no_ledger: bool,
    search_known: bool,
    ci: str,
    resume_python: str,
) -> int:
    """Check each SUBJECT. The default is every scheduler of PyTorch and of this project.

    Name a package or module to check every scheduler that it defines. If one of them
    can't be loaded or built, the exit status is not 0.

    Exit status: 0 nothing is broken, 1 something is broken, 2 something is unknown or
    an argument is wrong, 130 after Ctrl-C, 143 after SIGTERM.
    """
    from harness.checks.registry import select_checks
    from harness.cli.outputs import Outputs
    from harness.cli.show import (
        scripts_of,
        show_missed,
        show_results,
        status_of,
        write_files,
    )
    from harness.core.files import check_folder, check_writable, write_text
    from harness.core.ledger import NOTHING_KNOWN
    from harness.core.result import Budget
    from harness.engine.ordering import gate, shard_of
    from harness.engine.session import SubjectSession
    from harness.report.github import annotate, write_summary
    from harness.subjects.known_failures import known_failures
    from harness.subjects.lookup import choose_subjects

    if kwargs and not subjects:
        raise click.UsageError("--kwargs needs a SUBJECT")
    found = choose_subjects(subjects, options_of(kwargs), installed=installed)
    chosen = found.subjects
    selected = select_checks(checks, all_checks=all_checks, elsewhere=bool(resume_python))
    check_python(resume_python)
    for path in (json_file, html_file):
        if path is not None:
            check_writable(path)
    if scripts is not None:
        check_folder(scripts)
    if plots is not None:
        from harness.report.picture import check_drawable

        check_drawable("svg", "--plots")
        check_folder(plots)
    for name, seconds in (("--time-limit", time_limit), ("--time-budget", time_budget)):
        if seconds is not None and math.isnan(seconds):
            raise click.BadParameter("must be a number of seconds", param_hint=name)
    if seed is None:
        seed = random.SystemRandom().randrange(10**6) if profile == "explore" else 0
    budget = Budget(max_examples, seed, time_limit)
    if no_ledger and (ledgers or search_known):
        raise click.UsageError("--no-ledger can't be combined with --ledger or --search-known")
    known = NOTHING_KNOWN
    if not no_ledger:
        known = known_failures(ledgers, chosen, selected)
    pairs = shard_of([(s, c) for s in chosen for c in selected], *shard)
    if not pairs and shard[1] > 1:
        raise click.UsageError("--shard: there are more parts than pairs, so this part is empty")

    def make(subject: Subject, budget: Budget, examples: Examples | None = None) -> SubjectSession:
        names = {check.name for check in selected}
        return SubjectSession(
            subject, names, budget, resume_python=resume_python, ledger=known,
            search_known=search_known, examples=examples,
        )  # fmt: skip

    if profile == "explore":
        checked = _explored(pairs, make, budget, time_budget)
    else:
        checked = gate(pairs, make, budget, time_budget)
    results, complete = _run(pairs, checked, explores=profile == "explore")
    tried = [pair for index, pair in enumerate(pairs) if index in results]
    last = [results[index] for index in sorted(results)]
    outputs = Outputs()
    not_checked = {missed.what: missed.why for missed in found.missed}
    part = "/".join(map(str, shard))
    if json_file is not None:
        from harness.engine.option_sets import uninterrupted_rates
        from harness.report.result_file import dump_results, results_of_run

        with outputs.one():
            by_name = {subject.name: subject for subject, _ in tried}
            runs = {name: uninterrupted_rates(s, seed, time_limit) for name, s in by_name.items()}
            file = results_of_run(last, budget, complete=complete, runs=runs, shard=part)
            write_text(json_file, dump_results(replace(file, not_checked=not_checked)))
    made = scripts_of(last, tried) if scripts or html_file else {}
    if html_file is not None:
        from harness.report.html import run_page

        with outputs.one():
            page = run_page(last, made, budget, complete=complete, shard=part)
            write_text(html_file, page)
    files = write_files(last, made, outputs, scripts=scripts, plots=plots)
    with outputs.optional():
        write_summary(ci, last, complete=complete)
    with outputs.printed():
        show_missed(found)
        show_results(last, files=files, ledger=not no_ledger)
        annotate(ci, last, not_checked=not_checked)
    status = status_of(last)
    if found.missed:
        status = status or FAILED
    return outputs.status(status) if complete else INTERRUPTED


def _explored(
    pairs: Sequence[Pair], make: Make, budget: Budget, seconds: float | None
) -> Iterator[tuple[int, Result]]:
    """The results of `explore`, until it is stopped or `seconds` are over."""
    from harness.engine.ordering import explore
    from harness.engine.search import Examples

    click.echo(f"seed {budget.seed}; Ctrl-C to stop; counterexamples are saved", err=True)
    end = time.monotonic() + seconds if seconds is not None else math.inf
    for found in explore(pairs, make, budget, Examples.here()):
        yield found
        if time.monotonic() >= end:
            return


def _run(
    pairs: Sequence[Pair], checked: Iterator[tuple[int, Result]], *, explores: bool
) -> tuple[dict[int, Result], bool]:
    """The last result of each pair, by its index, and whether the run reached its end."""
    from harness.report.text import tried_text

    results: dict[int, Result] = {}
    last = {subject.name: index for index, (subject, _) in enumerate(pairs)}
    try:
        with progress(len(pairs)) as show:
            for index, result in checked:
                again = index in results
                results[index] = result
                line = ""
                if last[result.subject] == index and not again:
                    of_it = [r for r in results.values() if r.subject == result.subject]
                    line = f"{result.subject}: {tried_text(of_it)}"
                show(list(results.values()), result, line)
    except KeyboardInterrupt:
        heard()
        if not explores:
            click.echo("interrupted: here are the results so far", err=True)
        return results, explores
    return results, True


def _check_lines() -> list[str]:
    from harness.checks.registry import CHECKS

    width = max(len(check.name) for check in CHECKS)
    return [
        f"{check.name:{width}}  {'' if check.default else '(opt-in) '}{check.doc}"
        for check in CHECKS
    ]


@click.command("list")
@click.argument("subjects", metavar="[SUBJECT]...", nargs=-1)
@click.option("--installed", is_flag=True, help="List the subjects that installed packages ship.")
def list_(subjects: tuple[str, ...], installed: bool) -> int:
    """List the subjects and the checks. For a package, list the schedulers it defines."""
    from harness.cli.show import show_missed
    from harness.subjects.lookup import choose_subjects

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
    from harness.core.literals import format_value

    words = [f"{subject.build.__module__}.{getattr(subject.build, '__qualname__', '')}"]
    for name, value in subject.options.items():
        try:
            words.append(f"{name}={format_value(value)}")
        except TraceError:
            words.append(f"{name}=...")
    return " ".join(words)
