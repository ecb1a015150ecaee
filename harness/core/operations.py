"""The operations of a training loop, in one table, and what a trace of them means.

A row of `KINDS` holds all that the harness knows about an operation. Runs in this process and in
another, changed options, scripts, the sweep, the search, the minimiser and the benchmark read it.
To add an operation, write its function and its row, and nothing else. Then update two snapshots of
messages that list all operations (``python -m pytest --inline-snapshot=fix tests/core``).

A function performs the operation once, in plain torch. A script contains the statements of its
body in a loop, with an expression for each argument, and another process receives its source. So
each function may use only the standard library, its arguments, and the other functions of this
file. Nothing here imports torch, so that reading a trace is fast.

A *path* is what an uninterrupted run does, with one letter for each step: ``t`` for an optimizer
step and a scheduler step, ``o`` and ``s`` for one of them alone, and so on. Going back to a slot
cuts the path at the operation that saved the slot. So the path up to any operation is always the
path of an uninterrupted run.

What each operation does, once or n times:

"""

from __future__ import annotations

import copy
import enum
import inspect
import itertools
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from harness.core.errors import TraceError
from harness.core.types import NewOptimizer, Scheduler, Step

if TYPE_CHECKING:
    from torch.optim import Optimizer

Perform: TypeAlias = Callable[["Optimizer", Scheduler, int, int, Step], None]
"""Performs an operation once, with optimizer, scheduler, index of the gradient, epoch and step."""

# ------------------------------------------------------------- what operations are made of


def optimizer_step(optimizer: Optimizer, index: int) -> None:
    """Step the optimizer, with gradients that depend on the step index alone."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = parameter.new_full(parameter.shape, math.cos(index))
    optimizer.step()


def overflow(optimizer: Optimizer) -> None:
    """Gradients that overflow, so that the optimizer's step is skipped."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = parameter.new_full(parameter.shape, math.inf)


def halve_lr(optimizer: Optimizer) -> None:
    """Halve every group's LR by hand."""
    for group in optimizer.param_groups:
        group["lr"] = group["lr"] * 0.5


def add_group(optimizer: Optimizer) -> None:
    """Add a param group with a parameter like the first, and with another LR."""
    parameter = copy.deepcopy(optimizer.param_groups[0]["params"][0])
    parameter.data.fill_(1.0 / len(optimizer.param_groups))
    parameter.grad = None
    optimizer.add_param_group({"params": [parameter], "lr": 0.03})


def with_groups(new_optimizer: NewOptimizer, count: int) -> Optimizer:
    """A new optimizer with `count` more groups, like the one that was saved."""
    optimizer = new_optimizer()
    for _ in range(count):
        add_group(optimizer)
    return optimizer


# ----------------------------------------------------- the functions that perform operations


def train_step(
    optimizer: Optimizer, scheduler: Scheduler, index: int, epoch: int, step: Step
) -> None:
    """An optimizer step, then a scheduler step."""
    optimizer_step(optimizer, index)
    step(scheduler, epoch)


def optimizer_alone(
    optimizer: Optimizer, scheduler: Scheduler, index: int, epoch: int, step: Step
) -> None:
    """An optimizer step alone."""
    optimizer_step(optimizer, index)


def scheduler_alone(
    optimizer: Optimizer, scheduler: Scheduler, index: int, epoch: int, step: Step
) -> None:
    """A scheduler step alone."""
    step(scheduler, epoch)


def skipped_step(
    optimizer: Optimizer, scheduler: Scheduler, index: int, epoch: int, step: Step
) -> None:
    """Gradients overflow, so that no optimizer step is made, then a scheduler step."""
    overflow(optimizer)
    step(scheduler, epoch)


def step_to_epoch(
    optimizer: Optimizer, scheduler: Scheduler, index: int, epoch: int, step: Step
) -> None:
    """An optimizer step, then ``scheduler.step(epoch)`` with the epoch that begins."""
    optimizer_step(optimizer, index)
    scheduler.step(epoch + 1)


