"""The ways of resuming, in plain torch. Each is a promise about a scheduler."""

from __future__ import annotations

import copy
import pathlib
import tempfile

from torch.optim import Optimizer

from harness.checks import transports
from harness.checks.transports import distributed_state, raise_the_cause
from harness.core.check import check_of, resume_check
from harness.core.operations import ADDS_GROUP, BY_HAND
from harness.core.types import Build, Checkpoint, NewOptimizer, OptimizerAndScheduler, Scheduler


@resume_check
def resume_optimizer_then_scheduler(
    new_optimizer: NewOptimizer, build: Build, checkpoint: Checkpoint
) -> OptimizerAndScheduler:
    """Build both, load the optimizer's state, then the scheduler's."""
    optimizer = new_optimizer()
    scheduler = build(optimizer)
    optimizer.load_state_dict(checkpoint["optimizer"])
    scheduler.load_state_dict(checkpoint["scheduler"])
    return optimizer, scheduler


DOCUMENTED = check_of(resume_optimizer_then_scheduler)
"""The documented route; the checks below use it at other moments."""


@resume_check
def resume_scheduler_then_optimizer(
    new_optimizer: NewOptimizer, build: Build, checkpoint: Checkpoint
) -> OptimizerAndScheduler:
    """Build both, load the scheduler's state, then the optimizer's."""
    optimizer = new_optimizer()
    scheduler = build(optimizer)
    scheduler.load_state_dict(checkpoint["scheduler"])
    optimizer.load_state_dict(checkpoint["optimizer"])
    return optimizer, scheduler


resume_from_file = DOCUMENTED.variant(
    "resume_from_file",
    "Build both, load with torch.load(weights_only=True) the states that torch.save wrote.",
    save=transports.save_file, load=transports.load_file, needs=("weights_only",),
)  # fmt: skip


resume_after_halve_lr = DOCUMENTED.variant(
    "resume_after_halve_lr",
    "After the LR was halved by hand, build both, load both states: the halved LR goes on.",
    event="halve_lr", about="what is set by hand",
)  # fmt: skip
resume_after_add_group = DOCUMENTED.variant(
    "resume_after_add_group",
    "After a param group was added, build both with that group, load both states.",
    event="add_group", about="what is set by hand",
)  # fmt: skip


@resume_check(at="load")
def roll_back_in_place(
    optimizer: Optimizer, scheduler: Scheduler, checkpoint: Checkpoint
) -> OptimizerAndScheduler:
    """Load the states into the live optimizer and scheduler, to go back in time."""
    optimizer.load_state_dict(checkpoint["optimizer"])
    scheduler.load_state_dict(checkpoint["scheduler"])
    return optimizer, scheduler


resume_twice_from_one_dict = DOCUMENTED.variant(
    "resume_twice_from_one_dict",
    "Load the same scheduler state dict into two runs.",
    same_dict=True,
)
resume_at_every_save = DOCUMENTED.variant(
    "resume_at_every_save",
    "Stop at every save, build both, and resume from it, again and again.",
    at="save",
)


@resume_check(save=transports.save_deepcopy, about="the scheduler and the optimizer together")
def resume_by_deepcopy(checkpoint: Checkpoint) -> OptimizerAndScheduler:
    """Go on with a copy.deepcopy of optimizer and scheduler that was made at the save."""
    optimizer, scheduler = checkpoint["both"]
    return optimizer, scheduler


resume_by_pickle = check_of(resume_by_deepcopy).variant(
    "resume_by_pickle",
    "Go on with optimizer and scheduler from a pickle that was made at the save.",
    save=transports.save_pickle, load=transports.load_pickle, needs=("pickle",),
)  # fmt: skip


@resume_check(
    save=transports.save_optimizer, needs=("last_epoch",), from_epoch=1, without=BY_HAND,
    about="what last_epoch means",
)  # fmt: skip
def resume_by_last_epoch(
    new_optimizer: NewOptimizer, build: Build, checkpoint: Checkpoint
) -> OptimizerAndScheduler:
    """Load the optimizer's state, then build with last_epoch=k-1 after k scheduler steps.

    The constructor makes a step itself, so ``last_epoch=k-1`` gives the new
    scheduler the ``last_epoch`` of the uninterrupted run, k. At k=0 there is
    nothing to resume: ``last_epoch=-1`` is a new start.
    """
    optimizer = new_optimizer()
    optimizer.load_state_dict(checkpoint["optimizer"])
    scheduler = build(optimizer, last_epoch=checkpoint["epoch"] - 1)
    return optimizer, scheduler


@resume_check(default=False)
def resume_built_on_loaded_optimizer(
    new_optimizer: NewOptimizer, build: Build, checkpoint: Checkpoint
) -> OptimizerAndScheduler:
    """Load the optimizer's state, build the scheduler after it, load the scheduler's state."""
    optimizer = new_optimizer()
    optimizer.load_state_dict(checkpoint["optimizer"])
    scheduler = build(optimizer)
    scheduler.load_state_dict(checkpoint["scheduler"])
    return optimizer, scheduler


