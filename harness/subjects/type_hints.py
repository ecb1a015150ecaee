"""Draws the options that a constructor needs, if its type hints say what they are."""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

NOT_OPTIONS = ("self", "optimizer", "last_epoch", "verbose")
"""Parameters of a constructor that are not options."""


def strategies_for(
    build: Callable[..., object], given: Collection[str]
) -> dict[str, SearchStrategy[object]]:
    """Strategies for the options that `build` needs and that are not `given`.

    Only for those whose type hints say what to draw; empty if `build` has no signature.
    """
    try:
        hints = required(build)
    except (TypeError, ValueError):  # some builtins have no signature
        return {}
    drawn = {name: strategy_of(hint) for name, hint in hints.items() if name not in given}
    return {name: strategy for name, strategy in drawn.items() if strategy is not None}


def without_default(function: Callable[..., object], skip: int = 0) -> Iterator[str]:
    """The required parameters, without the first `skip` and those in `NOT_OPTIONS`.

    Raises `ValueError` or `TypeError` if there is no signature.
    """
    for parameter in list(inspect.signature(function).parameters.values())[skip:]:
        variable = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if (
            parameter.default is parameter.empty
            and not variable
            and parameter.name not in NOT_OPTIONS
        ):
            yield parameter.name


def required(build: Callable[..., object]) -> dict[str, object]:
    """The options without a default, each with its type hint or None.

    Raises like `without_default`. The first parameter is the optimizer, and is left out.
    """
    names = list(without_default(build, skip=1))
    function: Any = build.func if isinstance(build, functools.partial) else build
    is_class = isinstance(function, type)
    try:
        hints = typing.get_type_hints(function.__init__ if is_class else function)
    except Exception:  # names that exist only for a type checker
        hints = {}
    return {name: hints.get(name) for name in names}


def strategy_of(hint: object) -> SearchStrategy[object] | None:
    """The strategy that draws values of a type, if that is certain.

    Hypothesis's ``from_type`` is not used: it draws very large numbers and nan.
    """
    from hypothesis import strategies as st

    simple = {
        int: st.integers(1, 8),
        float: st.sampled_from([0.5, 0.1, 0.9, 0.01]),
        bool: st.booleans(),
        type(None): st.none(),
    }
    if isinstance(hint, type) and hint in simple:
        return simple[hint]
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal and all(
        value is None or type(value) in (bool, int, str) for value in inside
    ):
        return st.sampled_from(inside)
    parts = [part for item in inside if item is not ... and (part := strategy_of(item)) is not None]
    if origin in (typing.Union, types.UnionType):
        return st.one_of(parts) if len(parts) == len(inside) else None
    if origin in (list, Sequence, Iterable, Collection) and parts:
        return st.lists(parts[0], min_size=1, max_size=3)
    if origin is tuple and inside[1:] == (...,) and parts:
        return st.lists(parts[0], min_size=1, max_size=3).map(tuple)
    if origin is tuple and inside and len(parts) == len(inside):
        return st.tuples(*parts)
    return None
