import re
import shlex
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pytest
from helpers import ROOT
from inline_snapshot import snapshot
from torch.optim.lr_scheduler import ExponentialLR, StepLR

from harness import Subject, Trace, replay, resume_check
from harness.checks.registry import as_check
from harness.core.errors import HarnessError
from harness.engine.every_epoch import schedule_of
from harness.engine.one_run import Runner
from harness.engine.runs import run_to_the_end
from harness.report.picture import SETTINGS, STYLES, drawn, figure_of, picture_or_why, trajectory
from harness.report.plot import CURVES, Drawing
from harness.report.plot import figure_of as plot_figure_of
from harness.subjects.lookup import as_subject, choose_subjects, subject_called
from lr_schedules.correct import Halving
from lr_schedules.faults.position import LoadsADelta
from lr_schedules.faults.state import EmptiesTheDict, SlopeOfTheNew
from lr_schedules.faults.timing import OnlyForward

pytest.importorskip("matplotlib")
from matplotlib import rc_context
from matplotlib.text import Text

STEP_BUG = "step_size=3 gamma=0.5 train:3 save:a resume:a"
HALVED = [0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.025, 0.025, 0.025, 0.0125, 0.0125, 0.0125, 0.00625]
LINEAR = ROOT / "lr_schedules" / "linear_annealing.svg"
SVG = "{http://www.w3.org/2000/svg}"


def shown(subject, check, trace):
    """What the picture of a counterexample is made of."""
    result = replay(as_subject(subject), as_check(check), trace)
    assert result.verdict == "BROKEN"
    return trajectory(result)


def lines(figure):
    """The data of every line by its gid."""
    return {
        line.get_gid(): (list(line.get_xdata()), list(line.get_ydata()))
        for axes in figure.axes
        for line in axes.lines
        if line.get_gid()
    }


def numbers(text):
    return [float(number) for number in re.findall(r"-?[\d.]+\b", text)]


