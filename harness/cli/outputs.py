"""The outputs of a command. If one fails, the others are still written; verdicts do not change."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from harness.cli.options import Exit
from harness.core.errors import HarnessError
from harness.core.safe_text import printable

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["Outputs", "no_more_output", "print_error", "print_out", "print_table"]


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
        """Write inside what is a copy of other outputs: if it fails, that is a warning."""
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
        """The exit status, given the `status` that the verdicts alone would make."""
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
