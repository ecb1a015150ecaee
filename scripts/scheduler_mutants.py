"""Mutants of real schedulers: PyTorch's own, and ours, each with one change in its source.

A `Mutant` replaces methods of one class, or adds some, in the running process. There are two sorts:

* Those of a *template* make a mistake that authors of schedulers make: a saved state without a
  counter, a kept dict, an option that is not loaded. The template calls the method that it
  replaces as ``original.NAME``; ``memory`` is a dict with weak keys, by scheduler, and ``shared``
  a dict for the whole class. ``KEY`` and ``EPOCH`` stand for names of attributes.
* Those of an *edit* change the source of a method that the class defines: a statement is left
  out, two change places, a copy is not made; and what the operators of cosmic-ray do.

Whether an edit changes the uninterrupted run is found out by running it: see
``scripts/mutate_schedulers.py``.
"""

from __future__ import annotations

import ast
import copy
import functools
import inspect
import itertools
import pkgutil
import sys
import textwrap
import types
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

TORCH = "torch.optim.lr_scheduler"
SWA = "torch.optim.swa_utils"
OURS = "lr_schedules.linear_annealing"
CONTROLS = "lr_schedules.correct"


@dataclass(frozen=True)
class Mutant:
    """One change in a class: `source` defines the methods that it gets.

    `owner` is ``module:class``. `kind` says what goes wrong, and `where` which attribute or which
    line of which method it is.
    """

    owner: str
    kind: str
    where: str
    source: str

    @property
    def name(self) -> str:
        """The class, the kind and the place: the same in every run, and for this mutant alone."""
        return (
            f"{self.owner.partition(':')[2]}: {self.kind}{': ' if self.where else ''}{self.where}"
        )


@dataclass(frozen=True)
class Class:
    """A class to mutate, as its source has it.

    `counters` are attributes that change with steps and are whole numbers, `rates` are lists with
    a number for each group, `options` are what the constructor computes from its arguments.
    `epoch` is the counter of epochs. `decides` is a counter that later epochs depend on however
    long the run is; it is empty if the schedule ends or if there is none.
    """

    owner: str
    counters: tuple[str, ...] = ()
    rates: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    epoch: str = "last_epoch"
    decides: str = ""

    @functools.cached_property
    def type(self) -> type:
        """The class itself."""
        found: type = pkgutil.resolve_name(self.owner)
        return found

    def defines(self, method: str) -> bool:
        """Whether the source of the class has this method."""
        return isinstance(vars(self.type).get(method), types.FunctionType)


