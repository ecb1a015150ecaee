"""The matrix as a picture, by matplotlib."""

from __future__ import annotations

import itertools
import textwrap
from typing import Any

from harness.drawing import drawn
from harness.matrix import COLOURS, LETTERS, SHOWN, Matrix

__all__ = ["draw"]

LABEL, CELL, ROW = 3.4, 0.58, 0.19
"""Inches: the width of the labels and of a cell, and the height of a line of text."""

MARGIN = 0.15
"""Cells: what is left free beside a text."""

LETTER = 0.13
"""Cells: the width of a letter of a heading."""

LONGEST = 50
"""Characters to a line of a label."""


def draw(matrix: Matrix, suffix: str) -> bytes:
    """The picture as ``.png`` or ``.svg``; the same matrix gives the same SVG.

    Raises `HarnessError` for another suffix, and where matplotlib is not installed.
    """
    return drawn(lambda: _figure(matrix), suffix, "--picture")


def _figure(matrix: Matrix) -> Any:
    """The figure: under the names of checks, their lines."""
    from matplotlib.figure import Figure

    versions = matrix.versions
    width = (LABEL + CELL * len(versions)) / CELL  # in cells
    blocks = [
        (_wrapped(checks, int(width / LETTER)),
         [(_wrapped(line.subjects, LONGEST), line.letters) for line in lines])
        for checks, lines in itertools.groupby(matrix.lines, lambda line: line.checks)
    ]  # fmt: skip
    legend = _legend(matrix, width)
    texts = sum(
        0.3 + len(heading) + sum(len(label) for label, _ in lines) for heading, lines in blocks
    )
    height = texts + 3.2 + 1.4 * max((line for *_, line in legend), default=0)  # in lines of text
    left = LABEL / CELL
    figure = Figure(figsize=(width * CELL, height * ROW), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    axes.text(left - MARGIN, 0.7, "torch", ha="right", va="center", weight="bold")
    for index, version in enumerate(versions):
        axes.text(left + index + 0.5, 0.7, version, ha="center", va="center", weight="bold")
    top = 1.0
    for heading, lines in blocks:
        top += 0.3 + len(heading)
        axes.text(MARGIN, top - len(heading) / 2, "\n".join(heading), va="center", weight="bold")
        for label, letters in lines:
            middle = top + len(label) / 2
            axes.text(left - MARGIN, middle, "\n".join(label), ha="right", va="center",
                      linespacing=1.1)  # fmt: skip
            for index, letter in enumerate(letters):
                _cell(axes, letter, left + index, top, 1.0, len(label))
            top += len(label)
    for letter, text, start, line in legend:
        middle = top + 1.2 + 1.4 * line
        _cell(axes, letter, start, middle - 0.5, 0.5, 1)
        axes.text(start + (0.6 if letter else 0), middle, text, va="center")
    return figure


def _wrapped(text: str, longest: int) -> list[str]:
    return textwrap.wrap(text, longest, break_on_hyphens=False) or [""]


def _cell(axes: Any, letter: str, left: float, top: float, width: float, height: float) -> None:
    """A verdict; none where it was not run."""
    from matplotlib.patches import Rectangle

    if not letter:
        return
    colour, ink = COLOURS[letter]
    axes.add_patch(Rectangle((left, top), width, height, facecolor=colour, edgecolor="white"))
    axes.text(left + width / 2, top + height / 2, SHOWN.get(letter, letter), color=ink,
              ha="center", va="center")  # fmt: skip


def _legend(matrix: Matrix, width: float) -> list[tuple[str, str, float, int]]:
    """Letters and what they mean, with where each starts, and on which line of the legend."""
    seen = {letter for pair in matrix.shown for letter in pair.letters}
    placed = []
    start, line = MARGIN, 0
    for letter, text in [*LETTERS.items(), ("", "empty: not run")]:
        if letter not in seen:
            continue
        wide = 0.9 + 0.1 * len(text)
        if start > MARGIN and start + wide > width:
            start, line = MARGIN, line + 1
        placed.append((letter, text, start, line))
        start += wide
    return placed
