"""Runs a trace and keeps what it shows, also behind the place where it breaks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from harness.decorators import Check
from harness.errors import TraceError
from harness.outcomes import Outcome
from harness.paths import epochs, routes
from harness.run import Runner, _Run, _Stop
from harness.trace import BACK, Operation, Trace

__all__ = ["Stretch", "scheduler_after", "watch"]


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
        raise TraceError("a run whose options change is watched by harness.contracts")
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


class _Watching(_Run):
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
        except _Stop as stop:
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
    from harness.segments import RunElsewhere

    class WatchingElsewhere(_Watching, RunElsewhere):
        def _do_there(self, indices: range) -> None:
            try:
                super()._do_there(indices)
            except _Stop as stop:
                self._note(stop.outcome)
                raise

    return WatchingElsewhere
