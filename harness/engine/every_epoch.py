"""Runs a schedule, and resumes it at each of its epochs."""

from __future__ import annotations

from dataclasses import dataclass, field

from harness.checks.registry import as_check
from harness.core.check import Check
from harness.core.errors import HarnessError
from harness.core.operations import MAX_STEPS, Operation
from harness.core.run import Points, numbers_of, same
from harness.core.trace import Trace
from harness.engine.one_run import Runner
from harness.engine.option_sets import what_scheduler_lacks
from harness.engine.pair_tester import Limit
from harness.engine.runs import run_to_the_end
from harness.subjects.subject import Subject

RESUME_CHECKS = ("resume_optimizer_then_scheduler", "resume_by_last_epoch")
"""The checks that resume a schedule."""
SECONDS = 600.0
"""The time limit for one schedule."""


@dataclass(frozen=True)
class Resume:
    """A run that was resumed at `epoch`; `wrong` is the first epoch with a wrong LR, or None.

    `raises` is the exception that ended it, if the uninterrupted run does not raise it.
    """

    epoch: int
    points: Points
    wrong: int | None = None
    raises: str = ""


@dataclass(frozen=True)
class ResumesByCheck:
    """All resumes by one check, each followed for `followed` epochs, or to the end if that is 0."""

    check: Check
    resumes: list[Resume] = field(default_factory=list)
    declined: str = ""
    followed: int = 0

    @property
    def wrong(self) -> list[Resume]:
        """The resumes that do not continue like the uninterrupted run."""
        return [resume for resume in self.resumes if resume.wrong is not None or resume.raises]


@dataclass(frozen=True)
class Schedule:
    """The LRs of an uninterrupted run by epoch, the exception that ended it, and its resumes."""

    points: Points
    raises: str
    by_check: list[ResumesByCheck]


def schedule_of(subject: Subject, epochs: int = 0) -> Schedule:
    """The schedule over `epochs` epochs, with a resume at each; 0 means the subject's length.

    Raises `HarnessError` if the schedule can't be run.
    """
    epochs = epochs or subject.length
    open_ = sorted(subject.drawn_fields)
    if open_:
        raise HarnessError(
            f"subject {subject.name} draws its option {open_[0]!r}: give it a value, by --kwargs "
            f"'{open_[0]}=VALUE'"
        )
    bound = subject.bind({})
    limit = Limit(subject, SECONDS)
    with limit.on():
        runner = Runner(bound, deadline=limit.deadline)
        plain = runner.uninterrupted("t" * epochs)
        if plain.epochs == 0:
            raise HarnessError(f"subject {subject.name}: {plain.error} at its first step")
        missing = what_scheduler_lacks(bound, runner.start()[1])
        rates = [numbers_of(seen, "lr") for seen in plain.observations]
        by_check = []
        for name in RESUME_CHECKS:
            check = as_check(name)
            why = subject.declines.get(name) or next(
                filter(None, (missing.get(need) for need in check.needs)), ""
            )
            by_check.append(
                ResumesByCheck(check, declined=why) if why else _resumed(runner, check, rates)
            )
    return Schedule(list(enumerate(rates)), plain.raises, by_check)


def _resumed(runner: Runner, check: Check, rates: list[list[float]]) -> ResumesByCheck:
    """A resume at each epoch, all in one trace, and after each as many steps as fit into it."""
    last = len(rates) - 1
    starts = range(check.from_epoch, last + 1)
    steps = [last - epoch for epoch in starts]
    followed = 0
    if last + sum(steps) > MAX_STEPS:
        followed = (MAX_STEPS - last) // len(steps)
        steps = [min(count, followed) for count in steps]
    operations = [Operation("save", slot="e0")] if not check.from_epoch else []
    for epoch in range(1, last + 1):
        operations += [Operation("train", count=1), Operation("save", slot=f"e{epoch}")]
    for epoch, count in zip(starts, steps, strict=True):
        operations.append(Operation("resume", slot=f"e{epoch}"))
        operations += [Operation("train", count=count)] if count else []
    if not starts:
        return ResumesByCheck(check)
    segments = run_to_the_end(runner, check, Trace(tuple(operations), runner.bound.literals))
    resumes = []
    for segment in segments[1:]:
        assert segment.began is not None
        start = int(segment.began.slot[1:])
        points = [(seen.epoch, numbers_of(seen.values, "lr")) for seen in segment.seen]
        wrong = next((epoch for epoch, values in points if not same(values, rates[epoch])), None)
        resumes.append(Resume(start, points, wrong, segment.raises))
    return ResumesByCheck(check, resumes, followed=followed)
