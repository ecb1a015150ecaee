"""Verdicts, and what they are about.

========  =====================================================================================
HOLDS     nothing was found; the result says how many traces, steps and resumes were tried
KNOWN     broken in the way an entry of a ledger says (`harness.core.ledger`)
STALE     a ledger has an entry for this pair that is not true here
BROKEN    with a minimal counterexample: no operation can be dropped, no count lowered and no
          neighbours merged
DECLINED  the subject does not promise it, or lacks what the check needs; with the reason
UNKNOWN   it could not be decided: an error of the harness, a time limit, a schedule that is not
          the same twice, a fault of the optimizer
========  =====================================================================================

A run is compared in every group's lr, momentum or betas and weight decay, in ``get_last_lr()``,
and in the weights if the check restores the optimizer: exactly, tensors by value and dtype. If a
scheduler that does nothing (`harness.engine.blame`) differs in the same way, or raises the same
exception, the scheduler under test is not blamed. What a verdict leaves out (the weights, or what
comes after an exception of the uninterrupted run) is in the report as a NOTE.

A run exits with status 0 if nothing is broken or stale, 1 if something is, else 2 for an UNKNOWN
or a wrong argument, 130 after Ctrl-C and 143 after SIGTERM.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from harness.core.run import Difference, Run, Tally
from harness.core.trace import Trace
from harness.core.verdict import Reason, Verdict

__all__ = [
    "BrokenSchedule",
    "Budget",
    "Counterexample",
    "Found",
    "FoundBy",
    "LostAttribute",
    "Promise",
    "Reason",
    "Result",
    "Verdict",
    "shorten",
]


class FoundBy(StrEnum):
    """Where a counterexample came from."""

    SWEEP = "sweep"
    SEARCH = "search"
    EXAMPLE = "example"
    """A trace that an earlier run found."""


@dataclass(frozen=True)
class Budget:
    """How much to try: traces of the search per pair, its seed, and seconds per pair.

    `sweep`: whether to go over every save point of a plain run before the search.
    """

    max_examples: int = 25
    seed: int = 0
    time_limit: float = 30.0
    sweep: bool = True


@dataclass(frozen=True)
class Found:
    """How a counterexample was found.

    `traces` and `seconds` (of CPU time) are what had been spent on the subject until then, with
    all checks made before.
    """

    by: FoundBy
    traces: int
    seconds: float


@dataclass(frozen=True)
class LostAttribute:
    """An attribute that a resumed scheduler has wrong, and that its own methods read.

    `actual` and `expected` are its values in the resumed and in the uninterrupted run, shortened;
    `saved` says whether it is in the scheduler's ``state_dict``.
    """

    name: str
    actual: str
    expected: str
    saved: bool

    def __str__(self) -> str:
        text = f"{self.name} is {self.actual}, and {self.expected} in the uninterrupted run"
        return text if self.saved else f"{text} (it is not in the state_dict)"


@dataclass(frozen=True)
class Counterexample(Difference):
    """A minimal trace that breaks a check, with its runs and where they first differ.

    `uninterrupted` is the run that it was compared with, on to the next epoch or to where it went
    back from. `runs` are all its runs, on to the subject's length: the uninterrupted ones and the
    resumed ones. `lost` are the attributes that the last resume got wrong. `found` says how it
    was found, unless the trace was given. Only the trace and the difference make two
    counterexamples differ.
    """

    trace: Trace
    found: Found | None = field(default=None, compare=False)
    uninterrupted: Run | None = field(default=None, compare=False, repr=False)
    runs: tuple[Run, ...] = field(default=(), compare=False, repr=False)
    lost: tuple[LostAttribute, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class Promise:
    """What a check promises, as reports say it.

    `kind` is ``resume`` or ``state``, `at` the operation that it is made at, `compares`
    ``trajectory`` or ``values``; `changes_options` says whether a resume changes options.
    """

    text: str = ""
    about: str = ""
    kind: str = "resume"
    at: str = "resume"
    compares: str = "trajectory"
    changes_options: bool = False

    @property
    def resumes_at_saves(self) -> bool:
        """Whether it resumes at every save, and not by an operation of its own."""
        return self.kind == "resume" and self.at == "save"


@dataclass(frozen=True)
class Result:
    """The verdict on one pair of subject and check, with what was tried for it.

    `subject` and `check` are their names; `references` are how the command line names them, empty
    if it can't; `why` is the kind of the `reason`; `weights` says whether weights were compared,
    `untried` which operations were not tried, each with the reason, `resume_python` the
    interpreter that did a part, if it is not this one. `replays` are the counterexamples of the
    ledger that break this pair here. `place` is where to look, as ``path:line``: the ledger entry
    if the verdict is STALE, the subject's class or function if it is BROKEN or UNKNOWN.
    """

    subject: str
    check: str
    verdict: Verdict
    reason: str = ""
    counterexample: Counterexample | None = None
    tally: Tally = field(default_factory=Tally)
    seconds: float = 0.0
    references: tuple[str, str] = ("", "")
    weights: bool = True
    untried: tuple[tuple[str, str], ...] = ()
    resume_python: str = ""
    torch: str = ""
    replays: tuple[Counterexample, ...] = ()
    place: str = ""
    why: Reason = Reason.NONE
    promise: Promise = Promise()

    @property
    def note(self) -> str:
        """What the verdict leaves out, if it is one on the promise."""
        return self.reason if self.verdict in (Verdict.HOLDS, Verdict.BROKEN) else ""


class BrokenSchedule(AssertionError):
    """A check is broken; `results` holds every result."""

    def __init__(self, text: str, results: Sequence[Result]) -> None:
        super().__init__(text)
        self.results = list(results)


def shorten(value: Any, longest: int = 200) -> str:
    """A value as text of at most about `longest` characters."""
    text = str(value)
    return text if len(text) <= longest else text[:longest] + " ..."
