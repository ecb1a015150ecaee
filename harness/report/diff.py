"""Compares two files of ``check --json``, for example before and after an upgrade of torch.

The report lists newly broken pairs, with counterexample and replay command; newly fixed pairs;
other changes of verdict; and uninterrupted runs whose LR changed. Another version draws
other random options. A change that shows only with such options is listed separately: a replay on
the other version decides whether it is new.
"""

from __future__ import annotations

import enum
import itertools
import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from harness.core.errors import ResultsError
from harness.core.output import count
from harness.core.result import Result, grouped, shorten
from harness.core.run import same
from harness.core.verdict import Verdict
from harness.report.result_file import ResultFile
from harness.report.text import aligned, difference_rows, replay_command

CLOSE = 1e-12
"""The relative difference up to which two LRs differ only by rounding."""
CLOSE_32 = 1e-6
"""The same for tensors of type float32."""
WIDTH = 100
Results: TypeAlias = Mapping[tuple[str, str], Result]
"""Results by subject and check."""


class Kind(enum.Enum):
    """How a pair changed."""

    NEWLY_BROKEN = "NEWLY BROKEN"
    FIXED = "NEWLY FIXED"
    STILL_BROKEN = "BROKEN IN BOTH"
    OTHER = "OTHER VERDICTS"
    SAME = "the same"


@dataclass(frozen=True)
class Change:
    """A pair of subject and check that is in both files, with its result in each."""

    old: Result
    new: Result

    @property
    def subject(self) -> str:
        """The name of the subject."""
        return self.old.subject

    @property
    def check(self) -> str:
        """The name of the check."""
        return self.old.check

    @property
    def verdicts(self) -> tuple[Verdict, Verdict]:
        """The old verdict and the new one."""
        return self.old.verdict, self.new.verdict

    @property
    def broken(self) -> Result:
        """The result that is BROKEN; the new one if both are."""
        return self.new if self.new.verdict == Verdict.BROKEN else self.old

    @property
    def kind(self) -> Kind:
        """How the pair changed."""
        old, new = self.verdicts
        if new == Verdict.BROKEN:
            return Kind.STILL_BROKEN if old == Verdict.BROKEN else Kind.NEWLY_BROKEN
        if self.verdicts == (Verdict.BROKEN, Verdict.HOLDS):
            return Kind.FIXED
        return Kind.SAME if old == new else Kind.OTHER


@dataclass(frozen=True)
class Drift:
    """An uninterrupted run whose LRs differ between the two files.

    `epoch` is the first epoch where they differ; `old` and `new` are the LRs of every group there,
    or None if that run had already ended. `rounding` is true if all differences are rounding.
    """

    subject: str
    trace: str
    epoch: int
    old: object
    new: object
    rounding: bool


@dataclass(frozen=True)
class Comparison:
    """What two files of results have in common, and where they differ.

    `pairs` are the pairs in both, `drifts` the uninterrupted runs in both that differ; `runs` has
    for each subject how many uninterrupted runs are in both.
    """

    old: ResultFile
    new: ResultFile
    pairs: tuple[Change, ...]
    runs: Mapping[str, int]
    drifts: tuple[Drift, ...]

    @property
    def files(self) -> tuple[ResultFile, ResultFile]:
        """Both files, the old one first."""
        return self.old, self.new

    def of(self, kind: Kind) -> list[Change]:
        """The pairs that changed in this way."""
        return [pair for pair in self.pairs if pair.kind == kind]

    @property
    def broken_otherwise(self) -> list[Change]:
        """The pairs that are BROKEN in both, with another counterexample or other values."""
        still = self.of(Kind.STILL_BROKEN)
        return [pair for pair in still if pair.old.counterexample != pair.new.counterexample]

    @property
    def worse(self) -> bool:
        """Whether a pair is newly broken, or an uninterrupted run changed by more than rounding."""
        return bool(self.of(Kind.NEWLY_BROKEN)) or not all(drift.rounding for drift in self.drifts)


