"""Finds what checks need and this scheduler, or this torch, does not have."""

from __future__ import annotations

import functools
import importlib
import io
import tempfile
import warnings
from collections.abc import Sequence
from typing import Any

import torch

from harness.core.errors import SubjectError
from harness.engine.option_changes import changes
from harness.subjects.subject import Bound


def lacks(bound: Bound, scheduler: Any, others: Sequence[Bound] = ()) -> dict[str, str]:
    """What checks may need and the scheduler does not have, each with the reason to report.

    `others` is the subject with other options. Raises `SubjectError` if the scheduler has no
    state at all.
    """
    if not (hasattr(scheduler, "state_dict") and hasattr(scheduler, "load_state_dict")):
        raise SubjectError(
            f"subject {bound.subject.name}: {type(scheduler).__name__} has no state_dict and "
            "load_state_dict, so a checkpoint holds nothing of it: add them, or give the Subject "
            "two functions in their place"
        )
    lacks = {}
    if not bound.options:
        lacks["options"] = "it has no options to change"
    elif not any(changes(bound, others)):
        lacks["options"] = (
            "none of its options holds a number that could change: give the Subject a 'drawn' "
            "strategy with other values"
        )
    if not hasattr(scheduler, "get_last_lr"):
        lacks["get_last_lr"] = "it has no get_last_lr"
    takes = bound.takes_last_epoch
    if takes:
        try:
            bound.build(bound.new_optimizer(), last_epoch=-1)
        except TypeError as error:
            takes = "last_epoch" not in str(error)
        except (Exception, SystemExit):
            takes = True  # the check will report this error
    if not takes:
        lacks["last_epoch"] = "its build takes no last_epoch"
    return lacks


def load_a_float() -> None:
    """Load a float by ``torch.load(weights_only=True)``; some torch releases can't."""
    file = io.BytesIO()
    torch.save(0.5, file)
    torch.load(io.BytesIO(file.getvalue()), weights_only=True)


@functools.cache
def _saves_without_ranks() -> bool:
    """Whether ``torch.distributed.checkpoint`` saves without a process group (since torch 2.3)."""
    from torch.distributed.checkpoint.filesystem import FileSystemWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    try:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns that there are no ranks
            save({"epoch": 0}, storage_writer=FileSystemWriter(folder, sync_files=False))
    except Exception:
        return False
    return True


def lacking(need: str) -> str:
    """Why this torch lacks what a check needs; empty if it has it.

    Called only if a check has this `need`: the imports may take a second.
    """
    if need == "distributed_checkpoint":
        try:
            importlib.import_module("torch.distributed.checkpoint.state_dict")
        except Exception:  # if torch has no distributed, the import fails in several ways
            return "this torch has no torch.distributed.checkpoint.state_dict"
        if not _saves_without_ranks():
            return "torch.distributed.checkpoint of this torch saves only in a process group"
    if need == "weights_only":
        try:
            load_a_float()
        except Exception:
            return "torch.load(weights_only=True) of this torch can't load a float"
    return ""
