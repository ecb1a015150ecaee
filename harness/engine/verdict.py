"""Decides the verdict on one pair of subject and check; no other module does.

A check may be declined. Otherwise it is judged by the given trace, or by the ledger entries that
cover it, or by what the sweep and the search find.
"""

from __future__ import annotations

import contextlib
import functools
import math
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from harness.checks.registry import routes
from harness.core.check import Check
from harness.core.errors import HarnessError, LedgerError, UndecidedError
from harness.core.ledger import (
    ANY,
    ROUNDED,
    Entry,
    KnownFailure,
    version_of,
    without,
)
from harness.core.operations import Operation
from harness.core.references import place_of
from harness.core.relations import every_relation, shows_of, ulps_of
from harness.core.result import Budget, Counterexample, Found, FoundBy, Result
from harness.core.trace import Trace
from harness.core.training_loop import describe
from harness.core.verdict import Reason, Verdict
from harness.engine.counterexample import evidence
from harness.engine.examples import Examples
from harness.engine.minimise import neighbours
from harness.engine.option_sets import Prepared, find_untried, what_torch_lacks
from harness.engine.search import find, simplify
from harness.engine.trials import OF_THE_OPTIMIZER, Trials

__all__ = [
    "Decision", "Question", "Replayed", "Spent", "describe_stale", "judge", "replay_entry",
    "result_of", "undecided",
]  # fmt: skip


