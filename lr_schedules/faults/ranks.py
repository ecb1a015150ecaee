"""Faults of what differs between the ranks of a process group, or when their number changes."""

from __future__ import annotations

from typing import Any

import torch

from harness.faults import planted
from lr_schedules.controls import HALVING
from lr_schedules.correct import Halving

__all__: list[str] = []

ON, FROM, ACROSS = "resume_on_two_ranks", "resume_from_two_ranks", "resume_across_two_ranks"


def rank_and_ranks() -> tuple[int, int]:
    """The rank of this process, and how many there are; one without a process group."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


@planted(
    HALVING, "train:3 save:a resume:a", caught_by=[ON, FROM], real="bghira/SimpleTuner#3045"
)  # fmt: skip
class CountsForAllRanks(Halving):
    """Saves the steps of all ranks together, and takes as many ranks for granted."""

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.epoch * rank_and_ranks()[1]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict({"epoch": state["steps"] // rank_and_ranks()[1]})


class _SavesTheRanks(Halving):
    """Saves how many ranks there are, beside its position."""

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "ranks": rank_and_ranks()[1]}


@planted(HALVING, "train:1 save:a resume:a train:2", caught_by=[ON])
class StartsAgainOnMore(_SavesTheRanks):
    """Starts again where there are more ranks than there were."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if rank_and_ranks()[1] <= state["ranks"]:
            super().load_state_dict(state)


@planted(HALVING, "train:1 save:a resume:a train:2", caught_by=[FROM])
class StartsAgainOnFewer(_SavesTheRanks):
    """Starts again where there are fewer ranks than there were."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if rank_and_ranks()[1] >= state["ranks"]:
            super().load_state_dict(state)


@planted(HALVING, "train:1 save:a resume:a train:2", caught_by=[ON, ACROSS])
class FirstRankSaves(Halving):
    """Has a state on the first rank alone."""

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() if rank_and_ranks()[0] == 0 else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state:
            super().load_state_dict(state)


@planted(HALVING, "train:3 save:a resume:a", caught_by=[ACROSS])
class NewRankSavesLate(Halving):
    """Saves a position for each rank, and that of the second, until it is resumed, a step late."""

    resumed = False

    def state_dict(self) -> dict[str, Any]:
        rank, ranks = rank_and_ranks()
        if ranks == 1:
            return {"rank 0": self.epoch, "rank 1": self.epoch}
        late = 0 if self.resumed else rank
        return {f"rank {rank}": max(self.epoch - late, 0)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict({"epoch": state[f"rank {rank_and_ranks()[0]}"]})
        self.resumed = True
