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

from harness.checks.registry import checks_used
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
from harness.engine.counterexample import counterexample_of
from harness.engine.examples import Examples
from harness.engine.minimise import neighbours
from harness.engine.option_sets import Prepared, find_untried, what_torch_lacks
from harness.engine.pair_tester import OF_THE_OPTIMIZER, PairTester
from harness.engine.runs import run_trace
from harness.engine.search import find, simplify


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


def replay_entry(tester: PairTester, entry: Entry) -> Replayed:
    """Run the trace of an entry on this torch, even if the entry covers other releases."""
    trace = entry.trace
    try:
        bound = tester.bound(trace)
        kinds = {operation.kind for operation in trace.operations}
        for kind, reason in find_untried(bound, tester.runner(bound), kinds).items():
            return Replayed(entry, None, f"{kind} is not tried with its options: {reason}")
        outcome = tester.twice(trace, count=True)
    except HarnessError as error:
        return Replayed(entry, None, f"its trace can't be run: {describe(error)}")
    difference = outcome.difference
    if (
        difference is not None
        and set(difference.actual) == {"weights"}
        and tester.excuse_weights(trace)
    ):
        difference = None
    if tester.excuse_last_lr(trace, difference):
        difference = tester.twice(trace, count=True).difference
    if difference is None or not tester.breaks(trace, excuse=False):
        ended = f" ({outcome.ended})" if outcome.ended else ""
        return Replayed(entry, None, f"its trace holds{ended}")
    found = tester.counterexample(trace, difference)
    if trace.until(difference.operation, difference.step) != trace:
        return Replayed(entry, found, "it breaks sooner, its trace is too long")
    smaller = (
        candidate
        for candidate in neighbours(trace)
        if tester.breaks(candidate) and _breaks_alike(tester, candidate, KnownFailure(entry, found))
    )
    return Replayed(entry, found, smaller=next(smaller, None))


def _breaks_alike(tester: PairTester, trace: Trace, known: KnownFailure) -> bool:
    """Whether `trace` breaks the check in the same way as a known failure."""
    difference = tester.run(trace).difference
    if difference is None:
        return False
    shown = counterexample_of(tester.runner(tester.bound(trace)), tester.check, trace, difference)
    return known.explains(tester.check.promise, shown)


def describe_stale(replay: Replayed, check: Check) -> str:
    """Why an entry that covers this torch is not true of it; empty if it is true.

    Raises `LedgerError` if its trace breaks the check and is not minimal.
    """
    entry, found = replay.entry, replay.found
    if replay.why or found is None:
        return f"{entry.place}: {replay.why}: {_correction(entry)}"
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


def _correction(entry: Entry) -> str:
    """How to correct an entry that is not, or no longer, true on this torch."""
    version = version_of(torch.__version__)
    capped = without(entry.torch, version)
    if capped:
        return f"cap the entry at '<{version}' (torch = \"{capped}\")"
    return "delete the entry, or let it begin at a later torch"


@dataclass(frozen=True)
class Spent:
    """What was spent on a subject before this pair: traces, and CPU time since `started`."""

    traces: int
    started: float

    def found(self, by: FoundBy, tester: PairTester) -> Found:
        """How a counterexample was found that was found just now."""
        seconds = time.process_time() - self.started
        return Found(by, self.traces + tester.tally.traces, seconds)


