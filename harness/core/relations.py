"""What differs between an expected and an actual value, and how they are related.

An observation may be nested: the state of a ChainedScheduler holds the states of its parts. A
*leaf* is the smallest named part that differs, down to numbers, texts and lists of numbers. Known
failures are recognised by their leaves.

The actual value of a counterexample may equal, to the last bit, something known: a value of the
uninterrupted run at another epoch, or the result of making the last change twice. Such a
*relation* hints at the cause. Nothing is guessed from values that are only close.
"""

from __future__ import annotations

import hashlib
import math
import re
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.core.operations import GO_BACK, STEPS, epochs, path_to, walk
from harness.core.output import one_line
from harness.core.result import Counterexample, Promise
from harness.core.run import MISSING, Difference, Observation, as_float, same

ROUNDING = 1024
"""Values that are at most this many units in the last place (ulps) apart differ by rounding."""
LONGEST = 300
"""The longest text of `shows_of`; the rest is replaced by a checksum."""


@dataclass(frozen=True)
class Leaf:
    """A part that differs: the keys and indices that lead to it, and its two values."""

    path: tuple[str | int, ...]
    expected: object
    actual: object

    def __str__(self) -> str:
        keys = (f"[{key}]" if isinstance(key, int) else f".{key}" for key in self.path)
        return "".join(keys).removeprefix(".")


def leaves(difference: Difference) -> list[Leaf]:
    """The parts in which the two observations differ, in the order of their names."""
    return list(_leaves((), difference.expected, difference.actual))


def _leaves(path: tuple[str | int, ...], expected: object, actual: object) -> Iterator[Leaf]:
    if same(expected, actual):
        return
    if _is_table(expected) and _is_table(actual):
        assert isinstance(expected, Mapping)
        assert isinstance(actual, Mapping)
        for key in sorted({*expected, *actual}, key=str):
            yield from _leaves(
                (*path, str(key)), expected.get(key, MISSING), actual.get(key, MISSING)
            )
    elif (
        isinstance(expected, list)
        and isinstance(actual, list)
        and len(expected) == len(actual)
        and not (_is_flat(expected) and _is_flat(actual))
    ):
        for index, (one, other) in enumerate(zip(expected, actual, strict=True)):
            yield from _leaves((*path, index), one, other)
    else:
        yield Leaf(path, expected, actual)


def _is_table(value: object) -> bool:
    return isinstance(value, Mapping) and not _is_array(value)


def _is_array(value: object) -> bool:
    """Whether a plain value is a tensor or a numpy array or number."""
    return isinstance(value, Mapping) and value.keys() in ({"tensor", "dtype"}, {"numpy", "dtype"})


def _is_flat(value: object) -> bool:
    """Whether a plain value holds nothing that has a name."""
    if isinstance(value, list):
        return all(map(_is_flat, value))
    return not isinstance(value, Mapping) or _is_array(value)


def fields_of(difference: Difference) -> frozenset[str]:
    """The names of what differs: of the value that was compared, and of the leaf inside it.

    Indices and the names between are left out, so that a part of a composition has the same
    fields wherever it stands. An exception has the field ``raises`` alone.
    """
    if "raises" in difference.actual:
        return frozenset(["raises"])
    names = ([str(key) for key in leaf.path if isinstance(key, str)] for leaf in leaves(difference))
    return frozenset(".".join(dict.fromkeys((name[0], name[-1]))) for name in names)


def shows_of(difference: Difference) -> str:
    """A difference in one line, with exact values: each leaf with its two values.

    For an exception, its name and its text.
    """
    if "raises" in difference.actual:
        return _short(f"raises {difference.actual['raises']}")
    return _short("; ".join(
        f"{leaf} is {_text(leaf.actual)} and should be {_text(leaf.expected)}"
        for leaf in leaves(difference)
    ))  # fmt: skip


def _text(value: object) -> str:
    if value == MISSING:
        return MISSING
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    if isinstance(value, Mapping) and _is_array(value):
        kind = "tensor" if "tensor" in value else "numpy"
        dtype = str(value["dtype"]).removeprefix("torch.")
        return f"{kind}({value[kind]!r}, {dtype})"
    return repr(value)


def _short(text: str) -> str:
    text = one_line(text).strip()
    if len(text) <= LONGEST:
        return text
    return f"{text[:LONGEST]} ... (sha256 {hashlib.sha256(text.encode()).hexdigest()[:12]})"


