"""Runs parts of a trace in another process, with this Python or one with another torch.

Each interpreter has one long-lived worker, an execnet gateway. It starts when it is first needed
and ends with this process.

`resume_in_another_process` and `resume_from_another_process` reveal what a scheduler keeps in a
module, a class or a closure instead of in its state. ``--resume-python PATH`` names another
Python with another torch. Nothing else must be installed there. Checkpoints are saved with one and
resumed with the other, both ways. If the schedule differs between the two without any resume,
nothing is compared, and the report says so. Between torch 2.13.0 and 2.4.1 or 2.15.0 everything
held; from and to 1.13.1 CyclicLR can't be saved.
"""

from __future__ import annotations

import math
import os
import pickle
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import NoReturn, cast

import torch

from harness.core.check import Check
from harness.core.errors import CheckError, ScriptError, TimeLimit, UndecidedError
from harness.core.operations import (
    GO_BACK,
    LETTER,
    STEPS,
    Operation,
    branches,
    epochs,
    gradients,
    groups_added,
)
from harness.core.run import Difference, Observation, same
from harness.core.training_loop import describe, differences
from harness.engine import other_process_main
from harness.engine.one_run import Outcome, Runner, Slot, Stop, TraceRun
from harness.engine.other_process_main import Reply, Request, pack, unpack
from harness.subjects.source_code import Imports, Source, names_of_subject, package_of
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

    def ask(self, text: str, request: Request, deadline: float) -> Reply:
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
        reply = pickle.loads(answer)
        if "late" in reply:
            raise TimeLimit
        if "failed" in reply:
            raise UndecidedError(f"it cannot be run in another process: {reply['failed']}")
        return cast("Reply", reply)

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
    serve = source.name(other_process_main.serve)
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
    source = source.second_version("\n".join(segment_lines(source, bound, check)[1]))
    there, lines = segment_lines(source, bound, check)
    homes = {name: home for name, home in source.homes.items() if package_of(home) != "harness"}
    return _text(source, f"HOMES = {homes}", f"ENTRY = {there!r}", "", "", *lines)


