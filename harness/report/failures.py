"""Failures: the broken checks of one subject that have the same cause, as one block of a report.

Two results of a subject have the same cause if the same attribute is missing from its
``state_dict``, or if they show the same values in the same trace, apart from the way of resuming.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.core.grouping import grouped
from harness.core.operations import BACK
from harness.core.relations import relations
from harness.core.result import Counterexample, LostAttribute, Result
from harness.core.verdict import Verdict

__all__ = ["Failure", "failures"]


@dataclass(frozen=True)
class Failure:
    """The broken checks of a subject that have one cause; `results` are simplest first."""

    results: tuple[Result, ...]

    @property
    def result(self) -> Result:
        """The result with the simplest counterexample: fewest operations, steps, characters."""
        return self.results[0]

    @property
    def counterexample(self) -> Counterexample:
        """The simplest counterexample."""
        found = self.result.counterexample
        assert found is not None
        return found

    @property
    def checks(self) -> tuple[str, ...]:
        """The names of the checks that fail for this cause."""
        return tuple(result.check for result in self.results)

    @property
    def lost(self) -> LostAttribute | None:
        """The attribute that is missing from the ``state_dict``; None if no such is known."""
        return _missing(self.counterexample)

    @property
    def relations(self) -> tuple[str, ...]:
        """How the wrong value relates to the right one in every result, in words."""
        every = [relations(r.counterexample) for r in self.results if r.counterexample]
        return tuple(sorted(frozenset.intersection(*every)))

    @property
    def headline(self) -> str:
        """The cause if it is known, else the checks that fail."""
        if self.lost is not None:
            return f"{self.lost.name} is not in the state_dict"
        return ", ".join(self.checks)


def failures(results: Iterable[Result]) -> list[Failure]:
    """The failures in `results`, in the order of their first result.

    Every BROKEN result is in exactly one failure.

    >>> from harness import check_subject, Subject
    >>> from harness.checks.registry import select_checks
    >>> from torch.optim.lr_scheduler import StepLR
    >>> subject = Subject("decays", StepLR, options={"step_size": 3, "gamma": 0.5})
    >>> checks = select_checks(["resume_by_last_epoch"])
    >>> [failure] = failures(check_subject(subject, checks))
    >>> failure.relations
    ('multiplied a second time by the factor of the last step',)
    """
    broken = (result for result in results if result.verdict == Verdict.BROKEN)
    groups = grouped((result for result in broken if result.counterexample is not None), _key)
    return [Failure(tuple(sorted(group, key=_size))) for group in groups.values()]


def _missing(found: Counterexample) -> LostAttribute | None:
    return next((lost for lost in found.lost if not lost.saved), None)


def _key(result: Result) -> tuple[str, ...]:
    """A key that is equal for results with the same cause."""
    found = result.counterexample
    assert found is not None
    lost = _missing(found)
    if lost is not None:
        return result.subject, "lost", lost.name
    options = repr(sorted(map(repr, found.trace.options)))
    values = repr((found.expected, found.actual))
    return result.subject, options, *_without_routes(result, found), values


def _without_routes(result: Result, found: Counterexample) -> Sequence[str]:
    """The operations without the way of resuming. A check at every save resumes at each save."""
    words = []
    for operation in found.trace.operations:
        if operation.kind in BACK:
            words.append(f"back:{operation.slot}")
        else:
            words.append(str(operation))
            if operation.kind == "save" and result.promise.resumes_at_saves:
                words.append(f"back:{operation.slot}")
    return words


def _size(result: Result) -> tuple[int, int, int]:
    found = result.counterexample
    assert found is not None
    return len(_without_routes(result, found)), found.trace.steps, len(str(found.trace))
