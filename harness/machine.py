"""The Hypothesis machine: it draws traces, and does nothing else with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from harness.trace import BACK, Operation, Trace

__all__ = ["Plan", "draw_options", "search"]

SLOTS = ("a", "b")
RULES_PER_TRACE = 10
ROUND = 9
"""Traces to a seed. From the tenth on, Hypothesis mostly repeats parts of those before, which
finds a bug that needs equal values; traces that differ more find more of ours."""


@dataclass(frozen=True)
class Plan:
    """What the traces of a search may hold.

    `ways` are the ways of going back: the kind of operation, the check written
    behind it (or nothing), and the first epoch it can go back to. `epochs` is how
    many scheduler steps a branch may have, `length` how many it goes on for at
    the end, and `options` draws the subject's drawn options.
    """

    ways: Sequence[tuple[str, str, int]]
    epochs: int
    length: int
    options: Mapping[str, st.SearchStrategy[Any]]


class _Found(Exception):
    """A trace that breaks the check."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace


class _Leave(BaseException):
    """An error of any other kind: Hypothesis must neither catch nor shrink it."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


class _Draft:
    """A trace in the making, with the epoch of the branch and of every slot."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.operations: list[Operation] = []
        self.epoch = 0
        self.slots: dict[str, int] = {}
        self.went_back = False

    @property
    def left(self) -> int:
        return self.plan.epochs - self.epoch

    def twice(self, *kinds: str) -> bool:
        """Whether the last two operations were of these kinds."""
        return [operation.kind in kinds for operation in self.operations[-2:]] == [True, True]

    def add(self, kind: str, count: int) -> None:
        if kind != "optimizer":
            count = min(count, self.left)
            self.epoch += count
        self.operations.append(Operation(kind, count=count))

    def save(self, slot: str) -> None:
        self.slots[slot] = self.epoch
        self.operations.append(Operation("save", slot=slot))

    def save_halfway(self) -> None:
        """Save where there is something to go back to: in the middle of what was done, or here."""
        first = min(first for _, _, first in self.plan.ways)
        if self.epoch < first:
            self.add("train", first - self.epoch)
        half = len(self.operations) // 2
        epoch = sum(op.count for op in self.operations[:half] if op.kind != "optimizer")
        if self.slots or epoch < first:
            self.save("a")
        else:
            self.slots["a"] = epoch
            self.operations.insert(half, Operation("save", slot="a"))

    def ways_back(self) -> list[tuple[str, str, str]]:
        return [
            (kind, check, slot)
            for slot, epoch in self.slots.items()
            for kind, check, first in self.plan.ways
            if epoch >= first
        ]

    def go_back(self, pick: int) -> None:
        """Go back by one of the ways there are, after a save if there is none."""
        if not self.ways_back():
            self.save_halfway()
        ways = self.ways_back()
        kind, check, slot = ways[pick % len(ways)]
        self.epoch = self.slots[slot]
        self.operations.append(Operation(kind, slot=slot, check=check))
        self.went_back = True

    def finish(self) -> tuple[Operation, ...]:
        """The operations, with at least one save and, where there is a way, one way back."""
        if not self.plan.ways:
            if not self.slots:
                self.save("a")
        elif not self.went_back:
            self.go_back(len(self.operations) + self.epoch)
        # A difference may show late: go on for as long as the plain run goes.
        if self.left:
            self.add("train", max(self.plan.length - self.epoch, 3))
        return tuple(self.operations)


def _machine(
    plan: Plan, options: Mapping[str, Any], breaks: Callable[[Trace], bool]
) -> type[RuleBasedStateMachine]:
    drawn = st.fixed_dictionaries(dict(plan.options))

    class TraceMachine(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.draft = _Draft(plan)
            self.options = dict(options)

        if plan.options:

            @initialize(values=drawn)
            def draw(self, values: dict[str, Any]) -> None:
                self.options.update(values)

        @precondition(lambda self: self.draft.left > 0)
        @rule(count=st.integers(1, 7))
        def train(self, count: int) -> None:
            self.draft.add("train", count)

        @rule(kind=st.sampled_from(("optimizer", "scheduler")), count=st.integers(1, 3))
        def alone(self, kind: str, count: int) -> None:
            self.draft.add(kind if self.draft.left else "optimizer", count)

        @precondition(lambda self: not self.draft.twice("save"))
        @rule(slot=st.sampled_from(SLOTS))
        def save(self, slot: str) -> None:
            self.draft.save(slot)

        if plan.ways:

            @precondition(lambda self: not self.draft.twice(*BACK))
            @rule(pick=st.integers(0, 2 * len(plan.ways) - 1))
            def go_back(self, pick: int) -> None:
                self.draft.go_back(pick)

        def teardown(self) -> None:
            trace = Trace(self.draft.finish(), tuple(self.options.items()))
            try:
                broken = breaks(trace)
            except BaseException as error:
                raise _Leave(error) from error
            if broken:
                raise _Found(trace)

    return TraceMachine


def _settings(max_examples: int) -> settings:
    return settings(
        max_examples=max_examples,
        stateful_step_count=RULES_PER_TRACE,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        verbosity=Verbosity.quiet,
        report_multiple_bugs=False,
        print_blob=False,
    )


def search(
    plan: Plan,
    options: Mapping[str, Any],
    breaks: Callable[[Trace], bool],
    *,
    max_examples: int,
    seed_number: int,
) -> Trace | None:
    """Draw up to `max_examples` traces, and return one for which `breaks`, shrunk, or None.

    `options` are the literal options that every trace begins with. The same
    `seed_number` draws the same traces. What `breaks` raises comes out as it is.
    """
    machine = _machine(plan, options, breaks)
    for done in range(0, max_examples, ROUND):
        few = _settings(min(ROUND, max_examples - done))
        try:
            run_state_machine_as_test(seed(f"{seed_number} {done}")(machine), settings=few)
        except _Found as found:
            return found.trace
        except _Leave as leave:
            raise leave.error from None
    return None


def draw_options(
    options: Mapping[str, st.SearchStrategy[Any]], count: int, seed_number: int
) -> list[dict[str, Any]]:
    """Up to `count` different sets of values for drawn options, the simplest first."""
    seen: dict[str, dict[str, Any]] = {}

    @seed(seed_number)
    @_settings(count)
    @given(st.fixed_dictionaries(dict(options)))
    def draw(values: dict[str, Any]) -> None:
        seen.setdefault(repr(values), values)

    draw()
    return list(seen.values())
