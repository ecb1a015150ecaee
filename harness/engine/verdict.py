"""Checks a subject: sweep, search, minimise, verdict."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch

from harness.checks.registry import CHANGED, MIXED, as_check
from harness.core.check import Check
from harness.core.errors import SubjectError, TimeLimit, TraceError, UndecidedError
from harness.core.guard import Guard, time_limit
from harness.core.ledger import NOTHING_KNOWN, Ledger, version_of
from harness.core.result import (
    BROKEN,
    DECLINED,
    HOLDS,
    STALE,
    UNKNOWN,
    Budget,
    Counterexample,
    Found,
    Result,
)
from harness.core.run import Break, Outcome, Tally
from harness.core.trace import EVENTS, Operation, Trace
from harness.core.training_loop import new_sgd, plain, same
from harness.engine.blame import do_nothing, excuses, why
from harness.engine.candidate_traces import drawn_traces, swept_traces
from harness.engine.counterexample import counterexample, evidence, find_others
from harness.engine.grouping import alike
from harness.engine.ledger_replay import by_ledger
from harness.engine.minimise import minimise
from harness.engine.option_changes import said_change, say
from harness.engine.option_sets import SETS, Case, find_cases, find_untried
from harness.engine.other_process_run import prepare
from harness.engine.requirements import lacking, lacks
from harness.engine.runner import Runner
from harness.subjects.drawn_options import shrink_options
from harness.subjects.location import place_of
from harness.subjects.subject import Bound, Subject

if TYPE_CHECKING:
    from harness.engine.saved_examples import Examples

OF_THE_OPTIMIZER = (
    "it fails with a scheduler that does nothing, too, so it is the optimizer's or "
    "the check's fault: "
)
BEFORE_CHANGED = "resume_optimizer_then_scheduler"
"""The check that must hold with the same options, before they are changed."""


class SubjectCheck:
    """One subject through all its checks; its uninterrupted runs are shared among them."""

    def __init__(
        self,
        subject: Subject,
        budget: Budget,
        resume_python: str = "",
        ledger: Ledger = NOTHING_KNOWN,
        *,
        search_known: bool = False,
    ) -> None:
        self.subject = subject
        self.ledger = ledger
        self.search_known = search_known
        self.replay_alone = False
        self.examples: Examples | None = None
        self.replays: tuple[Counterexample, ...] = ()
        self.place = ""
        self.known: Counterexample | None = None
        self.budget = budget
        self.resume_python = resume_python
        self.elsewhere = ""
        self.runners: dict[tuple[str, bool], Runner] = {}
        self.weights = True
        self.tally = Tally()
        self.deadline = 0.0
        self.current: Trace | None = None
        self.cases: list[Case] = []
        self.ends: list[str] = []
        self.untried: dict[str, str] = {}
        self.others: tuple[Counterexample, ...] = ()
        self.refused = ""
        self.held = 0
        self.excuse = ""
        self.by = ""
        self.followed: dict[str, dict[str, str]] = {}
        self.traces = 0
        self.strategy = subject.strategy
        self.guard = Guard(subject.name)
        self.started = time.process_time()

    # ---------------------------------------------------------------------- preparation

    def prepare(self, known: Collection[str]) -> None:
        """Make the plain runs, and see what the scheduler can do.

        `known` are the names of checks. Raises `HarnessError` where no check can be
        made, with the reason.
        """
        subject = self.subject
        for name in subject.declines:
            if name not in known and name not in EVENTS:
                raise SubjectError(
                    f"subject {subject.name} declines {name!r}, and no check or operation "
                    "that can be declined is called so"
                )
        with self.limited():
            self.cases, self.ends = find_cases(subject, self.budget.seed, self.runner)
            bound = self.cases[0].bound
            scheduler = self.runner(bound).start()[1]
            self.lacks = lacks(bound, scheduler, [case.bound for case in self.cases])
            self.untried = find_untried(bound, self.runner(bound))

    def runner(self, bound: Bound) -> Runner:
        """The runner that keeps the uninterrupted runs of these options."""
        key = (repr((bound.fields, bound.options, bound.changed)), self.weights)
        if key not in self.runners:
            self.runners[key] = self.new_runner(bound)
        runner = self.runners[key]
        runner.tally = self.tally
        runner.deadline = self.deadline
        return runner

    def new_runner(self, bound: Bound) -> Runner:
        """A runner that knows no run yet."""
        return Runner(
            bound, deadline=self.deadline, weights=self.weights, resume_python=self.resume_python
        )

    @contextlib.contextmanager
    def limited(self) -> Iterator[None]:
        """The time limit, in both its forms, and the guard."""
        # The first optimizer of a process imports the rest of torch, which takes a second, is
        # not the subject's doing, and can't be begun again where the limit cuts it short.
        new_sgd()
        seconds = self.budget.time_limit
        self.deadline = time.monotonic() + seconds
        self.current = None
        try:
            with self.guard.on(), time_limit(seconds):
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
        self.others = ()
        self.refused = ""
        self.followed = {}
        self.held = 0
        self.excuse = ""
        self.known = None
        self.replays = ()
        verdict, reason, counterexample = UNKNOWN, "", None
        try:
            reason = self.declined(check, holding)
            names = {self.subject.name, self.subject.reference} - {""}
            entries = self.ledger.on(names, check.name)
            here = version_of(torch.__version__)
            about = next((entry for entry in entries if entry.covers(here)), None)
            self.place = about.place if about else ""
            if reason and about:
                verdict, reason = STALE, f"{about.place}: it is declined here: {reason}"
            elif reason:
                verdict = DECLINED
            else:
                with self.limited():
                    verdict, reason, counterexample = by_ledger(self, entries, check, holding)
        except (Exception, SystemExit) as error:
            reason = why(error, self.so_far())
        return self.result(check, verdict, reason, counterexample, started)

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
        place = self.place if verdict == STALE else ""
        if verdict in (BROKEN, UNKNOWN):
            place = place_of(self.subject.build)
        return Result(
            self.subject.name, check.name, verdict, reason, counterexample, self.tally,
            seconds, references, self.weights, tuple(self.untried.items()),
            self.resume_python if check.elsewhere else "", others=self.others,
            replays=self.replays, place=place,
        )  # fmt: skip

    def declined(self, check: Check, holding: Sequence[Check]) -> str:
        """Why the subject need not keep this check's promise, or nothing."""
        if check.name in self.subject.declines:
            return self.subject.declines[check.name]
        if check is MIXED:
            return "" if len(holding) > 1 else "fewer than two resume checks hold alone"
        if check is CHANGED and "options" not in self.lacks and not holding:
            return f"{BEFORE_CHANGED} does not hold, where the options stay as they are"
        reasons = [self.lacks.get(need, "") or lacking(need) for need in check.needs]
        if "json" in check.needs:
            reasons.append(self.refusal(check))
        lacks = next(filter(None, reasons), "")
        return lacks or self.prepare_elsewhere(check, self.cases[0].bound)

    def prepare_elsewhere(self, check: Check, bound: Bound) -> str:
        """Start what does a part of the check in another process; why it can't, or nothing.

        Starting it is no matter of the time limit. Raises `CheckError` for a Python that can't.
        """
        self.elsewhere = ""
        if not check.elsewhere:
            return ""
        for runner in self.runners.values():
            runner.apart = ""
        self.elsewhere, reason = prepare(check, self.runner(bound))
        return reason

    def refusal(self, check: Check) -> str:
        """Why the state can't be saved in the check's way after some steps, or nothing."""
        case = self.cases[0]
        steps = Operation("train", count=min(case.epochs, 3))
        trace = Trace((steps, Operation("save", slot="a")), case.bound.literals)
        with self.limited():
            outcome = self.runner(case.bound).run(check, trace)
        return outcome.ended if outcome.refused else ""

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
            if self.excuse and not self.held:
                raise UndecidedError(OF_THE_OPTIMIZER + self.excuse)
            if not (self.tally.traces and self.tally.steps and self.tried(check)):
                if check is CHANGED:
                    raise UndecidedError("no change of its options that was tried shows in its run")
                too_short = "nothing was tried: the uninterrupted run is too short"
                raise UndecidedError(self.apart or too_short)
            return HOLDS, self.note, None
        found = self.found()
        if self.examples is not None:
            self.examples.save(self.subject.name, check.name, trace)
        first = counterexample(self, check, self.simplify(check, trace), found)
        if self.examples is not None and first.trace != trace:
            self.examples.save(self.subject.name, check.name, first.trace)
            self.examples.forget(self.subject.name, check.name, trace)
        return BROKEN, self.note, self.with_others(check, holding, first)

    def with_others(
        self, check: Check, holding: Sequence[Check], first: Counterexample
    ) -> Counterexample:
        """The `first` counterexample, once those of the other options are found, where asked."""
        if self.budget.explain:
            self.others = find_others(self, check, holding, first.trace)
        return first

    def found(self) -> Found:
        """How what is found now was found."""
        traces = self.traces + self.tally.traces
        return Found(self.by, traces, time.process_time() - self.started)

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
        if self.elsewhere:
            notes.append(self.elsewhere)
        if self.apart:
            notes.append(f"some traces are not compared: {self.apart}")
        if self.refused:
            notes.append(f"left out of some traces: {self.refused}")
        return "; ".join([*notes, *self.ends])

    @property
    def apart(self) -> str:
        """How the schedule differs in another process without any resume, where it was seen to."""
        return next((runner.apart for runner in self.runners.values() if runner.apart), "")

    def twice(self, check: Check, trace: Trace) -> tuple[Outcome, Tally]:
        """What `trace` shows, from scratch and twice, with the same outcome or `UndecidedError`."""
        bound = self.subject.bind(dict(trace.options))
        outcomes = []
        for _ in range(2):
            runner = self.new_runner(bound)
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
        raise UndecidedError(f"{OF_THE_OPTIMIZER}{control.actual} in the trace {trace}")

    def control(self, check: Check, trace: Trace) -> Break | None:
        """What the operations of `trace` show with a scheduler that does nothing."""
        bound = self.subject.bind(dict(trace.options))
        subject = do_nothing(self.subject.optimizer, self.subject.words)
        fields = {name: term for name, term in bound.fields.items() if name == "optimizer"}
        way = as_check(BEFORE_CHANGED) if check is CHANGED else check
        runner = self.new_runner(subject.bind(fields))
        runner.weights = runner.weights and way is check
        return runner.run(way, Trace(trace.operations)).broken

    def breaks(self, check: Check, trace: Trace) -> bool:
        """Whether `trace` breaks `check`; a trace that the check can't run does not.

        Nor does one with a drawn optimizer, or by a way that can't serve every optimizer, where
        a scheduler that does nothing does the same.
        """
        self.current = trace
        bound = self.subject.bind(dict(trace.options))
        try:
            outcome = self.runner(bound).run(check, trace)
        except TraceError:
            return False
        broken = outcome.broken
        self.refused = outcome.ended if outcome.refused else self.refused
        self.note_reading(trace, outcome)
        if broken is None:
            self.held += 1
            return False
        if self.known and alike(check.name, self.known, evidence(self, check, trace, broken)):
            return False
        if "optimizer" not in bound.fields and check.search:
            return True
        control = self.control(check, trace)
        if control is None or not excuses(control, broken, check):
            return True
        self.excuse = f"{control.actual} in the trace {trace}"
        return False

    # --------------------------------------------------------------- sweep, then search

    def find(
        self, check: Check, holding: Sequence[Check], cases: Sequence[Case] = ()
    ) -> Trace | None:
        """A trace that breaks the check, cut after the operation where it shows, or None.

        It has the options of one of the `cases`; of all if none is given.
        """
        if self.examples is not None and not cases:
            trace = self.example(check, self.examples)
            if trace is not None:
                return self.cut(check, trace)
        self.by = "sweep"
        cases = cases or self.cases
        for number in range(len(cases) if self.budget.sweep else 0):
            traces = swept_traces(check, holding, number, cases)
            broken = (trace for trace in traces if self.breaks(check, trace))
            trace = next(broken, None)
            if trace is not None:
                if check is CHANGED:
                    list(broken)  # the verdict says what the other options follow, too
                return self.cut(check, trace)
        if check.kind == "resume" and check.search and self.budget.max_examples:
            return self.search(check, holding, cases)
        return None

    def example(self, check: Check, examples: Examples) -> Trace | None:
        """A trace that an earlier run found, and that breaks the check still, or None."""
        self.by = "example"
        for trace in examples.of(self.subject.name, check.name):
            with contextlib.suppress(SubjectError):  # it takes other options now
                if self.breaks(check, trace):
                    return trace
            examples.forget(self.subject.name, check.name, trace)
        return None

    def search(self, check: Check, holding: Sequence[Check], cases: Sequence[Case]) -> Trace | None:
        """A drawn trace that breaks the check, cut as that of `find`, or None."""
        self.by = "search"
        traces = drawn_traces(check, holding, cases, self.budget)
        trace = next((trace for trace in traces if self.breaks(check, trace)), None)
        return None if trace is None else self.cut(check, trace)

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
        kept = {name: value for name, value in trace.options if name == "changed"}

        def with_options(values: dict[str, Any]) -> Trace:
            return Trace(trace.operations, self.subject.bind({**values, **kept}).literals)

        kinds = {operation.kind for operation in trace.operations}

        def breaks(values: dict[str, Any]) -> bool:
            try:
                bound = self.subject.bind({**values, **kept})
                if find_untried(bound, self.runner(bound), kinds):
                    return False
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
