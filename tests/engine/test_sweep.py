import pytest

from harness import Trace
from harness.checks.registry import as_check, select_checks
from harness.core.operations import epochs, walk
from harness.engine.sweep import (
    sweep,
    sweep_events,
    sweep_pairs,
    sweep_thinly,
    sweep_with_another_scheduler,
)


def saved_at(check, length):
    """The epochs at which the traces of a sweep save first."""
    return [
        next(epochs(path) for operation, path, _ in walk(operations) if operation.kind == "save")
        for operations in sweep(as_check(check), length)
    ]


@pytest.mark.parametrize(
    "check", ["resume_from_file", "roll_back_in_place", "state_loads_with_weights_only"]
)
def test_every_epoch_is_a_save_point_the_first_and_the_last_too(check):
    assert set(range(8)) == set(saved_at(check, 7))


def test_what_has_nothing_to_resume_at_0_begins_at_1():
    assert set(range(1, 8)) == set(saved_at("resume_by_last_epoch", 7))


def test_a_resumed_run_is_resumed_again_and_the_first_save_gone_back_to():
    traces = [str(Trace(operations)) for operations in sweep(as_check("resume_from_file"), 5)]
    assert traces[2] == ("train:2 save:a resume:a save:b resume:b train:3 resume:a train:3")


def test_the_second_of_two_saves_without_a_step_between_is_resumed_from():
    traces = [str(Trace(operations)) for operations in sweep(as_check("roll_back_in_place"), 5)]
    assert traces[-2:] == ["save:a save:b load:b train:5", "train:2 save:a save:b load:b train:3"]
    later = [str(Trace(operations)) for operations in sweep(as_check("resume_by_last_epoch"), 2)]
    assert later[-1] == "train:1 save:a save:b resume:b train:1"


def test_another_scheduler_is_built_at_three_epochs_and_before_the_event():
    assert (
        str(Trace(sweep_with_another_scheduler(6)))
        == "save:a train:1 save:a train:3 save:a train:2"
    )
    assert (
        str(Trace(sweep_with_another_scheduler(1, "epoch")))
        == "save:a train:1 save:a save:a epoch:3"
    )


def test_a_check_at_every_save_is_done_in_chains_too():
    traces = [str(Trace(operations)) for operations in sweep(as_check("resume_at_every_save"), 6)]
    assert traces[-4:] == [
        " ".join(["train:1 save:a"] * 6),
        " ".join(["train:2 save:a"] * 3),
        " ".join(["train:3 save:a"] * 2),
        "train:5 save:a",
    ]


def test_every_way_follows_every_other():
    ways = [as_check(name) for name in ("resume_from_file", "roll_back_in_place")]
    pairs = {
        tuple(op.check for op in operations if op.check) for operations in sweep_pairs(ways, 12)
    }
    assert pairs == {(a.name, b.name) for a in ways for b in ways}


def test_every_default_check_has_something_to_sweep():
    for check in select_checks():
        if check.name != "resumes_mixed":
            assert all(Trace(operations).steps for operations in list(sweep(check, 3))[:1])


EVENTS_SWEPT = {
    "resume_optimizer_then_scheduler": [
        "save:a resume:a skip:1 train:2 resume:a train:3",
        "skip:1 save:a resume:a train:1 skip:1 save:b resume:b train:2 resume:a train:3",
        "train:1 save:a resume:a skip:1 train:2 resume:a train:3",
        "train:1 skip:1 save:a resume:a train:1 skip:1 save:b resume:b train:2 resume:a train:3",
        "train:3 save:a resume:a skip:1 train:2 resume:a train:3",
        "train:3 skip:1 save:a resume:a train:1 skip:1 save:b resume:b train:2 resume:a train:3",
    ],
    "roll_back_in_place": [
        "save:a load:a skip:1 train:2 load:a train:3",
        "skip:1 save:a load:a train:1 skip:1 save:b load:b train:2 load:a train:3",
        "train:1 save:a load:a skip:1 train:2 load:a train:3",
        "train:1 skip:1 save:a load:a train:1 skip:1 save:b load:b train:2 load:a train:3",
        "train:3 save:a load:a skip:1 train:2 load:a train:3",
        "train:3 skip:1 save:a load:a train:1 skip:1 save:b load:b train:2 load:a train:3",
        "add_group:1 save:a load:a train:1 train:2 load:a train:3",
        "train:1 add_group:1 save:a load:a train:1 train:2 load:a train:3",
        "train:3 add_group:1 save:a load:a train:1 train:2 load:a train:3",
    ],
    "resume_by_last_epoch": [
        "train:1 save:a resume:a skip:1 train:2 resume:a train:3",
        "train:1 skip:1 save:a resume:a train:1 skip:1 save:b resume:b train:2 resume:a train:3",
        "train:3 save:a resume:a skip:1 train:2 resume:a train:3",
        "train:3 skip:1 save:a resume:a train:1 skip:1 save:b resume:b train:2 resume:a train:3",
    ],
    "resume_at_every_save": [
        "skip:1 save:a train:1 skip:1 save:a train:2",
        "train:1 skip:1 save:a train:1 skip:1 save:a train:2",
        "train:3 skip:1 save:a train:1 skip:1 save:a train:2",
    ],
    "last_lr_is_the_groups_lr": ["skip:1", "train:1 skip:1 train:1", "train:3 skip:1 train:3"],
    "resume_from_distributed_checkpoint": [
        "train:1 save:a resume:a skip:1 train:2 resume:a train:3",
        "train:1 skip:1 save:a resume:a train:1 skip:1 save:b resume:b train:2 resume:a train:3",
        "train:1 save:a resume:a add_group:1 train:2 resume:a train:3",
    ],
}


@pytest.mark.parametrize("name", EVENTS_SWEPT)
def test_a_rare_event_comes_before_a_save_after_a_resume_and_later(name):
    """A check that does not restore an event is not tried after a save that follows it."""
    groups = name in ("roll_back_in_place", "resume_from_distributed_checkpoint")
    events = ["skip", "add_group"] if groups else ["skip"]
    traces = [str(Trace(operations)) for operations in sweep_events(as_check(name), events)]
    assert traces == EVENTS_SWEPT[name]


def test_two_ways_follow_each_other_from_the_second_epoch_on():
    ways = [as_check("resume_optimizer_then_scheduler"), as_check("resume_by_last_epoch")]
    traces = [str(Trace(operations)) for operations in sweep_pairs(ways, 5)]
    assert traces == [
        f"train:2 save:a resume:a@{one.name} train:1 save:b resume:b@{other.name} train:2"
        for one in ways
        for other in ways
    ]


def test_a_check_that_is_not_searched_has_a_few_save_points():
    slow = as_check("resume_from_distributed_checkpoint")
    assert list(saved_at(slow.name, 9)) == [1, 2, 4, 9, 1, 4]  # the last two save twice
    thin = [str(Trace(operations)) for operations in sweep_thinly(slow, 2)]
    assert thin == ["save:a train:1 save:a train:1 save:a"]
