"""The command ``train``."""

from __future__ import annotations

import contextlib
import json
import math
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.check import SECONDS, require_picture_folder
from harness.cli.options import CI, Exit, output_option
from harness.cli.outputs import Outputs, print_error, print_out, terminal_bar
from harness.core.errors import HarnessError
from harness.core.output import require_folder

if TYPE_CHECKING:
    from harness.training.result import Finding, TrainingResult


def _steps(context: click.Context, parameter: click.Parameter, text: str) -> tuple[int, ...]:
    """The numbers of steps in a list with commas."""
    parts = text.split(",") if text else []
    if not all(part.strip().isdecimal() and int(part) for part in parts):
        raise click.BadParameter(f"{text!r} must be numbers of steps, such as 3,10")
    return tuple(sorted({int(part) for part in parts}))


@click.command()
@click.argument("command", metavar="-- COMMAND...", nargs=-1, required=True)
@click.option("--checkpoints", metavar="PATH", multiple=True, type=click.Path(path_type=Path),
              help="A file or folder that COMMAND saves its checkpoints to; repeatable. What is "
              "there now is put aside, and put back at the end.")  # fmt: skip
@click.option("--resume-with", metavar="COMMAND", default="",
              help="The command that resumes.  [default: the same COMMAND]")  # fmt: skip
@click.option("--compare", type=click.Choice(["lr", "all"]), default="lr", show_default=True,
              help="lr: compare the LR, momentum, betas and weight decay of every step, and "
              "whether the optimizer's state is there. all: also weights and "
              "gradients.")  # fmt: skip
@click.option("--stop-after", metavar="M", type=click.IntRange(min=1),
              help="Stop every run after M optimizer steps.")  # fmt: skip
@click.option("--inside-saves", is_flag=True,
              help="Also kill in the middle of each save: after every write, and after a file is "
              "opened, renamed or removed.")  # fmt: skip
@click.option("--signal", "signal_name", metavar="NAME", default="",
              help="Also send this signal, such as TERM, to a script that saves when it is told "
              "to stop; needs --at.")  # fmt: skip
@click.option("--at", metavar="STEPS", default="", callback=_steps,
              help="The numbers of optimizer steps after which to send the signal, such as "
              "3,10.")  # fmt: skip
@click.option("--chain", metavar="J", type=click.IntRange(min=1),
              help="Also kill every attempt after J steps of its own, until one ends by "
              "itself.")  # fmt: skip
@click.option("--time-limit", metavar="SECONDS", type=SECONDS,
              help="Time limit of one resumed run.  [default: 60 more than ten times what the "
              "recorded run took]")  # fmt: skip
@click.option("--new-processes", is_flag=True,
              help="Start a new process for every resume, and never fork.")  # fmt: skip
@click.option("--allow-outside", is_flag=True,
              help="Allow checkpoints outside the current folder.")  # fmt: skip
@output_option("--json", "json_file", help_="Write the result, with all values, as JSON.")
@output_option("--scripts", metavar="DIR", require=require_folder,
               help_="Write a shell script for every failure: it kills, resumes and compares, "
               "and needs torch alone.")  # fmt: skip
@output_option("--plots", metavar="DIR", require=require_picture_folder,
               help_="Draw both schedules for every failure; needs matplotlib.")  # fmt: skip
@output_option("--html", "html_file",
               help_="Write the report as one HTML page, with pictures and scripts.")  # fmt: skip
