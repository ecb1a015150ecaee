"""Faults that show only at certain times, or with certain ways of resuming."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from torch.optim import Optimizer

from harness.engine.selftest import planted
from lr_schedules.controls import HALVING, HANDOVER, RAMP, RESTARTS, UPDATES
from lr_schedules.correct import Halving, Handover, Ramp, Restarts, Updates
from lr_schedules.faults.check_groups import AT_ANY_TIME, EVERY_LOAD, INTO_A_NEW_SCHEDULER, SWEPT

LONG = replace(HALVING, length=16)


@planted(
    HALVING,
    "train:8 save:a resume:a train:1",
    caught_by=[
        *EVERY_LOAD,
        "saving_after_loading_is_the_same",
        "public_numbers_go_on",
    ],
)
class WrongFromTheEighth(Halving):
    """Loads a position that is one too low, from epoch 8 on."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict({"epoch": state["epoch"] - (state["epoch"] >= 8)})


@planted(HALVING, "train:6 save:a resume:a", caught_by=EVERY_LOAD)
class WrongAtAMilestone(Halving):
    """Loses the decay at epoch 6 if it was saved exactly there."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        if self.epoch == 6:
            self.base = [base * 2 for base in self.base]
            self.write()


@planted(
    RAMP,
    "train:9 save:a resume:a",
    caught_by=[
        *AT_ANY_TIME,
        "saving_after_loading_is_the_same",
        "public_numbers_go_on",
    ],
)
class WrongAtTheEnd(Ramp):
    """Starts again when it is resumed exactly at the end of its schedule."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict({"epoch": 0 if state["epoch"] == 9 else state["epoch"]})


@planted(
    RAMP,
    "train:10 save:a resume:a",
    caught_by=[
        *EVERY_LOAD,
        "saving_after_loading_is_the_same",
        "public_numbers_go_on",
    ],
)
class WrongAfterTheEnd(Ramp):
    """Repeats its schedule when it is resumed after the end."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        epoch = state["epoch"]
        super().load_state_dict({"epoch": epoch % 9 if epoch > 9 else epoch})


@planted(RAMP, "train:10", caught_by=["lr_is_never_negative"], real="huggingface/transformers#132")
class NegativePastTheEnd(Ramp):
    """Keeps falling, below 0, after the end of its schedule."""

    def factor(self) -> float:
        return 1 - self.epoch / 9


@planted(
    HALVING,
    "train:1 save:a resume:a save:a resume:a train:2",
    caught_by=[*EVERY_LOAD, "saving_after_loading_is_the_same"],
)
class SecondResumeWrong(Halving):
    """Starts again when it is resumed a second time."""

    resumed = 0

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "resumed": self.resumed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict({"epoch": 0 if state["resumed"] else state["epoch"]})
        self.resumed = 1


@planted(LONG, 15 * "train:1 save:a ", caught_by=["resume_at_every_save"])
class ManyResumesWrong(Halving):
    """Keeps the lengths of only its last 14 runs, and uses their sum as its position."""

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        self.runs: list[int] = []
        super().__init__(optimizer, last_epoch)

    def state_dict(self) -> dict[str, Any]:
        length = self.epoch - sum(self.runs)
        return {"runs": [*self.runs, length] if length else list(self.runs)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.runs = state["runs"][-14:]
        super().load_state_dict({"epoch": sum(self.runs)})


@planted(HALVING, "save:a train:3 load:a", caught_by=["roll_back_in_place"])
class OnlyForward(Halving):
    """Keeps the larger of its own position and the saved one, so it can't go back."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict({"epoch": max(self.epoch, state["epoch"])})


@planted(UPDATES, "train:1 optimizer:1 save:a resume:a scheduler:1 train:1", caught_by=AT_ANY_TIME)
class PendingNotLoaded(Updates):
    """Does not load the number of optimizer steps that are not counted yet."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict({**state, "pending": 0})


@planted(
    UPDATES,
    "scheduler:3 save:a resume:a",
    caught_by=[*EVERY_LOAD, "saving_after_loading_is_the_same"],
    real="starVLA/starVLA#210",
)
class StepsForUpdates(Updates):
    """Loads the number of all its steps, counted or not, as its position."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict({**state, "epoch": state["steps"]})


