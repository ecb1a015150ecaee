"""Finds the sets of options a subject is checked with, and what its scheduler can do."""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import tempfile
import time
import types
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch

from harness.core.errors import HarnessError, SubjectError, UndecidedError
from harness.core.literals import Term, parse_value
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
from harness.core.run import Observation, same
from harness.core.suggest import did_you_mean
from harness.core.trace import Trace
from harness.core.training_loop import describe, new_sgd, plain, step_with_metric
from harness.core.types import Options, Scheduler
from harness.core.verdict import Reason
from harness.engine.horizon import FAR, Horizon, Watch, first_change
from harness.engine.one_run import Runner, UninterruptedRun
from harness.engine.option_changes import changes
from harness.subjects.drawn_options import draw_options
from harness.subjects.mistakes import advice
from harness.subjects.subject import Bound, Subject


def what_scheduler_lacks(
    bound: Bound, scheduler: Scheduler, others: Sequence[Bound] = ()
) -> dict[str, str]:
    """What checks may need and the scheduler does not have, each with the reason to report.

    `others` is the subject with other options. Raises `SubjectError` if the scheduler has no
    state at all.
    """
    if not (hasattr(scheduler, "state_dict") and hasattr(scheduler, "load_state_dict")):
        raise SubjectError(
            f"subject {bound.subject.name}: {type(scheduler).__name__} has no state_dict and "
            "load_state_dict, so a checkpoint holds nothing of it: add them, or give the Subject "
            "two functions in their place"
        )
    reasons = {}
    if not bound.options:
        reasons["options"] = "it has no options to change"
    elif not any(changes(bound, others)):
        reasons["options"] = (
            "none of its options holds a number that could change: give the Subject a 'drawn' "
            "strategy with other values"
        )
    if not hasattr(scheduler, "get_last_lr"):
        reasons["get_last_lr"] = "it has no get_last_lr"
    takes = bound.takes_last_epoch
    if takes:
        try:
            bound.build(bound.new_optimizer(), last_epoch=-1)
        except TypeError as error:
            takes = "last_epoch" not in str(error)
        except (Exception, SystemExit):
            takes = True  # the check will report this error
    if not takes:
        reasons["last_epoch"] = "its build takes no last_epoch"
    return reasons


def load_a_float() -> None:
    """Load a float by ``torch.load(weights_only=True)``; some torch releases can't."""
    file = io.BytesIO()
    torch.save(0.5, file)
    torch.load(io.BytesIO(file.getvalue()), weights_only=True)


@functools.cache
def _saves_without_ranks() -> bool:
    """Whether ``torch.distributed.checkpoint`` saves without a process group (since torch 2.3)."""
    from torch.distributed.checkpoint.filesystem import FileSystemWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    try:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns that there are no ranks
            save({"epoch": 0}, storage_writer=FileSystemWriter(folder, sync_files=False))
    except Exception:
        return False
    return True


def what_torch_lacks(need: str) -> str:
    """Why this torch lacks what a check needs; empty if it has it.

    Called only if a check has this `need`: the imports may take a second.
    """
    if need == "distributed_checkpoint":
        try:
            importlib.import_module("torch.distributed.checkpoint.state_dict")
        except Exception:  # if torch has no distributed, the import fails in several ways
            return "this torch has no torch.distributed.checkpoint.state_dict"
        if not _saves_without_ranks():
            return "torch.distributed.checkpoint of this torch saves only in a process group"
    if need == "weights_only":
        try:
            load_a_float()
        except Exception:
            return "torch.load(weights_only=True) of this torch can't load a float"
    return ""


