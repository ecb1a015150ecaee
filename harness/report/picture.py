"""A counterexample as a picture: the uninterrupted and the resumed run, group by group."""

from __future__ import annotations

import io
import itertools
import math
import textwrap
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from harness.core.errors import HarnessError
from harness.core.operations import GO_BACK, epochs, path_to, walk
from harness.core.output import one_line
from harness.core.result import Counterexample, Promise, Result, shorten
from harness.core.run import Points, Role, Run, number, numbers_of, same
from harness.core.trace import Trace

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, FigureBase
    from matplotlib.lines import Line2D
    from matplotlib.typing import RcKeyType

QUANTITIES = ("lr", "get_last_lr", "momentum", "betas", "weight_decay")
"""The parts of an observation that can be drawn."""


@dataclass(frozen=True)
class Trajectory:
    """The runs of a counterexample.

    `quantity` is what is drawn, ``lr`` unless something else differs. `marks` are the saves and
    resumes, by epoch. The first difference is at `epoch`. `labels` describe it for each group; the
    key is None if it does not belong to one group. `wrong` and `right` are the numbers there.
    `axis` says what an epoch is.
    """

    title: str
    trace: str
    quantity: str
    runs: tuple[Run, ...]
    marks: dict[int, str]
    epoch: int
    labels: dict[int | None, str] = field(default_factory=dict)
    wrong: dict[int, float] = field(default_factory=dict)
    right: dict[int, float] = field(default_factory=dict)
    axis: str = "epoch (scheduler steps made)"

    def points(self, run: Run) -> Points:
        """The epochs of a run with the numbers to draw."""
        return [(seen.epoch, numbers_of(seen.values, self.quantity)) for seen in run.seen]


def trajectory(result: Result) -> Trajectory | None:
    """The runs of a result's counterexample; None if it has none, as for a saved state."""
    found = result.counterexample
    if found is None or not found.runs:
        return None
    quantity = next((name for name in QUANTITIES if name in found.actual), "lr")
    epoch = epochs(path_to(found.trace.operations, found.operation, found.step))
    labels, wrong, right = _differences(result.promise, found, quantity, epoch)
    title = one_line(f"{result.subject}: {result.check} (torch {result.torch})")
    labels = {group: one_line(text) for group, text in labels.items()}
    return Trajectory(
        title, one_line(str(found.trace)), quantity, found.runs, _marks(found.trace), epoch, labels,
        wrong, right,
    )  # fmt: skip


def _marks(trace: Trace) -> dict[int, str]:
    """The saves and resumes by epoch, in order."""
    marks: dict[int, list[str]] = {}
    for operation, _, path in walk(trace.operations):
        if operation.kind in (*GO_BACK, "save"):
            marks.setdefault(epochs(path), []).append(str(operation))
    return {epoch: shorten(" ".join(_counted(words)), 60) for epoch, words in marks.items()}


def _counted(words: list[str]) -> Iterator[str]:
    """Words, with repeated ones replaced by a count."""
    for word, again in itertools.groupby(words):
        count = len(list(again))
        yield word if count == 1 else f"{word} ({count} times)"


def _differences(
    promise: Promise, found: Counterexample, quantity: str, epoch: int
) -> tuple[dict[int | None, str], dict[int, float], dict[int, float]]:
    """A description of the first difference, and the wrong and right numbers, by group."""
    labels: dict[int | None, str] = {}
    wrong: dict[int, float] = {}
    right: dict[int, float] = {}
    at = f"epoch {epoch}: "
    if "raises" in found.actual:
        return {None: f"{at}raises {shorten(found.actual['raises'], 90)}"}, wrong, right
    actual = found.actual.get(quantity)
    expected = found.expected.get(quantity)
    if promise.changes_options and isinstance(actual, list):
        return {g: f"{at}got {number(v):.6g}, follows neither" for g, v in enumerate(actual)}, {
            g: number(v) for g, v in enumerate(actual)
        }, right  # fmt: skip
    if isinstance(actual, list) and isinstance(expected, list) and len(actual) == len(expected):
        for group, (is_, must) in enumerate(zip(actual, expected, strict=True)):
            if same(is_, must):
                continue
            one, other = apart(is_, must)
            labels[group] = f"{at}expected {other}, got {one}"
            wrong[group], right[group] = number(is_), number(must)
    if not labels:
        name = next(iter(found.actual))
        is_, must = (shorten(side.get(name), 60) for side in (found.actual, found.expected))
        labels[None] = f"{at}expected {name} {must}, got {is_}"
        if "raises" in found.expected:
            labels[None] = f"{at}expected it to raise {shorten(found.expected['raises'], 60)}"
        elif name == "weights":
            labels[None] = f"{at}the weights differ"
    return labels, wrong, right


