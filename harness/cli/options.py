"""What the commands share: exit statuses and options."""

from __future__ import annotations

import enum
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from harness.core.output import require_writable
from harness.core.project import Project
from harness.core.suggest import closest
from lr_resume_harness.help import HELP

Command = TypeVar("Command", bound=Callable[..., object])


class Exit(enum.IntEnum):
    """The exit statuses. UNDECIDED: something is unknown, or an argument is wrong."""

    OK = 0
    BROKEN = 1
    UNDECIDED = 2
    INTERRUPTED = 130


def help_hint(context: click.Context | None) -> str:
    """Where the arguments of a command are described."""
    path = context.command_path if context is not None else "lr-resume-harness"
    return f"{path} --help shows what it takes"


class Commands(click.Group):
    """A group of commands that suggests a name for one that is not there."""

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the arguments begin with."""
        name = args[0]
        if self.get_command(context, name) is None and not name.startswith("-"):
            close = closest(name, self.list_commands(context))
            looks = ":" in name or "." in name or "/" in name or name[:1].isupper()
            hint = f"did you mean {close}?" if close else help_hint(context)
            if looks and not close and context.parent is None:
                hint = f"to check a subject, write {context.command_path} check {name}"
            raise click.UsageError(f"there is no command {name!r}: {hint}", context)
        return super().resolve_command(context, args)


def path_option(*names: str, help_: str) -> Callable[[Command], Command]:
    """An option that takes a path and is repeatable."""
    return click.option(
        *names, metavar="FILE", type=click.Path(path_type=Path), multiple=True, help=help_
    )


def output_option(
    *names: str,
    help_: str,
    metavar: str = "FILE",
    require: Callable[[Path], None] = require_writable,
) -> Callable[[Command], Command]:
    """An option that takes a path to write to.

    `require` raises `HarnessError` before anything is run if nothing can be written there.
    """

    def require_now(
        context: click.Context, parameter: click.Parameter, path: Path | None
    ) -> Path | None:
        if path is not None:
            require(path)
        return path

    return click.option(
        *names, metavar=metavar, type=click.Path(path_type=Path), callback=require_now, help=help_
    )


RESULTS = click.argument(
    "results", metavar="RESULT...", type=click.Path(path_type=Path), nargs=-1, required=True
)
LEDGER = path_option("--ledger", "ledgers", help_=HELP["ledger"])
CI = click.option(
    "--ci",
    type=click.Choice(["auto", "github", "none"]),
    default="auto",
    show_default=True,
    help="github: print annotations, and add a summary to the file in GITHUB_STEP_SUMMARY. "
    "auto: do so if GITHUB_ACTIONS is true.",
)
OUTPUT_FORMAT = click.option(
    "--output-format",
    type=click.Choice(["text", "json", "junit", "github", "gitlab", "sarif"]),
    default="text",
    show_default=True,
    help="What to print on standard output.",
)
RESUME_PYTHON = click.option(
    "--resume-python",
    metavar="PATH",
    default="",
    help="Another Python, for example with another torch: save with one, resume with the other.",
)
JOBS = click.option(
    "--jobs",
    metavar="N",
    type=click.IntRange(min=0),
    help="How many worker processes run at the same time; each subject has its own. 0 checks "
    "everything in this process, for a debugger.  [default: one for each core]",
)


def project_of(context: click.Context) -> Project:
    """The configuration of the project in the current folder."""
    found: Project = context.find_root().ensure_object(Project)
    return found


def _reasons(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> dict[str, str]:
    reasons = {}
    for value in values:
        name, equals, reason = value.partition("=")
        if not (name and equals and reason.strip()):
            raise click.BadParameter(
                f"must look like 'resume_by_pickle=it holds a lambda' (got {value!r})"
            )
        reasons[name] = reason
    return reasons


def subject_options(command: Command) -> Command:
    """The options for every SUBJECT of a command; see `subject_settings`."""
    for option in reversed((
        click.option("--length", metavar="N", type=click.IntRange(1, 1000),
                     help="Epochs of the short run; each of them is a save point.  [default: "
                     "12]"),
        click.option("--optimizer", metavar="TERM",
                     help="The optimizer, as in a trace: 'AdamW(groups=2)'."),
        click.option("--step", metavar="STEP",
                     help="How to step: metric, 'metrics([4.0,nan])' as in a trace, or "
                     "MODULE.FUNCTION of (scheduler, epoch)."),
        click.option("--decline", "declines", metavar="CHECK=REASON", multiple=True,
                     callback=_reasons, help="A check that is not promised; repeatable."),
    )):  # fmt: skip
        command = option(command)
    return command


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def require_python(resume_python: str) -> None:
    """Start the other Python, so that an error in it is reported early."""
    if resume_python:
        from harness.engine.other_process import worker_of

        worker_of(resume_python)
