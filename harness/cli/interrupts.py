"""Ctrl-C and SIGTERM end a run in the same way."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator


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