@CI
def train(
    command: tuple[str, ...],
    checkpoints: tuple[Path, ...],
    resume_with: str,
    compare: str,
    stop_after: int | None,
    inside_saves: bool,
    signal_name: str,
    at: tuple[int, ...],
    chain: int | None,
    time_limit: float | None,
    new_processes: bool,
    allow_outside: bool,
    json_file: Path | None,
    scripts: Path | None,
    plots: Path | None,
    html_file: Path | None,
    ci: str,
) -> int:
    """Check a training script: does its schedule go on exactly, wherever it is killed?

    COMMAND is run twice without interruption, and must do the same both times. It is
    then resumed from every state in which its checkpoints were after an optimizer step.
    --inside-saves, --signal and --chain stop it in more ways. Nothing in the script needs
    to change.

    Exit status: 0 the schedule always goes on, 1 it does not or a resume fails, 2 it is
    unknown or an argument is wrong, 130 after Ctrl-C, 143 after SIGTERM.
    """
    from harness.core.output import make_folder, write_text
    from harness.report.github import annotate_training, write_training_summary
    from harness.training.check import Request, check_command
    from harness.training.result import findings, to_json
    from harness.training.text import result_text

    if time_limit is not None and math.isnan(time_limit):
        raise click.BadParameter("must be a number of seconds", param_hint="--time-limit")
    request = Request(
        command, checkpoints, resume_with, compare == "all", stop_after, allow_outside, time_limit,
        new_processes, inside_saves, signal_name, at, chain,
    )  # fmt: skip
    with _signals_interrupt() as received:
        try:
            with _progress() as show:
                result = check_command(request, show)
        except KeyboardInterrupt:
            print_error("interrupted: no run was recorded, so there is no result")
            return 128 + received[0] if received else Exit.INTERRUPTED
    outputs = Outputs()
    for folder in filter(None, (scripts, plots)):
        with outputs.one():
            make_folder(folder)
    if json_file is not None:
        with outputs.one():
            write_text(json_file, json.dumps(to_json(result), indent=1) + "\n")
    files: dict[int, list[str]] = {}
    if scripts or plots or html_file:
        made = [_script(result, finding) for finding in findings(result.outcomes)]
        files = _write_files(result, made, outputs, scripts=scripts, plots=plots)
        if html_file is not None:
            from harness.report.html import training_page

            with outputs.one():
                write_text(html_file, training_page(result, made))
    with outputs.optional():
        write_training_summary(ci, result)
    with outputs.printed():
        print_out(result_text(result, files))
        annotate_training(ci, result)
    if received:
        return 128 + received[0]
    return outputs.status(status_of(result))


def status_of(result: TrainingResult) -> Exit:
    """The exit status for a result."""
    from harness.training.result import Verdict

    if result.verdict in (Verdict.BROKEN, Verdict.CANNOT_RESUME):
        return Exit.BROKEN
    return Exit.OK if result.verdict == Verdict.HOLDS and result.complete else Exit.UNDECIDED


def _script(result: TrainingResult, finding: Finding) -> str | HarnessError:
    """A script that shows a finding; the error if there is none."""
    from harness.report.training_script import training_script

    try:
        return training_script(result, finding)
    except HarnessError as error:
        return error


def _write_files(
    result: TrainingResult,
    made: Sequence[str | HarnessError],
    outputs: Outputs,
    *,
    scripts: Path | None,
    plots: Path | None,
) -> dict[int, list[str]]:
    """Write the scripts that were `made`, and pictures, to these folders.

    Returns lines about the files of each finding, by its index.
    """
    from harness.cli.show import picture_file, script_file
    from harness.core.output import file_name
    from harness.report.training_picture import training_picture
    from harness.training.result import findings
    from harness.training.text import script_name

    lines: dict[int, list[str]] = {}
    for index, finding in enumerate(findings(result.outcomes)):
        stem = f"{file_name(Path(script_name(result.command)).name)}-{index + 1}"
        about = lines[index] = []
        if scripts is not None:
            about.append(script_file(scripts / f"{stem}.sh", made[index], outputs))
        if plots is not None:
            content = training_picture(result, finding.first)
            about.append(picture_file(plots / f"{stem}.svg", content, outputs))
    return lines


@contextlib.contextmanager
def _signals_interrupt() -> Iterator[list[int]]:
    """Make Ctrl-C and SIGTERM raise KeyboardInterrupt here; the yielded list holds the signal."""
    received: list[int] = []

    def interrupt(number: int, frame: object) -> None:
        received.append(number)
        raise KeyboardInterrupt

    before = {
        number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[int, int, str], None]]:
    """A function that shows progress: a bar on a terminal, else a line for each stage."""
    if not sys.stderr.isatty():
        yield lambda done, total, what: print_error(what) if not done else None
        return
    with terminal_bar() as shown:
        task = shown.add_task("", total=None)
        yield lambda done, total, what: shown.update(
            task, completed=done, total=total or None, description=what
        )
