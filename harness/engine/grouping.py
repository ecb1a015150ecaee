"""Groups counterexamples by cause, where the evidence is exact: ``check --explain``.

What a counterexample got may be, to the last bit, something that is known: a value of the
uninterrupted run at another epoch, the last change made once more, an exception. Such a
*relation* between expected and got is evidence. Counterexamples of one check that share one, at
the same operation, are said to have one cause; nothing here is guessed from values that are close.

A cause is one block of the report, with the smallest of its counterexamples, the subjects that
it looks the same in, and under how many sets of drawn options. In a test:
``check_scheduler(..., explain=True)``.
"""

from __future__ import annotations

import collections
import math
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from harness.checks.registry import CHECKS
from harness.core.literals import format_value
from harness.core.operations import epochs, path_to, walk
from harness.core.result import Counterexample, Result
from harness.core.trace import BACK, STEPS
from harness.core.training_loop import same

Member: TypeAlias = tuple[Result, Counterexample]
Token: TypeAlias = tuple[str, str]
"""A relation, and the only subject that it says something of, or nothing."""
ORDER = {check.name: number for number, check in enumerate(CHECKS)}
AT_EVERY_SAVE = {check.name for check in CHECKS if check.kind == "resume" and check.at == "save"}
NUMBER = re.compile(r"0x[0-9a-fA-F]+|(?<![\w.])-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?(?!\w)")
MISSING = "(missing)"
"""What `harness.core.training_loop.differences` puts for a key that is not there."""
GROUPS = {"lr", "momentum", "betas", "weight_decay", "get_last_lr"}
"""The values that are lists with an item for each param group."""
EARLIER = "that of the uninterrupted run one epoch earlier"
LATER = "that of the uninterrupted run one epoch later"
BEGINS = "as if the schedule began at the checkpoint"
STAYS = "still that of the checkpoint"
UNDONE = "still that before going back"
AGAIN = "multiplied a second time by the factor of the last step"
ULPS = 2
"""By how many floats a quotient may be off the factor that was multiplied with."""


@dataclass(frozen=True)
class Cause:
    """Counterexamples that show the same: all `relations` are true of each of them, exactly.

    `checks` are the names of the checks that they break: several where one subject
    breaks them by the same trace, but for the way back, with the same values.
    `operation` is where it shows, in words, and `values` are the names of what differs
    there. `members` are the counterexamples, each with its result, the smallest first.
    Where no relation is known, they are of one subject.
    """

    checks: tuple[str, ...]
    operation: str
    values: tuple[str, ...]
    relations: tuple[str, ...]
    members: tuple[Member, ...]

    @property
    def relation(self) -> str:
        """What is got, as against what is expected, as a sentence."""
        relation = "; ".join(self.relations) or "another value"
        if self.values == ("raises",):
            return f"raises {relation}"
        plural = len(self.values) > 1 or self.values[0].endswith("s")
        return f"{' and '.join(self.values)} {'are' if plural else 'is'} {relation}"

    @property
    def smallest(self) -> Member:
        """The counterexample of the fewest operations, the fewest steps and the shortest text."""
        return self.members[0]

    @property
    def subjects(self) -> dict[str, int]:
        """The names of the subjects, each with how many sets of options it shows under."""
        sets: dict[str, set[str]] = collections.defaultdict(set)
        for result, found in self.members:
            options = sorted(found.trace.options, key=lambda option: option[0])
            sets[result.subject].add(repr(options))
        return {name: len(options) for name, options in sets.items()}


