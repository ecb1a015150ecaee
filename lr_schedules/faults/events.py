"""Faults that show only after what happens sometimes in a training loop."""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer

from harness.engine.selftest import planted
from lr_schedules.controls import CLOSED_FORM, HALVING, MULTIPLIES
from lr_schedules.correct import ClosedForm, Halving, Multiplies
from lr_schedules.faults.check_groups import EVERY_LOAD

LOADS_OF_BOTH = tuple(name for name in EVERY_LOAD if name not in CLOSED_FORM.declines)
"""The checks that go on from a loaded state, without those that `CLOSED_FORM` declines."""


@planted(
    HALVING,
    "skip:1 save:a resume:a",
    caught_by=[*EVERY_LOAD, "resume_by_last_epoch", "resume_by_initial_lr"],
)
class OverflowNotSaved(Halving):
    """Lowers the LR for good after gradients overflowed, and does not save that they did."""

    scale = 1.0

    def step(self) -> None:
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None and not parameter.grad.isfinite().all():
                    self.scale = 0.125
        super().step()

    def factor(self) -> float:
        return super().factor() * self.scale


@planted(
    CLOSED_FORM,
    "epoch:1 save:a resume:a train:1",
    caught_by=[
        *LOADS_OF_BOTH,
        "resume_by_last_epoch",
        "resume_by_initial_lr",
        "resume_with_other_initial_lrs",
    ],
)
class GivenEpochNotSaved(ClosedForm):
    """Halves the LR after it was stepped with an epoch, and does not save that it was."""

    told = False

    def step(self, epoch: int | None = None) -> None:
        self.told = self.told or epoch is not None
        super().step(epoch)

    def get_lr(self) -> list[Any]:
        return [rate * 0.5 if self.told else rate for rate in super().get_lr()]

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = super().state_dict()
        state.pop("told", None)
        return state


@planted(
    MULTIPLIES,
    "halve_lr:1 save:a resume:a",
    caught_by=["resume_after_halve_lr"],
)
class UndoesWhatWasSetByHand(Multiplies):
    """Writes the scheduled LR when it is loaded, and goes on multiplying from there."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        for group in self.optimizer.param_groups:
            if "initial_lr" not in group:  # the group was added
                continue
            group["lr"] = group["initial_lr"]
            for epoch in range(1, self.epoch + 1):
                group["lr"] *= 0.5 if epoch % 3 == 0 else 0.875


@planted(
    MULTIPLIES,
    "add_group:1 save:a resume:a train:1",
    caught_by=[
        "resume_after_add_group",
        "failed_load_changes_nothing",
        "states_of_others_are_refused",
    ],
)
class ForgetsAddedGroups(Multiplies):
    """After loading its state, schedules only the groups that it was built with."""

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        super().__init__(optimizer, last_epoch)
        self.groups = len(optimizer.param_groups)
        self.loaded = False

    def step(self) -> None:
        kept = [group["lr"] for group in self.optimizer.param_groups]
        super().step()
        if self.loaded:
            for group, rate in list(zip(self.optimizer.param_groups, kept, strict=True))[
                self.groups :
            ]:
                group["lr"] = rate

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "groups": self.groups}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.groups, self.loaded = state["groups"], True
