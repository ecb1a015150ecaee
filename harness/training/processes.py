"""Runs the command of a training script: in a new process, or in a fork of one that is ready."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from harness.core.errors import HarnessError
from harness.training.injected import watcher

__all__ = ["CommandError", "Ended", "ForkServer", "can_fork", "make_run", "run_new", "split"]

INJECTED = Path(watcher.__file__).parent
RUN = "LR_RESUME_HARNESS_RUN"
PYTHON = re.compile(r"python[\d.]*(\.exe)?")
FLAGS = re.compile(r"-[uBOdqsvb]+")
"""Options of Python that a fork of a Python with the same options has too."""


class CommandError(HarnessError):
    """The command of a training script that can't be run, or that fails by itself."""


@dataclass(frozen=True)
class Ended:
    """How a run ended: its exit status, negative for a signal; None if its time was over.

    `seconds` is the time it took, `output` what it printed.
    """

    status: int | None
    seconds: float
    output: str


def split(command: str | Sequence[str]) -> list[str]:
    """The words of a command; raises `CommandError` if there is no such program."""
    try:
        words = shlex.split(command) if isinstance(command, str) else list(command)
    except ValueError as error:
        raise CommandError(f"cannot read the command {command!r}: {error}") from None
    if not words:
        raise CommandError("the command is empty; write it after --, as in: -- python train.py")
    if shutil.which(words[0]) is None:
        raise CommandError(f"there is no command {words[0]!r} here; check its name and your PATH")
    return words


def run_new(
    command: Sequence[str], run: Path, time_limit: float | None, *, to_the_last: bool = False
) -> Ended:
    """Run `command` in a new process, recorded in the folder `run`.

    `to_the_last`: also wait until every other process of the run has ended, such as a script that
    still saves when the shell that started it has ended.
    """
    output = run / "output.txt"
    began = time.monotonic()
    with output.open("ab") as file:
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                start_new_session=True, env=_environment(run),
            )  # fmt: skip
        except OSError as error:
            raise CommandError(f"cannot run {command[0]!r}: {error.strerror}") from None
    (run / "group").write_text(f"{process.pid}\n", encoding="utf-8")
    status: int | None = None
    try:
        status = process.wait(time_limit)
        if to_the_last and not _all_end(process.pid, run, began, time_limit):
            status = None
    except subprocess.TimeoutExpired:
        pass
    finally:
        _kill_group(process.pid)
        process.wait()
    return Ended(status, time.monotonic() - began, _text(output))


def _environment(run: Path) -> dict[str, str]:
    """The environment of this process, with the recorder.

    Python writes at once what a script prints: its output and its errors go to one file, whose
    last lines are shown, and a process that is killed would lose what it still holds.
    """
    path = os.pathsep.join(filter(None, [str(INJECTED), os.environ.get("PYTHONPATH")]))
    return {"PYTHONUNBUFFERED": "1", **os.environ, "PYTHONPATH": path, RUN: str(run)}


def _kill_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def _all_end(group: int, run: Path, began: float, time_limit: float | None) -> bool:
    """Wait until a process group and all other processes of a run end; False if time is over."""
    while watcher.processes(f"{run}\0") or watcher.group_lives(group):
        if time_limit is not None and time.monotonic() > began + time_limit:
            return False
        time.sleep(0.02)
    return True


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


@dataclass(frozen=True)
class PythonCommand:
    """A command of Python, taken apart: the interpreter with its options, and the rest."""

    interpreter: tuple[str, ...]
    arguments: tuple[str, ...]


def can_fork(command: Sequence[str]) -> PythonCommand | None:
    """The parts of a command that a fork of Python can run; None for any other command."""
    if not hasattr(os, "fork") or not PYTHON.fullmatch(Path(command[0]).name):
        return None
    at = 1
    while at < len(command) and (FLAGS.fullmatch(command[at]) or command[at] in ("-X", "-W")):
        at += 2 if command[at] in ("-X", "-W") else 1
    rest = command[at:]
    if not rest or (rest[0] in ("-c", "-m") and len(rest) < 2):
        return None
    if rest[0] not in ("-c", "-m") and (rest[0].startswith("-") or not Path(rest[0]).is_file()):
        return None
    if rest[0] == "-m" and rest[1].startswith(("torch.distributed", "accelerate")):
        return None  # a launcher starts new processes anyway
    return PythonCommand(tuple(command[:at]), tuple(rest))


