"""Makes counterexamples: of a minimal trace, and of every other set of drawn options."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from harness.core.errors import HarnessError, TimeLimit, UndecidedError
from harness.core.operations import path_to, walk
from harness.core.result import Counterexample, Found
from harness.engine.lost_attributes import attributes_that_differ
from harness.engine.minimise import minimise

if TYPE_CHECKING:
    from harness.core.check import Check
    from harness.core.run import Break
    from harness.core.trace import Trace
    from harness.engine.verdict import SubjectCheck


def counterexample(work: SubjectCheck, check: Check, trace: Trace, found: Found) -> Counterexample:
    """The minimal `trace` with what it shows, twice, and the run that it is compared with.

    Raises `UndecidedError` where it shows nothing.
    """
    broken = work.twice(check, trace)[0].broken
    if broken is None:
        raise UndecidedError(
            f"the trace {trace} broke the check once and not again: "
            "what the scheduler does depends on more than the trace"
        )
    shown = evidence(work, check, trace, broken, found)
    runner = work.runner(work.subject.bind(dict(trace.options)))
    return replace(shown, state=attributes_that_differ(runner, check, trace, broken))


def evidence(
    work: SubjectCheck, check: Check, trace: Trace, broken: Break, found: Found | None = None
) -> Counterexample:
    """A counterexample out of what a trace shows, with the run that it is compared with."""
    run = None
    if check.compares == "trajectory":
        path = path_to(trace.operations, broken.operation, broken.step)
        before = list(walk(trace.operations))[broken.operation][1]
        path = before if before.startswith(path) else path
        run = work.runner(work.subject.bind(dict(trace.options))).reference(path + "t")
    return Counterexample(**vars(broken), trace=trace, found=found, uninterrupted=run)


def find_others(
    work: SubjectCheck, check: Check, holding: Sequence[Check], first: Trace
) -> tuple[Counterexample, ...]:
    """A counterexample for each set of options that breaks `check`, but for that of `first`.

    The options stay as they are, and the operations are minimal. A set that can't be decided
    is left out, and so is what the time limit of the pair cuts off.
    """
    # Ends before the signal of the limit comes: that one would take the verdict away.
    work.deadline -= (work.deadline - time.monotonic()) / 10
    weights = work.weights
    others: list[Counterexample] = []
    tried = {_in_order(first.options)}
    with contextlib.suppress(TimeLimit):
        for case in work.cases:
            options = _in_order(case.bound.literals)
            if options in tried:
                continue
            tried.add(options)
            with contextlib.suppress(HarnessError):
                trace = work.find(check, holding, [case])
                # One that breaks by the optimizer's weights alone says nothing of the scheduler.
                if trace is not None and not work.blame(check, trace):
                    found = work.found()
                    trace = minimise(trace, lambda candidate: work.breaks(check, candidate))
                    others.append(counterexample(work, check, trace, found))
            work.weights = weights
    work.weights = weights
    return tuple(others)


def _in_order(options: Sequence[tuple[str, object]]) -> str:
    """The same text for the same options: Hypothesis draws the keys of a dict in any order."""
    return repr(sorted(options, key=lambda option: option[0]))
