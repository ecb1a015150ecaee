import pytest
from torch.optim.lr_scheduler import StepLR

from harness import Subject, replay
from lr_schedules.linear_annealing import LRScheduler
from lr_schedules.published import PublishedLinearAnnealingLR

TRACE = "train:2 save:a resume:a train:1"
IN_ORDER = "resume_optimizer_then_scheduler"


class OwnCounter(LRScheduler):
    """Counts its steps by itself, and saves other things."""

    def __init__(self, optimizer, last_epoch=-1):
        self.count, self.unread, self.lists = 0, 0, [0]
        super().__init__(optimizer, last_epoch)

    @property
    def factor(self):
        return max(half * 0.5**self.count for half in (1, 0.5))

    def get_lr(self):
        self.count += 1
        setattr(self, "unread", self.count)  # noqa: B010 (no method names it)
        self.lists = [self.count]
        return [base * self.factor for base in self.base_lrs]

    def state_dict(self):
        return {"last_epoch": self.last_epoch, "lists": self.lists}

    def load_state_dict(self, state):
        self.last_epoch = state["last_epoch"]


class ForgetsOnLoad(OwnCounter):
    def state_dict(self):
        return {**super().state_dict(), "count": self.count}


class RaisesOnLoad(OwnCounter):
    def load_state_dict(self, state):
        raise ValueError("no")


def state(build, check, trace, **options):
    result = replay(Subject("x", build, options=options), check, trace)
    assert result.verdict == "BROKEN"
    return result.counterexample.state


@pytest.mark.parametrize(
    ("check", "trace"),
    [(IN_ORDER, TRACE), ("resume_twice_from_one_dict", "train:2 save:a resume:a resume:a"),
     ("resume_at_every_save", "train:2 save:a train:1")],
)  # fmt: skip
def test_what_is_not_saved_is_named(check, trace):
    count, lists = state(OwnCounter, check, trace).split("; ")
    assert count == "count is 1, and 3 in the uninterrupted run (it is not in the state_dict)"
    assert lists == "lists is [1], and [3] in the uninterrupted run"


def test_what_is_saved_and_not_loaded_is_named():
    assert state(ForgetsOnLoad, IN_ORDER, TRACE).startswith(
        "count is 1, and 3 in the uninterrupted run; lists is"
    )


def test_going_back_in_place_compares_with_where_it_goes_back_to():
    said = state(OwnCounter, "roll_back_in_place", "save:a train:2 load:a")
    assert said.startswith("count is 3, and 1 in the uninterrupted run (it is not")


def test_the_mistake_of_the_post_is_named():
    said = state(PublishedLinearAnnealingLR, "resume_by_last_epoch", "train:2 save:a resume:a",
                 num_annealing_steps=3, num_total_steps=9)  # fmt: skip
    assert said == "_step_count is 1, and 3 in the uninterrupted run"


def test_what_the_methods_of_the_class_do_not_read_is_no_evidence():
    said = state(StepLR, "resume_by_last_epoch", "train:2 save:a resume:a", step_size=2, gamma=0.5)
    assert said == ""  # _step_count differs, and torch's own bookkeeping alone reads it


def test_where_it_raises_nothing_is_compared():
    assert state(RaisesOnLoad, IN_ORDER, TRACE) == ""


def test_it_is_shown_and_written_and_read(command, tmp_path):
    import json

    from harness.report.result_files import result_of

    status, printed, _ = command(
        "check", "test_attributes:OwnCounter", "--check", IN_ORDER, "--json", "x.json"
    )
    assert status == 1
    assert "\n  state           count is 1, and " in printed
    [row] = json.loads((tmp_path / "x.json").read_text())["results"]
    assert result_of(row).counterexample.state == row["state"] != ""
