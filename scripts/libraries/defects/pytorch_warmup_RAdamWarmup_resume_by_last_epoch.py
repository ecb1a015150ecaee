"""RAdamWarmup: resume_by_last_epoch
Needs torch and an installed pytorch_warmup; pasted into this file: nothing.
The promise: Load the optimizer's state, then build with last_epoch=k-1 after k scheduler steps.
The trace: train:1 save:a resume:a
With torch 2.13.0+cpu:
    expected lr [0.0029048751902090867, 0.0014524375951045433], got [7.500710996170914e-05, 3.750355498085457e-05]
Exit status, for `git bisect run`: 1 the bug is there, 0 it is gone, 125 can't tell."""
import atexit, os, sys
atexit.register(lambda: os._exit(globals().get("exit_status", 125)))  # 125: any error
import functools
import torch
from pytorch_warmup.radam import RAdamWarmup
from torch.optim.adamw import AdamW

def build_from_index(make, index_name, shift, optimizer, last_epoch=-1, **options):
    if last_epoch >= 0:
        options[index_name] = last_epoch + shift
    return make(optimizer, **options)

class Dampened:

    def __init__(self, scheduler, warmup):
        self.scheduler = scheduler
        self.warmup = warmup

    def step(self):
        with self.warmup.dampening():
            self.scheduler.step()

    def state_dict(self):
        return {"scheduler": self.scheduler.state_dict(), "warmup": self.warmup.state_dict()}

    def load_state_dict(self, state):
        self.scheduler.load_state_dict(state["scheduler"])
        self.warmup.load_state_dict(state["warmup"])

def build_dampened(make, optimizer, **options):
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    return Dampened(scheduler, make(optimizer, **options))

build = functools.partial(build_from_index, functools.partial(build_dampened, RAdamWarmup), 'last_step', 0)

def make_optimizer(
    kind,
    *,
    groups=None,
    rates=None,
    lr="float",
    named=False,
    device="cpu",
    **options,
):
    if lr not in ("float", "tensor", "shared"):
        raise ValueError(
            f"lr must be 'float', 'tensor' or 'shared' (got {lr!r}): give numbers as rates=[...]"
        )
    if rates is None:
        if groups not in (None, 1, 2, 3, 4):
            raise ValueError(f"groups must be 1 to 4 (got {groups!r})")
        rates = [None if lr == "shared" else 0.125 / 2**index for index in range(groups or 1)]
    elif groups not in (None, len(rates)) or not 1 <= len(rates) <= 4:
        raise ValueError(f"rates must hold an LR or None for each of 1 to 4 groups (got {rates!r})")
    elif lr == "shared" and any(rate is not None for rate in rates):
        raise ValueError(
            "lr='shared' gives all groups one LR, so rates must be None or a list of None "
            f"(got {rates!r})"
        )

    def as_rate(rate):
        return rate if lr == "float" else torch.tensor(rate, device=device)

    made = []
    for index, rate in enumerate(rates):
        values = [1.0 - 0.25 * index, -2.0 + 0.5 * index]
        # NAdam keeps a float32 scalar, which load_state_dict gives the parameter's dtype.
        dtype = torch.float32 if kind.__name__ == "NAdam" else torch.float64
        value = torch.tensor(values, dtype=dtype, device=device)
        if kind.__name__ in ("Muon", "SparseAdam"):  # they need matrices
            value = value.reshape(1, 2)
        parameter = torch.nn.Parameter(value)
        group = {"params": [(f"w{index}", parameter) if named else parameter]}
        if rate is not None:
            group["lr"] = as_rate(rate)
        made.append(group)
    return kind(made, lr=as_rate(0.125), **options)

def run(interrupted):
    optimizer = functools.partial(make_optimizer, AdamW, groups=2)()
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
        optimizer = functools.partial(make_optimizer, AdamW, groups=2)()
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
