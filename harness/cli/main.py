"""The command line: see ``lr-resume-harness --help``."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness import __version__
from harness.cli.check import check, list_
from harness.cli.explain import explain
from harness.cli.init import init
from harness.cli.ledger import ledger
from harness.cli.options import (
    CI,
    OUTPUT_FORMAT,
    RESULTS,
    RESUME_PYTHON,
    Commands,
    Exit,
    cores,
    help_hint,
    output_option,
    project_of,
    require_python,
)
from harness.cli.outputs import Outputs, bar, no_more_output, print_error, print_out, print_table
from harness.cli.train import train
from harness.core.errors import HarnessError
from harness.core.output import file_name, require_writable, stdout_kept, write_bytes, write_text
from harness.core.project import Project, read_project
from harness.core.suggest import did_you_mean

if TYPE_CHECKING:
    from harness.core.check import Check
    from harness.core.result import Result
    from harness.report.diff import Comparison
    from harness.subjects.subject import Subject

TRACE = click.argument("trace", nargs=-1, required=True)


def main() -> None:
    """Run the command line; the exit status is 0, 1 (broken), 2 (error or unknown), 130 or 143."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the shell
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 (open until the end)
    if os.getcwd() not in sys.path:  # `python -m` adds it too; module:attribute needs it
        sys.path.insert(0, os.getcwd())
    with interruptible() as interrupted, stdout_kept():
        status = _status()
    # If a KeyboardInterrupt ever passed through an exec of text (dataclasses does that at
    # import), Python ends with SIGINT, whatever the status. Another exec of text prevents that.
    exec("")
    sys.exit(*interrupted or (status,))


def _status() -> int:
    try:
        status: int = cli.main(prog_name="lr-resume-harness", standalone_mode=False)
        sys.stdout.flush()
        return status
    except SystemExit:  # not Click's, which returns a status
        click.echo("error: a subject or a check called sys.exit: remove the call", err=True)
    except HarnessError as error:
        print_error(f"error: {error}")
    except click.Abort:
        return Exit.INTERRUPTED
    except click.ClickException as error:
        print_error(f"error: {_sentence(error)}")
    except (BrokenPipeError, _ReaderIsGone):  # whoever reads the pipe has seen enough
        no_more_output()
    except OSError as error:
        no_more_output()
        click.echo(f"error: cannot write the output: {error.strerror}", err=True)
    return Exit.UNDECIDED


def _sentence(error: click.ClickException) -> str:
    """What is wrong with an argument, and what to do, as other errors say it."""
    context = getattr(error, "ctx", None)
    text = error.format_message().rstrip(".")
    if isinstance(error, click.NoSuchOption):
        known = [] if context is None else context.command.params
        options = [option for each in known for option in each.opts if option[:2] == "--"]
        hint = did_you_mean(error.option_name, options, help_hint(context))
        return f"there is no option {error.option_name}: {hint}"
    if isinstance(error, click.MissingParameter) or "unexpected extra argument" in text:
        text = text[:1].lower() + text[1:]
        return f"{text}: {help_hint(context)}"
    return text[:1].lower() + text[1:]


def _torch_is_imported() -> bool:
    """Whether the checks, and with them torch, are imported to the end."""
    return hasattr(sys.modules.get("harness.checks.registry"), "CHECKS")


@contextlib.contextmanager
def interruptible() -> Iterator[list[int]]:
    """Make SIGTERM, like Ctrl-C, raise KeyboardInterrupt.

    While torch is being imported, a signal ends the program at once: the import swallows the
    exception or aborts, and nothing is being written yet. After SIGTERM, the yielded list holds
    the exit status. With ``--jobs 0`` a scheduler runs in this process and may swallow the
    exception; a second signal raises it again.
    """
    status: list[int] = []

    def interrupt(number: int, frame: object) -> None:
        if not _torch_is_imported():
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        if number == signal.SIGTERM:
            status[:] = [128 + number]
        raise KeyboardInterrupt

    handled = [signal.SIGTERM]
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # it may be ignored
        handled.append(signal.SIGINT)
    before = {number: signal.signal(number, interrupt) for number in handled}
    try:
        yield status
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _ReaderIsGone(Exception):
    """A BrokenPipeError. Click would answer one with sys.exit, which a subject may also call."""


