"""The defects that the harness finds in PyTorch's schedulers, and where each is tracked.

One entry a defect: what is wrong, the pairs of subject and check that show it on torch 2.13.0,
and an issue or pull request of PyTorch that describes it, or `NO_REPORT`. "Like" stands
before one that describes the same mistake in another scheduler, or its other half.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DEFECTS", "NO_REPORT", "Defect"]

NO_REPORT = "no report found"


@dataclass(frozen=True)
class Defect:
    """A defect, and where it is tracked; `pairs` are names of a subject and a check."""

    wrong: str
    pairs: tuple[tuple[str, str], ...]
    tracked: str = NO_REPORT


def _pairs(check: str, *subjects: str) -> tuple[tuple[str, str], ...]:
    return tuple((subject, check) for subject in subjects)


DEFECTS: tuple[Defect, ...] = (
    Defect(
        "resumed by last_epoch exactly at a decay it decays again: the constructor makes a step",
        _pairs("resume_by_last_epoch", "StepLR", "MultiStepLR", "ConstantLR",
               "ChainedScheduler", "TwoSchedulers"),
        "like pytorch/pytorch#102261, of ExponentialLR",
    ),
    Defect(
        "with T_mult > 1, resumed by last_epoch it goes on in the second cycle for ever",
        _pairs("resume_by_last_epoch", "CosineAnnealingWarmRestarts"),
        "pytorch/pytorch#110497",
    ),
    Defect(
        "resumed by last_epoch it starts its first scheduler again",
        _pairs("resume_by_last_epoch", "SequentialLR"),
        "pytorch/pytorch#162591",
    ),
    Defect(
        "resumed by last_epoch it counts its annealing from 0 again: it reads _step_count",
        _pairs("resume_by_last_epoch", "SWALR"),
    ),
    Defect(
        "with a tensor as LR, the constructor's own step goes by the rounded initial_lr",
        _pairs("resume_by_last_epoch", "CyclicLR", "CyclicLR-scale_fn"),
    ),
    Defect(
        "load_state_dict takes a key out of the given dict, so a second load from it raises",
        (
            *_pairs("resume_twice_from_one_dict", "CyclicLR", "CyclicLR-scale_fn",
                    "ChainedScheduler", "TwoSchedulers"),
            *_pairs("loading_leaves_its_argument_alone", "CyclicLR", "CyclicLR-scale_fn",
                    "ChainedScheduler", "TwoSchedulers"),
        ),
        "like pytorch/pytorch#32756, of LambdaLR",
    ),
    Defect(
        "annealed linearly, it accepts one step past its schedule, and its LR is negative there",
        _pairs("lr_is_never_negative", "OneCycleLR", "OneCycleLR-three_phase"),
        "like pytorch/pytorch#91765, of the same last step",
    ),
    Defect(
        "its LR is computed from the group's, which another scheduler changed, and falls below 0",
        _pairs("lr_is_never_negative", "SequentialLR", "ChainedScheduler"),
    ),
    Defect(
        "its milestones are integers as keys, which JSON and a distributed checkpoint lose",
        (
            *_pairs("resume_from_json", "MultiStepLR", "SequentialLR", "ChainedScheduler",
                    "TwoSchedulers"),
            *_pairs("resume_from_distributed_checkpoint", "MultiStepLR"),
            *_pairs("resume_on_two_ranks", "MultiStepLR"),
            *_pairs("resume_from_two_ranks", "MultiStepLR"),
            *_pairs("resume_across_two_ranks", "MultiStepLR"),
        ),
        "pytorch/pytorch#153842",
    ),
    Defect(
        "an object that was saved gives its attributes to one of another class",
        _pairs("resume_with_changed_options", "LambdaLR-stateful", "MultiplicativeLR-stateful"),
    ),
)  # fmt: skip
"""Every defect of PyTorch's schedulers on torch 2.13.0.

What they do when resumed in a way that leaves out a part of the state, or overwrites it
(`resume_scheduler_alone`, `resume_by_initial_lr`, `resume_built_on_loaded_optimizer`), is no
defect: nothing promises it.
"""
