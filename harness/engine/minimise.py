"""Makes a counterexample minimal."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace

from harness.core.errors import TraceError
from harness.core.operations import EVENTS, KINDS, PLAIN, STEPS, Operation
from harness.core.trace import Trace

WHOLE = {frozenset(kind.parts): kind.word for kind in KINDS if kind.parts}
"""The operation that is the same as two others, one after the other."""


def neighbours(trace: Trace) -> Iterator[Trace]:
    """Every trace that is one step smaller.

    One operation is dropped, one count is lowered (the lowest first), or two
    neighbours are merged: two of one kind, or an optimizer step and a scheduler
    step into ``train``. What goes back to a slot never saved is no trace.
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
    """Smaller traces that no single step may reach: a slot never saved, slots under one name."""
    for slot in sorted({operation.slot for operation in trace.operations if operation.slot}):
        yield from _trace(trace, tuple(op for op in trace.operations if op.slot != slot))
        if slot != "a":
            renamed = (replace(op, slot="a") if op.slot == slot else op for op in trace.operations)
            yield from _trace(trace, tuple(renamed))


def _regroupings(trace: Trace) -> Iterator[Trace]:
    """Traces of fewer operations with as many steps: two of any kind as one ``train``."""
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
    """Traces with a step in place of what happens now and then."""
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
    """The smallest trace that steps of `neighbours` lead to and that still `breaks`.

    It is 1-minimal: none of its `neighbours` breaks. Where none is left, steps are put
    together in fewer operations, and it goes on from there. `trace` itself must break.
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
