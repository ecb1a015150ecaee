"""Decides whether a failure is the fault of something other than the scheduler."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from harness.core.check import Check
from harness.core.errors import HarnessError
from harness.core.run import Difference
from harness.core.training_loop import describe
from harness.subjects.subject import Subject


def excuses(control: Difference, broken: Difference, check: Check) -> bool:
    """Whether the subject's failure has the same cause as the control's.

    If the check compares values, a wrong value of the control proves nothing: a constant
    schedule may not keep the check's promise, or may lack what the check asks for. The same
    exception in both does prove it.
    """
    raised = broken.actual.get("raises")
    if raised is not None or "raises" in control.actual or check.compares == "values":
        return raised is not None and raised == control.actual.get("raises")
    return True


def why_not_decided(error: BaseException, so_far: str) -> str:
    """The message for an exception that stopped a check; an error of the harness says so.

    `so_far` says what had been done by then; it ends the message.
    """
    if isinstance(error, HarnessError):
        return str(error)
    where = traceback.extract_tb(error.__traceback__)[-1]
    return (
        f"error of the harness itself, please report it: {describe(error)} "
        f"({where.name}, line {where.lineno}){so_far}"
    )


class _Constant:
    """A scheduler that does nothing."""

    def __init__(self, optimizer: Any, last_epoch: int = -1) -> None:
        self.optimizer = optimizer

    def step(self, *metrics: Any) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {"last_epoch": 0, "base_lrs": [0.1, 0.01], "mode": "constant"}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass

    def get_last_lr(self) -> list[Any]:
        return [group["lr"] for group in self.optimizer.param_groups]


def _no_step(scheduler: Any, epoch: int) -> None:
    pass


def do_nothing(optimizer: Any, words: Mapping[str, Any] = MappingProxyType({})) -> Subject:
    """A scheduler that does nothing, on the subject's optimizer and with the subject's words."""
    return Subject("do-nothing", _Constant, words=words, optimizer=optimizer, step=_no_step)
