"""Tests traces on one pair of subject and check, and finds out whose fault a failure is."""

from __future__ import annotations

import contextlib
import functools
import math
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from torch.optim import Optimizer

from harness.checks.registry import ABOUT_EVENTS, ABOUT_LAST_LR
from harness.core.check import Check
from harness.core.errors import TimeLimit, TraceError, UndecidedError
from harness.core.guard import Guard, time_limit
from harness.core.ledger import KnownFailure
from harness.core.result import Counterexample, Found
from harness.core.run import Difference, Tally, same
from harness.core.trace import Trace
from harness.core.training_loop import new_sgd, plain
from harness.core.types import Scheduler, State, Words
from harness.core.verdict import Reason
from harness.engine.counterexample import attributes_that_differ, counterexample_of
from harness.engine.one_run import Outcome, Runner
from harness.engine.option_changes import change_text, contracts_text
from harness.engine.option_sets import OptionSet
from harness.engine.other_process import start_worker
from harness.engine.runs import run_trace, runs_of
from harness.engine.sweep import sweep_events, sweep_thinly
from harness.subjects.subject import AnyOptimizer, Bound, Subject

SOON = 0.001
"""The shortest time limit; 0 would mean none."""

LONG = 250
"""From this many steps on, optimizer steps compute nothing even with the subject's own options."""


NEITHER = frozenset({"weights", "get_last_lr"})
"""Left out where only the schedule matters."""


def excuses(baseline: Difference, difference: Difference, check: Check) -> bool:
    """Whether the subject's failure has the same cause as the baseline's.

    The baseline is a scheduler that does nothing, with the same optimizer and operations. If the
    check compares values, a wrong value of the baseline proves nothing: a constant schedule may
    not keep the check's promise, or may lack what the check asks for. The same exception in both
    does prove it.
    """
    raised = difference.actual.get("raises")
    if raised is not None or "raises" in baseline.actual or check.compares == "values":
        return raised is not None and raised == baseline.actual.get("raises")
    return True


class _Constant:
    """A scheduler that does nothing."""

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        self.optimizer = optimizer

    def step(self, *metrics: object) -> None:
        pass

    def state_dict(self) -> State:
        # a number, a list and a text: every transport must keep them
        return {"last_epoch": 0, "base_lrs": [0.1, 0.01], "mode": "constant"}

    def load_state_dict(self, state: State) -> None:
        pass

    def get_last_lr(self) -> list[object]:
        return [group["lr"] for group in self.optimizer.param_groups]


def _no_step(scheduler: Scheduler, epoch: int) -> None:
    pass


def do_nothing(optimizer: AnyOptimizer, words: Words = MappingProxyType({})) -> Subject:
    """A subject whose scheduler does nothing, with this optimizer and these words."""
    return Subject("do-nothing", _Constant, words=words, optimizer=optimizer, step=_no_step,
                   constant=True)  # fmt: skip


OF_THE_OPTIMIZER = (
    "it also fails with a scheduler that does nothing, so the optimizer or the check is at fault: "
)


@functools.cache
def _import_all_of_torch() -> None:
    """Make the first optimizer of a process, which imports the rest of torch.

    That takes a second, is not the subject's fault, and can't be repeated if a limit interrupts it.
    """
    new_sgd()


class Limit:
    """Runs a subject's code: with a time limit, with a `Guard`, and with the trace for messages."""

    def __init__(
        self, subject: Subject, seconds: float, note: Callable[[str], None] = lambda text: None
    ) -> None:
        self.subject = subject
        self.seconds = seconds
        self.note = note
        """Called with the text of each trace before it is run."""
        self.guard = Guard(subject.name)
        self.deadline = math.inf
        """A reading of ``time.monotonic()`` after which runs end."""
        self.current: Trace | None = None
        """The trace that is being run."""
        self.left = seconds
        """The seconds that are left."""

    @contextlib.contextmanager
    def on(self) -> Iterator[None]:
        """Raise `UndecidedError` when the time is up."""
        _import_all_of_torch()
        started = time.monotonic()
        self.deadline = started + self.left
        self.current = None
        try:
            with self.guard.on(), time_limit(max(self.left, SOON)):
                yield
        except TimeLimit:
            raise UndecidedError(
                f"the time limit of {self.seconds:g} s ran out{self.so_far()}", Reason.TIME_LIMIT
            ) from None
        finally:
            self.left -= time.monotonic() - started

    def begin(self, trace: Trace) -> None:
        """Remember the trace that is run from now on."""
        self.current = trace
        self.note(str(trace))

    def so_far(self) -> str:
        """The trace that is being run, for a message."""
        return f" in the trace {self.current}" if self.current is not None else ""


class Runners:
    """The runners of a subject, one for each set of options; they keep its uninterrupted runs."""

    def __init__(self, subject: Subject, resume_python: str = "") -> None:
        self.subject = subject
        self.resume_python = resume_python
        self._runners: dict[tuple[str, frozenset[str], bool], Runner] = {}
        self._bound: dict[str, Bound] = {}

    def bind(self, trace: Trace) -> Bound:
        """The subject with the options of `trace`."""
        key = repr(trace.options)
        if key not in self._bound:
            self._bound[key] = self.subject.bind_trace(dict(trace.options))
        return self._bound[key]

    def of(
        self, bound: Bound, deadline: float, left_out: Collection[str] = (), *, compute: bool = True
    ) -> Runner:
        """The runner for these options; from now on it ends at `deadline`."""
        key = (repr((bound.fields, bound.options, bound.changed)), frozenset(left_out), compute)
        if key not in self._runners:
            self._runners[key] = self.new(bound, deadline, left_out, compute=compute)
        runner = self._runners[key]
        runner.deadline = deadline
        return runner

    def new(
        self, bound: Bound, deadline: float, left_out: Collection[str] = (), *, compute: bool = True
    ) -> Runner:
        """A new runner, without any uninterrupted runs yet."""
        return Runner(
            bound, deadline=deadline, left_out=left_out, compute=compute,
            resume_python=self.resume_python,
        )  # fmt: skip


@dataclass
class Notes:
    """What the traces of a pair left out or excused."""

    refused: str = ""
    """Why the state could not be saved in some trace."""
    excuse: str = ""
    """What a scheduler that does nothing also shows, in a trace with a drawn optimizer."""
    differs_there: str = ""
    """How the schedule differs in another process without any resume."""
    other_process: str = ""
    """How the other process differs from this one."""
    events: set[str] = field(default_factory=set)
    """The operations by hand after which another check fails."""


class PairTester:
    """Tests traces with one check on one subject.

    It counts what it tried and takes notes; the caller reads both at the end.
    `option_sets` says which options may be tried with optimizer steps that compute nothing. The
    first trace that breaks the check without them is run again with computed steps, as are all
    traces after it.
    """

    def __init__(
        self, runners: Runners, check: Check, limit: Limit, option_sets: Sequence[OptionSet] = ()
    ) -> None:
        self.runners = runners
        self.subject = runners.subject
        self.check = check
        self.limit = limit
        self.tally = Tally()
        self.left_out: frozenset[str] = frozenset()
        """What is not compared."""
        self.held = 0
        """How many traces held."""
        self.followed: dict[str, dict[str, str]] = {}
        """Which behaviour each change of options followed."""
        self.notes = Notes()
        self.option_sets = option_sets
        ours = check.reference == check.name  # a user's check may look at the optimizer
        self.always_compute = not (ours and check.search)
        """Whether steps are computed with all options from now on."""
        self._failing: dict[tuple[str, str], bool] = {}
        """Whether another check fails, by its name and the options."""

    @functools.cached_property
    def _sets(self) -> dict[str, OptionSet]:
        """The option sets by their options."""
        sets: dict[str, OptionSet] = {}
        for each in self.option_sets:  # the subject's own come first, and may be drawn as well
            sets.setdefault(repr(each.bound.literals), each)
        return sets

    def _has_own_options(self, trace: Trace) -> bool:
        """Whether a trace has the subject's own options, apart from how they change."""
        options = tuple((name, value) for name, value in trace.options if name != "changed")
        option_set = self._sets.get(repr(options))
        return option_set is not None and option_set.own

    def needs_compute(self, trace: Trace) -> bool:
        """Whether the optimizer's steps must compute something in this trace."""
        option_set = self._sets.get(repr(trace.options))
        if self.always_compute or option_set is None or option_set.computed:
            return True
        return option_set.own and trace.steps < LONG

    def runner(self, bound: Bound) -> Runner:
        """The runner that keeps the uninterrupted runs of these options."""
        return self.runners.of(bound, self.limit.deadline, self.left_out)

    def bound(self, trace: Trace) -> Bound:
        """The subject with the options of `trace`."""
        return self.runners.bind(trace)

    def start_other_process(self, bound: Bound) -> str:
        """Start the other process, if the check needs one; why it can't be used, or nothing.

        The start does not count towards the time limit. Raises `CheckError` for a Python that
        can't be used.
        """
        if not self.check.other_process:
            return ""
        self.notes.other_process, reason = start_worker(self.check, self.runner(bound))
        return reason

    def tried(self) -> int:
        """How often the check's promise was tested: its resumes, comparisons or changes."""
        if self.check.changes_options:
            return len(self.followed)
        if self.check.compares == "trajectory":
            return self.tally.resumes + self.tally.comparisons
        return self.tally.comparisons

    def note(self, *more: str) -> str:
        """What a verdict should mention: what was not compared or was left out."""
        if self.followed:
            return contracts_text(self.followed)
        lost = "the weights are not compared: the optimizer itself loses its state this way"
        notes = [
            lost if "weights" in self.left_out else "",
            f"get_last_lr() is not compared: {ABOUT_LAST_LR.name} does that"
            if "get_last_lr" in self.left_out
            else "",
            *(
                f"what differs after {kind} is left to {ABOUT_EVENTS[kind].name}"
                for kind in sorted(self.notes.events)
            ),
            self.notes.other_process,
            self.notes.differs_there
            and f"some traces are not compared: {self.notes.differs_there}",
            self.notes.refused and f"left out of some traces: {self.notes.refused}",
        ]
        return "; ".join(filter(None, [*notes, *more]))

    # ---------------------------------------------------------------------------- one trace

    def run(self, trace: Trace) -> Outcome:
        """Run `trace` once, compared with the uninterrupted runs that are known already."""
        bound = self.bound(trace)
        outcome = None
        if not self.needs_compute(trace):
            runner = self.runners.of(bound, self.limit.deadline, self.left_out, compute=False)
            outcome = run_trace(runner, self.check, trace)
            self.always_compute = outcome.difference is not None
        if outcome is None or outcome.difference is not None:
            outcome = run_trace(self.runner(bound), self.check, trace)
        self.tally = self.tally.plus(outcome.tally)
        return outcome

    def twice(self, trace: Trace, *, count: bool = False) -> Outcome:
        """What `trace` shows in two runs from scratch; raises `UndecidedError` if they differ.

        With `count` the tally then counts only the second run.
        """
        self.limit.begin(trace)
        bound = self.bound(trace)
        outcomes = []
        for _ in range(2):
            runner = self.runners.new(bound, self.limit.deadline, self.left_out)
            outcomes.append(run_trace(runner, self.check, trace))
        if not same(*(o.difference and plain(vars(o.difference)) for o in outcomes)):
            raise UndecidedError(f"two runs of the trace {trace} differ", Reason.NOT_REPEATABLE)
        self._note_behaviour(trace, outcomes[0])
        if count:
            self.tally = outcomes[1].tally
        return outcomes[0]

    def breaks(
        self, trace: Trace, known: Sequence[KnownFailure] = (), *, excuse: bool = True
    ) -> bool:
        """Whether `trace` breaks the check.

        It does not if the check can't run the trace, or if one of the `known` failures explains
        how it breaks. With `excuse`, it does not if an operation by hand in the trace has a check
        of its own, which fails. If the optimizer is drawn, or the check is not searched, it does
        not if a scheduler that does nothing breaks in the same way.
        """
        self.limit.begin(trace)
        bound = self.bound(trace)
        kinds = {operation.kind for operation in trace.operations}
        if self.check.event and self.check.event not in kinds:
            return False
        try:
            outcome = self.run(trace)
        except TraceError:
            return False
        difference = outcome.difference
        if outcome.refused:
            self.notes.refused = outcome.ended
        if outcome.differs_there:
            self.notes.differs_there = outcome.ended
        self._note_behaviour(trace, outcome)
        if difference is None:
            self.held += 1
            return False
        if self.excuse_last_lr(trace, difference):
            return self.breaks(trace, known, excuse=excuse)
        if excuse and (events := self._failing_events(trace)):
            self.notes.events |= events
            return False
        if known:
            shown = counterexample_of(self.runner(bound), self.check, trace, difference)
            own = self._has_own_options(trace)
            if any(each.explains(self.check.promise, shown, own=own) for each in known):
                return False
        if "optimizer" not in bound.fields and self.check.search:
            return True
        baseline = self.baseline(trace)
        if baseline is None or not excuses(baseline, difference, self.check):
            return True
        option_set = self._sets.get(repr(trace.options))
        if option_set is None or not option_set.variation:  # a variation decides nothing
            self.notes.excuse = f"{baseline.actual} in the trace {trace}"
        return False

    def counterexample(
        self, trace: Trace, difference: Difference | None, found: Found | None = None
    ) -> Counterexample:
        """The counterexample of the minimal `trace`, with its runs.

        The trace is run twice unless `difference` is given. Raises `UndecidedError` if it breaks
        nothing.
        """
        difference = difference or self.twice(trace).difference
        if difference is None:
            raise UndecidedError(
                f"the trace {trace} broke the check once and not again: "
                "what the scheduler does depends on more than the trace",
                Reason.NOT_REPEATABLE,
            )
        bound = self.bound(trace)
        runner = self.runner(bound)
        shown = counterexample_of(runner, self.check, trace, difference, found)
        lost = attributes_that_differ(runner, self.check, trace, difference)
        new = self.runners.new(bound, self.limit.deadline, self.left_out)
        return replace(shown, lost=lost, runs=runs_of(new, self.check, trace, difference))

    def cut(self, trace: Trace) -> Trace:
        """`trace`, cut after the step that breaks the check."""
        difference = self.run(trace).difference
        return trace if difference is None else trace.until(difference.operation, difference.step)

    def _note_behaviour(self, trace: Trace, outcome: Outcome) -> None:
        """Note which behaviour the changed options of `trace` followed."""
        if not self.check.changes_options:
            return
        if outcome.behaviour or (outcome.difference and "changed" in dict(trace.options)):
            name, change = change_text(trace)
            behaviours = self.followed.setdefault(name, {})
            if outcome.behaviour:  # the first trace with a change tells most: it resumes everywhere
                behaviours.setdefault(change, outcome.behaviour)
            else:  # what follows none in one trace follows none
                behaviours[change] = ""

    # ------------------------------------------------------------------------ whose fault

    def excuse_weights(self, trace: Trace) -> bool:
        """Stop comparing weights, and return True, if the optimizer itself loses its state.

        Raises `UndecidedError` if `trace` also breaks with a scheduler that does nothing, in
        another way.
        """
        baseline = self.baseline(trace)
        if baseline is None:
            return False
        if set(baseline.actual) == {"weights"} and "weights" not in self.left_out:
            self.left_out |= {"weights"}
            return True
        difference = self.run(trace).difference
        if difference is not None and not excuses(baseline, difference, self.check):
            return False
        raise UndecidedError(
            f"{OF_THE_OPTIMIZER}{baseline.actual} in the trace {trace}", Reason.OPTIMIZER
        )

    def excuse_last_lr(self, trace: Trace, difference: Difference | None) -> bool:
        """Stop comparing ``get_last_lr()``, and return True, if another check fails with it.

        False if the `difference` that `trace` shows has something else as well.
        """
        if self.check.kind != "resume" or self.check.changes_options:
            return False
        if "get_last_lr" in self.left_out:
            return False
        if difference is None or set(difference.actual) != {"get_last_lr"}:
            return False
        if not self._fails(ABOUT_LAST_LR, trace):
            return False
        self.left_out |= {"get_last_lr"}
        return True

    def _failing_events(self, trace: Trace) -> set[str]:
        """The operations by hand in `trace` that have a check of their own, which fails."""
        kinds = {operation.kind for operation in trace.operations} & ABOUT_EVENTS.keys()
        if self.check.event:
            return set()
        return {kind for kind in kinds if self._fails(ABOUT_EVENTS[kind], trace)}

    def _fails(self, other: Check, trace: Trace) -> bool:
        """Whether another check fails with the options of `trace`, or is declined."""
        if other.name in self.subject.declines:
            return True
        options = tuple(pair for pair in trace.options if pair[0] != "changed")
        key = other.name, repr(options)
        if key not in self._failing:
            bound = self.subject.bind(dict(options))
            runner = self.runners.of(bound, self.limit.deadline, NEITHER)
            swept = (
                sweep_events(other, [other.event])
                if other.event
                else sweep_thinly(other, bound.subject.length)
            )
            outcomes = (run_trace(runner, other, Trace(each, options)) for each in swept)
            self._failing[key] = any(outcome.difference is not None for outcome in outcomes)
        return self._failing[key]

    def baseline(self, trace: Trace) -> Difference | None:
        """What the operations of `trace` show with a scheduler that does nothing."""
        bound = self.bound(trace)
        subject = do_nothing(self.subject.optimizer, self.subject.words)
        fields = {name: term for name, term in bound.fields.items() if name == "optimizer"}
        check = self.check.prerequisite or self.check
        left_out = self.left_out & {"weights"} if check is self.check else {"weights"}
        runner = self.runners.new(subject.bind(fields), self.limit.deadline, left_out)
        return run_trace(runner, check, Trace(trace.operations)).difference

    def compare_all_again(self) -> None:
        """Leave nothing out from now on."""
        self.left_out = frozenset()
