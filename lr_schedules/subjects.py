"""The subjects: every scheduler of PyTorch, and ours.

The options are chosen so that everything a scheduler does happens within the plain
run of 12 epochs: decays, milestones, restarts, cycles, the end and what follows. Other values
are drawn for all options of the constructors (`lr_schedules.drawn`).

The failures are in the ledger, ``known_failures.toml``, each with its versions, a trace and where
it is tracked; ``torch_versions.md`` is a table of them. Since torch 2.10.0, loading both states in
the documented order holds for all subjects.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch.optim import lr_scheduler, swa_utils

from harness import Subject, Term, step_with_metric
from lr_schedules.callables import STATEFUL, STATELESS, fall_with_cycle
from lr_schedules.compositions import (
    DRAWN_COMPOSITIONS,
    MAKERS,
    TwoSchedulers,
    build_chained,
    build_sequential,
)
from lr_schedules.controls import AS_TORCH_DOES, HOLDS_TENSORS, WRITES_NO_LR
from lr_schedules.drawn import DRAWN
from lr_schedules.linear_annealing import LinearAnnealingLR
from lr_schedules.published import PublishedLinearAnnealingLR

KEEPS_THE_LR = (
    "MultiplicativeLR", "MultiplicativeLR-stateful", "StepLR", "ExponentialLR", "PolynomialLR",
    "CosineAnnealingLR", "SWALR",
)  # fmt: skip
"""Built on an optimizer with a loaded state, they do not change its LR."""

STARTS_ANYWHERE = ("LambdaLR",)
"""Each LR follows from initial_lr and the epoch."""

WITHOUT_CONTRACT = (
    "LambdaLR", "LambdaLR-stateful", "MultiplicativeLR", "MultiplicativeLR-stateful",
    "CyclicLR-scale_fn", "CyclicLR-stateful",
)  # fmt: skip
"""Their functions are not saved, as PyTorch's documentation says."""


def _drawn(name: str, scheduler: Callable[..., object], **options: object) -> Subject:
    """A subject with these options, and others from `DRAWN`."""
    return Subject(
        name, scheduler, options=options, drawn=DRAWN[name], words=WORDS, standalone=True,
        contract="" if name in WITHOUT_CONTRACT else "saved", declines=_declined_by(name),
    )  # fmt: skip


def _declined_by(name: str) -> dict[str, str]:
    """What the documentation of PyTorch does not promise, and the reason."""
    declined = {"resume_scheduler_alone": WRITES_NO_LR}
    if name not in KEEPS_THE_LR:
        declined["resume_built_on_loaded_optimizer"] = CONSTRUCTOR_WRITES_LR
    if name not in STARTS_ANYWHERE:
        declined["resume_by_initial_lr"] = NEEDS_THE_LR
    return declined


def _stateful(name: str, scheduler: Callable[..., object], **options: object) -> Subject:
    """A subject with callables that change when they are called."""
    subject = _drawn(name, scheduler, **options)
    by_epoch = ("resume_by_last_epoch", "resume_by_initial_lr")
    declined = dict.fromkeys(by_epoch, ITS_CALLABLE_REMEMBERS)
    return replace(subject, declines={**subject.declines, **declined})


def _composed(
    name: str, build: Callable[..., object], schedulers: list[Term], contract: str = "",
    **options: object,
) -> Subject:  # fmt: skip
    """A subject made of several schedulers, which are written as terms."""
    return Subject(
        name,
        build,
        contract=contract,
        options={"schedulers": schedulers, **options},
        drawn=DRAWN_COMPOSITIONS[name],
        words=MAKERS,
        standalone=True,
        declines=_declined_by(name),
    )


WORDS = {**STATELESS, **STATEFUL, "fall_with_cycle": fall_with_cycle}

WARM_UP = Term.of("LinearLR", start_factor=0.25, total_iters=3)
HALVES = Term.of("ExponentialLR", gamma=0.5)

