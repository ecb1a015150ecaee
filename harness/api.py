"""What a test or a script calls: `check_scheduler` and `replay`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from harness.checks.registry import select_checks
from harness.core import defaults as settings
from harness.core.errors import UndecidedError
from harness.core.ledger import read_ledger
from harness.core.result import BrokenSchedule, Budget, Result, Verdict
from harness.engine.other_process import worker_of
from harness.engine.session import check_subject
from harness.report.failures import failures
from harness.report.text import (
    broken_text,
    stale_text,
    unknown_text,
)
from harness.subjects.references import as_subject


def check_scheduler(
    subject: Any,
    *,
    checks: Iterable[Any] = (),
    all_checks: bool | None = None,
    max_examples: int | None = None,
    seed: int | None = None,
    time_limit: float | None = None,
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
    resume_python : str
        Path of another Python, with another torch: the checks that go through another
        process are added, saved by one torch and resumed by the other.
    ledger : str, Path or iterable of these, optional
        Files of known failures (`harness.core.ledger`): what they tell of is KNOWN, and no failure.
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
    <Verdict.HOLDS: 'HOLDS'>
    """
    __tracebackhide__ = True  # pytest shows the report, not this function
    checks = list(checks)
    said = settings.current.having(
        all_checks=False if checks and all_checks is None else all_checks,
        max_examples=max_examples, seed=seed, time_limit=time_limit, ledger=ledger,
    )  # fmt: skip
    chosen = as_subject(subject, options=options)
    if resume_python:
        worker_of(resume_python)  # says at once what is wrong with it
    selected = select_checks(checks, all_checks=said.all_checks, elsewhere=bool(resume_python))
    budget = Budget(said.max_examples, said.seed, said.time_limit)
    chosen.bind(dict.fromkeys(chosen.open))  # says at once what build does not take
    results = list(
        check_subject(
            chosen, selected, budget, resume_python=resume_python,
            ledger=read_ledger(said.files), search_known=said.search_known,
        )
    )  # fmt: skip
    broken = [broken_text(failure) for failure in failures(results)]
    broken += filter(None, [stale_text(results)])
    if broken:
        raise BrokenSchedule("\n\n".join(broken), results)
    if any(result.verdict == Verdict.UNKNOWN for result in results):
        raise UndecidedError(unknown_text(results))
    return results