def compare(old: ResultFile, new: ResultFile) -> Comparison:
    """Compare two files of results.

    Raises `ResultsError` if they have no pair and no uninterrupted run in common.
    """
    olds, news = _by_pair(old), _by_pair(new)
    pairs = tuple(Change(result, news[pair]) for pair, result in olds.items() if pair in news)
    runs: dict[str, int] = {}
    drifts: list[Drift] = []
    for subject, before in old.runs.items():
        after = new.runs.get(subject, {})
        common = [trace for trace in before if trace in after]
        runs[subject] = len(common)
        found = (_drift(subject, trace, before[trace], after[trace]) for trace in common)
        drifts += [drift for drift in found if drift is not None]
    if not pairs and not any(runs.values()):
        raise ResultsError(
            "the two files have no pair of subject and check in common, so there is nothing to "
            "compare: run check with the same subjects and checks"
        )
    return Comparison(old, new, pairs, runs, tuple(drifts))


def _by_pair(file: ResultFile) -> dict[tuple[str, str], Result]:
    return {result.pair: result for result in file.results}


def _drift(subject: str, trace: str, old: Sequence[object], new: Sequence[object]) -> Drift | None:
    """Where two uninterrupted runs first differ; None if they are equal."""
    if same(list(old), list(new)):
        return None
    both = list(zip(old, new, strict=False))
    epoch = next((i for i, (some, others) in enumerate(both) if not same(some, others)), len(both))
    there = [rates[epoch] if epoch < len(rates) else None for rates in (old, new)]
    close = len(old) == len(new) and all(_close(some, others) for some, others in both)
    return Drift(subject, trace, epoch, there[0], there[1], close)


def _close(old: object, new: object, tolerance: float = CLOSE) -> bool:
    """Whether two LRs, or two lists of LRs, differ at most by rounding."""
    if isinstance(old, list) and isinstance(new, list):
        pairs = zip(old, new, strict=False)
        return len(old) == len(new) and all(_close(a, b, tolerance) for a, b in pairs)
    if isinstance(old, dict) and isinstance(new, dict):
        if str(old.get("dtype")).endswith("float32"):
            tolerance = CLOSE_32
        return old.keys() == new.keys() and all(_close(old[k], new[k], tolerance) for k in old)
    if isinstance(old, (int, float)) and isinstance(new, (int, float)):
        return math.isclose(old, new, rel_tol=tolerance)
    return same(old, new)


def text(comparison: Comparison) -> str:
    """The report: what was compared, and what changed."""
    blocks = [
        _compared(comparison),
        _newly(comparison, Kind.NEWLY_BROKEN),
        _newly(comparison, Kind.FIXED),
        _other(comparison),
        _still(comparison),
        _drifts(comparison),
    ]
    return "\n\n".join("\n".join(lines) for lines in blocks if lines)


def _names(comparison: Comparison) -> tuple[str, str]:
    """Names for the two sides: their torch versions, or OLD and NEW if these are the same."""
    old, new = (f"torch {file.torch or '(none)'}" for file in comparison.files)
    return (old, new) if old != new else ("OLD", "NEW")


def _compared(comparison: Comparison) -> list[str]:
    """The versions, how much is in both files, and what is in only one."""
    sides = dict(zip(("OLD", "NEW"), comparison.files, strict=True))
    torches = [file.torch or "(none)" for file in sides.values()]
    subjects = {pair.subject for pair in comparison.pairs}
    checks = {pair.check for pair in comparison.pairs}
    lines = [
        f"torch {torches[0]} (OLD) -> torch {torches[1]} (NEW)",
        f"Compared: {count(len(comparison.pairs), 'pair')} "
        f"({count(len(subjects), 'subject')}, {count(len(checks), 'check')})",
        *_runs_compared(comparison),
    ]
    for name, file in sides.items():
        if not file.complete:
            lines.append(
                f"{name} is from a run that was stopped: the pairs it lacks are not compared"
            )
    for key, what in (("seed", "seed"), ("max_examples", "number of random traces for each pair")):
        values = [getattr(file, key) for file in sides.values()]
        if values[0] != values[1]:
            lines.append(
                f"The {what} was {values[0]} in OLD and {values[1]} in NEW: "
                "this alone can change a verdict"
            )
    pairs = {name: _by_pair(file) for name, file in sides.items()}
    for name, other in (("OLD", "NEW"), ("NEW", "OLD")):
        lines += _alone(name, pairs[name], pairs[other])
    return lines


