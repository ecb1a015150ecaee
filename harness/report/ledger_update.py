"""Writes a ledger anew from results of several versions of torch; its comments stay."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from harness.core.errors import LedgerError
from harness.core.ledger import NO_REPORT, Entry, entry_text, shows_of, version_of, without
from harness.core.result import Counterexample
from harness.core.verdict import Verdict
from harness.report.result_file import ResultFile, read_results
from harness.report.text import reason_of

Pair: TypeAlias = tuple[str, str]


@dataclass(frozen=True)
class Shown:
    """What a version shows of a broken pair: a trace, what differs, and in which way."""

    trace: str
    shows: str
    reason: str

    @property
    def key(self) -> tuple[str, str]:
        """What an entry of the ledger says of it."""
        return self.trace, self.shows


def read_versions(paths: Sequence[Path]) -> list[ResultFile]:
    """The files that ``check --json`` wrote, by the version of torch.

    Raises `ResultsError` for other files, `LedgerError` for a run that was stopped, and for two
    of one version.
    """
    found: dict[Version, ResultFile] = {}
    for path in paths:
        file = read_results(path)
        if not file.complete or not file.results:
            raise LedgerError(f"{path} is from a run that was stopped: run it again")
        version = version_of(file.torch)
        if version in found:
            raise LedgerError(f"{path} is the second file of torch {version}: give one of them")
        found[version] = file
    return [found[version] for version in sorted(found)]


def broken_by_version(files: Sequence[ResultFile]) -> dict[Pair, dict[Version, list[Shown]]]:
    """What breaks every pair on each version where it was checked: nothing if it is not broken.

    What its own counterexample shows comes first, then that of the ledger's other traces.
    Raises `LedgerError` for a verdict that says neither.
    """
    pairs: dict[Pair, dict[Version, list[Shown]]] = {}
    for file in files:
        version = version_of(file.torch)
        for result in file.results:
            if result.verdict == Verdict.UNKNOWN:
                raise LedgerError(
                    f"torch {version}: {result.subject} {result.check} is UNKNOWN "
                    f"({result.reason}): run it again, to an end"
                )
            found = result.counterexample
            every = [found, *result.replays] if found is not None else []
            shown = {one.key: one for one in map(_shown, reversed(every))}
            pair = (result.subject, result.check)
            pairs.setdefault(pair, {})[version] = list(reversed(shown.values()))
    return pairs


def _shown(found: Counterexample) -> Shown:
    return Shown(str(found.trace), shows_of(found), reason_of(found))


def updated(text: str, entries: Sequence[Entry], results: Sequence[ResultFile]) -> str:
    """The `text` of a ledger with ranges that are true of all results, and entries that lack.

    `entries` are those in the text. Of versions without results it says what it said.
    """
    lines = text.splitlines()
    starts = [int(entry.place.rpartition(":")[2]) for entry in entries]
    ends = [*(start - 1 for start in starts[1:]), len(lines)]
    new: list[str] = []
    kept = dict.fromkeys(range(len(entries)), "")
    for pair, by_version in broken_by_version(results).items():
        mine = [i for i, entry in enumerate(entries) if (entry.subject, entry.check) == pair]
        used = set()
        for versions, after, shown in _stretches(by_version, [entries[i] for i in mine]):
            same = (i for i in mine if i not in used and _key(entries[i]) == shown.key)
            number = next(same, None)
            range_ = _range(versions, after, entries[number] if number is not None else None)
            if number is None:
                new.append(_new(pair, range_, shown))
            else:
                used.add(number)
                kept[number] = range_
        for i in mine:
            covered = [version for version in sorted(by_version) if entries[i].covers(version)]
            if i not in used and covered:
                kept[i] = without(entries[i].torch, covered[0]) or "-"
    for number in reversed(range(len(entries))):
        if kept[number]:
            block = slice(starts[number] - 1, ends[number])
            lines[block] = _edited(lines[block], kept[number], entries[number])
    return "\n\n".join(["\n".join(lines).rstrip("\n"), *new]).lstrip("\n") + "\n"


def _key(entry: Entry) -> tuple[str, str]:
    return str(entry.trace), entry.shows


def _stretches(
    by_version: Mapping[Version, Sequence[Shown]], entries: Sequence[Entry]
) -> list[tuple[list[Version], Version | None, Shown]]:
    """Neighbouring versions that one trace breaks, with the next one after them, and the trace.

    An entry that is true of a version stays; else it is the trace that breaks the most of those
    that follow, and where two do, the shorter one.
    """
    ordered = sorted(by_version)
    kept = [
        next((s for s in by_version[v] for e in entries if e.covers(v) and _key(e) == s.key), None)
        for v in ordered
    ]

    def reach(shown: Shown, start: int) -> int:
        for i in range(start, len(ordered)):
            other = kept[i] is not None and kept[i] != shown
            if other or shown.key not in {one.key for one in by_version[ordered[i]]}:
                return i
        return len(ordered)

    found = []
    start = 0
    while start < len(ordered):
        choice = [kept[start] or one for one in by_version[ordered[start]]]
        if not choice:
            start += 1
            continue
        shown = max(choice, key=lambda one: (reach(one, start), -len(one.trace)))
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


def _new(pair: Pair, range_: str, shown: Shown) -> str:
    subject, check = pair
    return entry_text(
        {
            "subject": subject,
            "check": check,
            "torch": range_,
            "trace": shown.trace,
            "shows": shown.shows,
            "kind": "bug",
            "tracked": NO_REPORT,
            "reason": shown.reason,
        }
    )


def _edited(lines: Sequence[str], range_: str, entry: Entry) -> list[str]:
    """The lines of an entry with another range; without it for ``-``, but for comments behind."""
    if range_ == "-":
        keys = [i for i, line in enumerate(lines) if re.match(r"""\s*["']?\w+["']?\s*=""", line)]
        rest = list(lines[keys[-1] + 1 :])
        while rest and not rest[0].strip():
            rest.pop(0)
        return rest
    if set(SpecifierSet(range_)) == set(entry.torch):
        return list(lines)
    edited = [
        re.sub(r"""^(\s*["']?torch["']?\s*=\s*)("[^"]*"|'[^']*')""", rf'\g<1>"{range_}"', line)
        for line in lines
    ]
    if edited == list(lines):
        raise LedgerError(f"{entry.place}: write its 'torch' in one line, to be {range_!r}")
    return edited
