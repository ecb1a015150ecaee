"""Observes a run, saves its state, and steps a scheduler, in plain torch.

Reproduction scripts contain these functions: each is pasted unchanged, so each
may use only torch, the standard library and the other functions of this file.
"""

from __future__ import annotations

import copy
import functools
import importlib
import re
import types
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.optim import lr_scheduler

from harness.core.run import MISSING, Observation, same
from harness.core.types import Checkpoint, Scheduler, State

LRScheduler: type = getattr(lr_scheduler, "LRScheduler", lr_scheduler._LRScheduler)
"""PyTorch's base class, which has only the private name before torch 2.0."""


class StateRefused(Exception):
    """A format cannot store this state: nothing was tried, and nothing is broken."""


def new_sgd() -> torch.optim.Optimizer:
    """A new SGD optimizer: momentum, weight decay, two groups with different LRs."""
    first = torch.nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    second = torch.nn.Parameter(torch.tensor([0.5], dtype=torch.float64))
    groups: list[State] = [{"params": [first]}, {"params": [second], "lr": 0.01}]
    return torch.optim.SGD(groups, lr=0.1, momentum=0.9, weight_decay=0.001)


def step_scheduler(scheduler: Scheduler, epoch: int) -> None:
    """Step the scheduler, as at the end of an epoch."""
    scheduler.step()


def metric_at(epoch: int) -> float:
    """A metric that falls, stays the same and rises in turn."""
    return (4.0, 3.0, 3.0, 3.0, 3.5, 2.0, 2.0, 2.0)[epoch % 8] - epoch // 8 % 2


def step_with_metric(scheduler: Scheduler, epoch: int) -> None:
    """Step the scheduler with the metric of the epoch (`metric_at`)."""
    scheduler.step(metric_at(epoch))


def metrics(values: list[float], kind: str = "float") -> Callable[[Scheduler, int], None]:
    """A step function that gives the scheduler `values` one after the other, again and again.

    The `kind` is ``float``; ``tensor`` for one tensor that holds each value in turn, as a running
    loss does; or ``numpy`` for numbers of numpy.
    """
    if kind == "numpy":
        kinds = importlib.import_module("numpy")
        values = [kinds.float64(value) for value in values]
    running = torch.zeros((), dtype=torch.float64)

    def step(scheduler: Scheduler, epoch: int) -> None:
        value = values[epoch % len(values)]
        scheduler.step(running.fill_(value) if kind == "tensor" else value)

    return step


def observe(optimizer: torch.optim.Optimizer, scheduler: Scheduler) -> Observation:
    """What the optimizer will use at its next step, and what the scheduler reports."""
    seen: Observation = {}
    for name in ("lr", "momentum", "betas", "weight_decay"):
        values = [numbers(group[name]) for group in optimizer.param_groups if name in group]
        if values:
            seen[name] = values
    if hasattr(scheduler, "get_last_lr"):
        try:
            seen["get_last_lr"] = numbers(scheduler.get_last_lr())
        except (Exception, SystemExit) as error:  # before the first step, in some versions
            seen["get_last_lr"] = f"raises {type(error).__name__}"
    seen["weights"] = [
        parameter.tolist() for group in optimizer.param_groups for parameter in group["params"]
    ]
    return seen


def numbers(value: object) -> object:
    """A hyperparameter as numbers and lists, to be compared and shown."""
    if type(value) is not float and hasattr(value, "tolist") and hasattr(value, "dtype"):
        kind = "tensor" if isinstance(value, torch.Tensor) else "numpy"
        return {kind: value.tolist(), "dtype": str(value.dtype)}
    return [numbers(item) for item in value] if isinstance(value, (list, tuple)) else value


