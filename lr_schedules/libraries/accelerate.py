"""accelerate's wrapper of a scheduler, on a wrapped optimizer."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from accelerate.scheduler import AcceleratedScheduler
from torch.optim.lr_scheduler import ExponentialLR, OneCycleLR

from harness.subjects.subject import Subject


class Skipless:
    """What the wrapper asks an optimizer: whether it skipped its step."""

    step_was_skipped = False


def _exponential(
    optimizer: torch.optim.Optimizer, gamma: float, last_epoch: int = -1
) -> AcceleratedScheduler:
    """An ExponentialLR in the wrapper."""
    Accelerator(cpu=True)
    return AcceleratedScheduler(ExponentialLR(optimizer, gamma, last_epoch=last_epoch), Skipless())


def _one_cycle(
    optimizer: torch.optim.Optimizer, total_steps: int, last_epoch: int = -1
) -> AcceleratedScheduler:
    """A OneCycleLR in the wrapper, which must not step past its end."""
    Accelerator(cpu=True)
    scheduler = OneCycleLR(optimizer, 0.1, total_steps=total_steps, last_epoch=last_epoch)
    return AcceleratedScheduler(scheduler, Skipless())


SUBJECTS = [
    Subject("AcceleratedScheduler", _exponential, options={"gamma": 0.5}),
    Subject("AcceleratedScheduler-OneCycleLR", _one_cycle, options={"total_steps": 10}),
]
