"""Runs the checks of one subject, in any order; the order does not change the results."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace

from harness.checks.registry import CHECKS, as_check, checks_used, prerequisites
from harness.core.check import Check
from harness.core.errors import UndecidedError
from harness.core.ledger import EMPTY_LEDGER, Entry, Ledger
from harness.core.operations import Operation
from harness.core.result import Budget, Result
from harness.core.trace import Trace
from harness.core.verdict import Reason, Verdict
from harness.engine.examples import Examples
from harness.engine.option_sets import Prepared, prepare, prepare_one
from harness.engine.pair_tester import Limit, PairTester, Runners
from harness.engine.verdict import Question, Spent, judge, result_of, undecided
from harness.subjects.known_failures import known_to
from harness.subjects.lookup import as_subject
from harness.subjects.subject import Subject


class SubjectSession:
    """The pairs of one subject.

    The arguments are those of `check_subject`; `check_names` are checks that the subject may
    decline, in addition to the harness's own. If the subject can't be checked at all, every check
    is UNKNOWN for that reason. `earlier` are results of the same subject, with their budgets.
    `note` is called with each trace before it is run.
    """

    def __init__(
        self,
        subject: Subject,
        check_names: Collection[str] = (),
        budget: Budget | None = None,
        *,
        resume_python: str = "",
        ledger: Ledger = EMPTY_LEDGER,
        replay_alone: bool = False,
        examples: Examples | None = None,
        earlier: Iterable[tuple[Budget, Result]] = (),
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.subject = subject
        self.budget = budget or Budget()
        self.ledger = known_to(subject, ledger)
        self.replay_alone = replay_alone
        self.examples = examples
        self.runners = Runners(subject, resume_python)
        self.traces = 0
        self.started = time.process_time()
        self.results = {_key(result.check, spent): result for spent, result in earlier}
        self.swept: dict[str, tuple[PairTester, Result]] = {}
        self.note = note
        self.prepared = Prepared()
        self.refusal: BaseException | None = None
        limit = Limit(subject, self.budget.time_limit, note)
        check_names = {*(check.name for check in CHECKS), *check_names}
        try:
            with limit.on():
                self.prepared = prepare(
                    subject,
                    self.budget.seed,
                    functools.partial(self.runners.of, deadline=limit.deadline),
                    check_names,
                )
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a subject may raise anything
            self.refusal = error

    def check(self, check: Check, budget: Budget | None = None) -> Result:
        """The result of one pair; `budget`, if given, replaces the session's budget.

        A pair that was swept is only searched now.
        """
        return self._as_expected(self._found(check, budget or self.budget))

    def _found(self, check: Check, budget: Budget) -> Result:
        if check.name in self.swept:
            tester, swept = self.swept.pop(check.name)
            result = self._judge(tester, (), replace(budget, sweep=False))
            result = replace(result, seconds=round(swept.seconds + result.seconds, 4))
            self.results[_key(check.name, budget)] = result
            return result
        before = prerequisites(check) if self.refusal is None else []
        if check.prerequisite and "options" in self.prepared.lacks:
            before = []
        for other in before:
            if _key(other.name, budget) not in self.results:
                self._checked(other, (), budget, replay_alone=False)
        holding = tuple(other for other in before if self._holds(other))
        return self._checked(check, holding, budget, replay_alone=self.replay_alone)

    def sweep(self, check: Check, budget: Budget) -> Result | None:
        """The result of a pair, or None if only a search can decide: then `check` goes on.

        Only for a check that depends on no other. A pair with ledger entries is decided at once.
        """
        if self.refusal is not None or self._entries(check):
            return self.check(check, budget)
        tester = self._tester(check, budget)
        result = self._judge(tester, (), replace(budget, max_examples=0), will_search=True)
        if result.verdict == Verdict.HOLDS:
            self.swept[check.name] = tester, result
            return None
        self.results[_key(check.name, budget)] = result
        return self._as_expected(result)

    def _as_expected(self, result: Result) -> Result:
        """The result, given what the subject's ``expected_failures`` say."""
        reason = self.subject.expected_failures.get(result.check)
        if reason is None:
            return result
        if result.verdict == Verdict.BROKEN:
            known = f"expected to fail: {reason}"
            return replace(result, verdict=Verdict.KNOWN, reason=known, why=Reason.EXPECTED_FAILURE)
        if result.verdict == Verdict.HOLDS:
            stale = f"it holds: remove it from 'expected_failures', which say: {reason}"
            return replace(
                result, verdict=Verdict.STALE, reason=stale, why=Reason.UNEXPECTEDLY_HOLDS
            )
        return result

    def rates(self) -> dict[str, list[object]]:
        """The LRs of all groups at the start and after each epoch of uninterrupted runs, by trace.

        This covers the subject's own options and the drawn ones, with no save. A run
        that ends with an exception has fewer epochs. Empty if the subject can't be run.
        """
        limit = Limit(self.subject, self.budget.time_limit)
        plain = Operation("train", count=self.subject.length)
        path = "t" * self.subject.length
        rates = {}
        with contextlib.suppress(Exception, SystemExit), limit.on():  # its verdicts report it
            for option_set in self.prepared.option_sets:
                if option_set.variation:
                    continue
                run = self.runners.of(option_set.bound, limit.deadline).uninterrupted(path)
                seen = run.observations[: len(path) + 1]
                rates[str(Trace((plain,), option_set.bound.literals))] = [
                    each["lr"] for each in seen
                ]
        return rates

    def _checked(
        self, check: Check, holding: tuple[Check, ...], budget: Budget, *, replay_alone: bool
    ) -> Result:
        tester = self._tester(check, budget)
        if self.refusal is not None:
            return result_of(self.prepared, tester, undecided(self.refusal, ""), 0.0)
        result = self._judge(tester, holding, budget, replay_alone=replay_alone)
        if not replay_alone:
            self.results[_key(check.name, budget)] = result
        return result

    def _entries(self, check: Check) -> tuple[Entry, ...]:
        names = {self.subject.name, self.subject.reference} - {""}
        return tuple(self.ledger.about(names, check.name, check.reference))

    def _tester(self, check: Check, budget: Budget) -> PairTester:
        limit = Limit(self.subject, budget.time_limit, self.note)
        return PairTester(self.runners, check, limit, self.prepared.option_sets)

    def _judge(
        self, tester: PairTester, holding: tuple[Check, ...], budget: Budget, *,
        will_search: bool = False, replay_alone: bool = False,
    ) -> Result:  # fmt: skip
        check, before = tester.check, tester.tally.traces
        result = judge(tester, Question(
            self.prepared, Spent(self.traces - before, self.started), budget, holding,
            entries=self._entries(check), will_search=will_search,
            replay_alone=replay_alone, examples=self.examples,
        ))  # fmt: skip
        self.traces += result.tally.traces - before
        return result

    def _holds(self, check: Check) -> bool:
        """Whether all results of this check so far are HOLDS."""
        results = [result for key, result in self.results.items() if key[0] == check.name]
        return all(result.verdict == Verdict.HOLDS for result in results)