CLASSES: tuple[Class, ...] = (
    Class(f"{TORCH}:LRScheduler", ("last_epoch", "_step_count"), ("base_lrs", "_last_lr")),
    Class(f"{TORCH}:LambdaLR", ("last_epoch",), ("base_lrs",), decides="last_epoch"),
    Class(f"{TORCH}:MultiplicativeLR", ("last_epoch",)),
    Class(f"{TORCH}:StepLR", ("last_epoch",), options=("step_size", "gamma"), decides="last_epoch"),
    Class(f"{TORCH}:MultiStepLR", ("last_epoch",), options=("milestones", "gamma")),
    Class(f"{TORCH}:ConstantLR", ("last_epoch",), options=("factor", "total_iters")),
    Class(
        f"{TORCH}:LinearLR", ("last_epoch",),
        options=("start_factor", "end_factor", "total_iters"),
    ),
    Class(f"{TORCH}:ExponentialLR", options=("gamma",)),
    Class(f"{TORCH}:SequentialLR", ("last_epoch",), options=("_milestones",)),
    Class(f"{TORCH}:PolynomialLR", ("last_epoch",), options=("total_iters", "power")),
    Class(
        f"{TORCH}:CosineAnnealingLR", ("last_epoch", "_step_count"), ("base_lrs",),
        ("T_max", "eta_min"), decides="last_epoch",
    ),
    Class(f"{TORCH}:ChainedScheduler", rates=("_last_lr",)),
    Class(
        f"{TORCH}:ReduceLROnPlateau",
        ("last_epoch", "num_bad_epochs", "cooldown_counter", "best"), ("_last_lr", "min_lrs"),
        ("factor", "patience", "cooldown", "threshold", "threshold_mode", "eps", "mode"),
        decides="best",
    ),
    Class(
        f"{TORCH}:CyclicLR", ("last_epoch",),
        ("base_lrs", "max_lrs", "base_momentums", "max_momentums"),
        ("total_size", "step_ratio", "mode", "gamma", "scale_mode", "cycle_momentum"),
        decides="last_epoch",
    ),
    Class(
        f"{TORCH}:CosineAnnealingWarmRestarts", ("last_epoch", "T_cur", "T_i"), ("base_lrs",),
        ("T_0", "T_mult", "eta_min"), decides="T_cur",
    ),
    Class(
        f"{TORCH}:OneCycleLR", ("last_epoch",),
        options=("total_steps", "_schedule_phases", "_anneal_func_type", "cycle_momentum"),
    ),
    Class(
        f"{SWA}:SWALR", ("last_epoch", "_step_count"),
        options=("anneal_epochs", "_anneal_strategy"),
    ),
    Class(
        f"{OURS}:LinearAnnealingLR", ("last_epoch",), ("base_lrs",),
        ("num_annealing_steps", "num_total_steps"),
    ),
    Class(f"{CONTROLS}:Halving", ("epoch",), epoch="epoch"),
    Class(f"{CONTROLS}:PerGroup", rates=("base", "decays"), epoch="epoch", decides="epoch"),
    Class(f"{CONTROLS}:FromCallable", epoch="epoch"),
    Class(f"{CONTROLS}:Plateau", ("bad", "cooldown", "halvings", "best"), epoch="epoch"),
    Class(f"{CONTROLS}:TensorRate", epoch="epoch"),
    Class(f"{CONTROLS}:Momentum", epoch="epoch"),
    Class(f"{CONTROLS}:DecaysWeights", epoch="epoch"),
    Class(f"{CONTROLS}:Fall", options=("total", "floor"), epoch="epoch"),
    Class(f"{CONTROLS}:Noise", ("drawn",), epoch="epoch"),
    Class(f"{CONTROLS}:Milestones", epoch="epoch"),
    Class(f"{CONTROLS}:Restarts", ("length", "at"), epoch="epoch", decides="at"),
    Class(f"{CONTROLS}:Nested", epoch="epoch"),
    Class(f"{CONTROLS}:Logs", epoch="epoch"),
    Class(f"{CONTROLS}:Updates", ("pending", "steps"), epoch="epoch"),
    Class(f"{CONTROLS}:Multiplies", epoch="epoch"),
    Class(f"{CONTROLS}:Handover", epoch="epoch"),
)  # fmt: skip
"""The classes, in the order of their sources. ``Bare`` has no method that saves or loads."""


# ----------------------------------------------------------------------------- templates

OF_COUNTERS = {
    "does not load": """
def load_state_dict(self, state_dict):
    own = self.KEY
    original.load_state_dict(self, state_dict)
    self.KEY = own
""",
    "loads one more than saved": """
def load_state_dict(self, state_dict):
    original.load_state_dict(self, state_dict)
    self.KEY += 1
""",
    "loads one less than saved": """
def load_state_dict(self, state_dict):
    original.load_state_dict(self, state_dict)
    self.KEY -= 1
""",
    "saves one more than counted": """
def state_dict(self):
    state = original.state_dict(self)
    state["KEY"] += 1
    return state
""",
    "does not save": """
def state_dict(self):
    state = original.state_dict(self)
    del state["KEY"]
    return state
""",
    "keeps in the class": """
KEY = property(lambda self: shared["KEY"], lambda self, value: shared.update(KEY=value))

def state_dict(self):
    return {**original.state_dict(self), "KEY": self.KEY}

def load_state_dict(self, state_dict):
    original.load_state_dict(self, state_dict)
    self.KEY = state_dict["KEY"]
""",
    "pickles and copies as 1": """
def __getstate__(self):
    return {**vars(self), "KEY": 1}
""",
}
"""Mistakes with an attribute that changes with steps."""

OF_RATES = {
    "does not load": OF_COUNTERS["does not load"],
    "loads rounded to 6 digits": """
def load_state_dict(self, state_dict):
    original.load_state_dict(self, state_dict)
    self.KEY = [round(rate, 6) if type(rate) is float else rate for rate in self.KEY]
""",
    "loads for the first two groups only": """
def load_state_dict(self, state_dict):
    own = self.KEY
    original.load_state_dict(self, state_dict)
    self.KEY = [*self.KEY[:2], *own[2:]]
""",
    "loads in the reverse order": """
def load_state_dict(self, state_dict):
    original.load_state_dict(self, state_dict)
    self.KEY = self.KEY[::-1]
""",
}
"""Mistakes with a list that has a number for each group."""