ITS_CALLABLE_REMEMBERS = (
    "its callable changes when it is called, and only the scheduler's state stores the change"
)
CONSTRUCTOR_WRITES_LR = (
    "its constructor writes the LR of the first epoch, and its load_state_dict writes no LR: the "
    "optimizer's state must be loaded after it is built"
)
NEEDS_THE_LR = (
    "it computes the LR from the group's current LR, or from its own counts: initial_lr alone "
    "is not enough"
)

SUBJECTS: tuple[Subject, ...] = (
    _drawn("LambdaLR", lr_scheduler.LambdaLR, lr_lambda=[Term("root_decay"), Term("zigzag")]),
    _drawn("MultiplicativeLR", lr_scheduler.MultiplicativeLR, lr_lambda=Term("two_thirds")),
    _stateful("LambdaLR-stateful", lr_scheduler.LambdaLR, lr_lambda=Term.of("Fading", 0.5)),
    _stateful(
        "MultiplicativeLR-stateful",
        lr_scheduler.MultiplicativeLR,
        lr_lambda=Term.of("Fading", 0.5),
    ),
    _drawn("StepLR", lr_scheduler.StepLR, step_size=3, gamma=0.5),
    _drawn("MultiStepLR", lr_scheduler.MultiStepLR, milestones=[2, 5, 5, 9], gamma=0.5),
    _drawn("ConstantLR", lr_scheduler.ConstantLR, factor=0.25, total_iters=4),
    _drawn("LinearLR", lr_scheduler.LinearLR, start_factor=0.25, total_iters=5),
    _drawn("ExponentialLR", lr_scheduler.ExponentialLR, gamma=0.8),
    _drawn("PolynomialLR", lr_scheduler.PolynomialLR, total_iters=8, power=2.0),
    _drawn("CosineAnnealingLR", lr_scheduler.CosineAnnealingLR, T_max=4, eta_min=0.001),
    _drawn(
        "CosineAnnealingWarmRestarts",
        lr_scheduler.CosineAnnealingWarmRestarts,
        T_0=2,
        T_mult=2,
        eta_min=0.001,
    ),
    _drawn(
        "CyclicLR",
        lr_scheduler.CyclicLR,
        base_lr=0.01,
        max_lr=0.1,
        step_size_up=2,
        step_size_down=3,
        mode="triangular2",
    ),
    _drawn(
        "CyclicLR-scale_fn",
        lr_scheduler.CyclicLR,
        base_lr=0.01,
        max_lr=0.1,
        step_size_up=2,
        scale_fn=Term("fall_with_cycle"),
    ),
    _stateful(
        "CyclicLR-stateful",
        lr_scheduler.CyclicLR,
        base_lr=0.01,
        max_lr=0.1,
        step_size_up=2,
        scale_fn=Term.of("Fading", 0.9),
    ),
    _drawn("OneCycleLR", lr_scheduler.OneCycleLR, max_lr=[0.1, 0.2], total_steps=10),
    _drawn(
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
        step=step_with_metric,
        contract="saved",
        standalone=True,
        declines={"resume_scheduler_alone": WRITES_NO_LR},
    ),
    _composed(
        "SequentialLR",
        build_sequential,
        [WARM_UP, HALVES, Term.of("ConstantLR", factor=0.5, total_iters=2)],
        milestones=[3, 7],
        contract="saved",
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
    _drawn("SWALR", swa_utils.SWALR, swa_lr=0.05, anneal_epochs=4),
    Subject(
        "LinearAnnealingLR",
        LinearAnnealingLR,
        options={"num_annealing_steps": 4, "num_total_steps": 9},
        drawn=DRAWN["LinearAnnealingLR"],
        contract="saved",
        declines={
            "resume_built_on_loaded_optimizer": WRITES_NO_LR,
            "resume_scheduler_alone": WRITES_NO_LR,
            "optimizer_state_is_a_snapshot": HOLDS_TENSORS,
            "states_of_others_are_refused": AS_TORCH_DOES,
        },
        standalone=True,
    ),
    _drawn(
        "PublishedLinearAnnealingLR",
        PublishedLinearAnnealingLR,
        num_annealing_steps=4,
        num_total_steps=9,
    ),
)
"""The subjects that the command line checks if none is named."""