def _key(check: str, budget: Budget) -> tuple[str, bool, int]:
    return check, budget.sweep, budget.max_examples


def check_subject(
    subject: Subject,
    checks: Iterable[Check],
    budget: Budget | None = None,
    *,
    resume_python: str = "",
    ledger: Ledger = EMPTY_LEDGER,
    replay_alone: bool = False,
) -> Iterator[Result]:
    """Check `subject` with each of `checks`, and yield the results one by one.

    `resume_python` is the interpreter for checks that go through another process; empty means
    this one. A failure that an entry in `ledger` for this torch explains does not count as BROKEN.
    With `replay_alone` only the traces of the ledger are run.
    """
    checks = list(checks)
    session = SubjectSession(
        subject, {check.name for check in checks}, budget, resume_python=resume_python,
        ledger=ledger, replay_alone=replay_alone,
    )  # fmt: skip
    for check in checks:
        yield session.check(check)


def replay(
    subject: object, check: object, trace: str | Trace, *,
    time_limit: float = 30.0, resume_python: str = "",
) -> Result:  # fmt: skip
    """The result of one trace, run twice: BROKEN, HOLDS, DECLINED, or UNKNOWN if undecided.

    `subject`, `check` and `resume_python` are as in `check_scheduler`. `trace` is a `Trace` or
    its text, `time_limit` is in seconds. Raises `HarnessError` for a trace that the subject or
    the check can't run.

    >>> from torch.optim.lr_scheduler import ExponentialLR
    >>> replay(ExponentialLR, "resume_by_pickle", "gamma=0.9 train:2 save:a resume:a").verdict
    <Verdict.HOLDS: 'HOLDS'>
    """
    found, asked = as_subject(subject), as_check(check)
    trace = trace if isinstance(trace, Trace) else Trace.parse(trace)
    bound = found.bind_trace(dict(trace.options))
    checks_used(asked, trace)  # raises at once if the check can't run the trace
    runners = Runners(found, resume_python)
    limit = Limit(found, time_limit)
    tester = PairTester(runners, asked, limit)
    try:
        with limit.on():
            prepared = prepare_one(bound, runners.of(bound, limit.deadline))
    except UndecidedError as error:
        return result_of(Prepared(), tester, undecided(error, limit.so_far()), 0.0)
    spent = Spent(0, time.process_time())
    return judge(tester, Question(prepared, spent, Budget(time_limit=time_limit), trace=trace))
