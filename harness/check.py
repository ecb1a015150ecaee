"""Checks a subject: sweep, search, minimise, verdict."""

from __future__ import annotations

import contextlib
import time
import traceback
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from harness.checks import CHECKS, MIXED, as_check, select_checks
from harness.decorators import Check
from harness.errors import CheckError, HarnessError, TimeLimit, TraceError, UndecidedError
from harness.limit import time_limit
from harness.loop import describe, new_sgd, plain, same
from harness.minimise import minimise
from harness.results import (
    BROKEN,
    DECLINED,
    HOLDS,
    UNKNOWN,
    BrokenSchedule,
    Budget,
    Counterexample,
    Result,
)
from harness.run import Outcome, Runner, Tally
from harness.subject import Bound, Subject, as_subject
from harness.sweep import sweep, sweep_pairs
from harness.trace import BACK, MAX_STEPS, Trace

__all__ = ["check_scheduler", "check_subject", "replay"]

DRAWN_OPTIONS = 3
"""How many sets of drawn options the sweep goes over."""


class _Constant:
    """A scheduler that does nothing: what breaks with it is no fault of the subject."""

    def __init__(self, optimizer: Any, last_epoch: int = -1) -> None:
        self.optimizer = optimizer

    def step(self, *metrics: Any) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {"last_epoch": 0, "base_lrs": [0.1, 0.01], "mode": "constant"}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass

    def get_last_lr(self) -> list[Any]:
        return [group["lr"] for group in self.optimizer.param_groups]


def _do_nothing(scheduler: Any, epoch: int) -> None:
    pass


