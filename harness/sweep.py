"""The sweep: every save point of a plain run, cheap and exhaustive."""

from __future__ import annotations

from collections.abc import Iterator

from harness.decorators import Check
from harness.trace import BACK, Operation

__all__ = ["sweep"]


def sweep(check: Check, epochs: int) -> Iterator[tuple[Operation, ...]]:
    """Every save point of a plain run of `epochs` epochs, as the operations of one trace each.

    A resume check goes on from the save to the end, goes back, and goes on again.
    """

    def train(count: int) -> tuple[Operation, ...]:
        return (Operation("train", count=count),) if count else ()

    save = (Operation("save", slot="a"),)
    if check.at == "step" and "checkpoint" not in check.parameters:
        yield train(epochs)
        return
    for k in range(check.from_epoch, epochs + 1):
        rest = train(epochs - k)
        if check.at in BACK:
            back = (Operation(check.at, slot="a"),)
            yield (*train(k), *save, *back, *rest, *back, *rest)
        else:
            yield (*train(k), *save, *rest)
    if check.at == "save":
        for every in (1, 2, 3, 5):
            yield (*train(every), *save) * (epochs // every)
