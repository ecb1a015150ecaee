"""Results: verdicts on pairs of subject and check (`harness.core.verdict`), and what led to them.

Two runs are compared in every group's lr, momentum or betas and weight decay, in
``get_last_lr()``, and in the weights if the check restores the optimizer. The comparison is exact;
tensors are compared by value and dtype. If a scheduler that does nothing
(`harness.engine.pair_tester`) differs in the same way, or raises the same exception, the scheduler
under test is not blamed. A NOTE in the report says what a verdict leaves out: the weights, or
what comes after an exception of the uninterrupted run.

The exit status is 1 if something is BROKEN or STALE; else 2 if something is UNKNOWN, nothing was
checked or an argument is wrong; else 0. It is 130 after Ctrl-C and 143 after SIGTERM.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar

from harness.core.output import one_line
from harness.core.run import Difference, Run, Tally
from harness.core.trace import Trace
from harness.core.verdict import Reason, Verdict

Item = TypeVar("Item")
Key = TypeVar("Key", bound=Hashable)


class FoundBy(StrEnum):
    """Where a counterexample came from."""

    SWEEP = "sweep"
    SEARCH = "search"
    EXAMPLE = "example"
    """A trace that an earlier run found."""


@dataclass(frozen=True)
class Budget:
    """How much to try: traces of the search per pair, its seed, and seconds per pair.

    `sweep`: whether to try every save point before the search.
    """

    max_examples: int = 25
    seed: int = 0
    time_limit: float = 30.0
    sweep: bool = True


@dataclass(frozen=True)
class Found:
    """How a counterexample was found.

    `traces` and `seconds` (of CPU time) were spent on the subject until then, by earlier checks
    too.
    """

    by: FoundBy
    traces: int
    seconds: float


@dataclass(frozen=True)
class LostAttribute:
    """An attribute that the scheduler's methods read, and that is wrong after a resume.

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

    `uninterrupted` is the run it was compared with, which goes on to the next epoch or to the
    operation that went back. `runs` are all its runs, uninterrupted and resumed, which go on to
    the subject's length. `lost` are the attributes that the last resume got wrong. `found` says
    how it was found, unless the trace was given. Two counterexamples are equal if their trace and
    difference are.
    """

    trace: Trace
    found: Found | None = field(default=None, compare=False)
    uninterrupted: Run | None = field(default=None, compare=False, repr=False)
    runs: tuple[Run, ...] = field(default=(), compare=False, repr=False)
    lost: tuple[LostAttribute, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class Promise:
    """What a check promises, for reports.

    `kind` is ``resume`` or ``state``, `at` the operation at which the check is made, `compares`
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
        """Whether it resumes at every save, and not by a ``resume`` or ``load`` operation."""
        return self.kind == "resume" and self.at == "save"


@dataclass(frozen=True)
class Result:
    """The verdict on one pair of subject and check, with what was tried.

    `subject` and `check` are their names; `references` are their names on the command line, empty
    if they have none there. `why` is the kind of the `reason`. `seconds` is how long it took.
    `weights` says whether weights were compared, `last_lr` whether ``get_last_lr()`` was,
    `untried` which operations were not tried, each with the reason. `resume_python` is the other
    Python that did a part of the work, if there is one. `replays` are the counterexamples from the
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
    last_lr: bool = True
    untried: tuple[tuple[str, str], ...] = ()
    resume_python: str = ""
    torch: str = ""
    replays: tuple[Counterexample, ...] = ()
    place: str = ""
    why: Reason = Reason.NONE
    promise: Promise = Promise()

    @property
    def pair(self) -> tuple[str, str]:
        """The names of the subject and of the check."""
        return self.subject, self.check

    @property
    def note(self) -> str:
        """What the verdict leaves out, where the run ended, which option wins.

        Empty unless it is HOLDS or BROKEN.
        """
        return self.reason if self.verdict in (Verdict.HOLDS, Verdict.BROKEN) else ""


def nothing_was_checked(results: Sequence[Result]) -> bool:
    """Whether all checks were declined because nothing changes in the schedules."""
    reasons = {result.why for result in results}
    return Reason.NOTHING_CHANGES in reasons and reasons <= {
        Reason.NOTHING_CHANGES,
        Reason.SUBJECT_DECLINES,
    }


class BrokenSchedule(AssertionError):
    """A check is broken; `results` holds every result."""

    def __init__(self, text: str, results: Sequence[Result]) -> None:
        super().__init__(text)
        self.results = list(results)


def shorten(value: object, longest: int = 200) -> str:
    """A value as text of at most about `longest` characters."""
    text = one_line(str(value))
    return text if len(text) <= longest else text[:longest] + " ..."


def grouped(items: Iterable[Item], key: Callable[[Item], Key]) -> dict[Key, list[Item]]:
    """The items with each key, in the order in which the keys first appear.

    >>> grouped(["save:a", "train:3", "save:b"], lambda word: word.partition(":")[0])
    {'save': ['save:a', 'save:b'], 'train': ['train:3']}
    """
    groups: dict[Key, list[Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups
