"""Changes options on resume: chooses the changes, and runs traces with them.

`harness.checks.changed_options` makes the runs and judges them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from harness.checks.changed_options import (
    BEHAVIOURS,
    DESCRIPTIONS,
    contrast,
    judge_behaviour,
    resumed_runs,
)
from harness.checks.registry import checks_used
from harness.core.check import Check
from harness.core.errors import TraceError
from harness.core.literals import Term, format_value, resolve
from harness.core.operations import Operation, epochs
from harness.core.run import Difference, Looked, Tally
from harness.core.trace import Trace
from harness.core.training_loop import describe
from harness.core.types import Scheduler
from harness.engine.one_run import Outcome, Runner
from harness.subjects.subject import Bound


def allowed_by(contract: str) -> list[str]:
    """The behaviours that a subject's `contract` allows: all if it has no contract."""
    return BEHAVIOURS[contract] if contract else list(DESCRIPTIONS)


def as_tuples(operations: Sequence[Operation]) -> list[tuple[str, int | str]]:
    """Operations in the form that `resumed_runs` takes."""
    return [(op.kind, op.count or op.slot) for op in operations]


def run_with_changes(runner: Runner, check: Check, trace: Trace) -> Outcome:
    """Run `trace`, whose resumes have changed options; the outcome has the behaviour it follows.

    Raises `TraceError` if no options are changed, or if the scheduler can't be built with the
    changed ones.
    """
    checks_used(check, trace)  # raises if the check can't run it
    bound = runner.bound
    if not bound.changed:
        raise TraceError(
            "the trace must begin with the options that change: changed={'name':value}"
        )
    if bound.with_changed.fields != bound.fields:
        raise TraceError("'changed' in the trace: only options of the scheduler can change")
    new = bound.with_changed
    optimizer = new.new_optimizer()
    try:
        new.build(optimizer)
    except (Exception, SystemExit) as error:
        new_options = format_value(bound.changed)
        raise TraceError(
            f"changed={new_options} in the trace: build raised {describe(error)}"
        ) from None
    steps = 0

    def step(scheduler: Scheduler, epoch: int) -> None:
        nonlocal steps
        steps += 1
        runner.check_time()
        bound.step(scheduler, epoch)

    builders = bound.new_optimizer, bound.build, new.build
    operations = as_tuples(trace.operations)
    runs = resumed_runs(builders, step, check.save, check.function, operations)
    runner.note_optimizer(optimizer)
    resumed_at = frozenset(epochs(run["path"][: run["first"]]) for run in runs)
    looked = Looked(resumed_at, frozenset(runner.optimizers))
    # the steps of the uninterrupted runs, which come next, are not counted
    tally = Tally(1, steps, len(runs), looked=looked)
    if not runs:
        return Outcome(ended="the trace resumes nothing", tally=tally)
    allowed = allowed_by(bound.subject.contract)
    judged = judge_behaviour(builders, step, resolve(bound.changed, bound.words), runs, allowed)
    behaviour = judged["follows"]
    if behaviour is None:
        operation, made = judged["run"]["moments"][judged["index"]]
        expected, actual = contrast(judged, allowed)
        return Outcome(Difference(operation, made, expected, actual), tally=tally)
    ended = "the change makes no difference after a resume in this trace, so it tells nothing"
    return Outcome(behaviour=behaviour, ended="" if behaviour else ended, tally=tally)


def changes(bound: Bound, others: Sequence[Bound]) -> Iterator[dict[str, object]]:
    """Changed options to resume with, one option at a time.

    For each option, up to two values from `others`, then up to two values near its own.
    """
    names = dict.fromkeys([*bound.options, *(name for other in others for name in other.options)])
    for name in names:
        own = bound.options.get(name)
        drawn = [other.options[name] for other in others if name in other.options]
        values: dict[str, object] = {}
        for value in [*_other(own, drawn), *(_near(own) if name in bound.options else ())]:
            try:
                values.setdefault(format_value(value), value)
            except TraceError:
                continue  # a function of the subject: a trace cannot hold it
        yield from ({name: value} for value in values.values())