class _SubjectCheck:
    """One subject through all its checks; its uninterrupted runs are shared among them."""

    def __init__(self, subject: Subject, budget: Budget) -> None:
        self.subject = subject
        self.budget = budget
        self.runners: dict[tuple[str, bool], Runner] = {}
        self.weights = True
        self.tally = Tally()
        self.deadline = 0.0
        self.current: Trace | None = None

    # ---------------------------------------------------------------------- preparation

    def prepare(self) -> None:
        """Make the plain runs, and see what the scheduler can do.

        Raises `HarnessError` where no check can be made, with the reason.
        """
        subject = self.subject
        with self.limited():
            if subject.drawn:
                from harness.machine import draw_options

                sets = draw_options(subject.drawn, DRAWN_OPTIONS, self.budget.seed)
            else:
                sets = [{}]
            self.bounds = [subject.bind(values) for values in sets]
            _, scheduler = self.runner(self.bounds[0]).start()
            self.lacks = _lacks(self.bounds[0], scheduler)
            self.horizons = [self._horizon(bound) for bound in self.bounds]

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
        return first.epochs

    def runner(self, bound: Bound) -> Runner:
        key = (repr(bound.options), self.weights)
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
        return f" in the trace {self.current}" if self.current is not None else ""

    # -------------------------------------------------------------------------- one pair

    def check(self, check: Check, holding: Sequence[Check]) -> Result:
        """The verdict on one pair; `holding` are the resume checks that `MIXED` may mix."""
        started = time.perf_counter()
        self.tally = Tally()
        self.weights = True
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
        references = (self.subject.reference, check.reference)
        return Result(
            self.subject.name, check.name, verdict, reason, counterexample, self.tally,
            seconds, references,
        )  # fmt: skip

    def declined(self, check: Check, holding: Sequence[Check]) -> str:
        """Why the subject need not keep this check's promise, or nothing."""
        if check.name in self.subject.declines:
            return self.subject.declines[check.name]
        if check is MIXED:
            return "" if len(holding) > 1 else "fewer than two resume checks hold alone"
        return next((self.lacks[need] for need in check.needs if need in self.lacks), "")

    def decide(
        self, check: Check, holding: Sequence[Check]
    ) -> tuple[str, str, Counterexample | None]:
        trace = self.find(check, holding)
        if trace is not None and self.blame(check, trace):
            trace = self.find(check, holding)
            if trace is not None:
                self.blame(check, trace)
        if trace is None:
            if not (self.tally.traces and self.tally.steps and self.tried(check)):
                raise UndecidedError("nothing was tried: the uninterrupted run is too short")
            return HOLDS, self.note, None
        trace = minimise(trace, lambda candidate: self.breaks(check, candidate))
        broken = self.twice(check, trace)[0].broken
        if broken is None:
            raise UndecidedError(
                f"the trace {trace} broke the check once and not again: "
                "what the scheduler does depends on more than the trace"
            )
        return BROKEN, self.note, Counterexample(**vars(broken), trace=trace)

    def tried(self, check: Check) -> int:
        """How often what the check is about was tried."""
        return self.tally.resumes if check.compares == "trajectory" else self.tally.comparisons

    @property
    def note(self) -> str:
        if self.weights:
            return ""
        return "the weights are not compared: this way the optimizer itself loses its state"

    def twice(self, check: Check, trace: Trace) -> tuple[Outcome, Tally]:
        """What `trace` shows, from scratch and twice, with the same outcome or `UndecidedError`."""
        bound = self.subject.bind(dict(trace.options))
        outcomes = []
        for _ in range(2):
            runner = Runner(bound, deadline=self.deadline, weights=self.weights)
            outcomes.append(runner.run(check, trace))
        if not same(*(o.broken and plain(vars(o.broken)) for o in outcomes)):
            raise UndecidedError(f"two runs of the trace {trace} differ")
        return outcomes[0], runner.tally

    def blame(self, check: Check, trace: Trace) -> bool:
        """Whether `trace` breaks through weights that the optimizer loses by itself.

        They are not compared from then on. Raises `UndecidedError` where the
        trace breaks with a scheduler that does nothing as well, in any other way.
        """
        subject = Subject("control", _Constant, optimizer=self.subject.optimizer, step=_do_nothing)
        runner = Runner(subject.bind({}), deadline=self.deadline, weights=self.weights)
        broken = runner.run(check, Trace(trace.operations)).broken
        if broken is None:
            return False
        if set(broken.actual) == {"weights"} and self.weights:
            self.weights = False
            return True
        raise UndecidedError(
            "it fails with a scheduler that does nothing, too, so it is the optimizer's or "
            f"the check's fault: {broken.actual} in the trace {trace}"
        )

    def breaks(self, check: Check, trace: Trace) -> bool:
        """Whether `trace` breaks `check`; a trace that the check can't run does not."""
        self.current = trace
        bound = self.subject.bind(dict(trace.options))
        try:
            return self.runner(bound).run(check, trace).broken is not None
        except TraceError:
            return False

    # --------------------------------------------------------------- sweep, then search

    def find(self, check: Check, holding: Sequence[Check]) -> Trace | None:
        """A trace that breaks the check, cut after the operation where it shows, or None."""
        for bound, horizon in zip(self.bounds, self.horizons, strict=True):
            epochs = min(horizon, self.subject.length)
            traces = sweep_pairs(holding, epochs) if check is MIXED else sweep(check, epochs)
            for operations in traces:
                trace = Trace(operations, bound.literals)
                if self.breaks(check, trace):
                    return self.cut(check, trace)
        if check.kind == "resume" and self.budget.max_examples:
            return self.search(check, holding)
        return None

    def search(self, check: Check, holding: Sequence[Check]) -> Trace | None:
        from harness.machine import Plan, search

        if check is MIXED:
            ways = tuple((way.at, way.name, way.from_epoch) for way in holding)
        else:
            ways = ((check.at, "", check.from_epoch),) if check.at in BACK else ()
        options = tuple(self.subject.drawn.items())
        trace = search(
            Plan(ways, min(self.horizons), self.subject.length, options),
            dict(self.bounds[0].literals),
            lambda trace: self.breaks(check, trace),
            max_examples=self.budget.max_examples,
            seed_number=self.budget.seed,
        )
        return None if trace is None else self.cut(check, trace)

    def cut(self, check: Check, trace: Trace) -> Trace:
        """`trace` without what comes after the step where it breaks."""
        broken = self.runner(self.subject.bind(dict(trace.options))).run(check, trace).broken
        return trace if broken is None else trace.until(broken.operation, broken.step)


def _lacks(bound: Bound, scheduler: Any) -> dict[str, str]:
    """What checks may need and the scheduler does not have, each with the reason to give."""
    lacks = {}
    if not (hasattr(scheduler, "state_dict") and hasattr(scheduler, "load_state_dict")):
        lacks["state_dict"] = "it has no state_dict and load_state_dict"
    if not hasattr(scheduler, "get_last_lr"):
        lacks["get_last_lr"] = "it has no get_last_lr"
    takes = bound.takes_last_epoch
    if takes:
        try:
            bound.build(bound.subject.optimizer(), last_epoch=-1)
        except TypeError as error:
            takes = "last_epoch" not in str(error)
        except Exception:
            takes = True  # a matter of the check, which will say so
    if not takes:
        lacks["last_epoch"] = "its build takes no last_epoch"
    return lacks


def check_subject(
    subject: Subject, checks: Iterable[Check], budget: Budget | None = None
) -> Iterator[Result]:
    """Check `subject` with each of `checks`, and yield the results one by one.

    What keeps any check from being made is the reason of an UNKNOWN for each of them.
    """
    budget = budget or Budget()
    checks = list(checks)
    work = _SubjectCheck(subject, budget)
    try:
        work.prepare()
    except Exception as error:
        reason = work.why(error)
        for check in checks:
            yield work.result(check, UNKNOWN, reason, None, time.perf_counter())
        return
    ways = [c for c in CHECKS if c.default and c.kind == "resume" and c.at in BACK]
    ways.remove(MIXED)
    results: dict[str, Result] = {}
    for check in checks:
        if check is MIXED:
            for way in ways:
                if way.name not in results:
                    results[way.name] = work.check(way, ())
        holding = [
            way for way in ways if way.name in results and results[way.name].verdict == HOLDS
        ]
        results[check.name] = work.check(check, holding)
        yield results[check.name]


def replay(subject: Any, check: Any, trace: Any, *, time_limit: float = 30.0) -> Result:
    """Run exactly one trace, twice: BROKEN, HOLDS, or UNKNOWN where that can't be told.

    `subject` and `check` are what `check_scheduler` takes, `trace` is a `Trace` or
    its text, `time_limit` is in seconds. Raises `HarnessError` for a trace that the
    subject or the check can't run.

    >>> from torch.optim.lr_scheduler import ExponentialLR
    >>> replay(ExponentialLR, "resume_by_pickle", "gamma=0.9 train:2 save:a resume:a").verdict
    'HOLDS'
    """
    subject, check = as_subject(subject), as_check(check)
    trace = trace if isinstance(trace, Trace) else Trace.parse(trace)
    work = _SubjectCheck(subject, Budget(time_limit=time_limit))
    started = time.perf_counter()
    verdict, reason, counterexample = UNKNOWN, "", None
    try:
        with work.limited():
            work.current = trace
            outcome, work.tally = work.twice(check, trace)
            if outcome.broken and work.blame(check, trace):
                outcome, work.tally = work.twice(check, trace)
    except UndecidedError as error:
        outcome = Outcome(ended=str(error))
    if outcome.broken is not None:
        verdict, reason = BROKEN, work.note
        counterexample = Counterexample(**vars(outcome.broken), trace=trace)
    elif outcome.ended:
        reason = outcome.ended
    elif not work.tried(check):
        reason = f"the trace does nothing that {check.name} looks at"
    else:
        verdict, reason = HOLDS, work.note
    return work.result(check, verdict, reason, counterexample, started)


def check_scheduler(
    subject: Any,
    *,
    checks: Iterable[Any] = (),
    all_checks: bool = False,
    max_examples: int = 25,
    seed: int = 0,
    time_limit: float = 30.0,
    **options: Any,
) -> list[Result]:
    """Check that a scheduler survives a checkpoint, in any test.

    Parameters
    ----------
    subject : Subject, class or callable
        The scheduler: a `Subject`, or a class or function that is called as
        ``build(optimizer, last_epoch=-1, **options)``.
    checks : iterable
        Names of checks, or functions decorated as such; the default ones if empty.
    all_checks : bool
        Whether to add the opt-in checks.
    max_examples : int
        Traces of the search for each check, after the sweep; 0 for the sweep alone.
    seed : int
        Seed of the search: the same one draws the same traces.
    time_limit : float
        Seconds for each check.
    **options
        Keyword arguments of `build`, values or Hypothesis strategies.

    Returns the list of results. Raises `BrokenSchedule`, an `AssertionError`,
    if a check is broken; else `UndecidedError` if one is UNKNOWN;
    `CheckError` or `SubjectError` for arguments that are not what they must be.

    >>> from torch.optim.lr_scheduler import ExponentialLR
    >>> results = check_scheduler(ExponentialLR, gamma=0.9, checks=["resume_from_file"])
    >>> results[0].verdict
    'HOLDS'
    """
    from harness.report import broken_text, unknown_text

    if max_examples < 0:
        raise CheckError(f"'max_examples' must be 0 or more (got {max_examples!r})")
    if not time_limit > 0:
        raise CheckError(f"'time_limit' must be a number of seconds above 0 (got {time_limit!r})")
    chosen = as_subject(subject, options=options)
    selected = select_checks(checks, all_checks=all_checks)
    chosen.bind(dict.fromkeys(chosen.drawn))  # says at once what build does not take
    results = list(check_subject(chosen, selected, Budget(max_examples, seed, time_limit)))
    broken = [
        broken_text(result, check)
        for result, check in zip(results, selected, strict=True)
        if result.verdict == BROKEN
    ]
    if broken:
        raise BrokenSchedule("\n\n".join(broken), results)
    if any(result.verdict == UNKNOWN for result in results):
        raise UndecidedError(unknown_text(results))
    return results