class ForkServer:
    """A Python that has imported what the recorded run had, and runs commands in forks of itself.

    `folder` is for its own output. It is started with the first run.
    """

    def __init__(self, interpreter: Sequence[str], modules: Path, folder: Path) -> None:
        self._interpreter = tuple(interpreter)
        with (folder / "output.txt").open("ab") as errors:
            self._process = subprocess.Popen(
                [*interpreter, str(INJECTED / "fork_server.py"), str(modules)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
                start_new_session=True, env=_environment(folder),
            )  # fmt: skip
        self._unread = b""
        ready = self._answer(None)
        self.usable = ready is not None and ready["threads"] == 1

    @property
    def pid(self) -> int:
        """The process id of the server."""
        return self._process.pid

    def run(
        self,
        command: PythonCommand,
        run: Path,
        time_limit: float | None,
        *,
        to_the_last: bool = False,
    ) -> Ended | None:
        """Run a command in a fork, as `run_new` does; None if that can't be done."""
        if not self.usable or command.interpreter != self._interpreter:
            return None
        output = run / "output.txt"
        request = {
            "run": str(run), "arguments": command.arguments, "output": str(output),
            "folder": os.getcwd(),
        }  # fmt: skip
        began = time.monotonic()
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            self.usable = False
            return None
        started = self._answer(None)
        if started is None:
            self.usable = False
            return None
        ended = self._answer(time_limit)
        status = ended["status"] if ended is not None else None
        if to_the_last and ended and not _all_end(started["pid"], run, began, time_limit):
            status = None
        _kill_group(started["pid"])
        if ended is None and self._answer(None) is None:
            self.usable = False
        return Ended(status, time.monotonic() - began, _text(output))

    def _answer(self, time_limit: float | None) -> dict[str, Any] | None:
        """The next answer; None if the time is over or the server has died."""
        assert self._process.stdout is not None
        end = None if time_limit is None else time.monotonic() + time_limit
        while b"\n" not in self._unread:
            left = None if end is None else max(0.0, end - time.monotonic())
            if not select.select([self._process.stdout], [], [], left)[0]:
                return None
            piece = os.read(self._process.stdout.fileno(), 1 << 16)
            if not piece:
                return None
            self._unread += piece
        line, _, self._unread = self._unread.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End it, and what still runs in it."""
        _kill_group(self._process.pid)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        self._process.wait()


def make_run(
    run: Path,
    *,
    everything: bool = False,
    store: Path | None = None,
    paths: Sequence[Path] = (),
    stop_after: int | None = None,
    modules: bool = False,
    inside_saves: bool = False,
    signal_after: tuple[int, int] | None = None,
    steps_left: Mapping[int, Mapping[str, int]] = MappingProxyType({}),
) -> None:
    """Make the folder of a run, with what its recorder must do.

    It stores snapshots of `paths` in `store`, with `inside_saves` also in the middle of saves. It
    stops after `stop_after` steps, or after fewer if `steps_left` has, for its rank, the state in
    which it starts. `signal_after` is a signal, and the number of steps after which it is sent.
    `modules`: it says what was imported.
    """
    run.mkdir(parents=True)
    if steps_left:
        (run / "steps_left.json").write_text(json.dumps(steps_left), encoding="utf-8")
    number, after = signal_after or (None, None)
    values = {
        "compare": "all" if everything else "lr",
        "store": str(store) if store else "",
        "paths": [str(path) for path in paths],
        "stop_after": stop_after,
        "modules": modules,
        "inside_saves": inside_saves,
        "signal": number,
        "signal_after": after,
    }
    (run / "settings.json").write_text(json.dumps(values), encoding="utf-8")
