"""Faults in what is restored: the position, the base LRs, the options."""

from __future__ import annotations

from typing import Any

import torch
from torch.optim import Optimizer

from harness.engine.selftest import planted
from lr_schedules.controls import (
    CLOSED_FORM,
    HALVING,
    MILESTONES,
    MULTIPLIES,
    NOISE,
    PER_GROUP,
    PLATEAU,
    RESTARTS,
    TABLE,
)
from lr_schedules.correct import (
    ClosedForm,
    Halving,
    Milestones,
    Multiplies,
    Noise,
    PerGroup,
    Plateau,
    Restarts,
    Table,
    halved,
)
from lr_schedules.faults.check_groups import AT_ANY_TIME, EVERY_LOAD, LOADED_AFTER_OPTIMIZER


@planted(
    HALVING,
    "train:1 save:a resume:a train:2",
    caught_by=[*EVERY_LOAD, "public_numbers_go_on", "states_of_others_are_refused"],
    real="Lightning-AI/pytorch-lightning#11188",
)
class SavesNoPosition(Halving):
    """Does not save its position."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.write()


@planted(
    HALVING,
    "train:1 save:a resume:a train:2",
    caught_by=[
        *EVERY_LOAD,
        "saving_after_loading_is_the_same",
        "public_numbers_go_on",
        "states_of_others_are_refused",
    ],
    real="verl-project/verl#7953",
)
class LoadsNothing(Halving):
    """Saves its position but does not load it."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.write()


@planted(
    HALVING, "save:a train:3 load:a", caught_by=["roll_back_in_place"], real="NovaSky-AI/SkyRL#2214"
)
class LoadsADelta(Halving):
    """Adds the saved position to its own, so loading into a used scheduler is wrong."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch += state["epoch"]
        self.write()


@planted(
    HALVING,
    "save:a resume:a save:a resume:a train:1",
    caught_by=[
        *EVERY_LOAD,
        "saving_after_loading_is_the_same",
        "public_numbers_go_on",
    ],
    real="Lightning-AI/pytorch-lightning#1772",
)
class OffByOne(Halving):
    """Goes on from the epoch after the saved one, as if loading were a step."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict({"epoch": state["epoch"] + 1})


@planted(
    HALVING,
    "save:a resume:a save:a resume:a",
    caught_by=[
        *EVERY_LOAD,
        "saving_after_loading_is_the_same",
        "public_numbers_go_on",
    ],
)
class OffByOneNext(Halving):
    """Goes on from the epoch before the saved one, which shows one step later."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.epoch -= 1


@planted(
    HALVING,
    "train:3 save:a resume:a",
    caught_by=LOADED_AFTER_OPTIMIZER,
    real="huggingface/nanotron#256",
)
class BaseFromDecayed(Halving):
    """Uses the groups' LR, which is already decayed, as the base LR when it is loaded."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.base = [group["lr"] for group in self.optimizer.param_groups]
        super().load_state_dict(state)


@planted(
    HALVING,
    "train:3 save:a resume:a train:1",
    caught_by=[
        "resume_scheduler_then_optimizer",
        "resume_built_on_loaded_optimizer",
        "resume_scheduler_alone",
    ],
)
class BaseFromFactor(Halving):
    """Divides the groups' LR by the saved factor, which is right only after the optimizer loads."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        rates = [group["lr"] for group in self.optimizer.param_groups]
        self.base = [rate / halved(state["epoch"]) for rate in rates]
        super().load_state_dict(state)


@planted(
    PER_GROUP,
    "save:a resume:a",
    caught_by=[
        *EVERY_LOAD,
        "saving_after_loading_is_the_same",
        "resume_with_other_initial_lrs",
        "failed_load_changes_nothing",
    ],
    real="deepspeedai/DeepSpeed#7969",
)
class FirstGroupForAll(PerGroup):
    """Loads the first group's base LR for all groups."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict({**state, "base": state["base"][:1] * len(self.base)})


@planted(
    PER_GROUP,
    "save:a resume:a train:1",
    caught_by=[
        *EVERY_LOAD,
        "saving_after_loading_is_the_same",
        "resume_with_other_initial_lrs",
        "failed_load_changes_nothing",
    ],
)
class AnotherGroups(PerGroup):
    """Loads the decays sorted by size, so a group gets another group's decay."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict({**state, "decays": sorted(state["decays"], reverse=True)})


@planted(PER_GROUP, "save:a resume:a", caught_by=[*EVERY_LOAD, "resume_with_other_initial_lrs"])
class SavesInSinglePrecision(PerGroup):
    """Saves the base LRs in single precision, so the loaded ones are only almost right."""

    def state_dict(self) -> dict[str, Any]:
        base = torch.tensor(self.base, dtype=torch.float32).tolist()
        return {**super().state_dict(), "base": base}


@planted(HALVING, "train:3 save:a resume:a", caught_by=["resume_by_last_epoch"])
class IgnoresInitialLR(Halving):
    """Uses the groups' LR as the base LR when it is built with ``last_epoch``."""

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        if last_epoch >= 0:
            for group in optimizer.param_groups:
                group["initial_lr"] = group["lr"]
        super().__init__(optimizer, last_epoch)


