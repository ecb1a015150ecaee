"""The results of several versions of torch as one table, which shows where each defect appears.

``scripts/run_matrix.py`` writes the results of many releases, and ``lr-resume-harness matrix``
prints them as ``torch_versions.md``. For a ``K``, the ledger has the trace that was run on that
release, and a link to the bug report. A dot means that the sweep and the search found nothing.
"""

from __future__ import annotations

import collections
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from harness.core.output import printable
from harness.core.result import Result, grouped
from harness.core.verdict import MEANINGS, Verdict
from harness.report.result_file import VersionFile

WORST_FIRST = (
    Verdict.BROKEN, Verdict.STALE, Verdict.KNOWN, Verdict.UNKNOWN, Verdict.DECLINED, Verdict.HOLDS,
)  # fmt: skip
LETTERS = {verdict[0]: f"{verdict.lower()}: {MEANINGS[verdict]}" for verdict in WORST_FIRST}
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


Alike: TypeAlias = tuple[tuple[str, ...], tuple[str, ...]]
"""Letters, and the subjects that have them under one check."""


@dataclass(frozen=True)
class Row:
    """A subject and a check, with a result for each version; None if it was not run there."""

    subject: str
    check: str
    results: tuple[Result | None, ...]

    @property
    def letters(self) -> tuple[str, ...]:
        """The first letter of the verdict on each version; empty if it was not run there."""
        return tuple(result.verdict[0] if result else "" for result in self.results)

    @property
    def letters_seen(self) -> set[str]:
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

    sources: tuple[VersionFile, ...]
    rows: tuple[Row, ...]

    @property
    def versions(self) -> list[str]:
        """The versions, without the part after a ``+`` if they still differ without it."""
        short = [source.torch.public for source in self.sources]
        return [
            public if short.count(public) == 1 else str(source.torch)
            for public, source in zip(short, self.sources, strict=True)
        ]

    @property
    def shown(self) -> list[Row]:
        """All rows except the pairs that hold, or are declined, on every version."""
        return [row for row in self.rows if row.letters_seen not in ({"H"}, {"D"})]

    def everywhere(self, letter: str) -> list[Row]:
        """The pairs that have this letter on every version where they were run."""
        return [row for row in self.rows if row.letters_seen == {letter}]

    @property
    def lines(self) -> list[Line]:
        """The pairs that are shown, grouped: one line for the same letters under the same check.

        In each check, what is broken on the newest version comes first. Checks with the same
        lines share them. If a check leaves no subject out, its largest group of subjects that
        hold or are declined is called "the others".
        """
        lines: dict[str, tuple[Alike, ...]] = {}
        for check, rows in grouped(self.shown, lambda row: row.check).items():
            by_letters = grouped(rows, lambda row: row.letters)
            alike = [(key, tuple(row.subject for row in same)) for key, same in by_letters.items()]
            lines[check] = tuple(sorted(alike, key=_newest_first))
        totals = collections.Counter(row.check for row in self.rows)
        return [
            Line(", ".join(checks), subjects, letters)
            for alike, checks in grouped(lines, lines.__getitem__).items()
            for letters, subjects in _named(alike, {totals[check] for check in checks})
        ]

    @property
    def legend(self) -> list[tuple[str, str]]:
        """The marks in the cells that are shown, in Markdown, each with its meaning."""
        seen = {letter for row in self.shown for letter in row.letters}
        marks = [(f"`{SHOWN.get(key, key)}`", text) for key, text in LETTERS.items() if key in seen]
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
        searched = grouped(
            zip(self.versions, (source.file for source in self.sources), strict=True),
            lambda pair: (pair[1].max_examples, pair[1].seed),
        )
        if len(searched) == 1:
            return ""
        groups = [
            f"{examples} (seed {seed}) on {', '.join(version for version, _ in group)}"
            for (examples, seed), group in searched.items()
        ]
        return (
            "The search was not the same on all versions. Random traces for each pair: "
            f"{'; '.join(groups)}. On versions with fewer, a defect can be missing."
        )


def _newest_first(alike: Alike) -> list[int]:
    """A sort key: the worst verdicts on the newest versions come first."""
    order = [*LETTERS, ""]
    return [order.index(letter) for letter in reversed(alike[0])]


def _named(lines: Sequence[Alike], totals: set[int]) -> list[tuple[tuple[str, ...], str]]:
    """The letters of each line and its subjects in words; `totals`: how many a check has."""
    named = [(letters, ", ".join(subjects)) for letters, subjects in lines]
    letters, most = max(lines, key=lambda alike: len(alike[1]))
    if (
        len(most) > FEW
        and {*letters} <= {"D", "H", ""}
        and totals == {sum(len(subjects) for _, subjects in lines)}
    ):
        named.remove((letters, ", ".join(most)))
        named.append((letters, f"the {len(most)} others" if named else f"all {len(most)}"))
    return named


def matrix_of(sources: Sequence[VersionFile]) -> Matrix:
    """One matrix of all files; they are sorted by version."""
    found = [{result.pair: result for result in source.file.results} for source in sources]
    newest_first = [result for source in reversed(sources) for result in source.file.results]
    subjects = dict.fromkeys(result.subject for result in newest_first)
    checks = dict.fromkeys(result.check for result in newest_first)
    rows = []
    for check, subject in itertools.product(checks, subjects):
        results = tuple(pairs.get((subject, check)) for pairs in found)
        if any(results):
            rows.append(Row(subject, check, results))
    return Matrix(tuple(sources), tuple(rows))


def markdown(matrix: Matrix) -> str:
    """The table as Markdown, with a legend below it."""
    lines = []
    if matrix.shown:
        lines += [markdown_row(["check", "subject", *matrix.versions])]
        lines += [markdown_row(["---", "---", *[":-:"] * len(matrix.versions)])]
    last = ""
    for line in matrix.lines:
        checks = "" if line.checks == last else escaped(line.checks)
        cells = [SHOWN.get(letter, letter) for letter in line.letters]
        lines.append(markdown_row([checks, escaped(line.subjects), *cells]))
        last = line.checks
    legend = ", ".join(f"{mark} {text}" for mark, text in matrix.legend)
    sentences = [f"{legend}." if legend else "", matrix.left_out, escaped(matrix.uneven)]
    below = " ".join(filter(None, sentences))
    return "\n".join([*lines, *([""] if lines else []), below]) + "\n"


def markdown_row(cells: Sequence[str]) -> str:
    """A row of a table in Markdown."""
    return "| " + " | ".join(cells) + " |"


def escaped(text: str) -> str:
    """`text` with every character escaped that Markdown would interpret."""
    return re.sub(r"([\\`*|<>\[\]&~]|(?<!\w)_|_(?!\w))", r"\\\1", printable(" ".join(text.split())))
