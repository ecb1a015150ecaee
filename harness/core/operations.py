"""What a trace means: the uninterrupted runs behind it, and how each resume is made.

A *path* is what an uninterrupted run does, one letter a step: ``t`` for an
optimizer step and a scheduler step, ``o`` and ``s`` for one of them alone, and a
letter for every other operation with a count (`LETTER`). Going
back to a slot cuts the path where the slot was saved, so the path to the present
is always that of a run that was never interrupted.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from harness.core.trace import BACK, STEPS, Operation

LETTER = {
    "train": "t",
    "optimizer": "o",
    "scheduler": "s",
    "skip": "k",
    "epoch": "e",
    "halve_lr": "h",
    "add_group": "g",
}


def epochs(path: str) -> int:
    """How many scheduler steps a path has."""
    return len(path) - sum(map(path.count, "ohg"))


def gradients(path: str) -> int:
    """How often a path computes gradients, to use them or not."""
    return len(path) - sum(map(path.count, "shg"))


def groups_added(path: str) -> int:
    """How many param groups a path adds."""
    return path.count("g")


def branches(operations: Sequence[Operation]) -> list[str]:
    """For every operation, the whole path of the branch that it belongs to.

    >>> from harness.core.trace import Trace
    >>> branches(Trace.parse("train:1 save:a train:2 resume:a scheduler:1").operations)
    ['ttt', 'ttt', 'ttt', 'ts', 'ts']
    """
    whole: list[str] = []
    waiting = 0
    path = ""
    for operation, before, after in walk(operations):
        if operation.kind in BACK:
            whole += [before] * waiting
            waiting = 0
        waiting += 1
        path = after
    return whole + [path] * waiting


def walk(operations: Sequence[Operation]) -> Iterator[tuple[Operation, str, str]]:
    """Every operation, with the path before it and after it."""
    path = ""
    slots: dict[str, str] = {}
    for operation in operations:
        before = path
        if operation.kind in BACK:
            path = slots[operation.slot]
        elif operation.kind == "save":
            slots[operation.slot] = path
        else:
            path += LETTER[operation.kind] * operation.count
        yield operation, before, path


def path_to(operations: Sequence[Operation], operation: int, step: int) -> str:
    """The path to the place after `step` steps of the operation with the index `operation`.

    >>> from harness.core.trace import Trace
    >>> path_to(Trace.parse("train:1 save:a train:2 resume:a scheduler:3").operations, 4, 2)
    'tss'

    0 steps stand for the whole of a save or resume, and for the start of another.
    """
    kind, before, after = list(walk(operations))[operation]
    if kind.kind not in STEPS:
        return after
    return branches(operations)[operation][: len(before) + step]


def unpath(path: str) -> list[Operation]:
    """A path as operations.

    >>> " ".join(map(str, unpath("ttto")))
    'train:3 optimizer:1'
    """
    kinds = {letter: kind for kind, letter in LETTER.items()}
    groups = ((letter, len(list(run))) for letter, run in itertools.groupby(path))
    return [Operation(kinds[letter], count=count) for letter, count in groups]
