"""Functions, objects and bound methods for the schedulers that take a function.

Each is at the top level of this module, so that a reproduction script can contain its source.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def root_decay(epoch: float) -> float:
    """A factor that falls slowly."""
    return float((1 + epoch) ** -0.5)


def zigzag(epoch: float) -> float:
    """A factor that rises twice, then falls back."""
    return 1.0 + epoch % 3


def two_thirds(epoch: float) -> float:
    """The same factor at every epoch."""
    return 2 / 3


def fall_with_cycle(cycle: float) -> float:
    """A scale for CyclicLR, which counts its cycles from 1."""
    return 1 / cycle


class Decay:
    """A factor that falls exponentially; an object whose state does not change."""

    def __init__(self, base: float) -> None:
        self.base = base

    def __call__(self, epoch: float) -> float:
        """The factor at `epoch`."""
        return float(self.base**epoch)

    def at(self, epoch: float) -> float:
        """The same, as a method."""
        return float(self.base**epoch)


def decay_method(base: float) -> Callable[[float], float]:
    """The bound method of a `Decay`."""
    return Decay(base).at


class Fading:
    """A factor that falls with every call, whatever the epoch is."""

    def __init__(self, base: float) -> None:
        self.base = base
        self.factor = 1.0

    def __call__(self, epoch: float) -> float:
        """The next factor."""
        self.factor *= self.base
        return self.factor


class Swinging:
    """A factor that goes through `factors`, one for each call, and remembers them in a list."""

    def __init__(self, factors: list[float]) -> None:
        self.left = list(factors)

    def __call__(self, epoch: float) -> float:
        """The next factor; it is added to the list."""
        self.left = [*self.left[1:], self.left[0]]
        return self.left[-1]


STATELESS: Mapping[str, Callable[..., Any]] = {
    "root_decay": root_decay,
    "zigzag": zigzag,
    "two_thirds": two_thirds,
    "Decay": Decay,
    "decay_method": decay_method,
}
"""The words for callables that give the same factor for the same epoch."""

STATEFUL: Mapping[str, Callable[..., Any]] = {"Fading": Fading, "Swinging": Swinging}
"""The words for callables whose state changes when they are called."""