IN_THE_CLASS = "keeps in the class"

OF_SAVING = {
    "saves the same dict for ever": """
def state_dict(self):
    if self not in memory:
        memory[self] = original.state_dict(self)
    return memory[self]
""",
    "keeps one dict and updates it at every save": """
def state_dict(self):
    memory.setdefault(self, {}).update(original.state_dict(self))
    return memory[self]
""",
    "gives the same dict again until the next step": """
def state_dict(self):
    state = original.state_dict(self)
    if self not in memory or memory[self]["EPOCH"] != state["EPOCH"]:
        memory[self] = state
    return memory[self]
""",
    "saves its own __dict__": """
def state_dict(self):
    return vars(self)
""",
    "saves at most epoch 20": """
def state_dict(self):
    state = original.state_dict(self)
    state["EPOCH"] = min(state["EPOCH"], 20)
    return state
""",
    "counts an epoch when it saves": """
def state_dict(self):
    state = original.state_dict(self)
    self.EPOCH += 1
    return state
""",
    "saves the last state twice if two saves follow": """
def state_dict(self):
    state = original.state_dict(self)
    before = memory.get(self, state)
    memory[self] = state
    return before if before["EPOCH"] == state["EPOCH"] - 1 else state
""",
}
"""Mistakes of a ``state_dict``."""

OF_LOADING = {
    "pops from the argument": """
def load_state_dict(self, state_dict):
    original.load_state_dict(self, state_dict)
    del state_dict["EPOCH"]
""",
    "adds to the argument": """
def load_state_dict(self, state_dict):
    original.load_state_dict(self, state_dict)
    state_dict["loaded"] = True
""",
    "becomes the argument": """
def load_state_dict(self, state_dict):
    original.load_state_dict(self, state_dict)
    state_dict.update(vars(self))
    self.__dict__ = state_dict
""",
    "loads only what it does not have": """
def load_state_dict(self, state_dict):
    for key, value in state_dict.items():
        vars(self).setdefault(key, value)
""",
    "writes the initial LRs": """
def load_state_dict(self, state_dict):
    original.load_state_dict(self, state_dict)
    for group in self.optimizer.param_groups:
        if "initial_lr" in group:
            group["lr"] = group["initial_lr"]
""",
    "writes the last LRs": """
def load_state_dict(self, state_dict):
    original.load_state_dict(self, state_dict)
    for group, rate in zip(self.optimizer.param_groups, self.get_last_lr()):
        group["lr"] = rate
""",
    "takes its base LRs from the optimizer": """
def load_state_dict(self, state_dict):
    original.load_state_dict(self, state_dict)
    self.base_lrs = [group["lr"] for group in self.optimizer.param_groups]
""",
    "steps": """
def load_state_dict(self, state_dict):
    original.load_state_dict(self, state_dict)
    self.step()
""",
    "ignores a second load": """
def load_state_dict(self, state_dict):
    if self not in memory:
        original.load_state_dict(self, state_dict)
    memory[self] = True
""",
    "ignores a state of the start": """
def load_state_dict(self, state_dict):
    if state_dict["EPOCH"] > 0:
        original.load_state_dict(self, state_dict)
""",
    "ignores a state that is not ahead": """
def load_state_dict(self, state_dict):
    if state_dict["EPOCH"] > self.EPOCH:
        original.load_state_dict(self, state_dict)
""",
    "ignores a state that it saved itself": """
def state_dict(self):
    state = original.state_dict(self)
    memory[self] = dict(state)
    return state

def load_state_dict(self, state_dict):
    if memory.get(self, {}).get("EPOCH") != state_dict["EPOCH"]:
        original.load_state_dict(self, state_dict)
""",
}
"""Mistakes of a ``load_state_dict``."""

