"""The results of several versions of torch as one table, which shows where each defect appears.

``scripts/run_matrix.py`` writes the results of twelve releases, and ``python -m harness matrix``
prints them as ``torch_versions.md``. The ledger holds the trace behind each letter, which was run
on that release, and a link to its report. For defects that are not in the ledger, a search with
random options ran, so a dot means that it found none.
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
from harness.core.safe_text import printable
from harness.report.result_file import read_results

LETTERS = {
    "B": "broken",
    "S": "stale: no longer what the ledger says",
    "K": "known: in the ledger",
    "U": "unknown",
    "D": "declined",
    "H": "holds",
}
"""What the first letter of a verdict means."""
COLOURS = {
    "B": ("#b3261e", "#ffffff"),
    "S": ("#4a148c", "#ffffff"),
    "K": ("#e89a1c", "#000000"),
    "U": ("#4a8fd6", "#000000"),
    "D": ("#cccccc", "#000000"),
    "H": ("#eef1ee", "#000000"),
}
"""The background and text colour for each letter; backgrounds also differ in lightness."""
SHOWN = {"H": ".", "": ""}
"""What a cell shows instead of these letters, so that the other letters stand out."""
FEW = 5
"""A line names up to this many subjects; more may become "the others"."""


@dataclass(frozen=True)
class Source:
    """The content of one file; `result` is its path as it was given."""

    result: str
    torch: Version
    python: str
    seed: int
    max_examples: int
    results: tuple[Result, ...]


@dataclass(frozen=True)
class Pair:
    """A subject and a check, with a result for each version; None if it was not run there."""

    subject: str
    check: str
    results: tuple[Result | None, ...]

    @property
    def letters(self) -> tuple[str, ...]:
        """The first letter of the verdict on each version; empty if it was not run there."""
        return tuple(result.verdict[0] if result else "" for result in self.results)

    @property
    def says(self) -> set[str]:
        """The letters on the versions where the pair was run."""
        return {*self.letters} - {""}


@dataclass(frozen=True)
class Line:
    """Subjects that have the same letters under one check, or under several."""

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
        """The versions, without the part after a ``+`` if they still differ without it."""
        short = [source.torch.public for source in self.sources]
        return [
            public if short.count(public) == 1 else str(source.torch)
            for public, source in zip(short, self.sources, strict=True)
        ]

    @property
    def shown(self) -> list[Pair]:
        """The pairs with a row: all except those that hold, or are declined, on every version."""
        return [pair for pair in self.pairs if pair.says not in ({"H"}, {"D"})]

    def everywhere(self, letter: str) -> list[Pair]:
        """The pairs that have this letter on every version where they were run."""
        return [pair for pair in self.pairs if pair.says == {letter}]

    @property
    def lines(self) -> list[Line]:
        """The pairs that are shown, grouped: one line for the same letters under the same check.

        In each check, what is broken on the newest version comes first. Checks with the same
        lines share them. If a check leaves no subject out, its largest group of subjects that
        hold or are declined is called "the others".
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
        """The marks in the cells that are shown, each with its meaning."""
        seen = {letter for pair in self.shown for letter in pair.letters}
        marks = [(SHOWN.get(key, key), text) for key, text in LETTERS.items() if key in seen]
        return [*marks, ("empty", "not run")] if "" in seen else marks

    @property
    def left_out(self) -> str:
        """A sentence about the pairs that are not shown; empty if all are."""
        held, declined = len(self.everywhere("H")), len(self.everywhere("D"))
        kinds = [f"hold on every version ({held})"] if held else []
        kinds += [f"are declined on every version ({declined})"] if declined else []
        return f"Not shown: pairs that {' or '.join(kinds)}." if kinds else ""

    @property
    def uneven(self) -> str:
        """A warning if some versions were searched with more traces than others; else empty."""
        searched: dict[tuple[int, int], list[str]] = {}
        for source, version in zip(self.sources, self.versions, strict=True):
            key = source.max_examples, source.seed
            searched.setdefault(key, []).append(version)
        if len(searched) == 1:
            return ""
        groups = [
            f"{examples} (seed {seed}) on {', '.join(versions)}"
            for (examples, seed), versions in searched.items()
        ]
        return (
            "The search was not the same on all versions. Random traces for each pair: "
            f"{'; '.join(groups)}. On versions with fewer, a defect can be missing."
        )


def _newest_first(row: tuple[tuple[str, ...], tuple[str, ...]]) -> list[int]:
    """A sort key: the worst verdicts on the newest versions come first."""
    order = [*LETTERS, ""]
    return [order.index(letter) for letter in reversed(row[0])]


def _named(
    rows: Sequence[tuple[tuple[str, ...], tuple[str, ...]]], totals: set[int]
) -> list[tuple[tuple[str, ...], str]]:
    """Each row of letters with its subjects, in words; `totals` counts all subjects of a check."""
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
    """Read a file that ``check --json`` wrote; raises `HarnessError` if it is not complete."""
    file = read_results(path)
    if not file.complete:
        raise HarnessError(f"{path} is from a run that was stopped: run it again to the end")
    try:
        version = Version(file.torch)
    except ValueError:
        raise HarnessError(f"{path} does not say which torch it was run with") from None
    seen = set()
    for result in file.results:
        pair = result.subject, result.check
        if pair in seen:
            raise HarnessError(f"{path} has two verdicts for {pair[0]}: {pair[1]}")
        seen.add(pair)
    return Source(str(path), version, file.python, file.seed, file.max_examples, file.results)


def merge(sources: Iterable[Source]) -> Matrix:
    """One matrix of all sources; raises `HarnessError` if two have the same version of torch."""
    ordered = sorted(sources, key=lambda source: source.torch)
    for left, right in itertools.pairwise(ordered):
        if left.torch == right.torch:
            raise HarnessError(
                f"{left.result} and {right.result} are both from torch {left.torch}: "
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
    """The table as Markdown, with a legend below it."""
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
    sentences = [f"{legend}." if legend else "", matrix.left_out, escaped(matrix.uneven)]
    below = " ".join(filter(None, sentences))
    return "\n".join([*lines, *([""] if lines else []), below]) + "\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def escaped(text: str) -> str:
    """`text` with every character escaped that Markdown would interpret."""
    return re.sub(r"([\\`*|<>\[\]&~]|(?<!\w)_|_(?!\w))", r"\\\1", printable(" ".join(text.split())))
