"""One run of one trace, compared at every step with the uninterrupted run."""

from __future__ import annotations

import functools
import importlib
import io
import math
import pickle
import time
import types
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn, TypeVar

from torch.optim import Optimizer

from harness.checks.registry import checks_used, checks_using_save
from harness.core.check import Check
from harness.core.errors import CheckError, SubjectError, TimeLimit
from harness.core.guard import end_if_forked
from harness.core.operations import (
    GO_BACK,
    LETTER,
    STEPS,
    Operation,
    branches,
    epochs,
    gradients,
    groups_added,
    is_needed_again,
    operations_of,
    perform,
    with_groups,
)
from harness.core.run import Difference, Looked, Observation, Role, Run, Seen, Tally, same
from harness.core.trace import Trace
from harness.core.training_loop import (
    StateRefused,
    describe,
    differences,
    observe,
    plain,
    restore_parameters,
    snapshot,
    step_scheduler,
)
from harness.core.types import Checkpoint, OptimizerAndScheduler, Save, Scheduler
from harness.engine.other_process_main import Reply
from harness.subjects.mistakes import advised, wrong_rates, wrong_result
from harness.subjects.subject import Bound


@dataclass(frozen=True)
class Outcome:
    """What a run of one trace showed; `ended` says why it stopped before the end, if it did.

    `refused` says whether it stopped because the state can't be saved in the check's format, and
    `differs_there` whether it did because even the uninterrupted run differs in another process.
    `behaviour` says which option won, if options changed (see `harness.checks.changed_options`).
    `tally` is what the run tried.
    """

    difference: Difference | None = None
    ended: str = ""
    refused: bool = False
    differs_there: bool = False
    behaviour: str = ""
    tally: Tally = field(default_factory=Tally)


@dataclass(frozen=True)
class UninterruptedRun:
    """The observations of an uninterrupted run along a path, at its start and after every step.

    `raises` is the exception that ended it, in one line.
    """

    path: str
    observations: Sequence[Observation]
    raises: str = ""

    @property
    def error(self) -> str:
        """Why it ended early; empty if it did not."""
        return self.raises and f"the uninterrupted run raises {self.raises}"

    @property
    def epochs(self) -> int:
        """The number of scheduler steps it made."""
        return epochs(self.path[: len(self.observations) - 1])

    def run(self, length: int, role: Role = Role.UNINTERRUPTED, name: str = "") -> Run:
        """Its first `length` steps as a `Run`."""
        raises = self.raises if len(self.observations) <= length else ""
        return run_along(self.path, self.observations[: length + 1], role, name, raises)


def run_along(
    path: str, observations: Sequence[Observation], role: Role, name: str,
    raises: str = "", first: int = 0,
) -> Run:  # fmt: skip
    """Observations along a path, from its step `first` on, as a `Run`."""
    words = ["", *(f"{op.kind}:1" for letter in path for op in operations_of(letter))]
    seen = tuple(
        Seen(words[position], epochs(path[:position]), values)
        for position, values in enumerate(observations, first)
        if "raises" not in values
    )
    if not raises and observations:
        raises = str(observations[-1].get("raises", ""))
    return Run(role, seen, raises, name)


class _PlainPickler(pickle.Pickler):
    """Pickles numbers, strings, lists, tuples, sets and dicts; raises `TypeError` for all else."""

    def reducer_override(self, value: object) -> NoReturn:
        raise TypeError(f"{type(value).__name__} is not plain")


def _pickled(saved: Checkpoint) -> bytes:
    """The pickle of `saved`, or ``b""`` if something in it is not plain.

    Loading it takes a sixth of the time of a deep copy.
    """
    file = io.BytesIO()
    try:
        _PlainPickler(file, pickle.HIGHEST_PROTOCOL).dump(saved)
    except (TypeError, RecursionError):
        return b""
    return file.getvalue()


@dataclass(frozen=True)
class Slot:
    """What was saved to a slot, and the path of the run up to the save."""

    path: str
    saved: dict[Save, Checkpoint]
    shared: dict[Save, Checkpoint] = field(default_factory=dict)
    pickles: dict[Save, bytes] = field(default_factory=dict)

    def checkpoint(self, save: Save) -> Checkpoint:
        """A copy of what `save` returned, without copies of the parameters: they are only read."""
        saved = self.saved[save]
        parts = {name: part for name, part in saved.items() if name != "parameters"}
        if save not in self.pickles:
            self.pickles[save] = _pickled(parts)
        pickled = self.pickles[save]
        return {**saved, **(pickle.loads(pickled) if pickled else snapshot(parts))}