def step_without_gradients(
    optimizer: Optimizer, scheduler: Scheduler, index: int, epoch: int, step: Step
) -> None:
    """An optimizer step with all gradients None, then a scheduler step."""
    optimizer.zero_grad(set_to_none=True)
    optimizer.step()
    step(scheduler, epoch)


def lr_halved(
    optimizer: Optimizer, scheduler: Scheduler, index: int, epoch: int, step: Step
) -> None:
    """Every group's LR is halved by hand."""
    halve_lr(optimizer)


def group_added(
    optimizer: Optimizer, scheduler: Scheduler, index: int, epoch: int, step: Step
) -> None:
    """A param group is added to the optimizer."""
    add_group(optimizer)


# ------------------------------------------------------------------------------- the table


class Need(enum.Enum):
    """What an event needs and some schedulers lack; the value says what is missing."""

    STEP_WITH_EPOCH = "it does not take both step() and step(epoch)"
    LASTING_LR = "its next step replaces an LR that is set by hand, so there is nothing to keep"


@dataclass(frozen=True)
class Kind:
    """A kind of operation that has a count: a row of the table.

    Parameters
    ----------
    word : str
        Its name in a trace.
    letter : str
        Its letter in a path: one that no other row has, and not ``w``, which is a save in
        `harness.engine.other_process_main`.
    perform : callable
        The function that performs it once; the first line of its docstring describes it.
    uses_gradient, steps_scheduler : bool
        Whether it uses up a gradient, and whether it steps the scheduler.
    event : str
        For what happens only sometimes in a training loop: the words for the moment after it, in
        a sentence. Empty for a plain step. If the uninterrupted run raises in an event, the
        scheduler can't do it, and it is listed as NOT TRIED.
    needs : tuple of Need
        What an event needs from the scheduler.
    adds_group : bool
        Whether the optimizer has one more param group after it.
    by_hand : bool
        Whether it is not part of a schedule, so that options and epoch can't restore it.
    parts : tuple of str
        The words of two plain steps that do the same when made one after the other.
    """

    word: str
    letter: str
    perform: Perform
    uses_gradient: bool = False
    steps_scheduler: bool = False
    event: str = ""
    needs: tuple[Need, ...] = ()
    adds_group: bool = False
    by_hand: bool = False
    parts: tuple[str, ...] = ()

    @property
    def doc(self) -> str:
        """What it does, in one line."""
        return (inspect.getdoc(self.perform) or "").partition("\n")[0]


@dataclass(frozen=True)
class SlotKind:
    """A kind of operation on a slot; the check decides what it does.

    `goes_back` says whether the run goes on from the checkpoint in the slot.
    """

    word: str
    doc: str
    goes_back: bool = False


KINDS: tuple[Kind, ...] = (
    Kind(
        "train", "t", train_step, uses_gradient=True, steps_scheduler=True,
        parts=("optimizer", "scheduler"),
    ),
    Kind("optimizer", "o", optimizer_alone, uses_gradient=True),
    Kind("scheduler", "s", scheduler_alone, steps_scheduler=True),
    Kind(
        "skip", "k", skipped_step, uses_gradient=True, steps_scheduler=True,
        event="after a step that was skipped",
    ),
    Kind(
        "zero_grad_step", "z", step_without_gradients, uses_gradient=True, steps_scheduler=True,
        event="after an optimizer step without gradients",
    ),
    Kind(
        "epoch", "e", step_to_epoch, uses_gradient=True, steps_scheduler=True,
        event="stepped by step(epoch)", needs=(Need.STEP_WITH_EPOCH,),
    ),
    Kind(
        "halve_lr", "h", lr_halved, by_hand=True,
        event="after the LR was halved by hand", needs=(Need.LASTING_LR,),
    ),
    Kind(
        "add_group", "g", group_added, by_hand=True, adds_group=True,
        event="after a param group was added",
    ),
)  # fmt: skip
"""Every operation that has a count."""
SLOT_KINDS = (
    SlotKind("save", "Save a checkpoint to slot a."),
    SlotKind("resume", "Go on from slot a, with a new optimizer and a new scheduler.", True),
    SlotKind("load", "Load slot a into the live optimizer and scheduler.", True),
)
"""Every operation that has a slot."""

