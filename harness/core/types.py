"""Types for what PyTorch leaves untyped, such as states, checkpoints and schedulers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    import torch

State: TypeAlias = "dict[str, object]"
"""A ``state_dict``."""
Options: TypeAlias = Mapping[str, object]
"""Arguments for a scheduler's constructor, by name."""
NewOptimizer: TypeAlias = "Callable[[], torch.optim.Optimizer]"
"""Builds an optimizer with its parameters, as at the start of a training script."""
Checkpoint: TypeAlias = dict[str, Any]
"""A checkpoint in the form in which a transport stores it: states, bytes, or live objects."""
Build: TypeAlias = "Callable[..., Scheduler]"
"""Builds a scheduler on an optimizer, with options by name."""
Step: TypeAlias = "Callable[[Scheduler, int], None]"
"""Steps a scheduler as its subject says; the number is how many steps it has made before."""
Save: TypeAlias = "Callable[[torch.optim.Optimizer, Scheduler, int], Checkpoint]"
"""Makes a checkpoint at an epoch."""
Load: TypeAlias = Callable[[Checkpoint], Checkpoint]
"""Turns what was stored into what a route resumes from."""
Words: TypeAlias = "Mapping[str, Callable[..., object]]"
"""The functions that the words in options stand for."""
OptimizerAndScheduler: TypeAlias = "tuple[torch.optim.Optimizer, Scheduler]"
"""An optimizer and its scheduler: what a route returns."""


class Scheduler(Protocol):
    """What every scheduler has, PyTorch's and other libraries'.

    If a scheduler has other names for these, its subject gives functions instead
    (`state_dict`, `load_state_dict` and `step` of `harness.Subject`).
    """

    def step(self, *args: object, **kwargs: object) -> object:
        """Go on by one scheduler step."""

    def state_dict(self) -> State:
        """What a checkpoint stores of the scheduler."""

    def load_state_dict(self, state_dict: State, /) -> object:
        """Go on from what a checkpoint stored."""
