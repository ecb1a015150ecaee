"""If a run is resumed with other options, which option wins: the saved one or the new one?

Three contracts have a name:

* *The saved option wins*: the resumed run equals the uninterrupted run with the old options.
* *The new option wins*: it equals the uninterrupted run with the new options (as if from the
  start), or one of two runs in which the option changes without a checkpoint (from the resume
  on).
* *It raises*: loading raises, or the scheduler's first step after it does.

A run that follows none of them is BROKEN.

What a resumed run does with the changed option is its *behaviour*: ``saved``, ``start``, ``set``,
``handed over`` or ``raises`` (`DESCRIPTIONS` explains them). The contract ``new`` allows three of
them.

`resume_with_changed_options` resumes with one option changed and says which wins;
``Subject(contract="saved")`` (or ``new``, ``raises``) demands one. For PyTorch's schedulers, on
torch 2.13.0, this option wins:

* StepLR, MultiStepLR, ConstantLR, LinearLR, ExponentialLR, PolynomialLR, CosineAnnealingLR,
  CosineAnnealingWarmRestarts, ReduceLROnPlateau, SWALR; numbers and lists: the saved one;
* OneCycleLR, all but ``epochs`` and ``steps_per_epoch``: the saved one, so a schedule with a
  longer ``total_steps`` still ends at the saved one;
* CyclicLR, all but ``scale_fn``: the saved one;
* CyclicLR and LambdaLR, a plain function: the new one, as if from the start;
* MultiplicativeLR, a plain function: the new one, from the saved LR on;
* LambdaLR and MultiplicativeLR, an object of the same class: the saved one;
* LambdaLR, an object of another class, or a list of functions and objects: neither, so BROKEN.

Only the values that the optimizer will use are compared. The weights are not, because they
depend on the whole past. Until the scheduler's first step after a resume the optimizer has the
values it was saved with, whichever option wins.

Reproduction scripts contain these functions unchanged: see `harness.core.training_loop`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypedDict

from torch.optim import Optimizer

from harness.core.operations import LETTER, epochs, gradients, groups_added, perform, with_groups
from harness.core.run import Observation, same
from harness.core.training_loop import (
    Stateful,
    describe,
    differences,
    observe,
    restore_parameters,
    snapshot,
)
from harness.core.types import (
    Build,
    Checkpoint,
    NewOptimizer,
    OptimizerAndScheduler,
    Options,
    Save,
    Scheduler,
    Step,
)

Builders: TypeAlias = tuple[NewOptimizer, Build, Build]
"""What makes an optimizer, a scheduler, and a scheduler with the changed options."""


class ResumedRun(TypedDict):
    """See `resumed_runs`."""

    path: str
    first: int
    switch: int
    seen: list[Observation]
    moments: list[tuple[int, int]]


class Judged(TypedDict, total=False):
    """See `judge_behaviour`."""

    follows: str | None
    run: ResumedRun
    index: int
    left: list[str]
    saved: list[Observation]
    start: list[Observation]


DESCRIPTIONS = {
    "saved": "the saved option wins",
    "start": "the new option wins, as if from the start",
    "set": "the new option wins, from the resume on",
    "handed over": "the new option wins, from the resume on",
    "raises": "it raises",
}
BEHAVIOURS = {"saved": ["saved"], "new": ["start", "set", "handed over"], "raises": ["raises"]}
"""The behaviours that each contract of a subject allows."""


def hyperparameters(optimizer: Optimizer, scheduler: Scheduler) -> Observation:
    """What the optimizer will use at its next step, without the weights."""
    seen = observe(optimizer, scheduler)
    return {name: value for name, value in seen.items() if name != "weights"}


def advance(
    optimizer: Optimizer, scheduler: Scheduler, step: Step, path: str, done: int,
    seen: list[Observation],
) -> bool:  # fmt: skip
    """Go on along a path after its first `done` letters; False if a step raises."""
    index, epoch = gradients(path[:done]), epochs(path[:done])
    for letter in path[done:]:
        try:
            index, epoch = perform(letter, optimizer, scheduler, index, epoch, step)
            seen.append(hyperparameters(optimizer, scheduler))
        except (Exception, SystemExit) as error:
            seen.append({"raises": describe(error)})
            return False
    return True


def resumed_runs(
    builders: Builders, step: Step, save: Save, resume: Callable[..., OptimizerAndScheduler],
    operations: Sequence[tuple[str, Any]],
) -> list[ResumedRun]:  # fmt: skip
    """One run for every resume of a trace; all runs from the first resume on have the new options.

    `builders` are new_optimizer, build and build_changed; an operation is its kind with a count or
    a slot. A run has its ``path``, how much of it was done before the resume (``first``) and how
    much with the old options (``switch``), what was ``seen`` after the resume, and the operation
    and step of each observation (``moments``).
    """
    new_optimizer, build, build_changed = builders
    optimizer = new_optimizer()
    scheduler = build(optimizer)
    path, switch, goes_on = "", -1, True
    slots: dict[str, tuple[str, int, Checkpoint]] = {}
    runs: list[ResumedRun] = []
    seen: list[Observation] = []
    moments: list[tuple[int, int]] = []
    for number, (kind, value) in enumerate(operations):
        if kind == "save":
            slots.pop(value, None)
            if goes_on:
                slots[value] = path, switch, save(optimizer, scheduler, epochs(path))
        elif kind == "resume":
            goes_on = value in slots  # the run may have raised before the save
            if not goes_on:
                continue
            path, switch, checkpoint = slots[value]
            switch = len(path) if switch < 0 else switch
            seen, moments = [], [(number, 0)]
            first = len(path)
            runs.append(
                {"path": path, "first": first, "switch": switch, "seen": seen, "moments": moments}
            )
            try:
                make = functools.partial(with_groups, new_optimizer, groups_added(path))
                optimizer, scheduler = resume(make, build_changed, snapshot(checkpoint))
                restore_parameters(optimizer, checkpoint)
                seen.append(hyperparameters(optimizer, scheduler))
            except (Exception, SystemExit) as error:
                goes_on = False
                seen.append({"raises": describe(error)})
        elif goes_on:
            longer = path + LETTER[kind] * value
            before = len(seen)
            goes_on = advance(optimizer, scheduler, step, longer, len(path), seen)
            moments += [(number, i + 1) for i in range(len(seen) - before)]
            path = longer
        if runs:
            runs[-1]["path"] = path
    return runs


def uninterrupted(
    new_optimizer: NewOptimizer, build: Build, step: Step, path: str
) -> list[Observation]:
    """What is seen in a run without a resume."""
    optimizer = new_optimizer()
    scheduler = build(optimizer)
    seen = [hyperparameters(optimizer, scheduler)]
    advance(optimizer, scheduler, step, path, 0, seen)
    return seen


def set_in_the_run(
    builders: Builders, step: Step, changed: Options, path: str, switch: int
) -> list[Observation]:
    """What is seen if the options are set in the live scheduler; [] if they can't be set."""
    new_optimizer, build, _ = builders
    optimizer = new_optimizer()
    scheduler = build(optimizer)
    seen = [hyperparameters(optimizer, scheduler)]
    advance(optimizer, scheduler, step, path[:switch], 0, seen)
    live = vars(scheduler.scheduler if isinstance(scheduler, Stateful) else scheduler)
    if not all(name in live for name in changed):
        return []
    live.update(changed)
    advance(optimizer, scheduler, step, path, switch, seen)
    return seen


