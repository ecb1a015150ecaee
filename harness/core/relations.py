"""Relations between an expected and an actual value: the evidence for a cause.

The actual value of a counterexample may equal, to the last bit, something known: a value of the
uninterrupted run at another epoch, or the result of making the last change twice. Such a
*relation* is evidence. Nothing is guessed from values that are only close.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

from harness.core.leaves import floats_of, leaves, single
from harness.core.operations import BACK, STEPS, epochs, path_to, walk
from harness.core.result import Counterexample, Promise
from harness.core.run import MISSING, Observation, same

NUMBER = re.compile(r"0x[0-9a-fA-F]+|(?<![\w.])-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?(?!\w)")
GROUPS = {"lr", "momentum", "betas", "weight_decay", "get_last_lr"}
"""The values that are lists with one item for each param group."""
EARLIER = "one epoch behind the uninterrupted run"
LATER = "one epoch ahead of the uninterrupted run"
BEGINS = "as if the schedule began at the checkpoint"
STAYS = "still the value at the checkpoint"
UNDONE = "still the value before going back"
AGAIN = "multiplied a second time by the factor of the last step"
OTHER = "the value of the uninterrupted run at another epoch"
ORDER = (AGAIN, BEGINS, STAYS, UNDONE, EARLIER, LATER)
"""The relations to the uninterrupted run, the most telling one first."""
ULPS = 2
"""How many floats a quotient may be away from the factor of the multiplication."""


def operation_of(promise: Promise, found: Counterexample) -> str:
    """The operation at which the runs first differ, in words, without the name of a slot."""
    operations = found.trace.operations[: found.operation + 1]
    kinds = [
        "resume" if op.kind == "save" and promise.resumes_at_saves else op.kind
        for op in operations
        if op.kind not in STEPS
    ]
    if operations[-1].kind not in STEPS:
        return kinds[-1]
    if not found.step:
        return "the start"
    return f"a step after {kinds[-1]}" if kinds else "a step"


def relations(found: Counterexample) -> frozenset[str]:
    """The relations between the expected and the actual values; empty if none is known.

    Each text completes a sentence that begins with the values that differ; for an exception it
    is the exception's text without its numbers. Relations to the uninterrupted run need
    `Counterexample.uninterrupted`.
    """
    if "raises" in found.actual:
        return frozenset([NUMBER.sub("N", str(found.actual["raises"]))])
    if "raises" in found.expected:
        return frozenset(["given, but the uninterrupted run raises"])
    if not found.expected.keys() >= found.actual.keys():  # it follows no contract
        return frozenset()
    pairs = [(found.expected[key], found.actual[key]) for key in found.actual]
    true = _of_values(pairs)
    if GROUPS.issuperset(found.actual) and all(_first(*pair) for pair in pairs):
        true.append("the value of the first group in every group")
    moments = _moments(found)
    true += [
        text
        for text, seen in moments.items()
        if all(key in seen and same(seen[key], got) for key, got in found.actual.items())
    ]
    before = moments.get(EARLIER, {})
    if all(key in before and _again(before[key], *pair) for key, pair in zip(found.actual, pairs)):  # noqa: B905
        true.append(AGAIN)
    return frozenset(true)


def every_relation(found: Counterexample) -> list[str]:
    """All that a ledger entry may call the relation of its values, the most telling one first.

    In addition to `relations`: those of the parts of a nested state, and whether the actual value
    is that of any other epoch.
    """
    if "raises" in found.actual or "raises" in found.expected:
        return []
    known = relations(found)
    inside = [(leaf.expected, leaf.actual) for leaf in leaves(found)]
    nested = _of_values(inside) if len(inside) != len(found.actual) or not known else []
    run = found.uninterrupted
    now = epochs(path_to(found.trace.operations, found.operation, found.step))
    elsewhere = [seen.values for seen in run.seen if seen.epoch != now] if run else []
    other = any(
        all(key in seen and same(seen[key], got) for key, got in found.actual.items())
        for seen in elsewhere
    )
    ordered = [text for text in ORDER if text in known]
    rest = sorted(known.difference(ORDER) | set(nested))
    return [*ordered, *rest, *([OTHER] if other else [])]


def _of_values(pairs: Sequence[tuple[object, object]]) -> list[str]:
    """The relations that hold for every pair of an expected and an actual value by themselves."""
    holding = (
        ("missing", all(got == MISSING for _, got in pairs)),
        ("there, and should not be", all(expected == MISSING for expected, _ in pairs)),
        ("negative", all(_below_zero(*pair) for pair in pairs)),
        ("not a number", all(_not_a_number(*pair) for pair in pairs)),
    )
    return [text for text, holds in holding if holds]


def _moments(found: Counterexample) -> dict[str, Observation]:
    """The values of the uninterrupted run at other epochs, by the text of the relation."""
    run = found.uninterrupted
    if run is None:
        return {}
    operations = found.trace.operations
    now = epochs(path_to(operations, found.operation, found.step))
    walked = list(walk(operations))[: found.operation + 1]
    at = {seen.epoch: seen.values for seen in run.seen}
    wanted = {EARLIER: now - 1, LATER: now + 1}
    operation, before, _ = walked[-1]
    if operation.kind in BACK and run.path.startswith(before):
        wanted[UNDONE] = epochs(before)
    checkpoints = [epochs(after) for operation, _, after in walked if operation.slot]
    if checkpoints:
        wanted[BEGINS] = now - checkpoints[-1]
        wanted[STAYS] = checkpoints[-1]
    return {text: at[epoch] for text, epoch in wanted.items() if epoch in at and epoch != now}


def _below_zero(expected: object, got: object) -> bool:
    return any(x < 0 for x, _ in floats_of(got)) and all(x >= 0 for x, _ in floats_of(expected))


def _not_a_number(expected: object, got: object) -> bool:
    return _has_nan(got) and not _has_nan(expected)


def _first(expected: object, got: object) -> bool:
    return (
        isinstance(expected, list)
        and isinstance(got, list)
        and len(expected) == len(got) > 1
        and all(same(expected[0], value) for value in got)
    )


def _has_nan(value: object) -> bool:
    return any(math.isnan(x) for x, _ in floats_of(value))


def _again(before: object, expected: object, got: object) -> bool:
    """Whether a factor leads from `before` to `expected` and from there to `got`, everywhere.

    Groups may have different factors. A tensor LR of float32 is multiplied in float32.
    """
    columns = floats_of(before), floats_of(expected), floats_of(got)
    if len(set(map(len, columns))) > 1:
        return False
    triples = list(zip(*columns, strict=True))
    singles = {is_single for triple in triples for _, is_single in triple}
    if len(singles) > 1:
        return False
    rounded = single if singles == {True} else float
    moving = [(a, b, c) for (a, _), (b, _), (c, _) in triples if a]
    return bool(moving) and all(
        a == b == c == 0 or (a != 0 and _same_factor(a, b, c, rounded))
        for (a, _), (b, _), (c, _) in triples
    )


def _same_factor(a: float, b: float, c: float, rounded: Callable[[float], float]) -> bool:
    """Whether one factor leads from `a` to `b` and from `b` to `c`, to the last bit."""
    quotient = b / a
    return math.isfinite(quotient) and any(
        rounded(a * factor) == b and rounded(b * factor) == c for factor in _near(quotient, rounded)
    )


def _near(value: float, rounded: Callable[[float], float]) -> list[float]:
    """`value` and the numbers next to it, in its precision."""
    if rounded is single:
        value = single(value)
        unit = math.ldexp(1.0, math.frexp(value)[1] - 24)
        return [value + steps * unit for steps in range(-ULPS, ULPS + 1)]
    near = [value]
    for end in (-math.inf, math.inf):
        neighbour = value
        for _ in range(ULPS):
            neighbour = math.nextafter(neighbour, end)
            near.append(neighbour)
    return near