class _Commands(Commands):
    def invoke(self, context: click.Context) -> object:
        try:
            return super().invoke(context)
        except BrokenPipeError:
            raise _ReaderIsGone from None


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
@click.pass_context
def cli(context: click.Context) -> None:
    """Check that a PyTorch learning-rate schedule survives a checkpoint.

    A SUBJECT is a listed name or module:attribute, which is a harness.Subject, a
    scheduler class or a function build(optimizer, last_epoch=-1). You can also
    write package.module.attribute or path/to/file.py:attribute. A CHECK is a
    listed name or module:attribute. To list the names: lr-resume-harness list
    """
    project = context.obj = read_project(Path.cwd())
    said = {
        name: getattr(project, name)
        for name in ("jobs", "max_examples", "seed", "time_limit", "all_checks")
        if getattr(project, name) is not None
    }
    context.default_map = {"check": said}


@cli.command()
@click.argument("subject")
@click.argument("check_name", metavar="CHECK")
@TRACE
@RESUME_PYTHON
@click.option("--no-ledger", is_flag=True, help="Don't say whether a ledger knows the failure.")
@click.pass_context
def replay(
    context: click.Context,
    subject: str,
    check_name: str,
    trace: tuple[str, ...],
    resume_python: str,
    no_ledger: bool,
) -> int:
    """Run TRACE twice from scratch, and print: still broken, holds, declined, or cannot tell.

    Exit status: 1 still broken, 0 holds or declined, 2 cannot tell.
    """
    from harness.checks.registry import as_check
    from harness.core.verdict import Verdict
    from harness.engine.session import replay
    from harness.report import text as report
    from harness.report.text import Failure
    from harness.subjects.lookup import subject_called

    project = project_of(context)
    chosen, found = as_check(check_name), subject_called(subject, project.settings_of)
    require_python(resume_python)
    result = replay(found, chosen, " ".join(trace), resume_python=resume_python)
    if result.verdict == Verdict.BROKEN:
        print_out("still broken\n" + report.broken_text(Failure((result,))))
        if not no_ledger:
            for line in _known(found, chosen, result, project):
                print_out(f"  known           {line}")
        return Exit.BROKEN
    if result.verdict == Verdict.DECLINED:
        print_out(f"declined: {result.reason}")
        return Exit.OK
    if result.verdict == Verdict.HOLDS:
        print_out(f"holds on torch {result.torch}: {report.tried_text([result])}")
        if result.note:
            print_out(f"note: {result.note}")
        return Exit.OK
    print_out(f"cannot tell: {result.reason}")
    return Exit.UNDECIDED


def _known(found: Subject, check: Check, result: Result, project: Project) -> list[str]:
    """Where it is written that a check of a subject fails like this."""
    from harness.core.ledger import version_of
    from harness.subjects.known_failures import known_failures, known_to

    lines = []
    if reason := found.expected_failures.get(check.name):
        lines.append(f"expected to fail: {reason}")
    names = {found.name, found.reference} - {""}
    version = version_of(result.torch)
    ledger = known_to(found, known_failures(project.ledgers, [found], [check]))
    return lines + [
        f"{entry.place}: {entry.kind}, {entry.tracked}: {entry.reason}"
        for entry in ledger.about(names, check.name, check.reference)
        if entry.covers(version)
    ]


@cli.command()
@click.argument("subject")
@click.argument("check_name", metavar="CHECK")
@TRACE
@output_option("-o", "--output", help_="Write to FILE instead of standard output.")
@click.option("--imports", type=click.Choice(["torch", "library", "all"]),
              help="What the script imports; everything else is pasted into it. torch: only "
              "torch. library: also installed packages, so that a fix in one can be tested. all: "
              "also your own modules.  [default: torch if the subject is standalone, else "
              "all]")  # fmt: skip
