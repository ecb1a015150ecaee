"""The outputs of a command: one that fails stops no other, and changes no verdict."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

import click

from harness.cli.options import FAILED
from harness.core.errors import HarnessError
from harness.core.safe_text import printable

__all__ = ["Outputs", "no_more_output", "say", "tell"]


class Outputs:
    """Whether an output of this command has `failed` so far."""

    def __init__(self) -> None:
        self.failed = False

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """Write one output inside; why it can't be written goes to standard error."""
        try:
            yield
        except HarnessError as error:
            self.failed = True
            tell(f"error: {error}")

    @contextlib.contextmanager
    def printed(self) -> Iterator[None]:
        """Print inside; where standard output fails, the rest of it is dropped."""
        try:
            yield
            sys.stdout.flush()
        except OSError as error:
            self.failed = True
            no_more_output()
            tell(f"error: cannot write the output: {error.strerror}")

    def status(self, status: int) -> int:
        """The exit status where the verdicts alone would make it `status`."""
        return status or (FAILED if self.failed else 0)


def say(text: str = "") -> None:
    """Print a line, or several, whose every character can be printed."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    click.echo(printable(text).encode(encoding, "backslashreplace").decode(encoding))


def tell(text: str) -> None:
    """Print to standard error as `say` does; where that fails, there is nobody to tell it to."""
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    try:
        click.echo(printable(text).encode(encoding, "backslashreplace").decode(encoding), err=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def no_more_output() -> None:
    """Give what is still buffered for standard output nowhere to fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