BY_WORD = {kind.word: kind for kind in KINDS}
BY_LETTER = {
    kind.letter: (kind.perform, kind.uses_gradient, kind.steps_scheduler) for kind in KINDS
}
"""For each letter: its function, and whether it uses up a gradient and steps the scheduler."""
LETTER = {kind.word: kind.letter for kind in KINDS}
STEPS = tuple(kind.word for kind in KINDS)
"""Every operation that has a count: each counts as a step, events too."""
PLAIN = tuple(kind.word for kind in KINDS if not kind.event)
"""The steps of every training loop."""
EVENTS = tuple(kind.word for kind in KINDS if kind.event)
"""What happens only sometimes in a training loop; not every scheduler can handle all of them."""
BY_HAND = tuple(kind.word for kind in KINDS if kind.by_hand)
"""What is not part of a schedule, so that options and epoch can't restore it."""
ADDS_GROUP = tuple(kind.word for kind in KINDS if kind.adds_group)
GO_BACK = tuple(kind.word for kind in SLOT_KINDS if kind.goes_back)
"""The operations that go back to a slot."""
WITHOUT_EPOCH = "".join(kind.letter for kind in KINDS if not kind.steps_scheduler)
WITHOUT_GRADIENT = "".join(kind.letter for kind in KINDS if not kind.uses_gradient)
WITH_GROUP = "".join(kind.letter for kind in KINDS if kind.adds_group)

MAX_STEPS = 10_000
"""The most steps in a trace (each of `STEPS` counts as one)."""
FORMS = ", ".join([f"{word}:N" for word in STEPS] + [f"{kind.word}:SLOT" for kind in SLOT_KINDS])
"""How each operation is written."""


def table() -> str:
    """The operations as a table in reStructuredText."""
    rows = [(f"``{kind.word}:n``", kind.doc) for kind in KINDS]
    rows += [(f"``{kind.word}:a``", kind.doc) for kind in SLOT_KINDS]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rule = "  ".join("=" * width for width in widths)
    lines = [f"{form:{widths[0]}}  {doc}" for form, doc in rows]
    return "\n".join([rule, *lines, rule]) + "\n"


__doc__ = f"{__doc__}{table()}"


def perform(
    letter: str, optimizer: Optimizer, scheduler: Scheduler, index: int, epoch: int, step: Step
) -> tuple[int, int]:
    """Perform a letter of a path, and return the next index of a gradient and the next epoch."""
    function, uses_gradient, steps_scheduler = BY_LETTER[letter]
    function(optimizer, scheduler, index, epoch, step)
    return index + uses_gradient, epoch + steps_scheduler


# ------------------------------------------------------------------------ in traces and paths

_COUNT = re.compile(r"[0-9]{1,9}")
_SLOT = re.compile(r"[a-z][a-z0-9_]*")
_NAME = re.compile(r"[A-Za-z_]\w*")


