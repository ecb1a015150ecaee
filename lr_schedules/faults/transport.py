"""Faults in the values of a state, which some checkpoint formats change or lose."""

from __future__ import annotations

from typing import Any

import torch

from harness.engine.selftest import planted
from lr_schedules.controls import HALVING, NOISE
from lr_schedules.correct import Halving, Noise, halved

if hasattr(torch, "float8_e5m2"):  # from torch 2.1 on

    @planted(HALVING, "save:a resume:a", caught_by=["resume_from_legacy_file"])
    class SavesEightBits(Halving):
        """Saves its factor in eight bits, which can't be read from a file of the older format."""

        def state_dict(self) -> dict[str, Any]:
            return {
                "epoch": self.epoch,
                "factor": torch.tensor(self.factor()).to(torch.float8_e5m2),
            }


@planted(NOISE, "save:a resume:a", caught_by=["resume_from_json"])
class NeedsItsTuples(Noise):
    """Passes the loaded state to its generator, which does not accept a list for a tuple."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.random.setstate(state["random"])
        super().load_state_dict(state)


@planted(
    HALVING,
    "train:1 save:a resume:a train:2",
    caught_by=["resume_from_json", "resume_from_distributed_checkpoint"],
)
class KeyIsANumber(Halving):
    """Saves its position under a number, and starts again if that key is loaded as a string."""

    def state_dict(self) -> dict[str, Any]:
        return {"epochs": {0: self.epoch}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict({"epoch": state["epochs"].get(0, 0)})


@planted(HALVING, "train:3 save:a resume:a", caught_by=["resume_from_distributed_checkpoint"])
class StateGrows(Halving):
    """Saves a count for each factor so far, so a new scheduler's state has fewer keys."""

    def state_dict(self) -> dict[str, Any]:
        factors = [halved(epoch) for epoch in range(self.epoch + 1)]
        return {"counts": {str(factor): factors.count(factor) for factor in factors}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict({"epoch": sum(state["counts"].values()) - 1})
