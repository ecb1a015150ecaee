"""What the commands share: exit statuses, options, and what is made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

OK, BROKEN_FOUND, FAILED, INTERRUPTED = 0, 1, 2, 130
"""Exit statuses: nothing is broken, something is, something is unknown or wrong, Ctrl-C."""
LEDGER = click.option(
    "--ledger",
    "ledgers",
    metavar="FILE",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Known failures of your own, beside ours of PyTorch; repeatable.",
)
CI = click.option(
    "--ci",
    type=click.Choice(["auto", "github", "none"]),
    default="auto",
    show_default=True,
    help="github: annotations, and a summary to the file that GITHUB_STEP_SUMMARY names; "
    "auto: where GITHUB_ACTIONS is true.",
)
RESUME_PYTHON = click.option(
    "--resume-python",
    metavar="PATH",
    default="",
    help="Another Python, with another torch: save with one and resume with the other.",
)


def check_python(resume_python: str) -> None:
    """Start another Python, and say at once what is wrong with it."""
    if resume_python:
        from harness.engine.other_process import worker_of

        worker_of(resume_python)


def options_of(kwargs: str) -> dict[str, Any]:
    """The options of a subject, as ``step_size=3 gamma=0.5``."""
    from harness.core.trace import parse_options

    return parse_options(kwargs)
