"""What keeps a check from being charged to a scheduler."""

from __future__ import annotations

import traceback

from harness.decorators import Check
from harness.errors import HarnessError
from harness.loop import describe
from harness.outcomes import Break

__all__ = ["excuses", "why"]


def excuses(control: Break, broken: Break, check: Check) -> bool:
    """Whether what the control shows is the reason of what the subject shows.

    A value says nothing: a check may promise what a constant schedule does not
    keep, or ask for what only the subject has. The same exception does.
    """
    raised = broken.actual.get("raises")
    if raised is not None or "raises" in control.actual or check.compares == "values":
        return raised is not None and raised == control.actual.get("raises")
    return True


def why(error: BaseException, so_far: str) -> str:
    """What an exception that kept a check from being made says: ours is said to be ours.

    `so_far` is what had been done, for the message.
    """
    if isinstance(error, HarnessError):
        return str(error)
    where = traceback.extract_tb(error.__traceback__)[-1]
    return (
        f"error of the harness itself, please report it: {describe(error)} "
        f"({where.name}, line {where.lineno}){so_far}"
    )