def _runs_compared(comparison: Comparison) -> list[str]:
    """How many uninterrupted runs are in both files."""
    both = sum(comparison.runs.values())
    some, others = (sum(map(len, file.runs.values())) - both for file in comparison.files)
    lines = [f"Compared: {count(both, 'uninterrupted run')}"]
    if some or others:
        lines[0] += f" ({some} more only in OLD, {others} only in NEW, with other options)"
    none = [subject for subject, number in comparison.runs.items() if not number]
    return lines + (
        _wrapped("No uninterrupted run in common for: ", ", ".join(none)) if none else []
    )


def _alone(name: str, mine: Results, others: Results) -> list[str]:
    """What only the file `name` has: whole subjects, whole checks, then single pairs."""
    left = [pair for pair in mine if pair not in others]
    lines: list[str] = []
    for index, what in enumerate(("subjects", "checks")):
        known = {pair[index] for pair in others}
        alone = dict.fromkeys(pair[index] for pair in left if pair[index] not in known)
        if alone:
            lines += _wrapped(f"Only in {name}, {what}: ", ", ".join(alone))
        left = [pair for pair in left if pair[index] not in alone]
    if left:
        lines += _wrapped(f"Only in {name}, pairs: ", ", ".join(map(" ".join, left)))
    broken = sum(
        result.verdict == Verdict.BROKEN for pair, result in mine.items() if pair not in others
    )
    if broken:
        lines.append(f"  {broken} of these pairs {'is' if broken == 1 else 'are'} BROKEN")
    return lines


def _newly(comparison: Comparison, kind: Kind) -> list[str]:
    """The newly broken or fixed pairs; apart, those whose options the other file does not have."""
    old, new = _names(comparison)
    if kind == Kind.NEWLY_BROKEN:
        lines_of, more = _broken_lines, f". To replay, on {new}:"
        name, version, file = "OLD", old, comparison.old
    else:
        lines_of, more = _fixed_lines, f", with the counterexample on {old}:"
        name, version, file = "NEW", new, comparison.new
    known, unlike = by_options(comparison.of(kind), file)
    lines = [f"{kind.value}: " + (count(len(known), "pair") + more if known else "none")]
    lines += lines_of(known)
    if unlike:
        title = f"PERHAPS {kind.value}, with options that {name} was not checked with: "
        pairs = count(len(unlike), "pair")
        lines += ["", *_wrapped(title, f"{pairs}. Replay on {version} to find out:")]
        lines += lines_of(unlike)
    return lines


def _broken_lines(pairs: Sequence[Change]) -> list[str]:
    """By check, each pair with its counterexample and its command."""
    lines = []
    for (check, was), group in grouped(pairs, lambda pair: (pair.check, _was(pair))).items():
        lines += _wrapped(f"{check}: ", f"{group[0].new.promise.text}{was}")
        for alike in grouped(group, _what_differs).values():
            result, *others = (pair.new for pair in alike)
            found = result.counterexample
            rows = difference_rows(found, result.promise, result.check)[1:] if found else []
            lines.append(f"  {replay_command(result, _trace(result))}")
            lines += [f"  {line}" for line in aligned(rows)]
            if others:
                lines.append("    these fail in the same way, with other values:")
                lines += [f"  {replay_command(other, _trace(other))}" for other in others]
    return lines


def by_options(pairs: Sequence[Change], other: ResultFile) -> tuple[list[Change], list[Change]]:
    """The pairs whose options are also in an uninterrupted run of the other file, then the rest.

    If the other file has no uninterrupted runs, all pairs are in the first list.
    """

    def is_known(pair: Change) -> bool:
        runs = other.runs.get(pair.subject, {})
        return not other.runs or _options(_trace(pair.broken)) in map(_options, runs)

    known = [pair for pair in pairs if is_known(pair)]
    return known, [pair for pair in pairs if not is_known(pair)]


