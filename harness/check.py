"""Checks a subject: sweep, search, minimise, verdict."""

from __future__ import annotations

import contextlib
import time
import traceback
import warnings
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from harness.changes import change_traces, said_change, say
from harness.checks import CHANGED, CHECKS, MIXED, as_check
from harness.control import do_nothing, excuses
from harness.decorators import Check
from harness.errors import (
    HarnessError,
    SubjectError,
    TimeLimit,
    TraceError,
    UndecidedError,
)
from harness.limit import time_limit
from harness.loop import describe, new_sgd, plain, same
from harness.minimise import minimise
from harness.needs import lacks
from harness.results import (
    BROKEN,
    DECLINED,
    HOLDS,
    UNKNOWN,
    Budget,
    Counterexample,
    Found,
    Result,
)
from harness.run import Break, Outcome, Runner, Tally
from harness.subject import Bound, Subject
from harness.sweep import sweep, sweep_pairs
from harness.trace import BACK, MAX_STEPS, Trace

__all__ = ["SubjectCheck", "check_subject"]

BEFORE_CHANGED = "resume_optimizer_then_scheduler"
"""The check that must hold with the same options, before they are changed."""
SETS = 25
"""How many sets of options are drawn; a trace of the search gets one after the other."""
SWEPT_SETS = 3
"""How many of them the sweep goes over."""
HORIZONS = (1, 2, 3, 5, 8, 12, 18, 24, 36)
"""Traces are drawn for runs of so many epochs: a set of options takes the next that it can."""


@dataclass(frozen=True)
class Case:
    """A set of options, with the epochs that its uninterrupted run has."""

    bound: Bound
    epochs: int


class SubjectCheck:
    """One subject through all its checks; its uninterrupted runs are shared among them."""

    def __init__(self, subject: Subject, budget: Budget) -> None:
        self.subject = subject
        self.budget = budget
        self.runners: dict[tuple[str, bool], Runner] = {}
        self.weights = True
        self.tally = Tally()
        self.deadline = 0.0
        self.current: Trace | None = None
        self.ends: list[str] = []
        self.by = ""
        self.followed: dict[str, dict[str, str]] = {}
        self.traces = 0
        self.strategy = subject.strategy
        self.started = time.process_time()

    # ---------------------------------------------------------------------- preparation

    def prepare(self, known: Collection[str]) -> None:
        """Make the plain runs, and see what the scheduler can do.

        `known` are the names of checks. Raises `HarnessError` where no check can be
        made, with the reason.
        """
        subject = self.subject
        for name in subject.declines:
            if name not in known:
                raise SubjectError(
                    f"subject {subject.name} declines {name!r}, and no check is called so"
                )
        with self.limited():
            sets: list[dict[str, Any]] = [] if subject.open else [{}]
            if self.strategy is not None:
                from harness.machine import draw_options

                sets += draw_options(self.strategy, SETS, self.budget.seed)
            self.cases = list(self._cases(sets))
            bound = self.cases[0].bound
            others = [case.bound for case in self.cases]
            self.lacks = lacks(bound, self.runner(bound).start()[1], others)

    def _cases(self, sets: Sequence[dict[str, Any]]) -> Iterator[Case]:
        """Those of the sets that the scheduler can be built and stepped with."""
        refused: HarnessError | None = None
        any_ = False
        for values in sets:
            bound = self.subject.bind(values)
            try:
                yield Case(bound, self._horizon(bound))
                any_ = True
            except (SubjectError, UndecidedError) as error:
                if not values:
                    raise
                refused = refused or error
        if not any_ and refused is not None:
            raise refused

    def _horizon(self, bound: Bound) -> int:
        """How many epochs the uninterrupted run has, up to three times the subject's length."""
        path = "t" * min(3 * self.subject.length, MAX_STEPS)
        runner = self.runner(bound)
        first = runner.reference(path)
        again = Runner(bound, deadline=self.deadline).reference(path)
        if first.epochs == 0:
            raise UndecidedError(f"{first.error} at its first step")
        if first.error != again.error or not same(first.observations, again.observations):
            raise UndecidedError(
                "two uninterrupted runs differ: the schedule does not depend on the steps alone, "
                "so there is nothing to compare a resumed run with"
            )
        if first.error and not self.ends:
            self.ends.append(f"{first.error} at epoch {first.epochs + 1}: nothing later is tried")
        return first.epochs

    def runner(self, bound: Bound) -> Runner:
        """The runner that keeps the uninterrupted runs of these options."""
        key = (repr((bound.fields, bound.options, bound.changed)), self.weights)
        if key not in self.runners:
            self.runners[key] = Runner(bound, weights=self.weights)
        runner = self.runners[key]
        runner.tally = self.tally
        runner.deadline = self.deadline
        return runner

    @contextlib.contextmanager
    def limited(self) -> Iterator[None]:
        """The time limit, in both its forms, and no warnings."""
        # The first optimizer of a process imports the rest of torch, which takes a second, is
        # not the subject's doing, and can't be begun again where the limit cuts it short.
        new_sgd()
        seconds = self.budget.time_limit
        self.deadline = time.monotonic() + seconds
        self.current = None
        try:
            with warnings.catch_warnings(), time_limit(seconds):
                warnings.simplefilter("ignore")
                yield
        except TimeLimit:
            raise UndecidedError(
                f"the time limit of {seconds:g} s ran out{self.so_far()}"
            ) from None

    def so_far(self) -> str:
        """The trace that is being run, for a message."""
        return f" in the trace {self.current}" if self.current is not None else ""

    # -------------------------------------------------------------------------- one pair

    def check(self, check: Check, holding: Sequence[Check]) -> Result:
        """The verdict on one pair; `holding` are the resume checks that `MIXED` may mix."""
        started = time.perf_counter()
        self.tally = Tally()
        self.weights = True
        self.followed = {}
        verdict, reason, counterexample = UNKNOWN, "", None
        try:
            reason = self.declined(check, holding)
            if reason:
                verdict = DECLINED
            else:
                with self.limited():
                    verdict, reason, counterexample = self.decide(check, holding)
        except Exception as error:
            reason = self.why(error)
        return self.result(check, verdict, reason, counterexample, started)

    def why(self, error: Exception) -> str:
        """What an exception that kept a check from being made says: ours is said to be ours."""
        if isinstance(error, HarnessError):
            return str(error)
        where = traceback.extract_tb(error.__traceback__)[-1]
        return (
            f"error of the harness itself, please report it: {describe(error)} "
            f"({where.name}, line {where.lineno}){self.so_far()}"
        )

    def result(
        self,
        check: Check,
        verdict: str,
        reason: str,
        counterexample: Counterexample | None,
        started: float,
    ) -> Result:
        """The verdict with what was tried, and the time since `started`."""
        seconds = round(time.perf_counter() - started, 4)
        self.traces += self.tally.traces
        references = (self.subject.reference, check.reference)
        return Result(
            self.subject.name, check.name, verdict, reason, counterexample, self.tally,
            seconds, references, self.weights,
        )  # fmt: skip

    def declined(self, check: Check, holding: Sequence[Check]) -> str:
        """Why the subject need not keep this check's promise, or nothing."""
        if check.name in self.subject.declines:
            return self.subject.declines[check.name]
        if check is MIXED:
            return "" if len(holding) > 1 else "fewer than two resume checks hold alone"
        if check is CHANGED and "options" not in self.lacks and not holding:
            return f"{BEFORE_CHANGED} does not hold, where the options stay as they are"
        return next((self.lacks[need] for need in check.needs if need in self.lacks), "")

    def decide(
        self, check: Check, holding: Sequence[Check]
    ) -> tuple[str, str, Counterexample | None]:
        """Verdict, reason and counterexample of a check that is not declined."""
        trace = self.find(check, holding)
        if trace is not None and self.blame(check, trace):
            trace = self.find(check, holding)
            if trace is not None:
                self.blame(check, trace)
        if trace is None:
            if not (self.tally.traces and self.tally.steps and self.tried(check)):
                if check is CHANGED:
                    raise UndecidedError("no change of its options that was tried shows in its run")
                raise UndecidedError("nothing was tried: the uninterrupted run is too short")
            return HOLDS, self.note, None
        found = Found(self.by, self.traces + self.tally.traces, time.process_time() - self.started)
        trace = self.simplify(check, trace)
        broken = self.twice(check, trace)[0].broken
        if broken is None:
            raise UndecidedError(
                f"the trace {trace} broke the check once and not again: "
                "what the scheduler does depends on more than the trace"
            )
        return BROKEN, self.note, Counterexample(**vars(broken), trace=trace, found=found)

    def tried(self, check: Check) -> int:
        """How often what the check is about was tried."""
        if check is CHANGED:
            return len(self.followed)
        return self.tally.resumes if check.compares == "trajectory" else self.tally.comparisons

    @property
    def note(self) -> str:
        """What a verdict leaves out."""
        if self.followed:
            return say(self.followed)
        notes = (
            []
            if self.weights
            else ["the weights are not compared: this way the optimizer itself loses its state"]
        )
        return "; ".join([*notes, *self.ends])

    def twice(self, check: Check, trace: Trace) -> tuple[Outcome, Tally]:
        """What `trace` shows, from scratch and twice, with the same outcome or `UndecidedError`."""
        bound = self.subject.bind(dict(trace.options))
        outcomes = []
        for _ in range(2):
            runner = Runner(bound, deadline=self.deadline, weights=self.weights)
            outcomes.append(runner.run(check, trace))
        if not same(*(o.broken and plain(vars(o.broken)) for o in outcomes)):
            raise UndecidedError(f"two runs of the trace {trace} differ")
        self.note_reading(trace, outcomes[0])
        return outcomes[0], runner.tally

    def note_reading(self, trace: Trace, outcome: Outcome) -> None:
        """Keep which contract the changed options of `trace` followed."""
        if outcome.reading or (outcome.broken and "changed" in dict(trace.options)):
            name, change = said_change(trace)
            self.followed.setdefault(name, {})[change] = outcome.reading

    def blame(self, check: Check, trace: Trace) -> bool:
        """Whether `trace` breaks through weights that the optimizer loses by itself.

        They are not compared from then on. Raises `UndecidedError` where the
        trace breaks with a scheduler that does nothing as well, in any other way.
        """
        control = self.control(check, trace)
        if control is None:
            return False
        if set(control.actual) == {"weights"} and self.weights:
            self.weights = False
            return True
        broken = self.runner(self.subject.bind(dict(trace.options))).run(check, trace).broken
        if broken is not None and not excuses(control, broken, check):
            return False
        raise UndecidedError(
            "it fails with a scheduler that does nothing, too, so it is the optimizer's or "
            f"the check's fault: {control.actual} in the trace {trace}"
        )

    def control(self, check: Check, trace: Trace) -> Break | None:
        """What the operations of `trace` show with a scheduler that does nothing."""
        subject = do_nothing(self.subject.bind(dict(trace.options)).new_optimizer)
        way = as_check(BEFORE_CHANGED) if check is CHANGED else check
        weights = self.weights and way is check
        runner = Runner(subject.bind({}), deadline=self.deadline, weights=weights)
        return runner.run(way, Trace(trace.operations)).broken

    def breaks(self, check: Check, trace: Trace) -> bool:
        """Whether `trace` breaks `check`; a trace that the check can't run does not.

        Nor does one with a drawn optimizer where a scheduler that does nothing does the same.
        """
        self.current = trace
        bound = self.subject.bind(dict(trace.options))
        try:
            outcome = self.runner(bound).run(check, trace)
        except TraceError:
            return False
        broken = outcome.broken
        self.note_reading(trace, outcome)
        if broken is None or "optimizer" not in bound.fields:
            return broken is not None
        control = self.control(check, trace)
        return control is None or not excuses(control, broken, check)

    # --------------------------------------------------------------- sweep, then search

    def find(self, check: Check, holding: Sequence[Check]) -> Trace | None:
        """A trace that breaks the check, cut after the operation where it shows, or None."""
        self.by = "sweep"
        for case in self.cases[:SWEPT_SETS]:
            broken = (t for t in self.swept(check, holding, case) if self.breaks(check, t))
            trace = next(broken, None)
            if trace is not None:
                if check is CHANGED:
                    list(broken)  # the verdict says what the other options follow, too
                return self.cut(check, trace)
        if check.kind == "resume" and check.search and self.budget.max_examples:
            return self.search(check, holding)
        return None

    def swept(self, check: Check, holding: Sequence[Check], case: Case) -> Iterator[Trace]:
        """The traces of the sweep over a set of options."""
        epochs = min(case.epochs, self.subject.length)
        if check is CHANGED:
            others = [other.bound for other in self.cases]
            return change_traces(case.bound, others, epochs, self.subject.length)
        traces = sweep_pairs(holding, epochs) if check is MIXED else sweep(check, epochs)
        return (Trace(operations, case.bound.literals) for operations in traces)

    def search(self, check: Check, holding: Sequence[Check]) -> Trace | None:
        """A drawn trace that breaks the check, cut as that of `find`, or None."""
        from harness.machine import Plan, draw_operations

        self.by = "search"
        if check is MIXED:
            ways = tuple((way.at, way.name, way.from_epoch) for way in holding)
        else:
            ways = ((check.at, "", check.from_epoch),) if check.at in BACK else ()
        for number in range(self.budget.max_examples):
            case = self.cases[number % len(self.cases)]
            epochs = case.epochs
            if len(self.cases) > 1:
                epochs = max(length for length in HORIZONS if length <= epochs)
            plan = Plan(ways, epochs, self.subject.length)
            drawn = draw_operations(plan, self.budget.max_examples, self.budget.seed)
            if number < len(drawn):
                trace = Trace(drawn[number], case.bound.literals)
                if self.breaks(check, trace):
                    return self.cut(check, trace)
        return None

    def simplify(self, check: Check, trace: Trace) -> Trace:
        """`trace` with fewer operations, and with simpler options where these are drawn."""
        while True:
            trace = minimise(trace, lambda candidate: self.breaks(check, candidate))
            simpler = self.simpler_options(check, trace)
            if simpler == trace:
                return trace
            trace = simpler

    def simpler_options(self, check: Check, trace: Trace) -> Trace:
        """The same operations with the subject's own options, or with those that Hypothesis finds.

        Those of `trace` are kept where nothing simpler breaks.
        """
        if self.strategy is None:
            return trace
        from harness.machine import shrink_options

        kept = {name: value for name, value in trace.options if name == "changed"}

        def with_options(values: dict[str, Any]) -> Trace:
            return Trace(trace.operations, self.subject.bind({**values, **kept}).literals)

        def breaks(values: dict[str, Any]) -> bool:
            try:
                return self.breaks(check, with_options(values))
            except SubjectError:  # the constructor refuses them
                return False

        if not self.subject.open and breaks({}):
            return with_options({})
        values = shrink_options(self.strategy, breaks, SETS, self.budget.seed)
        return trace if values is None else with_options(values)

    def cut(self, check: Check, trace: Trace) -> Trace:
        """`trace` without what comes after the step where it breaks."""
        broken = self.runner(self.subject.bind(dict(trace.options))).run(check, trace).broken
        return trace if broken is None else trace.until(broken.operation, broken.step)


def check_subject(
    subject: Subject, checks: Iterable[Check], budget: Budget | None = None
) -> Iterator[Result]:
    """Check `subject` with each of `checks`, and yield the results one by one.

    What keeps any check from being made is the reason of an UNKNOWN for each of them.
    """
    budget = budget or Budget()
    checks = list(checks)
    work = SubjectCheck(subject, budget)
    try:
        work.prepare({check.name for check in (*CHECKS, *checks)})
    except Exception as error:
        reason = work.why(error)
        for check in checks:
            yield work.result(check, UNKNOWN, reason, None, time.perf_counter())
        return
    ways = [c for c in CHECKS if c.default and c.kind == "resume" and c.at in BACK]
    ways.remove(MIXED)
    results: dict[str, Result] = {}
    for check in checks:
        before = ways if check is MIXED else []
        if check is CHANGED and "options" not in work.lacks:
            before = [as_check(BEFORE_CHANGED)]
        for way in before:
            if way.name not in results:
                results[way.name] = work.check(way, ())
        holding = [way for way in before if results[way.name].verdict == HOLDS]
        results[check.name] = work.check(check, holding)
        yield results[check.name]
