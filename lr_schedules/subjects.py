"""The subjects: every scheduler of PyTorch, and ours.

The options are chosen so that everything a scheduler does happens within the plain
run of 12 epochs: decays, milestones, restarts, cycles, the end and what follows. Other values
are drawn for all options of the constructors (`lr_schedules.drawn`).

Results on torch 2.13.0, with 23 subjects and 17 checks: 364 HOLDS, 24 KNOWN, 3 DECLINED.
With ``--no-ledger`` these 24 are BROKEN:

* StepLR, MultiStepLR, ConstantLR, alone or in others: resumed by ``last_epoch`` exactly at a
  decay, they decay again.
* CosineAnnealingWarmRestarts, ``T_mult`` > 1: resumed by ``last_epoch`` later than the start of
  its second cycle, it goes on in that cycle, at an epoch modulo ``T_0``.
* SequentialLR: resumed by ``last_epoch``, it starts its first scheduler again.
* SWALR: resumed by ``last_epoch``, it counts its annealing from 0 again: it reads ``_step_count``.
* CyclicLR with tensors as LRs: resumed by ``last_epoch``, its LR is rounded differently.
* CyclicLR, alone or in others: ``load_state_dict`` takes a key out of the given dict, so a second
  load from it raises.
* OneCycleLR, linear: accepts one step past its schedule, and its LR is negative there.
* LinearLR and CosineAnnealingLR in others: they go below 0, because they compute the LR from the
  group's LR, which the other scheduler changed.
* The linear annealing schedule as published (`lr_schedules.published`): resumed by ``last_epoch``
  it starts again, and it is negative past its end.

The ledger, ``known_failures.toml``, has the trace of each, and where it is tracked. Loading both
states in the documented order holds for all of them. For the failures of opt-in checks see
`harness.checks.transports`, `harness.engine.other_process` and
`harness.checks.changed_options`; for those on other versions see ``torch_versions.md``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch.optim import lr_scheduler, swa_utils

from harness import Subject, Term, metrics, step_with_metric
from lr_schedules.callables import CONSTANT, STATEFUL, fall_with_cycle
from lr_schedules.compositions import (
    DRAWN_COMPOSITIONS,
    MAKERS,
    TwoSchedulers,
    build_chained,
    build_sequential,
)
from lr_schedules.drawn import DRAWN
from lr_schedules.linear_annealing import LinearAnnealingLR
from lr_schedules.published import PublishedLinearAnnealingLR

__all__ = ["SUBJECTS"]


def _of_torch(name: str, scheduler: Any, **options: Any) -> Subject:
    return Subject(
        name, scheduler, options=options, drawn=DRAWN[name], words=CALLABLES, standalone=True
    )


def _stateful(name: str, scheduler: Any) -> Subject:
    """A subject with callables that change when they are called."""
    return replace(
        _of_torch(name, scheduler, lr_lambda=Term.of("Fading", 0.5)),
        declines=dict.fromkeys(
            ("resume_by_last_epoch", "resume_by_initial_lr"), ITS_CALLABLE_REMEMBERS
        ),
    )


def _composed(name: str, build: Any, schedulers: list[Term], **options: Any) -> Subject:
    """A subject made of several schedulers, which are written as terms."""
    return Subject(
        name,
        build,
        options={"schedulers": schedulers, **options},
        drawn=DRAWN_COMPOSITIONS[name],
        words=MAKERS,
        standalone=True,
    )


CALLABLES = {**CONSTANT, **STATEFUL, "fall_with_cycle": fall_with_cycle}

WARM_UP = Term.of("LinearLR", start_factor=0.25, total_iters=3)
HALVES = Term.of("ExponentialLR", gamma=0.5)

ITS_CALLABLE_REMEMBERS = (
    "its callable changes when it is called, and only the scheduler's state stores the change"
)


LEAVES_THE_OPTIMIZER = (
    "its load_state_dict leaves the groups' LR to the optimizer's state, like torch's schedulers: "
    "otherwise an optimizer could not have several schedulers"
)

SUBJECTS: tuple[Subject, ...] = (
    _of_torch("LambdaLR", lr_scheduler.LambdaLR, lr_lambda=[Term("root_decay"), Term("zigzag")]),
    _of_torch("MultiplicativeLR", lr_scheduler.MultiplicativeLR, lr_lambda=Term("two_thirds")),
    _stateful("LambdaLR-stateful", lr_scheduler.LambdaLR),
    _stateful("MultiplicativeLR-stateful", lr_scheduler.MultiplicativeLR),
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
        scale_fn=Term("fall_with_cycle"),
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
        drawn=DRAWN["ReduceLROnPlateau"],
        words={"metrics": metrics},
        step=step_with_metric,
        standalone=True,
    ),
    _composed(
        "SequentialLR",
        build_sequential,
        [WARM_UP, HALVES, Term.of("ConstantLR", factor=0.5, total_iters=2)],
        milestones=[3, 7],
    ),
    _composed(
        "ChainedScheduler",
        build_chained,
        [
            Term.of("LinearLR", start_factor=0.25, total_iters=4),
            Term.of("ExponentialLR", gamma=0.9),
        ],
    ),
    _composed("TwoSchedulers", TwoSchedulers, [WARM_UP, Term.of("StepLR", step_size=4, gamma=0.5)]),
    _of_torch("SWALR", swa_utils.SWALR, swa_lr=0.05, anneal_epochs=4),
    Subject(
        "LinearAnnealingLR",
        LinearAnnealingLR,
        options={"num_annealing_steps": 4, "num_total_steps": 9},
        drawn=DRAWN["LinearAnnealingLR"],
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
"""The subjects that the command line checks if none is named."""