def explain(results: Iterable[Result]) -> list[Cause]:
    """The causes of all counterexamples in `results`, those with the most of them first.

    Every counterexample is in exactly one. The order of the results does not matter. Results of
    `check_subject` with ``Budget(explain=True)`` hold a counterexample for each set of drawn
    options that breaks; others hold one for each broken pair.

    >>> from harness import Budget, Subject, check_subject
    >>> from harness.checks.registry import select_checks
    >>> from torch.optim.lr_scheduler import StepLR
    >>> subject = Subject("decays", StepLR, options={"step_size": 3, "gamma": 0.5})
    >>> checks = select_checks(["resume_by_last_epoch"])
    >>> [cause] = explain(check_subject(subject, checks, Budget(explain=True)))
    >>> cause.operation, cause.relation
    ('resume', 'lr is multiplied a second time by the factor of the last step')
    """
    groups: dict[tuple[str, str, tuple[str, ...]], list[tuple[Member, frozenset[Token]]]]
    groups = collections.defaultdict(list)
    for result in results:
        for found in (result.counterexample, *result.others):
            if found is not None:
                tokens = frozenset((text, "") for text in relations(found))
                key = result.check, _operation(result.check, found), tuple(found.actual)
                groups[key].append(((result, found), tokens or frozenset([("", result.subject)])))
    causes = [
        Cause((check,), operation, values, *cover)
        for (check, operation, values), items in groups.items()
        for cover in _cover(items)
    ]
    return sorted(_fold(causes), key=lambda cause: (-len(cause.members), _rank(cause)))


def _cover(
    items: Sequence[tuple[Member, frozenset[Token]]],
) -> Iterator[tuple[tuple[str, ...], tuple[Member, ...]]]:
    """As few groups as come of taking the relation that most items have, again and again.

    Each with the relations that all its items have. A short trace may have several: one epoch
    earlier may be the start as well; what longer ones say decides.
    """
    while items:
        counts = collections.Counter(token for _, tokens in items for token in tokens)
        best = min(counts, key=lambda token: (-counts[token], token))
        inside = [item for item in items if best in item[1]]
        common = frozenset.intersection(*(tokens for _, tokens in inside))
        texts = tuple(sorted(text for text, _ in common if text))
        yield texts, _sorted(member for member, _ in inside)
        items = [item for item in items if best not in item[1]]


def _fold(causes: Iterable[Cause]) -> list[Cause]:
    """One cause for those of several checks that show by the same trace in the same subjects."""
    folded: list[Cause] = []
    for cause in sorted(causes, key=_rank):
        for number, other in enumerate(folded):
            common = tuple(text for text in other.relations if text in cause.relations)
            alike = common or not (other.relations or cause.relations)
            if alike and _shown(other) == _shown(cause):
                folded[number] = Cause(
                    (*other.checks, *cause.checks),
                    " or ".join(dict.fromkeys((*other.operation.split(" or "), cause.operation))),
                    cause.values,
                    common,
                    _sorted((*other.members, *cause.members)),
                )
                break
        else:
            folded.append(cause)
    return folded


def _shown(cause: Cause) -> tuple[Any, ...]:
    """What two checks must have in common to be one cause."""
    result, found = cause.smallest
    values = repr((found.expected, found.actual))
    trace = sorted(map(repr, found.trace.options)), _without_ways(result, found)
    return set(cause.subjects), result.subject, trace, values


def _without_ways(result: Result, found: Counterexample) -> list[str]:
    """The operations without the names of the ways back; a check at every save goes back there."""
    said = []
    for operation in found.trace.operations:
        if operation.kind in BACK:
            said.append(f"back:{operation.slot}")
        else:
            said.append(str(operation))
            if operation.kind == "save" and result.check in AT_EVERY_SAVE:
                said.append(f"back:{operation.slot}")
    return said


def _sorted(members: Iterable[Member]) -> tuple[Member, ...]:
    return tuple(sorted(members, key=_size))


def _size(member: Member) -> tuple[Any, ...]:
    result, found = member
    operations = _without_ways(result, found)
    options = sorted(f"{name}={format_value(value)}" for name, value in found.trace.options)
    text = " ".join([*options, *operations])
    place = _place(result.check), result.subject, str(found.trace)
    other = found is not result.counterexample
    values = repr((found.expected, found.actual))
    return len(operations), found.trace.steps, len(text), other, text, *place, values


