"""One run of one trace, compared at every step with the uninterrupted run."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from harness.core.check import Check
from harness.core.errors import CheckError
from harness.core.operations import (
    LETTER,
    STEPS,
    epochs,
    gradients,
    groups_added,
    perform,
    with_groups,
)
from harness.core.run import Difference, same
from harness.core.trace import Trace
from harness.core.training_loop import (
    StateRefused,
    describe,
    differences,
    observe,
    plain,
    restore_parameters,
    snapshot,
)

if TYPE_CHECKING:
    from harness.engine.runner import Runner
from collections.abc import Sequence

from harness.core.operations import unpath
from harness.core.run import Observation, Role, Run, Seen

__all__ = ["Outcome", "Reference", "Slot", "Stop", "TraceRun"]


@dataclass(frozen=True)
class Outcome:
    """What a run of one trace showed; `ended` says why it stopped before the end, if it did.

    `refused` says whether it stopped because the state can't be saved in the check's format.
    `reading` is the contract that it followed, if options changed
    (see `harness.checks.changed_options`).
    """

    broken: Difference | None = None
    ended: str = ""
    refused: bool = False
    reading: str = ""


@dataclass(frozen=True)
class Reference:
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
        words = ["", *(f"{op.kind}:1" for letter in self.path[:length] for op in unpath(letter))]
        seen = tuple(
            Seen(word, epochs(self.path[:place]), values)
            for place, (word, values) in enumerate(zip(words, self.observations, strict=False))
            if "raises" not in values
        )
        ended = len(self.observations) <= length
        return Run(role, seen, self.raises if ended else "", name)


@dataclass
class Slot:
    """What was saved to a slot, and the path of the run up to the save."""

    path: str
    saved: dict[Callable[..., Any], dict[str, Any]]
    shared: dict[Callable[..., Any], dict[str, Any]] = field(default_factory=dict)


class Stop(Exception):
    """Ends a run with an outcome."""

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome


class TraceRun:
    """One run of one trace."""

    def __init__(
        self,
        runner: Runner,
        check: Check,
        trace: Trace,
        routes: list[Check],
        references: list[Reference],
    ) -> None:
        self.runner = runner
        self.bound = runner.bound
        self.tally = runner.tally
        self.check = check
        self.trace = trace
        self.routes = routes
        self.references = references
        self.weights = runner.weights
        self.operation = 0
        self.made = 0
        self.index = 0
        self.epoch = 0
        self.path = ""
        self.slots: dict[str, Slot] = {}
        self.latest: dict[str, Any] | None = None

    def go(self) -> Outcome:
        """Run the trace; the outcome says where it first differs."""
        self.tally.traces += 1
        try:
            self._start()
            for number in range(len(self.trace.operations)):
                self._do(number)
        except Stop as stop:
            return stop.outcome
        return Outcome()

    def _start(self) -> None:
        self.optimizer, self.scheduler = self.runner.start()
        self._look(self.references[0].observations[0])

    def _do(self, number: int) -> None:
        """Perform the operation with this index."""
        operation = self.trace.operations[number]
        self.operation = number
        self.runner.check_time()
        self.made = 0
        if operation.kind in STEPS:
            self._steps(LETTER[operation.kind], operation.count)
        elif operation.kind == "save":
            self._save(operation.slot)
        else:
            self._go_back(self.slots[operation.slot], self.routes[number])

    def _steps(self, letter: str, count: int) -> None:
        reference = self.references[self.operation]
        observations = reference.observations
        position = len(self.path)
        step = self.bound.step
        at_step = self.check.at == "step"
        for _ in range(count):
            position += 1
            beyond = position >= len(observations)
            if beyond and self.check.compares == "values":
                raise Stop(Outcome(ended=reference.error))
            expected = {"raises": reference.raises} if beyond else observations[position]
            self.tally.steps += 1
            self.made += 1
            try:
                self.index, self.epoch = perform(
                    letter, self.optimizer, self.scheduler, self.index, self.epoch, step
                )
                seen = observe(self.optimizer, self.scheduler)
            except (Exception, SystemExit) as error:
                if beyond and describe(error) == reference.raises:
                    left = self.made < count or self.operation + 1 < len(self.trace.operations)
                    raise Stop(Outcome(ended=reference.error if left else "")) from None
                self._raised(error, expected)
            self.path += letter
            self._saw(seen)
            if beyond:
                actual = {key: seen[key] for key in seen if key != "weights"}
                raise Stop(Outcome(Difference(self.operation, self.made, expected, actual)))
            if seen != expected:
                self._differs(expected, seen)
            if at_step:
                self._values()

    def _look(self, expected: dict[str, Any]) -> None:
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

    def _saw(self, seen: dict[str, Any]) -> None:
        """A hook: gets what is observed at the start, after every step, save and resume."""

    def _save(self, slot: str) -> None:
        expected = self._expected()
        saved: dict[Callable[..., Any], dict[str, Any]] = {}
        try:
            for save in self._saves(slot):
                saved[save] = save(self.optimizer, self.scheduler, self.epoch)
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
                self._call_for_pair(self.check, saved[self.check.save])
                self.tally.resumes += 1
        self._look(expected)

    def _saves(self, slot: str) -> list[Callable[..., dict[str, Any]]]:
        """The save functions of the checks that will go back to this save."""
        if not self.check.mixes:
            return [self.check.save]
        saves: dict[Callable[..., dict[str, Any]], None] = {}
        for number in range(self.operation + 1, len(self.trace.operations)):
            later = self.trace.operations[number]
            if later.slot == slot and later.kind == "save":
                break
            if later.slot == slot:
                saves[self.routes[number].save] = None
        return list(saves)

    def _go_back(self, slot: Slot, route: Check) -> None:
        self.path = slot.path
        self.index = gradients(self.path)
        self.epoch = epochs(self.path)
        self.weights = self.weights and route.weights
        saved = slot.saved[route.save]
        if route.same_dict:
            shared = slot.shared.setdefault(route.save, snapshot(saved))
            checkpoint = {
                name: part if name == "scheduler" else snapshot(part)
                for name, part in shared.items()
            }
        else:
            checkpoint = snapshot(saved)
        self.tally.resumes += 1
        self._call_for_pair(route, checkpoint)
        self._look(self._expected())

    def _call_for_pair(self, check: Check, checkpoint: dict[str, Any]) -> None:
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
        self.tally.comparisons += 1
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
            raise Stop(
                Outcome(Difference(self.operation, self.made, *differences(expected, actual)))
            )

    def _call(self, check: Check, checkpoint: dict[str, Any] | None) -> Any:
        new_optimizer = self.bound.new_optimizer
        if groups := groups_added(self.path):
            new_optimizer = functools.partial(with_groups, new_optimizer, groups)
        has = {
            "new_optimizer": new_optimizer,
            "build": self.bound.build,
            "checkpoint": checkpoint,
            "optimizer": self.optimizer,
            "scheduler": self.scheduler,
        }
        return check.function(**{name: has[name] for name in check.parameters})

    def _expected(self) -> dict[str, Any]:
        return self.references[self.operation].observations[len(self.path)]

    def _differs(self, expected: dict[str, Any], seen: dict[str, Any]) -> None:
        """Stop at a real difference: weights count only if they are compared; nan equals nan.

        A check that compares values does not look at the trajectory.
        """
        if self.check.compares == "values":
            return
        if not self.weights:
            expected, seen = dict(expected), dict(seen)
            del expected["weights"], seen["weights"]
        if not same(expected, seen):
            raise Stop(Outcome(Difference(self.operation, self.made, *differences(expected, seen))))

    def _raised(self, error: BaseException, expected: dict[str, Any]) -> None:
        expected = {key: expected[key] for key in ("lr", "raises") if key in expected}
        actual = {"raises": describe(error)}
        raise Stop(Outcome(Difference(self.operation, self.made, expected, actual))) from error
