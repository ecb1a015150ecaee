"""What a command prints and writes: its outputs, and its progress.

If one output fails, the others are still written; verdicts do not change.
"""

from __future__ import annotations

import collections
import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import click

from harness.cli.options import Exit
from harness.core.errors import HarnessError
from harness.core.output import printable
from harness.core.verdict import FAILING

if TYPE_CHECKING:
    from rich.progress import Progress
    from rich.table import Table

    from harness.core.result import Result


class Outputs:
    """Remembers whether an output of this command has `failed`."""

    def __init__(self) -> None:
        self.failed = False

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """Write one output inside the block; an error is printed to standard error."""
        try:
            yield
        except HarnessError as error:
            self.failed = True
            print_error(f"error: {error}")

    @contextlib.contextmanager
    def optional(self) -> Iterator[None]:
        """Write a copy of other outputs inside the block; an error is only a warning."""
        try:
            yield
        except HarnessError as error:
            print_error(f"warning: {error}")

    @contextlib.contextmanager
    def printed(self) -> Iterator[None]:
        """Print inside the block; if standard output fails, the rest is dropped."""
        try:
            yield
            sys.stdout.flush()
        except OSError as error:
            self.failed = True
            no_more_output()
            print_error(f"error: cannot write the output: {error.strerror}")

    def status(self, status: int) -> int:
        """The exit status, given the `status` for the verdicts alone."""
        return status or (Exit.UNDECIDED if self.failed else Exit.OK)


def print_out(text: str = "") -> None:
    """Print text, with every character that can't be printed escaped."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    click.echo(printable(text).encode(encoding, "backslashreplace").decode(encoding))


def print_error(text: str) -> None:
    """Like `print_out`, but to standard error. If that fails too, the text is dropped."""
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    try:
        click.echo(printable(text).encode(encoding, "backslashreplace").decode(encoding), err=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def print_table(table: Table) -> None:
    """Print a table, 100 columns wide unless there is a terminal."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else 100
    Console(width=width, highlight=False).print(table)


def no_more_output() -> None:
    """Send what is still buffered for standard output to the null device, so it can't fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# -------------------------------------------------------------------------- progress


def terminal_bar() -> Progress:
    """A bar that shows what was done, the time left and a description; it goes at the end."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        BarColumn(bar_width=16), MofNCompleteColumn(), TimeRemainingColumn(compact=True),
        TextColumn("{task.description}", markup=False),
    )  # fmt: skip
    return Progress(*columns, console=Console(stderr=True), transient=True)


@contextlib.contextmanager
def bar(total: int) -> Iterator[Callable[[int, str, str], None]]:
    """A function that shows progress out of `total`.

    Call it with the number done, what was done last, and a line or ``""``. On a terminal, a bar
    shows the first two with the time left; elsewhere, the lines go to standard error.
    """
    if sys.stderr.isatty():
        with terminal_bar() as shown:
            task = shown.add_task("", total=total)
            yield lambda done, what, line: shown.update(task, completed=done, description=what)
        return

    def show(done: int, what: str, line: str) -> None:
        if line:
            print_error(line)

    yield show


@contextlib.contextmanager
def progress(total: int) -> Iterator[Callable[[Sequence[Result], Result, str], None]]:
    """A function that shows progress; call it with all results so far, the newest, and a line."""
    started = time.monotonic()
    with bar(total) as show:

        def shown(results: Sequence[Result], last: Result, line: str) -> None:
            counts = collections.Counter(result.verdict for result in results)
            counted = [f"{counts[verdict]} {verdict}" for verdict in FAILING if counts[verdict]]
            traces = sum(result.tally.traces for result in results)
            rate = traces / max(0.001, time.monotonic() - started)
            what = f"{last.subject} {last.check}"
            show(len(results), ", ".join([*counted, f"{rate:.0f} traces/s", what]), line)

        yield shown
