"""Relations between an expected and an actual value: the evidence for a cause.

The actual value of a counterexample may equal, to the last bit, something known: a value of the
uninterrupted run at another epoch, or the result of making the last change twice. Such a
*relation* is evidence. Nothing is guessed from values that are only close.
"""

from __future__ import annotations

import math
import re
import sys

from harness.core.operations import BACK, STEPS, epochs, path_to, walk
from harness.core.result import Counterexample, Promise
from harness.core.run import MISSING, Observation, same

__all__ = ["alike", "operation_of", "relations"]

NUMBER = re.compile(r"0x[0-9a-fA-F]+|(?<![\w.])-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?(?!\w)")
GROUPS = {"lr", "momentum", "betas", "weight_decay", "get_last_lr"}
"""The values that are lists with one item for each param group."""
EARLIER = "one epoch behind the uninterrupted run"
LATER = "one epoch ahead of the uninterrupted run"
BEGINS = "as if the schedule began at the checkpoint"
STAYS = "still the value at the checkpoint"
UNDONE = "still the value before going back"
AGAIN = "multiplied a second time by the factor of the last step"
ULPS = 2
"""How many floats a quotient may be away from the factor of the multiplication."""


def alike(promise: Promise, one: Counterexample, other: Counterexample) -> bool:
    """Whether two counterexamples of a check may have one cause.

    They differ at the same operation, in the same quantities, and share a relation, or neither
    has a known relation.
    """
    places = [(operation_of(promise, found), sorted(found.actual)) for found in (one, other)]
    mine, its = relations(one), relations(other)
    return places[0] == places[1] and bool(mine & its or not (mine or its))


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
    true = [
        text
        for text, holds in (
            ("missing", all(got == MISSING for _, got in pairs)),
            ("there, and should not be", all(expected == MISSING for expected, _ in pairs)),
            ("negative", all(_below_zero(*pair) for pair in pairs)),
            ("not a number", all(_not_a_number(*pair) for pair in pairs)),
            (
                "the value of the first group in every group",
                GROUPS.issuperset(found.actual) and all(_first(*pair) for pair in pairs),
            ),
        )
        if holds
    ]
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
    return any(x < 0 for x in _floats(got)) and all(x >= 0 for x in _floats(expected))


def _not_a_number(expected: object, got: object) -> bool:
    return any(map(math.isnan, _floats(got))) and not any(map(math.isnan, _floats(expected)))


def _first(expected: object, got: object) -> bool:
    return (
        isinstance(expected, list)
        and isinstance(got, list)
        and len(expected) == len(got) > 1
        and all(same(expected[0], value) for value in got)
    )


def _again(before: object, expected: object, got: object) -> bool:
    """Whether one factor leads from `before` to `expected` and from there to `got`, everywhere."""
    triples = list(zip(_floats(before), _floats(expected), _floats(got)))  # noqa: B905
    if not len(triples) == len(_floats(before)) == len(_floats(expected)) == len(_floats(got)):
        return False
    quotient = next((b / a for a, b, _ in triples if a), math.nan)
    return math.isfinite(quotient) and any(
        all(a * factor == b and b * factor == c for a, b, c in triples)
        for factor in _near(quotient)
    )


def _near(value: float) -> list[float]:
    """`value` and the floats next to it."""
    near = [value]
    for end in (-math.inf, math.inf):
        neighbour = value
        for _ in range(ULPS):
            neighbour = math.nextafter(neighbour, end)
            near.append(neighbour)
    return near


def _floats(value: object) -> list[float]:
    """The numbers in an observed value."""
    if isinstance(value, bool):
        return []
    if isinstance(value, (int, float)):
        if abs(value) > sys.float_info.max:  # an int may be larger than any float
            return [math.inf if value > 0 else -math.inf]
        return [float(value)]
    if isinstance(value, dict):
        value = list(value.values())
    return [x for item in value for x in _floats(item)] if isinstance(value, list) else []
