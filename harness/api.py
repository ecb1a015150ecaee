"""What a test or a script calls: `check_scheduler` and `replay`."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from harness import settings
from harness.attributes import attributes_that_differ
from harness.causes import explain as explain_results
from harness.check import SubjectCheck
from harness.checks import as_check, select_checks
from harness.errors import UndecidedError
from harness.ledger import read_ledger
from harness.needs import lacking
from harness.outcomes import Outcome
from harness.pairs import check_subject
from harness.paths import routes
from harness.report import alike, broken_text, causes_count, causes_text, stale_text, unknown_text
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


def check_scheduler(
    subject: Any,
    *,
    checks: Iterable[Any] = (),
    all_checks: bool | None = None,
    max_examples: int | None = None,
    seed: int | None = None,
    time_limit: float | None = None,
    explain: bool = False,
    resume_python: str = "",
    ledger: str | Path | Iterable[str | Path] | None = None,
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
    all_checks : bool, optional
        Whether to add the opt-in checks.
    max_examples : int, optional
        Traces of the search for each check, after the sweep; 0 for the sweep alone.
    seed : int, optional
        Seed of the search: the same one draws the same traces.
    time_limit : float, optional
        Seconds for each check.
    explain : bool
        Whether to report what is broken by its causes, over all sets of drawn options.
    resume_python : str
        Path of another Python, with another torch: the checks that go through another
        process are added, saved by one torch and resumed by the other.
    ledger : str, Path or iterable of these, optional
        Files of known failures (`harness.ledger`): what they tell of is KNOWN, and no failure.
        That of PyTorch is one of them only where it is named.
    **options
        Keyword arguments of `build`, values or Hypothesis strategies.

    What is None is as the options and ini keys of pytest say (`harness.pytest_plugin`), else as
    the command line has it, without a ledger.

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
    checks = list(checks)
    said = settings.current.having(
        all_checks=False if checks and all_checks is None else all_checks,
        max_examples=max_examples, seed=seed, time_limit=time_limit, ledger=ledger,
    )  # fmt: skip
    chosen = as_subject(subject, options=options)
    if resume_python:
        from harness.worker import worker_of

        worker_of(resume_python)  # says at once what is wrong with it
    selected = select_checks(checks, all_checks=said.all_checks, elsewhere=bool(resume_python))
    budget = Budget(said.max_examples, said.seed, said.time_limit, explain)
    chosen.bind(dict.fromkeys(chosen.open))  # says at once what build does not take
    results = list(
        check_subject(
            chosen, selected, budget, resume_python=resume_python,
            ledger=read_ledger(said.files), search_known=said.search_known,
        )
    )  # fmt: skip
    by_name = {check.name: check for check in selected}
    if explain and (causes := explain_results(results)):
        text = causes_text(causes, by_name)
        raise BrokenSchedule(f"{text}\n\n{causes_count(causes)}", results)
    broken = [broken_text(first, by_name[first.check], others) for first, *others in alike(results)]
    broken += filter(None, [stale_text(results)])
    if broken:
        raise BrokenSchedule("\n\n".join(broken), results)
    if any(result.verdict == UNKNOWN for result in results):
        raise UndecidedError(unknown_text(results))
    return results
