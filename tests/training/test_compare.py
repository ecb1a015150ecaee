"""Where a resumed run starts in the recorded one, and in what the two differ."""

import pytest

from harness.training.compare import Difference, Field, Start, compare, compare_ranks, start_of
from harness.training.recording import Recording, State, Step

LRS = (0.1, 0.08, 0.06, 0.04, 0.02, 0.01)


def step(lr, weights, optimizer=0, state=None, **values):
    values = {"lr": lr if isinstance(lr, list) else [lr], "momentum": [0.9], **values}
    return Step(optimizer, values, State(f"w{weights}", f"s{weights}" if state is None else state))


def recording(lrs=LRS, start=0, rank=0, **more):
    steps = tuple(step(lr, start + index) for index, lr in enumerate(lrs))
    end = start + len(lrs)
    return Recording(rank, steps, (State(f"w{end}", f"s{end}"),), **more)


def difference(expected, actual, start):
    """The first difference."""
    return compare(expected, actual, start)[0]


def lr_difference(lrs, start):
    return difference(recording(), recording(lrs, start), start)


# ------------------------------------------------------------------ alignment


def test_a_run_starts_where_weights_and_state_are_the_same():
    assert start_of(recording(), recording(LRS[2:], 2), 3) == Start(2, "state")


def test_the_weights_alone_decide_if_the_state_is_lost():
    resumed = Recording(0, (step(0.06, 2, state=""), *recording(LRS[3:], 3).steps))
    assert start_of(recording(), resumed, 3) == Start(2, "weights")


def test_the_length_decides_if_the_weights_are_unknown():
    resumed = Recording(0, tuple(step(lr, f"?{lr}") for lr in LRS[2:]))
    assert start_of(recording(), resumed, 3) == Start(2, "length")


def test_the_length_decides_between_steps_that_change_nothing():
    idle = tuple(step(0.0, 0) for _ in range(4))
    expected = Recording(0, (*idle, step(0.1, 1)))
    resumed = Recording(0, (*idle[2:], step(0.1, 1)))
    assert start_of(expected, resumed, 3) == Start(2, "state")


def test_the_last_step_before_the_kill_is_taken_if_the_length_does_not_fit():
    idle = tuple(step(0.0, 0) for _ in range(4))
    assert start_of(Recording(0, idle), Recording(0, idle * 2), 2) == Start(2, "state")


def test_a_run_that_goes_on_past_the_end_starts_at_the_end():
    assert start_of(recording(), recording(LRS[:3], 6), 6) == Start(6, "state")


@pytest.mark.parametrize("steps", [1, 6, 9])
def test_a_run_of_another_length_with_unknown_weights_is_not_aligned(steps):
    resumed = Recording(0, tuple(step(0.1, f"?{n}") for n in range(steps)))
    assert start_of(recording(), resumed, 3) is None


def test_a_rank_that_is_not_aligned_is_named():
    resumed = Recording(1, tuple(step(0.1, f"?{n}") for n in range(6)))
    found = compare_ranks({1: recording(rank=1)}, {1: resumed}, 3)
    assert (found.differences, dict(found.starts)) == ((), {})
    assert "rank 1" in found.unaligned


# ------------------------------------------------------------------ differences


@pytest.mark.parametrize("start", range(7))
def test_a_run_that_goes_on_exactly_has_no_difference(start):
    assert compare(recording(), recording(LRS[start:], start), start) == []


def test_the_first_difference_says_where_and_how_many_follow():
    found = lr_difference((0.06, 0.5, 0.02, 0.7), 2)
    assert found == Difference(Field.LR, 0, 4, 0, 0, 0.04, 0.5, later=1, following=2)


def test_hyperparameters_come_before_states_steps_and_weights():
    resumed = Recording(0, (step(0.1, 0, momentum=[0.5], state=""), step(0.2, "?")))
    fields = [found.field for found in compare(recording(), resumed)]
    assert fields == [Field.LR, Field.MOMENTUM, Field.STATE, Field.STEPS, Field.WEIGHTS]


def test_the_group_that_differs_is_named():
    one, other = ([step([0.1, 0.2, lr], 0)] for lr in (0.3, 0.4))
    found = difference(Recording(0, tuple(one)), Recording(0, tuple(other)), 0)
    assert (found.group, found.expected, found.actual) == (2, 0.3, 0.4)


def test_a_missing_group_is_a_difference():
    one, other = Recording(0, (step([0.1, 0.2], 0),)), Recording(0, (step(0.1, 0),))
    found = difference(one, other, 0)
    assert (found.group, found.expected, found.actual) == (1, 0.2, "(missing)")