def apart(one: object, other: object) -> tuple[str, str]:
    """Two values as text, with enough digits to differ, or with dtypes if no digits differ."""
    for digits in range(6, 18):
        texts = f"{number(one):.{digits}g}", f"{number(other):.{digits}g}"
        if texts[0] != texts[1]:
            return texts
    return _with_dtype(one), _with_dtype(other)


def _with_dtype(value: object) -> str:
    if isinstance(value, dict) and "dtype" in value:
        return f"{number(value):g} ({value['dtype']})"
    return str(value)


BLACK, BLUE, VERMILLION, GREEN, PURPLE = "#000000", "#0072b2", "#d55e00", "#009e73", "#cc79a7"
"""The colours of Okabe and Ito that have a contrast of at least 3 to 1 on white."""
GREY = "#666666"
Style: TypeAlias = dict[str, Any]
"""Keyword arguments for matplotlib."""
STYLES: dict[Role, Style] = {
    Role.UNINTERRUPTED: {"color": BLUE, "linestyle": "-", "linewidth": 3.0, "marker": "o",
                      "markersize": 6, "markerfacecolor": "white"},
    Role.OTHER_OPTIONS: {"color": GREEN, "linestyle": "-.", "linewidth": 1.8, "marker": "s",
                         "markersize": 4},
    Role.BEFORE: {"color": BLACK, "linestyle": ":", "linewidth": 1.5},
    Role.RESUMED: {"color": VERMILLION, "linestyle": "--", "linewidth": 1.8, "marker": "x",
                "markersize": 6, "markeredgewidth": 1.8},
}  # fmt: skip
"""How each role of a line is drawn. Width, dashes and markers differ too, not only colours."""
WIDTH, PANEL, SMALL, TEXT = 5.0, 1.9, 1.1, 0.17
"""Inches: the width, the height of a group's panel, of its difference panel, of a line of text."""
MOST_GROUPS = 6
"""The most param groups that are drawn."""
MOST_MARKERS = 60
"""A line with more points than this has no markers."""
SEEN = 0.02
"""The smallest difference that can be seen, as a part of the height of a panel."""
LETTERS_PER_INCH = 8
"""The most bold letters in a line beside an arrow, for each inch of the figure's width."""
LETTER, GAP = 0.07, 0.14
"""Inches: about the width of a letter, and the distance between the middles of two labels."""
LONGEST = 70
"""The most characters in a line above the panels."""


def picture_or_why(result: Result) -> bytes | str:
    """The picture of a counterexample as SVG, or a sentence that says why there is none."""
    return svg_or_why(trajectory(result), "this check is about the saved state, not about LRs")


def svg_or_why(shown: Trajectory | None, otherwise: str) -> bytes | str:
    """The picture of a trajectory as SVG, or why there is none: `otherwise` if there is nothing."""
    if shown is None:
        return f"No picture: {otherwise}"
    try:
        return drawn(lambda: figure_of(shown), "svg", "a picture")
    except HarnessError as error:
        return f"No picture: {error}"


def figure_of(shown: Trajectory) -> Figure:
    """The matplotlib figure: a panel for each param group, and one more for a small difference.

    Each line has its name as label, and the gid ``ROLE GROUP``.
    """
    count = max((len(values) for run in shown.runs for _, values in shown.points(run)), default=1)
    count = count or 1
    groups = sorted(sorted(range(count), key=lambda group: group not in shown.labels)[:MOST_GROUPS])
    rows = [(group, small) for group in groups for small in (False, True)
            if not small or _too_small(shown, group)]  # fmt: skip
    title = [
        line
        for text in (shown.title, shorten(shown.trace, 3 * LONGEST))
        for line in textwrap.wrap(text, LONGEST, break_on_hyphens=False)
    ]
    if count > len(groups):
        title.append(f"{len(groups)} of {count} param groups are shown")
    levels = _levels(shown)
    heights = [SMALL if small else PANEL for _, small in rows]
    over = len(title) + 1 + 0.8 * (1 + max(levels.values(), default=0))
    figure = new_figure(WIDTH, sum(heights) + over * TEXT + REST)
    panels = new_axes(figure, heights)
    figure.suptitle("\n".join(title), x=0.012, ha="left", fontsize=8)
    for place, ((group, small), axes) in enumerate(zip(rows, panels, strict=True)):
        if small:
            _draw_difference(axes, shown, group)
            continue
        _draw_group(axes, shown, group)
        several = f", group {group}" if count > 1 else ""
        axes.set_ylabel(f"{shown.quantity}{several}")
        for epoch in shown.marks:
            axes.axvline(epoch, color=GREY, linestyle=":", linewidth=1, zorder=0)
        if place == 0:
            for epoch, level in levels.items():
                axes.annotate(shown.marks[epoch], (epoch, 1),
                              xycoords=("data", "axes fraction"), xytext=(0, 3 + 10 * level),
                              textcoords="offset points", ha="center")  # fmt: skip
    panels[-1].set_xlabel(shown.axis)
    for (group, small), axes in zip(rows, panels, strict=True):
        if not small:
            _point_at_difference(axes, shown, group, first=group == groups[0])
            _name_lines(axes)
    return figure


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of this size, in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), facecolor="white", layout="constrained")


