"""Transports: how a checkpoint is written, and how it is read again.

A transport is a pair of functions. ``save(optimizer, scheduler, epoch)`` returns the checkpoint in
the form in which it is stored; ``load(checkpoint)`` turns that into what a route resumes from. A
transport without a ``load`` stores what the route uses.

A training library may keep a scheduler's state in a file of torch's older format, in JSON next to
the weights, or in a folder of ``torch.distributed.checkpoint``. The scheduler loses what a format
drops or changes. On torch 2.13.0 MultiStepLR does not survive JSON, because JSON turns keys into
strings, and it can't be saved again after a distributed checkpoint.

Reproduction scripts contain these functions unchanged: see `harness.core.training_loop`.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import pathlib
import pickle
import tempfile
from collections.abc import Iterator

import torch
from torch.optim import Optimizer

from harness.core.training_loop import StateRefused, parameters_of, plain, snapshot
from harness.core.types import Checkpoint, Scheduler


def save_optimizer(optimizer: Optimizer, scheduler: Scheduler, epoch: int) -> Checkpoint:
    """Copy the optimizer's state and the epoch; the scheduler is not saved."""
    return {
        "optimizer": snapshot(optimizer.state_dict()),
        "parameters": snapshot(parameters_of(optimizer)),
        "epoch": epoch,
    }


def save_nothing(optimizer: Optimizer, scheduler: Scheduler, epoch: int) -> Checkpoint:
    """Save nothing, for a check of the running scheduler alone."""
    return {}


def save_live(optimizer: Optimizer, scheduler: Scheduler, epoch: int) -> Checkpoint:
    """Keep the dict that ``scheduler.state_dict()`` returns, and a copy of its present content."""
    state = scheduler.state_dict()
    return {"kept": state, "then": plain(state)}


def save_live_optimizer(optimizer: Optimizer, scheduler: Scheduler, epoch: int) -> Checkpoint:
    """Keep the dict that ``optimizer.state_dict()`` returns, and a copy of its present content."""
    state = optimizer.state_dict()
    return {"kept": state, "then": plain(state)}


def save_deepcopy(optimizer: Optimizer, scheduler: Scheduler, epoch: int) -> Checkpoint:
    """Copy optimizer and scheduler together with ``copy.deepcopy``."""
    return {"both": copy.deepcopy((optimizer, scheduler))}


def save_pickle(optimizer: Optimizer, scheduler: Scheduler, epoch: int) -> Checkpoint:
    """Pickle optimizer and scheduler together.

    Raises `StateRefused` if one of them holds a lambda, or a function inside a function.
    """
    try:
        return {"pickle": pickle.dumps((optimizer, scheduler))}
    except (AttributeError, pickle.PicklingError, TypeError) as error:
        if "<lambda>" not in str(error) and "<locals>" not in str(error):
            raise
        raise StateRefused(f"it holds what pickle refuses: {error}") from error


def load_pickle(checkpoint: Checkpoint) -> Checkpoint:
    """Read what `save_pickle` wrote."""
    return {"both": pickle.loads(checkpoint["pickle"])}


def save_file(optimizer: Optimizer, scheduler: Scheduler, epoch: int) -> Checkpoint:
    """Write the states of both with ``torch.save``."""
    file = io.BytesIO()
    torch.save({"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}, file)
    return {"file": file.getvalue(), "parameters": snapshot(parameters_of(optimizer))}


def load_file(checkpoint: Checkpoint) -> Checkpoint:
    """Read what `save_file` wrote, with ``weights_only=True``."""
    states = torch.load(io.BytesIO(checkpoint["file"]), weights_only=True)
    return {**states, "parameters": checkpoint["parameters"]}


def save_legacy_file(optimizer: Optimizer, scheduler: Scheduler, epoch: int) -> Checkpoint:
    """Write the states of both with ``torch.save``, in the format used before torch 1.6.

    Dtypes newer than the format, such as ``torch.float8_e5m2``, are written without an error and
    can't be read.
    """
    file = io.BytesIO()
    states = {"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}
    torch.save(states, file, _use_new_zipfile_serialization=False)
    return {"file": file.getvalue(), "parameters": snapshot(parameters_of(optimizer))}


def load_legacy_file(checkpoint: Checkpoint) -> Checkpoint:
    """Read what `save_legacy_file` wrote; unlike `load_file`, with objects of any class."""
    states = torch.load(io.BytesIO(checkpoint["file"]), weights_only=False)
    return {**states, "parameters": checkpoint["parameters"]}


def save_json(optimizer: Optimizer, scheduler: Scheduler, epoch: int) -> Checkpoint:
    """Write the scheduler's state as JSON, and copy the optimizer's, which contains tensors.

    JSON turns a dict's keys into strings and tuples into lists. Raises `StateRefused` if the
    scheduler's state can't be written as JSON.
    """
    state = scheduler.state_dict()
    try:
        text = json.dumps(state)
    except (TypeError, ValueError) as error:
        raise StateRefused(f"its state cannot be written as JSON: {error}") from error
    return {
        "optimizer": snapshot(optimizer.state_dict()),
        "json": text,
        "parameters": snapshot(parameters_of(optimizer)),
    }


def load_json(checkpoint: Checkpoint) -> Checkpoint:
    """Read what `save_json` wrote."""
    return {**checkpoint, "scheduler": json.loads(checkpoint["json"])}


def distributed_state(
    optimizer: Optimizer, scheduler: Scheduler
) -> tuple[torch.nn.Module, Checkpoint]:
    """A module with the optimizer's parameters, and the states of all three for a checkpoint."""
    from torch.distributed.checkpoint.state_dict import get_state_dict  # not in every torch

    model = torch.nn.ParameterList(parameters_of(optimizer))
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


def save_distributed(optimizer: Optimizer, scheduler: Scheduler, epoch: int) -> Checkpoint:
    """Write the states of both, and the parameters, with ``torch.distributed.checkpoint``."""
    from torch.distributed.checkpoint.filesystem import FileSystemWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    _, state = distributed_state(optimizer, scheduler)
    with tempfile.TemporaryDirectory() as folder, raise_the_cause():
        save(state, storage_writer=FileSystemWriter(folder, sync_files=False))
        return {"files": {file.name: file.read_bytes() for file in pathlib.Path(folder).iterdir()}}
