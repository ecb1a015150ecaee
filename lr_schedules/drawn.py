"""Drawn options: Hypothesis strategies of dicts for the constructor of every scheduler.

Each strategy lists its simplest value first. Most numbers are short, so that a counterexample is
easy to read; a few, such as 1/3, are rounded. Counts are small, so that everything happens within
12 epochs. About two of three dicts also have an optimizer, with options that fit the number of its
groups.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from hypothesis import strategies as st

from harness import Term
from harness.subjects.drawn_options import OptionsStrategy
from harness.subjects.optimizers import group_count, optimizers

GROUPS = 2
"""The number of groups of a subject's default optimizer."""

RATES = st.sampled_from((0.1, 0.01, 1.0, 0.3, 1 / 3, 0.001))
TINY_RATES = st.just(1e-5)
FLOORS = st.sampled_from((0.0, 0.001, 0.05, 1.0, 1 / 3))
"""Minimum LRs; 1.0 is above most LRs that an optimizer starts with."""
FACTORS = st.sampled_from((0.5, 1.0, 0.25, 0.001, 0.3, 1 / 3))
GAMMAS = st.sampled_from((0.5, 1.0, 0.001, 2.0, 0.3, 1 / 3))
MOMENTA = st.sampled_from((0.5, 0.0, 0.85, 0.95, 0.3))
COUNTS = st.integers(1, 6)
ITERS = st.sampled_from((1, 2, 3, 4, 6, 0))
METRICS = st.sampled_from((4.0, 3.0, 2.0, 3.5, 0.1, 0.3, 0.0, -1.0, math.nan, math.inf, -math.inf))
ANNEAL = st.sampled_from(("cos", "linear"))


def per_group(values: st.SearchStrategy[Any], groups: int) -> st.SearchStrategy[Any]:
    """One value for all groups, or a list with one for each."""
    return values | st.lists(values, min_size=groups, max_size=groups)


def _keeps_no_rate(optimizer: Term) -> bool:
    """Whether the optimizer's state does not contain its LR.

    LBFGS keeps its LR in its state. If that is a tensor, state and group share it, but after a
    resume each has its own: a defect of the optimizer under any schedule.
    """
    return optimizer.name != "LBFGS" or "lr" not in dict(optimizer.keywords)


@st.composite
def jointly(
    draw: st.DrawFn,
    options: OptionsStrategy | Callable[[int], OptionsStrategy],
    *,
    momentum: bool = False,
    betas: Callable[[], bool] = lambda: True,
) -> dict[str, object]:
    """Options for a number of groups; two of three draws add an optimizer with that number.

    `options` are drawn for any number of groups, or are a function of it. With `momentum` only
    optimizers are drawn that have momentum or, if the scheduler accepts them instead, `betas`.
    """
    drawn: dict[str, object] = {}
    groups = GROUPS
    if draw(st.sampled_from((False, True, True))):
        optimizer = draw(optimizers(momentum=momentum, betas=betas()).filter(_keeps_no_rate))
        drawn, groups = {"optimizer": optimizer}, group_count(optimizer)
    return {**drawn, **draw(options(groups) if callable(options) else options)}


def _fixed(
    required: dict[str, st.SearchStrategy[Any]], **optional: st.SearchStrategy[Any]
) -> OptionsStrategy:
    """All of `required` and any of `optional`, in an order that `fixed_dictionaries` changes."""
    names = (*required, *optional)
    return st.fixed_dictionaries(required, optional=optional).map(
        lambda values: {name: values[name] for name in names if name in values}
    )


# ------------------------------------------------------------------------------- callables

BASES = st.sampled_from((0.5, 1.0, 0.3, 1 / 3))
SCALES: st.SearchStrategy[Term] = (
    st.sampled_from((Term("root_decay"), Term("two_thirds")))
    | BASES.map(lambda base: Term.of("Decay", base))
    | BASES.map(lambda base: Term.of("decay_method", base))
)
"""Callables with values from 0 to 1, which CyclicLR asks for."""
CALLABLES: st.SearchStrategy[Term] = SCALES | st.just(Term("zigzag"))
STATEFUL_CALLABLES: st.SearchStrategy[Term] = BASES.map(lambda base: Term.of("Fading", base)) | (
    st.lists(FACTORS, min_size=1, max_size=3).map(lambda factors: Term.of("Swinging", factors))
)


def of_callables(groups: int) -> OptionsStrategy:
    """A callable for all groups, or one for each."""
    return _fixed({"lr_lambda": per_group(CALLABLES, groups)})


def of_stateful_callables(groups: int) -> OptionsStrategy:
    """The same, with at least one callable that changes when it is called."""
    mixed = st.lists(CALLABLES | STATEFUL_CALLABLES, min_size=groups - 1, max_size=groups - 1)
    lists = st.tuples(mixed, STATEFUL_CALLABLES).map(lambda pair: [*pair[0], pair[1]])
    return _fixed({"lr_lambda": STATEFUL_CALLABLES | lists})


