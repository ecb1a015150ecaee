"""Pictures by matplotlib, as bytes."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import Any

from harness.errors import HarnessError

__all__ = ["check_drawable", "drawn"]

SALT = "lr-resume-harness"
"""What makes the names inside an SVG the same each time."""


def check_drawable(suffix: str, what: str) -> str:
    """``png`` or ``svg``, by the suffix of a name; `what` asks for the picture.

    Raises `HarnessError` for another suffix, and where matplotlib is not installed.
    """
    kind = suffix.lower().removeprefix(".")
    if kind not in ("png", "svg"):
        raise HarnessError(f"a picture's name must end with .png or .svg (got {suffix!r})")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise HarnessError(f"{what} needs matplotlib: python -m pip install matplotlib") from None
    return kind


def drawn(figure: Callable[[], Any], suffix: str, what: str, **settings: Any) -> bytes:
    """The figure that a function makes; the same one gives the same SVG.

    `settings` are matplotlib's, beside ours; the errors are those of `check_drawable`.
    """
    kind = check_drawable(suffix, what)
    import matplotlib

    metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    into = io.BytesIO()
    ours: Any = {"svg.hashsalt": SALT, "font.size": 8, "text.parse_math": False, **settings}
    with matplotlib.rc_context(ours), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of letters that the font lacks
        figure().savefig(into, format=kind, dpi=160, metadata=metadata)
    return into.getvalue()
