"""The results of several versions of torch as one table: on which each defect appears.

The map of twelve releases, ``torch_versions.md``, is what ``python -m harness matrix``
prints of the results that ``scripts/run_matrix.py`` leaves. The ledger holds the trace behind each
letter, which was run there, and where it is tracked. What is not in the ledger is searched for
with drawn options, so that a dot says that none was found.
"""

from __future__ import annotations

import collections
import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.version import Version

from harness.core.errors import HarnessError
from harness.core.result import Result
from harness.report.result_file import read_results

LETTERS = {
    "B": "broken",
    "S": "stale: no longer as the ledger has it",
    "K": "known: in the ledger",
    "U": "unknown",
    "D": "declined",
    "H": "holds",
}
"""What the first letter of a verdict stands for."""
COLOURS = {
    "B": ("#b3261e", "#ffffff"),
    "S": ("#4a148c", "#ffffff"),
    "K": ("#e89a1c", "#000000"),
    "U": ("#4a8fd6", "#000000"),
    "D": ("#cccccc", "#000000"),
    "H": ("#eef1ee", "#000000"),
}
"""Of each letter the colour of its cell and its own; those of cells differ in lightness too."""
SHOWN = {"H": ".", "": ""}
"""What stands in a cell where it is not the letter itself, so that the others are seen."""
FEW = 5
"""So many subjects are named in a line, whatever it says."""


@dataclass(frozen=True)
class Source:
    """What one file says of itself; `result` is its path as it was given."""

    result: str
    torch: Version
    python: str
    seed: int
    max_examples: int
    results: tuple[Result, ...]


@dataclass(frozen=True)
class Pair:
    """A subject and a check, with a result for each version, None if it was not run there."""

    subject: str
    check: str
    results: tuple[Result | None, ...]

    @property
    def letters(self) -> tuple[str, ...]:
        """The first letter of each verdict, one a version; empty where it was not run."""
        return tuple(result.verdict[0] if result else "" for result in self.results)

    @property
    def says(self) -> set[str]:
        """The letters of the versions that it was run on."""
        return {*self.letters} - {""}


@dataclass(frozen=True)
class Line:
    """Subjects that have the very same letters under a check, or under several."""

    checks: str
    subjects: str
    letters: tuple[str, ...]


@dataclass(frozen=True)
class Matrix:
    """The pairs of all results, check by check, and the versions, oldest first."""

    sources: tuple[Source, ...]
    pairs: tuple[Pair, ...]

    @property
    def versions(self) -> list[str]:
        """The versions, without what follows a ``+`` where they differ without it."""
        short = [source.torch.public for source in self.sources]
        return [
            public if short.count(public) == 1 else str(source.torch)
            for public, source in zip(short, self.sources, strict=True)
        ]

    @property
    def shown(self) -> list[Pair]:
        """The pairs with a cell to look at: one that is neither held nor declined everywhere."""
        return [pair for pair in self.pairs if pair.says not in ({"H"}, {"D"})]

    def everywhere(self, letter: str) -> list[Pair]:
        """The pairs with the same letter on every version that they were run on."""
        return [pair for pair in self.pairs if pair.says == {letter}]

    @property
    def lines(self) -> list[Line]:
        """The pairs that are shown, those of one check with the same letters in one line.

        Of each check what is broken on the newest version comes first, and checks that would
        have the same lines share them. Where no subject of a check is left out, the most that
        hold or are declined are "the others".
        """
        alike: dict[tuple[tuple[tuple[str, ...], tuple[str, ...]], ...], list[str]] = {}
        for check, pairs in itertools.groupby(self.shown, lambda pair: pair.check):
            grouped: dict[tuple[str, ...], list[str]] = {}
            for pair in pairs:
                grouped.setdefault(pair.letters, []).append(pair.subject)
            rows = [(letters, tuple(subjects)) for letters, subjects in grouped.items()]
            alike.setdefault(tuple(sorted(rows, key=_newest_first)), []).append(check)
        totals = collections.Counter(pair.check for pair in self.pairs)
        return [
            Line(", ".join(checks), subjects, letters)
            for rows, checks in alike.items()
            for letters, subjects in _named(rows, {totals[check] for check in checks})
        ]

    @property
    def legend(self) -> list[tuple[str, str]]:
        """What stands in the cells that are shown, and what it means."""
        seen = {letter for pair in self.shown for letter in pair.letters}
        said = [(SHOWN.get(key, key), text) for key, text in LETTERS.items() if key in seen]
        return [*said, ("empty", "not run")] if "" in seen else said

    @property
    def left_out(self) -> str:
        """What is not shown, in one sentence; empty if nothing."""
        held, declined = len(self.everywhere("H")), len(self.everywhere("D"))
        said = [f"hold on every version ({held})"] if held else []
        said += [f"are declined on every version ({declined})"] if declined else []
        return f"Left out are the pairs that {' or '.join(said)}." if said else ""

    @property
    def uneven(self) -> str:
        """That some versions were searched with more than others, if so, in one sentence."""
        searched: dict[tuple[int, int], list[str]] = {}
        for source, version in zip(self.sources, self.versions, strict=True):
            key = source.max_examples, source.seed
            searched.setdefault(key, []).append(version)
        if len(searched) == 1:
            return ""
        said = [
            f"{examples} (seed {seed}) on {', '.join(versions)}"
            for (examples, seed), versions in searched.items()
        ]
        return (
            "The versions were not searched alike, with this many traces for each pair: "
            f"{'; '.join(said)}. Where it was less, a defect can be missing."
        )