def texts(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


# ---------------------------------------------------------------------- of a counterexample


def test_both_runs_of_every_group_are_drawn_with_save_and_resume():
    figure = figure_of(shown(StepLR, "resume_by_last_epoch", STEP_BUG))
    drawn = lines(figure)
    for group, factor in ((0, 1), (1, 0.1)):
        assert drawn[f"uninterrupted {group}"] == (
            list(range(13)), pytest.approx([rate * factor for rate in HALVED])
        )  # fmt: skip
        assert drawn[f"resumed {group}"] == (
            list(range(3, 13)), pytest.approx([rate * factor / 2 for rate in HALVED[3:]])
        )  # fmt: skip
        assert drawn[f"first {group}"] == ([3], pytest.approx([0.025 * factor]))
    assert [axes.get_ylabel() for axes in figure.axes] == ["lr, group 0", "lr, group 1"]
    assert "save:a resume:a" in texts(figure)
    assert [numbers(text) for text in texts(figure) if "3" in text] == [
        [3, 0.05, 0.025], [3, 0.005, 0.0025]
    ]  # fmt: skip
    marked = [line.get_xdata() for line in figure.axes[0].lines if line.get_linestyle() == ":"]
    assert [list(xs) for xs in marked] == [[3, 3]]
    assert STEP_BUG in figure.get_suptitle()


def test_a_run_that_goes_back_is_drawn_over_its_epochs():
    drawn = lines(figure_of(shown(OnlyForward, "roll_back_in_place", "save:a train:3 load:a")))
    assert drawn["before 0"][0] == [0, 1, 2, 3]
    assert drawn["before 0"][1] == drawn["uninterrupted 0"][1][:4]
    assert drawn["resumed 0"][0] == list(range(13))
    assert drawn["first 0"] == ([0], [drawn["resumed 0"][1][0]])
    figure = figure_of(shown(LoadsADelta, "roll_back_in_place", "save:a train:3 load:a"))
    assert any(line.get_gid() == "resumed 1" for line in figure.axes[1].lines)


def test_a_run_that_raises_is_marked_where_it_does():
    trace = "train:4 save:a resume:a resume:a"
    figure = figure_of(shown(EmptiesTheDict, "resume_twice_from_one_dict", trace))
    drawn = lines(figure)
    assert drawn["raises 0"] == ([4], [drawn["uninterrupted 0"][1][4]])
    assert any("KeyError: 'epoch'" in text for text in texts(figure))
    assert drawn["resumed 0"] == ([4], [drawn["uninterrupted 0"][1][4]])


class Nearly(Halving):
    """Is off by 2e-9 from where it is resumed by last_epoch."""

    def __init__(self, optimizer, last_epoch=-1):
        self.off = 2e-9 if last_epoch >= 0 else 0.0
        super().__init__(optimizer, last_epoch)

    def rates(self):
        return [rate - self.off for rate in super().rates()]


def test_a_difference_that_nobody_would_see_has_a_panel_of_its_own():
    view = shown(Nearly, "resume_by_last_epoch", "train:3 save:a resume:a")
    figure = figure_of(view)
    xs, gaps = lines(figure)["difference 0"]
    assert xs[0] == 3
    assert gaps[0] == view.wrong[0] - view.right[0]
    assert 0 < abs(gaps[0]) < 1e-7
    assert numbers(view.labels[0]) == [3, 0.05, 0.049999998]


def test_what_is_broken_beside_the_lr_is_what_is_drawn():
    from lr_schedules.faults.optimizer import MomentumFromCycled

    view = shown(MomentumFromCycled, "resume_by_last_epoch", "train:1 save:a resume:a")
    assert view.quantity == "momentum"
    assert lines(figure_of(view))["first 0"] == ([1], [0.225])


def test_with_changed_options_there_are_three_runs():
    trace = "changed={'total':5} total=4 floor=0.25 save:a resume:a train:5"
    drawn = lines(figure_of(shown(SlopeOfTheNew, "resume_with_changed_options", trace)))
    roles = ("uninterrupted", "other options", "resumed")
    assert {f"{role} 0" for role in roles} <= {*drawn}
    old, new, seen = (drawn[f"{role} 0"][1][5] for role in roles)
    assert old == new
    assert drawn["first 0"] == ([5], [seen])


def test_a_check_of_the_state_has_a_picture_where_an_lr_shows_it():
    published = subject_called("PublishedLinearAnnealingLR")
    trace = "num_annealing_steps=4 num_total_steps=9 train:9"
    view = shown(published, "lr_is_never_negative", trace)
    assert numbers(view.labels[0]) == [9, 0, -0.02]
    assert lines(figure_of(view))["first 0"] == ([9], pytest.approx([-0.02]))
    assert shown(EmptiesTheDict, "loading_leaves_its_argument_alone", "save:a") is None


def test_groups_that_differ_come_first_where_there_are_many():
    subject = Subject("many", StepLR, optimizer=many_groups)
    view = shown(subject, "resume_by_last_epoch", STEP_BUG)
    figure = figure_of(view)
    assert len(figure.axes) == 6
    assert "6 of 9 " in figure.get_suptitle()


def many_groups():
    import torch

    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))]} for _ in range(9)]
    return torch.optim.SGD(groups, lr=0.1)


def test_a_picture_is_text_and_the_same_each_time():
    result = replay(StepLR, "resume_by_last_epoch", STEP_BUG)
    content = picture_or_why(result)
    assert content == picture_or_why(result)
    root = ElementTree.fromstring(content)
    said = ["".join(text.itertext()) for text in root.iter(f"{SVG}text")]
    assert {trajectory(result).labels[0], "uninterrupted"} <= {*said}
    shown = trajectory(result)
    assert drawn(lambda: figure_of(shown), "png", "a picture").startswith(b"\x89PNG")
    with pytest.raises(HarnessError, match="'pdf'"):
        drawn(lambda: figure_of(shown), "pdf", "a picture")


def test_watching_goes_on_where_a_run_raises():
    @resume_check
    def resume_late(new_optimizer, build, checkpoint):
        """Refuse the second epoch."""
        if checkpoint["epoch"] == 2:
            raise RuntimeError("not this one")
        optimizer = new_optimizer()
        optimizer.load_state_dict(checkpoint["optimizer"])
        scheduler = build(optimizer)
        scheduler.load_state_dict(checkpoint["scheduler"])
        return optimizer, scheduler

    trace = Trace.parse(
        "gamma=0.5 train:1 save:a train:1 save:b train:1 resume:b train:2 resume:a train:1"
    )
    bound = as_subject(ExponentialLR).bind(dict(trace.options))
    start, late, early = run_to_the_end(Runner(bound), as_check(resume_late), trace)
    assert [seen.epoch for seen in start.seen] == [0, 1, 2, 3]
    assert (late.seen, late.raises) == ([], "RuntimeError: not this one")
    assert [seen.epoch for seen in early.seen] == [1, 2]
    assert early.raises == ""


