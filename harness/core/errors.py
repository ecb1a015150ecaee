"""Errors of the harness. A broken scheduler is not an error, but a verdict."""

from __future__ import annotations

from harness.core.verdict import Reason


class HarnessError(Exception):
    """An error that the user can fix, explained in one sentence; exit status 2."""


class TraceError(HarnessError):
    """A trace that does not parse, or asks for something impossible."""


class SubjectError(HarnessError):
    """A subject that cannot be found, built or stepped."""


class CheckError(HarnessError):
    """A check that cannot be found, or is not written as a check."""


class ProjectError(HarnessError):
    """A wrong key or value in the configuration of a project."""


class SelectionError(HarnessError):
    """A pattern that is not written as one, or selects nothing."""


class ScriptError(HarnessError):
    """A script that cannot be written, for example because of a lambda."""


class LedgerError(HarnessError):
    """A ledger that can't be read, or an invalid entry in it."""


class OutputError(HarnessError):
    """An output path that cannot be written."""


class ResultsError(HarnessError):
    """A file of results that cannot be read or compared."""


class UndecidedError(HarnessError):
    """A verdict is UNKNOWN, so nothing was proven; `why` is the kind of reason."""

    def __init__(self, text: str, why: Reason = Reason.NOT_RUNNABLE) -> None:
        super().__init__(text)
        self.why = why


class TimeLimit(BaseException):
    """The time limit of a pair ran out.

    A `BaseException`, so that an ``except Exception`` in the code of a
    scheduler cannot swallow it.
    """
