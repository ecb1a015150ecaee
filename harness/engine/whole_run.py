"""Runs traces to the end, past any difference, to show both runs of a counterexample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from harness.checks.changed_options import resumed_runs, uninterrupted
from harness.checks.registry import routes
from harness.core.check import Check
from harness.core.errors import HarnessError, TraceError
from harness.core.observation import Observation
from harness.core.operations import (
    BACK,
    MAX_STEPS,
    Operation,
    branches,
    epochs,
    path_to,
    unpath,
    walk,
)
from harness.core.run import Difference, Role, Run, Seen
from harness.core.trace import Trace
from harness.core.training_loop import save_checkpoint
from harness.engine.one_run import Stop, TraceRun
from harness.engine.option_changes import plain_operations
from harness.engine.other_process_run import RunElsewhere
from harness.engine.outcome import Outcome
from harness.engine.runner import Runner

if TYPE_CHECKING:
    from harness.engine.trials import Trials

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
