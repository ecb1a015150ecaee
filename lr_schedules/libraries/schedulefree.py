"""schedulefree's optimizers, in which the schedule is a part of the optimizer."""

from __future__ import annotations

from typing import Any

import schedulefree
import torch

from harness.subjects.subject import Subject
from lr_schedules.libraries.inside import Inside, parameters


def new_sgd() -> torch.optim.Optimizer:
    """SGD without a schedule, in training."""
    optimizer: Any = schedulefree.SGDScheduleFree(parameters(), lr=0.1, warmup_steps=4)
    optimizer.train()
    return optimizer  # type: ignore[no-any-return]


def new_adamw() -> torch.optim.Optimizer:
    """AdamW without a schedule, in training."""
    optimizer: Any = schedulefree.AdamWScheduleFree(parameters(), lr=0.1, warmup_steps=4)
    optimizer.train()
    return optimizer  # type: ignore[no-any-return]


def new_radam() -> torch.optim.Optimizer:
    """RAdam without a schedule, in training."""
    optimizer: Any = schedulefree.RAdamScheduleFree(parameters(), lr=0.1)
    optimizer.train()
    return optimizer  # type: ignore[no-any-return]


SUBJECTS = [
    Subject("SGDScheduleFree", Inside, optimizer=new_sgd, constant=True),
    Subject("AdamWScheduleFree", Inside, optimizer=new_adamw, constant=True),
    Subject("RAdamScheduleFree", Inside, optimizer=new_radam, constant=True),
]