FORGETS = """
def load_state_dict(self, state_dict):
    own = self.KEY
    original.load_state_dict(self, state_dict)
    if CONDITION:
        self.KEY = own
"""
CONDITIONS = {
    "after epoch 20": "self.EPOCH > 20",
    "after epoch 100": "self.EPOCH > 100",
    "at every seventh epoch": "self.EPOCH % 7 == 0",
    "with betas": 'any("betas" in group for group in self.optimizer.param_groups)',
    "with three groups or more": "len(self.optimizer.param_groups) > 2",
    "with one group": "len(self.optimizer.param_groups) == 1",
    "with LRs that are tensors": (
        'any(hasattr(group["lr"], "clone") for group in self.optimizer.param_groups)'
    ),
    "with an LR below 0.0001": 'any(group["lr"] < 1e-4 for group in self.optimizer.param_groups)',
    "with a weight decay": 'any(group["weight_decay"] for group in self.optimizer.param_groups)',
}
"""When a load forgets the counter that decides."""

OF_BUILDING = {
    "ignores last_epoch": """
def __init__(self, *args, **kwargs):
    given = bind(self, *args, **kwargs)
    given.arguments["last_epoch"] = -1
    original.__init__(*given.args, **given.kwargs)
""",
    "is an epoch ahead if built with last_epoch": """
def __init__(self, *args, **kwargs):
    given = bind(self, *args, **kwargs)
    given.arguments["last_epoch"] += given.arguments["last_epoch"] >= 0
    original.__init__(*given.args, **given.kwargs)
""",
    "is an epoch behind if built with last_epoch": """
def __init__(self, *args, **kwargs):
    given = bind(self, *args, **kwargs)
    given.arguments["last_epoch"] -= given.arguments["last_epoch"] > 0
    original.__init__(*given.args, **given.kwargs)
""",
    "overwrites initial_lr": """
def __init__(self, *args, **kwargs):
    for group in bind(self, *args, **kwargs).arguments["optimizer"].param_groups:
        group["initial_lr"] = group["lr"]
    original.__init__(self, *args, **kwargs)
""",
    "resets the LR if built with last_epoch": """
def __init__(self, *args, **kwargs):
    given = bind(self, *args, **kwargs)
    for group in given.arguments["optimizer"].param_groups:
        if given.arguments["last_epoch"] >= 0:
            group["lr"] = group["initial_lr"]
    original.__init__(self, *args, **kwargs)
""",
}
"""Mistakes of a constructor that takes ``last_epoch``."""

OF_PARTS = {
    "loads its parts in the reverse order": """
def load_state_dict(self, state_dict):
    original.load_state_dict(self, state_dict)
    for part, state in zip(self._schedulers[::-1], state_dict["_schedulers"]):
        part.load_state_dict(state)
""",
    "loads its first part only": """
def load_state_dict(self, state_dict):
    own = [part.state_dict() for part in self._schedulers[1:]]
    original.load_state_dict(self, state_dict)
    for part, state in zip(self._schedulers[1:], own):
        part.load_state_dict(state)
""",
    "saves the state of its first part for all": """
def state_dict(self):
    state = original.state_dict(self)
    state["_schedulers"] = [state["_schedulers"][0]] * len(self._schedulers)
    return state
""",
    "does not load the last LRs of its parts": """
def load_state_dict(self, state_dict):
    own = [part._last_lr for part in self._schedulers]
    original.load_state_dict(self, state_dict)
    for part, rates in zip(self._schedulers, own):
        part._last_lr = rates
""",
}
"""Mistakes of a scheduler that is made of others."""


def written(classes: Iterable[Class] = CLASSES) -> Iterator[Mutant]:
    """The mutants of the templates, for each class that has what a template is about."""
    for each in classes:
        control, name = each.owner.startswith(CONTROLS), each.type.__name__
        yield from _about(each, OF_COUNTERS, each.counters)
        yield from _about(each, OF_RATES, each.rates)
        yield from _about(each, ["does not load"], each.options)
        if not control:
            yield from _about(each, [IN_THE_CLASS], each.options[:1])
        if name == "Halving" or (not control and each.defines("load_state_dict")):
            kinds = {**OF_SAVING, **OF_LOADING}
            if name == "ChainedScheduler":  # it counts no epochs
                kinds = {kind: kinds[kind] for kind in kinds if "EPOCH" not in kinds[kind]}
            if name == "ReduceLROnPlateau":  # its step takes a metric
                del kinds["steps"]
            yield from _about(each, kinds)
        for condition, test in CONDITIONS.items() if each.decides else ():
            source = FORGETS.replace("CONDITION", test).replace("KEY", each.decides)
            kind = f"does not load {condition}"
            yield Mutant(each.owner, kind, each.decides, _filled(source, each))
        takes = "last_epoch" in inspect.signature(each.type).parameters
        if name == "Halving" or (takes and not control and each.defines("__init__")):
            yield from _about(each, OF_BUILDING)
        if name in ("SequentialLR", "ChainedScheduler"):
            yield from _about(each, OF_PARTS)


