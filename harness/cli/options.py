"""What the commands share: exit statuses and options."""

from __future__ import annotations

import enum
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from harness.core.output import require_writable
from lr_resume_harness.help import HELP

Command = TypeVar("Command", bound=Callable[..., object])


class Exit(enum.IntEnum):
    """The exit statuses. UNDECIDED: something is unknown, or an argument is wrong."""

    OK = 0
    BROKEN = 1
    UNDECIDED = 2
    INTERRUPTED = 130


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
