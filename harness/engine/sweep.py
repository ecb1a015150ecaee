"""The operations of the sweep's traces: which epochs are save points, and what follows them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

from harness.core.check import Check
from harness.core.operations import ADDS_GROUP, GO_BACK, Operation
from harness.engine.machine import Operations

FEW = (0, 1, 2)
"""Save points for checks too slow to be searched; the middle and the end are added."""


def sweep(check: Check, epochs: int, beyond: int = 0) -> Iterator[Operations]:
    """The operations of one trace for each save point of an uninterrupted run of `epochs` epochs.

    A resume check resumes there, saves again, resumes from that save and runs to the end. Then
    it goes back to the first save and runs to the end once more, and `beyond` epochs further.
    It also resumes from the second of two saves without a step in between.
    A check that is not searched has only a few save points.
    """
    save = (Operation("save", slot="a"),)
    if not check.needs_save:
        yield _train(epochs)
        return
    points: Iterable[int] = range(check.from_epoch, epochs + 1)
    if not check.search:
        few = {check.from_epoch, *FEW, epochs // 2, epochs}
        points = [k for k in points if k in few]
    for k in points:
        rest, to_the_end = _train(epochs - k), _train(epochs - k + beyond)
        if check.at in GO_BACK:
            back = (Operation(check.at, slot="a"),)
            again = (Operation("save", slot="b"), Operation(check.at, slot="b"))
            yield (*_train(k), *save, *back, *again, *rest, *back, *to_the_end)
        else:
            yield (*_train(k), *save, *to_the_end)
    if check.at in GO_BACK:
        for k in sorted({check.from_epoch, epochs // 2} & {*points}):
            twice = (*save, Operation("save", slot="b"), Operation(check.at, slot="b"))
            yield (*_train(k), *twice, *_train(epochs - k))
    if check.at == "save":
        for every in (1, 2, 3, 5):
            if every <= epochs:
                yield (*_train(every), *save) * (epochs // every)


AFTER = 3
"""How many epochs a long trace goes on after its last save point."""
EARLY = 3
"""The first save point of a long trace."""
OTHERS = (1, 4, 8)
"""Save points with the optimizers that are tried in addition to the subject's own."""


def sweep_along(check: Check, points: Sequence[int], end: int) -> Operations:
    """The operations of one trace that saves at all `points` and goes back to each.

    From each it runs to the next point and one epoch further, so that its length is linear in the
    number of epochs; at last, from the first one to the end. It does not run past epoch `end`.
    """
    last = min(points[-1] + AFTER, end)
    if not check.needs_save:
        return _train(last)
    saves: Operations = ()
    at = 0
    for point in points:
        saves += (*_train(point - at), Operation("save", slot=f"e{point}"))
        at = point
    saves += _train(last - at)
    if check.at not in GO_BACK:
        return saves
    stops = [*(min(point + 1, last) for point in points[2:]), last][: len(points) - 1]
    resumed = itertools.chain.from_iterable(
        (Operation(check.at, slot=f"e{point}"), *_train(stop - point))
        for point, stop in zip((*points[1:], points[0]), (*stops, last), strict=True)
    )
    return (*saves, *resumed)


GIVEN_EPOCH = "epoch"
"""The event after which some schedulers use options that they use at no other time."""


def sweep_with_another_scheduler(epochs: int, event: str = "") -> Operations:
    """A run that saves at its start and later; at each save the check builds another scheduler.

    It ends with three of the `event`, if one is given.
    """
    save = (Operation("save", slot="a"),)
    last = (Operation(event, count=3),) if event else ()
    return (
        *save, *_train(1), *save, *_train(min(3, epochs - 1)), *save, *_train(epochs - 4), *last
    )  # fmt: skip


def sweep_thinly(check: Check, epochs: int) -> Iterator[Operations]:
    """A run of `epochs` epochs; if the check looks at saves, it saves after each epoch."""
    save = (Operation("save", slot="a"),)
    if not check.needs_save:
        yield _train(epochs)
    else:
        yield (*save, *(*_train(1), *save) * epochs)


def sweep_events(check: Check, events: Sequence[str]) -> Iterator[Operations]:
    """Traces with the rare events: before a save, right after a resume, and later."""
    save, again = Operation("save", slot="a"), Operation("save", slot="b")
    for kind in events:
        event = Operation(kind, count=1)
        for k in (0, 1, 3) if check.search else (1,):
            if k < check.from_epoch:
                continue
            if check.at not in GO_BACK:
                if kind in check.without:
                    continue
                if not check.needs_save:
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


def sweep_pairs(checks: Sequence[Check], epochs: int) -> Iterator[Operations]:
    """A trace for each two resume checks: it resumes by the first, and later by the second.

    At random alone, 2 of 20 searches found a scheduler that is wrong only if a load in place
    follows a copy.
    """
    k = max(each.from_epoch for each in checks) + 1
    for first in checks:
        for second in checks:
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
