"""Checks of file formats that a state can be saved in; each runs only if it is named.

A training library may keep a scheduler's state in a file of torch's older format, in
JSON next to the weights, or in a folder of ``torch.distributed.checkpoint``. The scheduler
loses what a format drops or changes. The JSON check is declined if the state can't be written
as JSON.

On torch 2.13.0 MultiStepLR does not survive JSON, because JSON turns keys into strings, and it
can't be saved again after a distributed checkpoint.
"""

from __future__ import annotations

import contextlib
import io
import json
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

import torch

from harness.core.check import resume_check
from harness.core.operations import ADDS_GROUP
from harness.core.training_loop import StateRefused, snapshot


def save_legacy_file(optimizer: Any, scheduler: Any, epoch: int) -> dict[str, Any]:
    """Write the states of both with ``torch.save``, in the format used before torch 1.6."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    file = io.BytesIO()
    states = {"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}
    torch.save(states, file, _use_new_zipfile_serialization=False)
    return {"file": file.getvalue(), "parameters": snapshot(parameters)}


def save_json(optimizer: Any, scheduler: Any, epoch: int) -> dict[str, Any]:
    """Write the scheduler's state as JSON, and copy the optimizer's, which contains tensors.

    Raises `StateRefused` if the scheduler's state can't be written as JSON.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state = scheduler.state_dict()
    try:
        text = json.dumps(state)
    except (TypeError, ValueError) as error:
        raise StateRefused(f"its state cannot be written as JSON: {error}") from error
    return {
        "optimizer": snapshot(optimizer.state_dict()),
        "json": text,
        "parameters": snapshot(parameters),
    }


def distributed_state(optimizer: Any, scheduler: Any) -> tuple[torch.nn.Module, dict[str, Any]]:
    """A module with the optimizer's parameters, and the states of all three for a checkpoint."""
    from torch.distributed.checkpoint.state_dict import get_state_dict  # not in every torch

    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    model = torch.nn.ParameterList(parameters)
    model_state, optimizer_state = get_state_dict(model, optimizer)
    state = {
        "model": model_state,
        "optimizer": optimizer_state,
        "scheduler": scheduler.state_dict(),
    }
    return model, state


@contextlib.contextmanager
def raise_the_cause() -> Iterator[None]:
    """Raise the cause of a ``CheckpointException``, which is not an `Exception`."""
    try:
        yield
    except BaseException as error:
        for cause, _ in getattr(error, "failures", {}).values():
            raise cause from None
        raise


def save_distributed(optimizer: Any, scheduler: Any, epoch: int) -> dict[str, Any]:
    """Write the states of both, and the parameters, with ``torch.distributed.checkpoint``."""
    from torch.distributed.checkpoint.filesystem import FileSystemWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    _, state = distributed_state(optimizer, scheduler)
    with tempfile.TemporaryDirectory() as folder, raise_the_cause():
        save(state, storage_writer=FileSystemWriter(folder, sync_files=False))
        return {"files": {file.name: file.read_bytes() for file in pathlib.Path(folder).iterdir()}}


def load_distributed(optimizer: Any, scheduler: Any, checkpoint: Any) -> None:
    """Load what `save_distributed` wrote into a new pair, and into the parameters."""
    from torch.distributed.checkpoint.state_dict import set_state_dict
    from torch.distributed.checkpoint.state_dict_loader import load

    model, state = distributed_state(optimizer, scheduler)
    with tempfile.TemporaryDirectory() as folder, raise_the_cause():
        for name, content in checkpoint["files"].items():
            pathlib.Path(folder, name).write_bytes(content)
        load(state, checkpoint_id=folder)
    set_state_dict(
        model, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"]
    )
    scheduler.load_state_dict(state["scheduler"])


@resume_check(default=False, save=save_legacy_file)
def resume_from_legacy_file(new_optimizer: Any, build: Any, checkpoint: Any) -> Any:
    """Build both, load a file in the format before torch 1.6, with weights_only=False.

    Unlike `resume_from_file` it accepts any object. Dtypes newer than the format, such
    as ``torch.float8_e5m2``, are written without an error and can't be read.
    """
    loaded = torch.load(io.BytesIO(checkpoint["file"]), weights_only=False)
    optimizer = new_optimizer()
    scheduler = build(optimizer)
    optimizer.load_state_dict(loaded["optimizer"])
    scheduler.load_state_dict(loaded["scheduler"])
    return optimizer, scheduler


@resume_check(default=False, save=save_json, needs=("json",))
def resume_from_json(new_optimizer: Any, build: Any, checkpoint: Any) -> Any:
    """Build both, load the optimizer's state, then the scheduler's from JSON.

    JSON turns a dict's keys into strings and tuples into lists.
    """
    optimizer = new_optimizer()
    scheduler = build(optimizer)
    optimizer.load_state_dict(checkpoint["optimizer"])
    scheduler.load_state_dict(json.loads(checkpoint["json"]))
    return optimizer, scheduler


# From epoch 1 on: if an optimizer has no state yet, get_state_dict makes one by a step with LR 0,
# which puts the weight decay into the momentum of the saved run. For the same reason not after
# a group was added, because it may have no state yet.
@resume_check(
    default=False, save=save_distributed, needs=("distributed_checkpoint",), from_epoch=1,
    search=False, without=ADDS_GROUP,
)  # fmt: skip
def resume_from_distributed_checkpoint(new_optimizer: Any, build: Any, checkpoint: Any) -> Any:
    """Build both, load in one process what torch.distributed.checkpoint saved.

    Loading fills in the new scheduler's state: keys that are not in it are left
    out, and keys that are not strings are not restored.
    """
    optimizer = new_optimizer()
    scheduler = build(optimizer)
    load_distributed(optimizer, scheduler, checkpoint)
    return optimizer, scheduler
