"""Controls: correct schedulers as subjects, on which no check may alarm.

The planted faults of `lr_schedules.faults` are these with one thing wrong. Where one
can't serve a check by its nature, it declines.
"""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import strategies as st

from harness import Subject, step_with_metric
from lr_schedules.correct import (
    Bare,
    ClosedForm,
    Decay,
    Fall,
    FromCallable,
    Halving,
    Handover,
    Logs,
    Milestones,
    Momentum,
    Multiplies,
    Nested,
    Noise,
    PerGroup,
    Plateau,
    Ramp,
    Restarts,
    Table,
    TensorRate,
    Updates,
    give_count,
    take_count,
)

__all__ = ["CONTROLS"]


def new_tensor_sgd() -> torch.optim.Optimizer:
    """SGD whose LRs are tensors."""
    parameters = [torch.nn.Parameter(torch.tensor([value])) for value in (1.0, 0.5)]
    rates = [torch.tensor(0.125), torch.tensor(0.0625)]
    groups = [{"params": [p], "lr": lr} for p, lr in zip(parameters, rates, strict=True)]
    return torch.optim.SGD(groups, lr=1.0, momentum=0.9)


class Tag:
    """What only a program of one's own knows: ``weights_only`` refuses it."""


def new_tagged_sgd() -> torch.optim.Optimizer:
    """SGD whose groups hold an object."""
    groups: list[dict[str, Any]] = [
        {"params": [torch.nn.Parameter(torch.ones(1))], "tag": Tag()},
        {"params": [torch.nn.Parameter(torch.ones(2))], "tag": Tag(), "lr": 0.01},
    ]
    return torch.optim.SGD(groups, lr=0.1, momentum=0.9)


OF_THE_OPTIMIZER = "its load_state_dict leaves the groups' LR to the optimizer's own state"
BY_NAME_ALONE = "its state holds a function, which pickle knows by name alone"


WRITES = {"halve_lr": "it writes the LR of its schedule when its state is loaded"}


def _control(name: str, build: Any, **fields: Any) -> Subject:
    return Subject(name, build, standalone=True, **fields)


def _writer(name: str, build: Any, *, declines: dict[str, str] | None = None, **fields: Any) -> Any:
    """A control that writes the LR when its state is loaded."""
    return _control(name, build, declines={**WRITES, **(declines or {})}, **fields)


HALVING = _writer("halving", Halving)
CLOSED_FORM = _control(
    "closed-form",
    ClosedForm,
    declines={
        "resume_built_on_loaded_optimizer": OF_THE_OPTIMIZER,
        "resume_scheduler_alone": OF_THE_OPTIMIZER,
    },
)
PER_GROUP = _writer("per-group", PerGroup)
FROM_CALLABLE = _writer("from-callable", FromCallable)
PLATEAU = _writer("plateau", Plateau, step=step_with_metric)
TENSOR_RATE = _writer("tensor-rate", TensorRate, optimizer=new_tensor_sgd)
MOMENTUM = _writer("momentum", Momentum)
DECAY = _writer("decay", Decay)
TABLE = _writer(
    "table",
    Table,
    options={"table": st.lists(st.floats(0, 8), min_size=1, max_size=12)},
)
FALL = _writer("fall", Fall, options={"total": 4, "floor": 0.25})
NOISE = _writer("noise", Noise)
MILESTONES = _writer("milestones", Milestones)
RESTARTS = _writer("restarts", Restarts)
MULTIPLIES = _control(
    "multiplies",
    Multiplies,
    declines={
        "resume_by_initial_lr": "the LR to go on from is in the optimizer's state",
        "resume_scheduler_alone": "the LR to go on from is in the optimizer's state",
    },
)
RAMP = _writer("ramp", Ramp)
NESTED = _writer("nested", Nested)
LOGS = _writer("logs", Logs)
UPDATES = _writer("updates", Updates)
HANDOVER = _writer(
    "handover",
    Handover,
    declines={
        "resume_from_file": "its state holds a function, which weights_only refuses",
        "state_loads_with_weights_only": "its state holds a function, which weights_only refuses",
        "resume_from_legacy_file": BY_NAME_ALONE,
        "resume_from_distributed_checkpoint": BY_NAME_ALONE,
        "resume_twice_from_one_dict": "it takes over the dict that it is given",
        "loading_leaves_its_argument_alone": "it takes over the dict that it is given",
        "roll_back_in_place": "a live scheduler has its function already",
    },
)
BARE = _control(
    "bare",
    Bare,
    state_dict=take_count,
    load_state_dict=give_count,
    declines={
        "resume_built_on_loaded_optimizer": "it knows no initial_lr",
        "resume_scheduler_alone": OF_THE_OPTIMIZER,
    },
)
TAGGED = _writer(
    "tagged",
    Halving,
    optimizer=new_tagged_sgd,
    declines={"resume_from_file": "the optimizer's groups hold an object"},
)

CONTROLS: tuple[Subject, ...] = tuple(
    value for value in list(globals().values()) if isinstance(value, Subject)
)
"""Every control; of `TABLE` Hypothesis draws the table, so that "correct" is no finite list."""
