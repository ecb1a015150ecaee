"""Shows progress: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import collections
import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from harness.cli.outputs import print_error
from harness.core.verdict import Verdict

if TYPE_CHECKING:
    from harness.core.result import Result

SHOWN = (Verdict.BROKEN, Verdict.STALE, Verdict.UNKNOWN)
"""The verdicts that the bar counts."""


@contextlib.contextmanager
def bar(total: int) -> Iterator[Callable[[int, str, str], None]]:
    """A function that shows progress out of `total`.

    Call it with the number done, what was done last, and a line or ``""``. On a terminal, a bar
    shows the first two with the time left; elsewhere, the lines go to standard error.
    """
    if sys.stderr.isatty():
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
        with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
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
            counted = [f"{counts[verdict]} {verdict}" for verdict in SHOWN if counts[verdict]]
            traces = sum(result.tally.traces for result in results)
            rate = traces / max(0.001, time.monotonic() - started)
            what = f"{last.subject} {last.check}"
            show(len(results), ", ".join([*counted, f"{rate:.0f} traces/s", what]), line)

        yield shown
