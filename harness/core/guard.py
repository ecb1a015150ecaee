"""Undoes what a subject does to its process.

A subject may print, warn, seed, fork, call ``sys.exit``, or change the default dtype, the device,
the folder or the environment. After each pair everything is restored, and standard output holds
only the report. It can't undo what ends the process: ``os._exit``, a crash, a lack of memory.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch

from harness.core.errors import TimeLimit
from harness.core.output import one_line

Value = TypeVar("Value")
_reported: set[str] = set()
"""The subjects already reported as printing."""


class Guard:
    """Runs the subject called `name`, any number of times, and restores the process afterwards.

    Inside it, warnings and output are not shown. If the subject prints, one message on standard
    error says so, with its first line. Afterwards the random number generators of `random`, numpy
    and torch, the default dtype and device, gradient mode, threads, current folder and
    environment are restored. A child that is forked inside ends where it returns to the harness; it
    is not waited for.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    @contextlib.contextmanager
    def on(self) -> Iterator[None]:
        """Guard the ``with`` block, as `Guard` describes."""
        settings = _keep_settings()
        output = _FirstOutput()
        _watch.guards += 1
        try:
            with output, contextlib.redirect_stdout(output), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                warnings.showwarning = lambda *_, **__: None  # the subject may undo the filter
                yield
        finally:
            end_if_forked()
            _watch.guards -= 1
            for restore in settings:
                restore()
            if output.first.strip() and self.name not in _reported:
                _reported.add(self.name)
                line = one_line(output.first.strip().splitlines()[0])
                print(f"{self.name}: its output is not shown; it begins: {line}", file=sys.stderr)


class _FirstOutput(io.TextIOWrapper):
    """A standard output that keeps only the beginning of its text."""

    def __init__(self) -> None:
        super().__init__(open(os.devnull, "wb"), encoding="utf-8")  # noqa: SIM115 (it is closed)
        self.first = ""

    def flush(self) -> None:
        """Do nothing: a logger that was made inside may write here later, when this is closed."""

    def write(self, text: str) -> int:
        if len(self.first) < 200:
            self.first += text[:200]
        return len(text)


def _keep(get: Callable[[], Value], set_: Callable[[Value], object]) -> Callable[[], None]:
    """A function that restores the present value of a setting."""
    value = get()

    def restore() -> None:
        if isinstance(value, (torch.Tensor, tuple)) or get() != value:
            set_(value)

    return restore


def _keep_settings() -> list[Callable[[], None]]:
    """A function for each setting that restores it; includes numpy only if it is imported."""
    kept = [
        _keep(torch.get_default_dtype, torch.set_default_dtype),
        _keep(torch.is_grad_enabled, torch.set_grad_enabled),
        _keep(torch.get_num_threads, torch.set_num_threads),
        _keep(torch.get_rng_state, torch.set_rng_state),
        _keep(random.getstate, random.setstate),
        _keep(_folder, _set_folder),
        _keep(functools.partial(dict, os.environ), _set_environment),
    ]
    if hasattr(torch, "set_default_device"):  # torch 2.0
        kept.insert(0, _keep(_device, _set_device))  # restored first: the others make tensors
    if "numpy" in sys.modules:
        numpy = sys.modules["numpy"]
        kept.append(_keep(numpy.random.get_state, numpy.random.set_state))
    return kept


def _device() -> torch.device | None:
    try:
        return torch.empty(0).device
    except Exception:  # a device that does not exist
        return None


def _set_device(device: torch.device | None) -> None:
    torch.set_default_device(None if device == torch.device("cpu") else device)


def _folder() -> str:
    try:
        return os.getcwd()
    except OSError:  # the folder was deleted
        return ""


def _set_folder(folder: str) -> None:
    with contextlib.suppress(OSError):
        os.chdir(folder)


def _set_environment(environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)


@dataclass
class _Watch:
    """How many guards are on, and whether this process was forked inside one."""

    guards: int = 0
    forked: bool = False


_watch = _Watch()


def _after_fork() -> None:
    _watch.forked = _watch.guards > 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def end_if_forked() -> None:
    """End this process if a subject forked it, or it would do all remaining work a second time."""
    if _watch.forked:
        os._exit(0)


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `TimeLimit` after `seconds`, by a signal, in the main thread of a POSIX system.

    Elsewhere this does nothing, and a run looks at the clock between its operations.
    """
    free = (
        hasattr(signal, "setitimer")
        and threading.current_thread() is threading.main_thread()
        and signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    )
    if not free:
        yield
        return

    def ring(number: int, frame: object) -> None:
        raise TimeLimit

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)  # again, if the first was swallowed
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
