"""The pairs of a subject and its checks, in any order."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator

from harness.checks.registry import CHANGED, CHECKS, MIXED, as_check
from harness.core.check import Check
from harness.core.ledger import NOTHING_KNOWN, Ledger
from harness.core.result import HOLDS, UNKNOWN, Budget, Result
from harness.core.trace import BACK
from harness.engine.blame import why
from harness.engine.verdict import BEFORE_CHANGED, SubjectCheck
from harness.subjects.subject import Subject


class Pairs:
    """The pairs of one subject: each is checked when it is asked for, with the same result.

    The arguments are those of `check_subject`; `names` are those of the checks that the
    subject may decline, beside the harness's own. What keeps any check from being made is the
    reason of an UNKNOWN for each.
    """

    def __init__(
        self,
        subject: Subject,
        names: Collection[str] = (),
        budget: Budget | None = None,
        *,
        resume_python: str = "",
        ledger: Ledger = NOTHING_KNOWN,
        search_known: bool = False,
        replay_alone: bool = False,
    ) -> None:
        self.replay_alone = replay_alone
        self.searched: dict[tuple[str, bool, int], Result] = {}
        self.refusal = ""
        self.work = SubjectCheck(
            subject, budget or Budget(), resume_python, ledger, search_known=search_known
        )
        try:
            self.work.prepare({*(check.name for check in CHECKS), *names})
        except (Exception, SystemExit) as error:
            self.refusal = why(error, self.work.so_far())

    def check(self, check: Check, budget: Budget | None = None) -> Result:
        """The result of one pair, with another `budget` than the one to begin with if given."""
        work = self.work
        if self.refusal:
            return work.result(check, UNKNOWN, self.refusal, None, time.perf_counter())
        work.budget = budget or work.budget
        work.replay_alone = False
        before: list[Check] = []
        if check is MIXED:
            before = [c for c in CHECKS if c.default and c.kind == "resume" and c.at in BACK]
            before.remove(MIXED)
        elif check is CHANGED and "options" not in work.lacks:
            before = [as_check(BEFORE_CHANGED)]
        for way in before:
            if self._key(way) not in self.searched:
                self.searched[self._key(way)] = work.check(way, ())
        holding = [way for way in before if self._holds(way)]
        work.replay_alone = self.replay_alone
        result = work.check(check, holding)
        if not self.replay_alone:
            self.searched[self._key(check)] = result
        return result

    def _key(self, check: Check) -> tuple[str, bool, int]:
        return check.name, self.work.budget.sweep, self.work.budget.max_examples

    def _holds(self, way: Check) -> bool:
        """Whether nothing that was tried of it so far broke it."""
        results = [result for key, result in self.searched.items() if key[0] == way.name]
        return all(result.verdict == HOLDS for result in results)


def check_subject(
    subject: Subject,
    checks: Iterable[Check],
    budget: Budget | None = None,
    *,
    resume_python: str = "",
    ledger: Ledger = NOTHING_KNOWN,
    search_known: bool = False,
    replay_alone: bool = False,
) -> Iterator[Result]:
    """Check `subject` with each of `checks`, and yield the results one by one.

    `resume_python` is the interpreter of checks that go through another process, this one where
    it is empty. A pair that `ledger` has an entry on for this torch is KNOWN or STALE, and not
    searched, but with `search_known`: what is found then is not what the entry tells. With
    `replay_alone` the traces of the ledger are run, and no other.
    """
    checks = list(checks)
    pairs = Pairs(
        subject, {check.name for check in checks}, budget, resume_python=resume_python,
        ledger=ledger, search_known=search_known, replay_alone=replay_alone,
    )  # fmt: skip
    for check in checks:
        yield pairs.check(check)
