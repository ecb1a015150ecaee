"""The checks of saved states: two saves, failed loads, and what only attributes show."""

from dataclasses import replace

import pytest
import torch
from running import run_in_process
from torch.optim.lr_scheduler import ReduceLROnPlateau, StepLR

from harness import Budget, Subject, check_subject, replay, state_check, step_with_metric
from harness import write_script as script_of
from harness.checks.registry import as_check, select_checks
from harness.checks.saved_state import public_numbers, without_one_key
from lr_schedules.controls import HALVING, TABLE
from lr_schedules.correct import Halving
from lr_schedules.faults import FAULTS

BY_NAME = {fault.name: fault for fault in FAULTS}
STEP = Subject("StepLR", StepLR, options={"step_size": 3})
ALONE = {
    "FillsOneDict": "saved_states_are_independent",
    "RemembersItsState": "saved_states_are_independent",
    "FillsOnePart": "saved_states_are_independent",
    "HandsOverItsLog": "saving_again_gives_the_same_state",
    "CountsForAll": "saving_again_gives_the_same_state",
    "CopiesLoseTheSum": "saving_after_loading_is_the_same",
    "SharesItsRates": "optimizer_state_is_a_snapshot",
    "LosesLastEpoch": "public_numbers_go_on",
    "LacksItsCount": "public_numbers_go_on",
    "BeginsToCount": "public_numbers_go_on",
    "TakesAKeyOut": "loading_leaves_its_argument_alone",
    "LoadsHalf": "failed_load_changes_nothing",
    "StartsAgainFirst": "failed_load_changes_nothing",
    "TakesAnyState": "states_of_others_are_refused",
    "CutsTheLists": "states_of_others_are_refused",
    "KeepsItsOwnBase": "resume_with_other_initial_lrs",
}


def result_of(subject, check):
    [result] = check_subject(subject, [as_check(check)], Budget(max_examples=0))
    return result


@pytest.mark.parametrize(("name", "check"), ALONE.items())
def test_a_fault_that_only_this_check_catches(name, check):
    fault = BY_NAME[name]
    assert fault.caught_by == (check,)
    assert result_of(fault.subject, check).verdict == "BROKEN"
    assert result_of(fault.control, check).verdict == "HOLDS"


@pytest.mark.parametrize("name", ALONE)
def test_its_script_shows_it_and_holds_for_the_repair(name):
    fault = BY_NAME[name]
    text = script_of(fault.subject, fault.caught_by[0], fault.trace)
    status, printed = run_in_process(text)
    assert status == 1, printed
    repaired = text.replace(f"build = {name}", f"build = {fault.control.build.__name__}")
    assert repaired != text
    assert run_in_process(repaired)[0] == 0


def test_default_checks_are_those_that_torchs_schedulers_keep():
    named = {check: as_check(check).default for check in ALONE.values()}
    assert {check for check, default in named.items() if default} == {
        "saved_states_are_independent", "saving_again_gives_the_same_state", "public_numbers_go_on",
        "saving_after_loading_is_the_same", "loading_leaves_its_argument_alone",
    }  # fmt: skip


# ------------------------------------------------------------------ the optimizer's saved state


def test_an_optimizers_state_holds_the_tensors_themselves():
    found = result_of(STEP, "optimizer_state_is_a_snapshot").counterexample
    assert str(found.trace) == "step_size=3 train:1 save:a train:1"
    assert set(found.actual) == {"state"}


def test_the_steps_of_drawn_optimizers_are_computed_for_it():
    """The table is drawn, so other checks try this subject with steps that compute nothing."""
    table = replace(TABLE, declines={})
    assert result_of(table, "optimizer_state_is_a_snapshot").verdict == "BROKEN"


# ---------------------------------------------------------------------------- public numbers


class Slotted:
    """Has a number in a slot, and others that are private or not numbers."""

    __slots__ = ("__dict__", "slot", "unset")

    def __init__(self):
        self.slot, self.rate, self.done, self._count, self.name = 1, 0.5, False, 3, "a"
        self.tensor = torch.ones(1)


def test_the_numbers_in_public_attributes_and_slots():
    assert public_numbers(Slotted()) == {"slot": 1, "rate": 0.5, "done": False}


