"""Suggestions for names that are almost right."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def closest(name: str, names: Iterable[str]) -> str:
    """The name that `name` was probably meant to be; empty if none is close.

    >>> closest("steplr", ["StepLR", "MultiStepLR"])
    'StepLR'
    >>> closest("nonsense", ["StepLR"])
    ''
    """
    known = {each.lower().replace("-", "_"): each for each in names}
    found = difflib.get_close_matches(name.lower().replace("-", "_"), known, n=1)
    return known[found[0]] if found else ""


def did_you_mean(name: str, names: Iterable[str], otherwise: str = "") -> str:
    """``did you mean StepLR?``, or `otherwise` if no name is close."""
    found = closest(name, names)
    return f"did you mean {found}?" if found else otherwise
