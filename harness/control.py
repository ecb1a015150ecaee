"""A scheduler that does nothing: what breaks with it is no fault of a subject."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from harness.decorators import Check
from harness.run import Break
from harness.subject import Subject

__all__ = ["do_nothing", "excuses"]


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


def do_nothing(optimizer: Callable[[], Any]) -> Subject:
    """A scheduler that does nothing, on a subject's optimizer."""
    return Subject("do-nothing", _Constant, optimizer=optimizer, step=_no_step)


def excuses(control: Break, broken: Break, check: Check) -> bool:
    """Whether what the control shows is the reason of what the subject shows.

    A value says nothing: a check may promise what a constant schedule does not
    keep, or ask for what only the subject has. The same exception does.
    """
    raised = broken.actual.get("raises")
    if raised is not None or "raises" in control.actual or check.compares == "values":
        return raised is not None and raised == control.actual.get("raises")
    return True
