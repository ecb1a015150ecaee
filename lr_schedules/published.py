"""The linear annealing schedule from a blog post (see the README), with its two mistakes.

It counts with ``_step_count``, which starts again in a new scheduler, and it falls below 0 after
its end. It is here to be checked, not to be used: `LinearAnnealingLR` is the correct version.
"""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer

from lr_schedules.linear_annealing import LRScheduler


class PublishedLinearAnnealingLR(LRScheduler):
    """Linear up, then linear down, counted by ``_step_count`` and with no end."""

    def __init__(
        self,
        optimizer: Optimizer,
        num_annealing_steps: int,
        num_total_steps: int,
        last_epoch: int = -1,
    ) -> None:
        self.num_annealing_steps = num_annealing_steps
        self.num_total_steps = num_total_steps
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[Any]:
        """The LR of each group after ``_step_count`` steps."""
        if self._step_count <= self.num_annealing_steps:
            factor = self._step_count / self.num_annealing_steps
        else:
            factor = (self.num_total_steps - self._step_count) / (
                self.num_total_steps - self.num_annealing_steps
            )
        return [base * factor for base in self.base_lrs]
