"""The sweep: a cheap, exhaustive pass over every save point of a plain run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from harness.core.check import Check
from harness.core.operations import ADDS_GROUP, BACK, Operation

FEW = (0, 1, 2)
"""Save points for checks too slow to be searched; the middle and the end are added."""


def sweep(check: Check, epochs: int, beyond: int = 0) -> Iterator[tuple[Operation, ...]]:
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


def sweep_thinly(check: Check, epochs: int) -> Iterator[tuple[Operation, ...]]:
    """A plain run of `epochs` epochs; if the check looks at saves, it saves after each epoch."""
    save = (Operation("save", slot="a"),)
    if check.at == "step" and "checkpoint" not in check.parameters:
        yield _train(epochs)
    else:
        yield (*save, *(*_train(1), *save) * epochs)


def sweep_events(check: Check, events: Sequence[str]) -> Iterator[tuple[Operation, ...]]:
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


def sweep_pairs(ways: Sequence[Check], epochs: int) -> Iterator[tuple[Operation, ...]]:
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


def _train(count: int) -> tuple[Operation, ...]:
    return (Operation("train", count=count),) if count > 0 else ()
