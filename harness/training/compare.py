"""Compares the resumed run of a training script with the recorded one: pure functions.

A resumed run starts at its checkpoint, not at the step after which it was killed. `start_of`
finds its first step in the recorded run: by the weights and the optimizer's state, by the weights
alone, or else by its length. `compare` then goes over all steps that both runs have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType

from harness.core.run import MISSING, same
from harness.training.recording import Recording, State, Step

__all__ = ["Compared", "Difference", "Field", "Start", "compare", "compare_ranks", "start_of"]


class Field(StrEnum):
    """What is compared, in the order in which differences are reported."""

    RANKS = "number of ranks"
    LR = "lr"
    MOMENTUM = "momentum"
    BETAS = "betas"
    WEIGHT_DECAY = "weight_decay"
    STATE = "optimizer state"
    STEPS = "number of steps"
    WEIGHTS = "weights"
    GRADIENTS = "gradients"


HYPERPARAMETERS = (Field.LR, Field.MOMENTUM, Field.BETAS, Field.WEIGHT_DECAY)
DATA = (Field.WEIGHTS, Field.GRADIENTS)
"""These differ if only the order of the data or the random state does; not compared by default."""
FAR = 100
"""How many steps a schedule may be behind or ahead for it to be noticed."""


@dataclass(frozen=True)
class Start:
    """Where a resumed run starts: before its first step, `steps` had been made in the recording.

    `by` says how that is known: ``state``, ``weights`` or ``length``.
    """

    steps: int
    by: str


@dataclass(frozen=True)
class Difference:
    """Where the runs first differ in a field.

    `step` counts from 1 in the recorded run. `group` is the param group, -1 if the field has no
    groups. `later` of the `following` later steps differ in this field too. `relations` say what is
    known about the actual values, the most telling one first.
    """

    field: Field
    rank: int
    step: int
    optimizer: int
    group: int
    expected: object
    actual: object
    later: int = 0
    following: int = 0
    relations: tuple[str, ...] = ()


@dataclass(frozen=True)
class Compared:
    """The differences of a resumed run, in the order of the fields; and where each rank starts.

    A rank that can't be aligned is not in `starts`; `unaligned` says why.
    """

    starts: Mapping[int, Start]
    differences: tuple[Difference, ...] = ()
    unaligned: str = ""

    def broken(self, *, everything: bool) -> Difference | None:
        """The first difference that counts; `everything`: data and random state count too."""
        counting = (d for d in self.differences if everything or d.field not in DATA)
        return next(counting, None)

    @property
    def data(self) -> Difference | None:
        """The first difference in the data or the random state."""
        return next((d for d in self.differences if d.field in DATA), None)


def start_of(expected: Recording, actual: Recording, killed_after: int) -> Start | None:
    """Where the resumed run `actual` starts in the recorded run; None if that is not known.

    `killed_after` is the smallest number of steps after which its checkpoint was there. Where
    several steps fit, for example because the LR was 0, the length of the run decides, else the
    last one before the kill. The length of a run that was stopped after enough steps says nothing.
    """
    length: int | None = len(expected.steps) - len(actual.steps)
    if not actual.steps:
        return Start(len(expected.steps), "length")
    if expected.stopped or actual.stopped:
        length = None
    first = actual.steps[0].before
    states = [step.before for step in expected.steps]
    ends = list(expected.after)
    exact: Callable[[State], bool] = first.__eq__
    by_weights: Callable[[State], bool] = lambda state: state.weights == first.weights != ""  # noqa: E731
    for by, fits in (("state", exact), ("weights", by_weights)):
        found = [index for index, state in enumerate(states) if fits(state)]
        if any(map(fits, ends)):
            found.append(len(states))
        if length is not None and length in found:
            return Start(length, by)
        earlier = [index for index in found if index <= killed_after]
        if found:
            return Start(max(earlier or found), by)
    if length is not None and 0 < length <= killed_after:
        return Start(length, "length")
    return None


def compare_ranks(
    expected: Mapping[int, Recording],
    actual: Mapping[int, Recording],
    killed_after: int,
    stopped: Mapping[int, Recording] = MappingProxyType({}),
) -> Compared:
    """Compare every rank of a resumed run with the recorded run.

    Where it starts is looked for in the run that was `stopped`, if that is not the recorded one.
    """
    if actual and expected.keys() != actual.keys():
        one, other = (", ".join(map(str, each)) for each in (expected, actual))
        return Compared({}, (Difference(Field.RANKS, min(expected), 1, 0, -1, one, other),))
    starts: dict[int, Start] = {}
    found: list[Difference] = []
    for rank, recording in expected.items():
        resumed = actual.get(rank, Recording(rank, ()))
        start = start_of(stopped.get(rank, recording), resumed, killed_after)
        if start is None:
            at, steps = len(recording.steps), len(resumed.steps)
            return Compared(
                starts,
                unaligned=f"the first step of the resumed run (rank {rank}) matches no step of the "
                f"recorded run by its weights, nor by its length ({steps} of {at} steps)",
            )
        if not resumed.steps:
            start = Start(min(len(recording.steps), killed_after), "length")
        starts[rank] = start
        found += compare(recording, resumed, start.steps)
    order = list(Field)
    found.sort(key=lambda difference: (order.index(difference.field), difference.step))
    return Compared(starts, tuple(found))


def compare(expected: Recording, actual: Recording, start: int = 0) -> list[Difference]:
    """The first difference in each field, from the step after `start` of the recorded run on.

    Where a run was stopped after enough steps, its number of steps is not compared.
    """
    pairs = list(zip(expected.steps[start:], actual.steps, strict=False))
    rank = expected.rank
    found = [
        difference
        for field in HYPERPARAMETERS
        for difference in _first(field, rank, start, pairs)
    ]  # fmt: skip
    found = [_related(difference, expected, actual, start) for difference in found]
    found += _state(rank, start, pairs)
    found += _number_of_steps(expected, actual, start)
    hashes: tuple[tuple[Field, Callable[[Step], str]], ...] = (
        (Field.WEIGHTS, lambda step: step.before.weights),
        (Field.GRADIENTS, lambda step: step.gradients),
    )
    for field, hash_of in hashes:
        differ = [j for j, (one, other) in enumerate(pairs) if hash_of(one) != hash_of(other)]
        if differ:
            found.append(_at(field, rank, start, pairs, differ, -1, hash_of))
    return found


def _column(step: Step, field: Field) -> list[object]:
    values = step.values.get(field.value, [])
    return values if isinstance(values, list) else [values]


def _first(
    field: Field, rank: int, start: int, pairs: Sequence[tuple[Step, Step]]
) -> Iterator[Difference]:
    differ = [
        j for j, pair in enumerate(pairs)
        if not same(*(_column(step, field) for step in pair))
    ]  # fmt: skip
    if not differ:
        return
    one, other = (_column(step, field) for step in pairs[differ[0]])
    group = next(
        g for g in range(max(len(one), len(other))) if not same(_item(one, g), _item(other, g))
    )
    yield _at(field, rank, start, pairs, differ, group, lambda s: _item(_column(s, field), group))


def _item(values: list[object], group: int) -> object:
    return values[group] if group < len(values) else MISSING


def _at(
    field: Field,
    rank: int,
    start: int,
    pairs: Sequence[tuple[Step, Step]],
    differ: list[int],
    group: int,
    value: Callable[[Step], object],
) -> Difference:
    j = differ[0]
    one, other = pairs[j]
    return Difference(
        field, rank, start + j + 1, one.optimizer, group, value(one), value(other),
        later=len(differ) - 1, following=len(pairs) - j - 1,
    )  # fmt: skip


def _state(rank: int, start: int, pairs: Sequence[tuple[Step, Step]]) -> list[Difference]:
    """Where an optimizer begins with the right weights and another state."""
    seen: set[int] = set()
    for j, (one, other) in enumerate(pairs):
        if one.optimizer in seen:
            continue
        seen.add(one.optimizer)
        if one.before.weights == other.before.weights and one.before != other.before:
            lost = not other.before.optimizer
            momentum = any(_column(one, Field.MOMENTUM)) and not _column(one, Field.BETAS)
            what = "momentum" if momentum else "optimizer state"
            return [
                Difference(
                    Field.STATE, rank, start + j + 1, one.optimizer, -1,
                    "the recorded state", "no state" if lost else "another state",
                    relations=(f"{what} lost",) if lost else (),
                )
            ]  # fmt: skip
    return []


def _number_of_steps(expected: Recording, actual: Recording, start: int) -> list[Difference]:
    end, got = len(expected.steps), start + len(actual.steps)
    if got == end or actual.stopped or (expected.stopped and got > end):
        return []
    if got > end:
        relation = "runs past the end"
    else:
        relation = "makes no step" if not actual.steps else "ends too early"
    steps = expected.steps or actual.steps
    return [
        Difference(
            Field.STEPS, expected.rank, min(end, got) + 1, steps[0].optimizer, -1,
            f"{end} steps", f"{got} steps", relations=(relation,),
        )
    ]  # fmt: skip


# ------------------------------------------------------------------ relations


def _related(
    difference: Difference, expected: Recording, actual: Recording, start: int
) -> Difference:
    """`difference` with what is known about all the values of its optimizer from there on."""
    field, optimizer = difference.field, difference.optimizer
    wanted = _values(expected.steps, field, optimizer)
    got = _values(actual.steps, field, optimizer)
    before = len(_values(expected.steps[:start], field, optimizer))
    first = len(_values(actual.steps[: difference.step - 1 - start], field, optimizer))
    return replace(difference, relations=_relations(wanted, got, before, first, difference))


def _values(steps: Sequence[Step], field: Field, optimizer: int) -> list[list[object]]:
    return [_column(step, field) for step in steps if step.optimizer == optimizer]


def _relations(
    wanted: list[list[object]],
    got: list[list[object]],
    start: int,
    first: int,
    difference: Difference,
) -> tuple[str, ...]:
    """The relations of `got`, which starts at `start` in `wanted`, from its index `first` on.

    The most telling one comes first. The last of few steps may have many relations by chance;
    what several resumed runs have in common is what counts.
    """
    rest = got[first:]

    def shifted(shift: int) -> bool:
        """Whether every value equals the one `shift` steps later in the recorded run."""
        places = range(start + first + shift, start + len(got) + shift)
        inside = [(place, value) for place, value in zip(places, rest, strict=True)
                  if 0 <= place < len(wanted)]  # fmt: skip
        return len(inside) >= max(1, len(rest) - 1) and all(
            same(wanted[place], value) for place, value in inside
        )

    once = not difference.later
    changes = not all(same(value, wanted[0]) for value in wanted)
    constant = changes and all(same(value, rest[0]) for value in rest)
    far = next((shift for size in range(2, FAR) for shift in (-size, size) if shifted(shift)), 0)
    way = "behind" if far < 0 else "ahead"
    known = (
        (once and difference.following > 0, "wrong for one step"),
        (start > 0 and shifted(-start), "the schedule starts again at the checkpoint"),
        (shifted(-1), "one step behind to the end"),
        (shifted(1), "one step ahead to the end"),
        (constant and start > 0 and same(rest[0], wanted[min(start, len(wanted)) - 1]),
         "stays at the value of the last step before the checkpoint"),
        (constant and same(rest[0], wanted[0]), "stays at the value of the first step"),
        (constant and len(rest) > 1, "does not change any more"),
        (far != 0, f"{abs(far)} steps {way} to the end"),
        (once and not difference.following, "wrong for one step"),
    )  # fmt: skip
    return tuple(text for holds, text in known if holds)