def segment_lines(source: Source, bound: Bound, check: Check) -> tuple[str, list[str]]:
    """The name of the function that runs a request, and its lines; `source` gets what it needs."""
    names = names_of_subject(source, bound)
    run = source.name(other_process_main.run_segment)
    save = source.name(check.save)
    route = source.paste(check.function)
    checkpoint = f"{source.name(check.load)}(checkpoint)" if check.load else "checkpoint"
    step_it, resume, there = map(source.own, ("step_it", "resume", "there"))
    given = {
        "new_optimizer": "new_optimizer", "build": names.build, "step": step_it,
        "checkpoint": checkpoint,
    }  # fmt: skip
    arguments = ", ".join(given[name] for name in check.parameters)
    return there, [
        f"def {step_it}(scheduler, epoch):",
        f"    {names.step_call('epoch')}",
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


def segments(operations: tuple[Operation, ...]) -> Iterator[range]:
    """The indices of a trace's operations, cut before each operation that goes back to a slot."""
    starts = [i for i, operation in enumerate(operations) if operation.kind in GO_BACK or not i]
    for first, last in zip(starts, [*starts[1:], len(operations)], strict=True):
        yield range(first, last)


def done_there(check: Check, first: int) -> bool:
    """Whether the segment that begins with operation `first` runs in the other process."""
    return check.other_process in ("all", "resume" if first else "save")


class RunInOtherProcess(TraceRun):
    """One run of one trace, whose part before or after a resume runs in another process.

    Slots hold the bytes that ``torch.save`` wrote.
    """

    def _run(self) -> None:
        worker = worker_of(self.runner.resume_python)
        self.worker = worker
        texts = self.runner.texts
        if self.check not in texts:
            texts[self.check] = segment_text(self.bound, self.check, same=worker.same)
        self.text = texts[self.check]
        if not worker.same:
            self._compare_uninterrupted()
        for indices in segments(self.trace.operations):
            if done_there(self.check, indices[0]):
                self._do_there(indices)
                continue
            if not indices[0]:
                self._start()
            for number in indices:
                self._do(number)

    # ------------------------------------------------------------------------ done here

    def _save(self, slot: str) -> None:
        super()._save(slot)
        saved = self.slots[slot].saved
        try:
            packed = {save: {"file": pack(saved[save])} for save in saved}
        except (Exception, SystemExit) as error:
            self._raised(error, self._expected())
        self.slots[slot] = Slot(self.path, packed)

    def _go_back(self, slot: Slot, route: Check) -> None:
        self.path = slot.path
        try:
            saved = {save: unpack(packed["file"]) for save, packed in slot.saved.items()}
        except (Exception, SystemExit) as error:
            self._raised(error, self._expected())
        super()._go_back(Slot(slot.path, saved), route)

    # ----------------------------------------------------------------------- done there

    def _do_there(self, indices: range) -> None:
        """Run operations in the other process, and compare what was seen there."""
        operations = [self.trace.operations[number] for number in indices]
        self.number, self.made = indices[0], 0
        data = b""
        if operations[0].kind in GO_BACK:
            slot = self.slots[operations[0].slot]
            self.path = slot.path
            data = slot.saved[self.check.save]["file"]
            self._leave_out_weights(self.check)
            self.resumes += 1
            self.looked.add(epochs(self.path))
        reply = self._ask(data, "".join(map(letters, operations)))
        seen, saved = iter(reply["seen"]), iter(reply["saved"])
        self._look_at(next(seen, None), reply)
        for number, operation in zip(indices, operations, strict=True):
            self.number, self.made = number, 0
            if operation.kind in STEPS:
                for _ in range(operation.count):
                    self.path += LETTER[operation.kind]
                    self.made += 1
                    if len(self.path) >= len(self.uninterrupted[number].observations):
                        raise Stop(Outcome(ended=self.uninterrupted[number].error))
                    self.steps += 1
                    self._look_at(next(seen, None), reply)
            elif operation.kind == "save":
                self._look_at(next(seen, None), reply, saving=True)
                packed = {"file": next(saved)}
                self.slots[operation.slot] = Slot(self.path, {self.check.save: packed})

    def _ask(self, data: bytes, todo: str) -> Reply:
        self.runner.check_time()
        request: Request = {
            "data": data, "index": gradients(self.path), "epoch": epochs(self.path),
            "groups": groups_added(self.path), "todo": todo,
        }  # fmt: skip
        return self.worker.ask(self.text, request, self.runner.deadline)

    def _look_at(self, seen: Observation | None, reply: Reply, *, saving: bool = False) -> None:
        """Compare one observation of the other process; it is None if that raised."""
        expected = self._expected()
        made = self.trace.operations[: self.number + 1]
        untouched = not saving and not any(operation.kind in GO_BACK for operation in made)
        if seen is None:
            if untouched:
                self._stop_as_it_differs_there(f"it raises {reply['raised']} there")
            keys = {key: expected[key] for key in ("lr",) if key in expected}
            actual: Observation = {"raises": reply["raised"]}
            raise Stop(Outcome(Difference(self.number, self.made, keys, actual)))
        self._saw(seen)
        expected, seen = self._in_both(expected, seen)
        if untouched and not same(expected, seen):
            self._stop_as_it_differs_there(_here_and_there(expected, seen))
        self._differs(expected, seen)

    # --------------------------------------------------------- without any resume at all

    def _compare_uninterrupted(self) -> None:
        """Stop if an uninterrupted run differs between the other process and this one."""
        branch = branches(self.trace.operations)
        runs = dict(zip(branch, self.uninterrupted, strict=True))
        for path, run in runs.items():
            key = (self.check, run.path)
            if key not in self.runner.runs_there:
                self.runner.runs_there[key] = self._ask(b"", run.path)
            reply = self.runner.runs_there[key]
            there = reply["seen"]
            for i, expected in enumerate(run.observations[: len(path) + 1]):
                if i >= len(there):
                    self._stop_as_it_differs_there(
                        f"after {i} steps it raises {reply['raised']} there"
                    )
                expected, seen = self._in_both(expected, there[i])
                if not same(expected, seen):
                    self._stop_as_it_differs_there(
                        f"after {i} steps {_here_and_there(expected, seen)}"
                    )

    def _in_both(self, here: Observation, there: Observation) -> tuple[Observation, Observation]:
        """Two observations, without ``get_last_lr`` if one torch lacks it or can't call it yet."""
        key = "get_last_lr"
        if self.worker.same or not any(isinstance(s.get(key, ""), str) for s in (here, there)):
            return here, there
        return tuple({k: v for k, v in s.items() if k != key} for s in (here, there))  # type: ignore[return-value]

    def _stop_as_it_differs_there(self, how: str) -> NoReturn:
        """Stop: there is nothing to compare a resumed run with."""
        other = "in another process"
        if not self.worker.same:
            other = f"between torch {torch.__version__} and torch {self.worker.torch}"
        text = f"the schedule itself differs {other}, without any resume: {how}"
        raise Stop(Outcome(ended=text, differs_there=True))


def letters(operation: Operation) -> str:
    """An operation in the letters that `harness.engine.other_process_main.run_segment` takes."""
    if operation.kind in STEPS:
        return LETTER[operation.kind] * operation.count
    return "w" if operation.kind == "save" else ""


def _here_and_there(here: Observation, there: Observation) -> str:
    left, right = differences(here, there)
    return ", ".join(f"{name} is {left[name]} here and {right[name]} there" for name in left)


def start_worker(check: Check, runner: Runner) -> tuple[str, str]:
    """Start the other process; a note about it, and why the subject can't run there, if it can't.

    Raises `CheckError` for a Python that can't be used.
    """
    worker = worker_of(runner.resume_python)
    try:
        text = runner.texts[check] = segment_text(runner.bound, check, same=worker.same)
        worker.ask(text, {"data": b"", "index": 0, "epoch": 0, "groups": 0, "todo": ""}, math.inf)
    except (ScriptError, UndecidedError) as error:
        return "", str(error)
    if worker.same:
        return "", ""
    here, there = f"torch {torch.__version__}", f"torch {worker.torch}"
    first, second = (there if done_there(check, i) else here for i in (0, 1))
    return f"saved on {first}, resumed on {second}", ""
