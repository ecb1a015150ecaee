"""Finds ranges in a ledger that could change without any run turning red.

Each bound of each range is moved by one release, down and up. A release that the moved range no
longer covers turns BROKEN if the entry's trace breaks there. A newly covered release turns STALE
if the trace does not break there. The ledger's reader can also refuse a moved range, because it
covers no version or overlaps another range. A bound that can move without any of this is not tight.

Nothing is run: the results of ``check --json`` say which traces of the ledger break on which
release.
"""

from __future__ import annotations

import collections
import enum
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from harness.core.errors import LedgerError
from harness.core.ledger import Entry, overlap, shows_of, version_of
from harness.report.ledger_update import Pair, pair_of
from harness.report.result_file import ResultFile


class Outcome(enum.Enum):
    """What happens when a bound is moved."""

    BROKEN = "BROKEN"
    STALE = "STALE"
    NO_VERSION = "refused: it covers no version"
    OVERLAP = "refused: it overlaps another range"
    NO_RESULT = "no result"
    UNSEEN = "NOT RED"


@dataclass(frozen=True)
class Release:
    """The pairs that were checked on a release, each with its broken traces and their values."""

    pairs: Mapping[Pair, frozenset[tuple[str, str]]] = field(default_factory=dict)

    def breaks(self, entry: Entry) -> bool | None:
        """Whether the entry's trace breaks here as the entry says; None without a result."""
        found = [known for pair, known in self.pairs.items() if pair.named_by(entry)]
        if not found:
            return None
        return any((str(entry.trace), entry.shows) in known for known in found)


@dataclass(frozen=True)
class Moves:
    """The outcomes of all moves: how many of each, and the moves that no run would notice."""

    releases: int
    counts: Mapping[Outcome, int]
    unseen: tuple[tuple[Entry, SpecifierSet], ...]


def releases_in(files: Iterable[ResultFile]) -> dict[Version, Release]:
    """What results of ``check --json`` say about the ledger's traces, by release."""
    pairs: dict[Version, dict[Pair, frozenset[tuple[str, str]]]] = collections.defaultdict(dict)
    for file in files:
        here = pairs[version_of(file.torch)]
        for result in file.results:
            known = {(str(one.trace), shows_of(one)) for one in result.replays}
            here[pair_of(result)] = here.get(pair_of(result), frozenset()) | known
    return {version: Release(found) for version, found in sorted(pairs.items())}


def move_ranges(entries: Sequence[Entry], seen: Mapping[Version, Release]) -> Moves:
    """Move every bound of every range by one of the releases `seen`.

    Raises `LedgerError` if a range begins or ends at a release without results.
    """
    releases = sorted(seen)
    missing = sorted({bound for entry in entries for bound in _bounds(entry)} - seen.keys())
    if missing:
        raise LedgerError(
            f"ranges of the ledger begin or end at torch {', '.join(map(str, missing))}, but there "
            "is no RESULT for it: give one for each of these versions"
        )
    moves = [(entry, new) for entry in entries for new in _moved(entry, releases)]
    outcomes = [_outcome(entry, new, entries, seen) for entry, new in moves]
    unseen = [move for move, what in zip(moves, outcomes, strict=True) if what is Outcome.UNSEEN]
    return Moves(len(releases), collections.Counter(outcomes), tuple(unseen))


def _bounds(entry: Entry) -> list[Version]:
    return [Version(bound.version.removesuffix(".*")) for bound in entry.torch]


def _moved(entry: Entry, releases: Sequence[Version]) -> Iterator[SpecifierSet]:
    """The entry's range with one bound moved by one release, for each bound and direction."""
    for bound, version in zip(entry.torch, _bounds(entry), strict=True):
        wildcard = ".*" if bound.version.endswith(".*") else ""
        place = releases.index(version)
        others = [str(other) for other in entry.torch if other != bound]
        for other in (place - 1, place + 1):
            if 0 <= other < len(releases):
                moved = f"{bound.operator}{releases[other]}{wildcard}"
                yield SpecifierSet(",".join([*others, moved]))


def _outcome(
    entry: Entry, new: SpecifierSet, entries: Sequence[Entry], seen: Mapping[Version, Release]
) -> Outcome:
    """What a run would say about the entry if its range was `new`."""
    if not any(new.contains(str(release)) for release in seen):
        return Outcome.NO_VERSION
    pair = entry.subject, entry.check
    if any(
        overlap(new, other.torch)
        for other in entries
        if other is not entry and (other.subject, other.check) == pair
    ):
        return Outcome.OVERLAP
    found = set()
    for release, there in seen.items():
        covers = new.contains(str(release))
        if covers == entry.covers(release):
            continue
        breaks = there.breaks(entry)
        if breaks is None:
            found.add(Outcome.NO_RESULT)
        elif covers != breaks:
            found.add(Outcome.STALE if covers else Outcome.BROKEN)
    for what in (Outcome.BROKEN, Outcome.STALE, Outcome.NO_RESULT):
        if what in found:
            return what
    return Outcome.UNSEEN


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
