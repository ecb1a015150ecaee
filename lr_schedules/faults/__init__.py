"""Planted faults: controls with one defect each, and the checks that must catch it."""

from harness.engine.selftest import Fault, planted_in
from lr_schedules.faults import (
    conditions,
    events,
    optimizer,
    position,
    process,
    saves,
    state,
    timing,
    transport,
)

__all__ = ["FAULTS", "SUBJECTS"]

FAULTS: tuple[Fault, ...] = tuple(
    fault
    for module in (
        position,
        timing,
        state,
        saves,
        optimizer,
        conditions,
        events,
        process,
        transport,
    )
    for fault in planted_in(vars(module))
)
"""Every planted fault; add a new module of faults here."""

SUBJECTS = tuple(fault.subject for fault in FAULTS)
"""The faults as subjects, for the command line: ``lr_schedules.faults:SUBJECTS.NAME``."""
