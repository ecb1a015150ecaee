"""What a counterexample shows: what the resume lost, and the runs to compare."""

from __future__ import annotations

import dis
import inspect
import types
from collections.abc import Collection, Iterator

from harness.core.check import Check
from harness.core.operations import GO_BACK, operations_of, path_to, walk
from harness.core.result import Counterexample, Found, LostAttribute, shorten
from harness.core.run import Difference, same
from harness.core.trace import Trace
from harness.core.training_loop import LRScheduler, Stateful, plain
from harness.core.types import Scheduler
from harness.engine.one_run import Runner
from harness.engine.runs import scheduler_after

MOST = 3
"""How many attributes are reported at most."""


def attributes_that_differ(
    runner: Runner, check: Check, trace: Trace, difference: Difference
) -> tuple[LostAttribute, ...]:
    """The attributes that are wrong after the last resume before the difference.

    Empty if no attribute differs that the methods of its class read, or if this can't be found
    out: in another process, with other options, or after an exception.
    """
    kinds = (*GO_BACK, "save") if check.at == "save" else GO_BACK
    backs = [i for i in range(difference.operation + 1) if trace.operations[i].kind in kinds]
    if not backs or check.kind != "resume" or check.other_process or runner.bound.changed:
        return ()
    operations = trace.operations[: backs[-1] + 1]
    path = list(walk(operations))[-1][2]
    resumed = scheduler_after(runner, check, Trace(operations, trace.options))
    if path:
        whole = Trace(tuple(operations_of(path)), trace.options)
        uninterrupted = scheduler_after(runner, check, whole)
    else:
        uninterrupted = runner.start()[1]
    if resumed is None or uninterrupted is None:
        return ()
    state = () if "last_epoch" in check.needs else _saved(uninterrupted)
    return tuple(_differing(resumed, uninterrupted, state)[:MOST])


def _saved(scheduler: Scheduler) -> Collection[str]:
    """The names in its state; empty if the state is not a dict: then no name counts as missing."""
    try:
        state = scheduler.state_dict()
    except (Exception, SystemExit):
        return ()
    return state.keys() if isinstance(state, dict) else ()


def _differing(
    resumed: Scheduler, uninterrupted: Scheduler, saved: Collection[str]
) -> list[LostAttribute]:
    resumed, uninterrupted = (
        one.scheduler if isinstance(one, Stateful) else one for one in (resumed, uninterrupted)
    )
    has, must = (getattr(one, "__dict__", {}) for one in (resumed, uninterrupted))
    lost = []
    for name in sorted(_read(type(uninterrupted)) & must.keys()):
        one, other = (plain(values.get(name)) for values in (has, must))
        if name == "optimizer" or not _is_short(other) or same(one, other):
            continue
        in_state = not saved or name in saved
        lost.append(LostAttribute(name, shorten(one), shorten(other), in_state))
    return lost


def _is_short(value: object) -> bool:
    """Whether a plain value is readable on one line."""
    if isinstance(value, dict):
        return "object" not in value and all(map(_is_short, value.values()))
    if isinstance(value, list):
        return all(map(_is_short, value))
    return True


def _read(cls: type) -> set[str]:
    """The attributes that the methods of a class and its bases read, except torch's base class."""
    functions = (
        function
        for each in cls.__mro__
        if each not in (LRScheduler, object)
        for value in vars(each).values()
        for function in (value.fget if isinstance(value, property) else inspect.unwrap(value),)
    )
    return {
        instruction.argval
        for function in functions
        for code in _codes(getattr(function, "__code__", None))
        for instruction in dis.get_instructions(code)
        if instruction.opname in ("LOAD_ATTR", "LOAD_METHOD")
    }


def _codes(code: object) -> Iterator[types.CodeType]:
    if isinstance(code, types.CodeType):
        yield code
        for inside in code.co_consts:
            yield from _codes(inside)


def counterexample_of(
    runner: Runner, check: Check, trace: Trace, difference: Difference, found: Found | None = None
) -> Counterexample:
    """The counterexample without its `runs`; the uninterrupted run goes on for one more epoch."""
    run = None
    if check.compares == "trajectory":
        path = path_to(trace.operations, difference.operation, difference.step)
        before = list(walk(trace.operations))[difference.operation][1]
        if before.startswith(path):  # after going back, to where the run had come, for `relations`
            path = before
        run = runner.uninterrupted(path + "t").run(len(path) + 1)
    return Counterexample(**vars(difference), trace=trace, found=found, uninterrupted=run)
