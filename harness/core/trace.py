"""Traces: what was done to a scheduler, as data that prints and parses back.

>>> trace = Trace.parse("step_size=3 gamma=0.5 train:3 save:a resume:a train:1")
>>> trace.operations[0]
Operation(kind='train', count=3, slot='', check='')
>>> trace.options
(('step_size', 3), ('gamma', 0.5))
>>> str(trace)
'step_size=3 gamma=0.5 train:3 save:a resume:a train:1'

Options come first, as Python literals or terms (`harness.core.literals`) without spaces. Three
of them are no options of the scheduler:

* ``optimizer=AdamW(groups=3,lr='shared',amsgrad=True)`` names an optimizer of torch with 1 to 4
  groups, LRs that are numbers, tensors or one shared tensor (``lr=``), groups without an LR of
  their own (``rates=[0.1,None]``) and all options of its own (`harness.subjects.optimizers`);
* ``step=metrics([4.0,nan])`` is the metrics that a plateau is given;
* ``changed={'gamma':0.1}`` is what is other on resume.

Then the operations:

===================  ==================================================
``train:n``          n times: an optimizer step, then a scheduler step
``optimizer:n``      n optimizer steps alone
``scheduler:n``      n scheduler steps alone
``skip:n``           n times: gradients overflow, so that no optimizer step is
                     made (as AMP's ``GradScaler`` does), then a scheduler step
``epoch:n``          n times: an optimizer step, then ``scheduler.step(epoch)``
``halve_lr:n``       n times: every group's LR is halved by hand
``add_group:n``      n times: a param group is added to the optimizer
``save:a``           save a checkpoint to slot a
``resume:a``         go on from slot a, the latest or an older one, with a new
                     optimizer and scheduler
``load:a``           load slot a into the live optimizer and scheduler
``resume:a@check``   the same by the named check, where `resumes_mixed` mixes several
===================  ==================================================

Several optimizer steps to a scheduler step are ``optimizer:3 scheduler:1``. What a scheduler
can't do (its uninterrupted run raises, or what is set by hand does not last) is not tried, and
listed as NOT TRIED. A run that ends with an exception, such as OneCycleLR's past its planned
end, must do so when resumed. Gradients and metrics depend on the step index alone.
``last_epoch`` is k - 1 after k scheduler steps: the constructor steps once itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from harness.core.errors import TraceError
from harness.core.literals import format_value, parse_value

MAX_STEPS = 10_000
"""The most unit steps (each of `STEPS` counts one) in a trace."""
PLAIN = ("train", "optimizer", "scheduler")
EVENTS = ("skip", "epoch", "halve_lr", "add_group")
"""What happens now and then in a training loop; not every scheduler can do all."""
STEPS = (*PLAIN, *EVENTS)
BACK = ("resume", "load")
_OPTION = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)
_COUNT = re.compile(r"[0-9]{1,9}")
_SLOT = re.compile(r"[a-z][a-z0-9_]*")
_NAME = re.compile(r"[A-Za-z_]\w*")


@dataclass(frozen=True)
class Operation:
    """One operation of a trace.

    `kind` is one of `STEPS`, with a `count` of at least 1; or ``save``, ``resume`` or
    ``load``, with a `slot`. `check` names the resume check that a ``resume`` or ``load``
    goes by, where a trace mixes several.

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
        """The operation that `token` says; `TraceError` names the token otherwise."""
        kind, colon, rest = token.partition(":")
        if not colon or kind not in (*STEPS, "save", *BACK):
            raise TraceError(
                f"{token!r} in the trace is no operation: write "
                f"{':N, '.join(STEPS)}:N, "
                "save:SLOT, resume:SLOT or load:SLOT, or name=value for an option"
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


@dataclass(frozen=True)
class Trace:
    """Operations in their order, and the options that the subject is built with.

    Raises `TraceError` where there is no operation, where one goes back to a slot that no earlier
    operation saved, or the steps add up to more than `MAX_STEPS`.
    """

    operations: tuple[Operation, ...]
    options: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        if not self.operations:
            raise TraceError("a trace needs operations: write for example train:3")
        saved: set[str] = set()
        for operation in self.operations:
            if operation.kind == "save":
                saved.add(operation.slot)
            elif operation.kind in BACK and operation.slot not in saved:
                raise TraceError(
                    f"'{operation}' in the trace goes back to slot {operation.slot}, "
                    f"which was not saved before: put save:{operation.slot} earlier"
                )
        if self.steps > MAX_STEPS:
            raise TraceError(
                f"the trace has {self.steps} steps; at most {MAX_STEPS} are allowed: shorten it"
            )

    def __str__(self) -> str:
        options = [f"{name}={format_value(value)}" for name, value in self.options]
        return " ".join(options + [str(operation) for operation in self.operations])

    @property
    def steps(self) -> int:
        """How many unit steps the trace makes."""
        return sum(operation.count for operation in self.operations)

    @property
    def resumes(self) -> int:
        """How often the trace goes back to a slot."""
        return sum(operation.kind in BACK for operation in self.operations)

    def until(self, operation: int, step: int) -> Trace:
        """The trace cut after `step` steps of the operation with the index `operation`.

        >>> str(Trace.parse("train:3 save:a train:4 resume:a").until(2, 1))
        'train:3 save:a train:1'

        0 steps stand for the whole operation, as saves and resumes have none.
        """
        last = self.operations[operation]
        if step:
            last = replace(last, count=step)
        return Trace((*self.operations[:operation], last), self.options)

    @classmethod
    def parse(cls, text: str) -> Trace:
        """The trace that `text` says; the inverse of ``str``.

        Raises `TraceError`, which names the token at fault.
        """
        tokens = text.split()
        first = next((i for i, token in enumerate(tokens) if not _OPTION.fullmatch(token)), None)
        if first is None:
            raise TraceError(f"the trace {text!r} has no operations: write for example train:3")
        for token in tokens[first:]:
            if _OPTION.fullmatch(token):
                raise TraceError(
                    f"{token!r} in the trace is an option: put it before {tokens[first]!r}"
                )
        operations = tuple(Operation.parse(token) for token in tokens[first:])
        return cls(operations, tuple(parse_options(" ".join(tokens[:first])).items()))


def parse_options(text: str) -> dict[str, Any]:
    """Options written as ``step_size=3 gamma=0.5``, values being literals or terms.

    >>> parse_options("milestones=[2,5] verbose=False")
    {'milestones': [2, 5], 'verbose': False}

    Raises `TraceError`, which names the token at fault.
    """
    options: dict[str, Any] = {}
    for token in text.split():
        match = _OPTION.fullmatch(token)
        if match is None:
            raise TraceError(
                f"{token!r} is no option: write name=value, with no spaces inside the value"
            )
        name, literal = match.groups()
        if name in options:
            raise TraceError(f"{token!r} gives option {name!r} a second time: keep one of them")
        try:
            options[name] = parse_value(literal)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            raise TraceError(
                f"{token!r}: the value must be a Python literal or a term, without spaces, such as "
                f"3, 0.5, [1,2], 'text' or Word(3,gamma=0.5) (got {literal!r})"
            ) from None
    return options
