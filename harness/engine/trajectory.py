"""What a picture of a counterexample shows: both runs, epoch by epoch, and where they part."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from harness.checks.changed_options import resumed_runs, uninterrupted
from harness.checks.registry import CHANGED
from harness.core.check import Check
from harness.core.operations import branches, epochs, path_to, walk
from harness.core.result import Budget, Counterexample, Result, shorten
from harness.core.run import Reference
from harness.core.trace import BACK, MAX_STEPS, Operation, Trace
from harness.core.training_loop import same, save_checkpoint
from harness.engine.option_changes import plain_operations
from harness.engine.runner import Runner, watch
from harness.engine.verdict import SubjectCheck
from harness.subjects.subject import Bound, Subject

QUANTITIES = ("lr", "get_last_lr", "momentum", "betas", "weight_decay")
"""What can be drawn of an observation."""
AFTER = 4
"""Epochs that are shown behind the first difference, at least."""
SECONDS = 120.0
"""The time limit of the runs of one picture."""
Points = list[tuple[int, list[float]]]
"""An epoch (scheduler steps made), and a number for each param group."""


@dataclass(frozen=True)
class Line:
    """One run: its name, its role (which says how it is drawn), its points, what ended it."""

    name: str
    role: str
    points: Points
    raises: str = ""


@dataclass(frozen=True)
class Trajectory:
    """The runs of a counterexample.

    `quantity` is what is drawn, ``lr`` unless something else differs. `marks` are the saves and
    resumes, by epoch. The first difference is at `epoch`; `said` is what to say of it, by
    group, or by None where it is of no single group; `wrong` and `right` are the numbers there.
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


def trajectory(subject: Subject, check: Check, result: Result) -> Trajectory | None:
    """The runs behind the counterexample of a broken pair; None where no LR shows it.

    A state check of the state itself is shown by none. The trace is run again, and on to the
    subject's length. Raises `HarnessError` where it can't be.
    """
    found = result.counterexample
    if found is None:
        raise ValueError(f"{result.subject} {result.check} has no counterexample")
    actual = [name.partition(" if ")[0] for name in found.actual]
    if check.compares == "values" and not {*actual} & {"lr", "get_last_lr"}:
        return None
    quantity = next((name for name in QUANTITIES if name in actual), "lr")
    operations = list(found.trace.operations)
    epoch = epochs(path_to(operations, found.operation, found.step))
    end = epochs(list(walk(operations))[-1][2])
    more = min(max(subject.length, epoch + AFTER) - end, MAX_STEPS - found.trace.steps)
    if more > 0:
        operations.append(Operation("train", count=more))
    trace = Trace(tuple(operations), found.trace.options)
    work = SubjectCheck(subject, Budget(time_limit=SECONDS), result.resume_python)
    bound = subject.bind(dict(trace.options))
    with work.limited():
        if check is CHANGED:
            lines = _changed(bound, check, trace, quantity)
        else:
            lines = _both(work.runner(bound), check, trace, quantity)
    said, wrong, right = _differences(check, found, quantity, epoch)
    return Trajectory(
        f"{result.subject}: {result.check} (torch {result.torch})", str(found.trace), quantity,
        lines, _marks(found.trace), epoch, said, wrong, right,
    )  # fmt: skip


def number(value: Any) -> float:
    """A hyperparameter as `numbers` has it, as one number; nan for what is none."""
    if isinstance(value, dict):
        value = value.get("tensor", value.get("numpy"))
    if isinstance(value, list):
        value = value[0] if value else math.nan
        return number(value)
    return float(value) if isinstance(value, (int, float)) else math.nan


def numbers_of(observation: dict[str, Any], quantity: str) -> list[float]:
    """What an observation has of a quantity, a number for each param group."""
    values = observation.get(quantity, [])
    return [number(value) for value in values] if isinstance(values, list) else []


def _of_path(path: str, observations: Any, quantity: str) -> Points:
    return [
        (epochs(path[:place]), numbers_of(seen, quantity))
        for place, seen in enumerate(observations[: len(path) + 1])
        if "raises" not in seen
    ]


