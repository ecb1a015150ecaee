"""A small selftest: one fault with a right record, and some whose record is wrong."""

from dataclasses import replace

from harness import Subject, Trace
from harness.engine.selftest import planted, planted_in
from lr_schedules.controls import HALVING
from lr_schedules.correct import Halving
from lr_schedules.faults import FAULTS

SHORT = replace(HALVING, length=4)
"""Swept in a fifth of the time."""

CONTROLS = (SHORT,)


@planted(SHORT, "train:3", caught_by=["lr_is_never_negative"])
class Right(Halving):
    """Is negative from the third epoch on, as its record says."""

    def factor(self):
        return 1.0 if self.epoch < 3 else -1.0


RIGHT = planted_in(globals())
[FAULT] = RIGHT
NOT_MINIMAL = (replace(FAULT, trace=Trace.parse("train:4")),)
NOT_RUN = (replace(FAULT, trace=Trace.parse("no_such_option=1 train:3")),)


@planted(SHORT, "train:3", caught_by=["lr_is_never_negative"])
class Missed(Halving):
    """Is nowhere negative, as its record says it is."""


MISSED = (Missed.__fault__,)


@planted(SHORT, "train:3", caught_by=["last_lr_is_the_groups_lr"])
class Alarms(Halving):
    """Reports the LR rounded, and is negative, too, which its record does not say."""

    def factor(self):
        return -super().factor()

    def get_last_lr(self):
        return [round(rate, 2) for rate in super().get_last_lr()]


ALARMS = (Alarms.__fault__,)
WRONG_CONTROLS = (Subject("wrong", Alarms, length=4),)


FOR_A_FILE = tuple(fault for fault in FAULTS if fault.name == "NumPyRate")


def raises(optimizer, last_epoch=-1):
    """A build that fails."""
    raise ValueError("no such luck")


UNKNOWN_CONTROLS = (Subject("raises", raises, length=4),)
NO_FAULTS = ("a word",)
