"""Updates a ledger from results on one or more versions of torch, and keeps its comments."""

from __future__ import annotations

import collections
import enum
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import tomlkit
from packaging.specifiers import SpecifierSet
from packaging.version import Version
from tomlkit.items import AoT, Comment, Table, Whitespace

from harness.core.errors import LedgerError
from harness.core.ledger import Entry, shows_of, version_of
from harness.core.result import Counterexample, Result
from harness.core.verdict import Verdict
from harness.core.version_ranges import overlap, without
from harness.report.result_file import ResultFile, read_results
from harness.report.text import new_entry


@dataclass(frozen=True)
class Pair:
    """A subject and a check, each by its name and by the reference that an entry may use."""

    subject: str
    check: str
    subject_reference: str
    check_reference: str

    def named_by(self, entry: Entry) -> bool:
        """Whether an entry is about the pair."""
        return entry.subject in (self.subject, self.subject_reference) and entry.check in (
            self.check,
            self.check_reference,
        )


def pair_of(result: Result) -> Pair:
    """The pair of a result."""
    subject, check = result.references
    return Pair(result.subject, result.check, subject or result.subject, check or result.check)


def read_versions(paths: Sequence[Path]) -> list[ResultFile]:
    """Read files that ``check --json`` wrote, sorted by the version of torch.

    Raises `ResultsError` for other files; `LedgerError` for a run that was stopped, or for two
    files with the same version.
    """
    found: dict[Version, ResultFile] = {}
    for path in paths:
        file = read_results(path)
        if not file.complete or not file.results:
            raise LedgerError(f"{path} is from a run that was stopped: run it again")
        version = version_of(file.torch)
        if version in found:
            raise LedgerError(f"{path} is the second file for torch {version}: give one of them")
        found[version] = file
    return [found[version] for version in sorted(found)]


def broken_by_version(
    files: Sequence[ResultFile],
) -> dict[Pair, dict[Version, list[Counterexample]]]:
    """How each pair breaks on each version where it was checked; empty if it does not break.

    The pair's own counterexample comes first, then the other traces in the ledger that break it.
    Raises `LedgerError` for an UNKNOWN pair.
    """
    pairs: dict[Pair, dict[Version, list[Counterexample]]] = {}
    for file in files:
        version = version_of(file.torch)
        for result in file.results:
            if result.verdict == Verdict.UNKNOWN:
                raise LedgerError(
                    f"torch {version}: {result.subject} {result.check} is UNKNOWN "
                    f"({result.reason}): run it again until it is decided"
                )
            found = result.counterexample
            every = [found, *result.replays] if found is not None else []
            shown = {_key(one): one for one in reversed(every)}
            pairs.setdefault(pair_of(result), {})[version] = list(reversed(shown.values()))
    return pairs


def updated(text: str, entries: Sequence[Entry], results: Sequence[ResultFile]) -> str:
    """The `text` of a ledger with its ranges corrected to fit all results, and new entries added.

    `entries` are the entries in the text. Comments stay, and so do ranges for versions without
    results. Raises `LedgerError` for an UNKNOWN pair.
    """
    added: list[str] = []
    ranges: dict[int, str] = {}
    for pair, by_version in broken_by_version(results).items():
        mine = [i for i, entry in enumerate(entries) if pair.named_by(entry)]
        used = set()
        for versions, after, shown in _stretches(by_version, [entries[i] for i in mine]):
            same = (i for i in mine if i not in used and _key(entries[i]) == _key(shown))
            number = next(same, None)
            range_ = _range(versions, after, entries[number] if number is not None else None)
            if number is None:
                added.append(new_entry(pair.subject_reference, pair.check_reference, range_, shown))
            else:
                used.add(number)
                ranges[number] = range_
        for i in mine:
            covered = [version for version in sorted(by_version) if entries[i].covers(version)]
            if i not in used and covered:
                ranges[i] = without(entries[i].torch, covered[0])
    return _with_entries(_with_ranges(text, entries, ranges), added)


