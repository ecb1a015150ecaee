"""timm's factory, which returns a scheduler and a number of epochs."""

from __future__ import annotations

from typing import Any

import torch
from timm.scheduler import create_scheduler_v2

from harness.subjects.protocols import step_to_epoch_with_metric
from harness.subjects.subject import Subject


def build(optimizer: torch.optim.Optimizer, **options: Any) -> Any:
    """What ``create_scheduler_v2`` makes, without the number of epochs."""
    return create_scheduler_v2(optimizer, **options)[0]


SUBJECTS = [
    Subject(
        f"create_scheduler_v2-{sched}", build,
        options={"sched": sched, "num_epochs": 10, "warmup_epochs": 2, **more},
        step=step_to_epoch_with_metric,
    )
    for sched, more in {
        "cosine": {"cycle_limit": 2}, "tanh": {}, "step": {"decay_epochs": 3},
        "multistep": {"decay_milestones": [3, 6]}, "poly": {}, "plateau": {"patience_epochs": 1},
    }.items()
]  # fmt: skip
