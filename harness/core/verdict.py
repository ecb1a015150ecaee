"""The possible verdicts on a pair of subject and check, and the reasons for them.

========  =====================================================================================
HOLDS     no failure was found; the result says how many traces, steps and resumes were tried
BROKEN    with a minimal counterexample: no operation can be dropped, no count lowered (above 36
          only some lower counts are tried) and no neighbours merged
KNOWN     broken in the way that a ledger entry describes (`harness.core.ledger`), or broken and
          among the subject's ``expected_failures``
STALE     a ledger entry is not true here: its trace holds or can't be run, or the check is
          declined; or an expected failure holds
DECLINED  the check does not apply, for the reason given: the subject does not promise it, nothing
          changes in its schedule, something that the check needs is missing, another check must
          hold first, or only ledger entries were run
UNKNOWN   undecided: the subject or trace can't be run, its process died, a time limit, a schedule
          that differs between two runs, nothing could be tried, a fault of the optimizer, an error
          of the harness
========  =====================================================================================
"""

from __future__ import annotations

from enum import StrEnum


class Verdict(StrEnum):
    """The verdict on one pair of subject and check, in the order of a report."""

    HOLDS = "HOLDS"
    BROKEN = "BROKEN"
    KNOWN = "KNOWN"
    STALE = "STALE"
    DECLINED = "DECLINED"
    UNKNOWN = "UNKNOWN"


FAILING = (Verdict.BROKEN, Verdict.STALE, Verdict.UNKNOWN)
"""The verdicts that make a run fail, worst first."""
MEANINGS = {
    Verdict.HOLDS: "no failure was found",
    Verdict.BROKEN: "there is a counterexample",
    Verdict.KNOWN: "fails as the ledger says",
    Verdict.STALE: "a ledger entry is not true here",
    Verdict.DECLINED: "the check does not apply",
    Verdict.UNKNOWN: "could not be decided",
}
"""What each verdict means, in a few words, for the legends of reports."""


class Reason(StrEnum):
    """Why a verdict was reached; `Result.reason` explains it in a sentence."""

    NONE = ""
    SUBJECT_DECLINES = "the subject declines it"
    LACKS_SOMETHING = "the subject or this torch lacks what the check needs"
    NOTHING_CHANGES = "no hyperparameter changes in a long run"
    NEEDS_ANOTHER_CHECK = "another check must hold first"
    NOT_IN_LEDGER = "only ledger entries were run, and none breaks it"
    LEDGER_ENTRY = "a ledger entry describes it"
    EXPECTED_FAILURE = "it is expected to fail"
    UNEXPECTEDLY_HOLDS = "it is expected to fail, and holds"
    ENTRY_NOT_TRUE = "a ledger entry is not true here"
    ENTRY_RANGE_TOO_SHORT = "a ledger entry describes it for other versions of torch"
    MORE_THAN_LEDGER = "it breaks in another way than the ledger entry says"
    TIME_LIMIT = "the time limit of the pair ran out"
    OUT_OF_TIME = "the time budget of the whole run ran out"
    DIED = "the process that checked it ended"
    NOT_REPEATABLE = "two runs of the same trace differ"
    OPTIMIZER = "a scheduler that does nothing fails in the same way"
    NOTHING_TRIED = "nothing that the check looks at could be tried"
    NOT_RUNNABLE = "the subject or the trace cannot be run"
    HARNESS_ERROR = "the harness itself failed"