def test_a_lost_state_is_seen_at_the_first_step_alone():
    resumed = Recording(0, (step(0.06, 2, state=""), *recording(LRS[3:], 3).steps))
    [found] = compare(recording(), resumed, 2)
    assert (found.field, found.step, found.relations) == (Field.STATE, 3, ("momentum lost",))


def test_the_state_of_adam_is_not_called_momentum():
    betas = {"momentum": [], "betas": [[0.9, 0.999]]}
    one, other = (Recording(0, (step(0.1, 0, state=s, **betas),)) for s in ("s0", ""))
    [found] = compare(one, other)
    assert found.relations == ("optimizer state lost",)


def test_nan_equals_nan():
    nan = recording((float("nan"),))
    assert compare(nan, recording((float("nan"),))) == []


@pytest.mark.parametrize(
    ("lrs", "start", "got", "relation"),
    [
        ((*LRS[2:], 0.005), 2, "7 steps", "runs past the end"),
        (LRS[2:4], 2, "4 steps", "ends too early"),
        ((), 2, "2 steps", "makes no step"),
    ],
)
def test_another_number_of_steps(lrs, start, got, relation):
    found = lr_difference(lrs, start)
    assert (found.field, found.expected, found.actual) == (Field.STEPS, "6 steps", got)
    assert found.relations == (relation,)


def test_what_the_recorder_stopped_may_have_any_number_of_steps():
    stopped = recording(stopped=True)
    assert compare(stopped, recording((*LRS[2:], 0.5), 2), 2) == []
    assert compare(stopped, recording(LRS[2:3], 2, stopped=True), 2) == []
    assert compare(stopped, recording(LRS[2:3], 2), 2)[0].relations == ("ends too early",)


def test_ranks_that_are_not_resumed_are_a_difference():
    both = {0: recording(), 1: recording(rank=1)}
    [found] = compare_ranks(both, {0: recording(LRS[2:], 2)}, 2).differences
    assert (found.field, found.expected, found.actual) == (Field.RANKS, "0, 1", "0")


def test_a_resume_at_the_end_may_make_no_step():
    found = compare_ranks({0: recording()}, {}, 6)
    assert (found.starts, found.differences) == ({0: Start(6, "length")}, ())


def test_a_resume_before_the_end_must_make_steps():
    [found] = compare_ranks({0: recording()}, {}, 4).differences
    assert (found.step, found.relations) == (5, ("makes no step",))


# ------------------------------------------------------------------ relations


@pytest.mark.parametrize(
    ("lrs", "start", "relation"),
    [
        (LRS[:4], 2, "the schedule starts again at the checkpoint"),
        (LRS[1:5], 2, "one step behind to the end"),
        (LRS[3:], 2, "one step ahead to the end"),
        ((0.5, *LRS[3:]), 2, "wrong for one step"),
        ((0.08,) * 4, 2, "stays at the value of the last step before the checkpoint"),
        ((0.1,) * 4, 2, "stays at the value of the first step"),
        ((0.3,) * 4, 2, "does not change any more"),
        (LRS[1:3], 4, "3 steps behind to the end"),
    ],
)
def test_the_most_telling_relation_comes_first(lrs, start, relation):
    assert lr_difference(lrs, start).relations[0] == relation


def test_values_that_equal_nothing_have_no_relation():
    assert lr_difference((0.31, 0.32, 0.33, 0.34), 2).relations == ()


def test_a_right_first_step_hides_no_relation():
    found = lr_difference((LRS[2], *LRS[1:4]), 2)
    assert (found.step, found.relations[0]) == (4, "the schedule starts again at the checkpoint")


def test_each_optimizer_is_related_to_itself():
    both = [step(lr, n, optimizer=o) for n, lr in enumerate(LRS) for o in (0, 1)]
    wrong = [step(LRS[n - 2 * s.optimizer], n, optimizer=s.optimizer)
             for n in range(2, 6) for s in both[:2]]  # fmt: skip
    found = difference(Recording(0, tuple(both)), Recording(0, tuple(wrong)), 4)
    assert (found.optimizer, found.relations[0]) == (
        1,
        "the schedule starts again at the checkpoint",
    )


def test_the_length_of_a_stopped_run_does_not_say_where_it_starts():
    same = Recording(0, (recording().steps[0],) * 6, stopped=True)
    resumed = Recording(0, same.steps[:2], stopped=True)
    assert start_of(same, resumed, killed_after=3) == Start(3, "state")
