"""The parts of two values that differ, down to numbers, texts and lists of numbers.

An observation may be nested: the state of a ChainedScheduler holds the states of its parts. A
*leaf* is the smallest named part that differs. Known failures are recognised by their leaves.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from harness.core.output import one_line
from harness.core.run import MISSING, Difference, same

ROUNDING = 1024
"""Values that are at most so many units in the last place (ulps) apart differ by rounding."""
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


def leaves(broken: Difference) -> list[Leaf]:
    """The parts in which the two observations differ, in the order of their names."""
    return list(_leaves((), broken.expected, broken.actual))


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


def fields_of(broken: Difference) -> frozenset[str]:
    """The names of what differs: of the value that was compared, and of the leaf inside it.

    Indices and the names between are left out, so that a part of a composition has the same
    fields wherever it stands. An exception has the field ``raises`` alone.
    """
    if "raises" in broken.actual:
        return frozenset(["raises"])
    names = ([str(key) for key in leaf.path if isinstance(key, str)] for leaf in leaves(broken))
    return frozenset(".".join(dict.fromkeys((name[0], name[-1]))) for name in names)


def shows_of(broken: Difference) -> str:
    """What a break shows, exactly and in one line: each leaf with its two values.

    For an exception, its name and its text.
    """
    if "raises" in broken.actual:
        return _short(f"raises {broken.actual['raises']}")
    return _short("; ".join(
        f"{leaf} is {_text(leaf.actual)} and should be {_text(leaf.expected)}"
        for leaf in leaves(broken)
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
    """The numbers in a plain value, and for each whether its precision is float32."""
    if isinstance(value, bool):
        return []
    if isinstance(value, (int, float)):
        return [(_float(value), False)]
    if isinstance(value, Mapping):
        if _is_array(value):
            single_ = str(value["dtype"]).endswith("float32")
            inside = value.get("tensor", value.get("numpy"))
            return [(number, single_) for number, _ in floats_of(inside)]
        value = list(value.values())
    return [pair for item in value for pair in floats_of(item)] if isinstance(value, list) else []


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # an int may be larger than any float
        return math.inf if value > 0 else -math.inf


def single(value: float) -> float:
    """The nearest float32."""
    try:
        return float(struct.unpack("f", struct.pack("f", value))[0])
    except OverflowError:
        return math.copysign(math.inf, value)


def ulps_of(broken: Difference) -> int | None:
    """The largest distance of two numbers in units in the last place, if it is rounding alone.

    None if something else than numbers differs, or by more than `ROUNDING`. The unit is the
    distance from the larger number to the next one, in the numbers' own precision.
    """
    largest = 0
    for leaf in leaves(broken):
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
