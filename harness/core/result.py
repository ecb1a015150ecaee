"""Verdicts, and what they are about.

========  =====================================================================================
HOLDS     nothing was found; says how many traces, steps and resumes were tried
KNOWN     broken as an entry of a ledger says (`harness.core.ledger`)
STALE     a ledger has an entry on it that is not true here
BROKEN    with a minimal counterexample: no operation of it can be dropped, no count lowered, no
          neighbours merged
DECLINED  the subject does not promise it, or lacks what it needs; with the reason
UNKNOWN   it could not be decided: an error of the harness, a time limit, a schedule that is not
          the same twice, a fault of the optimizer
========  =====================================================================================

Compared are every group's lr, momentum or betas and weight decay, ``get_last_lr()``, and the
weights where the check restores the optimizer: exactly, tensors by value and dtype. A run that
differs, or an exception that is raised, with a scheduler that does nothing as well
(`harness.engine.blame`) is not charged to the scheduler. What a verdict leaves out (the weights, or
what comes after an exception of the uninterrupted run) is in the report as a NOTE.

The exit status of a run is 0 if nothing is broken or stale, 1 if something is, else 2 for an
UNKNOWN or a wrong argument, 130 after Ctrl-C, 143 after SIGTERM.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from harness.core.run import Break, Reference, Tally
from harness.core.trace import Trace

HOLDS = "HOLDS"
BROKEN = "BROKEN"
KNOWN = "KNOWN"
STALE = "STALE"
DECLINED = "DECLINED"
UNKNOWN = "UNKNOWN"
OUT_OF_TIME = "the time budget"
"""How the reason begins that says what a run did not get to."""


@dataclass(frozen=True)
class Budget:
    """How much to try: traces of the search per pair, its seed, and seconds per pair.

    `explain`: once a pair is broken, each other set of drawn options is tried, too. `sweep`:
    whether to go over every save point of a plain run before the search.
    """

    max_examples: int = 25
    seed: int = 0
    time_limit: float = 30.0
    explain: bool = False
    sweep: bool = True


@dataclass(frozen=True)
class Found:
    """How a counterexample was found.

    `by` is ``sweep``, ``search``, or ``example`` of an earlier run; `traces` and `seconds` (of
    CPU) are what had been spent on the subject until then, with all checks made before.
    """

    by: str
    traces: int
    seconds: float


@dataclass(frozen=True)
class Counterexample(Break):
    """A minimal trace that breaks a check, and where and how it does.

    `found` says how it was found, where it was not given. `uninterrupted` is the run that
    it was compared with, on to the next epoch or to where it went back from. `state` says what
    attributes of the scheduler differ after the last resume. None of these makes two differ.
    """

    trace: Trace
    found: Found | None = field(default=None, compare=False)
    uninterrupted: Reference | None = field(default=None, compare=False, repr=False)
    state: str = field(default="", compare=False)


@dataclass(frozen=True)
class Result:
    """The verdict on one pair of subject and check, with what was tried for it.

    `subject` and `check` are their names; `references` are how the command line
    names them, empty where it can't; `weights` says whether weights were compared,
    `untried` which operations were not tried, each with the reason, `resume_python` the
    interpreter that a part was done with, where it is not this one. `others` are
    counterexamples under other sets of drawn options, where they were asked for; `replays`
    are those of the ledger on this pair that break it here. `place` is where to look, as
    ``path:line``: the entry where it is STALE, and where it is BROKEN or UNKNOWN the subject's
    class or function.
    """

    subject: str
    check: str
    verdict: str
    reason: str = ""
    counterexample: Counterexample | None = None
    tally: Tally = field(default_factory=Tally)
    seconds: float = 0.0
    references: tuple[str, str] = ("", "")
    weights: bool = True
    untried: tuple[tuple[str, str], ...] = ()
    resume_python: str = ""
    torch: str = torch.__version__
    others: tuple[Counterexample, ...] = ()
    replays: tuple[Counterexample, ...] = ()
    place: str = ""

    @property
    def note(self) -> str:
        """What the verdict leaves out, where it is one on the promise."""
        return self.reason if self.verdict in (HOLDS, BROKEN) else ""


class BrokenSchedule(AssertionError):
    """A check is broken; `results` holds every result."""

    def __init__(self, text: str, results: Sequence[Result]) -> None:
        super().__init__(text)
        self.results = list(results)


def shorten(value: Any, longest: int = 200) -> str:
    """A value as text of at most about `longest` characters."""
    text = str(value)
    return text if len(text) <= longest else text[:longest] + " ..."