class Stop(Exception):
    """Ends a run with an outcome."""

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome


Made = TypeVar("Made")
MAX_RUNS = 200
"""The most uninterrupted runs that a `Runner` keeps."""
WITH_HOOKS = getattr(Optimizer, "profile_hook_step", None)
"""Calls an optimizer's hooks before and after its step, since torch 2.1."""
HOOKS = ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks")
GLOBAL_HOOKS = [
    getattr(importlib.import_module(Optimizer.__module__), f"_global_optimizer_{when}_hooks", {})
    for when in ("pre", "post")
]


def _torch_name(optimizer: Optimizer) -> str:
    """The name of an optimizer's class, or of the class of torch that it is made from."""
    classes = type(optimizer).__mro__
    ours = (each for each in classes if each.__module__.startswith("torch.optim."))
    return next((each.__name__ for each in ours if each is not Optimizer), classes[0].__name__)


def _pass(optimizer: Optimizer, *arguments: object) -> None:
    pass


def _compute_nothing(optimizer: Optimizer, *arguments: object) -> None:
    """Takes the place of an optimizer's ``step``: calls the hooks alone."""
    hooks = [*GLOBAL_HOOKS, *(getattr(optimizer, name, None) for name in HOOKS)]
    if WITH_HOOKS is not None and any(hooks):
        WITH_HOOKS(_pass)(optimizer, *arguments)


class Runner:
    """What the runs of one bound subject share: its uninterrupted runs and the time limit.

    `deadline` is a reading of ``time.monotonic()`` after which a run ends with `TimeLimit`.
    What `left_out` names is not compared: "weights", "get_last_lr". Unless `compute`, the steps of
    optimizers compute nothing, and weights are left out.
    `resume_python` is the interpreter for what runs in another process; empty means this one.
    """

    def __init__(
        self,
        bound: Bound,
        *,
        deadline: float = math.inf,
        left_out: Collection[str] = (),
        compute: bool = True,
        resume_python: str = "",
    ) -> None:
        self.bound = bound
        self.deadline = deadline
        self.left_out = frozenset(left_out) | (set() if compute else {"weights"})
        self.compute = compute
        self.resume_python = resume_python
        # These two are filled by `harness.engine.other_process`, and empty if nothing runs there.
        self.texts: dict[Check, str] = {}
        """The module that is sent to another process, for each check."""
        self.runs_there: dict[tuple[Check, str], Reply] = {}
        """Uninterrupted runs in the other process, by check and path."""
        self.optimizers: set[tuple[str, int]] = set()
        """The class of each optimizer that was started with, and its number of groups."""
        self._runs: dict[str, UninterruptedRun] = {}

    def start(self) -> OptimizerAndScheduler:
        """A new optimizer and a new scheduler.

        Raises `SubjectError` if they can't be built, or are not an optimizer and a scheduler.
        """
        name = self.bound.subject.name
        optimizer = self._make("optimizer", self.new_optimizer)
        if not hasattr(optimizer, "param_groups") or not hasattr(optimizer, "step"):
            raise SubjectError(
                f"subject {name}: optimizer() must return a torch optimizer (got {optimizer!r:.80})"
            )
        scheduler = self._make("build", self.bound.build, optimizer)
        if wrong := wrong_result(self.bound.subject.build, scheduler) or wrong_rates(optimizer):
            raise SubjectError(f"subject {name}: {wrong}")
        if self.bound.subject.step is step_scheduler and not hasattr(scheduler, "step"):
            raise SubjectError(
                f"subject {name}: build must return a scheduler, with a step() "
                f"(got {scheduler!r:.80})"
            )
        self.note_optimizer(optimizer)
        return optimizer, scheduler

    def note_optimizer(self, optimizer: Optimizer) -> None:
        """Count an optimizer among those of the runs."""
        self.optimizers.add((_torch_name(optimizer), len(optimizer.param_groups)))

    def new_optimizer(self) -> Optimizer:
        """A new optimizer."""
        optimizer = self.bound.new_optimizer()
        if not self.compute and isinstance(optimizer, Optimizer):
            vars(optimizer)["step"] = types.MethodType(_compute_nothing, optimizer)
        return optimizer

    def _make(self, what: str, function: Callable[..., Made], *arguments: object) -> Made:
        try:
            made = function(*arguments)
            end_if_forked()
            return made
        except (Exception, SystemExit) as error:
            raise SubjectError(
                f"subject {self.bound.subject.name}: {what} raised "
                f"{advised(self.bound.subject.build, error)}"
            ) from error

    def uninterrupted(self, path: str) -> UninterruptedRun:
        """The uninterrupted run along `path`; run from scratch unless it was run before."""
        for known in self._runs.values():
            if known.path.startswith(path):
                return known
        return self._kept(self._run_uninterrupted(path))

    def watched(self, path: str, goes_on: Callable[[Scheduler], bool]) -> UninterruptedRun:
        """The uninterrupted run along `path`, or to the step after which `goes_on` returns False.

        `goes_on` is called with the scheduler after each step. What it raises ends the run.
        """
        return self._kept(self._run_uninterrupted(path, goes_on))

    def _kept(self, run: UninterruptedRun) -> UninterruptedRun:
        if len(self._runs) >= MAX_RUNS:
            longest = max(self._runs.values(), key=lambda each: len(each.path))
            self._runs = {longest.path: longest}
        self._runs[run.path] = run
        return run

    def _run_uninterrupted(
        self, path: str, goes_on: Callable[[Scheduler], bool] | None = None
    ) -> UninterruptedRun:
        self.check_time()
        run = GrowingRun(self)
        for letter in path:
            if not run.step(letter):
                return UninterruptedRun(path, run.seen, run.raises)
            try:
                if goes_on is not None and not goes_on(run.scheduler):
                    break
            except (Exception, SystemExit) as error:  # it asks the scheduler for its state
                return UninterruptedRun(path, run.seen, describe(error))
        return UninterruptedRun(path[: len(run.seen) - 1], run.seen)

    def first_observation(self, optimizer: Optimizer, scheduler: Scheduler) -> Observation:
        """What a new optimizer will use; raises `SubjectError` if that can't be read."""
        return self._make("reading the optimizer", observe, optimizer, scheduler)

    def uninterrupted_runs(self, trace: Trace) -> list[UninterruptedRun]:
        """The uninterrupted run to compare each operation of `trace` with."""
        paths = branches(trace.operations)
        by_path = {
            path: self.uninterrupted(path) for path in sorted(set(paths), key=len, reverse=True)
        }
        return [by_path[path] for path in paths]

    def check_time(self) -> None:
        """Raise `TimeLimit` after the deadline."""
        end_if_forked()
        if time.monotonic() > self.deadline:
            raise TimeLimit


