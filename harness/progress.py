"""What is shown while one waits: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

import click

__all__ = ["progress"]


@contextlib.contextmanager
def progress(total: int) -> Iterator[Callable[[str, str], None]]:
    """What to call after each of `total` steps: with what was done, and a line to print or ``""``.

    On a terminal a bar shows the first, elsewhere the lines go to standard error.
    """
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("", total=total)
            yield lambda what, line: bar.update(task, advance=1, description=what)
        return

    def show(what: str, line: str) -> None:
        if line:
            click.echo(line, err=True)

    yield show
