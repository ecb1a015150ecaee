"""Changes of options on resume: which ones are tried, and what a trace of one shows.

The runs and the judgement are those of `harness.checks.changed_options`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from harness.checks.changed_options import DESCRIPTIONS, READINGS, contrast, judge, resumed_runs
from harness.core.errors import TraceError
from harness.core.literals import Term, format_value, resolve
from harness.core.operations import Operation
from harness.core.trace import Trace
from harness.core.training_loop import describe, save_checkpoint
from harness.subjects.subject import Bound


@dataclass(frozen=True)
class Followed:
    """What a trace shows: the reading that it follows, or where it follows none, or neither.

    `place` is an operation's index and the step of it; `ended` says why nothing can be told.
    """

    reading: str = ""
    place: tuple[int, int] | None = None
    expected: dict[str, Any] = field(default_factory=dict)
    actual: dict[str, Any] = field(default_factory=dict)
    ended: str = ""
    steps: int = 0
    resumes: int = 0


def allowed_by(contract: str) -> list[str]:
    """The readings that a subject's `contract` allows: all, where it names none."""
    return READINGS[contract] if contract else list(DESCRIPTIONS)


def plain_operations(operations: Sequence[Operation]) -> list[tuple[str, Any]]:
    """Operations as `resumed_runs` takes them."""
    return [(op.kind, op.count or op.slot) for op in operations]


def follow(bound: Bound, resume: Callable[..., Any], trace: Trace, tick: Any) -> Followed:
    """Run `trace`, whose resumes have changed options, and say which contract it follows.

    `tick` is called at every step. Raises `TraceError` where the options aren't changed, or
    can't be built when changed.
    """
    if not bound.changed:
        raise TraceError(
            "the trace must begin with the options that change: changed={'name':value}"
        )
    if bound.new.fields != bound.fields:
        raise TraceError("'changed' in the trace: only options of the scheduler can change")
    operations = plain_operations(trace.operations)
    new = bound.new
    try:
        new.build(new.new_optimizer())
    except (Exception, SystemExit) as error:
        said = format_value(bound.changed)
        raise TraceError(f"changed={said} in the trace: build raised {describe(error)}") from None
    steps = 0

    def step(scheduler: Any, epoch: int) -> None:
        nonlocal steps
        steps += 1
        tick()
        bound.step(scheduler, epoch)

    builders = bound.new_optimizer, bound.build, new.build
    runs = resumed_runs(builders, step, save_checkpoint, resume, operations)
    made = steps  # those of the oracles are not counted
    if not runs:
        return Followed(ended="the trace resumes nothing", steps=made)
    allowed = allowed_by(bound.subject.contract)
    changed = resolve(bound.changed, bound.words)
    verdict = judge(builders, step, changed, runs, allowed)
    if verdict["follows"] is None:
        place = verdict["run"]["places"][verdict["index"]]
        return Followed("", place, *contrast(verdict, allowed), steps=made, resumes=len(runs))
    ended = "" if verdict["follows"] else (
        "the change makes no difference after a resume in this trace, so it tells nothing"
    )  # fmt: skip
    return Followed(verdict["follows"], ended=ended, steps=made, resumes=len(runs))


def changes(bound: Bound, others: Sequence[Bound]) -> Iterator[dict[str, Any]]:
    """Changed options to resume with, one option at a time: those of `others`, then near ones.

    At most two of an option's values are taken from the others, and two near ones.
    """
    names = dict.fromkeys([*bound.options, *(name for other in others for name in other.options)])
    for name in names:
        own = bound.options.get(name)
        drawn = [other.options[name] for other in others if name in other.options]
        said: dict[str, Any] = {}
        for value in [*_other(own, drawn), *(_near(own) if name in bound.options else ())]:
            try:
                said.setdefault(format_value(value), value)
            except TraceError:
                continue  # one of the subject's functions, which a trace cannot contain
        yield from ({name: value} for value in said.values())


def _other(own: Any, drawn: Sequence[Any]) -> list[Any]:
    """Up to two drawn values that are not the option's own."""
    return [value for value in drawn if repr(value) != repr(own)][:2]


def _near(value: Any) -> list[Any]:
    """Values of the same shape, whose numbers are others."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, value + 2]
    if isinstance(value, float):
        return [value / 2, (value + 1) / 2]
    if isinstance(value, Term):
        if not value.arguments and not value.keywords:
            return []
        names = [name for name, _ in value.keywords]
        parts = [list(value.arguments or ()), [item for _, item in value.keywords]]
        return [
            replace(value, arguments=tuple(some), keywords=tuple(zip(names, others, strict=True)))
            for some, others in _near(parts)
        ]
    if isinstance(value, dict):
        return [dict(zip(value, near, strict=True)) for near in _near(list(value.values()))]
    if isinstance(value, (list, tuple)):
        near = [_near(item) for item in value]
        if not any(near):
            return []
        each = [[(some or [item])[-1 if i else 0] for some, item in zip(near, value, strict=True)]
                for i in (0, 1)]  # fmt: skip
        return [type(value)(items) for items in each]
    return []


def change_traces(
    bound: Bound, others: Sequence[Bound], epochs: int, length: int
) -> Iterator[Trace]:
    """A trace for each change: saved at every epoch, resumed from each save and run on.

    `epochs` is how far the run with the old options comes; the others go on to `length`, so
    that a longer schedule shows.
    """
    slots = [chr(ord("a") + k) if k < 26 else f"s{k}" for k in range(epochs + 1)]
    operations: list[Operation] = []
    for k, slot in enumerate(slots):
        operations += [*([Operation("train", count=1)] if k else []), Operation("save", slot=slot)]
    for k, slot in enumerate(slots):
        rest = [Operation("train", count=length - k)] if length > k else []
        operations += [Operation("resume", slot=slot), *rest]
    for changed in changes(bound, others):
        yield Trace(tuple(operations), (("changed", changed), *bound.literals))


def said_change(trace: Trace) -> tuple[str, str]:
    """The names of the options that `trace` changes, and the same with their new values."""
    changed = dict(trace.options)["changed"]
    values = (f"{name}={format_value(value)}" for name, value in changed.items())
    return ",".join(changed), " ".join(values)


def say(followed: Mapping[str, Mapping[str, str]]) -> str:
    """Which contract each option follows: of each the readings, by the changed options said.

    An empty reading is of none.

    >>> say({"gamma": {"gamma=0.25": "saved"}, "mode": {"mode=1": "saved", "mode=2": "raises"}})
    'the saved option wins: gamma, mode=1; it raises: mode=2'
    """
    names = {**DESCRIPTIONS, "": "none is followed"}
    said: dict[str, list[str]] = {}
    for name, readings in followed.items():
        texts = {names[reading] for reading in readings.values()}
        for change, reading in readings.items():
            labels = said.setdefault(names[reading], [])
            label = name if len(texts) == 1 else change
            if label not in labels:
                labels.append(label)
    order = dict.fromkeys(names.values())
    return "; ".join(f"{text}: {', '.join(said[text])}" for text in order if text in said)
