"""Runs parts of a trace in another process, with this Python or one with another torch.

Each interpreter has one long-lived worker, an execnet gateway. It starts when it is first needed
and ends with this process.

`resume_in_another_process` and `resume_from_another_process` reveal what a scheduler keeps in a
module, a class or a closure instead of in its state. ``--resume-python PATH`` names another
Python with another torch; it needs nothing else. Checkpoints are saved with one and resumed with
the other, both ways. If the schedule differs between the two without any resume, nothing is
compared, and the report says so. Between torch 2.13.0 and 2.4.1 or 2.15.0 everything held; from
and to 1.13.1 CyclicLR can't be saved.
"""

from __future__ import annotations

import os
import pickle
import shlex
import subprocess
import sys
import threading
import time
from typing import Any

from harness.core.check import Check
from harness.core.errors import CheckError, TimeLimit, UndecidedError
from harness.core.training_loop import describe
from harness.engine import other_process_main as elsewhere
from harness.subjects.pasted_subject import bindings, step_call
from harness.subjects.source_code import Imports, Source
from harness.subjects.subject import Bound

STARTS_IN = 120.0
"""Seconds for another Python to start, and to import torch."""
_LONGEST = 86400.0


class Worker:
    """A process of another interpreter; `torch` and `python` are its versions.

    Raises `CheckError` if the interpreter is not a Python, or has no torch.
    """

    def __init__(self, interpreter: str) -> None:
        self.interpreter = interpreter
        self.same = not interpreter or interpreter == sys.executable
        """Whether it is this Python, with the same modules."""
        path = interpreter or sys.executable
        if not self.same:
            _probe(path)
        import execnet

        self._number = 0
        self._lock = threading.Lock()
        self._group = execnet.Group()  # ends its processes with this one
        text = _serve_text()
        try:
            gateway = self._group.makegateway(f"popen//python={shlex.quote(path)}")
            self._channel = gateway.remote_exec(text)
            self._channel.send([str(folder) for folder in sys.path] if self.same else None)
            self.torch, self.python = self._channel.receive(STARTS_IN)
        except Exception as error:
            self.close()
            why = describe(error)
            if isinstance(error, self._channel_error()):  # it holds a whole traceback
                why = str(error).strip().splitlines()[-1]
            raise CheckError(
                f"{path!r} cannot be resumed with ({why}): give --resume-python a Python that "
                "has torch"
            ) from None

    @staticmethod
    def _channel_error() -> type[Exception]:
        import execnet

        error: type[Exception] = execnet.RemoteError
        return error

    def ask(self, text: str, request: dict[str, Any], deadline: float) -> dict[str, Any]:
        """The reply of `run_segment` to a request in the other process, with the module `text`.

        Raises `TimeLimit` at the deadline, a reading of ``time.monotonic()``, and
        `UndecidedError` if the module can't be made there or the process dies.
        """
        data = pickle.dumps(request, 2)
        with self._lock:
            self._number += 1
            seconds = max(0.0, min(deadline - time.monotonic(), _LONGEST))
            try:
                self._channel.send((self._number, text, data, seconds))
                number = 0
                while number != self._number:  # the reply to an abandoned request may come first
                    number, answer = self._channel.receive(seconds + 10.0)
            except self._channel.TimeoutError:
                _workers.pop((os.getpid(), self.interpreter), None)
                self.close()
                raise TimeLimit from None
            except (EOFError, OSError, self._channel_error()) as error:
                _workers.pop((os.getpid(), self.interpreter), None)
                self.close()
                raise UndecidedError(f"the other process ended: {describe(error)}") from None
        reply: dict[str, Any] = pickle.loads(answer)
        if "late" in reply:
            raise TimeLimit
        if "failed" in reply:
            raise UndecidedError(f"it cannot be run in another process: {reply['failed']}")
        return reply

    def close(self) -> None:
        """End the process."""
        self._group.terminate(timeout=1.0)


_workers: dict[tuple[int, str], Worker] = {}


def worker_of(interpreter: str = "") -> Worker:
    """The worker of an interpreter, by default of this Python; the same one at every call.

    Raises `CheckError` if the interpreter is not a Python, or has no torch.
    """
    key = (os.getpid(), interpreter)  # a fork must start its own
    if key not in _workers:
        _workers[key] = Worker(interpreter)
    return _workers[key]


def _probe(path: str) -> None:
    """Raise `CheckError` if `path` is not a Python 3.8 or later."""
    what = "give --resume-python the path of a Python"
    try:
        done = subprocess.run(
            [path, "-c", "import sys; print(6 * 7, sys.version_info >= (3, 8))"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=STARTS_IN,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise CheckError(f"{path!r} does not respond like a Python: {what}") from None
    except OSError as error:
        raise CheckError(f"{path!r} cannot be started ({error.strerror}): {what}") from None
    if done.stdout.split() == ["42", "False"]:
        raise CheckError(f"{path!r} is older than Python 3.8: {what} 3.8 or later")
    if done.stdout.split() != ["42", "True"]:
        raise CheckError(f"{path!r} is not a Python: {what}")


def _text(source: Source, *lines: str) -> str:
    return (
        "\n\n\n".join(
            ["\n".join(source.import_lines()), *source.definitions.values(), "\n".join(lines)]
        )
        + "\n"
    )


def _serve_text() -> str:
    source = Source("the worker", Imports.ALL)
    serve = source.name(elsewhere.serve)
    return _text(source, f"{serve}(channel)")


def segment_text(bound: Bound, check: Check, *, same: bool) -> str:
    """The source of the module that runs a subject and a check in another process.

    Its ``there(request)`` calls `harness.engine.other_process_main.run_segment`. If it is the
    `same` Python, modules are imported, so that their state is fresh. Else the functions of a
    standalone subject are pasted. Raises `ScriptError` if the source of a function can't be found.
    """
    subject = bound.subject
    imports = Imports.TORCH if subject.standalone and not same else Imports.ALL
    source = Source(subject.name, imports, words=bound.words)
    source = source.again("\n".join(segment_lines(source, bound, check)[1]))
    there, lines = segment_lines(source, bound, check)
    homes = {name: home for name, home in source.homes.items() if not _own(home)}
    return _text(source, f"HOMES = {homes}", f"ENTRY = {there!r}", "", "", *lines)


def _own(module: str) -> bool:
    return module.partition(".")[0] == "harness"


def segment_lines(source: Source, bound: Bound, check: Check) -> tuple[str, list[str]]:
    """The name of the function that runs a request, and its lines; `source` gets what it needs."""
    names = bindings(source, bound)
    run = source.name(elsewhere.run_segment)
    save = source.name(check.save)
    route = source.paste(check.function)
    given = {"new_optimizer": "new_optimizer", "build": names.build, "checkpoint": "checkpoint"}
    arguments = ", ".join(given[name] for name in check.parameters)
    step_it, resume, there = map(source.own, ("step_it", "resume", "there"))
    return there, [
        f"def {step_it}(scheduler, epoch):",
        f"    {step_call(names, 'epoch')}",
        "",
        "",
        f"def {resume}(new_optimizer, checkpoint):",
        f"    return {route}({arguments})",
        "",
        "",
        f"def {there}(request):",
        f"    return {run}(",
        f"        request, {names.new_optimizer}, {names.build}, {step_it}, {resume}, {save}",
        "    )",
    ]
