"""The Hypothesis machine: it draws traces, and does nothing else with them.

How the harness looks for a difference:

1. A subject has its own options, tried first, and 25 sets that Hypothesis draws over its
   constructor, most with an optimizer; compositions are drawn up to three deep
   (`harness.engine.option_sets`).
2. First comes a sweep (`harness.engine.sweep`) over every save point of a plain run, for three of
   these
   sets: resume there, save and resume again, run on, go back and run on; and over what happens
   now and then. Checks of the state go over all sets.
3. Then this state machine draws traces of all operations, for each way of resuming, and for all
   that hold alone mixed in one run; each trace has the next of the sets.
4. What is found is made minimal (`harness.engine.minimise`), with the subject's own options if it
   breaks
   with them, else with what Hypothesis shrinks the drawn ones to, and run twice from scratch
   before it is reported.
5. A run that breaks with a scheduler that does nothing on the same drawn optimizer is not
   reported (`harness.engine.blame`). The same ``--seed`` gives the same results.

Decisions that rest on measurement, on planted faults with the sweep switched off:

* The machine has one rule, a *leg*: steps alone, or a few steps next to a save or a way back.
  With a rule for each operation, which Hypothesis turns off at random, many traces lacked a
  save, a resume or a kind of step: a pending optimizer step that a load forgets was found by 4
  of 20 seeds, and is by all; what a load in place forgets by 11, and is by all. With the same
  number of traces.
* No rule has a precondition: a leg that can't be done does what is nearest to it (going back
  where nothing is saved saves first).
* At most 9 traces are drawn to a seed, then a new one is taken: from the tenth on, Hypothesis
  spends most examples on repeating parts of earlier ones, and 25 traces to a seed found less.
* Operations are made fewer by the harness, not by Hypothesis's shrinker, which shrinks drawn
  options alone: the same traces in a tenth of the time. So operations are drawn once for all
  subjects.
* Ways of resuming are tried in all pairs before they are mixed at random: a scheduler that is
  wrong only where a load in place follows a copy was found by 2 of 20 searches, and is by all.
* Hypothesis draws some numbers from the modules at hand. That is switched off: a seed would draw
  other traces in another folder.
* A whole check of a subject costs twice the CPU of a bare torch loop with the same torch calls
  (``python scripts/bench.py``).
"""

from __future__ import annotations

import functools
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

from harness.core.operations import BACK, BY_WORD, PLAIN, Operation
from harness.subjects.drawn_options import quiet_settings, without_local_constants

Operations: TypeAlias = tuple[Operation, ...]
SLOTS = ("a", "b")
LEGS = ("on", "save", "back", "save", "back")
LEGS_WITHOUT_WAYS = ("on", "save")
PER_EVENT = 8
"""How many times all `LEGS` there are for each event: they stay rare, however many there are."""
LEGS_PER_TRACE = 12
ROUND = 9
"""Traces to a seed. From the tenth on, Hypothesis mostly repeats parts of those before, which
finds a bug that needs equal values; traces that differ more find more of ours."""


@dataclass(frozen=True)
class Plan:
    """What the traces of a search may hold.

    `ways` are the ways of going back: the kind of operation, the check written
    behind it (or nothing), and the first epoch it can go back to. `epochs` is how
    many scheduler steps a branch may have, `length` how many it goes on for at
    the end, and `events` what may happen now and then.
    """

    ways: tuple[tuple[str, str, int], ...]
    epochs: int
    length: int
    events: tuple[str, ...] = ()


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

    def last_is(self, *kinds: str) -> bool:
        return bool(self.operations) and self.operations[-1].kind in kinds

    def add(self, kind: str, count: int) -> None:
        """Add steps; where no epoch is left, these are optimizer steps."""
        if not count:
            return
        if BY_WORD[kind].epochs:
            if self.left:
                count = min(count, self.left)
                self.epoch += count
            else:
                kind = "optimizer"
        self.operations.append(Operation(kind, count=count))

    def save(self, slot: str) -> None:
        """Save; a second time at once, go back to what was saved."""
        if self.plan.ways and self.last_is("save"):
            self.go_back(self.epoch)
        else:
            self.slots[slot] = self.epoch
            self.operations.append(Operation("save", slot=slot))

    def save_halfway(self) -> None:
        """Save where there is something to go back to: in the middle of what was done, or here."""
        first = min(first for _, _, first in self.plan.ways)
        if self.epoch < first:
            self.add("train", first - self.epoch)
        half = len(self.operations) // 2
        steps = (op for op in self.operations[:half] if op.count)
        epoch = sum(op.count for op in steps if BY_WORD[op.kind].epochs)
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
        """Go back by one of the ways there are, after a save if there is none.

        A second time at once, what is gone on from is saved first: a chain of resumes.
        """
        if not self.ways_back():
            self.save_halfway()
        elif self.last_is(*BACK):
            self.save(SLOTS[pick % len(SLOTS)])
        ways = self.ways_back()
        kind, check, slot = ways[pick % len(ways)]
        self.epoch = self.slots[slot]
        self.operations.append(Operation(kind, slot=slot, check=check))
        self.went_back = True

    def finish(self) -> Operations:
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


def _machine(plan: Plan, see: Callable[[Operations], None]) -> type[RuleBasedStateMachine]:
    """A machine that shows the operations of every trace to `see`."""

    legs: tuple[str, ...] = LEGS if plan.ways else LEGS_WITHOUT_WAYS
    if plan.events:
        legs = (*legs * PER_EVENT, *plan.events)

    class TraceMachine(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.draft = _Draft(plan)

        # One rule, as Hypothesis turns rules off at random and a trace without a save, or
        # without steps of one kind, finds little; and without preconditions: what can't be
        # done is replaced by what is nearest to it.
        @rule(
            kind=st.sampled_from(PLAIN),
            count=st.integers(1, 9),
            leg=st.sampled_from(legs),
            pick=st.integers(0, 4 * max(len(plan.ways), 1) - 1),
        )
        def go(self, kind: str, count: int, leg: str, pick: int) -> None:
            few = (count + 1) // 3  # next to a save or a resume, each single step matters
            if leg == "on":
                self.draft.add(kind, count)
            elif leg in plan.events:
                self.draft.add(leg, 1)
            elif leg == "save":
                self.draft.add(kind, few)
                self.draft.save(SLOTS[pick % len(SLOTS)])
            else:
                self.draft.go_back(pick // 2)
                self.draft.add(kind, few)

        def teardown(self) -> None:
            see(self.draft.finish())

    return TraceMachine


@functools.lru_cache(maxsize=64)
def draw_operations(plan: Plan, max_examples: int, seed_number: int) -> tuple[Operations, ...]:
    """The operations of up to `max_examples` different traces.

    The same `seed_number` draws the same, so they are drawn once for all searches with
    the same plan. They are made fewer by `harness.engine.minimise`, in a tenth of the time that
    Hypothesis would take.
    """
    drawn: dict[Operations, None] = {}
    for done in range(0, max_examples, ROUND):
        # Not the class itself: Hypothesis would read its source for a database that is not used.
        machine: Any = functools.partial(_machine(plan, drawn.setdefault))
        few = settings(
            quiet_settings(min(ROUND, max_examples - done)), stateful_step_count=LEGS_PER_TRACE
        )
        with without_local_constants():
            run_state_machine_as_test(seed(f"{seed_number} {done}")(machine), settings=few)
    return tuple(drawn)
