"""Looks for a trace that breaks a check, by sweep and then by search, and simplifies it.

The sweep is a cheap, exhaustive pass over every save point of a plain run.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hypothesis.database import DirectoryBasedExampleDatabase, ExampleDatabase

from harness.core.check import Check
from harness.core.errors import SubjectError, TraceError
from harness.core.files import check_folder
from harness.core.operations import ADDS_GROUP, BACK, EVENTS, KINDS, PLAIN, STEPS, Operation
from harness.core.result import Budget, Counterexample, FoundBy
from harness.core.trace import Trace
from harness.core.types import Options
from harness.engine.machine import Operations, Plan, draw_operations
from harness.engine.option_changes import change_traces
from harness.engine.option_sets import HORIZONS, SETS, SWEPT_SETS, OptionSet, find_untried
from harness.engine.trials import Trials
from harness.subjects.drawn_options import shrink_options

__all__ = [
    "WHOLE", "Examples", "Hit", "find", "minimise", "neighbours", "simplify", "sweep",
    "sweep_events", "sweep_pairs",
]  # fmt: skip


class Examples:
    """Traces that broke a pair of subject and check; each is written at once and completely."""

    def __init__(self, database: ExampleDatabase) -> None:
        self.database = database

    @classmethod
    def here(cls) -> Examples:
        """The examples in Hypothesis's own folder: ``.hypothesis/examples``, unless configured.

        ``HYPOTHESIS_STORAGE_DIRECTORY`` names another folder than ``.hypothesis``. Raises
        `OutputError` if the folder is not writable.
        """
        folder = Path(os.environ.get("HYPOTHESIS_STORAGE_DIRECTORY", ".hypothesis"), "examples")
        check_folder(folder)
        return cls(DirectoryBasedExampleDatabase(folder))

    def of(self, subject: str, check: str) -> list[Trace]:
        """The traces of a pair, the shortest first; text that is not a valid trace is deleted."""
        traces = []
        for value in list(self.database.fetch(_key(subject, check))):
            try:
                traces.append(Trace.parse(value.decode()))
            except (TraceError, UnicodeDecodeError):
                self.database.delete(_key(subject, check), value)
        return sorted(traces, key=lambda trace: (len(str(trace)), str(trace)))

    def save(self, subject: str, check: str, trace: Trace) -> None:
        """Save a trace."""
        self.database.save(_key(subject, check), str(trace).encode())

    def forget(self, subject: str, check: str, trace: Trace) -> None:
        """Delete a trace."""
        self.database.delete(_key(subject, check), str(trace).encode())


def _key(subject: str, check: str) -> bytes:
    return f"lr-resume-harness {subject} {check}".encode()


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

    def with_options(values: Options) -> Trace:
        return Trace(trace.operations, subject.bind({**values, **kept}).literals)

    kinds = {operation.kind for operation in trace.operations}

    def breaks(values: Options) -> bool:
        try:
            bound = subject.bind({**values, **kept})
            if find_untried(bound, trials.runner(bound), kinds):
                return False
            return trials.breaks(with_options(values), known)
        except SubjectError:  # the constructor refuses these options
            return False

    if not subject.drawn_fields and breaks({}):
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
    drawn_from = []
    for case, _ in zip(itertools.cycle(cases), range(budget.max_examples), strict=False):
        epochs = case.epochs
        if len(cases) > 1:  # with few lengths, operations are drawn only a few times
            epochs = max(length for length in HORIZONS if length <= epochs)
        events = tuple(kind for kind in case.events if kind not in lost)
        drawn_from.append((case, Plan(ways, epochs, case.bound.subject.length, events)))
    drawn = {
        plan: iter(draw_operations(plan, count, budget.seed))
        for plan, count in Counter(plan for _, plan in drawn_from).items()
    }
    for case, plan in drawn_from:
        for operations in itertools.islice(drawn[plan], 1):
            yield Trace(operations, case.bound.literals)


FEW = (0, 1, 2)
"""Save points for checks too slow to be searched; the middle and the end are added."""


def sweep(check: Check, epochs: int, beyond: int = 0) -> Iterator[Operations]:
    """The operations of one trace for each save point of a plain run of `epochs` epochs.

    A resume check resumes there, saves again, resumes from that save and runs to the end. Then
    it goes back to the first save and runs to the end once more, and `beyond` epochs further.
    A check that is not searched has only a few save points.
    """
    save = (Operation("save", slot="a"),)
    if check.at == "step" and "checkpoint" not in check.parameters:
        yield _train(epochs)
        return
    points: Iterable[int] = range(check.from_epoch, epochs + 1)
    if not check.search:
        few = {check.from_epoch, *FEW, epochs // 2, epochs}
        points = [k for k in points if k in few]
    for k in points:
        rest, to_the_end = _train(epochs - k), _train(epochs - k + beyond)
        if check.at in BACK:
            back = (Operation(check.at, slot="a"),)
            again = (Operation("save", slot="b"), Operation(check.at, slot="b"))
            yield (*_train(k), *save, *back, *again, *rest, *back, *to_the_end)
        else:
            yield (*_train(k), *save, *to_the_end)
    if check.at == "save":
        for every in (1, 2, 3, 5):
            if every <= epochs:
                yield (*_train(every), *save) * (epochs // every)


def sweep_thinly(check: Check, epochs: int) -> Iterator[Operations]:
    """A plain run of `epochs` epochs; if the check looks at saves, it saves after each epoch."""
    save = (Operation("save", slot="a"),)
    if check.at == "step" and "checkpoint" not in check.parameters:
        yield _train(epochs)
    else:
        yield (*save, *(*_train(1), *save) * epochs)


def sweep_events(check: Check, events: Sequence[str]) -> Iterator[Operations]:
    """Traces with the rare events: before a save, right after a resume, and later."""
    save, again = Operation("save", slot="a"), Operation("save", slot="b")
    for kind in events:
        event = Operation(kind, count=1)
        for k in (1, 3) if check.search else (1,):
            if check.at not in BACK:
                if kind in check.without:
                    continue
                if check.at == "step" and "checkpoint" not in check.parameters:
                    yield (*_train(k), event, *_train(k))
                else:
                    yield (*_train(k), event, save, *_train(1), event, save, *_train(2))
                continue
            back = Operation(check.at, slot="a")
            in_place = check.at == "load" and kind in ADDS_GROUP
            if not in_place:
                yield (*_train(k), save, back, event, *_train(2), back, *_train(3))
            if kind in check.without:
                continue
            twice = () if in_place else (event, again, Operation(check.at, slot="b"))
            yield (
                *_train(k), event, save, back, *_train(1), *twice, *_train(2), back, *_train(3)
            )  # fmt: skip


def sweep_pairs(ways: Sequence[Check], epochs: int) -> Iterator[Operations]:
    """A trace for each pair of ways of resuming, one after the other in a plain run."""
    k = max(way.from_epoch for way in ways) + 1
    for first in ways:
        for second in ways:
            yield (
                *_train(k),
                Operation("save", slot="a"),
                Operation(first.at, slot="a", check=first.name),
                *_train(1),
                Operation("save", slot="b"),
                Operation(second.at, slot="b", check=second.name),
                *_train(epochs - k - 1),
            )


def _train(count: int) -> Operations:
    return (Operation("train", count=count),) if count > 0 else ()


WHOLE = {frozenset(kind.parts): kind.word for kind in KINDS if kind.parts}
"""For each pair of kinds that together make one operation, the word of that operation."""


def neighbours(trace: Trace) -> Iterator[Trace]:
    """Every trace that is one step smaller.

    One operation is dropped, one count is lowered (the lowest first), or two
    neighbours are merged: two of one kind, or an optimizer step and a scheduler
    step into ``train``. Invalid traces, which go back to a slot never saved, are left out.
    """
    return _valid(trace, _neighbours(trace.operations))


def _neighbours(operations: Operations) -> Iterator[Operations]:
    for i in range(len(operations)):
        yield operations[:i] + operations[i + 1 :]
    for i in range(len(operations) - 1):
        merged = _merge(*operations[i : i + 2])
        if merged:
            yield (*operations[:i], merged, *operations[i + 2 :])
    for i, operation in enumerate(operations):
        for count in range(1, operation.count):
            yield (*operations[:i], replace(operation, count=count), *operations[i + 1 :])


def _merge(first: Operation, second: Operation) -> Operation | None:
    if first.kind == second.kind and first.kind in STEPS:
        return replace(first, count=first.count + second.count)
    whole = WHOLE.get(frozenset((first.kind, second.kind)))
    return Operation(whole, count=first.count) if whole and first.count == second.count else None


def _leaps(operations: Operations) -> Iterator[Operations]:
    """What single steps may not reach: without a slot, or with a slot renamed."""
    for slot in sorted({operation.slot for operation in operations if operation.slot}):
        yield tuple(op for op in operations if op.slot != slot)
        if slot != "a":
            yield tuple(replace(op, slot="a") if op.slot == slot else op for op in operations)


def _regroupings(operations: Operations) -> Iterator[Operations]:
    """As many steps in fewer operations: two step operations become one ``train``."""
    steps = [i for i, operation in enumerate(operations) if operation.kind in STEPS]
    for i, j in itertools.combinations(steps, 2):
        both = Operation("train", count=operations[i].count + operations[j].count)
        between = operations[i + 1 : j]
        yield (*operations[:i], *between, both, *operations[j + 1 :])
        if between:
            yield (*operations[:i], both, *between, *operations[j + 1 :])


def _plainer(operations: Operations) -> Iterator[Operations]:
    """A plain step in place of a rare event."""
    for i, operation in enumerate(operations):
        for kind in PLAIN if operation.kind in EVENTS else ():
            yield (*operations[:i], replace(operation, kind=kind), *operations[i + 1 :])


def _valid(trace: Trace, smaller: Iterable[Operations]) -> Iterator[Trace]:
    """The traces with these operations that are valid."""
    for operations in smaller:
        with contextlib.suppress(TraceError):
            yield Trace(operations, trace.options)


def minimise(trace: Trace, breaks: Callable[[Trace], bool]) -> Trace:
    """A 1-minimal trace that still `breaks`: none of its `neighbours` does.

    If no smaller trace breaks, steps are regrouped into fewer operations and the search goes on
    from there. `trace` itself must break.
    """
    while True:
        ways = (_leaps, _neighbours, _plainer, _regroupings)
        smaller = itertools.chain.from_iterable(way(trace.operations) for way in ways)
        found = next(filter(breaks, _valid(trace, smaller)), None)
        if found is None:
            return trace
        trace = found
