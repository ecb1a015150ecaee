"""LinearLR: lr_is_never_negative
Needs torch and an installed monai; pasted into this file: nothing.
The promise: No group's LR is below 0; a torch optimizer would not accept one when it is built.
The trace: end_lr=0.01 num_iter=2 train:2
With torch 2.13.0+cpu: expected lr [0.0, 0.01], got [-0.08000000000000002, 0.01]
Exit status, for `git bisect run`: 1 the bug is there, 0 it is gone, 125 can't tell."""
import atexit, os, sys
atexit.register(lambda: os._exit(globals().get("exit_status", 125)))  # 125: any error
import functools
import torch
from monai.optimizers.lr_scheduler import LinearLR

build = functools.partial(LinearLR, end_lr=0.01, num_iter=2)

def new_sgd():
    first = torch.nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    second = torch.nn.Parameter(torch.tensor([0.5], dtype=torch.float64))
    groups = [{"params": [first]}, {"params": [second], "lr": 0.01}]
    return torch.optim.SGD(groups, lr=0.1, momentum=0.9, weight_decay=0.001)

def lr_is_never_negative(optimizer):
    rates = [float(group["lr"]) for group in optimizer.param_groups]
    return {"lr": [max(rate, 0.0) for rate in rates]}, {"lr": rates}

def run():
    optimizer = new_sgd()
    scheduler = build(optimizer)
    examine("at the start", lr_is_never_negative, optimizer)
    for i in range(2):
        optimizer_step(optimizer, i)
        scheduler.step()
        examine(f"after step {i + 1}", lr_is_never_negative, optimizer)

# Helpers.
import math
import re
import types
import warnings
from collections.abc import Mapping

class BugIsThere(BaseException):
    """Ends a run at the first value that differs from what was expected."""

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

def attempt(where, function, *arguments):
    """Call a function; if it raises, that is the bug."""
    try:
        return function(*arguments)
    except (Exception, SystemExit) as error:
        raise BugIsThere(f"{where}: {function.__name__} raises {describe(error)}") from error

def numbers(value):
    """A hyperparameter as numbers and lists, to be compared and shown."""
    if type(value) is not float and hasattr(value, "tolist") and hasattr(value, "dtype"):
        kind = "tensor" if isinstance(value, torch.Tensor) else "numpy"
        return {kind: value.tolist(), "dtype": str(value.dtype)}
    return [numbers(item) for item in value] if isinstance(value, (list, tuple)) else value

def plain(value, inside=()):
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

def examine(where, function, *arguments):
    """Call a check, which returns what it expects and what it got, and compare the two."""
    expected, actual = map(plain, attempt(where, function, *arguments))
    left, right = differences(expected, actual)
    if left:
        raise BugIsThere(
            "\n".join(f"{where}: expected {name} {left[name]}, got {right[name]}" for name in left)
        )
    print(f"{where}: as expected")

def optimizer_step(optimizer, index):
    """Step the optimizer, with gradients that depend on the step index alone."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = parameter.new_full(parameter.shape, math.cos(index))
    optimizer.step()

def examined(run):
    """Do a run that examines itself. Returns the exit status: 125 if the run itself raises."""
    try:
        run()
    except BugIsThere as bug:
        print(f"{bug}\nThe bug is there.")
        return 1
    except (Exception, SystemExit) as raised:
        print("The run itself raises", describe(raised))
        return 125
    print("Everything is as expected: the bug is gone.")
    return 0

warnings.simplefilter("ignore")  # about the order of steps: the trace sets it
atexit.register(sys.stdout.flush)
print("torch", torch.__version__)
exit_status = examined(run)