def handed_over(builders: Builders, step: Step, path: str, switch: int) -> list[Observation]:
    """What is seen if a run with the new options takes over the LRs and momenta of the old run.

    A scheduler that multiplies the present LR goes on from there with its new options.
    """
    new_optimizer, build, build_changed = builders
    old, optimizer = new_optimizer(), new_optimizer()
    past, scheduler = build(old), build_changed(optimizer)
    seen = [hyperparameters(old, past)]
    if not advance(old, past, step, path[:switch], 0, seen):
        return seen
    apart: list[Observation] = []
    if not advance(optimizer, scheduler, step, path[:switch], 0, apart):
        return [*seen[:-1], apart[-1]]
    for group, taken in zip(optimizer.param_groups, old.param_groups):  # noqa: B905
        for name in ("lr", "momentum", "betas", "weight_decay"):
            if name in taken:
                group[name] = snapshot(taken[name])
    advance(optimizer, scheduler, step, path, switch, seen)
    return seen


def next_scheduler_step(path: str, first: int) -> int:
    """The index of the first scheduler step in a path from `first` on."""
    return next((i for i in range(first, len(path)) if epochs(path[i])), len(path))


def first_unexpected(
    run: ResumedRun, expected: list[Observation], early: Sequence[list[Observation]]
) -> int | None:
    """The index of a run's first observation that differs from the expected one, or None.

    Up to the scheduler's first step with the new options, it may also equal a run of `early`.
    """
    until = next_scheduler_step(run["path"], run["switch"])
    for index, seen in enumerate(run["seen"]):
        position = run["first"] + index
        if position <= until and any(
            same(seen, other[position]) for other in early if position < len(other)
        ):
            continue
        if position < len(expected):
            fits = same(seen, expected[position])
        else:  # the expected run had ended before
            fits = "raises" in seen and "raises" in expected[-1]
        if not fits:
            return index
    return None


