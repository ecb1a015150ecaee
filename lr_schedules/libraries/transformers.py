"""transformers' schedules that need a certain optimizer."""

from __future__ import annotations

import torch
from transformers.optimization import Adafactor, AdafactorSchedule

from harness.subjects.subject import Subject


def new_adafactor() -> torch.optim.Optimizer:
    """An Adafactor without an LR of its own, whose LR the schedule only reports."""
    parameter = torch.nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    optimizer: torch.optim.Optimizer = Adafactor(
        [parameter], lr=None, scale_parameter=True, relative_step=True, warmup_init=True
    )
    return optimizer


SUBJECTS = [Subject("AdafactorSchedule", AdafactorSchedule, optimizer=new_adafactor)]
