"""Prodigy, which estimates its step size itself."""

from __future__ import annotations

import torch
from prodigyopt import Prodigy

from harness.subjects.subject import Subject
from lr_schedules.libraries.inside import Inside, parameters


def new_prodigy() -> torch.optim.Optimizer:
    """A Prodigy with warm-up and bias correction."""
    optimizer: torch.optim.Optimizer = Prodigy(
        parameters(), lr=1.0, use_bias_correction=True, safeguard_warmup=True
    )
    return optimizer


SUBJECTS = [Subject("Prodigy", Inside, optimizer=new_prodigy, constant=True)]