@planted(
    HALVING,
    "train:3 save:a resume:a",
    caught_by=["resume_built_on_loaded_optimizer"],
    real="huggingface/nanotron#256",
)
class OverwritesInitialLR(Halving):
    """Overwrites ``initial_lr`` when it is built on an optimizer that was loaded."""

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        if last_epoch < 0:
            for group in optimizer.param_groups:
                group["initial_lr"] = group["lr"]
        super().__init__(optimizer, last_epoch)


@planted(
    MULTIPLIES,
    "train:1 save:a resume:a",
    caught_by=["resume_by_last_epoch"],
    real="pytorch/pytorch#102261",
)
class AppliesAgain(Multiplies):
    """Applies the last factor again when it is built with ``last_epoch``."""

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        super().__init__(optimizer, last_epoch)
        if last_epoch >= 0:
            self.epoch -= 1
            self.step()


@planted(
    CLOSED_FORM,
    "train:1 save:a resume:a",
    caught_by=["resume_by_last_epoch", "resume_by_initial_lr"],
)
class CountsItsSteps(ClosedForm):
    """Reads ``_step_count``, which starts again at 1 when ``last_epoch`` goes on."""

    def get_lr(self) -> list[Any]:
        return [base * self._step_count**-0.5 for base in self.base_lrs]


@planted(
    HALVING,
    "train:1 save:a resume:a train:2",
    caught_by=["resume_by_last_epoch", "resume_by_initial_lr"],
)
class StartsAnew(Halving):
    """Accepts ``last_epoch`` but does nothing with it."""

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        super().__init__(optimizer)


@planted(
    RESTARTS,
    "train:2 save:a resume:a train:1",
    caught_by=[
        *EVERY_LOAD,
        "saving_after_loading_is_the_same",
        "public_numbers_go_on",
    ],
    real="pytorch/pytorch#52911",
)
class OptionNotRefreshed(Restarts):
    """Does not load the length of the cycle, which changes during the run."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict({**state, "length": self.length})


@planted(
    RESTARTS,
    "train:2 save:a resume:a train:1",
    caught_by=[
        *EVERY_LOAD,
        "saving_after_loading_is_the_same",
        "public_numbers_go_on",
    ],
)
class OptionReset(Restarts):
    """Resets the length of the cycle to the initial one when it is loaded."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict({**state, "length": 2})


@planted(MILESTONES, "train:2 save:a resume:a", caught_by=EVERY_LOAD)
class MilestonesUsedUp(Milestones):
    """Does not save which milestones are left, so a new scheduler has all of them again."""

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict({**state, "left": self.left})


@planted(
    PLATEAU,
    "train:2 save:a resume:a train:2",
    caught_by=[*EVERY_LOAD, "saving_after_loading_is_the_same"],
    real="facebookresearch/fairseq#4071",
)
class BestLost(Plateau):
    """Does not load the best metric."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict({**state, "best": self.best})


@planted(
    PLATEAU,
    "train:3 save:a resume:a train:1",
    caught_by=[*AT_ANY_TIME, "saving_after_loading_is_the_same"],
    real="huggingface/pytorch-image-models#2756",
)
class PatienceLost(Plateau):
    """Starts counting bad metrics from 0 again when it is loaded."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict({**state, "bad": 0})


@planted(
    PLATEAU,
    "train:8 save:a resume:a train:2",
    caught_by=AT_ANY_TIME,
    real="huggingface/pytorch-image-models#2756",
)
class CooldownLost(Plateau):
    """Does not save how many epochs of cooldown are left."""

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        del state["cooldown"]
        return state


@planted(NOISE, "train:1 save:a resume:a train:1", caught_by=EVERY_LOAD)
class GeneratorNotSaved(Noise):
    """Does not save the state of its random generator."""

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "drawn": self.drawn}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict({**state, "random": self.random.getstate()})


@planted(
    TABLE,
    "table=[0.0,1.0] save:a resume:a",
    caught_by=[
        *AT_ANY_TIME,
        "saving_after_loading_is_the_same",
        "public_numbers_go_on",
    ],
)
class NextEntry(Table):
    """Goes on from the table entry after the saved one."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict({"epoch": state["epoch"] + 1})
