"""Ctrl-C and SIGTERM: both end a run in the same way, and no signal is lost."""

from __future__ import annotations

import _thread
import contextlib
import signal
import sys
import threading
from collections.abc import Iterator

from harness.core.errors import TimeLimit

AGAIN = 2.0
"""Seconds after which an interrupt that nobody handled is raised again."""
SOON = 0.01
"""The same, if Python reports that it ignored the exception."""
_timers: list[threading.Timer] = []


def heard() -> None:
    """Stop raising the interrupt again: the caller handles it now."""
    while _timers:
        _timers.pop().cancel()


def _torch_is_imported() -> bool:
    """Whether the checks, and with them torch, are imported to the end."""
    return hasattr(sys.modules.get("harness.checks.registry"), "CHECKS")


def _raise_again(number: int, seconds: float) -> None:
    heard()
    timer = threading.Timer(seconds, _thread.interrupt_main, [number])
    timer.daemon = True
    _timers.append(timer)
    timer.start()


@contextlib.contextmanager
def interruptible() -> Iterator[list[int]]:
    """Make SIGTERM and Ctrl-C raise KeyboardInterrupt again and again until one is `heard`.

    Once is not enough, because some code swallows the exception: Python ignores it in the
    callback that Hypothesis runs at a garbage collection, and a scheduler may catch it. While
    torch is being imported, a signal ends the program at once: the import swallows the exception
    or aborts, and nothing is being written yet. After SIGTERM, the yielded list holds the exit
    status.
    """
    status: list[int] = []

    def interrupt(number: int, frame: object) -> None:
        if not _torch_is_imported():
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        if number == signal.SIGTERM:
            status[:] = [128 + number]
        _raise_again(number, AGAIN)
        raise KeyboardInterrupt

    def ignored(unraisable: sys.UnraisableHookArgs) -> None:
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            _raise_again(signal.SIGTERM if status else signal.SIGINT, SOON)
        elif not issubclass(unraisable.exc_type, TimeLimit):  # it comes again by itself
            hook(unraisable)

    handled = [signal.SIGTERM]
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # it may be ignored
        handled.append(signal.SIGINT)
    before = {number: signal.signal(number, interrupt) for number in handled}
    hook, sys.unraisablehook = sys.unraisablehook, ignored
    try:
        yield status
    finally:
        heard()
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)
