"""`parametrize_with_checks`: a test for each pair of subject and check.

`harness.pytest_plugin` describes the outcomes of the tests. Only a call needs pytest, so you can
import the name, and read about it with ``pydoc``, without pytest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from harness import settings
from harness.core.errors import SubjectError, UndecidedError
from harness.settings import Settings

if TYPE_CHECKING:
    import pytest

    from harness.core.check import Check
    from harness.core.ledger import Ledger
    from harness.engine.session import SubjectSession
    from harness.subjects.subject import Subject

Key: TypeAlias = "tuple[int, Settings, frozenset[str]]"
_sessions: dict[Key, tuple[Subject, SubjectSession]] = {}
_ledgers: dict[tuple[Path, ...], Ledger] = {}


def parametrize_with_checks(
    subjects: Iterable[object],
    *,
    checks: Iterable[object] = (),
    all_checks: bool | None = None,
    max_examples: int | None = None,
    seed: int | None = None,
    time_limit: float | None = None,
    ledger: str | Path | Iterable[str | Path] | None = None,
) -> pytest.MarkDecorator:
    """A decorator that calls ``test(subject, check)`` for each pair of subject and check.

    The test calls ``check(subject)``. The parameters are the same as in
    `harness.check_scheduler`; each item of `subjects` is what that function takes as `subject`.
    An id looks like ``StepLR-resume_from_file``.

    Raises `SubjectError` or `CheckError`, which pytest shows as collection errors.
    """
    import pytest

    from harness.checks.registry import list_of_checks, select_checks
    from harness.subjects.lookup import as_subject
    from harness.subjects.subject import Subject

    if isinstance(subjects, (str, Subject)) or not isinstance(subjects, Iterable):
        raise SubjectError(f"'subjects' must be a list of subjects (got {subjects!r:.80})")
    said = settings.current.project.settings_of
    chosen = [as_subject(subject, settings_of=said) for subject in subjects]
    if not chosen:
        raise SubjectError("'subjects' is empty, so nothing would be checked: add a subject")
    for name, count in Counter(subject.name for subject in chosen).items():
        if count > 1:
            raise SubjectError(
                f"{count} subjects are called {name!r}: give each its own name, for example "
                f"Subject({name + '-2'!r}, build, options={{...}})"
            )
    for subject in chosen:
        subject.check_options()
    checks = list_of_checks(checks) or list(settings.current.project.checks)
    wanted = settings.current.with_arguments(
        checks=checks, all_checks=all_checks, max_examples=max_examples, seed=seed,
        time_limit=time_limit, ledger=ledger,
    )  # fmt: skip
    of_each = [
        select_checks(checks, all_checks=wanted.all_checks, contract=bool(subject.contract))
        for subject in chosen
    ]
    names = frozenset(check.name for selected in of_each for check in selected)
    return pytest.mark.parametrize(
        ("subject", "check"),
        [
            pytest.param(
                subject, PairCheck(check, wanted, names), id=f"{subject.name}-{check.name}"
            )
            for subject, selected in zip(chosen, of_each, strict=True)
            for check in selected
        ],
    )


class PairCheck:
    """A check that a test calls with a subject; `names` holds all checks of the test."""

    def __init__(self, check: Check, wanted: Settings, names: frozenset[str]) -> None:
        self.check, self.wanted, self.names = check, wanted, names

    def __repr__(self) -> str:
        return self.check.name

    def __call__(self, subject: object) -> None:
        """Check the subject, and raise what gives the test the outcome of the verdict."""
        __tracebackhide__ = True
        import pytest

        from harness.core import result as results
        from harness.core.verdict import Verdict
        from harness.report import text as report
        from harness.report.text import Failure
        from harness.subjects.lookup import as_subject

        result = self.session(as_subject(subject)).check(self.check)
        settings.keep_for_report([result])
        if result.verdict == Verdict.DECLINED:
            pytest.skip(result.reason)
        if result.verdict == Verdict.UNKNOWN:
            raise UndecidedError(report.reasons_text([result], Verdict.UNKNOWN))
        if result.verdict == Verdict.STALE:
            raise results.BrokenSchedule(report.reasons_text([result], Verdict.STALE), [result])
        if result.verdict == Verdict.KNOWN:
            looked = report.no_other_failure_text([result])
            known = f"{result.reason} ({looked})" if looked else result.reason
            pytest.xfail(known)  # does nothing with --runxfail
        if result.counterexample is not None:
            text = report.broken_text(Failure((result,)))
            if self.wanted.files and result.verdict == Verdict.BROKEN:
                text += f"\n  Not in any ledger:\n\n{report.entries([result])[0]}"
            raise results.BrokenSchedule(text, [result])

    def session(self, subject: Subject) -> SubjectSession:
        """The checks of a subject, which is prepared when the first of them is called."""
        from harness.core.ledger import EMPTY_LEDGER
        from harness.engine.session import SubjectSession

        wanted = self.wanted
        key = (id(subject), wanted, self.names)
        if key not in _sessions:
            session = SubjectSession(
                subject, self.names, wanted.budget,
                ledger=EMPTY_LEDGER if wanted.no_ledger else ledger_of(wanted),
            )  # fmt: skip
            _sessions[key] = subject, session  # keep the subject, so that no other gets its id
        return _sessions[key][1]


def ledger_of(wanted: Settings) -> Ledger:
    """The known failures in the ledgers of installed packages and in the user's files."""
    from harness.core.ledger import Ledger, read_ledger
    from harness.subjects.known_failures import shipped_failures

    if wanted.files not in _ledgers:
        entries = (*shipped_failures().entries, *read_ledger(wanted.files).entries)
        _ledgers[wanted.files] = Ledger(entries)
    return _ledgers[wanted.files]


def forget_run() -> None:
    """Forget the subjects and ledgers of this pytest run."""
    _sessions.clear()
    _ledgers.clear()
