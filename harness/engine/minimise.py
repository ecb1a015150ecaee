"""Makes the trace of a counterexample minimal."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace

from harness.core.errors import TraceError
from harness.core.operations import EVENTS, KINDS, PLAIN, STEPS, Operation
from harness.core.trace import Trace

WHOLE = {frozenset(kind.parts): kind.word for kind in KINDS if kind.parts}
"""For each pair of kinds that together make one operation, the word of that operation."""


def neighbours(trace: Trace) -> Iterator[Trace]:
    """Every trace that is one step smaller.

    One operation is dropped, one count is lowered (the lowest first), or two
    neighbours are merged: two of one kind, or an optimizer step and a scheduler
    step into ``train``. Invalid traces, which go back to a slot never saved, are left out.
    """
    operations = trace.operations
    for i in range(len(operations)):
        yield from _trace(trace, operations[:i] + operations[i + 1 :])
    for i in range(len(operations) - 1):
        merged = _merge(*operations[i : i + 2])
        if merged:
            yield from _trace(trace, (*operations[:i], merged, *operations[i + 2 :]))
    for i, operation in enumerate(operations):
        for count in range(1, operation.count):
            lowered = replace(operation, count=count)
            yield from _trace(trace, (*operations[:i], lowered, *operations[i + 1 :]))


def _merge(first: Operation, second: Operation) -> Operation | None:
    if first.kind == second.kind and first.kind in STEPS:
        return replace(first, count=first.count + second.count)
    whole = WHOLE.get(frozenset((first.kind, second.kind)))
    return Operation(whole, count=first.count) if whole and first.count == second.count else None


def _leaps(trace: Trace) -> Iterator[Trace]:
    """Smaller traces that single steps may not reach: without a slot, or with a slot renamed."""
    for slot in sorted({operation.slot for operation in trace.operations if operation.slot}):
        yield from _trace(trace, tuple(op for op in trace.operations if op.slot != slot))
        if slot != "a":
            renamed = (replace(op, slot="a") if op.slot == slot else op for op in trace.operations)
            yield from _trace(trace, tuple(renamed))


def _regroupings(trace: Trace) -> Iterator[Trace]:
    """Traces with as many steps in fewer operations: two step operations become one ``train``."""
    operations = trace.operations
    for i, first in enumerate(operations):
        for j in range(i + 1, len(operations)):
            second = operations[j]
            if first.kind in STEPS and second.kind in STEPS:
                both = Operation("train", count=first.count + second.count)
                between = operations[i + 1 : j]
                yield from _trace(trace, (*operations[:i], *between, both, *operations[j + 1 :]))
                if between:
                    yield from _trace(
                        trace, (*operations[:i], both, *between, *operations[j + 1 :])
                    )


def _plainer(trace: Trace) -> Iterator[Trace]:
    """Traces with a plain step in place of a rare event."""
    for i, operation in enumerate(trace.operations):
        if operation.kind in EVENTS:
            for kind in PLAIN:
                step = replace(operation, kind=kind)
                yield from _trace(trace, (*trace.operations[:i], step, *trace.operations[i + 1 :]))


def _trace(trace: Trace, operations: tuple[Operation, ...]) -> Iterator[Trace]:
    try:
        yield Trace(operations, trace.options)
    except TraceError:
        return


def minimise(trace: Trace, breaks: Callable[[Trace], bool]) -> Trace:
    """A 1-minimal trace that still `breaks`: none of its `neighbours` does.

    If no smaller trace breaks, steps are regrouped into fewer operations and the search goes on
    from there. `trace` itself must break.
    """
    smaller = True
    while smaller:
        smaller = False
        for candidate in itertools.chain(
            _leaps(trace), neighbours(trace), _plainer(trace), _regroupings(trace)
        ):
            if breaks(candidate):
                trace = candidate
                smaller = True
                break
    return trace
