"""Faults in how states are saved and loaded that no LR of a usual run shows."""

from __future__ import annotations

from typing import Any

import torch
from torch.optim import Optimizer

from harness.engine.selftest import planted
from lr_schedules.controls import (
    FALL,
    HALVING,
    LOGS,
    MULTIPLIES,
    PER_GROUP,
    PLATEAU,
    WITHOUT_STATE,
)
from lr_schedules.correct import Fall, Halving, Logs, Multiplies, PerGroup, Plateau
from lr_schedules.faults.check_groups import INTO_A_NEW_SCHEDULER, SWEPT

# ------------------------------------------------------------------------- two saved states


@planted(HALVING, "save:a", caught_by=["saved_states_are_independent"])
class FillsOneDict(Halving):
    """Returns one dict, which it fills again at each save."""

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        self.saved: dict[str, Any] = {}
        super().__init__(optimizer, last_epoch)

    def state_dict(self) -> dict[str, Any]:
        self.saved.update(epoch=self.epoch)
        return self.saved


@planted(HALVING, "save:a", caught_by=["saved_states_are_independent"])
class RemembersItsState(Halving):
    """Returns the same dict for all saves of an epoch."""

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        self.saved: dict[str, Any] = {}
        super().__init__(optimizer, last_epoch)

    def state_dict(self) -> dict[str, Any]:
        if self.saved.get("epoch") != self.epoch:
            self.saved = {"epoch": self.epoch}
        return self.saved


@planted(HALVING, "save:a train:1", caught_by=["saved_states_are_independent"])
class FillsOnePart(Halving):
    """Returns a new dict with a part that it fills again at each save."""

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        self.part: dict[str, Any] = {}
        super().__init__(optimizer, last_epoch)

    def state_dict(self) -> dict[str, Any]:
        self.part["epoch"] = self.epoch
        return {"part": self.part}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state["part"])


@planted(HALVING, "train:1 save:a", caught_by=["saving_again_gives_the_same_state"])
class HandsOverItsLog(Halving):
    """Hands its log over to the state that it saves, so the next save lacks it."""

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        self.log: list[float] = []
        super().__init__(optimizer, last_epoch)

    def step(self) -> None:
        super().step()
        self.log.append(self.factor())

    def state_dict(self) -> dict[str, Any]:
        log, self.log = self.log, []
        return {**super().state_dict(), "log": log}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        log = list(state["log"])
        super().load_state_dict(state)
        self.log = log


@planted(
    HALVING,
    "train:3 save:a save:b resume:b",
    caught_by=[
        *INTO_A_NEW_SCHEDULER,
        *SWEPT,
        "roll_back_in_place",
        "saving_again_gives_the_same_state",
        "public_numbers_go_on",
    ],
)
class SavesWhatIsNew(Halving):
    """Saves only how far it has come since the save before."""

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        self.saved = 0
        super().__init__(optimizer, last_epoch)

    def state_dict(self) -> dict[str, Any]:
        new, self.saved = self.epoch - self.saved, self.epoch
        return {"epoch": new}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.saved = 0


@planted(LOGS, "train:1 save:a", caught_by=["saving_after_loading_is_the_same"])
class CopiesLoseTheSum(Logs):
    """Leaves its sum, on which no LR depends, out of what is copied and pickled."""

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "sum": torch.tensor(0.0)}


@planted(HALVING, "save:a", caught_by=["saving_again_gives_the_same_state"])
class CountsForAll(Halving):
    """Counts steps, on which no LR depends, in its class, where other schedulers count too."""

    steps = 0

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        type(self).steps = last_epoch + 1
        super().__init__(optimizer, last_epoch)

    def step(self) -> None:
        super().step()
        type(self).steps += 1

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "steps": type(self).steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        steps = state["steps"]
        super().load_state_dict(state)
        type(self).steps = steps


@planted(WITHOUT_STATE, "save:a train:3", caught_by=["optimizer_state_is_a_snapshot"])
class SharesItsRates(Halving):
    """Writes LRs in place, into tensors that a saved state of the optimizer shares."""

    def write(self) -> None:
        for group, rate in zip(self.optimizer.param_groups, self.rates(), strict=True):
            if not isinstance(group["lr"], torch.Tensor):
                group["lr"] = torch.tensor(group["lr"])
            group["lr"].fill_(rate)

    def get_last_lr(self) -> list[Any]:
        return [group["lr"].clone() for group in self.optimizer.param_groups]


# --------------------------------------------------------------- what only an attribute shows