@dataclass(frozen=True)
class Question:
    """What is asked about one pair, and what is known about its subject.

    `holding` are the checks that hold, among those this check depends on. With a `trace`, only
    that trace is run. `entries` are the ledger entries for this pair. `will_search`: another
    question, with the same tester, will search what this one sweeps. With `replay_alone` only the
    traces of the entries are run. `examples` are counterexamples of earlier runs.
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


def judge(tester: PairTester, question: Question) -> Result:
    """The result for one pair, with what was tried for it; an error leads to UNKNOWN."""
    started = time.perf_counter()
    try:
        decision = _decide(tester, question)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a subject may raise anything
        mistaken = isinstance(error, HarnessError) and not isinstance(error, UndecidedError)
        if question.trace is not None and mistaken:
            raise  # the caller gave a trace that can't be run
        decision = undecided(error, tester.limit.so_far())
    return result_of(question.prepared, tester, decision, time.perf_counter() - started)


def result_of(prepared: Prepared, tester: PairTester, decision: Decision, seconds: float) -> Result:
    """The result of a decision, with what was tried for it; `seconds` is the time it took."""
    subject, check = tester.subject, tester.check
    place = decision.place if decision.verdict == Verdict.STALE else ""
    if decision.verdict in (Verdict.BROKEN, Verdict.UNKNOWN):
        place = place_of(subject.build)
    return Result(
        subject.name, check.name, decision.verdict, decision.reason, decision.counterexample,
        tester.tally, round(seconds, 4), references=(subject.reference, check.reference),
        weights="weights" not in tester.left_out,
        last_lr="get_last_lr" not in tester.left_out, untried=tuple(prepared.untried.items()),
        resume_python=tester.runners.resume_python if check.other_process else "",
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


def _decide(tester: PairTester, question: Question) -> Decision:
    why, reason = _declined(tester, question)
    version = version_of(torch.__version__)
    entry = next((entry for entry in question.entries if entry.covers(version)), None)
    if reason and entry:
        text = f"{entry.place}: it is declined here: {reason}"
        return Decision(Verdict.STALE, Reason.ENTRY_NOT_TRUE, text, place=entry.place)
    if reason:
        return Decision(Verdict.DECLINED, why, reason)
    with tester.limit.on():
        if question.trace is not None:
            return _by_trace(tester, question.trace)
        return _by_ledger(tester, question)


def _declined(tester: PairTester, question: Question) -> tuple[Reason, str]:
    """Why the check does not apply to the subject; an empty reason if it does."""
    check, given, prepared = tester.check, question.trace is not None, question.prepared
    declines = tester.subject.declines
    if check.name in declines:
        return Reason.SUBJECT_DECLINES, declines[check.name]
    if prepared.nothing_changes and not given:
        return Reason.NOTHING_CHANGES, prepared.nothing_changes
    if check.event in prepared.untried and not given:
        return Reason.LACKS_SOMETHING, prepared.untried[check.event]
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
    used = [check, *(checks_used(check, question.trace) if question.trace is not None else ())]
    needs = dict.fromkeys(need for each in used for need in each.needs)
    if question.trace is not None and "changed" in dict(question.trace.options):
        needs.pop("options", None)  # the trace says how they change
    reasons = [prepared.lacks.get(need, "") or what_torch_lacks(need) for need in needs]
    if {"json", "pickle"} & set(needs):
        reasons.append(_refusal(prepared, tester))
    lacks = next(filter(None, reasons), "")
    return Reason.LACKS_SOMETHING, lacks or tester.start_other_process(
        prepared.option_sets[0].bound
    )


def _refusal(prepared: Prepared, tester: PairTester) -> str:
    """Why the state can't be saved in the check's format after some steps, or nothing."""
    first = prepared.option_sets[0]
    steps = Operation("train", count=min(first.epochs, 3))
    trace = Trace((steps, Operation("save", slot="a")), first.bound.literals)
    with tester.limit.on():
        tester.limit.begin(trace)
        outcome = run_trace(tester.runner(first.bound), tester.check, trace)
    return outcome.ended if outcome.refused else ""


def _by_trace(tester: PairTester, trace: Trace) -> Decision:
    """The decision from a single trace."""
    outcome = tester.twice(trace, count=True)
    if outcome.difference and (
        tester.excuse_last_lr(trace, outcome.difference) or tester.excuse_weights(trace)
    ):
        outcome = tester.twice(trace, count=True)
    if outcome.difference is not None:
        found = tester.counterexample(trace, outcome.difference)
        return Decision(Verdict.BROKEN, reason=tester.note(), counterexample=found)
    if outcome.ended:
        raise UndecidedError(outcome.ended)
    if not tester.tried():
        raise UndecidedError(
            f"the trace does nothing that {tester.check.name} looks at", Reason.NOTHING_TRIED
        )
    return Decision(Verdict.HOLDS, reason=tester.note())


# ------------------------------------------------------------------------------- the ledger


def _by_ledger(tester: PairTester, question: Question) -> Decision:
    """The decision from the ledger entries, or from a search if no entry covers this torch.

    The traces of all entries are run. If one breaks the check on a torch that no entry covers,
    the range of that entry is too short.
    """
    version = version_of(torch.__version__)
    replays = []
    for entry in question.entries:
        tester.compare_all_again()
        replays.append(replay_entry(tester, entry))
    minimal = tuple(
        replace(replay.found, runs=(), uninterrupted=None)
        for replay in replays
        if replay.found and replay.minimal
    )
    if question.entries:
        tester.compare_all_again()
    covering = [replay for replay in replays if replay.entry.covers(version)]
    if not covering:
        decision = _without_entry(tester, question, replays)
        return replace(decision, replays=minimal)
    for replay in covering:
        stale = "" if _shows_another_failure(replay) else describe_stale(replay, tester.check)
        if stale:
            return replace(_stale(tester, question, replay, stale, replays), replays=minimal)
    more = _not_explained(tester, question, covering, replays)
    if more is not None:
        return replace(more, replays=minimal)
    entries = [replay.entry for replay in covering]
    reasons = dict.fromkeys(f"{entry.kind}, {entry.tracked}: {entry.reason}" for entry in entries)
    return Decision(
        Verdict.KNOWN, Reason.LEDGER_ENTRY, " ".join(reasons), covering[0].found, minimal,
        entries[0].place,
    )  # fmt: skip


def _shows_another_failure(replay: Replayed) -> bool:
    """Whether the trace of an entry breaks the check in another way than the entry says."""
    return replay.found is not None and not replay.entry.is_shown_by(replay.found)


def _stale(
    tester: PairTester, question: Question, untrue: Replayed, stale: str,
    replays: Sequence[Replayed],
) -> Decision:  # fmt: skip
    """The decision on a pair with an entry that is not true, with another trace that breaks it."""
    found = untrue.found if untrue.minimal else None
    if found is None:
        others = [replay for replay in replays if replay is not untrue]
        with contextlib.suppress(HarnessError):
            found = _without_entry(tester, question, others).counterexample
        stale += "; another trace breaks it" if found is not None else ""
    place = untrue.entry.place
    return Decision(Verdict.STALE, Reason.ENTRY_NOT_TRUE, stale, found, place=place)


def _not_explained(
    tester: PairTester,
    question: Question,
    covering: Sequence[Replayed],
    replays: Sequence[Replayed],
) -> Decision | None:
    """The decision BROKEN if a failure is found that the `covering` entries do not explain.

    The traces of the entries are looked at first, then those of the entries about other versions,
    then those of the sweep and the search.
    """
    known = []
    for replay in covering:
        entry, found = replay.entry, replay.found
        assert found is not None
        if _shows_another_failure(replay):
            reason = (
                f"{entry.place} is about another failure: its trace shows {shows_of(found)!r} and "
                f"not {entry.shows!r}"
            )
            if replay.why:  # it breaks before its end
                trace = simplify(tester, tester.cut(entry.trace), question.budget.seed)
                found = tester.counterexample(
                    trace, None, question.spent.found(FoundBy.SWEEP, tester)
                )
            return Decision(Verdict.BROKEN, Reason.MORE_THAN_LEDGER, reason, found)
        known.append(KnownFailure(entry, found))
    promise = tester.check.promise
    others = [
        replay
        for replay in replays
        if replay not in covering and replay.found is not None and replay.minimal
        and not any(each.explains(promise, replay.found) for each in known)
    ]  # fmt: skip
    if others:
        return _without_entry(tester, question, others)
    if question.replay_alone:
        return None
    decision = _search(tester, question, known)
    if decision.verdict != Verdict.BROKEN:
        return None
    places = " or ".join(replay.entry.place for replay in covering)
    reason = "; ".join(filter(None, [f"not the failure known at {places}", decision.reason]))
    return replace(decision, why=Reason.MORE_THAN_LEDGER, reason=reason)


def _without_entry(tester: PairTester, question: Question, replays: Sequence[Replayed]) -> Decision:
    """The verdict on a pair that no valid entry covers."""
    replayed = max((r for r in replays if r.found), key=lambda r: r.minimal, default=None)
    if replayed is not None:
        found = replayed.found
        if found is None or not replayed.minimal:
            trace = simplify(tester, tester.cut(replayed.entry.trace), question.budget.seed)
            found = tester.counterexample(trace, None, question.spent.found(FoundBy.SWEEP, tester))
        version, entry = version_of(torch.__version__), replayed.entry
        reason = (
            f"{entry.place} has this failure, but only for {entry.versions}: "
            f"let an entry cover {version}"
        )
        return Decision(Verdict.BROKEN, Reason.ENTRY_RANGE_TOO_SHORT, reason, found)
    if question.replay_alone:
        reason = "no trace in the ledger breaks it, and no others were run"
        return Decision(Verdict.DECLINED, Reason.NOT_IN_LEDGER, reason)
    return _search(tester, question)


# ------------------------------------------------------------------------------- the search


def _search(tester: PairTester, question: Question, known: Sequence[KnownFailure] = ()) -> Decision:
    """The decision from the sweep and the search, apart from what `known` failures explain."""
    sets, budget, examples = question.prepared.option_sets, question.budget, question.examples
    look = functools.partial(
        find, tester, sets, question.holding, budget, examples=examples, known=known
    )
    hit = look()
    while hit is not None and tester.excuse_weights(hit.trace):
        hit = look()
    if hit is None:
        if not question.will_search and not known:
            _require_something_tried(tester)
        return Decision(Verdict.HOLDS, reason=tester.note(*question.prepared.notes))
    found = question.spent.found(hit.by, tester)
    if examples is not None:
        examples.save(tester.subject.name, tester.check.name, hit.trace)
    trace = simplify(tester, hit.trace, budget.seed, known)
    shown = tester.counterexample(trace, None, found)
    if examples is not None and shown.trace != hit.trace:
        examples.save(tester.subject.name, tester.check.name, shown.trace)
        examples.forget(tester.subject.name, tester.check.name, hit.trace)
    reason = tester.note(*question.prepared.notes)
    return Decision(Verdict.BROKEN, reason=reason, counterexample=shown)


def _require_something_tried(tester: PairTester) -> None:
    """Raise `UndecidedError` if no trace tested the promise."""
    if tester.notes.excuse and not tester.held:
        raise UndecidedError(OF_THE_OPTIMIZER + tester.notes.excuse, Reason.OPTIMIZER)
    if tester.tally.traces and tester.tally.steps and tester.tried():
        return
    text = tester.notes.differs_there or (
        "nothing was tried: the uninterrupted run is too short; choose options with a longer "
        "schedule"
    )
    if tester.check.changes_options:
        text = "none of the changes of its options that were tried makes a difference in its run"
    raise UndecidedError(text, Reason.NOTHING_TRIED)