def _options(trace: str) -> str:
    return " ".join(itertools.takewhile(re.compile(r"\w+=").match, trace.split()))


def _what_differs(pair: Change) -> tuple[str, ...]:
    """What differs in a newly broken pair: the names of the values, or the exception."""
    found = pair.new.counterexample
    actual = found.actual if found else {}
    raised = str(actual.get("raises", "")).partition(":")[0]
    return (*actual, raised)


def _was(pair: Change) -> str:
    """The old verdict of a newly broken pair, if it did not hold."""
    verdict, reason = pair.verdicts[0], pair.old.reason
    return "" if verdict == Verdict.HOLDS else f" (was {verdict}: {reason})"


def _trace(result: Result) -> str:
    return str(result.counterexample.trace) if result.counterexample else ""


def _fixed_lines(pairs: Sequence[Change]) -> list[str]:
    """By check, each pair with its old counterexample."""
    lines = []
    for check, group in grouped(pairs, lambda pair: pair.check).items():
        lines.append(f"{check}:")
        lines += [f"  {pair.subject}  {_trace(pair.old)}" for pair in group]
    return lines


def _other(comparison: Comparison) -> list[str]:
    """The other changes of verdict, grouped by reason."""
    pairs = comparison.of(Kind.OTHER)
    if not pairs:
        return []
    lines = [f"OTHER VERDICTS: {count(len(pairs), 'pair')}"]
    groups = grouped(pairs, lambda pair: (pair.check, pair.verdicts, _reason(pair)))
    for (check, verdicts, reason), group in groups.items():
        names = ", ".join(pair.subject for pair in group)
        why = f" ({reason})" if reason else ""
        lines += _wrapped(f"{' -> '.join(verdicts)} {check}{why}: ", names)
    return lines


def _reason(pair: Change) -> str:
    """The reason of a verdict other than HOLDS and BROKEN, from the new side if it has one."""
    for result, when in ((pair.new, ""), (pair.old, "was: ")):
        if result.verdict not in (Verdict.HOLDS, Verdict.BROKEN):
            return when + result.reason
    return ""


def _still(comparison: Comparison) -> list[str]:
    still, others = comparison.of(Kind.STILL_BROKEN), comparison.broken_otherwise
    if not still:
        return []
    lines = [f"BROKEN IN BOTH: {count(len(still), 'pair')}"]
    if others:
        lines[0] += f", {len(others)} with another counterexample or other values"
    for check, group in grouped(others, lambda pair: pair.check).items():
        lines += _wrapped(f"{check}: ", ", ".join(pair.subject for pair in group))
    return lines


def _drifts(comparison: Comparison) -> list[str]:
    """The uninterrupted runs that changed, then those that differ only by rounding."""
    lines: list[str] = []
    for rounding in (False, True):
        drifts = [drift for drift in comparison.drifts if drift.rounding == rounding]
        if rounding and not drifts:
            continue
        title = "CHANGED ONLY BY ROUNDING" if rounding else "CHANGED WITHOUT ANY RESUME"
        lines += ["", f"{title}: {count(len(drifts), 'uninterrupted run') if drifts else 'none'}"]
        for subject, group in grouped(drifts, lambda drift: drift.subject).items():
            own = (drift for drift in group if "optimizer=" not in drift.trace)
            drift = next(own, group[0])
            common = comparison.runs[subject]
            lines.append(f"{subject}: {len(group)} of {common}, such as {drift.trace}")
            sides = [
                f"{name} {'has ended' if lr is None else f'has lr {shorten(lr)}'}"
                for name, lr in zip(_names(comparison), (drift.old, drift.new), strict=True)
            ]
            lines.append(f"  at epoch {drift.epoch} {sides[0]}, {sides[1]}")
    return lines[1:]


def _wrapped(label: str, text: str) -> list[str]:
    return textwrap.wrap(
        label + text, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )
