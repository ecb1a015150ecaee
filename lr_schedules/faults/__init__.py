"""Planted faults: the controls, each with one thing wrong, and what must catch it."""

from harness.faults import Fault
from lr_schedules.faults import optimizer, position, state, timing

__all__ = ["FAULTS", "SUBJECTS"]

FAULTS: tuple[Fault, ...] = (*position.FAULTS, *timing.FAULTS, *state.FAULTS, *optimizer.FAULTS)
"""Every planted fault."""

SUBJECTS = tuple(fault.subject for fault in FAULTS)
"""The faults as subjects, for the command line: ``lr_schedules.faults:SUBJECTS.NAME``."""