SETS = 25
"""How many sets of options are drawn; the traces of a search take them in turn."""
SWEPT_SETS = 3
"""How many of them the sweep goes over."""
SHARE = 8
"""The long run may take this fraction (1/8) of the time limit; else no long trace is run."""
OTHER_OPTIMIZERS = (
    "AdamW(groups=3)",
    "SGD(groups=2,lr='shared',momentum=0.9)",
    "Adam(rates=[1.2345678e-05])",
)
"""The optimizers that a subject without one of its own is tried with, besides SGD."""
OTHER_METRICS = (
    "metrics([0.3,0.1,0.1,0.1,0.2,nan,0.2,inf])",
    "metrics([0.3,0.1,0.1,0.1,0.2,0.2],kind='tensor')",
    "metrics([0.3,0.1,0.1,0.1,0.2,0.2],kind='numpy')",
)
"""The metrics that a subject is tried with if its step is `step_with_metric`."""
RUN_LENGTHS = (1, 2, 3, 5, 8, 12, 18, 24, 36)
"""Traces are drawn for these run lengths, in epochs; each set of options uses one it can reach."""
MISTAKES = (
    "AttributeError", "ImportError", "ModuleNotFoundError", "NameError", "NotImplementedError",
    "TypeError", "UnboundLocalError",
)  # fmt: skip
"""Exceptions that mean a mistake in the code; others, say ValueError, may end a schedule."""


@dataclass(frozen=True)
class OptionSet:
    """A set of options, with the number of epochs of its uninterrupted run.

    `ended` names the exception that ends the run, if one does. `events` are the rare events
    that may happen in it. `own` says whether these are the subject's own options, and `computed`
    whether the schedule depends on what the optimizer's steps compute. `horizon` is what a long
    uninterrupted run shows; only the first set has one. `variation` says whether these are the
    subject's own options with another optimizer or other metrics. `changes` says whether a
    hyperparameter changes within these epochs.
    """

    bound: Bound
    epochs: int
    ended: str = ""
    events: tuple[str, ...] = ()
    own: bool = False
    computed: bool = True
    horizon: Horizon = field(default_factory=Horizon)
    variation: bool = False
    changes: bool = False


class NewRunner(Protocol):
    """Gives the runner of some options."""

    def __call__(self, bound: Bound, *, compute: bool = True) -> Runner:
        """The runner; unless `compute`, its optimizer steps compute nothing."""


@dataclass(frozen=True)
class Prepared:
    """What is known about a subject before any check.

    `notes` are what every verdict should mention: where the run ends, and where nothing changes.
    `nothing_changes` is why nothing can be lost: no hyperparameter changes. `lacks` names what a
    check may need and the subject does not have, and `untried` the operations it can't do, each
    with the reason.
    """

    option_sets: tuple[OptionSet, ...] = ()
    notes: tuple[str, ...] = ()
    nothing_changes: str = ""
    lacks: Mapping[str, str] = field(default_factory=dict)
    untried: Mapping[str, str] = field(default_factory=dict)


def prepare(
    subject: Subject, seed: int, runner: NewRunner, check_names: Collection[str]
) -> Prepared:
    """The option sets of a subject, and what its scheduler can do, found by uninterrupted runs.

    Raises `HarnessError` with the reason if nothing can be checked.
    """
    listed = "lr-resume-harness list shows the checks"
    for name in subject.declines:
        if name not in check_names and name not in EVENTS:
            hint = did_you_mean(name, [*check_names, *EVENTS], listed)
            raise SubjectError(
                f"subject {subject.name} declines {name!r}, which is not a check or an "
                f"operation that can be declined: {hint}"
            )
    for name in subject.expected_failures:
        if name not in check_names:
            hint = did_you_mean(name, check_names, listed)
            raise SubjectError(
                f"subject {subject.name} expects {name!r} to fail, which is not a check: {hint}"
            )
    option_sets, notes = find_option_sets(subject, seed, runner)
    own = option_sets[0]
    bound, first = own.bound, own.horizon.first_change
    nothing = ""
    if not subject.constant and own.horizon.epochs and first is None:
        nothing = _nothing_changes(own, runner)
        if nothing and any(each.changes for each in option_sets):
            notes.append(f"{nothing} with its own options")
            nothing = ""
    if first is not None and first > subject.length:
        notes.append(f"nothing changes before epoch {first}")
    scheduler = runner(bound).start()[1]
    return Prepared(
        tuple(option_sets),
        tuple(notes),
        nothing,
        what_scheduler_lacks(bound, scheduler, [each.bound for each in option_sets]),
        find_untried(bound, runner(bound)),
    )