def plain(value: object, inside: tuple[int, ...] = ()) -> object:
    """A state in numbers, strings, lists and dicts, to be compared and shown."""
    if value is None or isinstance(value, (bool, int, float, str, bytes)):
        return value
    if isinstance(value, torch.Tensor) or hasattr(value, "tolist"):
        return numbers(value)
    if id(value) in inside:
        return "(seen above)"
    inside = (*inside, id(value))
    if isinstance(value, Mapping):
        return {
            key if isinstance(key, (str, int)) else repr(plain(key)): plain(item, inside)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [plain(item, inside) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted((plain(item, inside) for item in value), key=repr)
    if isinstance(value, functools.partial):
        return {"partial": plain([value.func, value.args, value.keywords], inside)}
    if isinstance(value, (type, types.FunctionType, types.BuiltinFunctionType)):
        return f"{value.__module__}.{value.__qualname__}"
    if isinstance(value, types.MethodType):
        return f"{type(value.__self__).__qualname__}().{value.__name__}"
    name = f"{type(value).__module__}.{type(value).__qualname__}"
    return {"object": name, "state": plain(getattr(value, "__dict__", {}), inside)}


def describe(error: BaseException) -> str:
    """An exception in one line, without colours, and without its middle if it is long.

    ``torch.load(weights_only=True)`` names what it refused late in its message; this is kept.
    """
    try:
        text = str(error)
    except Exception as another:
        text = f"its text can't be made: {type(another).__name__}"
    text = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", text).split())
    advice, _, refused = text.partition("WeightsUnpickler error: ")
    if refused:
        text = f"{advice.partition('.')[0]}: {refused}"
    text = text if len(text) <= 400 else f"{text[:200]} ... {text[-200:]}"
    line = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)  # as `one_line` does


def differences(expected: object, actual: object) -> tuple[Observation, Observation]:
    """What differs between two plain values, by key if both are dicts."""
    if same(expected, actual):
        return {}, {}
    if not isinstance(expected, dict) or not isinstance(actual, dict):
        return {"value": expected}, {"value": actual}
    keys = [
        key
        for key in [*expected, *(key for key in actual if key not in expected)]
        if key not in expected or key not in actual or not same(expected[key], actual[key])
    ]
    if len(keys) > 1 and "weights" in keys:
        keys.remove("weights")  # they follow from the rest
    left = {str(key): expected.get(key, MISSING) for key in keys}
    right = {str(key): actual.get(key, MISSING) for key in keys}
    if all("lr" in side and side["lr"] == side.get("get_last_lr") for side in (left, right)):
        del left["get_last_lr"], right["get_last_lr"]  # it says the same
    return left, right


def parameters_of(optimizer: torch.optim.Optimizer) -> list[torch.nn.Parameter]:
    """The parameters that an optimizer updates."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def snapshot(value: Any) -> Any:
    """A copy of `value` that shares nothing with it, like a copy in a file."""
    try:
        return copy.deepcopy(value)
    except Exception:  # such as a lock: not copied; the rest is
        return {key: snapshot(value[key]) for key in value} if type(value) is dict else value


def save_checkpoint(
    optimizer: torch.optim.Optimizer, scheduler: Scheduler, epoch: int
) -> Checkpoint:
    """Copy the states of both, so that later steps do not change them, as in a file."""
    return {
        "optimizer": snapshot(optimizer.state_dict()),
        "scheduler": snapshot(scheduler.state_dict()),
        "parameters": snapshot(parameters_of(optimizer)),
        "epoch": epoch,
    }


def restore_parameters(optimizer: torch.optim.Optimizer, checkpoint: Checkpoint) -> None:
    """Copy the values in a checkpoint, if it has any, into the parameters, like loading a model."""
    with torch.no_grad():
        for parameter, value in zip(parameters_of(optimizer), checkpoint.get("parameters", [])):  # noqa: B905
            parameter.copy_(value)


class Stateful:
    """A scheduler whose state is saved and loaded by two functions.

    It can be used like the scheduler: ``state_dict`` and ``load_state_dict`` call
    these functions, and everything else goes to the scheduler itself.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        state_dict: Callable[[Scheduler], object],
        load_state_dict: Callable[[Scheduler, object], object],
    ) -> None:
        self.scheduler = scheduler
        self.functions = (state_dict, load_state_dict)

    def state_dict(self) -> object:
        """The state that the first function returns."""
        return self.functions[0](self.scheduler)

    def load_state_dict(self, state: object) -> None:
        """Load the state with the second function."""
        self.functions[1](self.scheduler, state)

    def __getattr__(self, name: str) -> object:
        if name in ("scheduler", "functions") or name.startswith("__"):
            raise AttributeError(name)  # copy.deepcopy asks before attributes are set
        return getattr(self.scheduler, name)