def _other(own: object, drawn: Sequence[object]) -> list[object]:
    """Up to two drawn values that differ from the option's own value."""
    return [value for value in drawn if repr(value) != repr(own)][:2]


def _near(value: Any) -> list[Any]:
    """Up to two values of the same shape with other numbers."""
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
        first = [(some or [item])[0] for some, item in zip(near, value, strict=True)]
        second = [(some or [item])[-1] for some, item in zip(near, value, strict=True)]
        return [type(value)(first), type(value)(second)]
    return []


def change_traces(
    bound: Bound, others: Sequence[Bound], epochs: int, length: int
) -> Iterator[Trace]:
    """A trace for each change: it saves at every epoch, resumes from each save and runs on.

    `epochs` is the length of the run with the old options. The resumed runs go on to epoch
    `length`, so that a longer schedule shows.
    """
    slots = [chr(ord("a") + k) if k < 26 else f"s{k}" for k in range(epochs + 1)]
    operations: list[Operation] = []
    for k, slot in enumerate(slots):
        operations += [*([Operation("train", count=1)] if k else []), Operation("save", slot=slot)]
    for k, slot in enumerate(slots):
        rest = [Operation("train", count=length - k)] if length > k else []
        operations += [Operation("resume", slot=slot), *rest]
    yield from with_each_change(operations, bound, others)


def resumed_again(
    bound: Bound, others: Sequence[Bound], epochs: int, length: int, last: Sequence[Operation] = ()
) -> Iterator[Trace]:
    """A short trace for each change: it resumes early, and what was resumed twice more.

    The arguments are those of `change_traces`; `last` are the operations at the end.
    """
    operations: list[Operation] = []
    at = 0
    for epoch, slots in ((1, "ab"), (max(epochs // 2, 1), "c")):
        operations += [Operation("train", count=epoch - at)] if epoch > at else []
        operations += [Operation(kind, slot=slot) for slot in slots for kind in ("save", "resume")]
        at = epoch
    rest = [Operation("train", count=length - at)] if length > at else []
    yield from with_each_change([*operations, *rest, *last], bound, others)


def with_each_change(
    operations: Iterable[Operation], bound: Bound, others: Sequence[Bound]
) -> Iterator[Trace]:
    """A trace of these operations for each change of an option."""
    for changed in changes(bound, others):
        yield Trace(tuple(operations), (("changed", changed), *bound.literals))


def change_text(trace: Trace) -> tuple[str, str]:
    """The names of the options that `trace` changes, and the names with their new values."""
    changed = dict(trace.options)["changed"]
    assert isinstance(changed, dict)
    values = (f"{name}={format_value(value)}" for name, value in changed.items())
    return ",".join(changed), " ".join(values)


def contracts_text(followed: Mapping[str, Mapping[str, str]]) -> str:
    """One line that says which contract each option follows.

    `followed` maps each option to the behaviours it follows, by the text of the change. An empty
    behaviour means that none is followed.

    >>> mode = {"mode=1": "saved", "mode=2": "raises"}
    >>> contracts_text({"gamma": {"gamma=0.25": "saved"}, "mode": mode})
    'the saved option wins: gamma, mode=1; it raises: mode=2'
    """
    names = {**DESCRIPTIONS, "": "none is followed"}
    labels_by_text: dict[str, list[str]] = {}
    for name, behaviours in followed.items():
        texts = {names[behaviour] for behaviour in behaviours.values()}
        for change, behaviour in behaviours.items():
            labels = labels_by_text.setdefault(names[behaviour], [])
            label = name if len(texts) == 1 else change
            if label not in labels:
                labels.append(label)
    order = dict.fromkeys(names.values())
    parts = ((text, labels_by_text[text]) for text in order if text in labels_by_text)
    return "; ".join(f"{text}: {', '.join(labels)}" for text, labels in parts)
