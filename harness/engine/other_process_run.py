"""Runs a trace whose parts run partly in another process."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NoReturn

import torch

from harness.core.check import Check
from harness.core.errors import ScriptError, UndecidedError
from harness.core.observation import same
from harness.core.operations import (
    BACK,
    LETTER,
    STEPS,
    Operation,
    branches,
    epochs,
    gradients,
    groups_added,
)
from harness.core.run import Difference
from harness.core.training_loop import differences
from harness.engine.one_run import Slot, Stop, TraceRun
from harness.engine.other_process import segment_text, worker_of
from harness.engine.other_process_main import pack, unpack
from harness.engine.outcome import Outcome

if TYPE_CHECKING:
    from harness.engine.runner import Runner


def segments(operations: tuple[Operation, ...]) -> Iterator[range]:
    """The indices of a trace's operations, cut before each operation that goes back to a slot."""
    starts = [i for i, operation in enumerate(operations) if operation.kind in BACK or not i]
    for first, last in zip(starts, [*starts[1:], len(operations)], strict=True):
        yield range(first, last)


def done_there(check: Check, first: int) -> bool:
    """Whether the segment that begins with operation `first` runs in the other process."""
    return check.elsewhere in ("all", "resume" if first else "save")


class RunElsewhere(TraceRun):
    """One run of one trace: the part after a resume, or the part before it, runs elsewhere.

    Slots hold the bytes that ``torch.save`` wrote.
    """

    def go(self) -> Outcome:
        """Run the trace; the outcome says where it first differs."""
        self.tally.traces += 1
        self.optimizer = self.scheduler = None  # there may be none here until a resume
        worker = worker_of(self.runner.resume_python)
        self.worker = worker
        texts = self.runner.texts
        if self.check not in texts:
            texts[self.check] = segment_text(self.bound, self.check, same=worker.same)
        self.text = texts[self.check]
        try:
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
        except Stop as stop:
            return stop.outcome
        return Outcome()

    # ------------------------------------------------------------------------ done here

    def _save(self, slot: str) -> None:
        super()._save(slot)
        saved = self.slots[slot].saved
        try:
            self.slots[slot].saved = {save: {"file": pack(saved[save])} for save in saved}
        except (Exception, SystemExit) as error:
            self._raised(error, self._expected())

    def _go_back(self, slot: Slot, route: Any) -> None:
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
        self.operation, self.made = indices[0], 0
        data = b""
        if operations[0].kind in BACK:
            slot = self.slots[operations[0].slot]
            self.path = slot.path
            data = slot.saved[self.check.save]["file"]
            self.weights = self.weights and self.check.weights
            self.tally.resumes += 1
        reply = self._ask(data, "".join(map(letters, operations)))
        seen, saved = iter(reply["seen"]), iter(reply["saved"])
        self._look_at(next(seen, None), reply)
        for number, operation in zip(indices, operations, strict=True):
            self.operation, self.made = number, 0
            if operation.kind in STEPS:
                for _ in range(operation.count):
                    self.path += LETTER[operation.kind]
                    self.made += 1
                    if len(self.path) >= len(self.references[number].observations):
                        raise Stop(Outcome(ended=self.references[number].error))
                    self.tally.steps += 1
                    self._look_at(next(seen, None), reply)
            elif operation.kind == "save":
                self._look_at(next(seen, None), reply, saving=True)
                packed = {"file": next(saved)}
                self.slots[operation.slot] = Slot(self.path, {self.check.save: packed})

    def _ask(self, data: bytes, todo: str) -> dict[str, Any]:
        self.runner.check_time()
        request = {
            "data": data,
            "index": gradients(self.path),
            "epoch": epochs(self.path),
            "groups": groups_added(self.path),
            "todo": todo,
        }
        return self.worker.ask(self.text, request, self.runner.deadline)

    def _look_at(
        self, seen: dict[str, Any] | None, reply: dict[str, Any], *, saving: bool = False
    ) -> None:
        """Compare one observation of the other process; it is None if that raised."""
        expected = self._expected()
        made = self.trace.operations[: self.operation + 1]
        untouched = not saving and not any(operation.kind in BACK for operation in made)
        if seen is None:
            if untouched:
                self._apart(f"it raises {reply['raised']} there")
            keys = {key: expected[key] for key in ("lr",) if key in expected}
            actual = {"raises": reply["raised"]}
            raise Stop(Outcome(Difference(self.operation, self.made, keys, actual)))
        self._saw(seen)
        expected, seen = self._in_both(expected, seen)
        if untouched and not same(expected, seen):
            self._apart(_told(expected, seen))
        self._differs(expected, seen)

    # --------------------------------------------------------- without any resume at all

    def _compare_uninterrupted(self) -> None:
        """Stop if an uninterrupted run differs between the other process and this one."""
        branch = branches(self.trace.operations)
        runs = dict(zip(branch, self.references, strict=True))
        for path, run in runs.items():
            key = (self.check, run.path)
            if key not in self.runner.runs_there:
                self.runner.runs_there[key] = self._ask(b"", run.path)
            reply = self.runner.runs_there[key]
            there = reply["seen"]
            for i, expected in enumerate(run.observations[: len(path) + 1]):
                if i >= len(there):
                    self._apart(f"after {i} steps it raises {reply['raised']} there")
                expected, seen = self._in_both(expected, there[i])
                if not same(expected, seen):
                    self._apart(f"after {i} steps {_told(expected, seen)}")

    def _in_both(
        self, here: dict[str, Any], there: dict[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Two observations, without ``get_last_lr`` if one torch lacks it or can't call it yet."""
        key = "get_last_lr"
        if self.worker.same or not any(isinstance(s.get(key, ""), str) for s in (here, there)):
            return here, there
        return tuple({k: v for k, v in s.items() if k != key} for s in (here, there))  # type: ignore[return-value]

    def _apart(self, how: str) -> NoReturn:
        """Stop: there is nothing to compare a resumed run with."""
        other = "in another process"
        if not self.worker.same:
            other = f"between torch {torch.__version__} and torch {self.worker.torch}"
        self.runner.apart = f"the schedule itself differs {other}, without any resume: {how}"
        raise Stop(Outcome(ended=self.runner.apart))


def letters(operation: Operation) -> str:
    """An operation in the letters that `harness.engine.other_process_main.run_segment` takes."""
    if operation.kind in STEPS:
        return LETTER[operation.kind] * operation.count
    return "w" if operation.kind == "save" else ""


def _told(here: dict[str, Any], there: dict[str, Any]) -> str:
    left, right = differences(here, there)
    return ", ".join(f"{name} is {left[name]} here and {right[name]} there" for name in left)


def prepare(check: Check, runner: Runner) -> tuple[str, str]:
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
