"""Runs a trace, and compares every step with the uninterrupted run, the oracle."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from harness.checks.registry import CHANGED, routes
from harness.core.check import Check
from harness.core.errors import SubjectError, TimeLimit, TraceError
from harness.core.operations import branches, epochs
from harness.core.run import Break, Outcome, Reference, Tally
from harness.core.trace import BACK, Operation, Trace
from harness.core.training_loop import (
    describe,
    do_event,
    observe,
    optimizer_step,
    step_scheduler,
)
from harness.engine.one_run import Stop, TraceRun
from harness.engine.option_changes import follow
from harness.engine.other_process_run import RunElsewhere
from harness.subjects.subject import Bound

MAX_REFERENCES = 200


class Runner:
    """Runs traces of one bound subject, and keeps its uninterrupted runs.

    `deadline` is a reading of ``time.monotonic()`` after which a run ends with
    `TimeLimit`; `weights` says whether weights are compared at all; `resume_python` is
    the interpreter of what is done in another process, this one where it is empty.
    """

    def __init__(
        self,
        bound: Bound,
        *,
        deadline: float = math.inf,
        weights: bool = True,
        resume_python: str = "",
    ) -> None:
        self.bound = bound
        self.deadline = deadline
        self.weights = weights
        self.resume_python = resume_python
        self.texts: dict[Check, str] = {}
        """What another process is sent for each check."""
        self.runs_there: dict[tuple[Check, str], dict[str, Any]] = {}
        """Its uninterrupted runs, by check and path."""
        self.apart = ""
        """How uninterrupted runs differed between two processes, where they did."""
        self.tally = Tally()
        self._references: dict[str, Reference] = {}

    # -------------------------------------------------------------- the uninterrupted run

    def start(self) -> tuple[Any, Any]:
        """A new optimizer and a new scheduler.

        Raises `SubjectError` where they can't be made, or are not what they must be.
        """
        name = self.bound.subject.name
        optimizer = self._make("optimizer", self.bound.new_optimizer)
        if not hasattr(optimizer, "param_groups") or not hasattr(optimizer, "step"):
            raise SubjectError(
                f"subject {name}: optimizer() must return a torch optimizer (got {optimizer!r:.80})"
            )
        scheduler = self._make("build", self.bound.build, optimizer)
        if self.bound.subject.step is step_scheduler and not hasattr(scheduler, "step"):
            raise SubjectError(
                f"subject {name}: build must return a scheduler, with a step() "
                f"(got {scheduler!r:.80})"
            )
        return optimizer, scheduler

    def _make(self, what: str, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except (Exception, SystemExit) as error:
            raise SubjectError(
                f"subject {self.bound.subject.name}: {what} raised {describe(error)}"
            ) from error

    def reference(self, path: str) -> Reference:
        """The uninterrupted run along `path`, from scratch unless it was run before."""
        for known in self._references.values():
            if known.path.startswith(path):
                return known
        if len(self._references) >= MAX_REFERENCES:
            self._references.clear()
        reference = self._references[path] = self._uninterrupted(path)
        return reference

    def _uninterrupted(self, path: str) -> Reference:
        self.check_time()
        optimizer, scheduler = self.start()
        step = self.bound.step
        seen = [self._make("reading the optimizer", observe, optimizer, scheduler)]
        index = epoch = 0
        try:
            for letter in path:
                if letter in "toe":
                    optimizer_step(optimizer, index)
                if letter in "ts":
                    step(scheduler, epoch)
                elif letter != "o":
                    do_event(letter, optimizer, scheduler, epoch, step)
                index += letter not in "shg"
                epoch += letter not in "ohg"
                seen.append(observe(optimizer, scheduler))
        except (Exception, SystemExit) as error:
            return Reference(path, seen, describe(error))
        return Reference(path, seen)

    # ---------------------------------------------------------------- the interrupted run

    def run(self, check: Check, trace: Trace) -> Outcome:
        """Run `trace`, and say where it first breaks `check`, if it does.

        Raises `TraceError` for a trace that the check can't run.
        """
        ways = routes(check, trace)
        if check is CHANGED:
            return self._changed(check, trace)
        if self.bound.changed:
            raise TraceError(
                f"'changed' in the trace: {check.name} resumes with the same options; leave it out"
            )
        run = TraceRun
        if check.elsewhere:
            run = RunElsewhere
        return run(self, check, trace, ways, self._references_for(trace)).go()

    def _changed(self, check: Check, trace: Trace) -> Outcome:
        found = follow(self.bound, check.function, trace, self.check_time)
        self.tally.traces += 1
        self.tally.steps += found.steps
        self.tally.resumes += found.resumes
        if found.place is None:
            return Outcome(ended=found.ended, reading=found.reading)
        return Outcome(Break(*found.place, found.expected, found.actual))

    def _references_for(self, trace: Trace) -> list[Reference]:
        paths = branches(trace.operations)
        by_path = {path: self.reference(path) for path in sorted(set(paths), key=len, reverse=True)}
        return [by_path[path] for path in paths]

    def check_time(self) -> None:
        """Raise `TimeLimit` after the deadline."""
        if time.monotonic() > self.deadline:
            raise TimeLimit


@dataclass
class Stretch:
    """A run from its start, or from a resume, to its end or to the next resume.

    `began` is the operation that it began with, none at the start. A point is an epoch
    (scheduler steps made) and what was observed there. `raises` is what ended it, in one line.
    """

    began: Operation | None
    points: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    raises: str = ""


def watch(runner: Runner, check: Check, trace: Trace) -> list[Stretch]:
    """What a run of `trace` shows, whether that is as it must be or not.

    Where it raises it goes on with the next ``resume`` from a slot that was saved. Raises
    `TraceError` for a trace that the check can't run.
    """
    if runner.bound.changed:
        raise TraceError("a run whose options change is watched by harness.checks.changed_options")
    return _watched(runner, check, trace).stretches


def scheduler_after(runner: Runner, check: Check, trace: Trace) -> Any:
    """The scheduler that a run of `trace` ends with, in this process; None where it raises."""
    run = _watched(runner, check, trace)
    return None if run.ended else run.scheduler


def _watched(runner: Runner, check: Check, trace: Trace) -> _Watching:
    kind = _watching_elsewhere() if check.elsewhere else _Watching
    run = kind(runner, check, trace, routes(check, trace), runner._references_for(trace))
    run.stretches = [Stretch(None)]
    run.ended = False
    run.go()
    return run


class _Watching(TraceRun):
    """One run of one trace, which no difference stops."""

    stretches: list[Stretch]
    ended: bool

    def _do(self, number: int) -> None:
        operation = self.trace.operations[number]
        if operation.kind == "resume" and operation.slot in self.slots:
            self.ended = False
        if self.ended:
            self.slots.pop(operation.slot, None)
            return
        try:
            super()._do(number)
        except Stop as stop:
            self.ended = True
            self._note(stop.outcome)

    def _note(self, outcome: Outcome) -> None:
        """Keep what ended the run here."""
        if outcome.broken is None or "raises" not in outcome.broken.actual:
            return
        if self._begins() and outcome.broken.step == 0:
            self.stretches.append(Stretch(self.trace.operations[self.operation]))
        self.stretches[-1].raises = outcome.broken.actual["raises"]

    def _begins(self) -> bool:
        """Whether a new stretch begins with the present operation."""
        kind = self.trace.operations[self.operation].kind
        at_save = self.check.at == "save" and self.check.compares == "trajectory"
        return kind in BACK or (kind == "save" and at_save)

    def _saw(self, seen: dict[str, Any]) -> None:
        if self._begins():
            self.stretches.append(Stretch(self.trace.operations[self.operation]))
        point = (epochs(self.path), seen)
        if [point] != self.stretches[-1].points[-1:]:  # a save changes nothing, or should not
            self.stretches[-1].points.append(point)

    def _differs(self, expected: dict[str, Any], seen: dict[str, Any]) -> None:
        """Go on."""

    def _values(self) -> None:
        """Nothing is to be judged."""


def _watching_elsewhere() -> type[_Watching]:
    """The same of a run of which parts are done in another process."""

    class WatchingElsewhere(_Watching, RunElsewhere):
        def _do_there(self, indices: range) -> None:
            try:
                super()._do_there(indices)
            except Stop as stop:
                self._note(stop.outcome)
                raise

    return WatchingElsewhere
