"""Finds the version ranges of a ledger that no result confirms: their bounds can move unnoticed."""

from __future__ import annotations

import collections
import enum
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from harness.core.errors import LedgerError
from harness.core.ledger import Entry, version_of
from harness.core.result import Counterexample
from harness.core.version_ranges import bounds, overlap
from harness.report.ledger import PairNames, pair_of, tells
from harness.report.result_file import ResultFile


class MoveOutcome(enum.Enum):
    """What happens when a bound is moved."""

    BROKEN = "BROKEN"
    STALE = "STALE"
    NO_VERSION = "refused: it covers no version"
    OVERLAP = "refused: it overlaps another range"
    NO_RESULT = "no result"
    UNSEEN = "not noticed"


@dataclass(frozen=True)
class Release:
    """The pairs that were checked on a release, each with the ledger's traces that break it."""

    pairs: Mapping[PairNames, tuple[Counterexample, ...]] = field(default_factory=dict)

    def breaks(self, entry: Entry) -> bool | None:
        """Whether the entry's trace breaks here as the entry says; None without a result."""
        found = [known for pair, known in self.pairs.items() if pair.named_by(entry)]
        if not found:
            return None
        return any(tells(entry, one) for known in found for one in known)


@dataclass(frozen=True)
class Moves:
    """The outcomes of all moves: how many of each, and the moves that no run would notice."""

    releases: int
    counts: Mapping[MoveOutcome, int]
    unseen: tuple[tuple[Entry, SpecifierSet], ...]


def releases_in(files: Iterable[ResultFile]) -> dict[Version, Release]:
    """What results of ``check --json`` say about the ledger's traces, by release."""
    releases: dict[Version, dict[PairNames, tuple[Counterexample, ...]]] = {}
    for file in files:
        here = releases.setdefault(version_of(file.torch), {})
        for result in file.results:
            here[pair_of(result)] = (*here.get(pair_of(result), ()), *result.replays)
    return {version: Release(found) for version, found in sorted(releases.items())}


def move_ranges(entries: Sequence[Entry], seen: Mapping[Version, Release]) -> Moves:
    """Move every bound of every range by one of the releases `seen`.

    Raises `LedgerError` if a range begins or ends at a release without results.
    """
    releases = sorted(seen)
    missing = sorted({bound for entry in entries for bound in bounds(entry.torch)} - seen.keys())
    if missing:
        raise LedgerError(
            f"ranges of the ledger begin or end at torch {', '.join(map(str, missing))}, but there "
            "is no RESULT for it: give one for each of these versions"
        )
    moves = [(entry, new) for entry in entries for new in _moved(entry, releases)]
    outcomes = [_outcome(entry, new, entries, seen) for entry, new in moves]
    unseen = [
        move for move, what in zip(moves, outcomes, strict=True) if what is MoveOutcome.UNSEEN
    ]
    return Moves(len(releases), collections.Counter(outcomes), tuple(unseen))


def _moved(entry: Entry, releases: Sequence[Version]) -> Iterator[SpecifierSet]:
    """The entry's range with one bound moved by one release, for each bound and direction."""
    for bound, version in zip(entry.torch, bounds(entry.torch), strict=True):
        wildcard = ".*" if bound.version.endswith(".*") else ""
        place = releases.index(version)
        others = [str(other) for other in entry.torch if other != bound]
        for other in (place - 1, place + 1):
            if 0 <= other < len(releases):
                moved = f"{bound.operator}{releases[other]}{wildcard}"
                yield SpecifierSet(",".join([*others, moved]))


def _outcome(
    entry: Entry, new: SpecifierSet, entries: Sequence[Entry], seen: Mapping[Version, Release]
) -> MoveOutcome:
    """What a run would say about the entry if its range was `new`."""
    if not any(new.contains(str(release)) for release in seen):
        return MoveOutcome.NO_VERSION
    pair = entry.subject, entry.check, entry.trace
    if any(
        overlap(new, other.torch)
        for other in entries
        if other is not entry and (other.subject, other.check, other.trace) == pair
    ):
        return MoveOutcome.OVERLAP
    found = set()
    for release, there in seen.items():
        covers = new.contains(str(release))
        if covers == entry.covers(release):
            continue
        breaks = there.breaks(entry)
        if breaks is None:
            found.add(MoveOutcome.NO_RESULT)
        elif covers != breaks:
            found.add(MoveOutcome.STALE if covers else MoveOutcome.BROKEN)
    for what in (MoveOutcome.BROKEN, MoveOutcome.STALE, MoveOutcome.NO_RESULT):
        if what in found:
            return what
    return MoveOutcome.UNSEEN


def moves_text(entries: Sequence[Entry], moves: Moves) -> str:
    """The moves that no run would notice, one on each line, and the counts."""
    lines = [
        f"{entry.subject} {entry.check}: no run shows whether {entry.torch} should be {new}"
        for entry, new in moves.unseen
    ]
    counts = sorted(moves.counts.items(), key=lambda count: -count[1])
    lines.append(
        f"{len(entries)} entries, {moves.releases} releases, {sum(moves.counts.values())} moves: "
        + ", ".join(f"{count} {what.value}" for what, count in counts)
    )
    return "\n".join(lines)
