"""Schedules as a picture, with what a resume at each epoch does."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.core.literals import format_options
from harness.core.result import shorten
from harness.core.run import Points, ranges
from harness.engine.every_epoch import ResumesByCheck, Schedule
from harness.report.picture import (
    BLACK,
    BLUE,
    GREEN,
    PURPLE,
    REST,
    TEXT,
    VERMILLION,
    Style,
    data_of,
    label_of,
    new_axes,
    new_figure,
    point_at,
)
from harness.subjects.subject import Subject

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, FigureBase
    from matplotlib.lines import Line2D

CURVES: tuple[Style, ...] = (
    {"color": BLUE, "linestyle": "-"},
    {"color": VERMILLION, "linestyle": (0, (5, 1.5))},
    {"color": GREEN, "linestyle": (0, (5, 1.5, 1, 1.5))},
    {"color": PURPLE, "linestyle": (0, (1.5, 1))},
    {"color": BLACK, "linestyle": (0, (8, 2, 1, 2, 1, 2))},
)  # fmt: skip
"""The curves differ in dashes too, and each has its name next to it."""
RIGHT_MARKERS: tuple[Style, ...] = ({"marker": "o", "markersize": 6, "markerfacecolor": "white"},
         {"marker": "+", "markersize": 6})  # fmt: skip
WRONG_MARKERS: tuple[Style, ...] = (
         {"marker": "s", "markersize": 8, "markerfacecolor": "none", "markeredgewidth": 1.3},
         {"marker": "x", "markersize": 5, "markeredgewidth": 1.3})  # fmt: skip
"""The markers of right and wrong resumes, one for each way of resuming: both fit in one place."""
WRONG_LINES = ((0, (1, 1.2)), (0, (4, 1.5)))
"""The dashes of runs that go on wrong, one for each way of resuming."""
WIDTH, PANEL, PANEL_WIDTH, LETTER = 7.0, 2.6, 6.2, 0.075
"""Inches: the width, height and approximate width of a panel, and the width of a bold letter."""
LONGEST = 112
"""The most characters in a line of text."""
MOST_LINES = 12
"""The most wrong runs that are drawn as lines; the others have only a marker."""
MOST_MARKERS = 60
"""Up to this many epochs, each has a marker; with more epochs, about 15 of them have one."""
MOST_SUBJECTS = 4
"""The most subjects side by side."""
ALIKE = 1e-9
"""The relative tolerance for a group whose LR is a multiple of the first group's LR. Such a group
is not drawn."""


def names_of(subjects: Sequence[Subject]) -> tuple[str, list[str]]:
    """A title and a label for each curve: its options, or only values if the title names them."""
    options = [format_options(subject.options) for subject in subjects]
    name, names = subjects[0].name, list(options[0])
    if len(subjects) > 1 and len(names) > 1 and all(list(shown) == names for shown in options):
        return f"{name} ({', '.join(names)})", [f"({', '.join(s.values())})" for s in options]
    labels = [" ".join(f"{key}={value}" for key, value in shown.items()) for shown in options]
    return f"{name} {labels[0]}".strip() if len(subjects) == 1 else name, labels


def sentences(schedules: Sequence[Schedule]) -> list[str]:
    """What the resumes of all schedules do, one sentence for each way of resuming."""
    return [". ".join(text for _, text in _outcomes(checks)) for checks in _by_check(schedules)]


def _by_check(schedules: Sequence[Schedule]) -> list[tuple[ResumesByCheck, ...]]:
    return list(zip(*(schedule.by_check for schedule in schedules), strict=True))


def _outcomes(checks: Sequence[ResumesByCheck]) -> list[tuple[str, str]]:
    """Texts on the resumes of one check in all schedules, with ``right``, ``wrong`` or ``""``."""
    name = checks[0].check.name
    tried = [resume for each in checks for resume in each.resumes]
    wrong = [resume.epoch for each in checks for resume in each.wrong]
    seen = {resume.epoch if resume.wrong is None else resume.wrong for resume in checks[0].wrong}
    if not tried:
        return [("", f"{name} was not tried: {checks[0].declined or 'no epoch to resume at'}")]
    followed = min((each.followed for each in checks if each.followed), default=0)
    behind = f" (each compared for {followed} epochs)" if followed else ""
    epochs = f"{len(tried)} epochs" + (" of all curves" if len(checks) > 1 else "")
    if not wrong:
        return [("right", f"{name} is right at all {epochs}{behind}")]
    text = f"{name} is wrong at {' + '.join(str(len(each.wrong)) for each in checks)} of {epochs}"
    if len(checks) == 1:
        text += ": " + ", ".join(map(str, wrong[:8])) + (", ..." if len(wrong) > 8 else "")
        if seen != set(wrong):
            text += f"; marked at the first wrong LR, at epoch {shorten(ranges(seen), 40)}"
    if len(wrong) == len(tried):
        return [("wrong", text + behind)]
    return [("right", f"{name} is right at {len(tried) - len(wrong)} of {epochs}{behind}"),
            ("wrong", text)]  # fmt: skip


@dataclass(frozen=True)
class Drawing:
    """The schedules of one subject: a title, and labelled curves."""

    title: str
    curves: Sequence[tuple[str, Schedule]]

    @property
    def schedules(self) -> list[Schedule]:
        """The schedules without their labels."""
        return [schedule for _, schedule in self.curves]


def figure_of(drawings: Sequence[Drawing], spans: Sequence[int] = ()) -> Figure:
    """The matplotlib figure of one drawing, or of several side by side.

    Each has a panel for each group and range of epochs, which is a number of epochs from the start;
    without ranges, all epochs are drawn. Groups whose LR is a multiple of the first group's are
    left out. Lines have a gid: ``plain CURVE GROUP RANGE`` for a schedule;
    ``right CURVE GROUP RANGE WAY`` and ``wrong ...`` for the markers of resumes; ``on ... EPOCH``
    for a run that goes on wrong.
    """
    heights = [_height(drawing, spans) for drawing in drawings]
    figure = new_figure(WIDTH * len(drawings), max(heights))
    parts = figure.subfigures(1, len(drawings), squeeze=False)[0] if len(drawings) > 1 else [figure]
    for part, drawing in zip(parts, drawings, strict=True):
        _fill(part, drawing, spans)
    return figure


def _panels(drawing: Drawing, spans: Sequence[int]) -> list[tuple[int, int]]:
    """The group and the number of epochs of each panel."""
    last = max(len(schedule.points) for schedule in drawing.schedules) - 1
    return [
        (group, span)
        for group in _groups(drawing.schedules)
        for span in dict.fromkeys(spans or [last])
    ]


def _heading(drawing: Drawing) -> list[str]:
    title, groups = drawing.title, _groups(drawing.schedules)
    count = len(drawing.schedules[0].points[0][1])
    if count > len(groups):
        left_out = ", ".join(str(group) for group in range(count) if group not in groups)
        title += f"; the LR of group {left_out} is a multiple of group 0's"
    return textwrap.wrap(title, LONGEST, break_on_hyphens=False)


def _legend(drawing: Drawing) -> list[Line2D]:
    from matplotlib.lines import Line2D

    curves = [Line2D([], [], linewidth=2, label=label, **style)
              for (label, _), style in zip(drawing.curves, CURVES, strict=False)
              if len(drawing.curves) > 1]  # fmt: skip
    return curves + [handle for index, checks in enumerate(_by_check(drawing.schedules))
                     for handle in _handles(index, checks)]  # fmt: skip


def _height(drawing: Drawing, spans: Sequence[int]) -> float:
    lines = len(_heading(drawing)) + 1
    lines += sum(label_of(handle).count("\n") + 1 for handle in _legend(drawing))
    return PANEL * len(_panels(drawing, spans)) + TEXT * lines + REST


def _fill(figure: FigureBase, drawing: Drawing, spans: Sequence[int]) -> None:
    """Draw into a figure, or a part of one."""
    rows = _panels(drawing, spans)
    panels = new_axes(figure, [PANEL] * len(rows), share=False)
    figure.suptitle("\n".join(_heading(drawing)), x=0.012, ha="left", fontsize=8)
    several = len(drawing.curves) > 1
    count = len(drawing.schedules[0].points[0][1])
    for (group, span), axes in zip(rows, panels, strict=True):
        axes.set_ylabel(f"lr, group {group}" if count > 1 else "lr")
        for number, (label, schedule) in enumerate(drawing.curves):
            wrong = str(CURVES[number]["color"]) if several else BLACK
            _draw(axes, number, group, span, label, schedule, wrong)
        if several:
            _name(axes, [line for line in axes.lines if str(line.get_gid()).startswith("plain")])
    panels[-1].set_xlabel("epoch (scheduler steps made)")
    figure.legend(handles=_legend(drawing), loc="outside lower left", frameon=False,
                  borderaxespad=0.4, handlelength=3.5)  # fmt: skip


def _handles(index: int, checks: Sequence[ResumesByCheck]) -> list[Line2D]:
    """The entries of the legend for one way of resuming."""
    from matplotlib.lines import Line2D

    shapes: dict[str, Style] = {
        "right": {"linestyle": "", **RIGHT_MARKERS[index]},
        "wrong": {"linestyle": WRONG_LINES[index], "linewidth": 1, **WRONG_MARKERS[index]},
        "": {"linestyle": ""},
    }
    return [
        Line2D([], [], color=BLACK, label="\n".join(textwrap.wrap(text, LONGEST - 8)),
               **shapes[kind])
        for kind, text in _outcomes(checks)
    ]  # fmt: skip


def _groups(schedules: Sequence[Schedule]) -> list[int]:
    """The first group, and every group whose LR is not a multiple of its LR."""
    count = len(schedules[0].points[0][1])
    alike = [all(_multiple(one.points, group) for one in schedules) for group in range(count)]
    return [group for group in range(count) if group == 0 or not alike[group]]


def _multiple(points: Points, group: int) -> bool:
    pairs = [(values[0], values[group]) for _, values in points if group < len(values)]
    top = max(pairs, key=lambda pair: abs(pair[0]))
    factor = top[1] / top[0] if top[0] else math.nan
    most = abs(top[1])
    return all(abs(first * factor - other) <= ALIKE * most for first, other in pairs)


def _draw(
    axes: Axes,
    number: int,
    group: int,
    span: int,
    label: str,
    schedule: Schedule,
    wrong_colour: str,
) -> None:
    """Draw one group of one schedule, with its resumes, for the first `span` epochs."""
    style = CURVES[number]
    plain = {epoch: values[group] for epoch, values in schedule.points if epoch <= span}
    place = f"{number} {group} {span}"
    axes.plot(list(plain), list(plain.values()), label=label, linewidth=2,
              gid=f"plain {place}", **style)  # fmt: skip
    every = 1 if len(plain) <= MOST_MARKERS else -(-len(plain) // (MOST_MARKERS // 4))
    for index, each in enumerate(schedule.by_check):
        wrong = [resume for resume in each.wrong if resume.epoch <= span]
        epochs = {resume.epoch for resume in wrong}
        right = [resume.epoch for resume in each.resumes
                 if resume.epoch in plain and resume.epoch not in epochs
                 and resume.epoch % every == 0]  # fmt: skip
        axes.plot(right, [plain[epoch] for epoch in right], linestyle="", label="_",
                  color=style["color"], gid=f"right {place} {index}",
                  **RIGHT_MARKERS[index])  # fmt: skip
        at: list[tuple[int, float]] = []
        skip = -(-len(wrong) // MOST_LINES) or 1
        for order, resume in enumerate(wrong):
            rates = {epoch: values[group] for epoch, values in resume.points if epoch <= span}
            first = resume.wrong if resume.wrong is not None else max(rates, default=resume.epoch)
            if first in plain:
                at.append((first, rates.get(first, plain[first])))
            if order % skip == 0:
                axes.plot(list(rates), list(rates.values()), color=wrong_colour, linewidth=1,
                          linestyle=WRONG_LINES[index],
                          gid=f"on {place} {index} {resume.epoch}", label="_")  # fmt: skip
        axes.plot([x for x, _ in at], [y for _, y in at], linestyle="", zorder=3,
                  color=wrong_colour, gid=f"wrong {place} {index}", label="_",
                  **WRONG_MARKERS[index])  # fmt: skip
    end = len(schedule.points) - 1
    if schedule.raises and end in plain:
        axes.plot([end], [plain[end]], linestyle="", marker="X", markersize=11, label="_",
                  color=style["color"], markeredgecolor=BLACK, gid=f"raises {place}")  # fmt: skip
        point_at(axes, f"raises {shorten(schedule.raises, 90)}", (end, plain[end]))


def _name(axes: Axes, lines: list[Line2D]) -> None:
    """Write the label of each line next to it, where it is farthest from the other lines.

    If it would cover a line everywhere, leave it out: the legend shows it too.
    """
    import numpy

    limits = axes.get_xlim(), axes.get_ylim()
    runs = [
        tuple(
            [(value - low) / (high - low) for value in values]
            for values, (low, high) in zip(data_of(line), limits, strict=True)
        )
        for line in lines
    ]  # as fractions of the panel
    for line, (xs, ys) in zip(lines, runs, strict=True):
        wide = len(label_of(line)) * LETTER / PANEL_WIDTH
        best, at = 0.0, None
        for x, y in zip(xs, ys, strict=True):
            if x + wide > 1:
                break
            for below in (False, True):
                low = y + (-0.11 if below else 0.02)
                covered = numpy.linspace(x + 0.01, x + wide, 12)
                there = [numpy.interp(covered, run, rates) for run, rates in runs]
                clear = min(numpy.abs(rates - low - 0.045).min() for rates in there)
                room = min(
                    (abs(numpy.interp(x, run, rates) - y) for run, rates in runs if run is not xs),
                    default=1.0,
                )
                if clear > 0.06 and room > best:
                    best, at = room, (x + 0.015, low + 0.045)
        if at is not None:
            axes.annotate(label_of(line), at, xycoords="axes fraction", va="center",
                          color=line.get_color(), weight="bold")  # fmt: skip
