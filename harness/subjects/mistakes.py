"""Common mistakes in a scheduler, or in the function that builds it, and the line to change."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer

from harness.core.training_loop import LRScheduler, describe

EACH = "[... for base in self.base_lrs]"


def wrong_result(build: Callable[..., Any], made: object) -> str:
    """What is wrong with what `build` returned; empty if it may be a scheduler."""
    name = getattr(build, "__name__", "build")
    if made is None:
        return f"{name} returns None: let it end with return scheduler"
    if isinstance(made, Optimizer):
        return f"{name} returns the optimizer: return the scheduler"
    if isinstance(made, type):
        return (
            f"{name} returns the class {made.__name__}: call it, as in "
            f"return {made.__name__}(optimizer, ...)"
        )
    return ""


def wrong_rates(optimizer: Optimizer) -> str:
    """What is wrong with the LRs that a scheduler has set; empty if they are numbers."""
    for group in optimizer.param_groups:
        rate = group["lr"]
        if not isinstance(rate, (int, float, torch.Tensor)) and not hasattr(rate, "__float__"):
            kind = type(rate).__name__
            return f"it sets lr to {rate!r:.40}, a {kind}: let get_lr return numbers, {EACH}"
    return ""


def advised(build: object, error: BaseException) -> str:
    """What `build` has raised, in one line, and what to change if that is known."""
    text = describe(error)
    found = advice(build, text, in_torch=_raised_in_torch(error))
    return f"{text}: {found}" if found else text


def advice(build: object, text: str, *, in_torch: bool = False) -> str:
    """What to change after `build`, or the first step, has raised what `text` describes.

    `in_torch` says whether torch's code raised it. Empty if nothing is known.
    """
    is_scheduler = isinstance(build, type) and issubclass(build, LRScheduler)
    if text.startswith("NotImplementedError") and is_scheduler:
        return f"it has no get_lr: add def get_lr(self): return {EACH}"
    if "zip() argument" in text:
        return f"get_lr must return one LR for each param group: return {EACH}"
    found = re.search(r"'(\w+)' object is not iterable", text)
    if found and is_scheduler and in_torch:
        kind = "None" if found[1] == "NoneType" else f"a {found[1]}"
        return f"get_lr returns {kind}: return one LR for each param group, {EACH}"
    lacks = re.search(r"no attribute '(_step_count|base_lrs|last_epoch|optimizer)'", text)
    if lacks and is_scheduler:
        return "its __init__ must call super().__init__(optimizer, last_epoch)"
    if found := re.search(r"step\(\) missing \d+ required [\w-]+ arguments?: (.*)", text):
        return (
            f"its step needs {found[1]}: give step=function, with function(scheduler, epoch), to a "
            "Subject or to check_scheduler, or --step MODULE.FUNCTION"
        )
    return ""


def _raised_in_torch(error: BaseException) -> bool:
    """Whether torch's code raised an exception, about a value that it was given."""
    place = error.__traceback__
    if place is None:
        return False
    while place.tb_next is not None:
        place = place.tb_next
    return str(place.tb_frame.f_globals.get("__name__", "")).startswith("torch.")
