"""The optimizers that a trace can name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["WORDS"]

WORDS: Mapping[str, Callable[..., Any]] = {}
"""What a trace says behind ``optimizer=``, each called with what it says in parentheses."""
