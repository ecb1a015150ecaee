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

from harness.checks import MIXED, as_check
from harness.decorators import Check
from harness.errors import TraceError
from harness.trace import BACK, STEPS, Operation, Trace

__all__ = [
    "LETTER",
    "branches",
    "epochs",
    "gradients",
    "groups_added",
    "path_to",
    "routes",
    "unpath",
    "walk",
]

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


def routes(check: Check, trace: Trace) -> list[Check]:
    """For every operation of `trace`, the check that a resume or load goes by."""
    found: list[Check] = []
    for operation, before, path in walk(trace.operations):
        route = check
        if check.kind == "state" and operation.kind in check.without:
            raise TraceError(
                f"'{operation}' in the trace: {check.name} promises nothing of runs with it; "
                "leave it out"
            )
        if operation.kind in BACK:
            route = _route(check, operation)
            _covers(route, operation, before, path)
            if epochs(path) < route.from_epoch:
                raise TraceError(
                    f"'{operation}' in the trace goes back to epoch {epochs(path)}, and "
                    f"{route.name} resumes from epoch {route.from_epoch} on: put train:1 "
                    "before the save"
                )
        found.append(route)
    return found


def _covers(route: Check, operation: Operation, before: str, path: str) -> None:
    """Raise `TraceError` where a check does not resume what was done on the way to a slot."""
    for kind in route.without:
        if LETTER[kind] in path:
            raise TraceError(
                f"'{operation}' in the trace goes back behind {kind}, and {route.name} does not "
                f"bring back what that did: leave it out before the save"
            )
    if operation.kind == "load" and groups_added(before) != groups_added(path):
        raise TraceError(
            f"'{operation}' in the trace goes back to another number of param groups, and "
            "no optimizer can: save after add_group as well"
        )


def _route(check: Check, operation: Operation) -> Check:
    """The check that one resume or load goes by."""
    route = check
    if check is MIXED:
        if not operation.check:
            raise TraceError(
                f"'{operation}' in the trace: {check.name} needs to know by which check: "
                f"write {operation}@CHECK"
            )
        route = as_check(operation.check)
    elif operation.check not in ("", check.name):
        raise TraceError(
            f"'{operation}' in the trace: only {MIXED.name} mixes checks; "
            f"leave out @{operation.check}"
        )
    if route is MIXED or route.kind != "resume" or route.at != operation.kind:
        how = {"save": "but at every save", "step": "but after every step"}
        how |= {kind: f"but by {kind}:{operation.slot}" for kind in BACK}
        raise TraceError(
            f"'{operation}' in the trace: {route.name} is not done by {operation.kind}, "
            f"{how[route.at]}"
        )
    return route