@RESUME_PYTHON
@click.pass_context
def script(
    context: click.Context,
    subject: str,
    check_name: str,
    trace: tuple[str, ...],
    output: Path | None,
    imports: str | None,
    resume_python: str,
) -> int:
    """Write a script that reproduces TRACE in plain torch code.

    The script exits with 1 if the bug is there, 0 if it is gone, and 125 if it can't
    tell, so that `git bisect run` can use it.
    """
    from harness.checks.registry import as_check
    from harness.core.verdict import Verdict
    from harness.engine.session import replay
    from harness.report.script import script_of
    from harness.subjects.lookup import subject_called
    from harness.subjects.source_code import Imports

    chosen = as_check(check_name)
    found = subject_called(subject, project_of(context).settings_of)
    line = " ".join(trace)
    require_python(resume_python)
    result = replay(found, chosen, line, resume_python=resume_python)
    text = script_of(found, chosen, result, line, Imports(imports) if imports else None)
    if result.verdict != Verdict.BROKEN:
        why = f": {result.reason}" if result.reason else ""
        click.echo(
            f"note: this trace does not break {chosen.name} on torch {result.torch}{why}", err=True
        )
    if output is None:
        click.echo(text, nl=False)
    else:
        write_text(output, text)
        print_out(f"wrote {output}")
    return Exit.OK


@cli.command()
@click.argument("subjects", metavar="SUBJECT...", nargs=-1, required=True)
@click.option("--kwargs", metavar="OPTIONS", multiple=True,
              help="Options for each SUBJECT; repeat it to draw several curves.")  # fmt: skip
@click.option("--epochs", metavar="N", type=click.IntRange(1, 5000), multiple=True,
              help="Number of epochs to draw; repeat it to draw several panels.  [default: the "
              "length of the schedule]")  # fmt: skip
@output_option(
    "-o", "--output", help_="Write the picture to FILE, an .svg or .png.  [default: SUBJECT.svg]"
)
@click.pass_context
def plot(
    context: click.Context,
    subjects: tuple[str, ...],
    kwargs: tuple[str, ...],
    epochs: tuple[int, ...],
    output: Path | None,
) -> int:
    """Draw the schedules of SUBJECTs side by side, and what a resume at each epoch does.

    At each epoch, training is resumed in the documented order and by last_epoch. A marker on
    the curve means that training goes on as if nothing had happened. A marker off the curve
    shows the wrong LR, and a thin line shows how training goes on. Needs matplotlib.
    """
    from harness.core.trace import parse_options
    from harness.engine.every_epoch import schedule_of
    from harness.report.picture import drawn, picture_kind
    from harness.report.plot import CURVES, MOST_SUBJECTS, Drawing, figure_of, names_of, sentences
    from harness.subjects.lookup import choose_subjects

    if len(kwargs) > len(CURVES):
        raise click.UsageError(f"--kwargs: at most {len(CURVES)} curves fit in one picture")
    if len(subjects) > MOST_SUBJECTS:
        raise click.UsageError(f"at most {MOST_SUBJECTS} subjects fit in one picture")
    said = project_of(context).settings_of
    options = [parse_options(text) for text in kwargs or ("",)]
    chosen = [
        [choose_subjects((name,), each, settings_of=said).subjects for each in options]
        for name in subjects
    ]
    for name, found in zip(subjects, chosen, strict=True):
        if len(found[0]) > 1:
            names = ", ".join(one.reference for one in found[0])
            raise click.UsageError(f"{name} contains several subjects: choose one of {names}")
    curves_of = [[one for (one,) in found] for found in chosen]
    named = "-".join(file_name(curves[0].name) for curves in curves_of)
    path = output or Path(f"{named}.svg")
    picture_kind(path.suffix, "plot")
    require_writable(path)
    drawings = []
    for curves in curves_of:
        schedules = [schedule_of(one, max(epochs, default=0)) for one in curves]
        title, labels = names_of(curves)
        drawings.append(Drawing(title, list(zip(labels, schedules, strict=True))))
    write_bytes(path, drawn(lambda: figure_of(drawings, epochs), path.suffix, "plot"))
    print_out(f"wrote {path}")
    for curves, drawing in zip(curves_of, drawings, strict=True):
        if len(drawings) > 1:
            print_out(f"{curves[0].name}:")
        print_out("\n".join(sentences(drawing.schedules)))
    return Exit.OK