def prepare_one(bound: Bound, runner: Runner) -> Prepared:
    """Like `prepare`, for one set of options and a single trace."""
    scheduler = runner.start()[1]
    return Prepared((OptionSet(bound, 0),), lacks=what_scheduler_lacks(bound, scheduler, [bound]))


def find_option_sets(
    subject: Subject, seed: int, runner: NewRunner
) -> tuple[list[OptionSet], list[str]]:
    """The subject's own options, if complete, then drawn ones; and where the run of the first ends.

    Drawn options are left out if the constructor or the first step refuses them, and those of
    ``Subject.drawn`` also if their run ends with an exception of `MISTAKES`. Raises `HarnessError`
    if nothing can be run, or if a run with the subject's own options, or with a strategy among
    them, ends with such an exception.
    """
    to_try: list[Options] = [] if subject.drawn_fields else [{}]
    strategy = subject.strategy
    if strategy is not None:
        to_try += draw_options(strategy, SETS, seed)
    option_sets: list[OptionSet] = []
    refusal: HarnessError | None = None
    for values in to_try:
        bound = subject.bind(values)
        try:
            option_set = _option_set(bound, runner, own=not values, first=not option_sets)
        except (SubjectError, _Refused) as error:
            if not values or (subject.drawn_fields and isinstance(error, _Mistaken)):
                raise
            refusal = refusal or error
        else:
            option_sets.append(option_set)
    if not option_sets and refusal is not None:
        raise refusal
    if option_sets[0].own:
        option_sets += _variations(subject, runner)
    own = option_sets[0]  # with a drawn set, a reader would not know whose end is meant
    ends = [f"{own.ended} at epoch {own.epochs + 1}: nothing later is tried"] if own.ended else []
    return option_sets, ends


def _variations(subject: Subject, runner: NewRunner) -> Iterator[OptionSet]:
    """The subject's own options with other optimizers and metrics, where it can use them."""
    others = [("optimizer", text) for text in OTHER_OPTIMIZERS if subject.optimizer is new_sgd]
    others += [("step", text) for text in OTHER_METRICS if subject.step is step_with_metric]
    others = [(name, text) for name, text in others if name not in subject.options]
    for field_name, text in others:
        with contextlib.suppress(SubjectError, UndecidedError, ImportError):
            bound = subject.bind({field_name: parse_value(text)})
            option_set = _option_set(bound, runner, own=False, first=False)
            yield replace(option_set, variation=True)


class _Refused(UndecidedError):
    """The scheduler can be built, but its first step fails."""


class _Mistaken(_Refused):
    """The scheduler raises an exception of `MISTAKES` at a later step."""


def _option_set(bound: Bound, new_runner: NewRunner, *, own: bool, first: bool) -> OptionSet:
    """The set of options, after an uninterrupted run of up to three times the subject's length."""
    path = "t" * min(3 * bound.subject.length, MAX_STEPS)
    runner = new_runner(bound)
    before = _shared_by_runs(bound)
    run = runner.uninterrupted(path)
    changed = [name for name, value in _shared_by_runs(bound).items() if value != before[name]]
    if run.epochs == 0:
        hint = advice(bound.subject.build, run.raises)
        raise _Refused(f"{run.error} at its first step" + (f": {hint}" if hint else ""))
    cheap = new_runner(bound, compute=False)
    computed = not _alike(run, cheap.uninterrupted(path), weights=False)
    again = run
    if own or computed:
        again = Runner(bound, deadline=runner.deadline).uninterrupted(path)
    if not _alike(run, again) and changed:
        raise UndecidedError(_how_to_share(changed[0], bound.options[changed[0]]))
    if not _alike(run, again):
        raise UndecidedError(
            "two uninterrupted runs differ: the schedule does not depend on the steps alone, "
            "so there is nothing to compare a resumed run with",
            Reason.NOT_REPEATABLE,
        )
    if run.raises.partition(":")[0] in MISTAKES:
        trace = Trace((Operation("train", count=run.epochs + 1),), bound.literals)
        raise _Mistaken(
            f"{run.error} at its end ({trace}): that is a mistake in the code; fix it first"
        )
    untried = find_untried(bound, runner)
    events = tuple(kind for kind in EVENTS if kind not in untried)
    horizon = _look_far(runner if computed else cheap) if first else Horizon()
    changes = first_change(run.observations) is not None
    return OptionSet(bound, run.epochs, run.error, events, own, computed, horizon, changes=changes)


