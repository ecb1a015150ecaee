"""The subjects: every scheduler of PyTorch, and ours.

The options are chosen so that what a scheduler can do happens within the plain
run of 12 epochs: decays, milestones, restarts, cycles, the end and what follows.
"""

from __future__ import annotations

from typing import Any

from torch.optim import lr_scheduler, swa_utils

from harness import Subject, step_with_metric
from lr_schedules.linear_annealing import LinearAnnealingLR
from lr_schedules.published import PublishedLinearAnnealingLR

__all__ = ["SUBJECTS"]


def two_thirds(epoch: int) -> float:
    """A factor for MultiplicativeLR."""
    return 2 / 3


def root_decay(epoch: int) -> float:
    """A factor for LambdaLR."""
    return float((1 + epoch) ** -0.5)


def zigzag(epoch: int) -> float:
    """Another factor for LambdaLR, so that the groups differ."""
    return 1.0 + epoch % 3


def fall_with_cycle(cycle: float) -> float:
    """A scale for CyclicLR."""
    return 1 / cycle


def build_sequential(optimizer: Any, last_epoch: int = -1) -> Any:
    """Warm-up, then decay, then a constant: two milestones, the last 5 epochs after both."""
    return lr_scheduler.SequentialLR(
        optimizer,
        [
            lr_scheduler.LinearLR(optimizer, start_factor=0.25, total_iters=3),
            lr_scheduler.ExponentialLR(optimizer, gamma=0.5),
            lr_scheduler.ConstantLR(optimizer, factor=0.5, total_iters=2),
        ],
        milestones=[3, 7],
        last_epoch=last_epoch,
    )


def build_chained(optimizer: Any, last_epoch: int = -1) -> Any:
    """A warm-up and a decay at once; each is given ``last_epoch``, the chain takes none."""
    return lr_scheduler.ChainedScheduler(
        [
            lr_scheduler.LinearLR(optimizer, 0.25, total_iters=4, last_epoch=last_epoch),
            lr_scheduler.ExponentialLR(optimizer, gamma=0.9, last_epoch=last_epoch),
        ]
    )


def _of_torch(name: str, scheduler: Any, **options: Any) -> Subject:
    return Subject(name, scheduler, options=options, standalone=True)


LEAVES_THE_OPTIMIZER = (
    "its load_state_dict leaves the groups' LR to the optimizer's own state, as those of torch do: "
    "else it could not be one of several schedulers of an optimizer"
)

SUBJECTS: tuple[Subject, ...] = (
    _of_torch("LambdaLR", lr_scheduler.LambdaLR, lr_lambda=[root_decay, zigzag]),
    _of_torch("MultiplicativeLR", lr_scheduler.MultiplicativeLR, lr_lambda=two_thirds),
    _of_torch("StepLR", lr_scheduler.StepLR, step_size=3, gamma=0.5),
    _of_torch("MultiStepLR", lr_scheduler.MultiStepLR, milestones=[2, 5, 5, 9], gamma=0.5),
    _of_torch("ConstantLR", lr_scheduler.ConstantLR, factor=0.25, total_iters=4),
    _of_torch("LinearLR", lr_scheduler.LinearLR, start_factor=0.25, total_iters=5),
    _of_torch("ExponentialLR", lr_scheduler.ExponentialLR, gamma=0.8),
    _of_torch("PolynomialLR", lr_scheduler.PolynomialLR, total_iters=8, power=2.0),
    _of_torch("CosineAnnealingLR", lr_scheduler.CosineAnnealingLR, T_max=4, eta_min=0.001),
    _of_torch(
        "CosineAnnealingWarmRestarts",
        lr_scheduler.CosineAnnealingWarmRestarts,
        T_0=2,
        T_mult=2,
        eta_min=0.001,
    ),
    _of_torch(
        "CyclicLR",
        lr_scheduler.CyclicLR,
        base_lr=0.01,
        max_lr=0.1,
        step_size_up=2,
        step_size_down=3,
        mode="triangular2",
    ),
    _of_torch(
        "CyclicLR-scale_fn",
        lr_scheduler.CyclicLR,
        base_lr=0.01,
        max_lr=0.1,
        step_size_up=2,
        scale_fn=fall_with_cycle,
    ),
    _of_torch("OneCycleLR", lr_scheduler.OneCycleLR, max_lr=[0.1, 0.2], total_steps=10),
    _of_torch(
        "OneCycleLR-three_phase",
        lr_scheduler.OneCycleLR,
        max_lr=0.1,
        total_steps=10,
        three_phase=True,
        anneal_strategy="linear",
    ),
    Subject(
        "ReduceLROnPlateau",
        lr_scheduler.ReduceLROnPlateau,
        options={"factor": 0.5, "patience": 1, "cooldown": 1, "min_lr": 0.001},
        step=step_with_metric,
        standalone=True,
    ),
    _of_torch("SequentialLR", build_sequential),
    _of_torch("ChainedScheduler", build_chained),
    _of_torch("SWALR", swa_utils.SWALR, swa_lr=0.05, anneal_epochs=4),
    Subject(
        "LinearAnnealingLR",
        LinearAnnealingLR,
        options={"num_annealing_steps": 4, "num_total_steps": 9},
        declines={
            "resume_built_on_loaded_optimizer": LEAVES_THE_OPTIMIZER,
            "resume_scheduler_alone": LEAVES_THE_OPTIMIZER,
        },
        standalone=True,
    ),
    _of_torch(
        "PublishedLinearAnnealingLR",
        PublishedLinearAnnealingLR,
        num_annealing_steps=4,
        num_total_steps=9,
    ),
)
"""The subjects that the command line checks when none is named."""