@cli.command()
@click.option("--quick", is_flag=True,
              help="Try each fault with only one of its checks, and the controls with only the "
              "sweep.")  # fmt: skip
@click.option(
    "--seed", metavar="N", type=int, default=0, show_default=True, help="Seed of the search."
)
@click.option("--seeds", metavar="N", type=click.IntRange(min=1), default=1, show_default=True,
              help="Repeat with this many seeds; each fault must be caught with at "
              "least 95% of them.")  # fmt: skip
@click.option("--jobs", metavar="N", type=click.IntRange(min=1), default=cores,
              show_default="one for each core", help="Number of processes.")  # fmt: skip
@output_option("--json", "json_file", help_="Write the trials as JSON.")
@click.option("--faults", metavar="MODULE:NAME", multiple=True,
              help="A list of planted faults; repeatable.")  # fmt: skip
@click.option("--controls", metavar="MODULE:NAME", multiple=True,
              help="A list of correct subjects; repeatable.")  # fmt: skip
def selftest(
    quick: bool,
    seed: int,
    seeds: int,
    jobs: int,
    json_file: Path | None,
    faults: tuple[str, ...],
    controls: tuple[str, ...],
) -> int:
    """Test the harness itself on this machine and this PyTorch.

    A planted fault is a scheduler with one known defect: exactly the checks listed for it
    must catch it. A control is a correct scheduler: no check may fail on it.
    Without --faults and --controls, the ones that installed packages ship are tried.

    Exit status: 0 everything is as expected, 1 something is not, 2 something is
    unknown, 130 after Ctrl-C, 143 after SIGTERM.
    """
    from harness.core.result import Budget
    from harness.engine import selftest
    from harness.report import selftest as selftest_report

    budgets = [Budget(seed=number) for number in range(seed, seed + seeds)]
    trials: list[selftest.Trial] = []
    try:
        aside = selftest.set_aside()
        planned = selftest.all_jobs(
            budgets, quick=quick, aside=tuple(aside), faults=faults, controls=controls
        )
        with bar(len(planned)) as show:
            for trial in selftest.run_jobs(planned, jobs):
                trials.append(trial)
                show(len(trials), trial.name, selftest_report.line(trial))
    except KeyboardInterrupt:
        click.echo("interrupted: the selftest has no result", err=True)
        return Exit.INTERRUPTED
    outputs = Outputs()
    if json_file is not None:
        with outputs.one():
            write_text(json_file, json.dumps(selftest.to_json(trials, aside), indent=1) + "\n")
    with outputs.printed():
        print_table(selftest_report.table(trials))
        print_out(selftest_report.text(trials, aside, quick=quick))
    return outputs.status(selftest_report.status(trials))


for command in (check, explain, init, list_, ledger, train):
    cli.add_command(command)


@cli.command()
@RESULTS
@output_option("--json", "json_file", help_="Write the results to one JSON file.")
@CI
@OUTPUT_FORMAT
def merge(results: tuple[Path, ...], json_file: Path | None, ci: str, output_format: str) -> int:
    """Merge the RESULTs of all shards of one run, and print the report of `check`.

    Exit status: the same as `check`; 2 if the files are not all the shards of one run.
    """
    from harness.cli.show import show_in_format, show_results, status_of
    from harness.core.verdict import Verdict
    from harness.report.github import annotate, write_summary
    from harness.report.result_file import dump_results, merged, read_results

    file = merged([(path, read_results(path)) for path in results])
    outputs = Outputs()
    if json_file is not None:
        with outputs.one():
            write_text(json_file, dump_results(file))
    with outputs.optional():
        write_summary(ci, file.results)
    known = any(result.verdict == Verdict.KNOWN for result in file.results)
    with outputs.printed():
        if output_format != "text":
            show_in_format(output_format, file.results, dump_results(file))
            return outputs.status(status_of(file.results))
        show_results(file.results, ledger=known)
        annotate(ci, file.results)
    return outputs.status(status_of(file.results))


