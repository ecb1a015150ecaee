"""The Hypothesis machine: it draws traces and does nothing else with them.

The numbers of seeds in this file were measured on planted faults, with the sweep switched off.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from hypothesis import seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    rule,
    run_state_machine_as_test,
)

from harness.core.operations import BY_WORD, GO_BACK, PLAIN, Operation
from harness.subjects.drawn_options import quiet_settings, without_local_constants

Operations: TypeAlias = tuple[Operation, ...]
SLOTS = ("a", "b")
LEGS = ("on", "save", "back", "save", "back")
LEGS_WITHOUT_WAYS = ("on", "save")
"""What one leg of a trace can do: steps alone, or a few steps next to a save or a way back. A word
that is listed twice is drawn twice as often."""
PER_EVENT = 8
"""How many times `LEGS` is repeated for each event, so that events stay rare."""
LEGS_PER_TRACE = 12
TRACES_PER_ROUND = 9
"""Traces drawn from one seed. From the tenth on, Hypothesis mostly repeats parts of earlier ones.
That finds bugs that need equal values; traces that differ more find more scheduler bugs."""


@dataclass(frozen=True)
class DrawPlan:
    """What the traces of a search may hold.

    `ways` are the ways of going back: the kind of operation, the check written
    after it (or nothing), and the first epoch it can go back to. `epochs` is the
    most scheduler steps a branch may have, and `length` the epoch to which it runs
    on at the end. `events` are the rare events that may happen.
    """

    ways: tuple[tuple[str, str, int], ...]
    epochs: int
    length: int
    events: tuple[str, ...] = ()

    @property
    def legs(self) -> tuple[str, ...]:
        """What a leg can be; a word that is listed twice is drawn twice as often."""
        legs = LEGS if self.ways else LEGS_WITHOUT_WAYS
        return (*legs * PER_EVENT, *self.events) if self.events else legs


class Draft:
    """A trace under construction, with the epoch of the branch and of every slot."""

    def __init__(self, plan: DrawPlan) -> None:
        self.plan = plan
        self.operations: list[Operation] = []
        self.epoch = 0
        self.slots: dict[str, int] = {}
        self.went_back = False

    @property
    def left(self) -> int:
        """How many scheduler steps the branch may still have."""
        return self.plan.epochs - self.epoch

    def last_is(self, *kinds: str) -> bool:
        """Whether the last operation is one of these."""
        return bool(self.operations) and self.operations[-1].kind in kinds

    def add(self, kind: str, count: int) -> None:
        """Add steps; if no epoch is left, add optimizer steps instead."""
        if not count:
            return
        if BY_WORD[kind].steps_scheduler:
            if self.left:
                count = min(count, self.left)
                self.epoch += count
            else:
                kind = "optimizer"
        self.operations.append(Operation(kind, count=count))

    def leg(self, kind: str, count: int, leg: str, pick: int) -> None:
        """Add steps alone, an event, or a few steps next to a save or a way back."""
        few = (count + 1) // 3  # next to a save or a resume, each single step matters
        if leg == "on":
            self.add(kind, count)
        elif leg in self.plan.events:
            self.add(leg, 1)
        elif leg == "save":
            self.add(kind, few)
            self.save(SLOTS[pick % len(SLOTS)])
        else:
            self.go_back(pick // 2)
            self.add(kind, few)

    def save(self, slot: str) -> None:
        """Save; if the last operation was a save too, go back to a slot instead."""
        if self.plan.ways and self.last_is("save"):
            self.go_back(self.epoch)
        else:
            self.slots[slot] = self.epoch
            self.operations.append(Operation("save", slot=slot))

    def save_halfway(self) -> None:
        """Save early enough to have something to go back to: halfway through the trace, or here."""
        first = min(first for _, _, first in self.plan.ways)
        if self.epoch < first:
            self.add("train", first - self.epoch)
        half = len(self.operations) // 2
        steps = (op for op in self.operations[:half] if op.count)
        epoch = sum(op.count for op in steps if BY_WORD[op.kind].steps_scheduler)
        if self.slots or epoch < first:
            self.save("a")
        else:
            self.slots["a"] = epoch
            self.operations.insert(half, Operation("save", slot="a"))

    def ways_back(self) -> list[tuple[str, str, str]]:
        """The ways of going back from here: kind, check and slot."""
        return [
            (kind, check, slot)
            for slot, epoch in self.slots.items()
            for kind, check, first in self.plan.ways
            if epoch >= first
        ]

    def go_back(self, pick: int) -> None:
        """Go back by one of the possible ways; if there is none yet, save first.

        If the last operation went back too, save before this one: a chain of resumes.
        """
        if not self.ways_back():
            self.save_halfway()
        elif self.last_is(*GO_BACK):
            self.save(SLOTS[pick % len(SLOTS)])
        ways = self.ways_back()
        kind, check, slot = ways[pick % len(ways)]
        self.epoch = self.slots[slot]
        self.operations.append(Operation(kind, slot=slot, check=check))
        self.went_back = True

    def finish(self) -> Operations:
        """The operations, with at least one save and, if the plan has ways, one way back."""
        if not self.plan.ways:
            if not self.slots:
                self.save("a")
        elif not self.went_back:
            self.go_back(len(self.operations) + self.epoch)
        # A difference may show late: go on for as long as the uninterrupted run goes.
        if self.left:
            self.add("train", max(self.plan.length - self.epoch, 3))
        return tuple(self.operations)


def _machine(plan: DrawPlan, see: Callable[[Operations], None]) -> type[RuleBasedStateMachine]:
    """A machine that passes the operations of every trace to `see`."""

    class TraceMachine(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.draft = Draft(plan)

        # One rule, a leg: only steps, or a few steps next to a save or a way back. Hypothesis turns
        # rules off at random, and a trace without a save or without one kind of step finds little:
        # with a rule for each operation, 4 of 20 seeds found a pending optimizer step that a load
        # forgets, and 11 of 20 what a load in place forgets; with one rule all do. No
        # preconditions: what can't be done is replaced by the nearest thing.
        @rule(
            kind=st.sampled_from(PLAIN),
            count=st.integers(1, 9),
            leg=st.sampled_from(plan.legs),
            pick=st.integers(0, 4 * max(len(plan.ways), 1) - 1),  # halved: a slot and a way
        )
        def go(self, kind: str, count: int, leg: str, pick: int) -> None:
            self.draft.leg(kind, count, leg, pick)

        def teardown(self) -> None:
            see(self.draft.finish())

    return TraceMachine


def draw_operations(plan: DrawPlan, count: int, seed_number: int) -> tuple[Operations, ...]:
    """The operations of up to `count` different traces; `seed_number` says which.

    Hypothesis does not shrink them: `harness.engine.minimise` does, in a tenth of the time. So they
    do not depend on the subject, and are drawn once for all.
    """
    rounds = range(math.ceil(count / TRACES_PER_ROUND))
    drawn = dict.fromkeys(
        each for number in rounds for each in draw_round(plan, number, seed_number)
    )
    return tuple(drawn)[:count]


RoundKey: TypeAlias = tuple[DrawPlan, int, int]
"""What one round is drawn from: a plan, the number of the round, and a seed."""
DRAWN_ROUNDS: dict[RoundKey, tuple[Operations, ...]] = {}
"""The rounds drawn so far: searches with the same plan share them."""
MAX_DRAWN_ROUNDS = 1000


def draw_round(plan: DrawPlan, number: int, seed_number: int) -> tuple[Operations, ...]:
    """The operations of up to `TRACES_PER_ROUND` traces."""
    key = (plan, number, seed_number)
    if key not in DRAWN_ROUNDS:
        if len(DRAWN_ROUNDS) >= MAX_DRAWN_ROUNDS:
            DRAWN_ROUNDS.clear()
        drawn: dict[Operations, None] = {}
        # Not the class itself: Hypothesis would read its source for a database we do not use.
        machine: Any = functools.partial(_machine(plan, drawn.setdefault))
        few = settings(quiet_settings(TRACES_PER_ROUND), stateful_step_count=LEGS_PER_TRACE)
        with without_local_constants():  # else a seed draws other traces in another folder
            seeded = seed(f"{seed_number} {number * TRACES_PER_ROUND}")(machine)
            run_state_machine_as_test(seeded, settings=few)
        DRAWN_ROUNDS[key] = tuple(drawn)
    return DRAWN_ROUNDS[key]
