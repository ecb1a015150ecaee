"""Builds counterexamples from minimal traces: both runs, their difference, and what was lost."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from harness.core.errors import UndecidedError
from harness.core.operations import path_to, walk
from harness.core.result import Counterexample, Found
from harness.core.run import Difference
from harness.core.trace import Trace
from harness.core.verdict import Reason
from harness.engine.lost_attributes import attributes_that_differ
from harness.engine.whole_run import runs_of

if TYPE_CHECKING:
    from harness.engine.trials import Trials

__all__ = ["counterexample", "evidence"]


def counterexample(
    trials: Trials, trace: Trace, broken: Difference | None, found: Found | None = None
) -> Counterexample:
    """The counterexample of the minimal `trace`, with its runs.

    The trace is run twice unless `broken` is given. Raises `UndecidedError` if it breaks nothing.
    """
    broken = broken or trials.twice(trace).broken
    if broken is None:
        raise UndecidedError(
            f"the trace {trace} broke the check once and not again: "
            "what the scheduler does depends on more than the trace",
            Reason.NOT_REPEATABLE,
        )
    shown = evidence(trials, trace, broken, found)
    runner = trials.runner(trials.bound(trace))
    lost = attributes_that_differ(runner, trials.check, trace, broken)
    return replace(shown, lost=lost, runs=runs_of(trials, trace, broken))


def evidence(
    trials: Trials, trace: Trace, broken: Difference, found: Found | None = None
) -> Counterexample:
    """A counterexample that holds only the uninterrupted run it is compared with."""
    run = None
    if trials.check.compares == "trajectory":
        path = path_to(trace.operations, broken.operation, broken.step)
        before = list(walk(trace.operations))[broken.operation][1]
        path = before if before.startswith(path) else path
        reference = trials.runner(trials.bound(trace)).reference(path + "t")
        run = reference.run(len(path) + 1)
    return Counterexample(**vars(broken), trace=trace, found=found, uninterrupted=run)
