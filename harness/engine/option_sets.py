"""What a subject is checked with: its sets of options, and what it can do."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.core.errors import HarnessError, SubjectError, TimeLimit, UndecidedError
from harness.core.guard import Guard, time_limit
from harness.core.observation import same
from harness.core.operations import (
    BY_WORD,
    EVENTS,
    MAX_STEPS,
    Kind,
    Need,
    Operation,
    epochs,
    with_groups,
)
from harness.core.trace import Trace
from harness.core.training_loop import describe
from harness.core.verdict import Reason
from harness.engine.requirements import lacks
from harness.engine.runner import Runner
from harness.subjects.drawn_options import draw_options
from harness.subjects.subject import Bound, Subject

SETS = 25
"""How many sets of options are drawn; a trace of the search gets one after the other."""
SWEPT_SETS = 3
"""How many of them the sweep goes over."""
HORIZONS = (1, 2, 3, 5, 8, 12, 18, 24, 36)
"""Traces are drawn for runs of so many epochs: a set of options takes the next that it can."""
MISTAKES = (
    "AttributeError", "ImportError", "ModuleNotFoundError", "NameError", "NotImplementedError",
    "TypeError", "UnboundLocalError",
)  # fmt: skip
"""Exceptions that say that the code is wrong, and not, as ValueError may, that a schedule ends."""


@dataclass(frozen=True)
class OptionSet:
    """A set of options, with the epochs that its uninterrupted run has.

    `ended` says by what exception it ends there, if it does, `events` what may happen
    in it now and then.
    """

    bound: Bound
    epochs: int
    ended: str = ""
    events: tuple[str, ...] = ()


@dataclass(frozen=True)
class Prepared:
    """What is known of a subject before any check.

    `ends` says where its runs end; `lacks` what checks may need and it does not have, `untried`
    which operations it can't do, each with the reason.
    """

    option_sets: tuple[OptionSet, ...] = ()
    ends: tuple[str, ...] = ()
    lacks: Mapping[str, str] = field(default_factory=dict)
    untried: Mapping[str, str] = field(default_factory=dict)


def prepare(
    subject: Subject, seed: int, runner: Callable[[Bound], Runner], known: Collection[str]
) -> Prepared:
    """Make the plain runs of a subject, and see what its scheduler can do.

    `known` are the names of checks. Raises `HarnessError` if nothing can be checked, with the
    reason.
    """
    for name in subject.declines:
        if name not in known and name not in EVENTS:
            raise SubjectError(
                f"subject {subject.name} declines {name!r}, and no check or operation "
                "that can be declined is called so"
            )
    option_sets, ends = find_option_sets(subject, seed, runner)
    bound = option_sets[0].bound
    scheduler = runner(bound).start()[1]
    return Prepared(
        tuple(option_sets),
        tuple(ends),
        lacks(bound, scheduler, [each.bound for each in option_sets]),
        find_untried(bound, runner(bound)),
    )


def prepare_one(bound: Bound, runner: Runner) -> Prepared:
    """The same for one set of options, of which exactly one trace is run."""
    scheduler = runner.start()[1]
    return Prepared((OptionSet(bound, 0),), lacks=lacks(bound, scheduler, [bound]))


def find_option_sets(
    subject: Subject, seed: int, runner: Callable[[Bound], Runner]
) -> tuple[list[OptionSet], list[str]]:
    """The subject's own options, where it has them, then drawn ones; and where their runs end.

    What is drawn and refused, by the constructor or at the first step, is left out. Raises
    `HarnessError` where nothing can be run, or where a run raises what no schedule ends by.
    """
    sets: list[dict[str, Any]] = [] if subject.open else [{}]
    strategy = subject.strategy
    if strategy is not None:
        sets += draw_options(strategy, SETS, seed)
    cases: list[OptionSet] = []
    refusal: HarnessError | None = None
    for values in sets:
        bound = subject.bind(values)
        try:
            case = _option_set(bound, runner(bound))
        except (SubjectError, _Refused) as error:
            if not values or (subject.open and isinstance(error, _Mistaken)):
                raise
            refusal = refusal or error
        else:
            cases.append(case)
    if not cases and refusal is not None:
        raise refusal
    own = cases[0]  # of drawn ones a reader does not know whose end it is
    ends = [f"{own.ended} at epoch {own.epochs + 1}: nothing later is tried"] if own.ended else []
    return cases, ends


class _Refused(UndecidedError):
    """A scheduler that can be built, and not stepped once."""


class _Mistaken(_Refused):
    """A scheduler that raises, later on, what no schedule ends by."""


def _option_set(bound: Bound, runner: Runner) -> OptionSet:
    """A set of options, run for up to three times the subject's length."""
    path = "t" * min(3 * bound.subject.length, MAX_STEPS)
    first = runner.reference(path)
    if first.epochs == 0:
        raise _Refused(f"{first.error} at its first step")
    again = Runner(bound, deadline=runner.deadline).reference(path)
    if first.error != again.error or not same(first.observations, again.observations):
        raise UndecidedError(
            "two uninterrupted runs differ: the schedule does not depend on the steps alone, "
            "so there is nothing to compare a resumed run with",
            Reason.NOT_REPEATABLE,
        )
    if first.raises.partition(":")[0] in MISTAKES:
        run = Trace((Operation("train", count=first.epochs + 1),), bound.literals)
        raise _Mistaken(f"{first.error} at its end ({run}), and no schedule ends so: mend it first")
    untried = find_untried(bound, runner)
    events = tuple(kind for kind in EVENTS if kind not in untried)
    return OptionSet(bound, first.epochs, first.error, events)


