"""Where the traces of a check come from: the sweep, then the search."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.checks.registry import CHANGED, MIXED
from harness.core.check import Check
from harness.core.result import Budget
from harness.core.trace import BACK, Trace
from harness.engine.option_changes import change_traces
from harness.engine.option_sets import HORIZONS, SWEPT_SETS, Case
from harness.engine.search import Plan, draw_operations
from harness.engine.sweep import sweep, sweep_events, sweep_pairs, sweep_thinly


def swept_traces(
    check: Check,
    holding: Sequence[Check],
    number: int,
    cases: Sequence[Case],
) -> Iterator[Trace]:
    """What the sweep goes over for the set of options with a `number` in `cases`.

    The first `SWEPT_SETS` are swept at every save point; of the others each has one trace,
    for a state check alone: a resume check has the search.
    """
    case = cases[number]
    length = case.bound.subject.length
    epochs = min(case.epochs, length)
    if number >= SWEPT_SETS:
        found = sweep_thinly(check, epochs) if check.kind == "state" else iter(())
    elif check is CHANGED:
        yield from change_traces(case.bound, [other.bound for other in cases], epochs, length)
        return
    elif check is MIXED:
        found = sweep_pairs(holding, epochs)
    else:
        found = sweep(check, epochs, int(bool(case.ended) and case.epochs < length))
    for operations in found:
        yield Trace(operations, case.bound.literals)
    if check is not MIXED and number < SWEPT_SETS:
        for operations in sweep_events(check, case.events):
            yield Trace(operations, case.bound.literals)


def drawn_traces(
    check: Check,
    holding: Sequence[Check],
    cases: Sequence[Case],
    budget: Budget,
) -> Iterator[Trace]:
    """What the search draws, each trace with the next of the sets of options."""
    if check is MIXED:
        ways = tuple((way.at, way.name, way.from_epoch) for way in holding)
    else:
        ways = ((check.at, "", check.from_epoch),) if check.at in BACK else ()
    lost = {kind for way in (check, *holding) for kind in way.without}
    if "load" in (check.at, *(way.at for way in holding)):
        lost.add("add_group")
    for number in range(budget.max_examples):
        case = cases[number % len(cases)]
        epochs = case.epochs
        if len(cases) > 1:  # few lengths, so that operations are drawn few times
            epochs = max(length for length in HORIZONS if length <= epochs)
        events = tuple(kind for kind in case.events if kind not in lost)
        plan = Plan(ways, epochs, case.bound.subject.length, events)
        drawn = draw_operations(plan, budget.max_examples, budget.seed)
        if number < len(drawn):
            yield Trace(drawn[number], case.bound.literals)
