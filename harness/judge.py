"""Judges an entry of the ledger by running its trace again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from harness.counterexample import evidence
from harness.errors import HarnessError, LedgerError
from harness.ledger import Entry, shows_of, version_of, without
from harness.loop import describe
from harness.minimise import neighbours
from harness.results import Counterexample

if TYPE_CHECKING:
    from harness.check import SubjectCheck
    from harness.decorators import Check

__all__ = ["judged"]


def judged(work: SubjectCheck, entry: Entry, check: Check) -> tuple[Counterexample | None, str]:
    """The counterexample of an entry as it is here, and why the entry is stale, or nothing.

    Raises `LedgerError` where the trace breaks the check and is not minimal.
    """
    trace = entry.trace
    work.current = trace
    try:
        outcome, work.tally = work.twice(check, trace)
    except HarnessError as error:
        return None, f"{entry.place}: its trace can't be run: {describe(error)}"
    broken = outcome.broken
    if broken is not None and set(broken.actual) == {"weights"} and work.blame(check, trace):
        broken = None
    if broken is None or not work.breaks(check, trace):
        ended = f" ({outcome.ended})" if outcome.ended else ""
        return None, f"{entry.place}: its trace holds{ended}: {_mend(entry)}"
    found = evidence(work, check, trace, broken)
    last = trace.operations[-1]
    if (broken.operation, broken.step) != (len(trace.operations) - 1, last.count):
        return found, f"{entry.place}: it breaks sooner, its trace is too long: {_mend(entry)}"
    if shows_of(broken) != entry.shows:
        shown = f"it shows {shows_of(broken)!r} and not {entry.shows!r}"
        return found, f"{entry.place}: {shown}: write that, or {_mend(entry)}"
    for smaller in neighbours(trace):
        if work.breaks(check, smaller):
            raise LedgerError(
                f"{entry.place}: its trace is not minimal: {smaller} breaks {check.name}, too"
            )
    return found, ""


def _mend(entry: Entry) -> str:
    """What to write where an entry is not true of this torch any more, or not yet."""
    version = version_of(torch.__version__)
    capped = without(entry.torch, version)
    if capped:
        return f"cap the entry at '<{version}' (torch = \"{capped}\")"
    return "delete the entry, or let it begin at a later torch"
