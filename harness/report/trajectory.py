"""What a picture of a counterexample shows: both runs by epoch, and where they first differ."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from harness.core.observation import Points, number, numbers_of, same
from harness.core.operations import BACK, epochs, path_to, walk
from harness.core.result import Counterexample, Promise, Result, shorten
from harness.core.run import Role
from harness.core.safe_text import one_line
from harness.core.trace import Trace

QUANTITIES = ("lr", "get_last_lr", "momentum", "betas", "weight_decay")
"""The parts of an observation that can be drawn."""


@dataclass(frozen=True)
class Line:
    """One run: its name, its role (how it is drawn), its points, the exception that ended it."""

    name: str
    role: Role
    points: Points
    raises: str = ""


@dataclass(frozen=True)
class Trajectory:
    """The runs of a counterexample.

    `quantity` is what is drawn, ``lr`` unless something else differs. `marks` are the saves and
    resumes, by epoch. The first difference is at `epoch`. `said` describes it for each group; the
    key is None if it does not belong to one group. `wrong` and `right` are the numbers there.
    """

    title: str
    trace: str
    quantity: str
    lines: list[Line]
    marks: dict[int, str]
    epoch: int
    said: dict[int | None, str] = field(default_factory=dict)
    wrong: dict[int, float] = field(default_factory=dict)
    right: dict[int, float] = field(default_factory=dict)


def trajectory(result: Result) -> Trajectory | None:
    """The runs of a result's counterexample; None for a check of the saved state."""
    found = result.counterexample
    if found is None:
        raise ValueError(f"{result.subject} {result.check} has no counterexample")
    if not found.runs:
        return None
    actual = [name.partition(" if ")[0] for name in found.actual]
    quantity = next((name for name in QUANTITIES if name in actual), "lr")
    epoch = epochs(path_to(found.trace.operations, found.operation, found.step))
    lines = [
        Line(
            one_line(run.name),
            run.role,
            [(seen.epoch, numbers_of(seen.values, quantity)) for seen in run.seen],
            one_line(run.raises),
        )
        for run in found.runs
    ]
    said, wrong, right = _differences(result.promise, found, quantity, epoch)
    title = one_line(f"{result.subject}: {result.check} (torch {result.torch})")
    said = {group: one_line(text) for group, text in said.items()}
    return Trajectory(
        title, one_line(str(found.trace)), quantity, lines, _marks(found.trace), epoch, said,
        wrong, right,
    )  # fmt: skip


def _marks(trace: Trace) -> dict[int, str]:
    """The saves and resumes by epoch, in order."""
    marks: dict[int, list[str]] = {}
    for operation, _, path in walk(trace.operations):
        if operation.kind in (*BACK, "save"):
            marks.setdefault(epochs(path), []).append(str(operation))
    return {epoch: shorten(" ".join(_counted(said)), 60) for epoch, said in marks.items()}


def _counted(words: list[str]) -> Iterator[str]:
    """Words, with repeated ones replaced by a count."""
    for word, again in itertools.groupby(words):
        count = len(list(again))
        yield word if count == 1 else f"{word} ({count} times)"


def _differences(
    promise: Promise, found: Counterexample, quantity: str, epoch: int
) -> tuple[dict[int | None, str], dict[int, float], dict[int, float]]:
    """A description of the first difference, and the wrong and right numbers, by group."""
    said: dict[int | None, str] = {}
    wrong: dict[int, float] = {}
    right: dict[int, float] = {}
    at = f"epoch {epoch}: "
    if "raises" in found.actual:
        return {None: f"{at}raises {shorten(found.actual['raises'], 90)}"}, wrong, right
    actual = found.actual.get(quantity)
    expected = found.expected.get(quantity)
    if promise.changes_options and isinstance(actual, list):
        return {g: f"{at}got {number(v):.6g}, follows neither" for g, v in enumerate(actual)}, {
            g: number(v) for g, v in enumerate(actual)
        }, right  # fmt: skip
    if isinstance(actual, list) and isinstance(expected, list) and len(actual) == len(expected):
        for group, (is_, must) in enumerate(zip(actual, expected, strict=True)):
            if same(is_, must):
                continue
            one, other = _apart(is_, must)
            said[group] = f"{at}expected {other}, got {one}"
            wrong[group], right[group] = number(is_), number(must)
    if not said:
        name = next(iter(found.actual))
        is_, must = (shorten(side.get(name), 60) for side in (found.actual, found.expected))
        said[None] = f"{at}expected {name} {must}, got {is_}"
        if "raises" in found.expected:
            said[None] = f"{at}expected it to raise {shorten(found.expected['raises'], 60)}"
        elif name == "weights":
            said[None] = f"{at}the weights differ"
    return said, wrong, right


def _apart(one: Any, other: Any) -> tuple[str, str]:
    """Two values as text, with enough digits to differ, or with dtypes if no digits differ."""
    for digits in range(6, 18):
        texts = f"{number(one):.{digits}g}", f"{number(other):.{digits}g}"
        if texts[0] != texts[1]:
            return texts
    return _with_dtype(one), _with_dtype(other)


def _with_dtype(value: Any) -> str:
    if isinstance(value, dict) and "dtype" in value:
        return f"{number(value):g} ({value['dtype']})"
    return str(value)