def new_axes(figure: FigureBase, heights: list[float], *, share: bool = True) -> list[Axes]:
    """Panels of these heights below each other; if `share`, all have the same epochs."""
    from matplotlib.ticker import MaxNLocator

    panels = figure.subplots(len(heights), 1, sharex=share, squeeze=False,
                             gridspec_kw={"height_ratios": heights})[:, 0]  # fmt: skip
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.ticklabel_format(axis="y", useOffset=False)
        axes.margins(y=0.12)
    return list(panels)


REST = 0.5
"""Inches: the height of what is below the panels."""


def _levels(shown: Trajectory) -> dict[int, int]:
    """How high to write the text of each mark, so that no two overlap."""
    epochs = [seen.epoch for run in shown.runs for seen in run.seen]
    inch = (max(epochs, default=1) - min(epochs, default=0) or 1) / (0.75 * WIDTH)  # in epochs
    ends: list[float] = []
    levels = {}
    for epoch in sorted(shown.marks):
        half = len(shown.marks[epoch]) * LETTER / 2 * inch
        free = (level for level, end in enumerate(ends) if end < epoch - half)
        levels[epoch] = level = next(free, len(ends))
        ends[level : level + 1] = [epoch + half]
    return levels


def _xy(shown: Trajectory, run: Run, group: int) -> tuple[list[int], list[float]]:
    points = [(epoch, values[group]) for epoch, values in shown.points(run) if group < len(values)]
    return [epoch for epoch, _ in points], [value for _, value in points]


def _draw_group(axes: Axes, shown: Trajectory, group: int) -> None:
    last = None
    for run in shown.runs:
        xs, ys = _xy(shown, run, group)
        style = dict(STYLES[run.role])
        if len(xs) > MOST_MARKERS:
            style["marker"] = ""
        if run.raises and (end := (xs[-1], ys[-1]) if xs else _present(shown, group)):
            axes.plot(*([part] for part in end), linestyle="", marker="X", markersize=11,
                      color=style["color"], markeredgecolor=BLACK, zorder=4, label="_",
                      gid=f"raises {group}")  # fmt: skip
        if not xs:
            continue
        axes.plot(xs, ys, label=one_line(run.name), gid=f"{run.role} {group}", **style)
        if run.role == Role.RESUMED and last and last[0] > xs[0]:  # it resumes from earlier
            axes.annotate("", (xs[0], ys[0]), last, arrowprops={
                "arrowstyle": "->", "color": GREY, "linestyle": ":",
                "connectionstyle": "arc3,rad=0.3"})  # fmt: skip
        if run.role in (Role.BEFORE, Role.RESUMED):
            last = xs[-1], ys[-1]


def _present(shown: Trajectory, group: int) -> tuple[int, float] | None:
    """Where the uninterrupted run is at the first difference; None if it ends before that."""
    whole = dict(zip(*_xy(shown, shown.runs[0], group), strict=True))
    return (shown.epoch, whole[shown.epoch]) if shown.epoch in whole else None


def _too_small(shown: Trajectory, group: int) -> bool:
    """Whether the lines differ in this group by too little to see."""
    if group not in shown.right or shown.runs[-1].role != Role.RESUMED:
        return False
    values = [value for run in shown.runs for value in _xy(shown, run, group)[1]]
    values = [value for value in values if math.isfinite(value)]
    gaps = [gap for gap in map(abs, _gaps(shown, group).values()) if gap]
    return bool(values and gaps) and max(gaps) < SEEN * (max(values) - min(values))


def _gaps(shown: Trajectory, group: int) -> dict[int, float]:
    """By epoch, the last resumed run minus the uninterrupted run."""
    whole = dict(zip(*_xy(shown, shown.runs[0], group), strict=True))
    gaps = {
        epoch: value - whole[epoch]
        for epoch, value in zip(*_xy(shown, shown.runs[-1], group), strict=True)
        if epoch in whole
    }
    return {epoch: gap for epoch, gap in gaps.items() if math.isfinite(gap)}


def _draw_difference(axes: Axes, shown: Trajectory, group: int) -> None:
    gaps = _gaps(shown, group)
    axes.axhline(0, color=BLUE, linewidth=1.5)
    axes.plot(list(gaps), list(gaps.values()), gid=f"difference {group}",
              **STYLES[Role.RESUMED])  # fmt: skip
    axes.set_ylabel("resumed minus\nuninterrupted")
    axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0), useOffset=False)