def test_colours_can_be_read_on_white():
    def light(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        parts = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), parts, strict=True))

    styles = [*STYLES.values(), *CURVES]
    assert all(1.05 / (light(style["color"]) + 0.05) >= 3 for style in styles)
    assert len({str(style["linestyle"]) for style in CURVES}) == len(CURVES)
    assert len({style["linestyle"] for style in STYLES.values()}) == len(STYLES)


def test_check_writes_a_picture_beside_each_script(command, tmp_path):
    status, printed, errors = command(
        "check", "StepLR", "--check", "resume_by_last_epoch", "--max-examples", 0,
        "--plots", "shown", "--scripts", "scripts",
    )  # fmt: skip
    assert (status, "error" in errors) == (1, False)
    assert "  Picture: shown/StepLR-resume_by_last_epoch.svg\n" in printed
    assert [path.name for path in (tmp_path / "shown").iterdir()] == [
        "StepLR-resume_by_last_epoch.svg"
    ]
    assert [path.stem for path in (tmp_path / "scripts").iterdir()] == [
        "StepLR-resume_by_last_epoch"
    ]


def test_without_matplotlib_nothing_is_begun(command, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for arguments, what in [
        (("check", "StepLR", "--plots", "shown"), "--plots"),
        (("plot", "StepLR"), "plot"),
    ]:
        status, printed, errors = command(*arguments)
        assert (status, printed) == (2, "")
        assert re.fullmatch(rf"error: {what} .*pip install matplotlib\n", errors)
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------ of a schedule


def test_a_plot_has_the_schedule_and_its_resumes():
    schedule = schedule_of(subject_called("StepLR"))
    drawn = lines(plot_figure_of([Drawing("StepLR", [("", schedule)])]))
    assert drawn["plain 0 0 12"] == (list(range(13)), pytest.approx(HALVED))
    assert drawn["right 0 0 12 0"] == drawn["plain 0 0 12"]
    assert drawn["wrong 0 0 12 0"] == ([], [])
    assert drawn["right 0 0 12 1"][0] == [1, 2, 4, 5, 7, 8, 10, 11]
    decays = [3, 6, 9, 12]
    wrong = [HALVED[epoch] / 2 for epoch in decays]
    assert drawn["wrong 0 0 12 1"] == (decays, pytest.approx(wrong))
    assert drawn["on 0 0 12 1 3"] == (
        list(range(3, 13)), pytest.approx([rate / 2 for rate in HALVED[3:]])
    )  # fmt: skip
    assert not any(gid.startswith("plain 0 1") for gid in drawn), "a multiple of group 0"


class BothWrong(StepLR):
    """Begins again, in whatever way it is resumed."""

    def __init__(self, optimizer, last_epoch=-1):
        self.made = -1
        super().__init__(optimizer, 1, 0.5, last_epoch)

    def get_lr(self):
        self.made += 1
        return [base * 0.5**self.made for base in self.base_lrs]

    def state_dict(self):
        return {"base_lrs": self.base_lrs}


def test_marks_and_lines_of_both_ways_can_be_told_apart():
    schedule = schedule_of(as_subject(BothWrong))
    figure = plot_figure_of([Drawing("BothWrong", [("", schedule)])])
    wrong = [line for line in figure.axes[0].lines if str(line.get_gid()).startswith("wrong")]
    assert [len(line.get_xdata()) > 3 for line in wrong] == [True, True]
    assert wrong[0].get_markerfacecolor() == "none"  # what is behind it is seen through it
    dashes = {
        way: {str(line._unscaled_dash_pattern) for line in figure.axes[0].lines
              if re.fullmatch(rf"on 0 0 12 {way} \d+", str(line.get_gid()))}
        for way in (0, 1)
    }  # fmt: skip
    assert len(dashes[0]) == len(dashes[1]) == 1
    assert dashes[0] != dashes[1]
    shown = {mark.get_label(): mark for mark in figure.legends[0].legend_handles}
    [first] = [mark for text, mark in shown.items() if "scheduler is wrong" in text]
    epochs = sorted(set(wrong[0].get_xdata()))
    assert first.get_label().endswith(f"epoch {min(epochs)}-{max(epochs)}")
    assert str(first._unscaled_dash_pattern) in dashes[0]


def test_lines_that_go_on_wrong_have_the_colour_of_their_curve():
    curves = [(name, schedule_of(subject_called("StepLR"))) for name in ("one", "other")]
    figure = plot_figure_of([Drawing("StepLR", curves)])
    on = {line.get_gid().split()[1]: line.get_color() for line in figure.axes[0].lines
          if str(line.get_gid()).startswith("on")}  # fmt: skip
    assert on == {"0": CURVES[0]["color"], "1": CURVES[1]["color"]}
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "resume_by_last_epoch is wrong at 4 + 4 of 24 epochs of all curves" in labels


def cut_off(figure):
    """The texts that are partly outside of the picture."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure).draw()
    whole = figure.bbox.padded(1)
    axis = [axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]
    ticks = {
        label for one in axis for tick in one.majorTicks for label in (tick.label1, tick.label2)
    }
    seen = [  # the labels of ticks outside of a panel are not drawn
        text for text in figure.findobj(Text)
        if text.get_visible() and text.get_text().strip() and text not in ticks
    ]  # fmt: skip
    boxes = {text.get_text(): text.get_window_extent() for text in seen}
    return [
        said for said, box in boxes.items()
        if box.width and (box.x0 < whole.x0 or box.x1 > whole.x1 or box.y0 < whole.y0
                          or box.y1 > whole.y1)
    ]  # fmt: skip


def test_no_text_is_cut_off():
    trace = "train:4 save:a resume:a resume:a"
    with rc_context(SETTINGS):
        for view in (
            shown(StepLR, "resume_by_last_epoch", STEP_BUG),
            shown(OnlyForward, "roll_back_in_place", "save:a train:3 load:a"),
            shown(EmptiesTheDict, "resume_twice_from_one_dict", trace),
        ):
            assert cut_off(figure_of(view)) == []
        long = replace(view, title="t" * 200, labels={None: "a long label of many words " * 5})
        assert cut_off(figure_of(long)) == []
        figure = figure_of(long)
        figure.suptitle("t" * 200)
        assert cut_off(figure) == ["t" * 200]  # it would be noticed
        drawings = [
            Drawing(subject.name, [("", schedule_of(subject))])
            for subject in (subject_called("StepLR"), as_subject(BothWrong))
        ]
        side_by_side = plot_figure_of(drawings)
        assert len(side_by_side.subfigs) == 2
        assert cut_off(side_by_side) == []


def test_groups_that_go_their_own_way_have_panels():
    figure = plot_figure_of([Drawing("LambdaLR", [("", schedule_of(subject_called("LambdaLR")))])])
    assert [axes.get_ylabel() for axes in figure.axes] == ["lr, group 0", "lr, group 1"]


def test_a_schedule_that_ends_by_an_exception_is_marked():
    schedule = schedule_of(subject_called("OneCycleLR"))
    figure = plot_figure_of([Drawing("OneCycleLR", [("", schedule)])])
    assert len(schedule.points) == 11
    assert lines(figure)["raises 0 0 10"][0] == [10]
    assert any("ValueError" in text for text in texts(figure))


def test_a_long_schedule_is_resumed_everywhere_and_followed_as_far_as_there_is_room():
    (subject,) = choose_subjects(["StepLR"], {"step_size": 100, "gamma": 0.5}).subjects
    by_load, by_last_epoch = schedule_of(subject, 300).by_check
    assert len(by_load.resumes) == 301
    assert by_load.wrong == []
    assert by_load.followed == (10_000 - 300) // 301
    assert {len(resume.points) for resume in by_load.resumes[:200]} == {by_load.followed + 1}
    assert [resume.wrong for resume in by_last_epoch.wrong] == [100, 200, 300]


def test_what_a_subject_does_not_promise_is_said(command, tmp_path):
    subject = subject_called("LambdaLR-stateful")
    status, printed, _ = command("plot", subject.name)
    assert status == 0
    reason = subject.declines["resume_by_last_epoch"]
    assert re.search(f"resume_by_last_epoch .*: {re.escape(reason)}", printed)
    assert [path.name for path in tmp_path.iterdir()] == ["LambdaLR-stateful.svg"]


def test_several_subjects_are_drawn_side_by_side(command, tmp_path):
    status, printed, _ = command("plot", "StepLR", "ExponentialLR")
    assert status == 0
    assert printed.startswith("wrote StepLR-ExponentialLR.svg\nStepLR:\nresume_")
    assert "\nExponentialLR:\nresume_" in printed
    said = what_it_says(tmp_path / "StepLR-ExponentialLR.svg")[1]
    assert {"StepLR step_size=3 gamma=0.5; the LR of group 1 is a multiple of group 0's"} < said


def test_a_plot_says_what_it_shows(command, tmp_path):
    assert command("plot", "StepLR", "-o", "s.png") == snapshot(
        (
            0,
            """\
wrote s.png
resume_optimizer_then_scheduler is right at all 13 epochs
resume_by_last_epoch is right at 8 of 12 epochs. resume_by_last_epoch is wrong at 4 of 12 epochs: 3, 6, 9, 12
""",
            "",
        )
    )
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["StepLR", "-o", "s.gif"], "'.gif'"),
        (["StepLR", "-o", "no/s.svg"], " no: "),
        (["StepLr"], " StepLR?"),
        (["StepLR", "--kwargs", "gama=1"], "gama"),
        (["StepLR", "--kwargs", "step_size"], "'step_size'"),
        (["StepLR", "--kwargs", "step_size=0"], "ZeroDivisionError"),
        (["StepLR", "--epochs", "0"], "--epochs"),
        (["StepLR", *["--kwargs", "gamma=0.5"] * 6], "--kwargs"),
        (["StepLR"] * 5, "at most 4 subjects"),
        (["lr_schedules.subjects:SUBJECTS"], "lr_schedules.subjects:SUBJECTS.StepLR"),
    ],
)
def test_a_mistake_is_said_and_nothing_is_written(command, tmp_path, arguments, said):
    status, printed, errors = command("plot", *arguments)
    assert (status, printed) == (2, "")
    assert errors.startswith(("error: ", "Usage: "))
    assert said in errors
    assert "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []


def test_an_option_that_is_drawn_needs_a_value():
    from hypothesis import strategies as st

    subject = Subject("drawn", StepLR, options={"step_size": st.integers(1, 3)})
    with pytest.raises(HarnessError, match="--kwargs 'step_size=VALUE'"):
        schedule_of(subject)


def test_the_picture_in_the_readme_is_of_the_three_curves():
    """The committed file: its curves, read from its paths, are the schedules."""
    root = ElementTree.fromstring(LINEAR.read_bytes())
    paths = {
        group.get("id"): group.find(f"{SVG}path").get("d")
        for group in root.iter(f"{SVG}g")
        if (group.get("id") or "").startswith("plain")
    }
    curves = ((50, 100), (20, 100), (20, 1000))
    assert {*paths} == {f"plain {n} 0 {span}" for n in range(3) for span in (150, 1000)}
    for number, (annealing, total) in enumerate(curves):
        for span in (150, 1000):
            places = [
                tuple(map(float, place))
                for place in re.findall(r"[ML] (\S+) (\S+)", paths[f"plain {number} 0 {span}"])
            ]
            rates = [lr_at(epoch, annealing, total) for epoch in range(span + 1)]
            left, right = places[0][0], places[-1][0]
            low, high = max(y for _, y in places), min(y for _, y in places)
            for x, y in places:
                epoch = (x - left) / (right - left) * span
                before = min(int(epoch), span - 1)
                rate = rates[before] + (rates[before + 1] - rates[before]) * (epoch - before)
                shown_there = min(rates) + (low - y) / (low - high) * (max(rates) - min(rates))
                assert shown_there == pytest.approx(rate, abs=1e-4)
    said = {"".join(text.itertext()) for text in root.iter(f"{SVG}text")}
    assert {"(50, 100)", "(20, 100)", "(20, 1000)"} <= said
    assert len(LINEAR.read_bytes()) < 60_000


def lr_at(epoch, annealing, total):
    s = epoch + 1
    return 0.1 * s / annealing if s <= annealing else 0.1 * max(total - s, 0) / (total - annealing)


@pytest.mark.slow
def test_the_command_in_the_readme_draws_the_picture_again(command, tmp_path):
    """As far as any matplotlib draws it: the same lines, with the same texts."""
    readme = (ROOT / "README.md").read_text().replace("\\\n", " ")
    line = re.search(r"lr-resume-harness (plot LinearAnnealingLR .*)", readme)
    assert line is not None
    arguments = shlex.split(line[1])
    assert ROOT / arguments[-1] == LINEAR
    status, _, errors = command(*arguments[:-1], "again.svg")
    assert (status, errors) == (0, "")
    assert what_it_says(tmp_path / "again.svg") == what_it_says(LINEAR)


def what_it_says(path):
    root = ElementTree.parse(path).getroot()
    ids = [group.get("id") for group in root.iter(f"{SVG}g") if " " in (group.get("id") or "")]
    return ids, {"".join(text.itertext()) for text in root.iter(f"{SVG}text")}


def test_what_is_saved_again_and_again_is_counted():
    from lr_schedules.faults.state import ManySavesWrong

    trace = "train:3 " + " ".join(["save:a"] * 17)
    view = shown(ManySavesWrong, "saving_changes_nothing", trace)
    assert view.marks == {3: "save:a (17 times)"}