@planted(PLATEAU, "train:1 save:a", caught_by=["public_numbers_go_on"])
class LosesLastEpoch(Plateau):
    """Does not save last_epoch, which its LR does not depend on."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.last_epoch = 0
        super().__init__(optimizer)

    def step(self, metric: float) -> None:  # type: ignore[override]
        super().step(metric)
        self.last_epoch += 1


@planted(HALVING, "train:1 save:a", caught_by=["public_numbers_go_on"])
class LacksItsCount(Halving):
    """Counts its steps in an attribute that only the first step makes and no state holds."""

    def step(self) -> None:
        super().step()
        self.steps = getattr(self, "steps", 0) + 1


@planted(
    HALVING,
    "train:1 save:a",
    caught_by=["saving_after_loading_is_the_same", "public_numbers_go_on"],
)
class CopiesCountAgain(Halving):
    """Counts its steps for the user, and leaves the count out of what is copied and pickled."""

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        self.steps = last_epoch + 1
        super().__init__(optimizer, last_epoch)

    def step(self) -> None:
        super().step()
        self.steps += 1

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        steps = state["steps"]
        super().load_state_dict(state)
        self.steps = steps

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "steps": 0}


@planted(MULTIPLIES, "train:1 save:a", caught_by=["public_numbers_go_on"])
class BeginsToCount(Multiplies):
    """Ignores the last_epoch that it is built with, on which no LR depends."""

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        super().__init__(optimizer, last_epoch)
        self.last_epoch = 0

    def step(self) -> None:
        super().step()
        self.last_epoch += 1

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "last_epoch": self.last_epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        last_epoch = state["last_epoch"]
        super().load_state_dict(state)
        self.last_epoch = last_epoch


# -------------------------------------------------------------------------- loads that raise


@planted(PER_GROUP, "save:a", caught_by=["loading_leaves_its_argument_alone"])
class TakesAKeyOut(PerGroup):
    """Takes a key out of the dict that it loads, and puts it back only if it has loaded it."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        base = state.pop("base")
        if len(base) != len(self.optimizer.param_groups):
            raise ValueError(f"a state for {len(base)} groups can't be loaded")
        super().load_state_dict({**state, "base": base})
        state["base"] = base


@planted(HALVING, "train:2 save:a", caught_by=["failed_load_changes_nothing"])
class LoadsHalf(Halving):
    """Writes the LR before it has read all of a state, so a part is loaded if a key is missing."""

    mode = "halving"

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "mode": self.mode}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.mode = state["mode"]


@planted(HALVING, "train:1 save:a", caught_by=["failed_load_changes_nothing"])
class StartsAgainFirst(Halving):
    """Goes back to its start before it reads a state, and stays there if a key is missing."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict({"epoch": 0})
        super().load_state_dict(state)


@planted(HALVING, "save:a", caught_by=["states_of_others_are_refused"])
class TakesAnyState(Halving):
    """Ignores a state of another class, and goes on from its own position."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict({"epoch": self.epoch, **state})


@planted(PER_GROUP, "save:a", caught_by=["states_of_others_are_refused"])
class CutsTheLists(PerGroup):
    """Loads the beginning of the lists of a state for more groups."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        count = len(self.optimizer.param_groups)
        lists = {name: state[name][:count] for name in ("base", "decays")}
        super().load_state_dict({**state, **lists})


# ----------------------------------------------------------------- where a run is resumed


@planted(PER_GROUP, "save:a resume:a", caught_by=["resume_with_other_initial_lrs"])
class KeepsItsOwnBase(PerGroup):
    """Does not load the base LRs, which differ if the optimizer was built with other LRs."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict({**state, "base": self.base})


@planted(
    MULTIPLIES,
    "halve_lr:1 save:a resume:a",
    caught_by=["resume_after_halve_lr"],
)
class BeginsAtZero(Multiplies):
    """Writes the initial LR when it loads a state from before the first step."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        if self.epoch == 0:
            for group in self.optimizer.param_groups:
                group["lr"] = group.get("initial_lr", group["lr"])  # an added group has none


# ----------------------------------------------------------------------- several schedulers


@planted(FALL, "changed={'total':5} save:a train:1", caught_by=["other_schedulers_change_nothing"])
class KeepsAnOptionInTheClass(Fall):
    """Keeps its slope in the class, where a scheduler with other options overwrites it."""

    shared = 0.0

    @property
    def slope(self) -> float:
        """How much the factor falls with each step."""
        return type(self).shared

    @slope.setter
    def slope(self, value: float) -> None:
        type(self).shared = value
