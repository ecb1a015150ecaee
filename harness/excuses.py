"""What keeps a check from being charged to a scheduler."""

from __future__ import annotations

import traceback
from typing import Any

from harness.decorators import Check
from harness.errors import HarnessError, SubjectError
from harness.loop import describe
from harness.run import Break
from harness.subject import Bound

__all__ = ["excuses", "find_lacks", "why"]


def excuses(control: Break, broken: Break, check: Check) -> bool:
    """Whether what the control shows is the reason of what the subject shows.

    A value says nothing: a check may promise what a constant schedule does not
    keep, or ask for what only the subject has. The same exception does.
    """
    raised = broken.actual.get("raises")
    if raised is not None or "raises" in control.actual or check.compares == "values":
        return raised is not None and raised == control.actual.get("raises")
    return True


def find_lacks(bound: Bound, scheduler: Any) -> dict[str, str]:
    """What checks may need and the scheduler does not have, each with the reason to give."""
    if not (hasattr(scheduler, "state_dict") and hasattr(scheduler, "load_state_dict")):
        raise SubjectError(
            f"subject {bound.subject.name}: {type(scheduler).__name__} has no state_dict and "
            "load_state_dict, so nothing of it is in a checkpoint: add them, or give the Subject "
            "two functions in their place"
        )
    lacks = {}
    if not hasattr(scheduler, "get_last_lr"):
        lacks["get_last_lr"] = "it has no get_last_lr"
    takes = bound.takes_last_epoch
    if takes:
        try:
            bound.build(bound.new_optimizer(), last_epoch=-1)
        except TypeError as error:
            takes = "last_epoch" not in str(error)
        except Exception:
            takes = True  # a matter of the check, which will say so
    if not takes:
        lacks["last_epoch"] = "its build takes no last_epoch"
    return lacks


def why(error: Exception, so_far: str) -> str:
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