# -------------------------------------------------------------------------------- numbers


def floats_of(value: object) -> list[tuple[float, bool]]:
    """The numbers in a value, each with whether its precision is float32."""
    if isinstance(value, bool):
        return []
    if isinstance(value, (int, float)):
        return [(as_float(value), False)]
    if isinstance(value, Mapping):
        if _is_array(value):
            is_single = str(value["dtype"]).endswith("float32")
            inside = value.get("tensor", value.get("numpy"))
            return [(number, is_single) for number, _ in floats_of(inside)]
        value = list(value.values())
    return [pair for item in value for pair in floats_of(item)] if isinstance(value, list) else []


def single(value: float) -> float:
    """The nearest float32."""
    try:
        return float(struct.unpack("f", struct.pack("f", value))[0])
    except OverflowError:
        return math.copysign(math.inf, value)


def ulps_of(difference: Difference) -> int | None:
    """The largest distance of two numbers in units in the last place, if it is rounding alone.

    None if anything but numbers differs, or if numbers differ by more than `ROUNDING`. The unit is
    the distance from the larger number to the next one, in the numbers' own precision.
    """
    largest = 0
    for leaf in leaves(difference):
        one, other = floats_of(leaf.expected), floats_of(leaf.actual)
        if not one or len(one) != len(other) or _shape(leaf.expected) != _shape(leaf.actual):
            return None
        for (expected, is_single), (actual, _) in zip(one, other, strict=True):
            if same(expected, actual):
                continue
            if not (math.isfinite(expected) and math.isfinite(actual)):
                return None
            size = max(abs(expected), abs(actual))
            unit = math.ulp(size)
            if is_single:
                unit = math.ldexp(1.0, max(math.frexp(size)[1] - 24, -149))
            distance = abs(expected - actual) / unit
            if distance > ROUNDING:
                return None
            largest = max(largest, math.ceil(distance))
    return largest or None


def _shape(value: object) -> object:
    """A value with every number replaced by its type."""
    if isinstance(value, list):
        return [_shape(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _shape(item) for key, item in value.items()}
    return float if isinstance(value, float) else value


# ------------------------------------------------------------------------------ relations

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


def moment_of(promise: Promise, found: Counterexample) -> tuple[str, bool]:
    """Where the runs first differ: the last kind of save or resume, and whether steps follow it.

    The kind is empty before the first of them. A save is a resume if the check resumes at every
    save. Between another resume and a later step, saves do not count.
    """
    operations = found.trace.operations[: found.operation + 1]
    at_a_step = operations[-1].kind in STEPS
    if at_a_step and not found.step:
        return "", False
    kinds = [operation.kind for operation in operations if operation.kind not in STEPS]
    if at_a_step and promise.kind == "resume":
        kinds = [kind for kind in kinds if kind in GO_BACK] or kinds
    kind = kinds[-1] if kinds else ""
    return "resume" if kind == "save" and promise.resumes_at_saves else kind, at_a_step


def relations(found: Counterexample) -> frozenset[str]:
    """The relations between the expected and the actual values; empty if none is known.

    Each text completes a sentence that begins with the values that differ; for an exception it
    is the exception's text without its numbers. Relations to the uninterrupted run need
    `Counterexample.uninterrupted`.
    """
    if "raises" in found.actual:
        return frozenset([NUMBER.sub("N", str(found.actual["raises"]))])
    if "raises" in found.expected:
        return frozenset(["a value where the uninterrupted run raises"])
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
    """Every relation that a ledger entry may give for these values, the most telling one first.

    In addition to `relations`: the relations of the parts of a nested state, and whether the actual
    value is the value of any other epoch.
    """
    if "raises" in found.actual or "raises" in found.expected:
        return []
    known = relations(found)
    inside = [(leaf.expected, leaf.actual) for leaf in leaves(found)]
    nested = _of_values(inside) if len(inside) != len(found.actual) or not known else []
    run = found.uninterrupted
    now = epochs(path_to(found.trace.operations, found.operation, found.step))
    at_other_epochs = [seen.values for seen in run.seen if seen.epoch != now] if run else []
    other = any(
        all(key in seen and same(seen[key], got) for key, got in found.actual.items())
        for seen in at_other_epochs
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
    if operation.kind in GO_BACK and run.path.startswith(before):
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