@dataclass(frozen=True)
class Replayed:
    """What the trace of an entry shows on this torch.

    `why` says what is wrong with the trace: it can't be run or breaks nothing (`found` is None),
    or it breaks before its end. `smaller` is a trace with one operation less that shows the same
    failure: the entry would explain it.
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
    if broken is not None and set(broken.actual) == {"weights"} and trials.excuse_weights(trace):
        broken = None
    if broken is None or not trials.breaks(trace):
        ended = f" ({outcome.ended})" if outcome.ended else ""
        return Replayed(entry, None, f"its trace holds{ended}")
    found = trials.counterexample(trace, broken)
    if trace.until(broken.operation, broken.step) != trace:
        return Replayed(entry, found, "it breaks sooner, its trace is too long")
    smaller = (
        candidate
        for candidate in neighbours(trace)
        if trials.breaks(candidate) and _breaks_alike(trials, candidate, KnownFailure(entry, found))
    )
    return Replayed(entry, found, smaller=next(smaller, None))


def _breaks_alike(trials: Trials, trace: Trace, known: KnownFailure) -> bool:
    """Whether `trace` breaks the check in the way of a known failure."""
    broken = trials.run(trace).broken
    if broken is None:
        return False
    shown = evidence(trials.runner(trials.bound(trace)), trials.check, trace, broken)
    return known.explains(trials.check.promise, shown)


def describe_stale(replay: Replayed, check: Check) -> str:
    """Why an entry that covers this torch is not true of it; empty if it is true.

    Raises `LedgerError` if its trace breaks the check and is not minimal.
    """
    entry, found = replay.entry, replay.found
    if replay.why or found is None:
        return f"{entry.place}: {replay.why}: {_mend(entry)}"
    if replay.smaller is not None:
        raise LedgerError(
            f"{entry.place}: its trace is not minimal: write {replay.smaller}, which also "
            f"breaks {check.name}"
        )
    if entry.relation not in ("", ANY, *every_relation(found)):
        true = " or ".join(map(repr, every_relation(found))) or "nothing"
        return f"{entry.place}: 'relation' is not true of its values: write {true}"
    if entry.kind == ROUNDED and entry.ulps < (ulps_of(found) or math.inf):
        apart = ulps_of(found)
        why = f"they are {apart} ulps apart" if apart else "they differ by more than rounding"
        return f"{entry.place}: 'ulps' is not true of its values: {why}"
    return ""


def _mend(entry: Entry) -> str:
    """How to correct an entry that is not true of this torch, or not any more."""
    version = version_of(torch.__version__)
    capped = without(entry.torch, version)
    if capped:
        return f"cap the entry at '<{version}' (torch = \"{capped}\")"
    return "delete the entry, or let it begin at a later torch"


ALSO_OTHERWISE = "; another trace breaks it"


@dataclass(frozen=True)
class Spent:
    """What was spent on a subject before this pair: traces, and the CPU clock at the start."""

    traces: int
    started: float

    def found(self, by: FoundBy, trials: Trials) -> Found:
        """How a counterexample that was found just now was found."""
        seconds = time.process_time() - self.started
        return Found(by, self.traces + trials.tally.traces, seconds)


@dataclass(frozen=True)
class Question:
    """What is asked about one pair, and what is known about its subject.

    `holding` are the checks that hold, among those this check depends on. With a `trace`, only
    that trace is run. `entries` are the ledger entries for this pair. `will_search`: another
    question, with the same trials, will
    search what this one sweeps. With `replay_alone` only the traces of the entries are run.
    `examples` are counterexamples of earlier runs.
    """

    prepared: Prepared
    spent: Spent
    budget: Budget
    holding: tuple[Check, ...] = ()
    trace: Trace | None = None
    entries: tuple[Entry, ...] = ()
    will_search: bool = False
    replay_alone: bool = False
    examples: Examples | None = None


@dataclass(frozen=True)
class Decision:
    """A verdict with its reason."""

    verdict: Verdict
    why: Reason = Reason.NONE
    reason: str = ""
    counterexample: Counterexample | None = None
    replays: tuple[Counterexample, ...] = ()
    place: str = ""


def judge(trials: Trials, question: Question) -> Result:
    """The result for one pair, with what was tried for it; an error leads to UNKNOWN."""
    started = time.perf_counter()
    try:
        decision = _decide(trials, question)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a subject may raise anything
        mistaken = isinstance(error, HarnessError) and not isinstance(error, UndecidedError)
        if question.trace is not None and mistaken:
            raise  # the caller gave a trace that can't be run
        decision = undecided(error, trials.limit.so_far())
    return result_of(question.prepared, trials, decision, time.perf_counter() - started)


def result_of(prepared: Prepared, trials: Trials, decision: Decision, seconds: float) -> Result:
    """The result of a decision, with what was tried for it; `seconds` is the time it took."""
    subject, check = trials.subject, trials.check
    place = decision.place if decision.verdict == Verdict.STALE else ""
    if decision.verdict in (Verdict.BROKEN, Verdict.UNKNOWN):
        place = place_of(subject.build)
    return Result(
        subject.name, check.name, decision.verdict, decision.reason, decision.counterexample,
        trials.tally, round(seconds, 4), references=(subject.reference, check.reference),
        weights=trials.weights, untried=tuple(prepared.untried.items()),
        resume_python=trials.runners.resume_python if check.elsewhere else "",
        torch=str(torch.__version__), replays=decision.replays, place=place, why=decision.why,
        promise=check.promise,
    )  # fmt: skip


def undecided(error: BaseException, so_far: str) -> Decision:
    """The decision UNKNOWN, for an exception; `so_far` says what had been done by then."""
    if isinstance(error, HarnessError):
        why = error.why if isinstance(error, UndecidedError) else Reason.NOT_RUNNABLE
        return Decision(Verdict.UNKNOWN, why, str(error))
    if not isinstance(error, (Exception, SystemExit)):
        reason = f"the subject raised {describe(error)}, which ends a program{so_far}"
        return Decision(Verdict.UNKNOWN, Reason.NOT_RUNNABLE, reason)
    where = traceback.extract_tb(error.__traceback__)[-1]
    reason = (
        f"error of the harness itself, please report it: {describe(error)} "
        f"({where.name}, line {where.lineno}){so_far}"
    )
    return Decision(Verdict.UNKNOWN, Reason.HARNESS_ERROR, reason)


def _decide(trials: Trials, question: Question) -> Decision:
    why, reason = _declined(trials, question)
    version = version_of(torch.__version__)
    about = next((entry for entry in question.entries if entry.covers(version)), None)
    if reason and about:
        text = f"{about.place}: it is declined here: {reason}"
        return Decision(Verdict.STALE, Reason.ENTRY_NOT_TRUE, text, place=about.place)
    if reason:
        return Decision(Verdict.DECLINED, why, reason)
    with trials.limit.on():
        if question.trace is not None:
            return _by_trace(trials, question.trace)
        return _by_ledger(trials, question)


def _declined(trials: Trials, question: Question) -> tuple[Reason, str]:
    """Why the check does not apply to the subject; an empty reason if it does."""
    check, given, prepared = trials.check, question.trace is not None, question.prepared
    declines = trials.subject.declines
    if check.name in declines:
        return Reason.SUBJECT_DECLINES, declines[check.name]
    if prepared.nothing_changes and not given:
        return Reason.NOTHING_CHANGES, prepared.nothing_changes
    if check.mixes and not given:
        few = len(question.holding) < 2
        why = "fewer than two resume checks hold alone" if few else ""
        return Reason.NEEDS_ANOTHER_CHECK, why
    before = check.prerequisite
    if before and not given and "options" not in prepared.lacks and not question.holding:
        return (
            Reason.NEEDS_ANOTHER_CHECK,
            f"{before.name} does not hold even with unchanged options",
        )
    ways = [check, *(routes(check, question.trace) if question.trace is not None else ())]
    needs = dict.fromkeys(need for way in ways for need in way.needs)
    if question.trace is not None and "changed" in dict(question.trace.options):
        needs.pop("options", None)  # the trace says how they change
    reasons = [prepared.lacks.get(need, "") or what_torch_lacks(need) for need in needs]
    if "json" in needs:
        reasons.append(_refusal(prepared, trials))
    lacks = next(filter(None, reasons), "")
    return Reason.LACKS_SOMETHING, lacks or trials.start_elsewhere(prepared.option_sets[0].bound)


def _refusal(prepared: Prepared, trials: Trials) -> str:
    """Why the state can't be saved in the check's format after some steps, or nothing."""
    first = prepared.option_sets[0]
    steps = Operation("train", count=min(first.epochs, 3))
    trace = Trace((steps, Operation("save", slot="a")), first.bound.literals)
    with trials.limit.on():
        outcome = trials.run(trace)
    return outcome.ended if outcome.refused else ""


def _by_trace(trials: Trials, trace: Trace) -> Decision:
    """The decision from a single trace."""
    outcome = trials.twice(trace, count=True)
    if outcome.broken and trials.excuse_weights(trace):
        outcome = trials.twice(trace, count=True)
    if outcome.broken is not None:
        found = trials.counterexample(trace, outcome.broken)
        return Decision(Verdict.BROKEN, reason=trials.note(), counterexample=found)
    if outcome.ended:
        raise UndecidedError(outcome.ended)
    if not trials.tried():
        raise UndecidedError(
            f"the trace does nothing that {trials.check.name} looks at", Reason.NOTHING_TRIED
        )
    return Decision(Verdict.HOLDS, reason=trials.note())


# ------------------------------------------------------------------------------- the ledger


def _by_ledger(trials: Trials, question: Question) -> Decision:
    """The decision from the ledger entries, or from a search if no entry covers this torch.

    The traces of all entries are run. If one breaks the check on a torch that no entry covers,
    the range of that entry is too short.
    """
    version = version_of(torch.__version__)
    replays = []
    for entry in question.entries:
        trials.compare_weights_again()
        replays.append(replay_entry(trials, entry))
    minimal = tuple(
        replace(replay.found, runs=(), uninterrupted=None)
        for replay in replays
        if replay.found and replay.minimal
    )
    if question.entries:
        trials.compare_weights_again()
    covering = [replay for replay in replays if replay.entry.covers(version)]
    if not covering:
        decision = _without_entry(trials, question, replays)
        return replace(decision, replays=minimal)
    for about in covering:
        stale = "" if _is_another(about) else describe_stale(about, trials.check)
        if stale:
            return replace(_stale(trials, question, about, stale, replays), replays=minimal)
    more = _not_explained(trials, question, covering, replays)
    if more is not None:
        return replace(more, replays=minimal)
    entries = [about.entry for about in covering]
    reasons = dict.fromkeys(f"{entry.kind}, {entry.tracked}: {entry.reason}" for entry in entries)
    return Decision(
        Verdict.KNOWN, Reason.LEDGER_ENTRY, " ".join(reasons), covering[0].found, minimal,
        entries[0].place,
    )  # fmt: skip


def _is_another(replay: Replayed) -> bool:
    """Whether the trace of an entry breaks the check in another way than the entry says."""
    return replay.found is not None and not replay.entry.is_shown_by(replay.found)


def _stale(
    trials: Trials, question: Question, about: Replayed, stale: str, replays: Sequence[Replayed]
) -> Decision:
    """The decision on a pair with an entry that is not true, with what breaks it instead."""
    found = about.found if about.minimal else None
    if found is None:
        others = [replay for replay in replays if replay is not about]
        with contextlib.suppress(HarnessError):
            found = _without_entry(trials, question, others).counterexample
        stale += ALSO_OTHERWISE if found is not None else ""
    place = about.entry.place
    return Decision(Verdict.STALE, Reason.ENTRY_NOT_TRUE, stale, found, place=place)


def _not_explained(
    trials: Trials, question: Question, covering: Sequence[Replayed], replays: Sequence[Replayed]
) -> Decision | None:
    """The decision BROKEN if a failure is found that the `covering` entries do not explain.

    The traces of the entries are looked at first, then those of the entries about other versions,
    then those of the sweep and the search.
    """
    known = []
    for about in covering:
        entry, found = about.entry, about.found
        assert found is not None
        if _is_another(about):
            reason = (
                f"{entry.place} is about another failure: its trace shows {shows_of(found)!r} and "
                f"not {entry.shows!r}"
            )
            if about.why:  # it breaks before its end
                trace = simplify(trials, trials.cut(entry.trace), question.budget.seed)
                found = trials.counterexample(
                    trace, None, question.spent.found(FoundBy.SWEEP, trials)
                )
            return Decision(Verdict.BROKEN, Reason.MORE_THAN_LEDGER, reason, found)
        known.append(KnownFailure(entry, found))
    promise = trials.check.promise
    others = [
        replay
        for replay in replays
        if replay not in covering and replay.found is not None and replay.minimal
        and not any(each.explains(promise, replay.found) for each in known)
    ]  # fmt: skip
    if others:
        return _without_entry(trials, question, others)
    if question.replay_alone:
        return None
    decision = _search(trials, question, known)
    if decision.verdict != Verdict.BROKEN:
        return None
    places = " or ".join(about.entry.place for about in covering)
    reason = "; ".join(filter(None, [f"not the failure known at {places}", decision.reason]))
    return replace(decision, why=Reason.MORE_THAN_LEDGER, reason=reason)


def _without_entry(trials: Trials, question: Question, replays: Sequence[Replayed]) -> Decision:
    """The verdict on a pair that no valid entry covers."""
    told = max((r for r in replays if r.found), key=lambda r: r.minimal, default=None)
    if told is not None:
        found = told.found
        if found is None or not told.minimal:
            trace = simplify(trials, trials.cut(told.entry.trace), question.budget.seed)
            found = trials.counterexample(trace, None, question.spent.found(FoundBy.SWEEP, trials))
        version, entry = version_of(torch.__version__), told.entry
        reason = (
            f"{entry.place} has this failure, but only for torch '{entry.torch}': "
            f"let an entry cover {version}"
        )
        return Decision(Verdict.BROKEN, Reason.ENTRY_RANGE_TOO_SHORT, reason, found)
    if question.replay_alone:
        reason = "no trace in the ledger breaks it, and no others were run"
        return Decision(Verdict.DECLINED, Reason.NOT_IN_LEDGER, reason)
    return _search(trials, question)


# ------------------------------------------------------------------------------- the search


def _search(trials: Trials, question: Question, known: Sequence[KnownFailure] = ()) -> Decision:
    """The decision from the sweep and the search, apart from what `known` failures explain."""
    sets, budget, examples = question.prepared.option_sets, question.budget, question.examples
    look = functools.partial(
        find, trials, sets, question.holding, budget, examples=examples, known=known
    )
    hit = look()
    while hit is not None and trials.excuse_weights(hit.trace):
        hit = look()
    if hit is None:
        if not question.will_search and not known:
            _require_something_tried(trials)
        return Decision(Verdict.HOLDS, reason=trials.note(*question.prepared.ends))
    found = question.spent.found(hit.by, trials)
    if examples is not None:
        examples.save(trials.subject.name, trials.check.name, hit.trace)
    trace = simplify(trials, hit.trace, budget.seed, known)
    shown = trials.counterexample(trace, None, found)
    if examples is not None and shown.trace != hit.trace:
        examples.save(trials.subject.name, trials.check.name, shown.trace)
        examples.forget(trials.subject.name, trials.check.name, hit.trace)
    reason = trials.note(*question.prepared.ends)
    return Decision(Verdict.BROKEN, reason=reason, counterexample=shown)


def _require_something_tried(trials: Trials) -> None:
    """Raise `UndecidedError` if no trace tested the promise."""
    if trials.notes.excuse and not trials.held:
        raise UndecidedError(OF_THE_OPTIMIZER + trials.notes.excuse, Reason.OPTIMIZER)
    if trials.tally.traces and trials.tally.steps and trials.tried():
        return
    text = trials.notes.differs_there or (
        "nothing was tried: the uninterrupted run is too short; choose options with a longer "
        "schedule"
    )
    if trials.check.changes_options:
        text = "none of the changes of its options that were tried makes a difference in its run"
    raise UndecidedError(text, Reason.NOTHING_TRIED)