def _point_at_difference(axes: Axes, shown: Trajectory, group: int, *, first: bool) -> None:
    text = shown.labels.get(group) or (shown.labels.get(None) if first else None)
    if not text:
        return
    target: tuple[int, float] | None = (shown.epoch, shown.wrong.get(group, math.nan))
    if group not in shown.wrong:
        target = _present(shown, group)
    known = target is not None and math.isfinite(target[1])
    point_at(axes, text, target if known and target else (shown.epoch, axes.get_ylim()[0]))
    if known and group in shown.wrong:
        axes.plot(*([part] for part in target or ()), linestyle="", marker="o", markersize=14,
                  label="_", markerfacecolor="none", markeredgecolor=BLACK,
                  gid=f"first {group}")  # fmt: skip


def point_at(axes: Axes, text: str, target: tuple[float, float]) -> None:
    """Write `text` in a free strip above the lines, with an arrow to a point."""
    inches = axes.figure.bbox.width / axes.figure.dpi
    lines = textwrap.wrap(text, int(LETTERS_PER_INCH * inches))
    strip = (len(lines) * GAP + 0.12) / PANEL
    bottom, top = axes.get_ylim()
    axes.set_ylim(bottom, bottom + (top - bottom) / (1 - strip))
    left, right = axes.get_xlim()
    x = (target[0] - left) / (right - left)
    side, shift, corner = ("left", 0.05, 0) if x < 0.5 else ("right", -0.05, 1)
    axes.annotate("\n".join(lines), target, xytext=(x + shift, 0.98), textcoords="axes fraction",
                  weight="bold", ha=side, va="top", arrowprops={
                      "arrowstyle": "->", "color": BLACK, "shrinkB": 7,
                      "relpos": (corner, 0.2)})  # fmt: skip


def _name_lines(axes: Axes) -> None:
    """Write the name of each line at its end, so that no two overlap."""
    ends: dict[str, tuple[float, float, bool, Line2D]] = {}
    for line in axes.lines:
        xs, ys = data_of(line)
        if xs and not label_of(line).startswith("_"):
            falls = len(ys) > 1 and ys[-1] < ys[-2]
            ends[label_of(line)] = xs[-1], ys[-1], falls, line  # the last one of this name
    bottom, top = axes.get_ylim()
    gap = GAP / PANEL * (top - bottom)
    below = -math.inf
    right = max((x for x, *_ in ends.values()), default=0)
    for label, (x, y, falls, line) in sorted(ends.items(), key=lambda end: (end[1][1], end[0])):
        above = 0
        if x < right:  # it ended early: beside another line, which may go on as this one did
            above = 11 if falls else -11
        else:
            y = below = max(y if math.isfinite(y) else (bottom + top) / 2, below + gap)
        axes.annotate(label, (x, y), xytext=(10, above), textcoords="offset points",
                      va="center", color=line.get_color(), weight="bold",
                      annotation_clip=False)  # fmt: skip


def data_of(line: Line2D) -> tuple[list[float], list[float]]:
    """The points of a line."""
    import numpy

    xs, ys = numpy.asarray(line.get_xydata()).T.tolist()
    return xs, ys


def label_of(line: Line2D) -> str:
    """The label of a line; it begins with ``_`` if the line has no name."""
    return str(line.get_label())


SETTINGS: dict[RcKeyType, object] = {
    "font.size": 8,
    "svg.fonttype": "none",
    "svg.hashsalt": "lr-resume-harness",  # keeps the ids inside an SVG the same each time
    "text.parse_math": False,
}
"""The settings of matplotlib for every picture."""


def picture_kind(suffix: str, what: str) -> str:
    """``png`` or ``svg``, from the suffix of a name.

    `what` names the feature that needs matplotlib, for a message. Raises `HarnessError` for
    another suffix, or if matplotlib is not installed.
    """
    kind = suffix.lower().removeprefix(".")
    if kind not in ("png", "svg"):
        raise HarnessError(f"a picture's name must end with .png or .svg (got {suffix!r})")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise HarnessError(f"{what} needs matplotlib: python -m pip install matplotlib") from None
    return kind


def drawn(figure: Callable[[], Figure], suffix: str, what: str) -> bytes:
    """The bytes of the figure that a function makes. The same figure gives the same SVG.

    Raises the same errors as `picture_kind`.
    """
    kind = picture_kind(suffix, what)
    import matplotlib

    metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    into = io.BytesIO()
    with matplotlib.rc_context(SETTINGS), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about letters that the font lacks
        figure().savefig(into, format=kind, dpi=160, metadata=metadata)
    return into.getvalue()
