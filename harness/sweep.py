"""The sweep: every save point of a plain run, cheap and exhaustive."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.decorators import Check
from harness.trace import BACK, Operation

__all__ = ["sweep", "sweep_pairs"]


def sweep(check: Check, epochs: int) -> Iterator[tuple[Operation, ...]]:
    """Every save point of a plain run of `epochs` epochs, as the operations of one trace each.

    A resume check goes on from there, saves and goes on from that too, and at
    the end goes back to the first save and on again. A check that is not searched is
    swept at its first epochs, the middle and the end alone.
    """
    save = (Operation("save", slot="a"),)
    if check.at == "step" and "checkpoint" not in check.parameters:
        yield _train(epochs)
        return
    points = list(range(check.from_epoch, epochs + 1))
    if not check.search:
        few = {check.from_epoch, 1, 2, epochs // 2, epochs}
        points = [k for k in points if k in few]
    for k in points:
        rest = _train(epochs - k)
        if check.at in BACK:
            back = (Operation(check.at, slot="a"),)
            again = (Operation("save", slot="b"), Operation(check.at, slot="b"))
            yield (*_train(k), *save, *back, *again, *rest, *back, *rest)
        else:
            yield (*_train(k), *save, *rest)
    if check.at == "save":
        for every in (1, 2, 3, 5):
            if every <= epochs:
                yield (*_train(every), *save) * (epochs // every)


def sweep_pairs(ways: Sequence[Check], epochs: int) -> Iterator[tuple[Operation, ...]]:
    """Every way of resuming after every other, in a plain run, as a trace each."""
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


def _train(count: int) -> tuple[Operation, ...]:
    return (Operation("train", count=count),) if count > 0 else ()