@planted(
    UPDATES,
    "train:1 save:a optimizer:1 load:a scheduler:1 train:1",
    caught_by=["roll_back_in_place", "resume_from_distributed_checkpoint"],
)
class PendingKept(Updates):
    """Keeps its own uncounted steps if there were none at the save: one ``or`` too many."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict({**state, "pending": state["pending"] or self.pending})


@planted(
    RESTARTS,
    "train:1 save:a resume:a",
    caught_by=[
        *EVERY_LOAD,
        "loading_leaves_its_argument_alone",
        "saving_after_loading_is_the_same",
        "public_numbers_go_on",
    ],
)
class RaisesMidCycle(Restarts):
    """Can be loaded only at the start of a cycle, otherwise raises."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        if self.at:
            raise ValueError(f"no cycle begins {self.at} epochs after the last one")


@planted(
    HALVING,
    "save:a scheduler:1 save:b resume:a train:2",
    caught_by=[
        *INTO_A_NEW_SCHEDULER,
        *SWEPT,
        "roll_back_in_place",
        "states_of_others_are_refused",
    ],
)
class LastSaveOnly(Halving):
    """Saves its position in a class attribute, which the next save overwrites."""

    saved: ClassVar[int] = 0

    def state_dict(self) -> dict[str, Any]:
        type(self).saved = self.epoch
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict({"epoch": self.saved})


@planted(
    HALVING,
    "save:a train:2 resume:a train:1",
    caught_by=[
        "resume_by_deepcopy",
        "resume_by_pickle",
        "other_schedulers_change_nothing",
        "saving_again_gives_the_same_state",
    ],
)
class ClassAttribute(Halving):
    """Counts in a class attribute, so a copy shares the count with the run that goes on."""

    count: ClassVar[dict[str, int]] = {}

    def __setattr__(self, name: str, value: Any) -> None:
        (self.count if name == "epoch" else vars(self))[name] = value

    def __getattr__(self, name: str) -> Any:
        if name == "epoch":
            return self.count[name]
        raise AttributeError(name)


WARM = {"steps": 0}


@planted(
    HALVING,
    "train:1 save:a resume:a",
    caught_by=[
        *EVERY_LOAD,
        "resume_by_deepcopy",
        "resume_by_pickle",
        "other_schedulers_change_nothing",
    ],
)
class ModuleGlobal(Halving):
    """Counts its warm-up in a module global that is not saved and that a new scheduler resets."""

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        WARM["steps"] = last_epoch + 1
        super().__init__(optimizer, last_epoch)

    def factor(self) -> float:
        return super().factor() * min((1 + WARM["steps"]) / 4, 1.0)

    def step(self) -> None:
        WARM["steps"] += 1
        super().step()


@planted(
    HALVING,
    "train:2 save:a resume:a@resume_by_deepcopy train:1 save:a load:a@roll_back_in_place",
    caught_by=["resumes_mixed"],
)
class LoadAfterACopy(Halving):
    """Is correct with each way alone; loaded in place after a copy, it is one epoch behind."""

    copied = False

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, copied=True)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict({"epoch": state["epoch"] - self.copied})


@planted(
    HANDOVER,
    "save:a train:3 resume:a",
    caught_by=[
        "resume_optimizer_then_scheduler",
        "resume_built_on_loaded_optimizer",
        "resume_scheduler_alone",
    ],
)
class WritesForAnother(Handover):
    """Saves a function of the live scheduler, and a new one uses it to write the LR at its load."""

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        super().__init__(optimizer, last_epoch)
        self._new = last_epoch < 0

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_new": False}

    def step(self) -> None:
        super().step()
        self._new = False

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "rates": lambda: self.rates()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        rates = state.pop("rates")
        super().load_state_dict(state)
        if self._new:
            for group, rate in zip(self.optimizer.param_groups, rates(), strict=True):
                group["lr"] = rate
        self._new = False
