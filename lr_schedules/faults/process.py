"""Faults in what is kept only in the process, so a new process does not have it."""

from __future__ import annotations

from harness.engine.selftest import planted
from lr_schedules.controls import HALVING
from lr_schedules.correct import Halving


@planted(HALVING, "train:2 save:a resume:a", caught_by=["resume_in_another_process"])
class TableInTheClass(Halving):
    """Keeps the table of its factors, which grows by one per step, in its class."""

    table: tuple[float, ...] = (1.0,)

    def factor(self) -> float:
        if self.epoch >= len(self.table):
            type(self).table = (*self.table, self.table[-1] / 2)
        return self.table[min(self.epoch, len(self.table) - 1)]