def _both(runner: Runner, check: Check, trace: Trace, quantity: str) -> list[Line]:
    """The run of a trace in its stretches, and the uninterrupted runs behind it."""
    stretches = watch(runner, check, trace)
    if check.compares == "values":
        own = [(epoch, numbers_of(seen, "lr")) for epoch, seen in stretches[0].points]
        return [Line("the run", "uninterrupted", own, stretches[0].raises)]
    paths = dict.fromkeys(reversed(branches(trace.operations)))
    whole = [path for path in paths if not any(p.startswith(path) and p != path for p in paths)]
    lines = []
    for path in whole:
        reference: Reference = runner.reference(path)
        points = _of_path(path, reference.observations, quantity)
        ends = reference.raises if len(reference.observations) <= len(path) else ""
        lines.append(Line("uninterrupted", "uninterrupted", points, ends))
    epochs_back = next((epoch for stretch in stretches[1:] for epoch, _ in stretch.points), 0)
    name = "resumed" if check.kind == "resume" else "saved"
    for stretch in stretches:
        points = [(epoch, numbers_of(seen, quantity)) for epoch, seen in stretch.points]
        if stretch is not stretches[0] or len(stretches) == 1:
            lines.append(Line(name, "resumed", points, stretch.raises))
        elif points and points[-1][0] > epochs_back:
            lines.append(Line("", "before", points))
    return lines


def _changed(bound: Bound, check: Check, trace: Trace, quantity: str) -> list[Line]:
    """The uninterrupted runs with either options, and the resumed ones, which change them."""
    builders = bound.new_optimizer, bound.build, bound.new.build
    operations = plain_operations(trace.operations)
    runs = resumed_runs(builders, bound.step, save_checkpoint, check.function, operations)
    path = runs[-1]["path"] if runs else ""
    lines = []
    for name, role, build in (
        ("old options", "uninterrupted", bound.build), ("new options", "other", bound.new.build),
    ):  # fmt: skip
        seen = uninterrupted(bound.new_optimizer, build, bound.step, path)
        lines.append(Line(name, role, _of_path(path, seen, quantity), _raised(seen)))
    for run in runs:
        points = [
            (epochs(run["path"][: run["first"] + index]), numbers_of(seen, quantity))
            for index, seen in enumerate(run["seen"])
            if "raises" not in seen
        ]
        lines.append(Line("resumed", "resumed", points, _raised(run["seen"])))
    return lines


def _raised(seen: list[dict[str, Any]]) -> str:
    return str(seen[-1].get("raises", "")) if seen else ""


def _marks(trace: Trace) -> dict[int, str]:
    """The saves and resumes by epoch, in their order."""
    marks: dict[int, list[str]] = {}
    for operation, _, path in walk(trace.operations):
        if operation.kind in (*BACK, "save"):
            marks.setdefault(epochs(path), []).append(str(operation))
    return {epoch: shorten(" ".join(_counted(said)), 60) for epoch, said in marks.items()}


def _counted(words: list[str]) -> Iterator[str]:
    """Words, with a number in place of those that are there again and again."""
    for word, again in itertools.groupby(words):
        count = len(list(again))
        yield word if count == 1 else f"{word} ({count} times)"


def _differences(
    check: Check, found: Counterexample, quantity: str, epoch: int
) -> tuple[dict[int | None, str], dict[int, float], dict[int, float]]:
    """What to say of the first difference, and the numbers, by group."""
    said: dict[int | None, str] = {}
    wrong: dict[int, float] = {}
    right: dict[int, float] = {}
    at = f"epoch {epoch}: "
    if "raises" in found.actual:
        return {None: f"{at}raises {shorten(found.actual['raises'], 90)}"}, wrong, right
    actual = found.actual.get(quantity)
    expected = found.expected.get(quantity)
    if check is CHANGED and isinstance(actual, list):
        return {g: f"{at}{number(v):.6g}, as in neither" for g, v in enumerate(actual)}, {
            g: number(v) for g, v in enumerate(actual)
        }, right  # fmt: skip
    if isinstance(actual, list) and isinstance(expected, list) and len(actual) == len(expected):
        for group, (is_, must) in enumerate(zip(actual, expected, strict=True)):
            if same(is_, must):
                continue
            one, other = _apart(is_, must)
            said[group] = f"{at}{one}, must be {other}"
            wrong[group], right[group] = number(is_), number(must)
    if not said:
        name = next(iter(found.actual))
        is_, must = (shorten(side.get(name), 60) for side in (found.actual, found.expected))
        said[None] = f"{at}{name} is {is_}, must be {must}"
        if "raises" in found.expected:
            said[None] = f"{at}must raise {shorten(found.expected['raises'], 60)}"
        elif name == "weights":
            said[None] = f"{at}the weights differ"
    return said, wrong, right


def _apart(one: Any, other: Any) -> tuple[str, str]:
    """Two values as text, with as many digits as tell them apart, and dtypes where none does."""
    for digits in range(6, 18):
        said = f"{number(one):.{digits}g}", f"{number(other):.{digits}g}"
        if said[0] != said[1]:
            return said
    return _with_dtype(one), _with_dtype(other)


def _with_dtype(value: Any) -> str:
    if isinstance(value, dict) and "dtype" in value:
        return f"{number(value):g} ({value['dtype']})"
    return str(value)