def _rank(cause: Cause) -> tuple[Any, ...]:
    checks = tuple(map(_place, cause.checks))
    return checks, cause.operation, cause.values, cause.relations, _size(cause.smallest)


def _place(check: str) -> tuple[int, str]:
    """Where a check stands among the others: ours in their order, then a user's own."""
    return ORDER.get(check, len(ORDER)), check


def _operation(check: str, found: Counterexample) -> str:
    """The operation at which a counterexample shows, in words that name no slot."""
    operations = found.trace.operations[: found.operation + 1]
    kinds = [
        "resume" if op.kind == "save" and check in AT_EVERY_SAVE else op.kind
        for op in operations
        if op.kind not in STEPS
    ]
    if operations[-1].kind not in STEPS:
        return kinds[-1]
    if not found.step:
        return "the start"
    return f"a step after {kinds[-1]}" if kinds else "a step"


def alike(check: str, one: Counterexample, other: Counterexample) -> bool:
    """Whether two counterexamples of a check may have one cause.

    They show at the same operation, in the same values, and share a relation; or of neither
    any is known.
    """
    places = [(_operation(check, found), sorted(found.actual)) for found in (one, other)]
    mine, its = relations(one), relations(other)
    return places[0] == places[1] and bool(mine & its or not (mine or its))


def relations(found: Counterexample) -> frozenset[str]:
    """What is exactly true of what was got, as against what was expected; empty if nothing is.

    Each completes a sentence that begins with the values that differ; for an exception it is
    its text without its numbers. Those with the uninterrupted run need
    `Counterexample.uninterrupted`.
    """
    if "raises" in found.actual:
        return frozenset([NUMBER.sub("N", str(found.actual["raises"]))])
    if "raises" in found.expected:
        return frozenset(["given, where the uninterrupted run raises"])
    if not found.expected.keys() >= found.actual.keys():  # it follows neither of two contracts
        return frozenset()
    pairs = [(found.expected[key], found.actual[key]) for key in found.actual]
    true = [
        text
        for text, holds in (
            ("missing", all(got == MISSING for _, got in pairs)),
            ("there, and must not be", all(expected == MISSING for expected, _ in pairs)),
            ("negative", all(_below_zero(*pair) for pair in pairs)),
            ("not a number", all(_not_a_number(*pair) for pair in pairs)),
            (
                "that of the first group in every group",
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


def _moments(found: Counterexample) -> dict[str, dict[str, Any]]:
    """What the uninterrupted run showed at other epochs, by what these are to the place."""
    run = found.uninterrupted
    if run is None:
        return {}
    operations = found.trace.operations
    now = epochs(path_to(operations, found.operation, found.step))
    walked = list(walk(operations))[: found.operation + 1]
    at = {epochs(run.path[:i]): seen for i, seen in enumerate(run.observations)}
    wanted = {EARLIER: now - 1, LATER: now + 1}
    operation, before, _ = walked[-1]
    if operation.kind in BACK and run.path.startswith(before):
        wanted[UNDONE] = epochs(before)
    checkpoints = [epochs(after) for operation, _, after in walked if operation.slot]
    if checkpoints:
        wanted[BEGINS] = now - checkpoints[-1]
        wanted[STAYS] = checkpoints[-1]
    return {text: at[epoch] for text, epoch in wanted.items() if epoch in at and epoch != now}


def _below_zero(expected: Any, got: Any) -> bool:
    return any(x < 0 for x in _floats(got)) and all(x >= 0 for x in _floats(expected))


def _not_a_number(expected: Any, got: Any) -> bool:
    return any(map(math.isnan, _floats(got))) and not any(map(math.isnan, _floats(expected)))


def _first(expected: Any, got: Any) -> bool:
    return (
        isinstance(expected, list)
        and isinstance(got, list)
        and len(expected) == len(got) > 1
        and all(same(expected[0], value) for value in got)
    )


def _again(before: Any, expected: Any, got: Any) -> bool:
    """Whether one float leads from `before` to `expected` and from there to `got`, everywhere."""
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


def _floats(value: Any) -> list[float]:
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
