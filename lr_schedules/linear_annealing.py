"""A learning rate that rises linearly, then falls linearly to zero."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

from torch.optim import Optimizer, lr_scheduler

__all__ = ["LRScheduler", "LinearAnnealingLR"]

if TYPE_CHECKING:
    from torch.optim.lr_scheduler import LRScheduler
else:  # before torch 2.0 the base class has only its private name
    LRScheduler = getattr(lr_scheduler, "LRScheduler", lr_scheduler._LRScheduler)


class LinearAnnealingLR(LRScheduler):
    """Raises each group's LR linearly to its base LR, then lowers it linearly to 0.

    With b the group's LR at the start, A annealing steps, T total steps, and
    s = epochs since the start + 1, the LR is ::

        b s / A              while s <= A
        b (T - s) / (T - A)  then
        0                    from s = T on

    It is computed from ``last_epoch`` and the base LRs alone.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        Its groups' LRs, numbers or tensors, are the base LRs.
    num_annealing_steps : int
        A, in scheduler steps (epochs): at least 1.
    num_total_steps : int
        T, in scheduler steps (epochs): more than A.
    last_epoch : int
        -1 to start; k - 1 to resume after k scheduler steps, with
        ``initial_lr`` in the optimizer's groups.

    Raises
    ------
    TypeError
        For a number of steps that is not an integer.
    ValueError
        For A < 1 or T <= A.

    `lr_schedules.published` has the same schedule from a blog post, with two mistakes; the README
    tells how they are found.

    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    >>> scheduler = LinearAnnealingLR(optimizer, num_annealing_steps=2, num_total_steps=4)
    >>> rates = []
    >>> for epoch in range(5):
    ...     rates += scheduler.get_last_lr()
    ...     optimizer.step()
    ...     scheduler.step()
    >>> rates
    [0.5, 1.0, 0.5, 0.0, 0.0]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        num_annealing_steps: int,
        num_total_steps: int,
        last_epoch: int = -1,
    ) -> None:
        self.num_annealing_steps = _steps("num_annealing_steps", num_annealing_steps)
        self.num_total_steps = _steps("num_total_steps", num_total_steps)
        if self.num_annealing_steps < 1:
            raise ValueError(
                f"'num_annealing_steps' must be at least 1 (got {num_annealing_steps})"
            )
        if self.num_total_steps <= self.num_annealing_steps:
            raise ValueError(
                f"'num_total_steps' must be more than num_annealing_steps, "
                f"{num_annealing_steps} (got {num_total_steps})"
            )
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[Any]:
        """The LR of each group at ``last_epoch``."""
        annealing, total = self.num_annealing_steps, self.num_total_steps
        s = self.last_epoch + 1
        if s <= annealing:
            return [base * s / annealing for base in self.base_lrs]
        return [base * max(total - s, 0) / (total - annealing) for base in self.base_lrs]


def _steps(name: str, value: int) -> int:
    """`value` as an int; raises `TypeError` for a bool or a float."""
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name!r} must be an integer (got {value!r})") from None
