"""What ``module:attribute`` refers to."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Sequence
from typing import Any

from harness.core.errors import SubjectError
from harness.core.guard import Guard
from harness.core.training_loop import describe


def import_attribute(reference: str) -> Any:
    """What ``module:attribute`` names; in a sequence ``module:attribute.name``.

    Raises `SubjectError` where it can't be imported.
    """
    module_name, _, path = reference.partition(":")
    value: Any
    try:
        with Guard(module_name).on():
            value = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        what = f"cannot import module {module_name!r} of {reference!r} ({describe(error)})"
        if isinstance(error, ModuleNotFoundError) and error.name == module_name.partition(".")[0]:
            what += ": check the name, and that it is installed or in the current folder"
        raise SubjectError(what) from None
    for name in path.split("."):
        if hasattr(value, name):
            value = getattr(value, name)
        elif isinstance(value, Sequence) and name in (named := _by_name(value)):
            value = named[name]
        else:
            close = difflib.get_close_matches(name, [n for n in dir(value) if n[:1] != "_"], n=1)
            raise SubjectError(
                f"{reference!r}: module {module_name!r} has no attribute {path!r}"
                + (f": did you mean {close[0]}?" if close else "")
            )
    return value


def _by_name(items: Sequence[Any]) -> dict[str, Any]:
    return {item.name: item for item in items if hasattr(item, "name")}
