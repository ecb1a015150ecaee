"""Runs a trace, and compares every step with the uninterrupted run, the oracle."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from harness.changes import follow
from harness.checks import CHANGED, MIXED
from harness.decorators import Check
from harness.errors import CheckError, SubjectError, TimeLimit, TraceError
from harness.loop import (
    StateRefused,
    describe,
    differences,
    do_event,
    observe,
    optimizer_step,
    plain,
    restore_parameters,
    same,
    snapshot,
    step_scheduler,
    with_groups,
)
from harness.outcomes import Break, Outcome, Reference, Tally
from harness.paths import LETTER, branches, epochs, gradients, groups_added, routes
from harness.subject import Bound
from harness.trace import STEPS, Trace

__all__ = ["Runner"]

MAX_REFERENCES = 200


@dataclass
class _Slot:
    path: str
    saved: dict[Callable[..., Any], dict[str, Any]]
    shared: dict[Callable[..., Any], dict[str, Any]] = field(default_factory=dict)


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
        run = _Run
        if check.elsewhere:
            from harness.segments import RunElsewhere as run
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


class _Stop(Exception):
    """Ends a run with an outcome."""

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome


class _Run:
    """One run of one trace."""

    def __init__(
        self,
        runner: Runner,
        check: Check,
        trace: Trace,
        routes: list[Check],
        references: list[Reference],
    ) -> None:
        self.runner = runner
        self.bound = runner.bound
        self.tally = runner.tally
        self.check = check
        self.trace = trace
        self.routes = routes
        self.references = references
        self.weights = runner.weights
        self.operation = 0
        self.made = 0
        self.index = 0
        self.epoch = 0
        self.path = ""
        self.slots: dict[str, _Slot] = {}
        self.latest: dict[str, Any] | None = None

    def go(self) -> Outcome:
        self.tally.traces += 1
        try:
            self._start()
            for number in range(len(self.trace.operations)):
                self._do(number)
        except _Stop as stop:
            return stop.outcome
        return Outcome()

    def _start(self) -> None:
        self.optimizer, self.scheduler = self.runner.start()
        self._look(self.references[0].observations[0])

    def _do(self, number: int) -> None:
        """Make the operation of that index."""
        operation = self.trace.operations[number]
        self.operation = number
        self.runner.check_time()
        self.made = 0
        if operation.kind in STEPS:
            self._steps(LETTER[operation.kind], operation.count)
        elif operation.kind == "save":
            self._save(operation.slot)
        else:
            self._go_back(self.slots[operation.slot], self.routes[number])

    def _steps(self, letter: str, count: int) -> None:
        reference = self.references[self.operation]
        observations = reference.observations
        position = len(self.path)
        step = self.bound.step
        at_step = self.check.at == "step"
        by_optimizer, by_scheduler = letter in "toe", letter in "ts"
        gradient, epoch, event = letter not in "shg", letter not in "ohg", letter not in "tso"
        for _ in range(count):
            position += 1
            beyond = position >= len(observations)
            if beyond and self.check.compares == "values":
                raise _Stop(Outcome(ended=reference.error))
            expected = {"raises": reference.raises} if beyond else observations[position]
            self.tally.steps += 1
            self.made += 1
            try:
                if by_optimizer:
                    optimizer_step(self.optimizer, self.index)
                if by_scheduler:
                    step(self.scheduler, self.epoch)
                elif event:
                    do_event(letter, self.optimizer, self.scheduler, self.epoch, step)
                self.index += gradient
                self.epoch += epoch
                seen = observe(self.optimizer, self.scheduler)
            except (Exception, SystemExit) as error:
                if beyond and describe(error) == reference.raises:
                    left = self.made < count or self.operation + 1 < len(self.trace.operations)
                    raise _Stop(Outcome(ended=reference.error if left else "")) from None
                self._raised(error, expected)
            self.path += letter
            self._saw(seen)
            if beyond:
                actual = {key: seen[key] for key in seen if key != "weights"}
                raise _Stop(Outcome(Break(self.operation, self.made, expected, actual)))
            if seen != expected:
                self._differs(expected, seen)
            if at_step:
                self._values()

    def _look(self, expected: dict[str, Any]) -> None:
        """Compare what the optimizer will use now."""
        try:
            seen = observe(self.optimizer, self.scheduler)
        except (Exception, SystemExit) as error:
            self._raised(error, expected)
        self._saw(seen)
        if seen != expected:
            self._differs(expected, seen)
        if self.check.at == "step":
            self._values()

    def _saw(self, seen: dict[str, Any]) -> None:
        """Called with what the run has at its start, after every step and every resume."""

    def _save(self, slot: str) -> None:
        expected = self._expected()
        saved: dict[Callable[..., Any], dict[str, Any]] = {}
        try:
            for save in self._saves(slot):
                saved[save] = save(self.optimizer, self.scheduler, self.epoch)
        except StateRefused as error:
            raise _Stop(Outcome(ended=str(error), refused=True)) from None
        except (Exception, SystemExit) as error:
            self._raised(error, expected)
        self.slots[slot] = _Slot(self.path, saved)
        self.latest = saved.get(self.check.save)
        if self.check.at == "save":
            if self.check.compares == "values":
                self._values()
            else:
                self._call_for_pair(self.check, saved[self.check.save])
                self.tally.resumes += 1
        self._look(expected)

    def _saves(self, slot: str) -> list[Callable[..., dict[str, Any]]]:
        """The save functions of the checks that go back to what is saved now."""
        if self.check is not MIXED:
            return [self.check.save]
        saves: dict[Callable[..., dict[str, Any]], None] = {}
        for number in range(self.operation + 1, len(self.trace.operations)):
            later = self.trace.operations[number]
            if later.slot == slot and later.kind == "save":
                break
            if later.slot == slot:
                saves[self.routes[number].save] = None
        return list(saves)

    def _go_back(self, slot: _Slot, route: Check) -> None:
        self.path = slot.path
        self.index = gradients(self.path)
        self.epoch = epochs(self.path)
        self.weights = self.weights and route.weights
        saved = slot.saved[route.save]
        if route.same_dict:
            checkpoint = slot.shared.setdefault(route.save, snapshot(saved))
        else:
            checkpoint = snapshot(saved)
        self.tally.resumes += 1
        self._call_for_pair(route, checkpoint)
        self._look(self._expected())

    def _call_for_pair(self, check: Check, checkpoint: dict[str, Any]) -> None:
        try:
            pair = self._call(check, checkpoint)
        except (Exception, SystemExit) as error:
            self._raised(error, self._expected())
        if not isinstance(pair, tuple) or len(pair) != 2 or not hasattr(pair[0], "param_groups"):
            raise CheckError(
                f"check {check.name} must return (optimizer, scheduler) (got {pair!r:.80})"
            )
        self.optimizer, self.scheduler = pair
        if check.kind == "resume":
            restore_parameters(self.optimizer, checkpoint)

    def _values(self) -> None:
        """Compare what a state check says must be and is."""
        if "checkpoint" in self.check.parameters and self.latest is None:
            return
        self.tally.comparisons += 1
        try:
            pair = self._call(self.check, self.latest)
        except (Exception, SystemExit) as error:
            self._raised(error, {"raises": "nothing"})
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise CheckError(
                f"check {self.check.name} must return (expected, actual) (got {pair!r:.80})"
            )
        expected, actual = map(plain, pair)
        if not same(expected, actual):
            raise _Stop(Outcome(Break(self.operation, self.made, *differences(expected, actual))))

    def _call(self, check: Check, checkpoint: dict[str, Any] | None) -> Any:
        new_optimizer = self.bound.new_optimizer
        if groups := groups_added(self.path):
            new_optimizer = functools.partial(with_groups, new_optimizer, groups)
        has = {
            "new_optimizer": new_optimizer,
            "build": self.bound.build,
            "checkpoint": checkpoint,
            "optimizer": self.optimizer,
            "scheduler": self.scheduler,
        }
        return check.function(**{name: has[name] for name in check.parameters})

    def _expected(self) -> dict[str, Any]:
        return self.references[self.operation].observations[len(self.path)]

    def _differs(self, expected: dict[str, Any], seen: dict[str, Any]) -> None:
        """Stop at a real difference: of weights only where they are compared; nan equals nan.

        A check that compares values does not look at the trajectory.
        """
        if self.check.compares == "values":
            return
        if not self.weights:
            expected, seen = dict(expected), dict(seen)
            del expected["weights"], seen["weights"]
        if not same(expected, seen):
            raise _Stop(Outcome(Break(self.operation, self.made, *differences(expected, seen))))

    def _raised(self, error: BaseException, expected: dict[str, Any]) -> None:
        expected = {key: expected[key] for key in ("lr", "raises") if key in expected}
        actual = {"raises": describe(error)}
        raise _Stop(Outcome(Break(self.operation, self.made, expected, actual))) from error
