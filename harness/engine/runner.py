"""Runs traces, and compares every step with the uninterrupted run."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from harness.checks.changed_options import resumed_runs, uninterrupted
from harness.checks.registry import routes
from harness.core.check import Check
from harness.core.errors import HarnessError, SubjectError, TimeLimit, TraceError
from harness.core.operations import (
    BACK,
    MAX_STEPS,
    Operation,
    branches,
    epochs,
    path_to,
    perform,
    unpath,
    walk,
)
from harness.core.run import Difference, Observation, Role, Run, Seen, Tally
from harness.core.trace import Trace
from harness.core.training_loop import describe, observe, save_checkpoint, step_scheduler
from harness.engine.one_run import Outcome, Reference, Stop, TraceRun
from harness.engine.option_changes import follow, plain_operations
from harness.engine.other_process import RunElsewhere
from harness.subjects.subject import Bound

if TYPE_CHECKING:
    from harness.engine.trials import Trials

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


AFTER = 4
"""The least number of epochs to run on after the first difference."""


def runs_of(trials: Trials, trace: Trace, broken: Difference) -> tuple[Run, ...]:
    """The uninterrupted and the resumed runs of a trace, continued to the subject's length.

    Empty for a state check that does not compare the LR, and if the runs can't be continued.
    """
    check = trials.check
    changed = {name.partition(" if ")[0] for name in broken.actual}
    if check.compares == "values" and not changed & {"lr", "get_last_lr"}:
        return ()
    operations = list(trace.operations)
    epoch = epochs(path_to(operations, broken.operation, broken.step))
    end = epochs(list(walk(operations))[-1][2])
    more = min(max(trials.subject.length, epoch + AFTER) - end, MAX_STEPS - trace.steps)
    if more > 0:
        operations.append(Operation("train", count=more))
    longer = Trace(tuple(operations), trace.options)
    try:
        if check.changes_options:
            return _changed(trials, longer)
        return _both(trials, longer)
    except HarnessError:  # the verdict does not need these runs
        return ()


def _both(trials: Trials, trace: Trace) -> tuple[Run, ...]:
    """The run of a trace, split at its resumes, and the uninterrupted runs to compare it with."""
    check = trials.check
    bound = trials.bound(trace)
    runner = trials.runners.new(bound, trials.limit.deadline, weights=trials.weights)
    stretches = run_to_the_end(runner, check, trace)
    if check.compares == "values":
        return (stretches[0].run(Role.UNINTERRUPTED, "the run"),)
    paths = dict.fromkeys(reversed(branches(trace.operations)))
    whole = [path for path in paths if not any(p.startswith(path) and p != path for p in paths)]
    runs = [runner.reference(path).run(len(path), name="uninterrupted") for path in whole]
    back_at = next((seen.epoch for stretch in stretches[1:] for seen in stretch.seen), 0)
    name = "resumed" if check.kind == "resume" else "saved"
    for stretch in stretches:
        if stretch is not stretches[0] or len(stretches) == 1:
            runs.append(stretch.run(Role.RESUMED, name))
        elif stretch.seen and stretch.seen[-1].epoch > back_at:
            runs.append(stretch.run(Role.BEFORE))
    return tuple(runs)


def _changed(trials: Trials, trace: Trace) -> tuple[Run, ...]:
    """The uninterrupted runs with old and with new options, and the runs resumed with new ones."""
    bound = trials.bound(trace)
    builders = bound.new_optimizer, bound.build, bound.new.build
    operations = plain_operations(trace.operations)
    resumed = resumed_runs(builders, bound.step, save_checkpoint, trials.check.function, operations)
    path = resumed[-1]["path"] if resumed else ""
    runs = []
    for name, role, build in (
        ("old options", Role.UNINTERRUPTED, bound.build),
        ("new options", Role.OTHER_OPTIONS, bound.new.build),
    ):
        observed = uninterrupted(bound.new_optimizer, build, bound.step, path)
        runs.append(_run(role, name, path, 0, observed))
    runs += [
        _run(Role.RESUMED, "resumed", run["path"], run["first"], run["seen"]) for run in resumed
    ]
    return tuple(runs)


def _run(role: Role, name: str, path: str, first: int, observed: Sequence[Observation]) -> Run:
    """Observations along a path, from its step `first` on, as a `Run`."""
    words = ["", *(f"{op.kind}:1" for letter in path for op in unpath(letter))]
    seen = tuple(
        Seen(words[first + index], epochs(path[: first + index]), values)
        for index, values in enumerate(observed)
        if "raises" not in values
    )
    return Run(role, seen, str(observed[-1].get("raises", "")) if observed else "", name)


@dataclass
class Stretch:
    """A run from its start, or from a resume, to its end or to the next resume.

    `began` is the operation that it began with, or None at the start. `raises` is the exception
    that ended it, in one line.
    """

    began: Operation | None
    seen: list[Seen] = field(default_factory=list)
    raises: str = ""

    def run(self, role: Role, name: str = "") -> Run:
        """The same as a frozen `Run`."""
        return Run(role, tuple(self.seen), self.raises, name)


def run_to_the_end(runner: Runner, check: Check, trace: Trace) -> list[Stretch]:
    """The stretches of a run of `trace`, whether they are right or wrong.

    If the scheduler raises, the run goes on with the next ``resume`` from a slot that was saved.
    Raises `TraceError` for a trace that the check can't run.
    """
    if runner.bound.changed:
        raise TraceError("a run whose options change is shown by harness.checks.changed_options")
    return _unstopped(runner, check, trace).stretches


def scheduler_after(runner: Runner, check: Check, trace: Trace) -> Any:
    """The scheduler at the end of a run of `trace` in this process; None if the run raised."""
    run = _unstopped(runner, check, trace)
    return None if run.ended else run.scheduler


def _unstopped(runner: Runner, check: Check, trace: Trace) -> _Unstopped:
    kind = _unstopped_elsewhere() if check.elsewhere else _Unstopped
    run = kind(runner, check, trace, routes(check, trace), runner._references_for(trace))
    run.stretches = [Stretch(None)]
    run.ended = False
    run.go()
    return run


class _Unstopped(TraceRun):
    """One run of one trace that goes on after a difference."""

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
        """Note the exception that ended the run here."""
        if outcome.broken is None or "raises" not in outcome.broken.actual:
            return
        if self._begins() and outcome.broken.step == 0:
            self.stretches.append(Stretch(self.trace.operations[self.operation]))
        self.stretches[-1].raises = outcome.broken.actual["raises"]

    def _begins(self) -> bool:
        """Whether a new stretch begins with the current operation."""
        kind = self.trace.operations[self.operation].kind
        at_save = self.check.at == "save" and self.check.compares == "trajectory"
        return kind in BACK or (kind == "save" and at_save)

    def _saw(self, seen: dict[str, Any]) -> None:
        if self._begins():
            self.stretches.append(Stretch(self.trace.operations[self.operation]))
        operation = self.trace.operations[self.operation] if self.path or self.operation else ""
        point = Seen(str(operation), epochs(self.path), seen)
        last = self.stretches[-1].seen[-1:]
        if not last or (last[0].epoch, last[0].values) != (point.epoch, seen):
            self.stretches[-1].seen.append(point)  # a save should change nothing

    def _differs(self, expected: dict[str, Any], seen: dict[str, Any]) -> None:
        """Ignore the difference and go on."""

    def _values(self) -> None:
        """Compare no values."""


def _unstopped_elsewhere() -> type[_Unstopped]:
    """`_Unstopped` for a check that runs partly in another process."""

    class UnstoppedElsewhere(_Unstopped, RunElsewhere):
        def _do_there(self, indices: range) -> None:
            try:
                super()._do_there(indices)
            except Stop as stop:
                self._note(stop.outcome)
                raise

    return UnstoppedElsewhere
