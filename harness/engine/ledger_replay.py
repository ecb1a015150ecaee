"""Runs the traces of ledger entries again, and says which entries are not true of this torch."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from harness.core.check import Check
from harness.core.errors import HarnessError, LedgerError
from harness.core.ledger import Entry, shows_of, version_of, without
from harness.core.result import Counterexample
from harness.core.trace import Trace
from harness.core.training_loop import describe
from harness.engine.counterexample import counterexample
from harness.engine.minimise import neighbours
from harness.engine.option_sets import find_untried
from harness.engine.trials import Trials

__all__ = ["Replayed", "describe_stale", "replay_entry"]


@dataclass(frozen=True)
class Replayed:
    """What the trace of an entry shows on this torch.

    If it breaks nothing, `found` is None and `why` says so. `smaller` is a trace with one
    operation less that also breaks the check.
    """

    entry: Entry
    found: Counterexample | None
    why: str = ""
    smaller: Trace | None = None

    @property
    def minimal(self) -> bool:
        """Whether the trace breaks the check and nothing can be left out of it."""
        return self.found is not None and not self.why and self.smaller is None


def replay_entry(trials: Trials, entry: Entry) -> Replayed:
    """Run the trace of an entry on this torch, even if the entry covers other releases."""
    trace = entry.trace
    try:
        bound = trials.bound(trace)
        kinds = {operation.kind for operation in trace.operations}
        for kind, reason in find_untried(bound, trials.runner(bound), kinds).items():
            return Replayed(entry, None, f"{kind} is not tried with its options: {reason}")
        outcome = trials.twice(trace, count=True)
    except HarnessError as error:
        return Replayed(entry, None, f"its trace can't be run: {describe(error)}")
    broken = outcome.broken
    if broken is not None and set(broken.actual) == {"weights"} and trials.blames_weights(trace):
        broken = None
    if broken is None or not trials.breaks(trace):
        ended = f" ({outcome.ended})" if outcome.ended else ""
        return Replayed(entry, None, f"its trace holds{ended}")
    found = counterexample(trials, trace, broken)
    if trace.until(broken.operation, broken.step) != trace:
        return Replayed(entry, found, "it breaks sooner, its trace is too long")
    smaller = (candidate for candidate in neighbours(trace) if trials.breaks(candidate))
    return Replayed(entry, found, smaller=next(smaller, None))


def describe_stale(replay: Replayed, check: Check) -> str:
    """Why an entry that covers this torch is not true of it; empty if it is true.

    Raises `LedgerError` if its trace breaks the check and is not minimal.
    """
    entry = replay.entry
    if replay.why or replay.found is None:
        return f"{entry.place}: {replay.why}: {_mend(entry)}"
    if shows_of(replay.found) != entry.shows:
        shown = f"it shows {shows_of(replay.found)!r} and not {entry.shows!r}"
        return f"{entry.place}: {shown}: write that, or {_mend(entry)}"
    if replay.smaller is not None:
        raise LedgerError(
            f"{entry.place}: its trace is not minimal: {replay.smaller} also breaks {check.name}"
        )
    return ""


def _mend(entry: Entry) -> str:
    """How to correct an entry that is not true of this torch, or not any more."""
    version = version_of(torch.__version__)
    capped = without(entry.torch, version)
    if capped:
        return f"cap the entry at '<{version}' (torch = \"{capped}\")"
    return "delete the entry, or let it begin at a later torch"