@dataclass(frozen=True)
class Operation:
    """One operation of a trace.

    `kind` is one of `STEPS`, with a `count` of at least 1; or ``save``, ``resume`` or
    ``load``, with a `slot`. If a trace mixes resume checks, `check` names the one that a
    ``resume`` or ``load`` uses.

    >>> str(Operation("train", count=3)), str(Operation("save", slot="a"))
    ('train:3', 'save:a')
    """

    kind: str
    count: int = 0
    slot: str = ""
    check: str = ""

    def __str__(self) -> str:
        if self.kind in STEPS:
            return f"{self.kind}:{self.count}"
        return f"{self.kind}:{self.slot}" + (f"@{self.check}" if self.check else "")

    @classmethod
    def parse(cls, token: str) -> Operation:
        """The operation written as `token`; raises `TraceError`, which names the token."""
        kind, colon, rest = token.partition(":")
        if not colon or kind not in (*STEPS, *(slotted.word for slotted in SLOT_KINDS)):
            raise TraceError(
                f"{token!r} in the trace is not an operation: write one of {FORMS}; "
                "or name=value for an option"
            )
        if kind in STEPS:
            if not _COUNT.fullmatch(rest) or int(rest) < 1:
                raise TraceError(
                    f"{token!r} in the trace needs a whole number of steps, from 1 to {MAX_STEPS}, "
                    "after the colon"
                )
            return cls(kind, count=int(rest))
        slot, at, check = rest.partition("@")
        if not _SLOT.fullmatch(slot):
            raise TraceError(
                f"{token!r} in the trace needs the name of a slot, such as a, after the colon"
            )
        if at and (kind == "save" or not _NAME.fullmatch(check)):
            raise TraceError(
                f"{token!r} in the trace: @ is followed by the name of a check, "
                "and only in resume:SLOT@CHECK and load:SLOT@CHECK"
            )
        return cls(kind, slot=slot, check=check)


def epochs(path: str) -> int:
    """How many scheduler steps a path has."""
    return len(path) - sum(map(path.count, WITHOUT_EPOCH))


def gradients(path: str) -> int:
    """How many gradients a path uses up; a skipped optimizer step uses one too."""
    return len(path) - sum(map(path.count, WITHOUT_GRADIENT))


def groups_added(path: str) -> int:
    """How many param groups a path adds."""
    return sum(map(path.count, WITH_GROUP))


def branches(operations: Sequence[Operation]) -> list[str]:
    """For every operation, the full path of the branch it belongs to.

    >>> from harness.core.trace import Trace
    >>> branches(Trace.parse("train:1 save:a train:2 resume:a scheduler:1").operations)
    ['ttt', 'ttt', 'ttt', 'ts', 'ts']
    """
    whole: list[str] = []
    waiting = 0
    path = ""
    for operation, before, after in walk(operations):
        if operation.kind in GO_BACK:
            whole += [before] * waiting
            waiting = 0
        waiting += 1
        path = after
    return whole + [path] * waiting


def is_needed_again(operations: Sequence[Operation], number: int) -> bool:
    """Whether the checkpoint that operation `number` goes back to is used again later.

    >>> from harness.core.trace import Trace
    >>> operations = Trace.parse("save:a resume:a train:1 resume:a save:a load:a").operations
    >>> [is_needed_again(operations, number) for number in (1, 3, 5)]
    [True, False, False]
    """
    slot = operations[number].slot
    later = (operation for operation in operations[number + 1 :] if operation.slot == slot)
    return any(operation.kind in GO_BACK for operation in itertools.islice(later, 1))


def walk(operations: Sequence[Operation]) -> Iterator[tuple[Operation, str, str]]:
    """Every operation, with the paths before and after it."""
    path = ""
    slots: dict[str, str] = {}
    for operation in operations:
        before = path
        if operation.kind in GO_BACK:
            path = slots[operation.slot]
        elif operation.kind == "save":
            slots[operation.slot] = path
        else:
            path += LETTER[operation.kind] * operation.count
        yield operation, before, path


def path_to(operations: Sequence[Operation], number: int, step: int) -> str:
    """The path up to `step` steps of the operation with the index `number`.

    >>> from harness.core.trace import Trace
    >>> path_to(Trace.parse("train:1 save:a train:2 resume:a scheduler:3").operations, 4, 2)
    'tss'

    With 0 steps it is the path after a save or resume, and before any other operation.
    """
    reached, before, after = list(walk(operations))[number]
    if reached.kind not in STEPS:
        return after
    return branches(operations)[number][: len(before) + step]


def operations_of(path: str) -> list[Operation]:
    """A path as operations.

    >>> " ".join(map(str, operations_of("ttto")))
    'train:3 optimizer:1'
    """
    kinds = {letter: kind for kind, letter in LETTER.items()}
    groups = ((letter, len(list(run))) for letter, run in itertools.groupby(path))
    return [Operation(kinds[letter], count=count) for letter, count in groups]
