"""Makes a failing trace minimal: fewer operations, lower counts, plainer steps."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from harness.core.errors import TraceError
from harness.core.operations import (
    EVENTS,
    GO_BACK,
    KINDS,
    PLAIN,
    STEPS,
    Operation,
    operations_of,
    walk,
)
from harness.core.trace import Trace
from harness.engine.machine import Operations

LOW = 36
"""Every count up to this one is tried."""
MANY = 8
"""From this many saves on, the last one alone is tried first."""

WHOLE = {frozenset(kind.parts): kind.word for kind in KINDS if kind.parts}
"""For each pair of kinds that together make one operation, the word of that operation."""


def neighbours(trace: Trace) -> Iterator[Trace]:
    """Every trace that is one step smaller.

    One operation is dropped, one count is lowered (the lowest first, see `lower_counts`), or
    two neighbours are merged: two of one kind, or an optimizer step and a scheduler step into
    ``train``. Invalid traces, which go back to a slot never saved, are left out.
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
        for count in lower_counts(operation.count):
            yield (*operations[:i], replace(operation, count=count), *operations[i + 1 :])


def lower_counts(count: int) -> list[int]:
    """The lower counts to try in the place of `count`: all that are low, and a bisection.

    >>> lower_counts(4)
    [1, 2, 3]
    >>> lower_counts(100)[-8:]
    [35, 36, 68, 84, 92, 96, 98, 99]
    """
    halves = (count - 2**power for power in range(count.bit_length()))
    return sorted({*range(1, min(count, LOW + 1)), *(half for half in halves if half > LOW)})


def _merge(first: Operation, second: Operation) -> Operation | None:
    if first.kind == second.kind and first.kind in STEPS:
        return replace(first, count=first.count + second.count)
    whole = WHOLE.get(frozenset((first.kind, second.kind)))
    return Operation(whole, count=first.count) if whole and first.count == second.count else None


def _condensed(operations: Operations) -> Iterator[Operations]:
    """A long trace with its last save alone, and what follows from there.

    If that is not enough, the run goes on after the save as it did before it was taken back.
    """
    if sum(operation.kind == "save" for operation in operations) < MANY:
        return
    paths = list(walk(operations))
    back = max((i for i, op in enumerate(operations) if op.kind in GO_BACK), default=None)
    if back is not None:
        _, left, saved = paths[back]
        before = (*operations_of(saved), Operation("save", slot=operations[back].slot))
        yield (*before, *operations[back:])
        if left.startswith(saved):
            yield (*before, *operations_of(left[len(saved) :]), *operations[back:])
        return
    last = max(i for i, op in enumerate(operations) if op.kind == "save")
    yield (*operations_of(paths[last][1]), *operations[last:])


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
    """A plain step in place of a rare event, and ``train`` in place of one of its two parts."""
    for i, operation in enumerate(operations):
        plainer = PLAIN if operation.kind in EVENTS else PLAIN[:1]
        for kind in plainer if operation.kind in (*EVENTS, *PLAIN[1:]) else ():
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
        ways = (_condensed, _leaps, _neighbours, _plainer, _regroupings)
        smaller = itertools.chain.from_iterable(way(trace.operations) for way in ways)
        found = next(filter(breaks, _valid(trace, smaller)), None)
        if found is None:
            return trace
        trace = found