TEMPLATES = {
    **OF_COUNTERS, **OF_RATES, **OF_SAVING, **OF_LOADING, **OF_BUILDING, **OF_PARTS,
}  # fmt: skip


def _about(each: Class, kinds: Iterable[str], keys: Iterable[str] = ("",)) -> Iterator[Mutant]:
    for key in keys:
        for kind in kinds:
            source = _filled(TEMPLATES[kind].replace("KEY", key), each)
            yield Mutant(each.owner, kind, key, source)


def _filled(template: str, each: Class) -> str:
    return template.strip("\n").replace("EPOCH", each.epoch)


# ------------------------------------------------------------------------------- edits

SAVES_AND_LOADS = ("state_dict", "load_state_dict", "__setstate__")
FOR_RESUMING = (
    *SAVES_AND_LOADS, "__init__", "_initial_step", "_init_scale_fn", "_init_is_better", "_reset",
    "_set_anneal_func", "recursive_undo", "watch",
)  # fmt: skip
"""Methods that a resume calls. The others do the same in both runs, or change them both."""
COPIES = ("list", "dict", "tuple", "clone", "copy", "_copy")


def edited(classes: Iterable[Class] = CLASSES) -> Iterator[Mutant]:
    """The mutants with one edit in a method that the class defines."""
    for each in classes:
        for method in methods_of(each):
            yield from _edits(each, method.name, "leaves out", _left_out(method))
            yield from _edits(each, method.name, "swaps", _swapped(method))
            yield from _edits(each, method.name, "does not copy", _uncopied(method))


def methods_of(each: Class) -> Iterator[ast.FunctionDef]:
    """The methods that a resume calls, from the source of a class."""
    for method in _class_bodies(each.owner.partition(":")[0])[each.type.__name__]:
        if isinstance(method, ast.FunctionDef) and method.name in FOR_RESUMING:
            yield copy.deepcopy(method)


@functools.cache
def _class_bodies(module: str) -> dict[str, list[ast.stmt]]:
    """The statements of each class in the source of a module, without what does nothing."""
    tree = ast.parse(inspect.getsource(pkgutil.resolve_name(module)))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.decorator_list = [each for each in node.decorator_list if _matters(each)]
            node.returns = None
            for argument in [*node.args.args, *node.args.kwonlyargs]:
                argument.annotation = None
            if ast.get_docstring(node) is not None:
                node.body = node.body[1:] or [ast.Pass()]
    return {node.name: node.body for node in tree.body if isinstance(node, ast.ClassDef)}


def _matters(decorator: ast.expr) -> bool:
    return ast.unparse(decorator) != "override"


Edited = tuple[str, str]
"""What was edited, and the source of the method with the edit."""


def _edits(each: Class, method: str, kind: str, edits: Iterable[Edited]) -> Iterator[Mutant]:
    seen: dict[str, int] = {}
    for what, source in edits:
        what = " ".join(what.split())
        what = what if len(what) <= 70 else f"{what[:67]}..."
        seen[what] = seen.get(what, 0) + 1
        again = f" ({seen[what]})" if seen[what] > 1 else ""
        yield Mutant(each.owner, kind, f"{method}: {what}{again}", source)


def _bodies(method: ast.FunctionDef) -> list[list[ast.stmt]]:
    """The lists of statements in a method, in the order of `ast.walk`."""
    found = []
    for node in ast.walk(method):
        for name in ("body", "orelse"):
            body = getattr(node, name, None)
            if isinstance(body, list):
                found.append(body)
    return found


def _left_out(method: ast.FunctionDef) -> Iterator[Edited]:
    """The method without one of its statements."""
    for body in _bodies(method):
        for number, statement in enumerate(body):
            if isinstance(statement, (ast.Return, ast.Raise, ast.Pass, ast.FunctionDef)):
                continue
            if _only_refuses(statement) or _only_annotates(statement):
                continue
            body[number] = ast.Pass()
            yield ast.unparse(statement), ast.unparse(method)
            body[number] = statement


