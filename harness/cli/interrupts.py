"""Ctrl-C and SIGTERM: both end a run in the same way, and neither is lost."""

from __future__ import annotations

import _thread
import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

from harness.core.errors import TimeLimit

AGAIN = 2.0
"""After how many seconds an interrupt that nobody heard is raised again."""
SOON = 0.01
"""The same where Python says that it ignored the exception."""
_timers: list[threading.Timer] = []


def heard() -> None:
    """An interrupt has arrived where it is taken care of."""
    while _timers:
        _timers.pop().cancel()


def _raise_again(number: int, seconds: float) -> None:
    heard()
    timer = threading.Timer(seconds, _thread.interrupt_main, [number])
    timer.daemon = True
    _timers.append(timer)
    timer.start()


@contextlib.contextmanager
def interruptible() -> Iterator[list[int]]:
    """SIGTERM raises KeyboardInterrupt, as Ctrl-C does, again and again until it is `heard`.

    For what is raised in some places is swallowed, be it by Python, which ignores it in what
    Hypothesis does at a garbage collection, or by the code of a scheduler. While torch is
    imported, which swallows it or aborts, a signal ends the program at once: nothing is being
    written then. The list will hold the exit status after SIGTERM.
    """
    status: list[int] = []

    def interrupt(number: int, frame: Any) -> None:
        if not hasattr(sys.modules.get("harness.checks.registry"), "CHECKS"):
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        if number == signal.SIGTERM:
            status[:] = [128 + number]
        _raise_again(number, AGAIN)
        raise KeyboardInterrupt

    def ignored(unraisable: Any) -> None:
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
