"""Runs tasks in processes of their own, so that nothing a task does loses the results of another.

Each task has one process and a one-way pipe; messages arrive while the task runs. On Linux the
process is forked from this one, which should therefore have torch loaded and no threads. A worker
leads its own process group, which is killed when the task ends, and dies with this process.

The pools of the standard library, loky and joblib lose the other tasks when a worker dies, or
leave processes behind; pebble does not notice ``os._exit(0)``.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import gc
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import RawArray
from typing import Any, Generic, TypeAlias, TypeVar

NOTE_SIZE = 2048
POLL = 0.05
"""Seconds between looks at a process that can't be waited for."""
PR_SET_PDEATHSIG = 1
METHOD = "fork" if sys.platform == "linux" else "spawn"
"""How a worker starts. A forked one has what its parent has loaded, a spawned one has not."""

Task = TypeVar("Task")
Note: TypeAlias = "ctypes.Array[ctypes.c_char]"
"""Memory that a worker shares with its parent."""


@dataclass(frozen=True)
class Died:
    """A worker ended before its task did: `how`, such as "ended with status 0", and its `note`."""

    how: str
    note: str = ""


@dataclass(frozen=True)
class _Ended:
    """The last message of a worker whose task has ended; with the text of what it raised."""

    error: str = ""


class Tell:
    """What a task uses to report: a call sends a message, and `note` leaves one for its death."""

    def __init__(self, sender: Connection, note: Note) -> None:
        self._sender = sender
        self._note = note
        self._pid = os.getpid()

    def __call__(self, message: object) -> None:
        """Send `message`, which must be picklable; a process that the task has forked ends."""
        if os.getpid() != self._pid:
            os._exit(0)
        self._sender.send_bytes(pickle.dumps(message))

    def note(self, text: str) -> None:
        """Keep `text`, shortened, where it outlives this process."""
        self._note.value = text.encode(errors="backslashreplace")[: NOTE_SIZE - 1]


@dataclass
class _Running(Generic[Task]):
    """A task with its worker."""

    task: Task
    process: BaseProcess
    receiver: Connection
    note: Note
    heard: float = field(default_factory=time.monotonic)
    ended: bool = False
    error: str = ""
    silent: bool = False


class Pool(Generic[Task]):
    """Tasks, and the messages of the workers that do them.

    `work` does a task in its process; with ``spawn`` it and the tasks are pickled. Up to `jobs`
    tasks run at a time, in the order in which they were added. A worker that sends nothing for
    `patience` seconds is killed. Iterating yields each message with its task, and a `Died` for a
    worker that ended too soon; tasks may be added meanwhile. Leaving the ``with`` block kills the
    workers that are still running.
    """

    def __init__(
        self,
        work: Callable[[Task, Tell], None],
        jobs: int,
        patience: float,
        *,
        method: str = "",
    ) -> None:
        self.work = work
        self.jobs = jobs
        self.patience = patience
        self.context: Any = multiprocessing.get_context(method or METHOD)
        self.waiting: deque[Task] = deque()
        self.running: list[_Running[Task]] = []

    def __enter__(self) -> Pool[Task]:
        gc.freeze()  # a collection in a worker would copy every page of the heap
        return self

    def __exit__(self, *error: object) -> None:
        for running in self.running:
            _kill(running)
        self.running.clear()
        gc.unfreeze()

    def add(self, task: Task, *, first: bool = False) -> None:
        """Do `task` when a worker is free, before the other tasks if `first`."""
        if first:
            self.waiting.appendleft(task)
        else:
            self.waiting.append(task)

    def __iter__(self) -> Iterator[tuple[Task, object]]:
        while self.waiting or self.running:
            while self.waiting and len(self.running) < self.jobs:
                self.running.append(self._start(self.waiting.popleft()))
            self._wait()
            for running in list(self.running):
                alive = running.process.is_alive()  # before reading: what it sent is all there
                for message in _messages(running):
                    yield running.task, message
                if alive and not running.ended:
                    running.silent = time.monotonic() - running.heard > self.patience
                    if not running.silent:
                        continue
                _kill(running)
                for message in _messages(running):
                    yield running.task, message
                self.running.remove(running)
                if running.error or not running.ended:
                    yield running.task, Died(_how(running), running.note.value.decode())

    def _start(self, task: Task) -> _Running[Task]:
        receiver, sender = self.context.Pipe(duplex=False)
        note = RawArray(ctypes.c_char, NOTE_SIZE)
        process = self.context.Process(
            target=_main, args=(self.work, task, sender, note, os.getpid(), self.patience)
        )
        process.start()
        sender.close()
        return _Running(task, process, receiver, note)

    def _wait(self) -> None:
        """Wait until there is something to look at."""
        now = time.monotonic()
        left = min(running.heard + self.patience - now for running in self.running)
        with contextlib.ExitStack() as stack:
            ends = [end for running in self.running if (end := _end(running, stack)) is not None]
            receivers = [each.receiver for each in self.running if not each.receiver.closed]
            seconds = left if len(ends) == len(self.running) else min(left, POLL)
            wait([*receivers, *ends], timeout=max(0.0, seconds))


def _end(running: _Running[Task], stack: contextlib.ExitStack) -> int | None:
    """What becomes ready when the process ends.

    This is not its sentinel: processes that it has forked hold that open.
    """
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        descriptor = os.pidfd_open(running.process.pid or 0)
    except OSError:
        return None
    stack.callback(os.close, descriptor)
    return descriptor


def _messages(running: _Running[Task]) -> Iterator[object]:
    """The messages that have arrived."""
    try:
        while not running.receiver.closed and running.receiver.poll():
            message = pickle.loads(running.receiver.recv_bytes())
            running.heard = time.monotonic()
            if isinstance(message, _Ended):
                running.ended, running.error = True, message.error
                return
            yield message
    except (EOFError, OSError):  # it died, perhaps while it was sending
        running.receiver.close()


def _kill(running: _Running[Task]) -> None:
    """End a worker and its process group."""
    pid = running.process.pid
    if pid is not None and hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
    if running.process.is_alive():
        running.process.kill()
    running.process.join()


def _how(running: _Running[Task]) -> str:
    """How a worker ended."""
    if running.error:
        return running.error
    if running.silent:
        return "did not end in time and was killed"
    code = running.process.exitcode
    if code is not None and code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with status {code}"


# -------------------------------------------------------------------------- in the worker


def _main(
    work: Callable[[Task, Tell], None],
    task: Task,
    sender: Connection,
    note: Note,
    parent: int,
    patience: float,
) -> None:
    if hasattr(os, "setsid"):
        os.setsid()  # Ctrl-C does not reach it; its children can be killed with it
    _die_with(parent)
    faulthandler.dump_traceback_later(2 * patience + 60, exit=True, file=2)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1):
        os.dup2(null, descriptor)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=sender.close)
    tell = Tell(sender, note)
    ended = _Ended()
    try:
        work(task, tell)
    except BaseException as error:  # a task may raise anything
        ended = _Ended(f"raised {_described(error)}")
    with contextlib.suppress(BaseException):  # the task may have replaced it
        sys.stderr.flush()
    tell(ended)  # the parent may kill this process from here on
    os._exit(0)  # a thread of the task may not end, and torch takes a second to


def _described(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except BaseException:
        return type(error).__name__


def _die_with(parent: int) -> None:
    """Make this process end when its parent does, however that ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        return
    process = multiprocessing.parent_process()

    def watch() -> None:
        if process is not None:
            wait([process.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
