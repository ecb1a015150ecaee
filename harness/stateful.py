"""`resume_machine`: a Hypothesis state machine that resumes a scheduler, for any test file.

::

    from harness import resume_machine

    TestMySchedule = resume_machine(MySchedule, warmup=3, total=10).TestCase

Each example builds an optimizer and a scheduler and then makes legs: a few optimizer steps,
scheduler steps or training steps, next to a save, a load into the live objects, or a resume with
new ones. After every operation the LR, momentum, betas and weight decay of each group must be those
of the run that was never interrupted. The legs are rules of Hypothesis, so the test obeys what you
set there: a profile (``max_examples``, ``stateful_step_count``, ``derandomize``), ``@settings`` or
``@seed`` on the machine, ``--hypothesis-seed``, ``--hypothesis-show-statistics``. It runs under
pytest, pytest-xdist and unittest. A failure shows the block of ``check``, with a minimal trace.

`harness.check_scheduler` and ``check`` are the stronger check. They try every epoch as a save
point, look at epochs up to 2,000, compare weights, look at the saved state, and give the same
results every time; a machine draws, so it finds a fault with some probability. Use it in addition,
where long random runs are wanted and Hypothesis's tools for them are in place.

Hypothesis keeps a failing example in its database (``.hypothesis`` in the current folder), and the
next run begins with it. Only the phases that shrink and explain are left out, because the trace is
made minimal here. The key differs by subject, options and checks, so processes can share a
database, and a campaign can be spread over jobs: keep ``.hypothesis`` as a cache or an artifact of
CI, or name a common place in a profile::

    settings.register_profile(
        "campaign", max_examples=10_000,
        database=DirectoryBasedExampleDatabase("/shared/examples"),
    )

With Redis, it is ``hypothesis.extra.redis.RedisExampleDatabase``; with
``hypothesis.database.MultiplexedDatabase`` and ``ReadOnlyDatabase``, a developer's tests begin with
what CI found (``GitHubArtifactDatabase``).
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import random
import sys
import unittest
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import hypothesis
from hypothesis import Phase
from hypothesis import strategies as st
from hypothesis.control import current_build_context
from hypothesis.stateful import RuleBasedStateMachine, rule

from harness import settings
from harness.checks.registry import CHECKS, as_check
from harness.core.check import Check
from harness.core.errors import CheckError, HarnessError, UndecidedError
from harness.core.ledger import read_ledger
from harness.core.result import BrokenSchedule, Result, nothing_was_checked
from harness.core.training_loop import plain
from harness.core.verdict import Verdict
from harness.engine.live import Drive, Live
from harness.report.text import broken_text, failures, reasons_text
from harness.subjects.lookup import as_subject
from harness.subjects.subject import Subject

NOTHING_CHECKED = (
    "nothing was checked, because nothing changes in the schedule: give options with which "
    "something changes, or a Subject(..., constant=True) if nothing should"
)

__unittest = True  # unittest leaves the frames of this file out of tracebacks

LEFT_OUT = (Phase.shrink, Phase.explain)
"""Hypothesis would need ten times as long as the harness to make a trace minimal."""
ALSO = as_check("resume_by_initial_lr")
"""The opt-in way of resuming that is tried with the default ones where it holds alone."""


def resume_machine(
    subject: object,
    *,
    checks: Iterable[object] = (),
    ledger: str | Path | Iterable[str | Path] | None = None,
    **options: object,
) -> type[RuleBasedStateMachine]:
    """A Hypothesis state machine that steps, saves, loads and resumes a scheduler.

    `harness.check_scheduler` is the stronger check; `harness.stateful` says why.

    Parameters
    ----------
    subject : Subject, class or callable
        The scheduler, as in `harness.check_scheduler`.
    checks : iterable
        The ways of resuming: names of resume checks, or functions decorated as such. If empty, all
        default ones; and `resume_by_initial_lr`, where a sweep finds no failure of it, because
        not every scheduler promises it.
    ledger : str, Path or iterable of these, optional
        Files of known failures (`harness.core.ledger`). An example ends where it shows one of
        them. An entry that is not true fails the test.
    **options
        Keyword arguments of `build`, values or Hypothesis strategies.

    Returns a class; pytest and unittest collect its ``TestCase``. The test raises
    `BrokenSchedule`, an `AssertionError`, with the report; `UndecidedError` if nothing could be
    checked; ``unittest.SkipTest`` if every check is declined. Raises `CheckError`, `SubjectError`
    or `LedgerError` if an argument is wrong.

    ::

        TestStepLR = resume_machine(StepLR, step_size=3, gamma=0.5).TestCase
    """
    chosen = as_subject(subject, options=options)
    chosen.check_options()
    ways = _ways(checks := list(checks))
    wanted = settings.current.with_arguments(ledger=ledger)
    known = read_ledger(wanted.files)
    fields = {
        "__doc__": f"Resumes {chosen.name}.",
        "_live": staticmethod(
            functools.cache(
                lambda: Live(chosen, ways, wanted.budget, known, () if checks else (ALSO,))
            )
        ),
        # Hypothesis makes its database key of this and of the name of the class.
        "_hypothesis_internal_add_digest": _identity(chosen, ways).encode(),
    }
    machine: Any = type("ResumeMachine", (_ResumeMachine,), fields)
    case = machine.TestCase  # always the same class: Hypothesis keeps it
    case.settings = _without_shrinking(case.settings)
    case.runTest = _reporting(machine, case.runTest)
    caller = sys._getframe(1)
    case.runTest.lr_resume_place = caller.f_code.co_filename, caller.f_lineno
    found: type[RuleBasedStateMachine] = machine
    return found


def _ways(checks: Iterable[object]) -> tuple[Check, ...]:
    """The checks to resume with; raises `CheckError` for one that resumes nothing."""
    named = [as_check(check) for check in checks]
    for check in named:
        if check.kind != "resume" or check.mixes or check.changes_options or check.other_process:
            raise CheckError(
                f"a machine cannot try {check.name}: it takes checks that resume in this process, "
                "with the same options; use check_scheduler for the others"
            )
    default = (each for each in CHECKS if each.kind == "resume" and each.default)
    return tuple(dict.fromkeys(named or [*(each for each in default if not each.mixes), ALSO]))


def _without_shrinking(given: hypothesis.settings) -> hypothesis.settings:
    phases = [phase for phase in given.phases if phase not in LEFT_OUT]
    return hypothesis.settings(given, phases=phases)


class _ResumeMachine(RuleBasedStateMachine):
    """Resumes one scheduler; `_live` makes what its examples share when it is first called."""

    _live: ClassVar[Callable[[], Live]]

    def __init__(self) -> None:
        super().__init__()
        self.raised_before = sys.exc_info()[1]
        self.random = random.Random(0)
        self.run: Drive | None = None

    # One rule, because Hypothesis turns rules off at random: see `harness.engine.machine`. One
    # number, because it makes five of six examples from parts of an earlier one: a leg depends on
    # all numbers so far, so such an example is new from there on. Nothing is lost, because the
    # trace is made minimal, and not the numbers.
    @rule(number=st.integers(0, 2**32 - 1))
    def leg(self, number: int) -> None:
        """Make a few steps, next to a save or a way back."""
        self.random.seed(f"{self.random.random()} {number}")
        if self.run is None:
            self.run = _ready(type(self)._live()).drive(self.random)
        self.run.leg(self.random)
        self._look(self.run)

    def teardown(self) -> None:
        """Go on to the end, unless something was raised."""
        if self.run is not None and sys.exc_info()[1] is self.raised_before:
            self.run.finish()
            self._look(self.run)

    def _look(self, run: Drive) -> None:
        """Raise if a run broke a check; the report is made only when it is shown."""
        if not run.over:
            return
        self.run = None
        live = type(self)._live()
        live.count(run)
        for way in run.ways:
            hypothesis.event(f"resumed with {way}")
        broken = live.broken(run)
        if broken is None:
            return
        text, results = f"{broken.check.name}: {broken.trace}", []
        if current_build_context().is_final:
            results = [live.result(broken)]
            text = broken_text(failures(results)[0])
        raise BrokenSchedule(text, results)


def _ready(live: Live) -> Live:
    """The same, if its examples can be run; raises what the test must raise otherwise."""
    wrong = [result for result in live.decided if result.verdict == Verdict.UNKNOWN]
    if wrong:
        raise UndecidedError(reasons_text(wrong, Verdict.UNKNOWN))
    if live.decided:
        broken = [broken_text(failure) for failure in failures(live.decided)]
        text = "\n\n".join(filter(None, [*broken, reasons_text(live.decided, Verdict.STALE)]))
        raise BrokenSchedule(text, live.decided)
    if not live.groups:
        reasons = reasons_text(live.declined, Verdict.DECLINED)
        if nothing_was_checked(live.declined):
            raise UndecidedError(f"{NOTHING_CHECKED}\n\n{reasons}")
        raise unittest.SkipTest(reasons)
    return live


def _reporting(
    machine: type[_ResumeMachine], run_test: Callable[[Any], None]
) -> Callable[[Any], None]:
    """`run_test` of Hypothesis, without the notes and the traceback that it adds to our report."""

    @functools.wraps(run_test)
    def run(case: Any) -> None:
        __tracebackhide__ = True
        live = _ready(machine._live())
        case.settings = _without_shrinking(case.settings)
        try:
            run_test(case)
        except (BrokenSchedule, HarnessError) as error:
            notes = getattr(error, "__notes__", [])
            # keep what says how to run it again, as @reproduce_failure does
            error.__notes__ = [note for note in notes if "reproduce" in note]
            raise error.with_traceback(None) from None
        if not live.tally.resumes:
            raise UndecidedError(f"{live.subject.name}: nothing was resumed, in no example")
        check = live.groups[0].check
        settings.keep_for_report(
            [Result(live.subject.name, check.name, Verdict.HOLDS, tally=live.tally)]
        )

    return run


def _identity(subject: Subject, ways: Sequence[Check]) -> str:
    """Text that differs by subject, options and checks, and is the same in every process."""
    parts = [
        subject.name, subject.reference, subject.build, dict(subject.options), subject.drawn,
        subject.optimizer, subject.step, [way.name for way in ways],
    ]  # fmt: skip
    return "\n".join(map(_text, parts))


def _text(value: object) -> str:
    if isinstance(value, dict):
        return " ".join(f"{name}={_text(item)}" for name, item in sorted(value.items()))
    if isinstance(value, st.SearchStrategy):
        return repr(value)
    text = repr(plain(value))
    if inspect.isfunction(value):  # lambdas have one name
        with contextlib.suppress(OSError, TypeError):
            text += inspect.getsource(value)
    return text
