"""Faults in the checkpoint itself: shared objects, changed dicts, unsavable values, copies."""

from __future__ import annotations

import weakref
from dataclasses import replace
from typing import Any

import numpy
from torch.optim import Optimizer

from harness.engine.selftest import planted
from lr_schedules.controls import BARE, FALL, FROM_CALLABLE, HALVING, LOGS, TAGGED
from lr_schedules.correct import Bare, Cooling, Fall, FromCallable, Halving, Logs
from lr_schedules.faults.check_groups import EVERY_LOAD, INTO_A_NEW_SCHEDULER


@planted(LOGS, "save:a train:1", caught_by=["saved_state_is_a_snapshot"])
class AliasesItsList(Logs):
    """Returns its live list as part of its state."""

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "log": self.log}


@planted(
    LOGS, "save:a train:1", caught_by=["saved_state_is_a_snapshot"], real="pytorch/pytorch#196083"
)
class AliasesItsTensor(Logs):
    """Returns its live tensor as part of its state."""

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "sum": self.sum}


@planted(
    HALVING,
    "save:a train:1",
    caught_by=[
        "saved_state_is_a_snapshot",
        "saving_after_loading_is_the_same",
        "states_of_others_are_refused",
    ],
)
class AliasesTheOptimizer(Halving):
    """Returns the optimizer's live groups, with their parameters, as part of its state."""

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "groups": self.optimizer.param_groups}


@planted(LOGS, "save:a resume:a train:3 resume:a", caught_by=["resume_twice_from_one_dict"])
class KeepsTheGivenList(Logs):
    """Keeps writing into the list in the dict that it loaded."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.log = state["log"]


@planted(
    HALVING,
    "save:a resume:a resume:a",
    caught_by=["resume_twice_from_one_dict", "loading_leaves_its_argument_alone"],
    real="pytorch/pytorch#32756",
)
class EmptiesTheDict(Halving):
    """Removes its position from the dict that it loads."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict({"epoch": state.pop("epoch")})


@planted(HALVING, "save:a", caught_by=["loading_leaves_its_argument_alone"])
class MarksTheDict(Halving):
    """Adds a version to the dict that it loads."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        state.setdefault("version", 2)
        super().load_state_dict(state)


@planted(
    HALVING,
    "save:a train:2",
    caught_by=[
        *INTO_A_NEW_SCHEDULER,
        "roll_back_in_place",
        "saving_changes_nothing",
        "resume_from_distributed_checkpoint",
        "saving_again_gives_the_same_state",
        "public_numbers_go_on",
    ],
    real="pytorch/pytorch#164929",
)
class SavingIsAStep(Halving):
    """Counts a save as a step."""

    def state_dict(self) -> dict[str, Any]:
        self.epoch += 1
        return {"epoch": self.epoch - 1}


@planted(
    replace(HALVING, length=16),
    "train:3" + 16 * " save:a",
    caught_by=[
        "saving_changes_nothing",
        "resume_optimizer_then_scheduler",
        "resume_scheduler_then_optimizer",
        "resume_from_file",
        "roll_back_in_place",
        "resume_twice_from_one_dict",
        "resume_built_on_loaded_optimizer",
        "resume_scheduler_alone",
        "resume_from_legacy_file",
        "resume_from_json",
        "saving_again_gives_the_same_state",
        "public_numbers_go_on",
    ],
)
class ManySavesWrong(Halving):
    """Starts again at its sixteenth save."""

    _saves = 0

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        self._saves += 1
        if self._saves == 16:
            self.epoch = self._saves = 0
            self.write()
        return state


@planted(LOGS, "train:1 save:a", caught_by=["saving_after_loading_is_the_same"])
class DropsTheSum(Logs):
    """Does not load its sum, which does not affect the LR."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict({**state, "sum": self.sum})


@planted(
    FALL,
    "changed={'total':5} total=4 floor=0.25 save:a resume:a train:5",
    caught_by=["resume_with_changed_options"],
)
class SlopeOfTheNew(Fall):
    """Loads the saved options, but keeps the slope computed from those it was built with."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        slope = self.slope
        super().load_state_dict(state)
        self.slope = slope
        self.write()


@planted(
    FALL,
    "changed={'total':5} total=4 floor=0.25 "
    "save:a train:1 save:b resume:a train:1 resume:b train:1",
    caught_by=["resume_with_changed_options"],
)
class FirstResumeOnly(Fall):
    """Loads the saved options only if a step was made before the save."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["epoch"] == 0:
            state = {**state, "total": self.total, "floor": self.floor}
        super().load_state_dict(state)


@planted(
    FROM_CALLABLE, "train:1 save:a resume:a", caught_by=EVERY_LOAD, real="pytorch/pytorch#9927"
)
class CallableNotSaved(FromCallable):
    """Does not save the state of the callable that gives its factor."""

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "cooling": {}}


@planted(
    FROM_CALLABLE,
    "save:a resume:a",
    caught_by=["resume_from_file", "state_loads_with_weights_only"],
    real="pytorch/pytorch#98921",
)
class SavesAnObject(FromCallable):
    """Saves the callable itself, which ``weights_only`` refuses."""

    def state_dict(self) -> dict[str, Any]:
        cooling = Cooling()
        vars(cooling).update(vars(self.cooling))
        return {"epoch": self.epoch, "cooling": cooling}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict({**state, "cooling": vars(state["cooling"])})


@planted(TAGGED, "save:a", caught_by=["state_loads_with_weights_only"])
class SavesARange(Halving):
    """Saves a range, which ``weights_only`` refuses."""

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "past": range(self.epoch)}


@planted(HALVING, "save:a resume:a", caught_by=["resume_from_file"])
class NumPyRate(Halving):
    """Writes NumPy numbers into the groups, which ``weights_only`` then refuses to load."""

    def factor(self) -> Any:
        return numpy.float64(super().factor())


@planted(HALVING, "save:a", caught_by=["resume_by_pickle"])
class HoldsAWeakReference(Halving):
    """Holds a weak reference, which pickle refuses."""

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        self.owner = weakref.ref(optimizer)
        super().__init__(optimizer, last_epoch)


@planted(HALVING, "save:a resume:a train:3", caught_by=["resume_by_deepcopy"])
class CopySharesTheOptimizer(Halving):
    """Shares its optimizer with its copy."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        copied = type(self).__new__(type(self))
        vars(copied).update(vars(self))
        return copied


@planted(
    BARE,
    "train:1 save:a resume:a train:1",
    caught_by=[
        *(name for name in EVERY_LOAD if name not in BARE.declines),
        "resume_with_other_initial_lrs",
    ],
)
class BesideItsFunctions(Bare):
    """Keeps its factor in an attribute that its two state functions ignore."""

    scale = 1.0

    def step(self) -> None:
        self.scale /= 2
        for group, base in zip(self.optimizer.param_groups, self.base, strict=True):
            group["lr"] = base * self.scale


@planted(HALVING, "train:2", caught_by=["lr_is_finite"])
class IsNotANumber(Halving):
    """Has an LR that is NaN at its second epoch."""

    def factor(self) -> float:
        return float("nan") if self.epoch == 2 else super().factor()