class GrowingRun:
    """An uninterrupted run that goes on step by step; `seen` are its observations so far.

    `raises` is the exception that ended it, in one line. Raises `SubjectError` if it can't start.
    """

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.path = ""
        self.raises = ""
        self.index = self.epoch = 0
        self.optimizer, self.scheduler = runner.start()
        self.seen = [runner.first_observation(self.optimizer, self.scheduler)]

    def step(self, letter: str) -> bool:
        """Make one step; False if it raises."""
        try:
            self.index, self.epoch = perform(
                letter, self.optimizer, self.scheduler, self.index, self.epoch,
                self.runner.bound.step,
            )  # fmt: skip
            end_if_forked()
            self.seen.append(observe(self.optimizer, self.scheduler))
        except (Exception, SystemExit) as error:
            self.raises = describe(error)
            return False
        self.path += letter
        return True


class LiveRun:
    """Does one operation after the other, and compares each with the uninterrupted run.

    The check of each operation is the one that saves or resumes there. An operation raises `Stop`
    where the run differs or can't go on.
    """

    def __init__(self, runner: Runner, check: Check) -> None:
        self.runner = runner
        self.bound = runner.bound
        self.check = check
        self.operations: list[Operation] = []
        self.checks_used: list[Check] = []
        self.uninterrupted: list[UninterruptedRun] = []
        """What to compare each operation with."""
        self.left_out = runner.left_out
        self.optimizer: Any = None  # until it starts, or resumes here from another process
        self.scheduler: Any = None
        self.number = 0
        self.made = 0
        self.index = 0
        self.epoch = 0
        self.path = ""
        self.slots: dict[str, Slot] = {}
        self.latest: Checkpoint | None = None
        self.steps = 0
        self.resumes = 0
        self.comparisons = 0
        self.looked: set[int] = set()

    def start(self) -> None:
        """Build the optimizer and the scheduler, and the uninterrupted run to compare with."""
        self._reference = GrowingRun(self.runner)
        self.optimizer, self.scheduler = self.runner.start()
        self._look(self._reference.seen[0])

    def do(self, operation: Operation, check: Check) -> None:
        """Do an operation; `check` is the one that saves or resumes there."""
        path = self.path
        if operation.kind in GO_BACK:
            path = self.slots[operation.slot].path
        elif operation.count:
            path += LETTER[operation.kind] * operation.count
        self.operations.append(operation)
        self.checks_used.append(check)
        self.uninterrupted.append(self._along(path))
        self._do(len(self.operations) - 1)

    def _along(self, path: str) -> UninterruptedRun:
        """The uninterrupted run along `path`: the last one, if it goes on or led past here."""
        run = self._reference
        if not path.startswith(run.path) and not run.path.startswith(path):
            run = self._reference = GrowingRun(self.runner)
        for letter in path[len(run.path) :]:
            if run.raises or not run.step(letter):
                break
        return UninterruptedRun(path, run.seen, run.raises)

    @property
    def tally(self) -> Tally:
        """What was tried so far."""
        looked = Looked(frozenset(self.looked), frozenset(self.runner.optimizers))
        return Tally(1, self.steps, self.resumes, self.comparisons, looked)

    def _saving(self) -> Sequence[Check]:
        """The checks that may resume from what this operation saves."""
        return [self.checks_used[self.number]]

    def _last_use(self) -> bool:
        """Whether no later operation resumes from the slot of this one."""
        return False

    def _do(self, number: int) -> None:
        """Perform the operation with this index."""
        operation = self.operations[number]
        self.number = number
        self.runner.check_time()
        self.made = 0
        if operation.kind in STEPS:
            self._steps(LETTER[operation.kind], operation.count)
        elif operation.kind == "save":
            self._save(operation.slot)
        else:
            self._go_back(self.slots[operation.slot], self.checks_used[number])

    def _steps(self, letter: str, count: int) -> None:
        uninterrupted = self.uninterrupted[self.number]
        observations = uninterrupted.observations
        position = len(self.path)
        step = self.bound.step
        at_step = self.check.at == "step"
        for _ in range(count):
            position += 1
            it_ended = position >= len(observations)  # the uninterrupted run raised before this
            if it_ended and self.check.compares == "values":
                raise Stop(Outcome(ended=uninterrupted.error))
            expected: Observation = (
                {"raises": uninterrupted.raises} if it_ended else observations[position]
            )
            self.steps += 1
            self.made += 1
            try:
                self.index, self.epoch = perform(
                    letter, self.optimizer, self.scheduler, self.index, self.epoch, step
                )
                end_if_forked()
                seen = observe(self.optimizer, self.scheduler)
            except (Exception, SystemExit) as error:
                if it_ended and describe(error) == uninterrupted.raises:
                    # If the trace ends here, there is nothing to report: both raise the same.
                    left = self.made < count or self.number + 1 < len(self.operations)
                    raise Stop(Outcome(ended=uninterrupted.error if left else "")) from None
                self._raised(error, expected)
            self.path += letter
            self._saw(seen)
            if it_ended:
                actual = {key: seen[key] for key in seen if key != "weights"}
                raise Stop(Outcome(Difference(self.number, self.made, expected, actual)))
            if seen != expected:
                self._differs(expected, seen)
            if at_step:
                self._values()

    def _look(self, expected: Observation) -> None:
        """Compare what the optimizer would use for its next step."""
        try:
            seen = observe(self.optimizer, self.scheduler)
        except (Exception, SystemExit) as error:
            self._raised(error, expected)
        self._saw(seen)
        if seen != expected:
            self._differs(expected, seen)
        if self.check.at == "step":
            self._values()

    def _saw(self, seen: Observation) -> None:
        """Do nothing; a subclass gets every observation here."""

    def _save(self, slot: str) -> None:
        expected = self._expected()
        saved: dict[Save, Checkpoint] = {}
        try:
            for resuming in self._saving():
                if resuming.save not in saved:
                    saved[resuming.save] = resuming.save(self.optimizer, self.scheduler, self.epoch)
        except StateRefused as error:
            raise Stop(Outcome(ended=str(error), refused=True)) from None
        except (Exception, SystemExit) as error:
            self._raised(error, expected)
        self.slots[slot] = Slot(self.path, saved)
        self.latest = saved.get(self.check.save)
        if self.check.at == "save":
            if self.check.compares == "values":
                self._values()
            else:
                self.looked.add(self.epoch)
                if self.check.kind == "resume":
                    self.resumes += 1
                else:
                    self.comparisons += 1
                self._follow(self.check, saved[self.check.save])
        self._look(expected)

    def _go_back(self, slot: Slot, route: Check) -> None:
        self.path = slot.path
        self.index = gradients(self.path)
        self.epoch = epochs(self.path)
        self._leave_out_weights(route)
        if route.same_dict:
            if route.save not in slot.shared:
                slot.shared[route.save] = snapshot(slot.saved[route.save])
            shared = slot.shared[route.save]
            checkpoint = {
                name: part if name == "scheduler" else snapshot(part)
                for name, part in shared.items()
            }
        elif self._last_use():
            checkpoint = slot.saved[route.save]
        else:
            checkpoint = slot.checkpoint(route.save)
        self.resumes += 1
        self.looked.add(self.epoch)
        self._follow(route, checkpoint)
        self._look(self._expected())

    def _follow(self, check: Check, checkpoint: Checkpoint) -> None:
        """Go on with the optimizer and the scheduler that a check's route returns."""
        try:
            if check.load is not None:
                checkpoint = check.load(checkpoint)
            pair = self._call(check, checkpoint)
        except (Exception, SystemExit) as error:
            self._raised(error, self._expected())
        if not isinstance(pair, tuple) or len(pair) != 2 or not hasattr(pair[0], "param_groups"):
            raise CheckError(
                f"check {check.name} must return (optimizer, scheduler) (got {pair!r:.80})"
            )
        self.optimizer, self.scheduler = pair
        if check.kind == "resume":
            restore_parameters(self.optimizer, checkpoint)

    def _values(self) -> None:
        """Compare the two values that a state check returns: expected and actual."""
        if "checkpoint" in self.check.parameters and self.latest is None:
            return
        self.comparisons += 1
        self.looked.add(self.epoch)
        try:
            pair = self._call(self.check, self.latest)
        except (Exception, SystemExit) as error:
            self._raised(error, {"raises": "nothing"})
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise CheckError(
                f"check {self.check.name} must return (expected, actual) (got {pair!r:.80})"
            )
        expected, actual = map(plain, pair)
        if not same(expected, actual):
            raise Stop(Outcome(Difference(self.number, self.made, *differences(expected, actual))))

    def _call(self, check: Check, checkpoint: Checkpoint | None) -> object:
        new_optimizer = self.runner.new_optimizer
        if groups := groups_added(self.path):
            new_optimizer = functools.partial(with_groups, new_optimizer, groups)
        has = {
            "new_optimizer": new_optimizer,
            "build": self.bound.build,
            "step": self.bound.step,
            "checkpoint": checkpoint,
            "optimizer": self.optimizer,
            "scheduler": self.scheduler,
        }
        if "build_other" in check.parameters:
            has["build_other"] = self.bound.with_changed.build
        return check.function(**{name: has[name] for name in check.parameters})

    def _leave_out_weights(self, route: Check) -> None:
        """Compare no weights from here on if the check gives the optimizer no state."""
        if not route.weights:
            self.left_out = self.left_out | {"weights"}

    def _expected(self) -> Observation:
        return self.uninterrupted[self.number].observations[len(self.path)]

    def _differs(self, expected: Observation, seen: Observation) -> None:
        """Stop at a real difference in what is not left out; nan equals nan.

        A check that compares values does not look at the trajectory.
        """
        if self.check.compares == "values":
            return
        if self.left_out:
            expected, seen = (
                {name: values[name] for name in values if name not in self.left_out}
                for values in (expected, seen)
            )
        if not same(expected, seen):
            raise Stop(Outcome(Difference(self.number, self.made, *differences(expected, seen))))

    def _raised(self, error: BaseException, expected: Observation) -> NoReturn:
        expected = {key: expected[key] for key in ("lr", "raises") if key in expected}
        actual: Observation = {"raises": describe(error)}
        raise Stop(Outcome(Difference(self.number, self.made, expected, actual))) from error


class TraceRun(LiveRun):
    """One run of one trace; raises `TraceError` if the check can't run it."""

    def __init__(self, runner: Runner, check: Check, trace: Trace) -> None:
        super().__init__(runner, check)
        self.trace = trace
        self.operations = list(trace.operations)
        self.checks_used = checks_used(check, trace)
        self.uninterrupted = runner.uninterrupted_runs(trace)

    def go(self) -> Outcome:
        """Run the trace; the outcome says where it first differs."""
        outcome = Outcome()
        try:
            self._run()
        except Stop as stop:
            outcome = stop.outcome
        return replace(outcome, tally=self.tally)

    def _run(self) -> None:
        self._start()
        for number in range(len(self.operations)):
            self._do(number)

    def _start(self) -> None:
        self.optimizer, self.scheduler = self.runner.start()
        self._look(self.uninterrupted[0].observations[0])

    def _saving(self) -> Sequence[Check]:
        return checks_using_save(self.check, self.checks_used, self.operations, self.number)

    def _last_use(self) -> bool:
        return not is_needed_again(self.operations, self.number)