def first_not_raised(run: ResumedRun) -> int | None:
    """The index of the observation after a scheduler step that should have raised; else None."""
    until = next_scheduler_step(run["path"], run["first"])
    for index, seen in enumerate(run["seen"]):
        if "raises" in seen:
            return None
        if run["first"] + index > until:
            return index
    return None


def judge_behaviour(
    builders: Builders, step: Step, changed: Options, runs: list[ResumedRun],
    allowed: Sequence[str],
) -> Judged:  # fmt: skip
    """Which of the allowed behaviours (keys of `DESCRIPTIONS`) all `runs` follow.

    ``follows`` is that behaviour; empty if the old and the new options give the same runs; None if
    the runs follow no allowed behaviour. Then ``run`` and ``index`` say where they left the one
    that they followed longest, and ``left`` names the behaviours that they left there, unless
    these are all. ``saved`` and ``start`` are the two uninterrupted runs to compare with.
    """
    new_optimizer, build, build_changed = builders
    known: dict[object, list[Observation]] = {}

    def uninterrupted_run(name: str, run: ResumedRun) -> list[Observation]:
        path, switch = run["path"], run["switch"]
        key = (name, path) if name in ("saved", "start") else (name, path, switch)
        if key not in known:
            if name == "set":
                known[key] = set_in_the_run(builders, step, changed, path, switch)
            elif name == "handed over":
                known[key] = handed_over(builders, step, path, switch)
            else:
                made = build_changed if name == "start" else build
                known[key] = uninterrupted(new_optimizer, made, step, path)
        return known[key]

    def first_mismatch(name: str, run: ResumedRun) -> int | None:
        if name == "raises":
            return first_not_raised(run)
        expected = uninterrupted_run(name, run)
        early = (
            []
            if name == "saved"
            else [uninterrupted_run("saved", run), uninterrupted_run("start", run)]
        )
        return first_unexpected(run, expected, early) if expected else 0

    found: dict[str, Any] = {}
    for name in ("saved", "start", "raises", "set", "handed over"):  # the last two are the slowest
        found[name] = None
        for number, run in enumerate(runs):
            index = first_mismatch(name, run)
            if index is not None:
                found[name] = number, index
                break
        if name == "start" and found["saved"] is None and found["start"] is None:
            return {"follows": ""}
        if name != "saved" and name in allowed and found[name] is None:
            return {"follows": name}
        if name == "start" and "saved" in allowed and found["saved"] is None:
            return {"follows": "saved"}
    number, index = max(found[name] for name in allowed)
    left = [name for name in allowed if found[name] == (number, index)]
    left = left if len(left) < len(allowed) else []
    run = runs[number]
    return {
        "follows": None, "run": run, "index": index, "left": left,
        "saved": uninterrupted_run("saved", run), "start": uninterrupted_run("start", run),
    }  # fmt: skip


def contrast(judged: Judged, allowed: Sequence[str]) -> tuple[Observation, Observation]:
    """The values that the allowed behaviours would give, and the values that were seen."""
    run, index = judged["run"], judged["index"]
    seen, position = run["seen"][index], run["first"] + index
    expected: Observation = {}
    names: list[str] = []
    for name, whose, run_there in (
        ("saved", "saved", judged["saved"]), ("start", "new", judged["start"])
    ):  # fmt: skip
        there = run_there[min(position, len(run_there) - 1)]
        names += [key for key in differences(there, seen)[0] if key != "raises"]
        if name not in allowed:
            continue
        if "raises" in there:
            expected[f"raises if the {whose} option wins"] = there["raises"]
        else:
            column = next((key for key in names if key in there), "lr")
            expected[f"{column} if the {whose} option wins"] = there[column]
    if "raises" in seen:
        return expected, {"raises": seen["raises"]}
    if not expected:
        expected["raises"] = "an exception"
    column = next((key for key in names if key in seen), "lr")
    actual = {column: seen[column]}
    followed = {DESCRIPTIONS[name].partition(",")[0] for name in judged["left"]}
    if len(followed) == 1:
        actual["until then"] = followed.pop()
    return expected, actual
