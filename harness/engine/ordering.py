"""Decides the order in which pairs are checked and the time they get: gate and explorer.

The gate checks every pair once and gives the same results every time. With ``--time-budget 60``
it sweeps all pairs before it searches any. A pair it could not get to is UNKNOWN; a pair it swept
but could not search gets a NOTE. ``--shard 2/5`` is the second of five parts of the same work, for
five jobs; ``python -m harness merge RESULT.json ...`` combines their ``--json`` files and reports
like ``check``.

The explorer, ``--profile explore``, keeps searching with fresh seeds until Ctrl-C (or
``--time-budget``), and prints its seed. It saves what it finds in Hypothesis's example database,
and the next explorer tries those traces first. A gate ignores them.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import torch

from harness.core.check import Check
from harness.core.references import place_of
from harness.core.result import Budget, Result
from harness.core.verdict import Reason, Verdict
from harness.engine.search import Examples
from harness.engine.session import SubjectSession
from harness.subjects.subject import Subject

Pair: TypeAlias = tuple[Subject, Check]
Make: TypeAlias = Callable[[Subject, Budget, Examples | None], SubjectSession]
"""Makes the session that checks the pairs of a subject."""


def shard_of(pairs: Sequence[Pair], number: int, count: int) -> list[Pair]:
    """Every `count`-th pair, beginning with pair `number`, which counts from 1.

    >>> shard_of("abcdefg", 2, 3)
    ['b', 'e']
    """
    return list(pairs[number - 1 :: count])


def gate(
    pairs: Sequence[Pair], make: Make, budget: Budget, seconds: float | None = None
) -> Iterator[tuple[int, Result]]:
    """The result of each pair, with its index.

    If `seconds` is given, all pairs together take no longer. Then a pair may have two results:
    one after its sweep, and one after its search that covers both.
    """
    if seconds is None:
        for group in _by_subject(dict(enumerate(pairs))):
            made = make(group[0][1][0], budget, None)
            for index, (_, check) in group:
                yield index, made.check(check)
        return
    end = time.monotonic() + seconds
    sweeping, searching = replace(budget, max_examples=0), replace(budget, sweep=False)
    swept: dict[int, Result] = {}
    all_made: dict[str, SubjectSession] = {}
    ran_out = f"the time budget of {seconds:g} s ran out"

    def within(budget: Budget) -> Budget:
        return replace(budget, time_limit=min(budget.time_limit, max(0.01, end - time.monotonic())))

    checks = list(dict.fromkeys(check.name for _, check in pairs))
    broad = sorted(enumerate(pairs), key=lambda item: checks.index(item[1][1].name))
    for index, (subject, check) in broad:
        if time.monotonic() >= end:
            reason, place = f"{ran_out} before it was tried", place_of(subject.build)
            result = Result(
                subject.name, check.name, Verdict.UNKNOWN, reason, torch=str(torch.__version__),
                references=(subject.reference, check.reference), place=place,
                why=Reason.OUT_OF_TIME, promise=check.promise,
            )  # fmt: skip
        else:
            if subject.name not in all_made:
                all_made[subject.name] = make(subject, within(sweeping), None)
            result = all_made[subject.name].check(check, within(sweeping))
            if result.verdict == Verdict.UNKNOWN and time.monotonic() >= end:
                reason = f"{ran_out} in its sweep"
                result = replace(result, reason=reason, why=Reason.OUT_OF_TIME)
        swept[index] = result
        yield index, result
    for index, (subject, check) in broad:
        result = swept[index]
        if not (budget.max_examples and check.kind == "resume" and check.search):
            continue
        known = result.verdict == Verdict.KNOWN and all_made[subject.name].search_known
        if result.verdict != Verdict.HOLDS and not known:
            continue
        when = "before its search"
        if time.monotonic() < end:
            found = all_made[subject.name].check(check, within(searching))
            if found.verdict != Verdict.UNKNOWN or time.monotonic() < end:
                yield index, _both(result, found)
                continue
            when = "in its search"
        reason = "; ".join(filter(None, [f"{ran_out} {when}", result.reason]))
        yield index, replace(result, reason=reason, why=Reason.OUT_OF_TIME)


def explore(
    pairs: Sequence[Pair], make: Make, budget: Budget, examples: Examples
) -> Iterator[tuple[int, Result]]:
    """The results of one round after another, each with the index of its pair.

    Each round has the next seed, and a result covers all rounds so far. A broken pair is not
    tried again; the explorer ends when no pair is left that holds or is known.
    """
    so_far: dict[int, Result] = {}
    left = dict(enumerate(pairs))
    for number in itertools.count():
        drawn = replace(budget, seed=budget.seed + number)
        for group in _by_subject(left):
            made = make(group[0][1][0], drawn, examples)
            for index, (_, check) in group:
                result = made.check(check)
                if index in so_far:
                    result = _both(so_far[index], result)
                so_far[index] = result
                yield index, result
        left = {
            i: pair
            for i, pair in left.items()
            if so_far[i].verdict in (Verdict.HOLDS, Verdict.KNOWN)
        }
        if not left:
            return


def _by_subject(pairs: Mapping[int, Pair]) -> Iterator[list[tuple[int, Pair]]]:
    """The pairs of each subject, with their indices."""
    for _, group in itertools.groupby(pairs.items(), lambda item: item[1][0].name):
        yield list(group)


def _both(first: Result, second: Result) -> Result:
    """The second result, which also counts what was tried for the first."""
    seconds = round(first.seconds + second.seconds, 4)
    return replace(second, tally=first.tally.plus(second.tally), seconds=seconds)
