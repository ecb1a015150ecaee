"""SequentialComposer: resume_by_last_epoch
Needs torch and an installed pytorch_scheduler; pasted into this file: nothing.
The promise: Load the optimizer's state, then build with last_epoch=k-1 after k scheduler steps.
The trace: schedulers=[ExponentialLR(gamma=0.5),ExponentialLR(gamma=0.5)] milestones=[1] train:1 save:a resume:a
With torch 2.13.0+cpu: expected lr [0.025, 0.0025], got [0.0125, 0.00125]
Exit status, for `git bisect run`: 1 the bug is there, 0 it is gone, 125 can't tell."""
import atexit, os, sys
atexit.register(lambda: os._exit(globals().get("exit_status", 125)))  # 125: any error
import functools
import torch
from pytorch_scheduler.experimental.sequential_composer import SequentialComposer
from torch.optim.lr_scheduler import ExponentialLR

def on_optimizer(value, optimizer):
    if isinstance(value, list):
        return [on_optimizer(item, optimizer) for item in value]
    return value(optimizer) if isinstance(value, functools.partial) else value

def build_with(make, optimizer_name, optimizer, **options):
    options = {name: on_optimizer(value, optimizer) for name, value in options.items()}
    if optimizer_name:
        options[optimizer_name] = optimizer
    return make(**options)

def build(optimizer, **given):
    return functools.partial(build_with, SequentialComposer, 'optimizer')(optimizer, **{"schedulers": [functools.partial(ExponentialLR, gamma=0.5), functools.partial(ExponentialLR, gamma=0.5)], "milestones": [1], **given})

def new_sgd():
    first = torch.nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    second = torch.nn.Parameter(torch.tensor([0.5], dtype=torch.float64))
    groups = [{"params": [first]}, {"params": [second], "lr": 0.01}]
    return torch.optim.SGD(groups, lr=0.1, momentum=0.9, weight_decay=0.001)

def run(interrupted):
    optimizer = new_sgd()
    scheduler = build(optimizer)
    yield 0, optimizer, scheduler
    for i in range(1):
        optimizer_step(optimizer, i)
        scheduler.step()
        yield i + 1, optimizer, scheduler
    if interrupted:  # save:a, resume:a, at epoch 1
        saved = {
            "optimizer": snapshot(optimizer.state_dict()),
            "parameters": snapshot(parameters_of(optimizer)),
            "epoch": 1,
        }
        checkpoint = snapshot(saved)
        optimizer = new_sgd()
        optimizer.load_state_dict(checkpoint["optimizer"])
        scheduler = build(optimizer, last_epoch=checkpoint["epoch"] - 1)
        restore_parameters(optimizer, checkpoint)
        yield 1, optimizer, scheduler

# Helpers.
import copy
import math
import re
import warnings

def optimizer_step(optimizer, index):
    """Step the optimizer, with gradients that depend on the step index alone."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = parameter.new_full(parameter.shape, math.cos(index))
    optimizer.step()

def snapshot(value):
    """A copy of `value` that shares nothing with it, like a copy in a file."""
    try:
        return copy.deepcopy(value)
    except Exception:  # such as a lock: not copied; the rest is
        return {key: snapshot(value[key]) for key in value} if type(value) is dict else value

def parameters_of(optimizer):
    """The parameters that an optimizer updates."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]

def restore_parameters(optimizer, checkpoint):
    """Copy the values in a checkpoint, if it has any, into the parameters, like loading a model."""
    with torch.no_grad():
        for parameter, value in zip(parameters_of(optimizer), checkpoint.get("parameters", [])):
            parameter.copy_(value)

def numbers(value):
    """A hyperparameter as numbers and lists, to be compared and shown."""
    if type(value) is not float and hasattr(value, "tolist") and hasattr(value, "dtype"):
        kind = "tensor" if isinstance(value, torch.Tensor) else "numpy"
        return {kind: value.tolist(), "dtype": str(value.dtype)}
    return [numbers(item) for item in value] if isinstance(value, (list, tuple)) else value

def observe(optimizer, scheduler):
    """What the optimizer will use at its next step, and what the scheduler reports."""
    seen = {}
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

def describe(error):
    """An exception in one line, without colours, and without its middle if it is long."""
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

def observed(run):
    """Do a run: what is seen after each step, and the exception that ends it or ``""``."""
    seen = {}
    step, error = 0, ""
    try:
        for step, optimizer, scheduler in run:
            seen[step] = observe(optimizer, scheduler)
    except (Exception, SystemExit) as raised:
        error = describe(raised)
    return [seen[number] for number in sorted(seen) if number <= step], error

def same(expected, actual):
    """Whether two plain values are exactly equal; nan equals nan."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        return expected.keys() == actual.keys() and all(
            same(item, actual[key]) for key, item in expected.items()
        )
    if isinstance(expected, list) and isinstance(actual, list):
        return len(expected) == len(actual) and all(map(same, expected, actual))
    return bool(expected == actual or (expected != expected and actual != actual))

MISSING = '(missing)'

def differences(expected, actual):
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

def compare(uninterrupted, interrupted, ignored=(), may_raise=False):
    """Print both runs up to where they differ. Returns the exit status."""
    (expected, end), (seen, error) = uninterrupted, interrupted
    if end and not may_raise:
        print("The uninterrupted run raises", end)
        return 125
    rows = []
    left = {}
    right = {}
    for pair in zip(expected, seen):
        rows.append([{name: run[name] for name in run if name not in ignored} for run in pair])
        left, right = differences(*rows[-1])
        if left:
            break
    column = next(iter(left), "lr")
    cells = [[str(run.get(column)) for run in pair] for pair in rows]
    width = max(len(cell) for cell, _ in [*cells, ("uninterrupted run", "")])
    print(f"{column} of every group after each step:\n")
    print(f"step  {'uninterrupted run':{width}}  interrupted run")
    for step, (before, after) in enumerate(cells):
        mark = "  <- differs" if left and step == len(cells) - 1 else ""
        print(f"{step:4}  {before:{width}}  {after}{mark}")
    print()
    for name in left:
        print(f"expected {name} {left[name]}, got {right[name]}")
    ends_otherwise = error != end or (bool(error) and len(seen) != len(expected))
    if ends_otherwise and not left:
        print(f"The uninterrupted run raises {end or 'nothing'} at its end")
        print(f"The interrupted run raises {error or 'nothing'}")
    bug = bool(left) or ends_otherwise
    print("The bug is there." if bug else "The runs are the same: the bug is gone.")
    return int(bug)

warnings.simplefilter("ignore")  # about the order of steps: the trace sets it
atexit.register(sys.stdout.flush)
print("torch", torch.__version__)
exit_status = compare(observed(run(False)), observed(run(True)))