def _with_ranges(text: str, entries: Sequence[Entry], ranges: Mapping[int, str]) -> str:
    """The text with new `ranges`, by the number of the entry. An empty range deletes its entry.

    Comments after a deleted entry stay.
    """
    if not entries:
        return text
    lines = text.split("\n")
    start = int(entries[0].place.rpartition(":")[2]) - 1
    before = "".join(f"{line}\n" for line in lines[:start])
    document = tomlkit.parse("\n".join(lines[start:]))
    tables = cast(AoT, document["failure"])
    comments: list[Comment | Whitespace] = []
    for number in reversed(range(len(entries))):
        range_ = ranges.get(number, str(entries[number].torch))
        table = tables[number]
        if range_:
            if set(SpecifierSet(range_)) != set(entries[number].torch):
                table["torch"] = range_
            for item in comments:
                table.add(item)
            comments = []
        else:
            comments = [*_after_the_keys(table), *comments]
            del tables[number]
    kept = document.as_string() if tables else ""
    return before + "".join(item.as_string() for item in comments) + kept


def _after_the_keys(table: Table) -> list[Comment | Whitespace]:
    """The comments and empty lines between the last key of a table and the next table."""
    body = table.value.body
    last = max(i for i, (key, _) in enumerate(body) if key is not None)
    found = [item for _, item in body[last + 1 :] if isinstance(item, (Comment, Whitespace))]
    while found and isinstance(found[0], Whitespace):
        del found[0]
    return found


def _with_entries(text: str, added: Sequence[str]) -> str:
    return "\n\n".join(filter(None, [text.strip("\n"), *added])) + "\n"


def _key(one: Entry | Counterexample) -> tuple[str, str]:
    """The trace and what differs: an entry is about the counterexamples with the same key."""
    return str(one.trace), one.shows if isinstance(one, Entry) else shows_of(one)


def _stretches(
    by_version: Mapping[Version, Sequence[Counterexample]], entries: Sequence[Entry]
) -> list[tuple[list[Version], Version | None, Counterexample]]:
    """Neighbouring versions that one trace breaks, the next version after them, and the trace.

    If an entry is true on a version, its trace is kept. Otherwise the trace that breaks most of
    the following versions is chosen, and the shorter one if two break equally many.
    """
    ordered = sorted(by_version)
    kept = [
        next((one for one in by_version[v] if _key(one) in keys), None)
        for v in ordered
        for keys in [{_key(entry) for entry in entries if entry.covers(v)}]
    ]

    def reach(shown: Counterexample, start: int) -> int:
        for i in range(start, len(ordered)):
            mine = kept[i]
            other = mine is not None and _key(mine) != _key(shown)
            if other or _key(shown) not in map(_key, by_version[ordered[i]]):
                return i
        return len(ordered)

    found = []
    start = 0
    while start < len(ordered):
        choice = [kept[start] or one for one in by_version[ordered[start]]]
        if not choice:
            start += 1
            continue
        shown = max(choice, key=lambda one: (reach(one, start), -len(str(one.trace))))
        end = reach(shown, start)
        found.append((ordered[start:end], ordered[end] if end < len(ordered) else None, shown))
        start = end
    return found


def _range(versions: Sequence[Version], after: Version | None, entry: Entry | None) -> str:
    lower = [f">={versions[0]}"]
    upper = [f"<{after}"] if after else []
    if entry is not None:
        before = SpecifierSet(f"<{versions[0]}")
        if any(map(entry.covers, _below(entry, before))):
            lower = [str(s) for s in entry.torch if s.operator in (">", ">=", "~=", "==")]
        if after is None:
            upper = [str(s) for s in entry.torch if s.operator in ("<", "<=")]
    return ",".join([*lower, *upper])


def _below(entry: Entry, before: SpecifierSet) -> list[Version]:
    named = (Version(s.version.removesuffix(".*")) for s in entry.torch)
    return [version for version in named if before.contains(version, prereleases=True)]


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
        return any(_key(entry) in known for known in found)


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
            known = set(map(_key, result.replays))
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
