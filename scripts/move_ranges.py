"""Moves every bound of every range of a ledger by one release, and says whether a run turns red.

    python scripts/move_ranges.py [--ledger FILE] RESULT.json ...

The RESULTs are what `check --json` wrote on several releases of torch, as run_matrix.py leaves
them in `.tox/results`. Each says which traces of the ledger break there, so nothing is run: a
release that a moved range covers no longer is BROKEN where the trace breaks, and one that it
newly covers is STALE where it does not. A moved range may also be refused, when the ledger is
read: it covers no version, or overlaps another one. A bound that can move and nothing turns red
is not tight.

Exit status: 0 every move turns a run red, 1 one does not, 2 the files can't be compared.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from harness.core.errors import HarnessError
from harness.core.ledger import Entry, overlap, shows_of, version_of
from harness.report.result_file import ResultFile, read_results
from harness.subjects.registered import known_failures, ledger_of_torch

UNMOVED = "NOT RED"
NO_RESULT = "no result"


@dataclass
class Seen:
    """What the runs of one release say: the pairs in them, and what breaks how."""

    pairs: set[tuple[str, str]] = field(default_factory=set)
    breaks: set[tuple[str, str, str, str]] = field(default_factory=set)

    def add(self, file: ResultFile) -> None:
        """Add the results of one file."""
        for result in file.results:
            pair = result.subject, result.check
            self.pairs.add(pair)
            for replay in result.replays:
                self.breaks.add((*pair, str(replay.trace), shows_of(replay)))


def moved(entry: Entry, releases: Sequence[Version]) -> Iterator[SpecifierSet]:
    """The entry's range with one bound moved by one release, for each bound and direction."""
    for bound in entry.torch:
        place = releases.index(Version(bound.version))
        others = [str(other) for other in entry.torch if other != bound]
        for other in (place - 1, place + 1):
            if 0 <= other < len(releases):
                yield SpecifierSet(",".join([*others, f"{bound.operator}{releases[other]}"]))


def outcome(
    entry: Entry, new: SpecifierSet, entries: Sequence[Entry], seen: Mapping[Version, Seen]
) -> str:
    """What a run says of the entry with the range `new`."""
    if not any(new.contains(str(release)) for release in seen):
        return "refused: it covers no version"
    pair = entry.subject, entry.check
    if any(
        overlap(new, other.torch)
        for other in entries
        if other is not entry and (other.subject, other.check) == pair
    ):
        return "refused: it overlaps another one"
    said = set()
    for release, found in seen.items():
        covers = new.contains(str(release))
        if covers == entry.covers(release):
            continue
        if pair not in found.pairs:
            said.add(NO_RESULT)
        elif covers != ((*pair, str(entry.trace), entry.shows) in found.breaks):
            said.add("STALE" if covers else "BROKEN")
    return min(said - {NO_RESULT}, default=NO_RESULT if said else UNMOVED)


@click.command()
@click.option("--ledger", "ledgers", type=click.Path(path_type=Path), multiple=True,
              help="A ledger in place of PyTorch's.")  # fmt: skip
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path))
def main(ledgers: tuple[Path, ...], results: tuple[Path, ...]) -> None:
    """Say for each move of a bound of a range by one release what a run gives."""
    seen: dict[Version, Seen] = defaultdict(Seen)
    try:
        for path in results:
            file = read_results(path)
            seen[version_of(file.torch)].add(file)
        entries = known_failures(list(ledgers) or [ledger_of_torch()]).entries
    except HarnessError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    named = {Version(bound.version) for entry in entries for bound in entry.torch}
    missing = sorted(named - seen.keys())
    if missing:
        click.echo(f"error: no RESULT is of torch {', '.join(map(str, missing))}, where a range "
                   "of the ledger ends: give one of each", err=True)  # fmt: skip
        sys.exit(2)
    releases = sorted(seen)
    counts: Counter[str] = Counter()
    for entry in entries:
        for new in moved(entry, releases):
            said = outcome(entry, new, entries, seen)
            counts[said] += 1
            if said == UNMOVED:
                click.echo(f"{entry.subject} {entry.check}: {entry.torch} may as well be {new}")
    click.echo(f"{len(entries)} entries, {len(releases)} releases, {counts.total()} moves: "
               + ", ".join(f"{count} {said}" for said, count in counts.most_common()))  # fmt: skip
    sys.exit(1 if counts[UNMOVED] else 0)


if __name__ == "__main__":
    main()
