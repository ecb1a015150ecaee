"""Looks for a trace that breaks a check, by sweep and then by search, and simplifies it.

How the harness looks for a difference:

1. Options: the subject's own options are tried first, then 25 sets that Hypothesis draws for its
   constructor (`harness.subjects.drawn_options`). If the subject has no optimizer of its own, or
   steps with a metric, its own options are also tried with other optimizers and other metrics.
2. Sweep: for the first three sets, every epoch of a short run is a save point. Resume there, save
   and resume again, run on, go back and run on. With its own options a long trace also saves and
   resumes around the changes of 2,000 epochs (`harness.engine.horizon`). The sweep also saves twice
   without a step in between, and tries the rare events. Checks of the state go over all sets.
3. Search: a state machine (`harness.engine.machine`) draws traces of all operations, for each
   resume check. Those that hold are then mixed in one run (`resumes_mixed`): first each after each
   other, then at random. Each trace takes the next set of options.
4. A failing trace is made minimal (`harness.engine.minimise`) and run twice from scratch before it
   is reported. It gets the subject's own options if it fails with them, else the drawn options as
   Hypothesis shrinks them.
5. A failure is not reported if a scheduler that does nothing fails in the same way on the same
   drawn optimizer (`harness.engine.pair_tester`).
6. If ledger entries explain failures of a pair, it is swept and searched for others. With the
   subject's own options an entry covers one failure exactly. A known failure shows in many ways
   with drawn options and other optimizers: there an entry covers all values in the same fields.

The same ``--seed`` gives the same results.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.core.check import Check
from harness.core.errors import SubjectError
from harness.core.ledger import KnownFailure
from harness.core.operations import ADDS_GROUP, GO_BACK, Operation
from harness.core.result import Budget, FoundBy
from harness.core.trace import Trace
from harness.core.types import Options
from harness.engine.examples import Examples
from harness.engine.machine import DrawPlan, Operations, draw_operations
from harness.engine.minimise import minimise
from harness.engine.option_changes import (
    change_text,
    change_traces,
    resumed_again,
    with_each_change,
)
from harness.engine.option_sets import RUN_LENGTHS, SETS, SWEPT_SETS, OptionSet, find_untried
from harness.engine.pair_tester import PairTester
from harness.engine.sweep import (
    EARLY,
    GIVEN_EPOCH,
    OTHERS,
    sweep,
    sweep_along,
    sweep_events,
    sweep_pairs,
    sweep_thinly,
    sweep_with_another_scheduler,
)
from harness.subjects.drawn_options import shrink_options


@dataclass(frozen=True)
class Hit:
    """A trace that breaks a check, cut after the step that breaks it, and what found it."""

    trace: Trace
    by: FoundBy


def find(
    tester: PairTester,
    option_sets: Sequence[OptionSet],
    holding: Sequence[Check],
    budget: Budget,
    *,
    examples: Examples | None = None,
    known: Sequence[KnownFailure] = (),
) -> Hit | None:
    """A trace that breaks the check with one of the option sets, or None.

    A failure that one of the `known` ones explains is skipped. A check that mixes others resumes by
    those in `holding`.
    """
    check = tester.check
    if examples is not None and not known:
        trace = _example(tester, examples)
        if trace is not None:
            return Hit(tester.cut(trace), FoundBy.EXAMPLE)
    for number in range(len(option_sets) if budget.sweep else 0):
        traces = swept_traces(check, holding, number, option_sets, drawn=not known)
        drawn = number >= SWEPT_SETS and not option_sets[number].variation
        if check.changes_options and drawn:  # some options matter only with others
            changed_before = set(tester.followed)
            traces = (trace for trace in traces if change_text(trace)[0] not in changed_before)
        broken = (trace for trace in traces if tester.breaks(trace, known))
        trace = next(broken, None)
        if trace is not None:
            if check.changes_options:
                list(broken)  # the verdict also says which behaviour the other options follow
            return Hit(tester.cut(trace), FoundBy.SWEEP)
    if check.searched and budget.max_examples:
        traces = drawn_traces(check, holding, option_sets, budget)
        trace = next((trace for trace in traces if tester.breaks(trace, known)), None)
        if trace is not None:
            return Hit(tester.cut(trace), FoundBy.SEARCH)
    return None


def _example(tester: PairTester, examples: Examples) -> Trace | None:
    """A trace that an earlier run found and that still breaks the check, or None."""
    subject, check = tester.subject.name, tester.check.name
    for trace in examples.of(subject, check):
        with contextlib.suppress(SubjectError):  # the subject takes other options now
            if tester.breaks(trace):
                return trace
        examples.forget(subject, check, trace)
    return None


def simplify(
    tester: PairTester, trace: Trace, seed: int, known: Sequence[KnownFailure] = ()
) -> Trace:
    """`trace` with fewer operations and, if its options are drawn, simpler options."""
    while True:
        trace = minimise(trace, lambda candidate: tester.breaks(candidate, known))
        simpler = _simpler_options(tester, trace, seed, known)
        if simpler == trace:
            return trace
        trace = simpler


def _simpler_options(
    tester: PairTester, trace: Trace, seed: int, known: Sequence[KnownFailure]
) -> Trace:
    """The same operations with the subject's own options, or with options that Hypothesis shrinks.

    The options of `trace` stay if the trace breaks with no simpler ones.
    """
    subject = tester.subject
    strategy = subject.strategy
    if strategy is None and "optimizer" not in dict(trace.options):
        return trace
    kept = {name: value for name, value in trace.options if name == "changed"}

    def with_options(values: Options) -> Trace:
        return Trace(trace.operations, subject.bind({**values, **kept}).literals)

    kinds = {operation.kind for operation in trace.operations}

    def breaks(values: Options) -> bool:
        try:
            bound = subject.bind({**values, **kept})
            if find_untried(bound, tester.runner(bound), kinds):
                return False
            return tester.breaks(with_options(values), known)
        except SubjectError:  # the constructor refuses these options
            return False

    if not subject.drawn_fields and breaks({}):
        return with_options({})
    if strategy is None:
        return trace
    values = shrink_options(strategy, breaks, SETS, seed)
    return trace if values is None else with_options(values)


def swept_traces(
    check: Check,
    holding: Sequence[Check],
    number: int,
    option_sets: Sequence[OptionSet],
    *,
    drawn: bool = True,
) -> Iterator[Trace]:
    """The traces of the sweep for set of options `number` in `option_sets`.

    The first `SWEPT_SETS` sets are swept at every save point, and the first one far beyond. Each
    of the others has one trace. For a resume check it has one only if the set has another optimizer
    than the subject, or changes an option: for the others there is the search. Options also change
    with the optimizer of the first variation. Unless `drawn`, they do not change to drawn ones.
    """
    option_set = option_sets[number]
    length = option_set.bound.subject.length
    epochs = min(option_set.epochs, length)
    beyond = int(bool(option_set.ended) and option_set.epochs < length)
    found: Iterator[Operations]
    if check.event:
        found = iter(())
    elif "build_other" in check.parameters:
        found = iter([sweep_with_another_scheduler(epochs + beyond)])
        if number < SWEPT_SETS:
            yield from with_each_change(
                sweep_with_another_scheduler(epochs + beyond), option_set.bound, ()
            )
        if option_set.own and GIVEN_EPOCH in option_set.events:
            yield from with_each_change(
                sweep_with_another_scheduler(1, GIVEN_EPOCH), option_set.bound, ()
            )
    elif number >= SWEPT_SETS and check.kind == "state":
        found = sweep_thinly(check, epochs)
    elif check.changes_options:
        others = [other.bound for other in option_sets if drawn or other.own]
        if not option_set.variation:
            yield from change_traces(option_set.bound, others, epochs, length)
        elif option_sets[number - 1].variation:  # of the variations, the first has more groups
            return
        if number == 0 or number >= SWEPT_SETS:
            by_epoch = [Operation(GIVEN_EPOCH, count=3)] * (GIVEN_EPOCH in option_set.events)
            yield from resumed_again(option_set.bound, others, epochs, length, by_epoch)
        return
    elif option_set.variation:
        early = [point for point in OTHERS if check.from_epoch <= point <= epochs]
        found = iter([sweep_along(check, early, epochs)] if check.search and early else [])
    elif number >= SWEPT_SETS:
        found = iter(())
    elif check.mixes:
        found = sweep_pairs(holding, epochs)
    else:
        found = sweep(check, epochs, beyond)
    for operations in found:
        yield Trace(operations, option_set.bound.literals)
    if check.mixes or number >= SWEPT_SETS or option_set.variation:
        return
    events = [kind for kind in option_set.events if check.event in ("", kind)]
    for operations in sweep_events(check, events):
        yield Trace(operations, option_set.bound.literals)
    if check.event:
        return
    late = option_set.horizon.points(epochs)
    points = [point for point in (EARLY, *late) if point >= check.from_epoch]
    if late and points and check.search:
        operations = sweep_along(check, points, option_set.horizon.epochs)
        yield Trace(operations, option_set.bound.literals)


def drawn_traces(
    check: Check,
    holding: Sequence[Check],
    option_sets: Sequence[OptionSet],
    budget: Budget,
) -> Iterator[Trace]:
    """The traces that the search draws; each has the next set of options."""
    if check.mixes:
        ways = tuple((each.at, each.name, each.from_epoch) for each in holding)
    else:
        ways = ((check.at, "", check.from_epoch),) if check.at in GO_BACK else ()
    lost = {kind for each in (check, *holding) for kind in each.without}
    if "load" in (check.at, *(each.at for each in holding)):
        lost.update(ADDS_GROUP)
    drawn_from = []
    for option_set, _ in zip(
        itertools.cycle(option_sets), range(budget.max_examples), strict=False
    ):
        epochs = option_set.epochs
        if len(option_sets) > 1:  # with few lengths, operations are drawn only a few times
            epochs = max(length for length in RUN_LENGTHS if length <= epochs)
        events = tuple(kind for kind in option_set.events if kind not in lost)
        drawn_from.append(
            (option_set, DrawPlan(ways, epochs, option_set.bound.subject.length, events))
        )
    drawn = {
        plan: iter(draw_operations(plan, count, budget.seed))
        for plan, count in Counter(plan for _, plan in drawn_from).items()
    }
    for option_set, plan in drawn_from:
        for operations in itertools.islice(drawn[plan], 1):
            yield Trace(operations, option_set.bound.literals)