def _swapped(method: ast.FunctionDef) -> Iterator[Edited]:
    """The method with two statements that follow each other in the other order."""
    for body in _bodies(method):
        for number, (first, second) in enumerate(itertools.pairwise(list(body))):
            if isinstance(second, ast.Return) or _only_refuses(first) or _only_refuses(second):
                continue
            if not _order_matters(first, second):
                continue
            body[number : number + 2] = second, first
            yield f"{_short(first)} / {_short(second)}", ast.unparse(method)
            body[number : number + 2] = first, second


def _order_matters(first: ast.stmt, second: ast.stmt) -> bool:
    """Whether one statement may use what the other does: calls something, or sets what it reads."""
    if any(isinstance(each, ast.FunctionDef) or _only_annotates(each) for each in (first, second)):
        return False
    if any(isinstance(node, ast.Expr) for each in (first, second) for node in ast.walk(each)):
        return True
    return bool(
        _names(first, ast.Store) & _names(second) or _names(second, ast.Store) & _names(first)
    )


def _names(statement: ast.stmt, context: type = ast.expr_context) -> set[str]:
    """The names, attributes and items that a statement reads or sets, or only those it sets."""
    nodes = (
        node for node in ast.walk(statement) if isinstance(getattr(node, "ctx", None), context)
    )
    return {ast.unparse(node) for node in nodes}


def _short(statement: ast.stmt) -> str:
    text = ast.unparse(statement).splitlines()[0]
    return text if len(text) <= 33 else f"{text[:30]}..."


def _only_refuses(statement: ast.stmt) -> bool:
    """Whether a statement does nothing but raise or warn for wrong arguments."""
    if isinstance(statement, ast.Expr):
        return ast.unparse(statement).startswith(("warnings.warn", "_warn_get_lr"))
    if isinstance(statement, (ast.If, ast.For)):
        return all(map(_only_refuses, [*statement.body, *statement.orelse]))
    return isinstance(statement, (ast.Raise, ast.Pass))


def _only_annotates(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.AnnAssign) and statement.value is None


def _uncopied(method: ast.FunctionDef) -> Iterator[Edited]:
    """The method with the thing itself in place of one copy of it."""
    for node in ast.walk(method):
        inner = _copied(node)
        if inner is not None:
            changed = _Replaced(node, inner).visit(copy.deepcopy(method, {id(node): node}))
            yield ast.unparse(node), ast.unparse(changed)


def _copied(node: ast.AST) -> ast.expr | None:
    """What a call copies; None for anything else."""
    if not isinstance(node, ast.Call) or node.keywords:
        return None
    if isinstance(node.func, ast.Name) and node.func.id in COPIES and len(node.args) == 1:
        return node.args[0]
    if isinstance(node.func, ast.Attribute) and node.func.attr in COPIES and not node.args:
        return node.func.value
    return None


@dataclass
class _Replaced(ast.NodeTransformer):
    """Puts one node in the place of another."""

    old: ast.AST
    new: ast.expr

    def visit(self, node: ast.AST) -> Any:
        """The new node for the old one; others with what they hold visited."""
        return self.new if node is self.old else self.generic_visit(node)


OPERATORS = (
    "AddNot", "ReplaceAndWithOr", "ReplaceOrWithAnd", "NumberReplacer", "ZeroIterationForLoop",
    "ReplaceTrueWithFalse", "ReplaceFalseWithTrue", "ReplaceBinaryOperator_Add_Sub",
    "ReplaceBinaryOperator_Sub_Add", "ReplaceComparisonOperator_Eq_NotEq",
    "ReplaceComparisonOperator_NotEq_Eq", "ReplaceComparisonOperator_Lt_LtE",
    "ReplaceComparisonOperator_LtE_Lt", "ReplaceComparisonOperator_Gt_GtE",
    "ReplaceComparisonOperator_GtE_Gt", "ReplaceComparisonOperator_Is_IsNot",
    "ReplaceComparisonOperator_IsNot_Is",
)  # fmt: skip
"""The operators of cosmic-ray that make a mistake that a person could make."""


def mechanical(classes: Iterable[Class] = CLASSES) -> Iterator[Mutant]:
    """The mutants of cosmic-ray, but in statements that only refuse wrong arguments."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    operators = {name: get_operator(f"core/{name}")() for name in OPERATORS}
    for each in classes:
        for method in methods_of(each):
            code = ast.unparse(method) + "\n"
            nodes = list(ast_nodes(get_ast(code)))
            for name, operator in operators.items():
                count = sum(len(list(operator.mutation_positions(node))) for node in nodes)
                codes = [mutate_code(code, operator, number) for number in range(count)]
                yield from _edits(each, method.name, name, _mutated(code, codes))


def _mutated(code: str, codes: Iterable[str]) -> Iterator[Edited]:
    """Those of the changed codes of a method that may matter, with the line that is changed."""
    whole = _without_refusals(code)
    for changed in codes:
        other = _without_refusals(changed)
        # another default is one that every run has
        if ast.dump(other) != ast.dump(whole) and _arguments(other) == _arguments(whole):
            yield _changed_line(code, changed), changed.rstrip("\n")


def _arguments(tree: ast.Module) -> str:
    """The arguments of the method, with their defaults."""
    (method,) = tree.body
    assert isinstance(method, ast.FunctionDef)
    return ast.dump(method.args)


def _without_refusals(code: str) -> ast.Module:
    """The code without the statements that only refuse wrong arguments."""
    tree = ast.parse(code)
    for node in ast.walk(tree):
        for name in ("body", "orelse"):
            body = getattr(node, name, None)
            if isinstance(body, list):
                body[:] = [each for each in body if not _only_refuses(each)]
        if isinstance(node, ast.Call):  # zip(strict=True) refuses too
            node.keywords = [each for each in node.keywords if each.arg != "strict"]
    return tree


def _changed_line(old: str, new: str) -> str:
    """The first line of a method that was changed, as it is now."""
    lines = zip(old.splitlines(), new.splitlines(), strict=False)
    return next((after.strip() for before, after in lines if before != after), "its end")


def all_mutants() -> list[Mutant]:
    """Every mutant, even one that changes the uninterrupted run; no two have the same source."""
    found: dict[tuple[str, str], Mutant] = {}
    for mutant in (*written(), *edited(), *mechanical()):
        found.setdefault((mutant.owner, mutant.source), mutant)
    return list(found.values())


# ------------------------------------------------------------------------- in a process


def methods_in(mutant: Mutant) -> list[str]:
    """The names that the source of a mutant defines."""
    body = ast.parse(mutant.source).body
    return [node.name for node in body if isinstance(node, ast.FunctionDef)]


class _Originals:
    """The methods of a class as they were, own and inherited, as attributes."""

    def __init__(self, owner: type) -> None:
        self.owner = owner
        self.names: dict[str, Any] = {}

    def __getattribute__(self, name: str) -> Any:
        known = object.__getattribute__(self, "__dict__")
        if name in ("owner", "names"):
            return known[name]
        return known["names"][name] if name in known["names"] else getattr(known["owner"], name)


def class_of(mutant: Mutant) -> type:
    """The class that a mutant changes."""
    found: type = pkgutil.resolve_name(mutant.owner)
    return found


def apply(mutant: Mutant) -> None:
    """Change the class in this process."""
    owner = class_of(mutant)
    originals = _Originals(owner)
    body = textwrap.indent(mutant.source, "    ")
    factory = f"def make(__class__, original, memory, shared, bind):\n{body}\n    return locals()\n"
    # without evaluating annotations, and with the names that the source of the class uses
    code = compile(factory, f"<{mutant.name}>", "exec", annotations.compiler_flag)
    names = dict(vars(sys.modules[owner.__module__]))
    exec(code, names)

    def bind(*args: Any, **kwargs: Any) -> inspect.BoundArguments:
        given = inspect.signature(originals.__init__).bind(*args, **kwargs)  # type: ignore[misc]
        given.apply_defaults()
        return given

    arguments: dict[str, Any] = {
        "__class__": owner, "original": originals, "memory": weakref.WeakKeyDictionary(),
        "shared": {}, "bind": bind,
    }  # fmt: skip
    made = names["make"](**arguments)
    made = {name: value for name, value in made.items() if name not in arguments}
    for attribute in made:
        if hasattr(owner, attribute):
            originals.names[attribute] = getattr(owner, attribute)
    for attribute, value in made.items():
        if isinstance(value, types.FunctionType) and attribute in originals.names:
            value = functools.wraps(originals.names[attribute])(value)
        setattr(owner, attribute, value)
