"""The commands ``check`` and ``list``."""

from __future__ import annotations

import collections
import contextlib
import math
import os
import random
import re
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import click

from harness.cli.options import (
    CI,
    JOBS,
    LEDGER,
    OUTPUT_FORMAT,
    RESUME_PYTHON,
    Exit,
    cores,
    output_option,
    project_of,
    subject_options,
)
from harness.cli.outputs import print_error, print_out, progress
from harness.core.errors import HarnessError, SelectionError
from harness.core.output import count, make_folder, require_folder, write_text
from harness.core.pattern import selector
from harness.core.project import SubjectSettings
from harness.core.verdict import FAILING
from harness.settings import Settings
from lr_resume_harness.help import HELP

if TYPE_CHECKING:
    from harness.core.result import Budget, Result
    from harness.engine.examples import Examples
    from harness.engine.ordering import Checked, Checker, Pair

SECONDS = click.FloatRange(min=0, max=86400, min_open=True)
SECONDS.name = "number of seconds"


class Write(Protocol):
    """Writes the results so far, by the index of the pair, to a file."""

    def __call__(self, results: Mapping[int, Checked], *, complete: bool) -> None:
        """Write them; `complete` says whether they are all."""


def _shard(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> tuple[int, int]:
    if value is None:
        return 1, 1
    found = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", value)
    if not found or int(found[1]) > int(found[2]):
        raise click.BadParameter(f"must look like 2/5 for the second of five (got {value!r})")
    return int(found[1]), int(found[2])


def require_picture_folder(path: Path) -> None:
    """Raise `HarnessError` if no picture can be drawn, or written to the folder `path`."""
    from harness.report.picture import picture_kind

    picture_kind("svg", "--plots")
    require_folder(path)


def _list_checks(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        print_out("\n".join(_check_lines()))
        context.exit()


@click.command()
@click.argument("subjects", metavar="[SUBJECT]...", nargs=-1)
@click.option("--installed", is_flag=True, help="Check the subjects that installed packages ship.")
@click.option("--check", "checks", metavar="NAME", multiple=True,
              help="Run only this check; repeatable.")  # fmt: skip
@click.option("--all-checks", is_flag=True, help=HELP["all_checks"])
@click.option("-k", "pattern", metavar="PATTERN", default="",
              help="Check only the pairs that it selects, as pytest does: words with and, or, not "
              "and parentheses, such as 'StepLR and not pickle'.")  # fmt: skip
@click.option("--exclude", metavar="NAME", multiple=True,
              help="A subject or module to leave out; repeatable. * stands for any "
              "text.")  # fmt: skip
@click.option("--kwargs", metavar="OPTIONS", default="",
              help="Options for every SUBJECT, such as 'step_size=3 gamma=0.5'.")  # fmt: skip
@subject_options
@click.option("--max-examples", metavar="N", type=click.IntRange(min=0),
              default=Settings.max_examples, show_default=True,
              help=HELP["max_examples"])  # fmt: skip
@click.option("--seed", metavar="N", type=int,
              help=f"{HELP['seed']}  [default: {Settings.seed}; a random one with "
              "explore]")  # fmt: skip
@click.option("--time-limit", metavar="SECONDS", type=SECONDS, default=Settings.time_limit,
              show_default=True, help=HELP["time_limit"])  # fmt: skip
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
@output_option("--json", "json_file", help_="Write the results as JSON.")
@output_option("--scripts", metavar="DIR", require=require_folder,
               help_="Write a reproduction script for every counterexample.")  # fmt: skip
@output_option("--plots", metavar="DIR", require=require_picture_folder,
               help_="Draw a picture of every counterexample; needs matplotlib.")  # fmt: skip
@output_option("--html", "html_file",
               help_="Write the report as one HTML page, with pictures and scripts.")  # fmt: skip
@LEDGER
@click.option("--no-ledger", is_flag=True, help=HELP["no_ledger"])
@CI
@OUTPUT_FORMAT
@RESUME_PYTHON
@JOBS
@click.option("-x", "--exitfirst", is_flag=True, help="Stop at the first pair that fails.")
@click.option("-v", "--verbose", is_flag=True,
              help="Also print at which epochs and with which optimizers each pair was tried, and "
              "every operation that was not.")  # fmt: skip
@click.option("-q", "--quiet", is_flag=True, help="Print only what fails, and the last line.")
@click.option("--list-checks", is_flag=True, is_eager=True, expose_value=False,
              callback=_list_checks, help="Show the checks and exit.")  # fmt: skip
@click.pass_context
def check(
    context: click.Context,
    subjects: tuple[str, ...],
    installed: bool,
    checks: tuple[str, ...],
    all_checks: bool,
    pattern: str,
    exclude: tuple[str, ...],
    kwargs: str,
    length: int | None,
    optimizer: str | None,
    step: str | None,
    declines: dict[str, str],
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
    ci: str,
    output_format: str,
    resume_python: str,
    jobs: int | None,
    exitfirst: bool,
    verbose: bool,
    quiet: bool,
) -> int:
    """Check each SUBJECT. The default is every scheduler of PyTorch and of this project.

    Name a package, a module, a file or a folder to check every scheduler that it defines. If
    one of them can't be loaded or built, the exit status is 2, or 1 if something is broken
    or stale. The table [tool.lr-resume-harness] of pyproject.toml can name SUBJECTs and
    options.

    Exit status: 0 nothing is broken or stale, 1 something is, 2 something is unknown or
    an argument is wrong, 130 after Ctrl-C, 143 after SIGTERM.
    """
    for library in ("OMP", "OPENBLAS", "MKL"):  # a process with one thread can fork safely
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")
    from harness.cli.outputs import Outputs
    from harness.cli.show import (
        script_for,
        show_in_format,
        show_missed,
        show_results,
        status_of,
        write_files,
    )
    from harness.core.result import Budget
    from harness.core.trace import parse_options
    from harness.engine import ordering
    from harness.engine.plan import Selection, make_plan, plan_in_worker
    from harness.report.github import annotate, write_summary

    project = project_of(context)
    settings_for_all = SubjectSettings(
        length=length, optimizer=optimizer, step=step, declines=declines
    )
    subjects = subjects or (() if installed else project.paths)
    for name, given in (("kwargs", kwargs), ("optimizer", optimizer), ("step", step)):
        if given and not subjects:
            raise click.UsageError(f"--{name} needs a SUBJECT")
    if quiet and verbose:
        raise click.UsageError("-q can't be combined with -v")
    if no_ledger and ledgers:
        raise click.UsageError("--no-ledger can't be combined with --ledger")
    for name, seconds in (("--time-limit", time_limit), ("--time-budget", time_budget)):
        if seconds is not None and math.isnan(seconds):
            raise click.BadParameter("must be a number of seconds", param_hint=name)
    if jobs is None:
        jobs = cores()
    selection = Selection(
        subjects, parse_options(kwargs), installed, checks or project.checks, all_checks,
        resume_python, None if no_ledger else (*project.ledgers, *ledgers),
        exclude=(*project.exclude, *exclude), pattern=pattern, settings=settings_for_all,
        project=project,
    )  # fmt: skip
    selector(pattern)  # raises if it is not a pattern
    if jobs:
        ordering.warm_up()
        plan = plan_in_worker(selection, ordering.PATIENCE + time_limit)
    else:
        plan = make_plan(selection)
    if seed is None:
        seed = random.SystemRandom().randrange(10**6) if profile == "explore" else 0
    budget = Budget(max_examples, seed, time_limit)
    pairs = ordering.shard_of(plan, *shard)
    if pattern and not any(plan.checks_of(subject) for subject in plan.subjects):
        example = f"{plan.subjects[0].name}-{plan.checks[0].name}" if plan.subjects else "none"
        raise SelectionError(
            f"-k {pattern!r} selects nothing: its words must be parts of texts such as {example}"
        )
    if not pairs and shard[1] > 1:
        raise click.UsageError(
            "--shard: this part is empty, because there are more parts than pairs: use fewer parts"
        )
    for folder in filter(None, (scripts, plots)):
        make_folder(folder)
    settings = ordering.WorkerSettings(
        tuple(check.name for check in plan.checks), selection.options, plan.ledger,
        resume_python, script_for if scripts or html_file else None,
        rates=json_file is not None or output_format == "json", examples=profile == "explore",
    )  # fmt: skip
    checker = ordering.Checker(settings, jobs)
    explored = None
    if profile == "explore":
        explored = _explored(checker, pairs, budget, time_budget)
    checked = explored or ordering.gate(checker, pairs, budget, time_budget)
    part = "/".join(map(str, shard))
    not_checked = {missed.what: missed.why for missed in plan.missed}
    written: dict[int, tuple[Result, str]] = {}

    def write_json(results: Mapping[int, Checked], *, complete: bool) -> None:
        if json_file is not None:
            write_text(json_file, as_json(results, complete=complete))

    def as_json(results: Mapping[int, Checked], *, complete: bool) -> str:
        from harness.report.result_file import dump_results, results_of_run

        positions = sorted(results)
        file = results_of_run(
            [results[index].result for index in positions], budget, complete=complete,
            planned=len(pairs), runs=checker.rates, shard=part, positions=positions,
        )  # fmt: skip
        return dump_results(replace(file, not_checked=not_checked), written)

    results, stopped = _run(
        pairs, checked, write_json, explores=profile == "explore", exitfirst=exitfirst, quiet=quiet
    )
    if explored is not None:
        explored.close()  # after Ctrl-C it has not said yet what it kept
    complete = len(results) == len(pairs) and (profile == "explore" or not stopped)
    last = [results[index].result for index in sorted(results)]
    made = {one.result.pair: one.script for one in results.values() if one.script is not None}
    outputs = Outputs()
    with outputs.one():
        write_json(results, complete=complete)
    if html_file is not None:
        from harness.report.html import run_page

        with outputs.one():
            page = run_page(last, made, budget, complete=complete, shard=part)
            write_text(html_file, page)
    files = write_files(last, made, outputs, scripts=scripts, plots=plots)
    with outputs.optional():
        write_summary(ci, last, complete=complete)
    with outputs.printed():
        if output_format != "text":
            text = as_json(results, complete=complete) if output_format == "json" else ""
            show_in_format(output_format, last, text)
            for line in map(str, plan.missed):
                print_error(line)
            return outputs.status(
                _status(status_of(last), all_checked=complete and not plan.missed)
            )
        show_missed(plan.missed, () if quiet else plan.notes)
        show_results(
            last, files=files, ledger=not no_ledger, planned=len(pairs), verbose=verbose,
            quiet=quiet,
        )  # fmt: skip
        annotate(ci, last, not_checked=not_checked)
    if stopped and not complete and not _failed(last, exitfirst):
        return Exit.INTERRUPTED
    return outputs.status(_status(status_of(last), all_checked=complete and not plan.missed))


def _failed(results: Sequence[Result], exitfirst: bool) -> bool:
    """Whether the run was stopped because a pair failed."""
    return exitfirst and any(result.verdict in FAILING for result in results)


def _status(status: Exit, *, all_checked: bool) -> Exit:
    """The exit status of a run, which is never 0 if something was not checked."""
    return status if all_checked else status or Exit.UNDECIDED


def _explored(
    checker: Checker, pairs: Mapping[int, Pair], budget: Budget, seconds: float | None
) -> Generator[Checked]:
    """The results of `explore`, until it is stopped or `seconds` are over.

    At the end one line says which seeds were used, and what the database of examples holds.
    """
    from harness.engine.examples import Examples
    from harness.engine.ordering import explore

    def kept() -> str:
        return f"{count(len(_kept(examples, pairs)), 'counterexample')} kept in {examples.place}"

    examples = Examples.here()
    before = _kept(examples, pairs)
    click.echo(f"seed {budget.seed}; Ctrl-C to stop; {kept()}", err=True)
    end = time.monotonic() + seconds if seconds is not None else math.inf
    rounds: collections.Counter[int] = collections.Counter()
    try:
        for found in explore(checker, pairs, budget):
            rounds[found.index] += 1
            yield found
            if time.monotonic() >= end:
                return
    finally:
        now = _kept(examples, pairs)
        last = budget.seed + max(rounds.values(), default=1) - 1
        seeds = f"seeds {budget.seed} to {last}" if last > budget.seed else f"seed {last}"
        changes = f"{len(now - before)} new, {len(before - now)} removed"
        click.echo(f"{seeds}; {kept()}: {changes}", err=True)


def _kept(examples: Examples, pairs: Mapping[int, Pair]) -> set[tuple[str, str, str]]:
    """The traces that the database holds for the pairs, each with its pair."""
    return {
        (subject.name, check.name, str(trace))
        for subject, check in pairs.values()
        for trace in examples.of(subject.name, check.name)
    }


def _run(
    pairs: Mapping[int, Pair],
    checked: Iterator[Checked],
    write: Write,
    *,
    explores: bool,
    exitfirst: bool,
    quiet: bool,
) -> tuple[dict[int, Checked], bool]:
    """The last result of each pair, by its index, and whether the run was stopped.

    From time to time `write` is called with the results so far, so that they survive if this
    process is killed; this takes at most a tenth of the time. With `exitfirst` the run is stopped
    at the first failure; if `quiet`, no progress is shown.
    """
    from harness.report.text import tried_text

    results: dict[int, Checked] = {}
    left = collections.Counter(subject.name for subject, _ in pairs.values())
    written, took = 0.0, 0.0
    try:
        with progress(len(pairs)) as show:
            for one in checked:
                result, again = one.result, one.index in results
                results[one.index] = one
                left[result.subject] -= not again
                line = ""
                if not left[result.subject] and not again:
                    everything = (each.result for each in results.values())
                    of_it = [each for each in everything if each.subject == result.subject]
                    line = f"{result.subject}: {tried_text(of_it)}"
                if not quiet:
                    show([each.result for each in results.values()], result, line)
                if time.monotonic() > written + 10 * took:
                    before = time.monotonic()
                    with contextlib.suppress(HarnessError):  # the last write reports it
                        write(results, complete=False)
                    written = time.monotonic()
                    took = written - before
                if exitfirst and result.verdict in FAILING:
                    return results, True
    except KeyboardInterrupt:
        if not explores:
            click.echo("interrupted: here are the results so far", err=True)
        return results, True
    return results, False


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
@click.pass_context
def list_(context: click.Context, subjects: tuple[str, ...], installed: bool) -> int:
    """List the subjects and the checks. For a package, list the schedulers it defines."""
    from harness.cli.show import show_missed
    from harness.core.literals import format_options
    from harness.subjects.lookup import choose_subjects

    project = project_of(context)
    subjects = subjects or (() if installed else project.paths)
    found = choose_subjects(
        subjects, {}, installed=installed, settings_of=project.settings_of, exclude=project.exclude
    )
    show_missed(found.missed, found.notes)
    width = max((len(subject.name) for subject in found.subjects), default=0)
    print_out("Subjects:")
    for subject in found.subjects:
        built_by = f"{subject.build.__module__}.{getattr(subject.build, '__qualname__', '')}"
        options = [f"{name}={text}" for name, text in format_options(subject.options).items()]
        print_out(" ".join([f"  {subject.name:{width}}  {built_by}", *options]))
    print_out("\nChecks:")
    print_out("\n".join(f"  {line}" for line in _check_lines()))
    return Exit.OK
