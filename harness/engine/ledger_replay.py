"""Judges entries of the ledger by running their traces again."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from harness.core.errors import HarnessError, LedgerError
from harness.core.ledger import Entry, shows_of, version_of, without
from harness.core.result import BROKEN, DECLINED, KNOWN, STALE, Counterexample
from harness.core.trace import Trace
from harness.core.training_loop import describe
from harness.engine.counterexample import counterexample, evidence
from harness.engine.minimise import neighbours
from harness.engine.option_sets import find_untried

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.core.check import Check
    from harness.engine.verdict import SubjectCheck

OTHERWISE = "; another trace breaks it"


@dataclass(frozen=True)
class Replay:
    """What the trace of an entry shows here.

    `found` is nothing where it breaks nothing; `why` says so. `smaller` is a trace with an
    operation less that breaks the check as well.
    """

    entry: Entry
    found: Counterexample | None
    why: str = ""
    smaller: Trace | None = None

    @property
    def minimal(self) -> bool:
        """Whether it breaks the check, with nothing too much in it."""
        return self.found is not None and not self.why and self.smaller is None


def replayed(work: SubjectCheck, entry: Entry, check: Check) -> Replay:
    """Run the trace of an entry on this torch, whatever its range is."""
    trace = entry.trace
    work.current = trace
    try:
        bound = work.subject.bind(dict(trace.options))
        kinds = {operation.kind for operation in trace.operations}
        for kind, reason in find_untried(bound, work.runner(bound), kinds).items():
            return Replay(entry, None, f"{kind} is not tried with its options: {reason}")
        outcome, work.tally = work.twice(check, trace)
    except HarnessError as error:
        return Replay(entry, None, f"its trace can't be run: {describe(error)}")
    broken = outcome.broken
    if broken is not None and set(broken.actual) == {"weights"} and work.blame(check, trace):
        broken = None
    if broken is None or not work.breaks(check, trace):
        ended = f" ({outcome.ended})" if outcome.ended else ""
        return Replay(entry, None, f"its trace holds{ended}")
    found = evidence(work, check, trace, broken)
    if trace.until(broken.operation, broken.step) != trace:
        return Replay(entry, found, "it breaks sooner, its trace is too long")
    smaller = (candidate for candidate in neighbours(trace) if work.breaks(check, candidate))
    return Replay(entry, found, smaller=next(smaller, None))


def by_ledger(
    work: SubjectCheck, entries: Sequence[Entry], check: Check, holding: Sequence[Check]
) -> tuple[str, str, Counterexample | None]:
    """Verdict, reason and counterexample of a pair that these entries are on.

    All their traces are run: one that breaks the check on a torch that no entry is about says
    that a range is too short.
    """
    version = version_of(torch.__version__)
    replays = []
    for entry in entries:
        work.weights = True
        replays.append(replayed(work, entry, check))
    work.replays = tuple(replay.found for replay in replays if replay.found and replay.minimal)
    work.weights = True
    about = next((replay for replay in replays if replay.entry.covers(version)), None)
    if about is None:
        return _beyond(work, replays, check, holding)
    entry, found = about.entry, about.found
    stale = _stale(about, check)
    if stale and found is not None and about.minimal:
        return STALE, stale, found
    if stale:
        instead = None
        with contextlib.suppress(HarnessError):
            instead = _beyond(work, [r for r in replays if r is not about], check, holding)[2]
        return STALE, stale + (OTHERWISE if instead is not None else ""), instead
    if work.search_known:
        work.known = found
        verdict, reason, other = work.decide(check, holding)
        if verdict == BROKEN:
            beside = f"beside what is known at {entry.place}"
            return BROKEN, "; ".join(filter(None, [beside, reason])), other
    return KNOWN, f"{entry.kind}, {entry.tracked}: {entry.reason}", found


def _beyond(
    work: SubjectCheck, replays: Sequence[Replay], check: Check, holding: Sequence[Check]
) -> tuple[str, str, Counterexample | None]:
    """Verdict, reason and counterexample of a pair that no entry which is true is about."""
    told = max((r for r in replays if r.found), key=lambda r: r.minimal, default=None)
    if told is not None:
        first = _minimal(work, check, told)
        place, range_ = told.entry.place, str(told.entry.torch)
        version = version_of(torch.__version__)
        reason = f"{place} has it, but of torch {range_!r}: let an entry cover {version}"
        return BROKEN, reason, work.with_others(check, holding, first)
    if work.replay_alone:
        return DECLINED, "no trace in the ledger breaks it, and none but those were run", None
    return work.decide(check, holding)


def _minimal(work: SubjectCheck, check: Check, replay: Replay) -> Counterexample:
    """The counterexample of an entry, without what is too much of it on this torch."""
    if replay.found is not None and replay.minimal:
        return replay.found
    trace = work.simplify(check, work.cut(check, replay.entry.trace))
    return counterexample(work, check, trace, work.found())


def _stale(replay: Replay, check: Check) -> str:
    """Why an entry about this torch is stale, or nothing.

    Raises `LedgerError` where the trace breaks the check and is not minimal.
    """
    entry = replay.entry
    if replay.why or replay.found is None:
        return f"{entry.place}: {replay.why}: {_mend(entry)}"
    if shows_of(replay.found) != entry.shows:
        shown = f"it shows {shows_of(replay.found)!r} and not {entry.shows!r}"
        return f"{entry.place}: {shown}: write that, or {_mend(entry)}"
    if replay.smaller is not None:
        raise LedgerError(
            f"{entry.place}: its trace is not minimal: {replay.smaller} breaks {check.name}, too"
        )
    return ""


def _mend(entry: Entry) -> str:
    """What to write where an entry is not true of this torch any more, or not yet."""
    version = version_of(torch.__version__)
    capped = without(entry.torch, version)
    if capped:
        return f"cap the entry at '<{version}' (torch = \"{capped}\")"
    return "delete the entry, or let it begin at a later torch"
