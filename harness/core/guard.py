"""Keeps what a subject does to its process from whatever comes after it.

A subject may print, warn, seed, fork, call ``sys.exit``, or change the default dtype, the device,
the folder or the environment: after each pair all is as before, and standard output holds the
report alone. Left out is what no process survives: ``os._exit``, a crash, a lack of memory.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import random
import signal
import struct
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch

from harness.core.errors import TimeLimit

_PID = struct.Struct("i")
_said: set[str] = set()
"""Who was said to print."""


class Guard:
    """What a subject, called `name`, is run inside; as often as need be.

    Inside it there are no warnings, and nothing is printed: that it prints, and what first, is
    said once on standard error. Afterwards the random numbers of `random`, numpy and torch, the
    default dtype and device, gradient mode, threads, current folder and environment are as
    before. A process that is forked inside ends where it comes back to the harness.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    @contextlib.contextmanager
    def on(self) -> Iterator[None]:
        """Run what stands inside as `Guard` says."""
        before = [(get, set_, get()) for get, set_ in _settings()]
        forks = _watch_forks()
        forks.watched += 1
        try:
            with _Heard() as heard, contextlib.redirect_stdout(heard), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                warnings.showwarning = _show_nothing  # it may undo the filter
                yield
        finally:
            forks.watched -= 1
            forks.reap()
            for get, set_, value in before:
                _restore(get, set_, value)
            if heard.first.strip() and self.name not in _said:
                _said.add(self.name)
                line = heard.first.strip().splitlines()[0]
                print(f"{self.name} prints, which is not shown: {line}", file=sys.stderr)


class _Heard(io.TextIOWrapper):
    """A standard output that keeps how its text begins, and nothing else."""

    def __init__(self) -> None:
        super().__init__(open(os.devnull, "wb"), encoding="utf-8")  # noqa: SIM115 (it is closed)
        self.first = ""

    def write(self, text: str) -> int:
        if len(self.first) < 200:
            self.first += text[:200]
        return len(text)


def _show_nothing(*warning: Any, **more: Any) -> None:
    pass


_Setting = tuple[Callable[[], Any], Callable[[Any], Any]]


def _settings() -> list[_Setting]:
    """How each setting is read and set; numpy only where something has imported it."""
    settings: list[_Setting] = [
        (torch.get_default_dtype, torch.set_default_dtype),
        (torch.is_grad_enabled, torch.set_grad_enabled),
        (torch.get_num_threads, torch.set_num_threads),
        (torch.get_rng_state, torch.set_rng_state),
        (random.getstate, random.setstate),
        (_folder, _set_folder),
        (functools.partial(dict, os.environ), _set_environment),
    ]
    if hasattr(torch, "set_default_device"):  # torch 2.0
        settings.insert(0, (_device, _set_device))  # the others make tensors
    if "numpy" in sys.modules:
        numpy = sys.modules["numpy"]
        settings.append((numpy.random.get_state, numpy.random.set_state))
    return settings


def _restore(get: Callable[[], Any], set_: Callable[[Any], Any], value: Any) -> None:
    if isinstance(value, (torch.Tensor, tuple)) or get() != value:
        set_(value)


def _device() -> Any:
    try:
        return torch.empty(0).device
    except Exception:  # a device that is not there
        return None


def _set_device(device: Any) -> None:
    torch.set_default_device(None if device == torch.device("cpu") else device)


def _folder() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was deleted
        return ""


def _set_folder(folder: str) -> None:
    with contextlib.suppress(OSError):
        os.chdir(folder)


def _set_environment(environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)


class _Forks:
    """Ends processes that are forked while it is `watched`, where they come back to the harness.

    Such a child would run all that is left to do a second time.
    """

    def __init__(self) -> None:
        self.watched = 0
        self.ended = os.pipe()
        os.set_blocking(self.ended[0], False)
        os.set_blocking(self.ended[1], False)
        os.register_at_fork(after_in_child=self.in_child)

    def in_child(self) -> None:
        if self.watched:
            sys.setprofile(self.end)

    def end(self, frame: Any, event: str, argument: Any) -> None:
        """End this process where a function returns to one of the harness."""
        if event == "return" and frame.f_back is not None:
            package = str(frame.f_back.f_globals.get("__name__")).partition(".")[0]
            if package == "harness":
                with contextlib.suppress(OSError):
                    os.write(self.ended[1], _PID.pack(os.getpid()))
                os._exit(0)

    def reap(self) -> None:
        """Wait for those that have ended, which would stay as zombies."""
        with contextlib.suppress(BlockingIOError):
            while True:
                [pid] = _PID.unpack(os.read(self.ended[0], _PID.size))
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, 0)


class _NoForks:
    """For a system that has none."""

    watched = 0

    def reap(self) -> None:
        pass


@functools.cache
def _watch_forks() -> _Forks | _NoForks:
    return _Forks() if hasattr(os, "fork") else _NoForks()


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `TimeLimit` after `seconds`, where a signal can: in the main thread of a POSIX system.

    Elsewhere a run looks at the clock between its operations.
    """
    free = (
        hasattr(signal, "setitimer")
        and threading.current_thread() is threading.main_thread()
        and signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    )
    if not free:
        yield
        return

    def ring(number: int, frame: Any) -> None:
        raise TimeLimit

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)  # again, where the first was swallowed
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
