"""Looks for a trace that breaks a check, by sweep and then by search, and simplifies it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from harness.core.check import Check
from harness.core.errors import SubjectError
from harness.core.operations import ADDS_GROUP, BACK
from harness.core.result import Budget, Counterexample, FoundBy
from harness.core.trace import Trace
from harness.engine.machine import Plan, draw_operations
from harness.engine.minimise import minimise
from harness.engine.option_changes import change_traces
from harness.engine.option_sets import HORIZONS, SETS, SWEPT_SETS, OptionSet, find_untried
from harness.engine.saved_examples import Examples
from harness.engine.sweep import sweep, sweep_events, sweep_pairs, sweep_thinly
from harness.engine.trials import Trials
from harness.subjects.drawn_options import shrink_options

__all__ = ["Hit", "find", "simplify"]


@dataclass(frozen=True)
class Hit:
    """A trace that breaks a check, cut after the step that breaks it, and what found it."""

    trace: Trace
    by: FoundBy


def find(
    trials: Trials,
    option_sets: Sequence[OptionSet],
    holding: Sequence[Check],
    budget: Budget,
    *,
    examples: Examples | None = None,
    known: Counterexample | None = None,
) -> Hit | None:
    """A trace that breaks the check with one of the option sets, or None.

    A trace that breaks it in the same way as the `known` counterexample is skipped. `holding` are
    the checks whose ways a check that mixes them may use.
    """
    check = trials.check
    if examples is not None:
        trace = _example(trials, examples, known)
        if trace is not None:
            return Hit(trials.cut(trace), FoundBy.EXAMPLE)
    for number in range(len(option_sets) if budget.sweep else 0):
        traces = swept_traces(check, holding, number, option_sets)
        broken = (trace for trace in traces if trials.breaks(trace, known))
        trace = next(broken, None)
        if trace is not None:
            if check.changes_options:
                list(broken)  # the verdict also says which contract the other options follow
            return Hit(trials.cut(trace), FoundBy.SWEEP)
    if check.kind == "resume" and check.search and budget.max_examples:
        traces = drawn_traces(check, holding, option_sets, budget)
        trace = next((trace for trace in traces if trials.breaks(trace, known)), None)
        if trace is not None:
            return Hit(trials.cut(trace), FoundBy.SEARCH)
    return None


def _example(trials: Trials, examples: Examples, known: Counterexample | None) -> Trace | None:
    """A trace that an earlier run found and that still breaks the check, or None."""
    subject, check = trials.subject.name, trials.check.name
    for trace in examples.of(subject, check):
        with contextlib.suppress(SubjectError):  # the subject takes other options now
            if trials.breaks(trace, known):
                return trace
        examples.forget(subject, check, trace)
    return None


def simplify(trials: Trials, trace: Trace, seed: int, known: Counterexample | None = None) -> Trace:
    """`trace` with fewer operations and, if its options are drawn, simpler options."""
    while True:
        trace = minimise(trace, lambda candidate: trials.breaks(candidate, known))
        simpler = _simpler_options(trials, trace, seed, known)
        if simpler == trace:
            return trace
        trace = simpler


def _simpler_options(
    trials: Trials, trace: Trace, seed: int, known: Counterexample | None
) -> Trace:
    """The same operations with the subject's own options, or with options that Hypothesis shrinks.

    The options of `trace` stay if the trace breaks with no simpler ones.
    """
    subject = trials.subject
    strategy = subject.strategy
    if strategy is None:
        return trace
    kept = {name: value for name, value in trace.options if name == "changed"}

    def with_options(values: dict[str, Any]) -> Trace:
        return Trace(trace.operations, subject.bind({**values, **kept}).literals)

    kinds = {operation.kind for operation in trace.operations}

    def breaks(values: dict[str, Any]) -> bool:
        try:
            bound = subject.bind({**values, **kept})
            if find_untried(bound, trials.runner(bound), kinds):
                return False
            return trials.breaks(with_options(values), known)
        except SubjectError:  # the constructor refuses these options
            return False

    if not subject.open and breaks({}):
        return with_options({})
    values = shrink_options(strategy, breaks, SETS, seed)
    return trace if values is None else with_options(values)


def swept_traces(
    check: Check,
    holding: Sequence[Check],
    number: int,
    cases: Sequence[OptionSet],
) -> Iterator[Trace]:
    """The traces of the sweep for set of options `number` in `cases`.

    The first `SWEPT_SETS` sets are swept at every save point. Each of the others has one trace,
    and only for a state check: for a resume check there is the search.
    """
    case = cases[number]
    length = case.bound.subject.length
    epochs = min(case.epochs, length)
    if number >= SWEPT_SETS:
        found = sweep_thinly(check, epochs) if check.kind == "state" else iter(())
    elif check.changes_options:
        yield from change_traces(case.bound, [other.bound for other in cases], epochs, length)
        return
    elif check.mixes:
        found = sweep_pairs(holding, epochs)
    else:
        found = sweep(check, epochs, int(bool(case.ended) and case.epochs < length))
    for operations in found:
        yield Trace(operations, case.bound.literals)
    if not check.mixes and number < SWEPT_SETS:
        for operations in sweep_events(check, case.events):
            yield Trace(operations, case.bound.literals)


def drawn_traces(
    check: Check,
    holding: Sequence[Check],
    cases: Sequence[OptionSet],
    budget: Budget,
) -> Iterator[Trace]:
    """The traces that the search draws; each has the next set of options."""
    if check.mixes:
        ways = tuple((way.at, way.name, way.from_epoch) for way in holding)
    else:
        ways = ((check.at, "", check.from_epoch),) if check.at in BACK else ()
    lost = {kind for way in (check, *holding) for kind in way.without}
    if "load" in (check.at, *(way.at for way in holding)):
        lost.update(ADDS_GROUP)
    for number in range(budget.max_examples):
        case = cases[number % len(cases)]
        epochs = case.epochs
        if len(cases) > 1:  # with few lengths, operations are drawn only a few times
            epochs = max(length for length in HORIZONS if length <= epochs)
        events = tuple(kind for kind in case.events if kind not in lost)
        plan = Plan(ways, epochs, case.bound.subject.length, events)
        drawn = draw_operations(plan, budget.max_examples, budget.seed)
        if number < len(drawn):
            yield Trace(drawn[number], case.bound.literals)
