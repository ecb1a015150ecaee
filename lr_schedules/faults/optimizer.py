"""Faults in what a scheduler writes into its optimizer, reads from it, and reports."""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer

from harness.engine.selftest import planted
from lr_schedules.controls import DECAY, HALVING, MOMENTUM, NESTED, TENSOR_RATE
from lr_schedules.correct import DecaysWeights, Halving, Momentum, Nested, TensorRate
from lr_schedules.faults.check_groups import EVERY_LOAD, EVERY_LOAD_BUT_JSON, LOADED_AFTER_OPTIMIZER


@planted(
    NESTED,
    "save:a resume:a train:5",
    caught_by=[
        *EVERY_LOAD_BUT_JSON,
        "saved_state_is_a_snapshot",
        "state_loads_with_weights_only",
        "saving_again_gives_the_same_state",
        "states_of_others_are_refused",
    ],
    real="ildoonet/pytorch-gradual-warmup-lr#27",
)
class ChildOfTheOldOptimizer(Nested):
    """Saves the child object, so the loaded child writes to the optimizer it was saved with."""

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "child": self.child}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch, self.child = state["epoch"], state["child"]
        self.write()


@planted(NESTED, "train:3 save:a resume:a train:2", caught_by=EVERY_LOAD)
class ChildNotSaved(Nested):
    """Saves its own position, but not the position of the wrapped scheduler."""

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict({**state, "child": self.child.state_dict()})


@planted(
    NESTED,
    "train:3 save:a resume:a train:2",
    caught_by=["resume_by_last_epoch", "resume_by_initial_lr"],
    real="pytorch/pytorch#162591",
)
class ChildStartsAnew(Nested):
    """Uses ``last_epoch`` itself, but builds the wrapped scheduler without it."""

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        super().__init__(optimizer, last_epoch)
        self.child = Halving(optimizer)


@planted(
    MOMENTUM,
    "train:1 save:a resume:a",
    caught_by=["resume_by_last_epoch", "resume_built_on_loaded_optimizer"],
)
class MomentumFromCycled(Momentum):
    """Uses the groups' present momentum as the initial one when built with ``last_epoch``."""

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        for group in optimizer.param_groups:
            group["initial_momentum"] = group["momentum"]
        super().__init__(optimizer, last_epoch)


@planted(
    DECAY,
    "train:1 save:a resume:a",
    caught_by=[*EVERY_LOAD, "public_numbers_go_on"],
    real="NVIDIA-NeMo/Automodel#3883",
)
class DecayNotSaved(DecaysWeights):
    """Counts the weight decay's epochs separately, and does not save the count."""

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        self.decayed = last_epoch + 1
        super().__init__(optimizer, last_epoch)

    def write(self) -> None:
        super().write()
        for group, base in zip(self.optimizer.param_groups, self.decay, strict=True):
            group["weight_decay"] = base * (1 + self.decayed)

    def step(self) -> None:
        self.decayed += 1
        super().step()


@planted(
    TENSOR_RATE,
    "save:a resume:a",
    caught_by=[
        *LOADED_AFTER_OPTIMIZER,
        "resume_built_on_loaded_optimizer",
        "resume_scheduler_alone",
    ],
    real="pytorch/pytorch#163093",
)
class TensorBecomesFloat(TensorRate):
    """Replaces a tensor with a float when it is loaded."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch = state["epoch"]
        for group, rate in zip(self.optimizer.param_groups, self.rates(), strict=True):
            group["lr"] = rate.item()


@planted(
    TENSOR_RATE,
    "save:a resume:a train:4",
    caught_by=[*EVERY_LOAD, "resume_by_last_epoch", "resume_by_initial_lr"],
    real="pytorch/pytorch#162359",
)
class BaseIsTheRate(TensorRate):
    """Uses the same tensor as base LR and as the LR that it writes."""

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        super().__init__(optimizer, last_epoch)


@planted(HALVING, "train:3 save:a", caught_by=["last_lr_goes_on"], real="hpcaitech/ColossalAI#5151")
class StaleReport(Halving):
    """Reports the LR of its own last step, even after a load."""

    last: Any = None

    def step(self) -> None:
        super().step()
        self.last = super().get_last_lr()

    def get_last_lr(self) -> list[Any]:
        return list(self.last or self.base)


@planted(HALVING, "train:3", caught_by=["last_lr_is_the_groups_lr"])
class RoundedReport(Halving):
    """Reports its LR rounded to two places."""

    def get_last_lr(self) -> list[Any]:
        return [round(rate, 2) for rate in super().get_last_lr()]


@planted(
    HALVING,
    "train:1 save:a resume:a train:2",
    caught_by=["resume_scheduler_alone"],
)
class CountsInTheGroups(Halving):
    """Keeps its position only in the optimizer's groups."""

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        optimizer.param_groups[0].setdefault("epoch", 0)
        if last_epoch >= 0:
            optimizer.param_groups[0]["epoch"] = last_epoch + 1
        super().__init__(optimizer, optimizer.param_groups[0]["epoch"] - 1)

    def step(self) -> None:
        self.optimizer.param_groups[0]["epoch"] += 1
        self.epoch = self.optimizer.param_groups[0]["epoch"]
        self.write()

    def state_dict(self) -> dict[str, Any]:
        return {"base": self.base}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.base = list(state["base"])
        self.epoch = self.optimizer.param_groups[0]["epoch"]
        self.write()


@planted(HALVING, "train:3 save:a resume:a", caught_by=["resume_by_initial_lr"])
class TrustsTheGroups(Halving):
    """Does not change the groups' LR when it is built with ``last_epoch``."""

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        before = [group["lr"] for group in optimizer.param_groups]
        super().__init__(optimizer, last_epoch)
        if last_epoch >= 0:
            for group, rate in zip(optimizer.param_groups, before, strict=True):
                group["lr"] = rate


@planted(
    HALVING,
    "train:3 save:a resume:a",
    caught_by=["resume_built_on_loaded_optimizer", "resume_scheduler_alone"],
    real="pytorch/pytorch#119168",
)
class LeavesTheGroups(Halving):
    """Writes no LR when it is loaded."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch = state["epoch"]
