"""What a test or a script calls: `check_scheduler` and `replay`."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from harness.catalogue import known_failures
from harness.causes import explain as explain_results
from harness.check import SubjectCheck
from harness.checks import as_check, select_checks
from harness.errors import CheckError, UndecidedError
from harness.ledger import NOTHING_KNOWN
from harness.needs import lacking
from harness.outcomes import Outcome
from harness.pairs import check_subject
from harness.paths import routes
from harness.report import broken_text, causes_count, causes_text, stale_text, unknown_text
from harness.results import (
    BROKEN,
    HOLDS,
    UNKNOWN,
    BrokenSchedule,
    Budget,
    Counterexample,
    Result,
)
from harness.subject import as_subject
from harness.trace import Trace

__all__ = ["check_scheduler", "replay"]


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
    explain: bool = False,
    resume_python: str = "",
    ledger: str | Path | Iterable[str | Path] = (),
    **options: Any,
) -> list[Result]:
    """Check that a scheduler survives a checkpoint, in any test.

    Parameters
    ----------
    subject : Subject, class or callable
        The scheduler: a `Subject`, a class or function that is called as
        ``build(optimizer, last_epoch=-1, **options)``, or ``"module:attribute"``.
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
    explain : bool
        Whether to report what is broken by its causes, over all sets of drawn options.
    resume_python : str
        Path of another Python, with another torch: the checks that go through another
        process are added, saved by one torch and resumed by the other.
    ledger : str, Path or iterable of these
        Files of known failures (`harness.ledger`): what they tell of is KNOWN, and no failure.
    **options
        Keyword arguments of `build`, values or Hypothesis strategies.

    Returns the list of results. Raises `BrokenSchedule`, an `AssertionError`,
    if a check is broken, or what the ledger tells of it is STALE; else `UndecidedError` if one
    is UNKNOWN; `CheckError`, `SubjectError` or `LedgerError` for arguments that are not what
    they must be.

    >>> from torch.optim.lr_scheduler import ExponentialLR
    >>> results = check_scheduler(ExponentialLR, gamma=0.9, checks=["resume_at_every_save"])
    >>> results[0].verdict
    'HOLDS'
    """
    __tracebackhide__ = True  # pytest shows the report, not this function
    if max_examples < 0:
        raise CheckError(f"'max_examples' must be 0 or more (got {max_examples!r})")
    if not 0 < time_limit <= 86400:
        raise CheckError(
            f"'time_limit' must be seconds, above 0 and within a day (got {time_limit!r})"
        )
    chosen = as_subject(subject, options=options)
    if resume_python:
        from harness.worker import worker_of

        worker_of(resume_python)  # says at once what is wrong with it
    selected = select_checks(checks, all_checks=all_checks, elsewhere=bool(resume_python))
    budget = Budget(max_examples, seed, time_limit, explain)
    chosen.bind(dict.fromkeys(chosen.open))  # says at once what build does not take
    files = [ledger] if isinstance(ledger, (str, Path)) else list(ledger)
    known = NOTHING_KNOWN
    if files:
        known = known_failures(list(map(Path, files)), [chosen], selected)
    results = list(
        check_subject(chosen, selected, budget, resume_python=resume_python, ledger=known)
    )
    if explain and (causes := explain_results(results)):
        text = causes_text(causes, {check.name: check for check in selected})
        raise BrokenSchedule(f"{text}\n\n{causes_count(causes)}", results)
    broken = [
        broken_text(result, check)
        for result, check in zip(results, selected, strict=True)
        if result.verdict == BROKEN
    ]
    broken += filter(None, [stale_text(results)])
    if broken:
        raise BrokenSchedule("\n\n".join(broken), results)
    if any(result.verdict == UNKNOWN for result in results):
        raise UndecidedError(unknown_text(results))
    return results
