"""Runs traces: up to the first difference from the uninterrupted run, or to their end."""

from __future__ import annotations

from dataclasses import dataclass, field

from harness.checks.changed_options import resumed_runs, uninterrupted
from harness.core.check import Check
from harness.core.errors import HarnessError, TraceError
from harness.core.operations import (
    GO_BACK,
    MAX_STEPS,
    Operation,
    branches,
    epochs,
    path_to,
    walk,
)
from harness.core.run import Difference, Observation, Role, Run, Seen
from harness.core.trace import Trace
from harness.core.types import Scheduler
from harness.engine.one_run import Outcome, Runner, Stop, TraceRun, run_along
from harness.engine.option_changes import as_tuples, run_with_changes
from harness.engine.other_process import RunInOtherProcess
from harness.subjects.subject import Bound


def run_trace(runner: Runner, check: Check, trace: Trace) -> Outcome:
    """Run `trace`; the outcome says where it first breaks `check`, if it does.

    Raises `TraceError` for a trace that the check can't run.
    """
    if check.changes_options:
        return run_with_changes(runner, check, trace)
    if runner.bound.changed and "build_other" not in check.parameters:
        raise TraceError(
            f"'changed' in the trace: {check.name} resumes with the same options; leave it out"
        )
    return (RunInOtherProcess if check.other_process else TraceRun)(runner, check, trace).go()


EPOCHS_AFTER = 4
"""The least number of epochs to run on after the first difference."""


def runs_of(runner: Runner, check: Check, trace: Trace, difference: Difference) -> tuple[Run, ...]:
    """The uninterrupted and the resumed runs of a trace, continued to the subject's length.

    `runner` is a new one. Empty for a state check that does not compare the LR, and if the runs
    can't be continued.
    """
    if check.compares == "values" and not difference.actual.keys() & {"lr", "get_last_lr"}:
        return ()
    operations = list(trace.operations)
    epoch = epochs(path_to(operations, difference.operation, difference.step))
    end = epochs(list(walk(operations))[-1][2])
    more = min(
        max(runner.bound.subject.length, epoch + EPOCHS_AFTER) - end, MAX_STEPS - trace.steps
    )
    if more > 0:
        operations.append(Operation("train", count=more))
    longer = Trace(tuple(operations), trace.options)
    try:
        if check.changes_options:
            return _changed(runner.bound, check, longer)
        return _both(runner, check, longer)
    except HarnessError:  # the verdict does not need these runs
        return ()


def _both(runner: Runner, check: Check, trace: Trace) -> tuple[Run, ...]:
    """The run of a trace, split at its resumes, and the uninterrupted runs to compare it with."""
    segments = run_to_the_end(runner, check, trace)
    if check.compares == "values":
        return (segments[0].run(Role.UNINTERRUPTED, "the run"),)
    paths = dict.fromkeys(reversed(branches(trace.operations)))
    whole = [path for path in paths if not any(p.startswith(path) and p != path for p in paths)]
    runs = [runner.uninterrupted(path).run(len(path), name="uninterrupted") for path in whole]
    back_at = next((seen.epoch for segment in segments[1:] for seen in segment.seen), 0)
    name = "resumed" if check.kind == "resume" else "saved"
    for segment in segments:
        if segment is not segments[0] or len(segments) == 1:
            runs.append(segment.run(Role.RESUMED, name))
        elif segment.seen and segment.seen[-1].epoch > back_at:
            runs.append(segment.run(Role.BEFORE))
    return tuple(runs)


def _changed(bound: Bound, check: Check, trace: Trace) -> tuple[Run, ...]:
    """The uninterrupted runs with old and with new options, and the runs resumed with new ones."""
    builders = bound.new_optimizer, bound.build, bound.with_changed.build
    operations = as_tuples(trace.operations)
    resumed = resumed_runs(builders, bound.step, check.save, check.function, operations)
    path = resumed[-1]["path"] if resumed else ""
    old, new = (
        uninterrupted(bound.new_optimizer, build, bound.step, path) for build in builders[1:]
    )
    return (
        run_along(path, old, Role.UNINTERRUPTED, "old options"),
        run_along(path, new, Role.OTHER_OPTIONS, "new options"),
        *(
            run_along(run["path"], run["seen"], Role.RESUMED, "resumed", first=run["first"])
            for run in resumed
        ),
    )


@dataclass
class Segment:
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


def run_to_the_end(runner: Runner, check: Check, trace: Trace) -> list[Segment]:
    """The segments of a run of `trace`, whether they are right or wrong.

    If the scheduler raises in this process, the run goes on with the next ``resume`` from a slot
    that was saved. Raises `TraceError` for a trace that the check can't run.
    """
    return _unstopped(runner, check, trace).segments


def scheduler_after(runner: Runner, check: Check, trace: Trace) -> Scheduler | None:
    """The scheduler at the end of a run of `trace` in this process; None if the run raised."""
    run = _unstopped(runner, check, trace)
    return None if run.ended else run.scheduler


class _Unstopped(TraceRun):
    """One run of one trace that goes on after a difference."""

    def __init__(self, runner: Runner, check: Check, trace: Trace) -> None:
        super().__init__(runner, check, trace)
        self.segments = [Segment(None)]
        self.ended = False

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
        if outcome.difference is None or "raises" not in outcome.difference.actual:
            return
        if self._begins() and outcome.difference.step == 0:
            self.segments.append(Segment(self.trace.operations[self.number]))
        self.segments[-1].raises = str(outcome.difference.actual["raises"])

    def _begins(self) -> bool:
        """Whether a new segment begins with the current operation."""
        kind = self.trace.operations[self.number].kind
        at_save = self.check.at == "save" and self.check.compares == "trajectory"
        return kind in GO_BACK or (kind == "save" and at_save)

    def _saw(self, seen: Observation) -> None:
        if self._begins():
            self.segments.append(Segment(self.trace.operations[self.number]))
        operation = self.trace.operations[self.number] if self.path or self.number else ""
        point = Seen(str(operation), epochs(self.path), seen)
        last = self.segments[-1].seen[-1:]
        if not last or (last[0].epoch, last[0].values) != (point.epoch, seen):
            self.segments[-1].seen.append(point)  # a save should change nothing

    def _differs(self, expected: Observation, seen: Observation) -> None:
        """Ignore the difference and go on."""

    def _values(self) -> None:
        """Compare no values."""


class _UnstoppedInOtherProcess(_Unstopped, RunInOtherProcess):
    """For a check that runs partly in another process: an exception there ends the run."""

    def _do_there(self, indices: range) -> None:
        try:
            super()._do_there(indices)
        except Stop as stop:
            self._note(stop.outcome)
            raise


def _unstopped(runner: Runner, check: Check, trace: Trace) -> _Unstopped:
    run = (_UnstoppedInOtherProcess if check.other_process else _Unstopped)(runner, check, trace)
    run.go()
    return run
