"""What the schedules inside an optimizer need: there is no scheduler beside it."""

from __future__ import annotations

from typing import Any

import torch


class Inside:
    """Stands for the schedule inside an optimizer, whose state is the optimizer's."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer

    def step(self) -> None:
        """The optimizer's own step has done it."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the optimizer's state holds it."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """There is nothing to load."""


def parameters() -> list[torch.nn.Parameter]:
    """New parameters, always with the same values."""
    return [torch.nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))]