def _newest_first(row: tuple[tuple[str, ...], tuple[str, ...]]) -> list[int]:
    """A key that puts what is worst on the newest versions first."""
    order = [*LETTERS, ""]
    return [order.index(letter) for letter in reversed(row[0])]


def _named(
    rows: Sequence[tuple[tuple[str, ...], tuple[str, ...]]], totals: set[int]
) -> list[tuple[tuple[str, ...], str]]:
    """Each row of letters with its subjects, in words; `totals` are how many there are in all."""
    named = [(letters, ", ".join(subjects)) for letters, subjects in rows]
    letters, most = max(rows, key=lambda row: len(row[1]))
    if (
        len(most) > FEW
        and {*letters} <= {"D", "H", ""}
        and totals == {sum(len(subjects) for _, subjects in rows)}
    ):
        named.remove((letters, ", ".join(most)))
        named.append((letters, f"the {len(most)} others" if named else f"all {len(most)}"))
    return named


def read(path: Path) -> Source:
    """What ``check --json`` wrote to `path`; raises `HarnessError` if it did not, or not all."""
    file = read_results(path)
    if not file.complete:
        raise HarnessError(f"{path} is from a run that was stopped: let it run to its end")
    try:
        version = Version(file.torch)
    except ValueError:
        raise HarnessError(f"{path} does not say which torch it was run with") from None
    seen = set()
    for result in file.results:
        pair = result.subject, result.check
        if pair in seen:
            raise HarnessError(f"{path} has two verdicts on {pair[0]}: {pair[1]}")
        seen.add(pair)
    return Source(str(path), version, file.python, file.seed, file.max_examples, file.results)


def merge(sources: Iterable[Source]) -> Matrix:
    """One matrix of all; raises `HarnessError` where two are of one version of torch."""
    ordered = sorted(sources, key=lambda source: source.torch)
    for left, right in itertools.pairwise(ordered):
        if left.torch == right.torch:
            raise HarnessError(
                f"{left.result} and {right.result} are both of torch {left.torch}: "
                "give one file for each version"
            )
    found = [
        {(result.check, result.subject): result for result in source.results} for source in ordered
    ]  # fmt: skip
    newest_first = [result for source in reversed(ordered) for result in source.results]
    subjects = list(dict.fromkeys(result.subject for result in newest_first))
    checks = list(dict.fromkeys(result.check for result in newest_first))
    pairs = []
    for check in checks:
        for subject in subjects:
            results = tuple(results.get((check, subject)) for results in found)
            if any(results):
                pairs.append(Pair(subject, check, results))
    return Matrix(tuple(ordered), tuple(pairs))


def markdown(matrix: Matrix) -> str:
    """The table, for a README: a line for each row of cells, under its check."""
    lines = []
    if matrix.shown:
        lines += [_row(["check", "subject", *matrix.versions])]
        lines += [_row(["---", "---", *[":-:"] * len(matrix.versions)])]
    last = ""
    for line in matrix.lines:
        checks = "" if line.checks == last else escaped(line.checks)
        cells = [SHOWN.get(letter, letter) for letter in line.letters]
        lines.append(_row([checks, escaped(line.subjects), *cells]))
        last = line.checks
    legend = ", ".join(f"`{mark}` {text}" for mark, text in matrix.legend)
    legend = legend.replace("`empty`", "empty")
    said = [f"{legend}." if legend else "", matrix.left_out, escaped(matrix.uneven)]
    below = " ".join(filter(None, said))
    return "\n".join([*lines, *([""] if lines else []), below]) + "\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def escaped(text: str) -> str:
    """`text` as Markdown prints it as it is."""
    return re.sub(r"([\\`*|<>\[\]&~]|(?<!\w)_|_(?!\w))", r"\\\1", " ".join(text.split()))
