import json

import pytest
from own_counter import ForgetsOnLoad, OwnCounter, RaisesOnLoad
from torch.optim.lr_scheduler import StepLR

from harness import Subject, replay
from harness.core.result import LostAttribute
from harness.report.result_file import read_results
from lr_schedules.published import PublishedLinearAnnealingLR

TRACE = "train:2 save:a resume:a train:1"
IN_ORDER = "resume_optimizer_then_scheduler"


def lost(build, check, trace, **options):
    result = replay(Subject("x", build, options=options), check, trace)
    assert result.verdict == "BROKEN"
    return result.counterexample.lost


@pytest.mark.parametrize(
    ("check", "trace"),
    [(IN_ORDER, TRACE), ("resume_twice_from_one_dict", "train:2 save:a resume:a resume:a train:1"),
     ("resume_at_every_save", "train:2 save:a train:1")],
)  # fmt: skip
def test_what_is_not_saved_is_named(check, trace):
    assert lost(OwnCounter, check, trace) == (
        LostAttribute("count", "1", "3", saved=False),
        LostAttribute("lists", "[1]", "[3]", saved=True),
    )


def test_what_is_saved_and_not_loaded_is_named():
    assert lost(ForgetsOnLoad, IN_ORDER, TRACE) == (
        LostAttribute("count", "1", "3", saved=True),
        LostAttribute("lists", "[1]", "[3]", saved=True),
    )


def test_going_back_in_place_compares_with_where_it_goes_back_to():
    first, *_ = lost(OwnCounter, "roll_back_in_place", "save:a train:2 load:a train:1")
    assert first == LostAttribute("count", "3", "1", saved=False)


def test_the_mistake_of_the_post_is_named():
    found = lost(PublishedLinearAnnealingLR, "resume_by_last_epoch", "train:2 save:a resume:a",
                 num_annealing_steps=3, num_total_steps=9)  # fmt: skip
    assert found == (LostAttribute("_step_count", "1", "3", saved=True),)


def test_what_the_methods_of_the_class_do_not_read_is_no_evidence():
    found = lost(StepLR, "resume_by_last_epoch", "train:2 save:a resume:a", step_size=2, gamma=0.5)
    assert found == ()  # _step_count differs, and torch's own bookkeeping alone reads it


def test_where_it_raises_nothing_is_compared():
    assert lost(RaisesOnLoad, IN_ORDER, TRACE) == ()


def test_a_lost_attribute_is_told_in_a_sentence():
    sentence = "count is 1, and 3 in the uninterrupted run"
    assert str(LostAttribute("count", "1", "3", saved=True)) == sentence
    assert str(LostAttribute("count", "1", "3", saved=False)) == (
        f"{sentence} (it is not in the state_dict)"
    )


def test_it_is_shown_and_written_and_read(command, tmp_path):
    status, printed, _ = command(
        "check", "own_counter:OwnCounter", "--check", IN_ORDER, "--json", "x.json"
    )
    assert status == 1
    assert "\n  state           count is 1, and " in printed
    [row] = json.loads((tmp_path / "x.json").read_text())["results"]
    [result] = read_results(tmp_path / "x.json").results
    found = result.counterexample.lost
    assert [vars(attribute) for attribute in found] == row["counterexample"]["lost"]
    assert found[0] == LostAttribute("count", "1", found[0].expected, saved=False)