class Recomputes(Halving):
    """Has a public number that its next step computes again, and one that never changes."""

    latest = made = 0

    def __init__(self, optimizer, last_epoch=-1):
        super().__init__(optimizer, last_epoch)
        type(self).made += 1
        self.number = self.made

    def step(self):
        super().step()
        self.latest = self.epoch * 2


def test_a_number_that_steps_do_not_count_on_from_may_differ():
    assert result_of(Subject("recomputes", Recomputes), "public_numbers_go_on").verdict == "HOLDS"


class EndsEarly(Halving):
    """Raises after its fifth step, and loses a count that it kept until then."""

    def __init__(self, optimizer, last_epoch=-1):
        super().__init__(optimizer, last_epoch)
        self.count = 0

    def step(self):
        if self.epoch == 5:
            raise ValueError("the schedule is over")
        super().step()
        self.count += 1


def test_a_schedule_that_ends_loses_its_count_before_the_end():
    subject = Subject("ends", EndsEarly)
    found = replay(subject, "public_numbers_go_on", "train:3 save:a")
    assert found.counterexample.expected == {"count": 3}
    assert found.counterexample.actual == {"count": 0}
    assert replay(subject, "public_numbers_go_on", "train:5 save:a").verdict == "HOLDS"


class DropsLastEpoch(ReduceLROnPlateau):
    """Leaves last_epoch out of its state."""

    def state_dict(self):
        return {name: value for name, value in super().state_dict().items() if name != "last_epoch"}


def test_a_plateau_that_loses_last_epoch_is_caught_by_default_though_its_lr_is_right():
    subject = Subject("drops", DropsLastEpoch, step=step_with_metric,
                      declines={"resume_by_last_epoch": "it follows the metric"})  # fmt: skip
    results = check_subject(subject, select_checks(), Budget(max_examples=5))
    broken = {result.check: result.counterexample for result in results if result.counterexample}
    assert set(broken) == {"public_numbers_go_on"}
    assert broken["public_numbers_go_on"].expected == {"last_epoch": 1}


# ---------------------------------------------------------------- failed and foreign loads


def test_each_key_is_left_out_once_at_any_depth():
    state = {"a": 1, "b": [{"c": 2, "d": {}}]}
    assert dict(without_one_key(state)) == {
        "a": {"b": [{"c": 2, "d": {}}]},
        "b": {"a": 1},
        "b.0.c": {"a": 1, "b": [{"d": {}}]},
        "b.0.d": {"a": 1, "b": [{"c": 2}]},
    }
    assert state == {"a": 1, "b": [{"c": 2, "d": {}}]}


def test_a_failed_load_is_named_by_the_key_that_was_left_out():
    found = result_of(BY_NAME["LoadsHalf"].subject, "failed_load_changes_nothing").counterexample
    assert list(found.actual) == ["after a load without mode"]


def test_a_load_that_accepts_what_is_missing_has_not_failed():
    assert result_of(STEP, "failed_load_changes_nothing").verdict == "HOLDS"


def test_torch_accepts_most_states_of_others():
    found = result_of(STEP, "states_of_others_are_refused").counterexample
    assert found.actual == dict.fromkeys(
        ("a state of another class", "a state for more groups"), "is loaded"
    )
    found = result_of(BY_NAME["CutsTheLists"].subject, "states_of_others_are_refused")
    assert found.counterexample.actual == {"a state for more groups": "is loaded"}


def test_a_state_that_does_not_depend_on_the_groups_may_be_loaded_for_more():
    assert result_of(HALVING, "states_of_others_are_refused").verdict == "HOLDS"


# --------------------------------------------------------------------------- own checks


def test_a_check_of_ones_own_can_step():
    @state_check(at="save")
    def a_step_moves_the_epoch(new_optimizer, build, step):
        """A step counts one."""
        scheduler = build(new_optimizer())
        before = scheduler.epoch
        step(scheduler, 0)
        return {"epoch": before + 1}, {"epoch": scheduler.epoch}

    assert replay(HALVING, a_step_moves_the_epoch, "save:a").verdict == "HOLDS"
    assert run_in_process(script_of(HALVING, a_step_moves_the_epoch, "save:a"))[0] == 0