@cli.command()
@click.argument("old", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
@click.option("--replay", "replays", is_flag=True,
              help="Also run the counterexamples of OLD on the installed torch, which must be that "
              "of NEW, for the pairs that are not broken in NEW.")  # fmt: skip
@click.pass_context
def diff(context: click.Context, old: Path, new: Path, replays: bool) -> int:
    """Show what changed from OLD to NEW, two files that `check --json` wrote.

    Pairs that only one file has are listed but not compared; a run that was stopped
    lacks some. Random options differ between versions: a failure with options that OLD
    was not checked with is listed separately, and counts as newly broken.

    Exit status: 0 nothing is newly broken, and without a resume no LR changed by more
    than rounding; 1 otherwise, or if a counterexample that was replayed is still broken; 2 the
    files can't be compared.
    """
    from harness.report.diff import compare, text
    from harness.report.result_file import read_results

    comparison = compare(read_results(old), read_results(new))
    print_out(text(comparison))
    worse = comparison.worse
    if replays:
        worse = _replayed(comparison, project_of(context)) or worse
    return Exit.BROKEN if worse else Exit.OK


def _replayed(comparison: Comparison, project: Project) -> bool:
    """Print what the old counterexamples do now; returns whether one is still broken."""
    import torch

    from harness.checks.registry import as_check
    from harness.core.ledger import version_of
    from harness.core.verdict import Verdict
    from harness.engine.session import replay
    from harness.subjects.lookup import subject_called

    here, there = torch.__version__, comparison.new.torch
    if version_of(here) != version_of(there):
        raise click.UsageError(
            f"--replay needs torch {there}, which NEW was checked with (this is torch {here})"
        )
    print_out(f"\nREPLAYED on torch {here}")
    worse = False
    for pair in comparison.pairs:
        found = pair.old.counterexample
        if pair.old.verdict != Verdict.BROKEN or found is None:
            continue
        if pair.new.verdict == Verdict.BROKEN:
            continue
        subject, check = pair.old.references
        answer = "cannot tell: it has no name on the command line"
        if subject and check:
            try:
                chosen = subject_called(subject, project.settings_of)
                result = replay(chosen, as_check(check), found.trace)
            except HarnessError as error:
                answer = f"cannot tell: {error}"
            else:
                worse |= result.verdict == Verdict.BROKEN
                answer = {
                    Verdict.BROKEN: "still broken", Verdict.HOLDS: "holds",
                    Verdict.DECLINED: f"declined: {result.reason}",
                }.get(result.verdict, f"cannot tell: {result.reason}")  # fmt: skip
        print_out(f"  {pair.subject}: {pair.check}: {found.trace}: {answer}")
    return worse


@cli.command()
@RESULTS
@output_option("--markdown", "markdown_file", help_="Write the table as Markdown, for a README.")
@output_option(
    "--html", "html_file", help_="Write an HTML page with the counterexample behind each cell."
)
def matrix(results: tuple[Path, ...], markdown_file: Path | None, html_file: Path | None) -> int:
    """Show what is broken on which torch version, as one table.

    Each RESULT is a file that `check --json` wrote, one for each version. Without
    options, the table is printed as Markdown.
    """
    from harness.report.html import matrix_page
    from harness.report.matrix import markdown, matrix_of
    from harness.report.result_file import read_versions

    merged = matrix_of(read_versions(results))
    outputs = Outputs()
    lines = [] if markdown_file or html_file else [markdown(merged).rstrip("\n")]
    for path, page in ((markdown_file, markdown), (html_file, matrix_page)):
        if path is not None:
            with outputs.one():
                write_text(path, page(merged))
                lines.append(f"wrote {path}")
    with outputs.printed():
        for line in lines:
            print_out(line)
    if merged.uneven:
        print_error(f"note: {merged.uneven}")
    return outputs.status(Exit.OK)