def _shared_by_runs(bound: Bound) -> dict[str, str]:
    """What is known of the options that are objects, which every run of a subject shares."""
    values = {
        name: value for name, value in bound.options.items()
        if not isinstance(value, (str, int, float, Term, types.FunctionType, type, type(None)))
    }  # fmt: skip
    return {name: repr(plain(value)) for name, value in values.items()}


def _how_to_share(name: str, value: object) -> str:
    """How to give an option that steps change, so that each run has its own."""
    word = type(value).__name__
    return (
        f"all runs share its option {name!r}, and steps change it ({word}), so no two runs are "
        f"alike: let each run make its own, by Subject(..., words={{{word!r}: {word}}}, "
        f"options={{{name!r}: Term.of({word!r}, ...)}}) with the arguments of {word} after its name"
    )


def _nothing_changes(option_set: OptionSet, runner: NewRunner) -> str:
    """That nothing changes with these options, even if the optimizer's steps compute something."""
    epochs = option_set.horizon.epochs
    run = runner(option_set.bound).uninterrupted("t" * epochs)
    return (
        "" if first_change(run.observations) is not None else f"nothing changed in {epochs} epochs"
    )


def _look_far(runner: Runner) -> Horizon:
    """What a run of `FAR` epochs shows; nothing if it takes too much of the time limit."""
    now = time.monotonic()
    watch = Watch(now + (runner.deadline - now) / SHARE)
    return watch.horizon(runner.watched("t" * FAR, watch).observations)


def _alike(first: UninterruptedRun, second: UninterruptedRun, *, weights: bool = True) -> bool:
    """Whether two uninterrupted runs show the same; weights count only if `weights`."""
    left_out = () if weights else ("weights",)
    seen, others = (
        [{name: each[name] for name in each if name not in left_out} for each in run.observations]
        for run in (first, second)
    )
    return first.error == second.error and same(seen, others)


def find_untried(bound: Bound, runner: Runner, kinds: Collection[str] = EVENTS) -> dict[str, str]:
    """Which events of these kinds this scheduler cannot handle, each with the reason."""
    events = (kind for kind in EVENTS if kind in kinds)
    return {kind: why for kind in events if (why := _why_not(BY_WORD[kind], bound, runner))}


def _why_not(kind: Kind, bound: Bound, runner: Runner) -> str:
    """Why this scheduler can't handle one event; empty if it can."""
    if kind.word in bound.subject.declines:
        return bound.subject.declines[kind.word]
    if Need.STEP_WITH_EPOCH in kind.needs and not bound.takes_epoch(runner.start()[1]):
        return Need.STEP_WITH_EPOCH.value
    path = f"t{kind.letter}tt"
    run = runner.uninterrupted(path)
    if run.error:
        return f"{kind.event}, {run.error}"
    if Need.LASTING_LR in kind.needs:
        last = epochs(path)
        plain = runner.uninterrupted("t" * last).observations  # it may be the start of a longer run
        # after the scheduler steps that follow the event, and after as many in an uninterrupted run
        if _same_lr(run.observations[3:5], plain[last - 1 : last + 1]):
            return Need.LASTING_LR.value
    if kind.adds_group:
        try:
            bound.build(with_groups(bound.new_optimizer, 1))
        except (Exception, SystemExit) as error:
            return f"it can't be built with the same options on one more group: {describe(error)}"
    return ""


def _same_lr(some: Sequence[Observation], others: Sequence[Observation]) -> bool:
    return same([seen["lr"] for seen in some], [seen["lr"] for seen in others])