@resume_check(
    default=False, save=transports.save_optimizer, needs=("last_epoch",), from_epoch=1,
    weights=False, about="what initial_lr and last_epoch mean", without=BY_HAND,
)  # fmt: skip
def resume_by_initial_lr(
    new_optimizer: NewOptimizer, build: Build, checkpoint: Checkpoint
) -> OptimizerAndScheduler:
    """Give a new optimizer's groups only initial_lr, and build with last_epoch=k-1.

    k is the number of scheduler steps, like in `resume_by_last_epoch`. The optimizer's
    own state is lost, so the weights are not compared.
    """
    optimizer = new_optimizer()
    for group in optimizer.param_groups:
        group["initial_lr"] = copy.deepcopy(group["lr"])  # a scheduler may write to a tensor
    scheduler = build(optimizer, last_epoch=checkpoint["epoch"] - 1)
    return optimizer, scheduler


@resume_check(default=False, weights=False, without=BY_HAND)
def resume_scheduler_alone(
    new_optimizer: NewOptimizer, build: Build, checkpoint: Checkpoint
) -> OptimizerAndScheduler:
    """Build both, and load the scheduler's state without the optimizer's.

    The optimizer's own state is lost, so the weights are not compared.
    """
    optimizer = new_optimizer()
    scheduler = build(optimizer)
    scheduler.load_state_dict(checkpoint["scheduler"])
    return optimizer, scheduler


@resume_check(default=False, about="what the checkpoint holds")
def resume_with_other_initial_lrs(
    new_optimizer: NewOptimizer, build: Build, checkpoint: Checkpoint
) -> OptimizerAndScheduler:
    """Build both with other initial LRs, then load both states: the saved LRs win."""
    optimizer = new_optimizer()
    for group in optimizer.param_groups:
        group["lr"] = group["lr"] * 2
    scheduler = build(optimizer)
    optimizer.load_state_dict(checkpoint["optimizer"])
    scheduler.load_state_dict(checkpoint["scheduler"])
    return optimizer, scheduler


resume_in_another_process = DOCUMENTED.variant(
    "resume_in_another_process",
    "Save with torch.save in this process; in a new process, build both and load the states.",
    default=False, search=False, other_process="resume", about="what the checkpoint holds",
)  # fmt: skip
resume_from_another_process = DOCUMENTED.variant(
    "resume_from_another_process",
    "Begin the run and save with torch.save in a new process; build both and load here.",
    default=False, search=False, other_process="save", about="what the checkpoint holds",
)  # fmt: skip
resume_with_changed_options = DOCUMENTED.variant(
    "resume_with_changed_options",
    "Build with a changed option, load both: the saved one wins, or the new one, or it raises.",
    default=False, needs=("options",), weights=False, search=False, changes_options=True,
    prerequisite=DOCUMENTED, about="which option wins if options change on resume",
)  # fmt: skip
"""One of three contracts must hold exactly at every save point; see
`harness.checks.changed_options`."""


resume_from_legacy_file = DOCUMENTED.variant(
    "resume_from_legacy_file",
    "Build both, load a file in the format before torch 1.6, with weights_only=False.",
    default=False, save=transports.save_legacy_file, load=transports.load_legacy_file,
)  # fmt: skip
resume_from_json = DOCUMENTED.variant(
    "resume_from_json",
    "Build both, load the optimizer's state, then the scheduler's from JSON.",
    default=False, save=transports.save_json, load=transports.load_json, needs=("json",),
)  # fmt: skip


# If an optimizer has no state yet, get_state_dict makes one by a step with LR 0, which puts the
# weight decay into the momentum of the saved run. So this check resumes from epoch 1 on, and not
# after a group was added, because that group may have no state yet.
@resume_check(
    default=False, save=transports.save_distributed, needs=("distributed_checkpoint",),
    from_epoch=1, search=False, without=ADDS_GROUP,
)  # fmt: skip
def resume_from_distributed_checkpoint(
    new_optimizer: NewOptimizer, build: Build, checkpoint: Checkpoint
) -> OptimizerAndScheduler:
    """Build both, load in one process what torch.distributed.checkpoint saved.

    torch.distributed.checkpoint reads into the states of a new pair, so this is a route of its
    own: keys that are not in the new scheduler's state are left out, and keys that are not strings
    are not restored.
    """
    from torch.distributed.checkpoint.state_dict import set_state_dict
    from torch.distributed.checkpoint.state_dict_loader import load

    optimizer = new_optimizer()
    scheduler = build(optimizer)
    model, state = distributed_state(optimizer, scheduler)
    with tempfile.TemporaryDirectory() as folder, raise_the_cause():
        for name, content in checkpoint["files"].items():
            pathlib.Path(folder, name).write_bytes(content)
        load(state, checkpoint_id=folder)
    set_state_dict(
        model, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"]
    )
    scheduler.load_state_dict(state["scheduler"])
    return optimizer, scheduler


@resume_check(mixes=True)
def resumes_mixed() -> None:
    """Resume in one run with all the resume checks that hold alone."""
