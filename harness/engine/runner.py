"""Runs traces, and compares every step with the uninterrupted run."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from harness.checks.registry import routes
from harness.core.check import Check
from harness.core.errors import SubjectError, TimeLimit, TraceError
from harness.core.operations import branches, perform
from harness.core.run import Difference, Tally
from harness.core.trace import Trace
from harness.core.training_loop import describe, observe, step_scheduler
from harness.engine.one_run import TraceRun
from harness.engine.option_changes import follow
from harness.engine.other_process_run import RunElsewhere
from harness.engine.outcome import Outcome, Reference
from harness.subjects.subject import Bound

MAX_REFERENCES = 200


class Runner:
    """Runs traces of one bound subject, and keeps its uninterrupted runs.

    `deadline` is a reading of ``time.monotonic()`` after which a run ends with
    `TimeLimit`. `weights` says whether weights are compared at all. `resume_python` is
    the interpreter for what runs in another process; empty means this one.
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
        """The module that is sent to another process, for each check."""
        self.runs_there: dict[tuple[Check, str], dict[str, Any]] = {}
        """Uninterrupted runs in the other process, by check and path."""
        self.apart = ""
        """How uninterrupted runs differed between two processes; empty if they did not."""
        self.tally = Tally()
        self._references: dict[str, Reference] = {}

    # -------------------------------------------------------------- the uninterrupted run

    def start(self) -> tuple[Any, Any]:
        """A new optimizer and a new scheduler.

        Raises `SubjectError` if they can't be built, or are not an optimizer and a scheduler.
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
        """The uninterrupted run along `path`; run from scratch unless it was run before."""
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
                index, epoch = perform(letter, optimizer, scheduler, index, epoch, step)
                seen.append(observe(optimizer, scheduler))
        except (Exception, SystemExit) as error:
            return Reference(path, seen, describe(error))
        return Reference(path, seen)

    # ---------------------------------------------------------------- the interrupted run

    def run(self, check: Check, trace: Trace) -> Outcome:
        """Run `trace`; the outcome says where it first breaks `check`, if it does.

        Raises `TraceError` for a trace that the check can't run.
        """
        ways = routes(check, trace)
        if check.changes_options:
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
        return Outcome(Difference(*found.place, found.expected, found.actual))

    def _references_for(self, trace: Trace) -> list[Reference]:
        paths = branches(trace.operations)
        by_path = {path: self.reference(path) for path in sorted(set(paths), key=len, reverse=True)}
        return [by_path[path] for path in paths]

    def begin(self, tally: Tally, deadline: float) -> None:
        """From now on, count in `tally` and end at `deadline`."""
        self.tally = tally
        self.deadline = deadline

    def check_time(self) -> None:
        """Raise `TimeLimit` after the deadline."""
        if time.monotonic() > self.deadline:
            raise TimeLimit
