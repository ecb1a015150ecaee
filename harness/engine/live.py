"""Drives live objects operation by operation, and finds out which check a difference breaks.

`harness.stateful` makes a Hypothesis machine of it, which draws the legs: `harness.engine.machine`
describes them. Each leg is done at once, and compared with the uninterrupted run.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random

import torch

from harness.checks.registry import CHECKS, as_check
from harness.core.check import Check
from harness.core.errors import TraceError
from harness.core.ledger import KnownFailure, Ledger, version_of
from harness.core.operations import (
    GO_BACK,
    LETTER,
    PLAIN,
    Operation,
    groups_added,
    operations_of,
    walk,
)
from harness.core.result import Budget, Found, FoundBy, Result
from harness.core.run import Tally
from harness.core.trace import Trace
from harness.core.verdict import Reason, Verdict
from harness.engine.machine import LEGS_PER_TRACE, Draft, DrawPlan
from harness.engine.one_run import LiveRun, Runner, Stop
from harness.engine.option_sets import OptionSet
from harness.engine.pair_tester import NEITHER, Limit, PairTester
from harness.engine.search import simplify
from harness.engine.session import SubjectSession
from harness.engine.verdict import Decision, replay_entry, result_of
from harness.subjects.subject import Subject


@dataclass(frozen=True)
class Group:
    """Checks that resume in the same examples: one alone, or several in turn (`resumes_mixed`)."""

    check: Check
    routes: tuple[Check, ...]

    def plan(self, option_set: OptionSet) -> DrawPlan:
        """What the examples with these options may hold."""
        mixes = self.check.mixes
        ways = tuple(
            (route.at, route.name if mixes else "", route.from_epoch)
            for route in self.routes
            if route.at in GO_BACK
        )
        lost = min((route.without for route in self.routes), key=len)
        events = tuple(kind for kind in option_set.events if kind not in lost)
        return DrawPlan(ways, option_set.epochs, option_set.bound.subject.length, events)


class _LiveDraft(Draft):
    """Operations that are done as soon as they are added, so that none is put before others.

    A save is made for one check, `used` at its operation; only checks that save in the same way
    resume from it.
    """

    def __init__(self, plan: DrawPlan, group: Group) -> None:
        super().__init__(plan)
        self.group = group
        self.named = {route.name if group.check.mixes else "": route for route in group.routes}
        self.pick = 0
        self.saves: dict[int, Check] = {}

    def leg(self, kind: str, count: int, leg: str, pick: int) -> None:
        self.pick = pick
        super().leg(kind, count, leg, pick)

    def save(self, slot: str) -> None:
        routes = [way for way in self.plan.ways if self._restores(way, self.epoch, self._path)]
        if self.plan.ways and not routes:
            self.add("train", min(first for _, _, first in self.plan.ways) - self.epoch)
            routes = [way for way in self.plan.ways if self._restores(way, self.epoch, self._path)]
        before = len(self.operations)
        super().save(slot)
        if len(self.operations) > before and self.last_is("save"):
            chosen = self.named[routes[self.pick % len(routes)][1]] if routes else self.group.check
            self.saves[len(self.operations) - 1] = chosen

    def save_halfway(self) -> None:
        self.save("a")

    def ways_back(self) -> list[tuple[str, str, str]]:
        """The ways of going back to one of the slots: else those saved in a rare way come short."""
        saved = {}
        for number, (operation, _, path) in enumerate(walk(self.operations)):
            if operation.kind == "save":
                saved[operation.slot] = self.saves[number], path
        found = {
            slot: [
                (kind, name, slot)
                for kind, name, first in self.plan.ways
                if self.named[name].save == saving.save
                and self._restores((kind, name, first), self.slots[slot], path)
            ]
            for slot, (saving, path) in saved.items()
        }
        usable = [ways for ways in found.values() if ways]
        return usable[self.pick % len(usable)] if usable else []

    def used(self, number: int) -> Check:
        """The check that saves or resumes at an operation."""
        operation = self.operations[number]
        return self.saves.get(number) or self.named.get(operation.check, self.group.check)

    @property
    def _path(self) -> str:
        return next((path for *_, path in reversed(list(walk(self.operations)))), "")

    def _restores(self, way: tuple[str, str, int], epoch: int, path: str) -> bool:
        """Whether one can go back to this path in this way."""
        kind, name, first = way
        if kind == "load" and groups_added(path) != groups_added(self._path):
            return False
        lost = self.named[name].without
        return epoch >= first and not any(LETTER[each] in path for each in lost)


class Drive:
    """One run of live objects, with one set of options and one group of checks.

    `differs` is the trace up to the first difference from the uninterrupted run; None if there is
    none. `over` says whether the run has ended: there, or where the uninterrupted run raises, or
    after `LEGS_PER_TRACE` legs.
    """

    def __init__(self, runner: Runner, option_set: OptionSet, group: Group, limit: Limit) -> None:
        self.runner = runner
        self.group = group
        self.plan = group.plan(option_set)
        self.options = option_set.bound.literals
        self.limit = limit
        self.draft = _LiveDraft(self.plan, group)
        self.run = LiveRun(runner, group.check)
        self.legs = 0
        self.differs: Trace | None = None
        self.over = False

    def leg(self, random: Random) -> None:
        """Do one more leg (`harness.engine.machine`)."""
        kind, count, leg = random.choice(PLAIN), random.randint(1, 9), random.choice(self.plan.legs)
        self.draft.leg(kind, count, leg, random.randrange(256))
        self._catch_up()
        self.legs += 1
        if self.legs == LEGS_PER_TRACE:
            self.finish()

    def finish(self) -> None:
        """Go back at least once, and on to the end of the schedule."""
        if not self.over:
            self.draft.finish()
            self._catch_up()
            self.over = True

    @property
    def ways(self) -> list[str]:
        """The names of the checks it resumed with."""
        saves = self.group.check.at == "save"
        used = [
            check.name
            for check, operation in zip(self.run.checks_used, self.run.operations, strict=True)
            if operation.kind in GO_BACK or (saves and operation.kind == "save")
        ]
        return list(dict.fromkeys(used))

    def _catch_up(self) -> None:
        """Do the operations that were added."""
        run, operations = self.run, self.draft.operations
        with self.limit.on():
            self.runner.deadline = self.limit.deadline
            self.limit.begin(self._trace(operations))
            try:
                if not run.operations:
                    run.start()
                for number in range(len(run.operations), len(operations)):
                    run.do(operations[number], self.draft.used(number))
            except Stop as stop:
                self.over = True
                found = stop.outcome.difference
                if found is not None:
                    done = self._trace(run.operations)
                    self.differs = done.until(found.operation, found.step)

    def _trace(self, operations: Sequence[Operation]) -> Trace:
        return Trace(tuple(operations), self.options)


@dataclass(frozen=True)
class Broken:
    """A trace that breaks a check."""

    check: Check
    trace: Trace


class Live:
    """What the runs of one subject share: its options, the groups of checks, what is known.

    A check in `if_they_hold` is used only if a sweep finds no failure of it. `decided` are the
    results that need no run: of a subject that can't be checked, and of ledger entries that are
    wrong. `declined` are those of checks that do not apply.
    """

    def __init__(
        self,
        subject: Subject,
        checks: Sequence[Check],
        budget: Budget,
        ledger: Ledger,
        if_they_hold: Sequence[Check] = (),
    ) -> None:
        self.subject = subject
        self.budget = budget
        self.session = SubjectSession(
            subject, {check.name for check in checks}, budget, ledger=ledger, replay_alone=True
        )
        self.prepared = self.session.prepared
        results = {
            check: self.session.check(check)
            for check in checks
            if check not in if_they_hold or self._holds(check)
        }
        decided = (Verdict.UNKNOWN, Verdict.STALE, Verdict.BROKEN)
        self.decided = [each for each in results.values() if each.verdict in decided]
        self.declined = [
            each
            for each in results.values()
            if each.verdict == Verdict.DECLINED and each.why != Reason.NOT_IN_LEDGER
        ]
        self.known = {
            check: self._known(check)
            for check, result in results.items()
            if result.verdict == Verdict.KNOWN
        }
        left = [check for check in results if results[check] not in self.declined]
        mixed = [
            check for check in left
            if check.at in GO_BACK and check in CHECKS and not (check.event or check in self.known)
        ]  # fmt: skip
        self.about_events = [check for check in left if check.event and mixed]
        """Checks about an operation by hand: they resume in the way of another check."""
        left = [check for check in left if check not in self.about_events]
        self.groups = [Group(check, (check,)) for check in left if check not in mixed]
        if mixed:
            one = mixed[0] if len(mixed) == 1 else as_check("resumes_mixed")
            self.groups.insert(0, Group(one, tuple(mixed)))
        self.started = time.process_time()
        self.tally = Tally()
        """What was tried so far."""

    def _holds(self, check: Check) -> bool:
        """Whether a sweep finds no failure of a check."""
        return self.session.sweep(check, replace(self.budget, max_examples=0)) is None

    def _known(self, check: Check) -> tuple[KnownFailure, ...]:
        """The failures that ledger entries for this torch explain."""
        names = {self.subject.name, self.subject.reference} - {""}
        tester = self._tester(check)
        found = []
        with tester.limit.on():
            for entry in self.session.ledger.about(names, check.name, check.reference):
                if entry.covers(version_of(torch.__version__)):
                    shown = replay_entry(tester, entry).found
                    found += [KnownFailure(entry, shown)] if shown is not None else []
        return tuple(found)

    def _tester(self, check: Check) -> PairTester:
        """What tests the traces of a check; it compares neither weights nor ``get_last_lr()``."""
        limit = Limit(self.subject, self.budget.time_limit)
        tester = PairTester(self.session.runners, check, limit, self.prepared.option_sets)
        tester.left_out = NEITHER
        return tester

    def drive(self, random: Random) -> Drive:
        """A new run, with options and checks at random.

        Half of the runs have the subject's own options, if they are complete, and more than half go
        back in all ways that are not known to fail.
        """
        sets, groups = self.prepared.option_sets, self.groups
        option_set = sets[0] if sets[0].own and random.random() < 0.5 else random.choice(sets)
        group = groups[0] if random.random() < 0.5 else random.choice(groups)
        limit = Limit(self.subject, self.budget.time_limit)
        runner = self.session.runners.of(option_set.bound, limit.deadline, NEITHER)
        return Drive(runner, option_set, group, limit)

    def count(self, drive: Drive) -> None:
        """Count what a run tried."""
        self.tally = self.tally.plus(drive.run.tally)

    def broken(self, drive: Drive) -> Broken | None:
        """Which check the trace of a run breaks, unless that is known or excused."""
        if drive.differs is None:
            return None
        used = drive.run.checks_used[: len(drive.differs.operations)]
        readings = _readings(drive.group.check, drive.differs, used)
        events = (_about(check, drive.differs) for check in self.about_events)
        return self._first_broken(itertools.chain(readings, *events))

    def _first_broken(self, readings: Iterator[Broken]) -> Broken | None:
        for reading in readings:
            tester = self._tester(reading.check)
            with tester.limit.on():
                if tester.breaks(reading.trace, self.known.get(reading.check, ())):
                    return Broken(reading.check, tester.cut(reading.trace))
        return None

    def result(self, broken: Broken) -> Result:
        """The result with the minimal counterexample.

        If a single check breaks it, the result is that check's, and not that of `resumes_mixed`.
        """
        check, started = broken.check, time.perf_counter()
        tester, seed = self._tester(check), self.budget.seed
        with tester.limit.on():
            trace = simplify(tester, broken.trace, seed, self.known.get(check, ()))
        if check.mixes:
            ways = [as_check(op.check) for op in trace.operations if op.kind in GO_BACK]
            each_alone = (_alone(way, trace) for way in dict.fromkeys(ways))
            alone = self._first_broken(itertools.chain.from_iterable(each_alone))
            if alone is not None:
                return self.result(alone)
        found = Found(FoundBy.SEARCH, self.tally.traces, time.process_time() - self.started)
        with tester.limit.on():
            shown = tester.counterexample(trace, None, found)
        decision = Decision(Verdict.BROKEN, counterexample=shown)
        result = result_of(self.prepared, tester, decision, time.perf_counter() - started)
        return replace(result, tally=self.tally)


def _readings(check: Check, trace: Trace, used: Sequence[Check]) -> Iterator[Broken]:
    """The trace as one of each check that was `used` in it, the last one first; then as it is."""
    if check.mixes:
        ways = [
            way for way, operation in zip(used, trace.operations, strict=True) if operation.slot
        ]
        for way in dict.fromkeys(reversed(ways)):
            yield from _alone(way, trace)
    yield Broken(check, trace)


def _about(check: Check, trace: Trace) -> Iterator[Broken]:
    """A trace as one of a check that is about an operation by hand, if it has that operation."""
    if any(operation.kind == check.event for operation in trace.operations):
        operations = (
            replace(operation, check=check.name) if operation.kind == check.at else operation
            for operation in trace.operations
        )
        yield from _alone(check, Trace(tuple(operations), trace.options))


def _alone(check: Check, trace: Trace) -> Iterator[Broken]:
    """A trace that goes back in the way of this check alone, to where `trace` leads, if it can.

    What comes before the last resume by another check is one run without any.
    """
    operations = trace.operations
    others = [
        number for number, operation in enumerate(operations)
        if operation.kind in GO_BACK and operation.check != check.name
    ]  # fmt: skip
    kept = operations[others[-1] + 1 :] if others else operations
    before: list[Operation] = []
    if others:
        made = list(walk(operations))[: others[-1] + 1]
        path, at = made[-1][2], ""
        slots = {
            operation.slot: reached for operation, _, reached in made if operation.kind == "save"
        }
        for slot, reached in sorted(slots.items(), key=lambda item: len(item[1])):
            if path.startswith(reached):
                before += [*operations_of(reached[len(at) :]), Operation("save", slot=slot)]
                at = reached
        before += operations_of(path[len(at) :])
    with contextlib.suppress(TraceError):
        found = [replace(operation, check="") for operation in (*before, *kept)]
        yield Broken(check, Trace(tuple(found), trace.options))