# ------------------------------------------------------------------------ by epochs alone

BY_EPOCHS: dict[str, OptionsStrategy] = {
    "ExponentialLR": _fixed({"gamma": GAMMAS}),
    "ConstantLR": _fixed({"total_iters": ITERS}, factor=FACTORS),
    "LinearLR": _fixed(
        {"total_iters": ITERS}, start_factor=FACTORS, end_factor=FACTORS | st.just(0.0)
    ),
    "StepLR": _fixed({"step_size": COUNTS}, gamma=GAMMAS),
    # milestones in any order, repeated ones, 0, and none
    "MultiStepLR": _fixed({"milestones": st.lists(st.integers(0, 9), max_size=4)}, gamma=GAMMAS),
    "PolynomialLR": _fixed(
        {"total_iters": ITERS}, power=st.sampled_from((1.0, 2.0, 0.5, 0.0, 0.3))
    ),
    "CosineAnnealingLR": _fixed({"T_max": COUNTS}, eta_min=FLOORS),
    "CosineAnnealingWarmRestarts": _fixed(
        {"T_0": st.integers(1, 5)}, T_mult=st.integers(1, 3), eta_min=FLOORS
    ),
}
"""Options of torch's schedulers that are the same for any number of groups."""
LINEAR_TO_ZERO: OptionsStrategy = _fixed(
    {"end_factor": st.just(0.0), "total_iters": st.sampled_from((4, 3, 6))},
    start_factor=st.sampled_from((1 / 3, 0.3, 0.5)),
)
"""Options of a LinearLR that ends at 0; rounding takes the LR of about a third of them below 0."""
LINEAR_ANNEALING: OptionsStrategy = st.tuples(COUNTS, COUNTS).map(
    lambda steps: {"num_annealing_steps": steps[0], "num_total_steps": sum(steps)}
)
"""Options of LinearAnnealingLR, ours and the published one; T must be larger than A."""


def swa(groups: int) -> OptionsStrategy:
    """SWALR."""
    return _fixed(
        {"swa_lr": per_group(RATES, groups), "anneal_epochs": st.integers(0, 6)},
        anneal_strategy=ANNEAL,
    )


# ------------------------------------------------------------------------------- cycles


def _momenta(cycled: bool, groups: int) -> dict[str, st.SearchStrategy[Any]]:
    if not cycled:
        return {}
    values = per_group(MOMENTA, groups)
    return {"base_momentum": values, "max_momentum": values}


def cyclic(groups: int, cycled: bool) -> OptionsStrategy:
    """CyclicLR with each of its modes."""
    return _fixed(
        {
            "base_lr": per_group(RATES | TINY_RATES, groups),
            "max_lr": per_group(RATES | TINY_RATES, groups),
            "step_size_up": st.integers(1, 4),
            "step_size_down": st.none() | st.integers(0, 4),
            "mode": st.sampled_from(("triangular", "triangular2", "exp_range")),
            "cycle_momentum": st.just(cycled),
        },
        gamma=FACTORS,
        **_momenta(cycled, groups),
    )


def cyclic_by_stateful_function(groups: int, cycled: bool) -> OptionsStrategy:
    """CyclicLR with a function that changes when it is called."""
    of_anything = _fixed({"scale_fn": STATEFUL_CALLABLES})
    return st.tuples(cyclic(groups, cycled), of_anything).map(lambda pair: {**pair[0], **pair[1]})


def cyclic_by_function(groups: int, cycled: bool) -> OptionsStrategy:
    """CyclicLR with a function of the cycle or, if it can start from 0, of the iteration."""
    of_cycle = _fixed(
        {"scale_fn": st.just(Term("fall_with_cycle")) | SCALES}, scale_mode=st.just("cycle")
    )
    of_iterations = _fixed({"scale_fn": SCALES, "scale_mode": st.just("iterations")})
    return st.tuples(cyclic(groups, cycled), of_cycle | of_iterations).map(
        lambda pair: {**pair[0], **pair[1]}
    )


def _first_phase_is_not_empty(options: dict[str, Any]) -> bool:
    """Whether the length of OneCycleLR's first phase is not 0: the constructor divides by it."""
    total = options["total_steps"] or options["epochs"] * options["steps_per_epoch"]
    return bool(options.get("pct_start", 0.3) * total != 1)


def one_cycle(groups: int, cycled: bool, *, three_phase: bool, anneal: str) -> OptionsStrategy:
    """OneCycleLR; `three_phase` and `anneal` are the values to which Hypothesis shrinks."""
    lengths = _fixed({"total_steps": st.integers(3, 14)}) | _fixed(
        {
            "total_steps": st.none(),
            "epochs": st.integers(1, 4),
            "steps_per_epoch": st.integers(2, 4),
        }
    )
    rest = _fixed(
        {
            "max_lr": per_group(RATES, groups),
            "three_phase": st.sampled_from((three_phase, not three_phase)),
            "anneal_strategy": st.sampled_from((anneal, "linear" if anneal == "cos" else "cos")),
            "cycle_momentum": st.just(cycled),
        },
        pct_start=st.sampled_from((0.5, 0.25, 0.3, 1 / 3, 0.0, 1.0)),
        div_factor=st.sampled_from((2.0, 1.0, 10.0, 0.5)),
        final_div_factor=st.sampled_from((2.0, 1.0, 100.0)),
        **_momenta(cycled, groups),
    )
    return (
        st.tuples(rest, lengths)
        .map(lambda pair: {**pair[0], **pair[1]})
        .filter(_first_phase_is_not_empty)
    )


