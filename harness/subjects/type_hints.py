"""Draws the options that a constructor needs, from their type hints and their names.

Each type hint is read by itself: one that names what exists only for a type checker costs no other
option its values. A parameter without a hint is drawn if its name says what it is, such as
``total_steps`` or ``gamma``, or if the source compares it with texts, such as ``mode == "min"``;
reports say which options were guessed in this way. A parameter for another scheduler gets one on
the same optimizer; if it is optional, it is also left out.
"""

from __future__ import annotations

import ast
import collections.abc
import enum
import functools
import inspect
import re
import sys
import textwrap
import types
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from torch.optim import Optimizer, lr_scheduler

from harness.core.literals import Term
from harness.core.training_loop import LRScheduler
from harness.core.types import Words
from harness.subjects.protocols import INDEX, OPTIMIZER, is_torch

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

NOT_OPTIONS = frozenset({"self", "verbose", *OPTIMIZER, *INDEX})
"""Parameters of a constructor that are not options."""


@dataclass(frozen=True)
class Unresolved:
    """A type hint that names what is not there when the program runs."""

    text: str


@dataclass(frozen=True)
class Values:
    """What is drawn for an option.

    `words` gives the meaning of the terms in it. `nested`: whether it holds schedulers, to be built
    on the optimizer. `guessed`: whether only the name, or the source, says what to draw.
    """

    strategy: SearchStrategy[Any]
    words: Words = field(default_factory=dict)
    nested: bool = False
    guessed: bool = False


def constructors(build: Callable[..., object]) -> list[Any]:
    """The functions whose parameters a class or function takes.

    That is the function itself; for a class its ``__init__``, and as long as that passes on all
    that it is given, those of its parents.
    """
    function: Any = build
    while isinstance(function, functools.partial):
        function = function.func
    if not isinstance(function, type):
        return [inspect.unwrap(function)]
    found: list[Any] = []
    for parent in function.__mro__[:-1]:
        if "__init__" in vars(parent):
            found.append(inspect.unwrap(vars(parent)["__init__"]))
            kinds = {each.kind for each in inspect.signature(found[-1]).parameters.values()}
            if inspect.Parameter.VAR_KEYWORD not in kinds:
                break
    return found


def parameters_of(build: Callable[..., object]) -> dict[str, inspect.Parameter]:
    """The parameters that a class or function takes by name.

    Raises `ValueError` or `TypeError` if there is no signature.
    """
    found = dict(inspect.signature(build).parameters)
    if isinstance(build, type) and any(p.kind is p.VAR_KEYWORD for p in found.values()):
        for function in constructors(build)[1:]:
            _, *rest = inspect.signature(function).parameters.values()
            for parameter in rest:
                found.setdefault(parameter.name, parameter)
    return {
        name: parameter
        for name, parameter in found.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }


def without_default(function: Callable[..., object]) -> Iterator[str]:
    """The required parameters that are options: not those in `NOT_OPTIONS`.

    Raises `ValueError` or `TypeError` if there is no signature.
    """
    for parameter in parameters_of(function).values():
        if parameter.default is parameter.empty and parameter.name not in NOT_OPTIONS:
            yield parameter.name


def values_for(
    build: Callable[..., object], given: Collection[str] = (), skip: Collection[str] = (),
    also: Collection[str] = (),
) -> dict[str, Values | None]:  # fmt: skip
    """What to draw for each option that `build` needs, None if that is not known.

    Options that are `given` are left out, and so are the parameters in `skip`. Other schedulers are
    drawn for optional parameters too, and numbers if `build` chooses a schedule by a name; and the
    optional parameters `also`. Raises like `without_default`.
    """
    parameters = parameters_of(build)
    needed = [name for name in without_default(build) if name not in skip]
    needed += [name for name in also if name not in needed]
    hints = hints_of(build)
    drawn = {
        name: values_of(_without_none(hints.get(name)) if name in also else hints.get(name),
                        name, build)
        for name in needed
        if name not in given
    }  # fmt: skip
    chooses = any(_is_enum(hints.get(name)) for name in needed)
    for name, parameter in parameters.items():
        if name in (*needed, *given, *skip) or parameter.default is not None:
            continue
        if holds_scheduler(hints.get(name), name):
            values = values_of(hints.get(name), name, build)
            if values is not None and values.nested:
                drawn[name] = _or_none(values)
        elif chooses and (values := numbers_by_name(name)) is not None:
            drawn[name] = values
    return drawn


def _or_none(values: Values) -> Values:
    from hypothesis import strategies as st

    return Values(st.none() | values.strategy, values.words, values.nested, values.guessed)


# ---------------------------------------------------------------------------------------- hints


def hints_of(build: Callable[..., object]) -> dict[str, object]:
    """The type hint of each parameter, or `Unresolved`; those without a hint are left out."""
    found: dict[str, object] = {}
    for function in constructors(build):
        names = {**_FALLBACK, **getattr(function, "__globals__", {})}
        for name, hint in getattr(function, "__annotations__", {}).items():
            found.setdefault(name, _resolved(hint, names))
    return found


_FALLBACK = {
    **{name: getattr(typing, name) for name in typing.__all__},
    **{name: getattr(collections.abc, name) for name in collections.abc.__all__},
    "Optimizer": Optimizer, "LRScheduler": LRScheduler, "_LRScheduler": LRScheduler,
}  # fmt: skip
"""The meaning of names that a module may import for a type checker alone."""


def _resolved(hint: object, names: Mapping[str, object]) -> object:
    """A hint as a type; `Unresolved` if it is a text that can't be evaluated."""
    if not isinstance(hint, str):
        return hint
    try:
        return typing.get_type_hints(
            types.SimpleNamespace(__annotations__={"it": hint}), dict(names)
        )["it"]
    except Exception:  # a hint can hold anything
        return Unresolved(hint)


def values_of(hint: object, name: str, build: Callable[..., object]) -> Values | None:
    """What to draw for a parameter with this hint, which is None without one."""
    if isinstance(hint, Unresolved):
        hint = None
    if holds_scheduler(hint, name):
        several = name.endswith("s") or typing.get_origin(hint) in _LISTS
        return _schedulers(hint, several=several)
    if hint is str or hint is None or _is_optional_text(hint):
        found = texts_compared(build, name)
        if name in _TEXTS:
            found = [_TEXTS[name]]
        if found:
            from hypothesis import strategies as st

            return Values(st.sampled_from(found), guessed=True)
    found_values = by_hint(hint)
    return numbers_by_name(name) if found_values is None and hint is None else found_values


_TEXTS = {"param_name": "lr", "metric_name": "loss", "monitor": "loss"}
"""Texts by the name of their parameter; a metric is called ``loss`` where it needs a name."""
_LISTS = (list, Sequence, Iterable, Collection, collections.abc.MutableSequence)


def _is_optional_text(hint: object) -> bool:
    return typing.get_args(hint) in ((str, type(None)), (type(None), str))


def _without_none(hint: object) -> object:
    """The type in an optional one."""
    inside = [each for each in typing.get_args(hint) if each is not type(None)]
    optional = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return typing.Union[tuple(inside)] if optional and inside else hint  # noqa: UP007


def _is_enum(hint: object) -> bool:
    inside = (hint, *typing.get_args(hint))
    return any(isinstance(each, type) and issubclass(each, enum.Enum) for each in inside)


def halving(step: int) -> float:
    """A factor that halves with every step: a value for an option that is a function."""
    return float(0.5**step)


def by_hint(hint: object) -> Values | None:
    """What to draw for a type, if that is certain.

    Hypothesis's ``from_type`` is not used: it draws very large numbers and nan.
    """
    from hypothesis import strategies as st

    simple: dict[object, SearchStrategy[Any]] = {
        int: st.integers(1, 8),
        float: st.sampled_from([0.5, 0.1, 0.9, 0.01]),
        bool: st.booleans(),
        type(None): st.none(),
    }
    if isinstance(hint, type) and hint in simple:
        return Values(simple[hint])
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        words = {f"{hint.__name__}_{member.name}": _constant(member) for member in hint}
        return Values(st.sampled_from([Term.of(word) for word in words]), words)
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal and all(
        value is None or type(value) in (bool, int, str) for value in inside
    ):
        return Values(st.sampled_from(inside))
    if hint is Callable or hint is typing.Callable:
        return Values(st.just(Term("halving")), {"halving": halving}, guessed=True)
    if origin is collections.abc.Callable and len(inside) == 2:
        takes, gives = inside
        if takes is ... or (len(takes) == 1 and gives in (float, int, Any)):
            return Values(st.just(Term("halving")), {"halving": halving})
        return None
    parts = [part for item in inside if item is not ... and (part := by_hint(item)) is not None]
    words = {word: meaning for part in parts for word, meaning in part.words.items()}
    drawn = [part.strategy for part in parts]
    if origin in (typing.Union, types.UnionType):
        known = [item for item in inside if item is not type(None) and by_hint(item) is not None]
        if str in inside and _is_enum(hint):
            members = [member.value for item in inside if _is_enum(item) for member in item]
            return Values(st.sampled_from(members))
        return Values(st.one_of(drawn), words) if known else None
    if origin in _LISTS and parts:
        return Values(st.lists(drawn[0], min_size=1, max_size=3), words)
    if origin is tuple and inside[1:] == (...,) and parts:
        return Values(st.lists(drawn[0], min_size=1, max_size=3).map(tuple), words)
    if origin is tuple and inside and len(parts) == len(inside):
        return Values(st.tuples(*drawn), words)
    return None


def _constant(value: object) -> Callable[[], object]:
    return functools.partial(_itself, value)


def _itself(value: object) -> object:
    return value


# ---------------------------------------------------------------------------------------- names


_SMALL_RATE = (0.001, 0.01)
_RATE = (0.1, 0.5)
_BY_NAME: tuple[tuple[str, Any], ...] = (
    (r"durations", [(2,), (3,), (2, 3)]),
    (r".*(rates|weights|values)", [(0.5, 0.1), (0.5,)]),
    (r"milestones|anneal_steps|decay_epochs|decay_steps_list|boundaries", [(2, 5), (3,)]),
    (r".*(ratio|fraction|frac|pct|proportion)|pct_.*", (0.25, 0.5, 0.1)),
    (r"multiplier|.*_mult", (2.0, 1.0, 1.5)),
    (r"(min|init|initial|start|end|final|base|warmup)_?lr(_.*)?|lr_(min|initial|init|start|end)"
     r"|eta_min|final_value|end_value|min_value|lr_final|warmup_lr_init", _SMALL_RATE),
    (r"(.*_)?(max|peak|top|target)_?lr|lr_max|eta_max|lr|learning_rate|initial_value|start_value"
     r"|max_value|(.*_)?lr", _RATE),
    (r".*(gamma|factor|decay_rate|power|momentum|beta|alpha|rate)", (0.5, 0.9, 0.1)),
    (r".*(warm|ramp).*", range(1, 5)),
    (r"((.*_)?(total|max|training|end|stop|epochs|iterations)(_.*)?|T_max|t_max|t_total|.*_total"
     r"|num_(epochs|iter|iters|iterations|steps)|epochs|.*epoch_count|t_initial|.*decay_steps)",
     range(6, 13)),
    (r"num_.*|n_.*|T_.*|t_.*|.*_(steps?|epochs?|iters?|period|size|interval|t|num|count)|every"
     r"|period|patience.*|cooldown.*|half_life|step_size|warm.*|cycles?|interval|total|steps?",
     range(1, 5)),
)  # fmt: skip
"""The usual values of numbers by their names; the first pattern that matches the whole name."""


def numbers_by_name(name: str) -> Values | None:
    """What to draw for a number whose name says what it is."""
    from hypothesis import strategies as st

    for pattern, values in _BY_NAME:
        if re.fullmatch(pattern, name):
            values = [list(item) if isinstance(item, tuple) else item for item in values]
            return Values(st.sampled_from(values), guessed=True)
    return None


def texts_compared(build: Callable[..., object], name: str) -> list[str]:
    """The texts that the source of a class or function compares a parameter with; sorted.

    Also the keys of a table of its module in which it looks the parameter up, and where the
    parameter was kept in an attribute of that name.
    """
    found: set[str] = set()
    function: Any = constructors(build)[:1]
    parents = build.__mro__[:-1] if isinstance(build, type) else function
    for parent in parents:
        scope = vars(sys.modules.get(parent.__module__, types))
        for names, texts, tables in _comparisons(parent):
            if names & {name, f"_{name}"}:
                found |= texts
                for table in tables:
                    if isinstance(scope.get(table), (dict, list, tuple, set, frozenset)):
                        found |= {each for each in scope[table] if isinstance(each, str)}
    return sorted(found)


@functools.cache
def _comparisons(
    value: Any,
) -> tuple[tuple[frozenset[str], frozenset[str], frozenset[str]], ...]:
    """The names, the texts and the tables in each comparison and look-up of the source."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(value)))
    except (OSError, TypeError, SyntaxError):
        return ()
    found = []
    for node in ast.walk(tree):
        sides: list[ast.AST] = []
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
        elif isinstance(node, ast.Subscript):
            sides = [node.value, node.slice]
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "get":
            sides = [getattr(node.func, "value", node), *node.args[:1]]
        if not sides:
            continue
        # a name, or a list of texts, but not what is inside a call
        items = [each for side in sides for each in (side, *getattr(side, "elts", ()))]
        names = {each.id for each in items if isinstance(each, ast.Name)}
        kept = {each.attr for each in items if isinstance(each, ast.Attribute)}
        texts = {
            each.value
            for each in items
            if isinstance(node, ast.Compare)
            and isinstance(each, ast.Constant)
            and isinstance(each.value, str)
        }
        found.append((frozenset(names | kept), frozenset(texts), frozenset(names)))
    return tuple(found)


# ----------------------------------------------------------------------------- other schedulers


def holds_scheduler(hint: object, name: str) -> bool:
    """Whether a parameter is for another scheduler, or a list of them."""
    if hint is None or isinstance(hint, Unresolved):
        return re.fullmatch(r"(.*_)?schedulers?(_after)?", name) is not None
    return next(_scheduler_types(hint), None) is not None


def _scheduler_types(hint: object) -> Iterator[type]:
    for each in (hint, *typing.get_args(hint)):
        if each is not hint:
            yield from _scheduler_types(each)
        elif isinstance(each, type) and not issubclass(each, enum.Enum):
            named = re.search(r"Schedul|LR$", each.__name__)
            if is_torch(each) or (named and hasattr(each, "state_dict")):
                yield each


def _schedulers(hint: object, *, several: bool) -> Values | None:
    """Schedulers to be built on the optimizer."""
    from hypothesis import strategies as st

    wanted = next(_scheduler_types(hint), LRScheduler)
    one = _torch_schedulers() if is_torch(wanted) and wanted.__module__.startswith("torch") else (
        _of_package(wanted)
    )  # fmt: skip
    if one is None:
        return None
    strategy = st.lists(one.strategy, min_size=2, max_size=2) if several else one.strategy
    return Values(strategy, one.words, nested=True)


def _torch_schedulers() -> Values:
    from hypothesis import strategies as st

    words: dict[str, Callable[..., object]] = {
        "ExponentialLR": functools.partial(functools.partial, lr_scheduler.ExponentialLR),
        "StepLR": functools.partial(functools.partial, lr_scheduler.StepLR),
    }
    terms = [Term.of("ExponentialLR", gamma=0.5), Term.of("StepLR", step_size=2, gamma=0.5)]
    return Values(st.sampled_from(terms), words, nested=True)


def _of_package(wanted: type) -> Values | None:
    """Schedulers of the package of a class that inherit from it and whose options are known."""
    from hypothesis import strategies as st

    root = wanted.__module__.partition(".")[0]
    found: list[tuple[Callable[..., Any], dict[str, Values]]] = []
    for cls in sorted(_inheriting(wanted), key=lambda each: each.__name__):
        outside = cls.__module__.partition(".")[0] != root
        if outside or inspect.isabstract(cls) or cls.__name__.startswith("_"):
            continue
        try:
            hints = hints_of(cls)
            first, *needed = [*[*parameters_of(cls)][:1], *without_default(cls)]
        except (TypeError, ValueError):
            continue
        if first not in OPTIMIZER or any(holds_scheduler(hints.get(n), n) for n in needed):
            continue
        options = {name: values_of(hints.get(name), name, cls) for name in needed}
        if None in options.values():
            continue
        found.append((cls, {name: values for name, values in options.items() if values}))
    if not found:
        return None
    words: dict[str, Callable[..., object]] = {}
    drawn = []
    for one, inside in found[:2]:
        word = one.__name__
        words[word] = functools.partial(functools.partial, one)
        for values in inside.values():
            words.update(values.words)
        fixed = st.fixed_dictionaries({name: each.strategy for name, each in inside.items()})
        drawn.append(fixed.map(functools.partial(_term, word)))
    return Values(st.one_of(drawn), words, nested=True)


def _term(word: str, options: Mapping[str, object]) -> Term:
    return Term.of(word, **options)


def _inheriting(cls: type[Any]) -> Iterator[type[Any]]:
    for inheriting in cls.__subclasses__():
        if sys.modules.get(inheriting.__module__) is not None:
            yield inheriting
        yield from _inheriting(inheriting)
