"""Traces: what was done to a scheduler, as data that prints and parses back.

>>> trace = Trace.parse("step_size=3 gamma=0.5 train:3 save:a resume:a train:1")
>>> trace.operations[0]
Operation(kind='train', count=3, slot='', check='')
>>> trace.options
(('step_size', 3), ('gamma', 0.5))
>>> str(trace)
'step_size=3 gamma=0.5 train:3 save:a resume:a train:1'

Options come first, as Python literals or terms (`harness.core.literals`) without spaces. Three
of them are not options of the scheduler:

* ``optimizer=AdamW(groups=3,lr='shared',amsgrad=True)`` names an optimizer of torch with 1 to 4
  groups and any of its own options. LRs are numbers, tensors or one shared tensor (``lr=``), and
  a group can be without its own LR (``rates=[0.1,None]``); see `harness.subjects.optimizers`;
* ``step=metrics([4.0,nan])`` gives the metrics for ReduceLROnPlateau;
* ``changed={'gamma':0.1}`` gives the options that change on resume.

Then come the operations, each described in `harness.core.operations`: ``train:n`` and others with
a count, ``save:a``, ``resume:a`` and ``load:a``. In traces of `resumes_mixed`,
``resume:a@check`` resumes in the way of the named check.

Several optimizer steps for each scheduler step are written ``optimizer:3 scheduler:1``. What a
scheduler can't do (its uninterrupted run raises, or a value set by hand does not last) is not
tried, and is listed as NOT TRIED. If the uninterrupted run ends with an exception, such as
OneCycleLR's past its planned end, the resumed run must raise it too. A gradient depends
only on the number of the optimizer step (skipped ones count), a metric only on the number of the
scheduler step.
"""

from __future__ import annotations

import ast
import contextlib
import re
from dataclasses import dataclass, replace

from harness.core.errors import TraceError
from harness.core.literals import format_value, parse_value
from harness.core.operations import GO_BACK, MAX_STEPS, Operation

_OPTION = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)


@dataclass(frozen=True)
class Trace:
    """Operations in order, and the options that the subject is built with.

    Raises `TraceError` if there is no operation, if one goes back to a slot that no earlier
    operation saved, or if there are more than `MAX_STEPS` steps.
    """

    operations: tuple[Operation, ...]
    options: tuple[tuple[str, object], ...] = ()

    def __post_init__(self) -> None:
        if not self.operations:
            raise TraceError("a trace needs operations: write for example train:3")
        saved: set[str] = set()
        for operation in self.operations:
            if operation.kind == "save":
                saved.add(operation.slot)
            elif operation.kind in GO_BACK and operation.slot not in saved:
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
        """How many steps the trace makes."""
        return sum(operation.count for operation in self.operations)

    @property
    def resumes(self) -> int:
        """How often the trace goes back to a slot."""
        return sum(operation.kind in GO_BACK for operation in self.operations)

    def until(self, number: int, step: int) -> Trace:
        """The trace cut after `step` steps of the operation with the index `number`.

        >>> str(Trace.parse("train:3 save:a train:4 resume:a").until(2, 1))
        'train:3 save:a train:1'

        With 0 steps the whole operation is kept: saves and resumes have no steps.
        """
        last = self.operations[number]
        if step:
            last = replace(last, count=step)
        return Trace((*self.operations[:number], last), self.options)

    @classmethod
    def parse(cls, text: str) -> Trace:
        """The trace written in `text`; the inverse of ``str``.

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


def parse_options(text: str) -> dict[str, object]:
    """Options written as ``step_size=3 gamma=0.5``; each value is a literal or a term.

    >>> parse_options("milestones=[2,5] verbose=False")
    {'milestones': [2, 5], 'verbose': False}

    Raises `TraceError`, which names the token at fault.
    """
    options: dict[str, object] = {}
    for token in text.split():
        match = _OPTION.fullmatch(token)
        if match is None:
            raise TraceError(
                f"{token!r} is not an option: write name=value, with no spaces inside the value"
            )
        name, literal = match.groups()
        if name in options:
            raise TraceError(f"{token!r} gives option {name!r} a second time: keep one of them")
        try:
            options[name] = parse_value(literal)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            if several := _comma_separated(token):
                raise TraceError(
                    f"{token!r} separates options with a comma: use spaces: {several}"
                ) from None
            raise TraceError(
                f"{token!r}: the value must be a Python literal or a term, without spaces, such as "
                f"3, 0.5, [1,2], 'text' or Word(3,gamma=0.5) (got {literal!r})"
            ) from None
    return options


def _comma_separated(token: str) -> str:
    """``step_size=3 gamma=0.5`` for ``step_size=3,gamma=0.5``; else empty."""
    with contextlib.suppress(SyntaxError, ValueError, MemoryError, RecursionError):
        call = ast.parse(f"f({token})", mode="eval").body
        if isinstance(call, ast.Call) and not call.args and len(call.keywords) > 1:
            return " ".join(ast.unparse(keyword) for keyword in call.keywords)
    return ""
