"""The types that the harness uses for things that PyTorch leaves untyped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    import torch

__all__ = ["Checkpoint", "NewOptimizer", "Options", "Scheduler", "State"]

State: TypeAlias = "dict[str, object]"
"""A ``state_dict``."""
Options: TypeAlias = Mapping[str, object]
"""Arguments for a scheduler's constructor, by name."""
NewOptimizer: TypeAlias = "Callable[[], torch.optim.Optimizer]"
"""Builds an optimizer with its parameters, as at the start of a training script."""
Checkpoint: TypeAlias = Mapping[str, "State"]
"""What a training script saves: the state of the optimizer and of the scheduler, and more."""


class Scheduler(Protocol):
    """What every scheduler has, PyTorch's and other libraries'.

    A subject whose scheduler has other names for these gives the harness functions in their
    place.
    """

    def step(self, *args: object, **kwargs: object) -> object:
        """Go on by one scheduler step."""

    def state_dict(self) -> State:
        """What a checkpoint stores of the scheduler."""

    def load_state_dict(self, state_dict: State, /) -> object:
        """Go on from what a checkpoint stored."""
