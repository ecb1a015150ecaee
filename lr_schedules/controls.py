"""Controls: correct schedulers as subjects, which no check may report as broken.

The planted faults in `lr_schedules.faults` are controls with one defect. A control declines
the checks that it can't support.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from hypothesis import strategies as st

from harness import Subject, Term, step_with_metric
from harness.core.types import State
from lr_schedules.callables import Fading
from lr_schedules.correct import (
    Bare,
    ClosedForm,
    DecaysWeights,
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
from lr_schedules.tricky import (
    Caller,
    Cycles,
    FirstMoment,
    Generated,
    Grandchild,
    InTheGroups,
    LazyTable,
    Locked,
    Memoised,
    Numbers,
    Phases,
    Slots,
    ThroughProperties,
    Window,
)


def new_tensor_sgd() -> torch.optim.Optimizer:
    """SGD whose LRs are tensors."""
    parameters = [torch.nn.Parameter(torch.tensor([value])) for value in (1.0, 0.5)]
    rates = [torch.tensor(0.125), torch.tensor(0.0625)]
    groups = [{"params": [p], "lr": lr} for p, lr in zip(parameters, rates, strict=True)]
    return torch.optim.SGD(groups, lr=1.0, momentum=0.9)


def new_sgd_without_state() -> torch.optim.Optimizer:
    """SGD without momentum, which keeps no tensors of its own."""
    groups: list[State] = [
        {"params": [torch.nn.Parameter(torch.ones(1))]},
        {"params": [torch.nn.Parameter(torch.ones(2))], "lr": 0.01},
    ]
    return torch.optim.SGD(groups, lr=0.1)


class Tag:
    """A class that only this program knows, so ``weights_only`` refuses it."""


def new_tagged_sgd() -> torch.optim.Optimizer:
    """SGD with an object in its groups."""
    groups: list[State] = [
        {"params": [torch.nn.Parameter(torch.ones(1))], "tag": Tag()},
        {"params": [torch.nn.Parameter(torch.ones(2))], "tag": Tag(), "lr": 0.01},
    ]
    return torch.optim.SGD(groups, lr=0.1, momentum=0.9)


WRITES_NO_LR = (
    "its load_state_dict writes no LR, as with torch's schedulers: the LR is in the optimizer's "
    "state"
)
BY_NAME_ALONE = "its state holds a function, which pickle stores by name only"
HOLDS_TENSORS = (
    "its optimizer's state_dict holds the tensors themselves, as with all of torch's: a "
    "checkpoint in memory needs copy.deepcopy"
)
OF_ITS_OPTIMIZER = "its state does not hold the initial LRs: it takes them from its optimizer"
KEY_BY_KEY = "it loads its state key by key"
AS_TORCH_DOES = "it adds whatever it is given to its attributes, as torch's schedulers do"


def _control(
    name: str,
    build: Callable[..., object],
    *,
    saves_lrs: bool = False,
    stateless_optimizer: bool = False,
    declines: Mapping[str, str] = MappingProxyType({}),
    **fields: Any,
) -> Subject:
    """A control, which declines what its optimizer does not allow, or its state does not hold."""
    declines = dict(declines)
    if not stateless_optimizer:
        declines["optimizer_state_is_a_snapshot"] = HOLDS_TENSORS
    if not saves_lrs:
        declines["resume_with_other_initial_lrs"] = OF_ITS_OPTIMIZER
    return Subject(name, build, standalone=True, declines=declines, **fields)


HALVING = _control("halving", Halving)
CLOSED_FORM = _control(
    "closed-form",
    ClosedForm,
    saves_lrs=True,
    declines={
        "states_of_others_are_refused": AS_TORCH_DOES,
        "resume_built_on_loaded_optimizer": WRITES_NO_LR,
        "resume_scheduler_alone": WRITES_NO_LR,
    },
)
PER_GROUP = _control("per-group", PerGroup, saves_lrs=True)
FROM_CALLABLE = _control(
    "from-callable", FromCallable, declines={"failed_load_changes_nothing": KEY_BY_KEY}
)
PLATEAU = _control(
    "plateau",
    Plateau,
    step=step_with_metric,
    declines={"states_of_others_are_refused": AS_TORCH_DOES},
)
TENSOR_RATE = _control("tensor-rate", TensorRate, optimizer=new_tensor_sgd)
MOMENTUM = _control("momentum", Momentum)
DECAY = _control("decay", DecaysWeights)
TABLE = _control(
    "table",
    Table,
    options={"table": st.lists(st.floats(0, 8), min_size=1, max_size=12)},
)
FALL = _control("fall", Fall, options={"total": 4, "floor": 0.25})
SAVED_FALL = _control("saved-fall", Fall, options={"total": 4, "floor": 0.25}, contract="saved")
NOISE = _control("noise", Noise, declines={"failed_load_changes_nothing": KEY_BY_KEY})
MILESTONES = _control(
    "milestones", Milestones, declines={"failed_load_changes_nothing": KEY_BY_KEY}
)
RESTARTS = _control("restarts", Restarts, declines={"failed_load_changes_nothing": KEY_BY_KEY})
MULTIPLIES = _control(
    "multiplies",
    Multiplies,
    saves_lrs=True,
    declines={
        "resume_by_initial_lr": "it goes on from the LR in the optimizer's state",
        "resume_scheduler_alone": "it goes on from the LR in the optimizer's state",
    },
)
RAMP = _control("ramp", Ramp)
NESTED = _control(
    "nested",
    Nested,
    declines={
        "halve_lr": "it writes the LR of its child when its state is loaded",
        "failed_load_changes_nothing": KEY_BY_KEY,
    },
)
LOGS = _control("logs", Logs)
UPDATES = _control("updates", Updates, declines={"failed_load_changes_nothing": KEY_BY_KEY})
HANDOVER = _control(
    "handover",
    Handover,
    declines={
        "resume_from_file": "its state holds a function, which weights_only refuses",
        "state_loads_with_weights_only": "its state holds a function, which weights_only refuses",
        "resume_from_legacy_file": BY_NAME_ALONE,
        "resume_from_distributed_checkpoint": BY_NAME_ALONE,
        "resume_twice_from_one_dict": "it changes the dict that it loads",
        "loading_leaves_its_argument_alone": "it changes the dict that it loads",
    },
)
BARE = _control(
    "bare",
    Bare,
    state_dict=take_count,
    load_state_dict=give_count,
    saves_lrs=True,
    declines={
        "states_of_others_are_refused": "it does not look at how many base LRs it is given",
        "resume_built_on_loaded_optimizer": "it does not use initial_lr",
        "resume_scheduler_alone": WRITES_NO_LR,
    },
)
TAGGED = _control(
    "tagged",
    Halving,
    optimizer=new_tagged_sgd,
    declines={"resume_from_file": "the optimizer's groups hold an object"},
)
WITHOUT_STATE = _control(
    "without-state", Halving, optimizer=new_sgd_without_state, stateless_optimizer=True
)

SLOTS = _control("slots", Slots)
LAZY_TABLE = _control("lazy-table", LazyTable, options={"total": 6}, contract="saved")
MEMOISED = _control("memoised", Memoised, options={"decay": 0.75}, contract="saved")
GENERATED = _control("generated", Generated)
LOCKED = _control("locked", Locked)
THROUGH_PROPERTIES = _control("through-properties", ThroughProperties)
IN_THE_GROUPS = _control(
    "in-the-groups",
    InTheGroups,
    saves_lrs=True,
    declines={
        "resume_scheduler_alone": "its position is in the optimizer's state",
        "add_group": "it writes to an added group when it is built again",
    },
)
GRANDCHILD = _control(
    "grandchild",
    Grandchild,
    saves_lrs=True,
    options={"start": 3, "floor": 0.25},
    contract="saved",
    declines={
        "states_of_others_are_refused": AS_TORCH_DOES,
        "resume_built_on_loaded_optimizer": WRITES_NO_LR,
        "resume_scheduler_alone": WRITES_NO_LR,
    },
)
WINDOW = _control(
    "window",
    Window,
    step=step_with_metric,
    declines={"states_of_others_are_refused": AS_TORCH_DOES},
)
NUMBERS = _control("numbers", Numbers, declines={"failed_load_changes_nothing": KEY_BY_KEY})
PHASES = _control("phases", Phases, declines={"failed_load_changes_nothing": KEY_BY_KEY})
CYCLES = _control(
    "cycles",
    Cycles,
    options={"first": 50, "times": 2},
    declines={"failed_load_changes_nothing": KEY_BY_KEY},
)
TENFOLD = _control(
    "tenfold",
    Cycles,
    options={"first": 1, "times": 10},
    declines={"failed_load_changes_nothing": KEY_BY_KEY},
)
CALLER = _control(
    "caller",
    Caller,
    options={"fall": Term.of("Fading", 0.75)},
    words={"Fading": Fading},
    declines={"failed_load_changes_nothing": KEY_BY_KEY},
)
FIRST_MOMENT = _control("first-moment", FirstMoment)

CONTROLS: tuple[Subject, ...] = tuple(
    value for value in list(globals().values()) if isinstance(value, Subject)
)
"""Every control. Hypothesis draws the table of `TABLE`, so there are many correct schedulers."""