def find_untried(bound: Bound, runner: Runner, kinds: Collection[str] = EVENTS) -> dict[str, str]:
    """Which events of these kinds this scheduler cannot handle, each with the reason."""
    events = (kind for kind in EVENTS if kind in kinds)
    return {kind: why for kind in events if (why := _why_not(BY_WORD[kind], bound, runner))}


def _why_not(kind: Kind, bound: Bound, runner: Runner) -> str:
    if kind.word in bound.subject.declines:
        return bound.subject.declines[kind.word]
    if Need.STEP_WITH_EPOCH in kind.needs and not bound.takes_epoch(runner.start()[1]):
        return Need.STEP_WITH_EPOCH.value
    path = f"t{kind.letter}tt"
    run = runner.reference(path)
    if run.error:
        return f"{kind.event}, {run.error}"
    if Need.LASTING_LR in kind.needs:
        last = epochs(path)
        plain = runner.reference("t" * last).observations  # it may be a part of a longer run
        if _same_lr(run.observations[3:5], plain[last - 1 : last + 1]):
            return Need.LASTING_LR.value
    if kind.adds_group:
        try:
            bound.build(with_groups(bound.new_optimizer, 1))
        except (Exception, SystemExit) as error:
            return f"with the same options it can't be built on one group more: {describe(error)}"
    return ""


def uninterrupted_rates(subject: Subject, seed: int, seconds: float = 30.0) -> dict[str, list[Any]]:
    """The LR of every group at the start and after each epoch of the plain run, by its trace.

    For all sets of options that the subject is checked with, without any save; fewer epochs
    where the run ends by an exception. Nothing where the subject can't be run in so many seconds.
    """
    runners: dict[str, Runner] = {}
    plain = Operation("train", count=subject.length)

    def said(bound: Bound) -> str:
        return str(Trace((plain,), bound.literals))

    def runner(bound: Bound) -> Runner:
        return runners.setdefault(said(bound), Runner(bound))

    try:
        with Guard(subject.name).on(), time_limit(seconds):
            cases, _ = find_option_sets(subject, seed, runner)
            runs = {said(case.bound): runner(case.bound) for case in cases}
            path = "t" * subject.length
            return {
                trace: [
                    seen["lr"] for seen in runs[trace].reference(path).observations[: len(path) + 1]
                ]
                for trace in runs
            }
    except (Exception, SystemExit, TimeLimit):  # its verdicts say what it is
        return {}


def _same_lr(some: Sequence[dict[str, Any]], others: Sequence[dict[str, Any]]) -> bool:
    return same([seen["lr"] for seen in some], [seen["lr"] for seen in others])
