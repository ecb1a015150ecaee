"""Observed values: compares them, and turns them into numbers."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

__all__ = ["MISSING", "Observation", "Points", "number", "numbers_of", "same"]

Observation: TypeAlias = dict[str, Any]
"""What the optimizer would use next, by name: ``lr``, ``momentum``, ``betas`` and
``weight_decay``, a number for each param group; ``get_last_lr`` and ``weights``."""
Points: TypeAlias = list[tuple[int, list[float]]]
"""An epoch (scheduler steps made), and a number for each param group."""
MISSING = "(missing)"
"""Shown in place of a missing value."""


def same(expected: Any, actual: Any) -> bool:
    """Whether two plain values are exactly equal; nan equals nan."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        return expected.keys() == actual.keys() and all(
            same(item, actual[key]) for key, item in expected.items()
        )
    if isinstance(expected, list) and isinstance(actual, list):
        return len(expected) == len(actual) and all(map(same, expected, actual))
    return bool(expected == actual or (expected != expected and actual != actual))


def number(value: Any) -> float:
    """A hyperparameter as one number; nan if it is not one."""
    if isinstance(value, dict):
        value = value.get("tensor", value.get("numpy"))
    if isinstance(value, list):
        value = value[0] if value else math.nan
        return number(value)
    return float(value) if isinstance(value, (int, float)) else math.nan


def numbers_of(observation: dict[str, Any], quantity: str) -> list[float]:
    """The values of a quantity in an observation, a number for each param group."""
    values = observation.get(quantity, [])
    return [number(value) for value in values] if isinstance(values, list) else []