def with_momentum(
    options: Callable[[int, bool], OptionsStrategy], betas: Callable[[], bool] = lambda: True
) -> OptionsStrategy:
    """Options of a scheduler that may cycle momentum; then the optimizer must have some.

    `betas` says whether it cycles the betas of an optimizer that has no momentum.
    """
    return st.booleans().flatmap(
        lambda cycled: jointly(lambda groups: options(groups, cycled), momentum=cycled, betas=betas)
    )


@functools.cache
def cyclic_takes_betas() -> bool:
    """Whether CyclicLR in this torch can cycle betas; before 2.3 it requires momentum."""
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))])
    try:
        torch.optim.lr_scheduler.CyclicLR(optimizer, 0.1, 1.0)
    except ValueError:
        return False
    return True


# ------------------------------------------------------------------------------- by a metric


def plateau(groups: int) -> OptionsStrategy:
    """ReduceLROnPlateau, with the metrics for its steps."""
    values = st.lists(METRICS, min_size=1, max_size=6)
    steps = values.map(lambda given: Term.of("metrics", given)) | values.map(
        lambda given: Term.of("metrics", given, kind="tensor")
    )
    return _fixed(
        {
            "factor": st.sampled_from((0.5, 0.1, 0.3, 1 / 3, 0.0)),
            "patience": st.integers(0, 2),
            "cooldown": st.integers(0, 2),
            "min_lr": per_group(FLOORS, groups),
        },
        step=steps,
        mode=st.sampled_from(("min", "max")),
        threshold=st.sampled_from((0.0001, 0.0, 0.5, 1.0)),
        threshold_mode=st.sampled_from(("rel", "abs")),
        eps=st.sampled_from((1e-8, 0.0, 0.05)),
    )


def chainable() -> st.SearchStrategy[Term]:
    """A term of a scheduler that can be inside a composition with any other.

    OneCycleLR is left out, because it writes the initial LR that the others start from and ends
    with an exception; so is ReduceLROnPlateau, because torch's compositions do not accept it.
    """
    kinds = {
        **BY_EPOCHS,
        # With total_iters=0 PolynomialLR works alone, but divides by 0 in a SequentialLR.
        "PolynomialLR": BY_EPOCHS["PolynomialLR"].filter(lambda options: options["total_iters"]),
        "LambdaLR": _fixed({"lr_lambda": CALLABLES}),
        "MultiplicativeLR": _fixed({"lr_lambda": CALLABLES}),
        "CyclicLR": _fixed(
            {
                "base_lr": RATES,
                "max_lr": RATES,
                "step_size_up": st.integers(1, 4),
                "cycle_momentum": st.just(False),
            }
        ),
        "SWALR": _fixed({"swa_lr": RATES, "anneal_epochs": st.integers(0, 6)}),
    }
    return st.one_of([called(name, options) for name, options in kinds.items()])


def called(name: str, options: OptionsStrategy) -> st.SearchStrategy[Term]:
    """A term that calls `name` with drawn options."""
    return options.map(lambda values: Term.of(name, **values))


DRAWN: dict[str, OptionsStrategy] = {
    **{name: jointly(options) for name, options in BY_EPOCHS.items()},
    "LinearLR": jointly(BY_EPOCHS["LinearLR"] | LINEAR_TO_ZERO),
    "LambdaLR": jointly(of_callables),
    "LambdaLR-stateful": jointly(of_stateful_callables),
    "MultiplicativeLR": jointly(of_callables),
    "MultiplicativeLR-stateful": jointly(of_stateful_callables),
    "CyclicLR": with_momentum(cyclic, cyclic_takes_betas),
    "CyclicLR-scale_fn": with_momentum(cyclic_by_function, cyclic_takes_betas),
    "CyclicLR-stateful": with_momentum(cyclic_by_stateful_function, cyclic_takes_betas),
    "OneCycleLR": with_momentum(functools.partial(one_cycle, three_phase=False, anneal="cos")),
    "OneCycleLR-three_phase": with_momentum(
        functools.partial(one_cycle, three_phase=True, anneal="linear")
    ),
    "ReduceLROnPlateau": jointly(plateau),
    "SWALR": jointly(swa),
    "LinearAnnealingLR": jointly(LINEAR_ANNEALING),
    "PublishedLinearAnnealingLR": jointly(LINEAR_ANNEALING),
}
"""The strategy for each subject, by name."""
