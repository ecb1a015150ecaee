"""A ledger and results on several versions of torch.

`updated` corrects the ranges of the entries and keeps the comments. `move_ranges` finds the ranges
that no result confirms: their bounds can move unnoticed.
"""

from __future__ import annotations

import collections
import enum
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import tomlkit
from packaging.specifiers import SpecifierSet
from packaging.version import Version
from tomlkit.items import AoT, Comment, Table, Whitespace

from harness.core.errors import LedgerError
from harness.core.ledger import Entry, bounds, overlap, version_of, without
from harness.core.relations import shows_of
from harness.core.result import Counterexample, Result
from harness.core.verdict import Verdict
from harness.report.result_file import ResultFile
from harness.report.text import new_entry, what_it_shows


@dataclass(frozen=True)
class PairNames:
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


def pair_of(result: Result) -> PairNames:
    """The pair of a result."""
    subject, check = result.references
    return PairNames(result.subject, result.check, subject or result.subject, check or result.check)


def broken_by_version(
    files: Sequence[ResultFile],
) -> dict[PairNames, dict[Version, list[Counterexample]]]:
    """How each pair breaks on each version where it was checked; empty if it does not break.

    The pair's own counterexample comes first, then the other traces in the ledger that break it.
    Raises `LedgerError` for an UNKNOWN pair.
    """
    pairs: dict[PairNames, dict[Version, list[Counterexample]]] = {}
    for file in files:
        version = version_of(file.torch)
        for result in file.results:
            if result.verdict == Verdict.UNKNOWN:
                raise LedgerError(
                    f"torch {version}: {result.subject} {result.check} is UNKNOWN "
                    f"({result.reason}): run it again until it is decided"
                )
            found = result.counterexample
            shown: dict[tuple[str, str], Counterexample] = {}
            for one in [found, *result.replays] if found is not None else []:
                shown.setdefault((str(one.trace), shows_of(one)), one)
            pairs.setdefault(pair_of(result), {})[version] = list(shown.values())
    return pairs


def updated(text: str, entries: Sequence[Entry], results: Sequence[ResultFile]) -> str:
    """The `text` of a ledger with its ranges corrected to fit all results, and new entries added.

    `entries` are the entries in the text. Comments stay, and so do ranges for versions without
    results. Raises `LedgerError` for an UNKNOWN pair.
    """
    added: list[str] = []
    changes: dict[int, dict[str, str]] = {}
    for pair, by_version in broken_by_version(results).items():
        mine = [i for i, entry in enumerate(entries) if pair.named_by(entry)]
        used = set()
        for versions, after, shown in _consecutive_versions(by_version, [entries[i] for i in mine]):
            left = [i for i in mine if i not in used]
            number = next((i for i in left if is_about(entries[i], shown)), None)
            if number is None:  # the same trace may show other values now
                number = next((i for i in left if entries[i].trace == shown.trace), None)
            if number is None:
                range_ = _range(versions, after, None)
                added.append(new_entry(pair.subject_reference, pair.check_reference, range_, shown))
                continue
            used.add(number)
            changes[number] = {"torch": _range(versions, after, entries[number])}
            if not is_about(entries[number], shown):
                changes[number] |= what_it_shows(shown)
        for i in mine:
            wrong = [
                version
                for version, shown_there in sorted(by_version.items())
                if entries[i].covers(version)
                and not any(is_about(entries[i], one) for one in shown_there)
            ]
            if i not in used and wrong:
                changes[i] = {"torch": without(entries[i].torch, wrong[0])}
        more = _not_in_the_ledger(by_version, [entries[i] for i in mine])
        for versions, after, shown in _consecutive_versions(more, ()):
            range_ = _range(versions, after, None)
            added.append(new_entry(pair.subject_reference, pair.check_reference, range_, shown))
    kept = _with_changes(text, entries, changes).strip("\n")
    return "\n\n".join(filter(None, [kept, *added])) + "\n"


def _not_in_the_ledger(
    by_version: Mapping[Version, Sequence[Counterexample]], entries: Sequence[Entry]
) -> dict[Version, list[Counterexample]]:
    """The pair's own counterexample, on versions where true entries do not explain it."""
    more: dict[Version, list[Counterexample]] = {}
    for version, shown in by_version.items():
        covering = [entry for entry in entries if entry.covers(version)]
        true = any(is_about(entry, one) for entry in covering for one in shown)
        own = shown[:1]
        known = any(is_about(entry, one) for entry in covering for one in own)
        more[version] = list(own) if true and not known else []
    return more


def _with_changes(
    text: str, entries: Sequence[Entry], changes: Mapping[int, Mapping[str, str]]
) -> str:
    """The text with new values of keys, by the number of the entry. An empty range deletes it.

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
        change = changes.get(number, {})
        range_ = change.get("torch", str(entries[number].torch))
        table = tables[number]
        if range_:
            if set(SpecifierSet(range_)) != set(entries[number].torch):
                table["torch"] = range_
            for key in change.keys() - {"torch"}:
                table[key] = change[key]
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


def is_about(entry: Entry, found: Counterexample) -> bool:
    """Whether an entry is about a counterexample: its trace, with the values that it shows."""
    return entry.trace == found.trace and entry.is_shown_by(found)


def _consecutive_versions(
    by_version: Mapping[Version, Sequence[Counterexample]], entries: Sequence[Entry]
) -> list[tuple[list[Version], Version | None, Counterexample]]:
    """Neighbouring versions that one trace breaks, the next version after them, and the trace.

    If an entry is true on a version, its trace is kept. Otherwise the trace that breaks most of
    the following versions is chosen, and the shorter one if two break equally many.
    """
    ordered = sorted(by_version)

    def key_of(one: Counterexample) -> tuple[str, str]:
        entry = next((entry for entry in entries if is_about(entry, one)), None)
        return str(one.trace), entry.shows if entry is not None else shows_of(one)

    def kept_on(version: Version) -> Counterexample | None:
        true = (
            one
            for entry in entries if entry.covers(version)
            for one in by_version[version] if is_about(entry, one)
        )  # fmt: skip
        return next(true, None)

    kept = [kept_on(version) for version in ordered]

    def reach(shown: Counterexample, start: int) -> int:
        for i in range(start, len(ordered)):
            mine = kept[i]
            other = mine is not None and key_of(mine) != key_of(shown)
            if other or key_of(shown) not in map(key_of, by_version[ordered[i]]):
                return i
        return len(ordered)

    found = []
    start = 0
    while start < len(ordered):
        mine = kept[start]
        choice = [mine] if mine is not None else by_version[ordered[start]]
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
        earlier = [v for v in bounds(entry.torch) if before.contains(v, prereleases=True)]
        if any(map(entry.covers, earlier)):
            lower = [str(s) for s in entry.torch if s.operator in (">", ">=", "~=", "==")]
        if after is None:
            upper = [str(s) for s in entry.torch if s.operator in ("<", "<=")]
    return ",".join([*lower, *upper])


# ------------------------------------------------------------- ranges that no result confirms


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
        return any(is_about(entry, one) for known in found for one in known)


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
