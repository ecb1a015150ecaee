"""Runs exactly one trace."""

from __future__ import annotations

import time
from typing import Any

from harness.checks.registry import as_check, routes
from harness.core.errors import UndecidedError
from harness.core.result import (
    BROKEN,
    HOLDS,
    UNKNOWN,
    Budget,
    Counterexample,
    Result,
)
from harness.core.run import Outcome
from harness.core.trace import Trace
from harness.engine.lost_attributes import attributes_that_differ
from harness.engine.requirements import lacking
from harness.engine.verdict import SubjectCheck
from harness.subjects.references import as_subject


def replay(
    subject: Any, check: Any, trace: Any, *, time_limit: float = 30.0, resume_python: str = ""
) -> Result:
    """Run exactly one trace, twice: BROKEN, HOLDS, or UNKNOWN where that can't be told.

    `subject` and `check` are what `check_scheduler` takes, `trace` is a `Trace` or
    its text, `time_limit` is in seconds, `resume_python` that of `check_scheduler`. Raises
    `HarnessError` for a trace that the subject or the check can't run.

    >>> from torch.optim.lr_scheduler import ExponentialLR
    >>> replay(ExponentialLR, "resume_by_pickle", "gamma=0.9 train:2 save:a resume:a").verdict
    'HOLDS'
    """
    subject, check = as_subject(subject), as_check(check)
    trace = trace if isinstance(trace, Trace) else Trace.parse(trace)
    work = SubjectCheck(subject, Budget(time_limit=time_limit), resume_python)
    started = time.perf_counter()
    verdict, reason, counterexample = UNKNOWN, "", None
    needs = [need for way in (check, *routes(check, trace)) for need in way.needs]
    try:
        if lacks := next(filter(None, map(lacking, needs)), ""):
            raise UndecidedError(lacks)
        work.prepare_elsewhere(check, subject.bind(dict(trace.options)))
        with work.limited():
            work.current = trace
            outcome, work.tally = work.twice(check, trace)
            if outcome.broken and work.blame(check, trace):
                outcome, work.tally = work.twice(check, trace)
    except UndecidedError as error:
        outcome = Outcome(ended=str(error))
    if outcome.broken is not None:
        verdict, reason = BROKEN, work.note
        runner = work.runner(subject.bind(dict(trace.options)))
        state = attributes_that_differ(runner, check, trace, outcome.broken)
        counterexample = Counterexample(**vars(outcome.broken), trace=trace, state=state)
    elif outcome.ended:
        reason = outcome.ended
    elif not work.tried(check):
        reason = f"the trace does nothing that {check.name} looks at"
    else:
        verdict, reason = HOLDS, work.note
    return work.result(check, verdict, reason, counterexample, started)
