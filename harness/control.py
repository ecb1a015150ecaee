"""A scheduler that does nothing: what breaks with it is no fault of a subject."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from harness.subject import Subject

__all__ = ["do_nothing"]


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
    """A scheduler that does nothing, on a subject's optimizer; its words are known to it, too."""
    return Subject("do-nothing", _Constant, words=words, optimizer=optimizer, step=_no_step)
