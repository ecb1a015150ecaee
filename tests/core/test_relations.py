"""That each relation reported for a wrong value holds exactly."""

import math
from dataclasses import replace

import ending
import pytest
from faulty import Falls
from packaging.specifiers import SpecifierSet
from torch.optim.lr_scheduler import StepLR

from harness import Counterexample, Subject, Trace, check_subject, replay, state_check
from harness.checks.registry import as_check, select_checks
from harness.core.ledger import Entry, KnownFailure
from harness.core.relations import (
    AGAIN,
    BEGINS,
    EARLIER,
    LATER,
    STAYS,
    UNDONE,
    fields_of,
    moment_of,
    relations,
    shows_of,
    ulps_of,
)
from harness.core.run import Difference
from harness.engine.one_run import UninterruptedRun
from lr_schedules.subjects import SUBJECTS

PLAIN = "resume_optimizer_then_scheduler"
IN_PLACE = "roll_back_in_place"
LAST_EPOCH = "resume_by_last_epoch"
PROMISE = as_check(PLAIN).promise


class Stays(Falls):
    """Steps no more, once it is loaded."""

    loaded = False

    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.loaded = True

    def step(self):
        if not self.loaded:
            super().step()


class LoadsNothing(Falls):
    """Leaves its count as it was, and writes its rates."""

    def load_state_dict(self, state):
        self.write()


def falls(wrong):
    return Subject("x", Falls, options={"wrong": wrong})


def shown(subject, check, trace):
    """What `trace` shows, as a counterexample."""
    return replay(subject, check, trace).counterexample


@pytest.mark.parametrize(
    ("wrong", "trace", "expected"),
    [
        ("earlier", "train:3 save:a resume:a", {EARLIER}),
        ("earlier", "train:1 save:a resume:a", {EARLIER, BEGINS}),
        ("later", "train:3 save:a resume:a", {LATER}),
        ("begins", "train:3 save:a resume:a", {BEGINS}),
        ("begins", "optimizer:2 train:3 scheduler:1 save:a resume:a", {BEGINS}),
        ("raises", "train:3 save:a resume:a", {"ValueError: N epochs of N, N in group2 at N"}),
        ("nan", "train:3 save:a resume:a", {"not a number"}),
        ("first", "train:3 save:a resume:a", {"the value of the first group in every group"}),
        ("other", "train:3 save:a resume:a", set()),
    ],
)
def test_a_relation_is_one_that_holds_exactly(wrong, trace, expected):
    assert relations(shown(falls(wrong), PLAIN, trace)) == expected


def test_a_value_off_by_one_float_has_no_relation():
    found = shown(falls("earlier"), PLAIN, "train:3 save:a resume:a")
    off = [math.nextafter(rate, 1) for rate in found.actual["lr"]]
    assert relations(found) == {EARLIER}
    assert relations(replace(found, actual={"lr": off})) == set()


def test_without_the_uninterrupted_run_its_other_epochs_are_not_known():
    found = shown(falls("earlier"), PLAIN, "train:3 save:a resume:a")
    assert relations(replace(found, uninterrupted=None)) == set()


def test_a_run_that_is_behind_is_distinguished_from_one_that_stands_still():
    trace = "train:4 save:a resume:a train:1"
    assert relations(shown(Subject("x", Stays), PLAIN, trace)) == {STAYS, EARLIER}
    assert relations(shown(falls("earlier"), PLAIN, trace)) == {EARLIER}


def test_what_going_back_did_not_undo():
    subject = Subject("x", LoadsNothing)
    assert relations(shown(subject, IN_PLACE, "train:1 save:a train:3 load:a")) == {UNDONE}
    assert relations(shown(subject, IN_PLACE, "train:1 save:a train:1 load:a")) == {UNDONE, LATER}


def test_a_later_optimizer_step_of_the_same_epoch_is_not_the_checkpoint():
    trace = Trace.parse("train:1 save:a optimizer:1 load:a")
    weights = [{"weights": [[float(number)]]} for number in range(4)]
    run = UninterruptedRun("tot", weights).run(3)
    assert (run.path, [seen.epoch for seen in run.seen]) == ("tot", [0, 1, 1, 2])
    found = Counterexample(3, 0, weights[1], weights[2], trace, uninterrupted=run)
    assert relations(found) == set()


@pytest.mark.parametrize("gamma", [0.1, 0.3, 1 / 3, 0.9])
@pytest.mark.parametrize("epoch", [2, 4, 6])
def test_a_factor_that_is_applied_twice_is_found_despite_rounding(gamma, epoch):
    subject = Subject("x", StepLR, options={"step_size": 2, "gamma": gamma})
    assert AGAIN in relations(shown(subject, LAST_EPOCH, f"train:{epoch} save:a resume:a"))


@state_check(at="step")
def stays_above(optimizer):
    """Each LR is above 0, and there are no other keys."""
    rates = [group["lr"] - 1 for group in optimizer.param_groups]
    return {"lr": [abs(rate) for rate in rates]}, {"lr": rates}


@state_check(at="step")
def has_left(optimizer):
    """A key is there."""
    return {"left": 1, "lr": 0}, {"lr": 0}


@state_check(at="step")
def has_right(optimizer):
    """A key is not there."""
    return {"lr": 0}, {"lr": 0, "right": 1}


@pytest.mark.parametrize(
    ("check", "differs", "expected"),
    [
        (stays_above, {"lr"}, {"negative"}),
        (has_left, {"left"}, {"missing"}),
        (has_right, {"right"}, {"there, and should not be"}),
    ],
)
def test_relations_of_a_state_check(check, differs, expected):
    [result] = check_subject(Subject("x", Falls), select_checks([check]))
    found = result.counterexample
    assert set(found.actual) == differs
    assert relations(found) == expected
    assert moment_of(result.promise, found) == ("", False)


def values(expected, actual, key="lr"):
    """A counterexample without runs."""
    return Counterexample(0, 1, {key: expected}, {key: actual}, Trace.parse("train:1"))


@pytest.mark.parametrize(
    ("expected", "actual", "relation"),
    [
        ([0.5], [-0.5], {"negative"}),
        ([0.0], [-0.5], {"negative"}),
        ([0.5], [0.0], set()),
        ([-0.1], [-0.5], set()),
        ([0.5, 0.5], [0.5, -0.5], {"negative"}),
        ([0.5], [-(10**400)], {"negative"}),
        ([0.5], [10**400], set()),
        ([10**400], [-0.5], {"negative"}),
        ([-(10**400)], [-0.5], set()),
        (True, False, set()),
        ({"tensor": [0.5]}, {"tensor": [-0.5]}, {"negative"}),
        ([0.5], [math.nan], {"not a number"}),
        ([math.nan], [math.nan], set()),
        ([0.5, 0.1], [0.5, 0.5], {"the value of the first group in every group"}),
        ([0.5], [0.5], set()),
        ([0.5, 0.1], [0.5], set()),
    ],
)
def test_relations_of_values_alone(expected, actual, relation):
    assert relations(values(expected, actual)) == relation


def test_only_what_each_group_has_is_that_of_the_first_group():
    assert relations(values([1, 2], [1, 1], key="weights")) == set()


def test_the_checkpoint_is_the_last_one():
    trace = Trace.parse("train:1 save:a train:2 save:b train:3 save:c resume:b train:1")
    rates = [{"lr": [float(epoch)]} for epoch in range(8)]
    run = UninterruptedRun("t" * 7, rates).run(7)

    def shows(epoch, operation=6, step=0):
        expected = rates[3 + step]
        found = Counterexample(operation, step, expected, rates[epoch], trace, uninterrupted=run)
        return relations(found)

    assert shows(2) == {EARLIER}
    assert shows(4) == {LATER}
    assert shows(6) == {UNDONE}
    assert shows(5, operation=7, step=1) == {LATER}
    assert shows(3, operation=7, step=1) == {EARLIER, STAYS}
    assert shows(1, operation=7, step=1) == {BEGINS}


def test_messages_that_differ_in_numbers_are_one_relation():
    found = [shown(falls("raises"), PLAIN, f"train:{k} save:a resume:a") for k in (5, 1, 3)]
    assert len({str(one.actual) for one in found}) == 3
    assert len({relations(one) for one in found}) == 1


def test_a_value_after_the_end_of_the_uninterrupted_run_has_a_relation():
    [subject] = [subject for subject in ending.SUBJECTS if subject.name == "ForgetsItsEnd"]
    [result] = check_subject(subject, [as_check(PLAIN)])
    assert "raises" in result.counterexample.expected
    assert relations(result.counterexample) == {"a value where the uninterrupted run raises"}


def test_a_value_that_follows_neither_contract_has_no_relation(all_is_tried):
    [subject] = [subject for subject in SUBJECTS if subject.name == "LambdaLR-stateful"]
    [result] = check_subject(subject, [as_check("resume_with_changed_options")])
    found = result.counterexample
    assert not found.actual.keys() & found.expected.keys()
    assert relations(found) == set()


# -------------------------------------------------------------- where it shows, and which are alike


@pytest.mark.parametrize(
    ("check", "trace", "place", "expected"),
    [
        (PLAIN, "train:3 save:a resume:a", (2, 0), ("resume", False)),
        (PLAIN, "train:3 save:b resume:b train:2", (3, 2), ("resume", True)),
        (PLAIN, "save:a resume:a train:1 save:b train:1", (4, 1), ("resume", True)),
        (PLAIN, "save:a resume:a save:b", (2, 0), ("save", False)),
        (PLAIN, "train:1 save:a train:1", (2, 1), ("save", True)),
        (IN_PLACE, "save:a train:3 load:a", (2, 0), ("load", False)),
        (IN_PLACE, "save:a train:3 load:a scheduler:1", (3, 1), ("load", True)),
        ("resume_at_every_save", "train:3 save:a", (1, 0), ("resume", False)),
        ("saved_state_is_a_snapshot", "train:3 save:a", (1, 0), ("save", False)),
        ("saved_state_is_a_snapshot", "train:3 save:a train:1", (2, 1), ("save", True)),
        ("last_lr_is_the_groups_lr", "train:3", (0, 2), ("", True)),
        ("last_lr_is_the_groups_lr", "train:3", (0, 0), ("", False)),
    ],
)
def test_a_moment_is_the_operation_without_its_slot(check, trace, place, expected):
    found = Counterexample(*place, {"lr": [1]}, {"lr": [2]}, Trace.parse(trace))
    assert moment_of(as_check(check).promise, found) == expected


def explains(relation, known, found):
    """Whether an entry with this relation, shown by `known`, explains `found`."""
    entry = Entry(
        "x", PLAIN, SpecifierSet(), known.trace, shows_of(known), "bug", "no report found",
        "It falls.", "known.toml:1", relation=relation,
    )  # fmt: skip
    return KnownFailure(entry, known).explains(PROMISE, found)


def test_a_failure_with_the_relation_of_an_entry_is_explained():
    early, late = "train:1 save:a resume:a", "train:3 save:a resume:a"
    begins, earlier = (
        [shown(falls(wrong), PLAIN, trace) for trace in (early, late)]
        for wrong in ("begins", "earlier")
    )
    assert explains(BEGINS, *begins)
    assert explains(EARLIER, *earlier)
    assert explains(EARLIER, begins[0], earlier[1])  # at the first epoch both are true
    assert not explains(BEGINS, begins[1], earlier[1])
    assert not explains("", begins[0], begins[1])


def test_an_entry_without_a_relation_explains_only_failures_without_one():
    early, late = (
        shown(falls("other"), PLAIN, f"train:{epoch} save:a resume:a") for epoch in (2, 3)
    )
    assert relations(early) == relations(late) == set()
    assert explains("", early, late)
    nan = shown(falls("nan"), PLAIN, "train:3 save:a resume:a")
    assert not explains("", early, nan)
    assert explains("any", early, nan)


def test_a_failure_at_another_operation_or_in_other_values_is_not_explained():
    found = shown(falls("earlier"), PLAIN, "train:3 save:a resume:a")
    later = Counterexample(3, 1, found.expected, found.actual,
                           Trace.parse("train:3 save:a resume:a train:1"),
                           uninterrupted=found.uninterrupted)  # fmt: skip
    assert not explains("any", found, later)
    both = {"lr": found.actual["lr"], "get_last_lr": found.actual["lr"]}
    expected = {"lr": found.expected["lr"], "get_last_lr": found.expected["lr"]}
    assert not explains("any", found, replace(found, expected=expected, actual=both))


def test_values_that_differ_by_rounding_have_a_distance_in_ulps():
    def distance(expected, actual):
        return ulps_of(Difference(0, 0, {"lr": [expected]}, {"lr": [actual]}))

    assert distance(0.1, math.nextafter(0.1, 1)) == 1
    assert distance(0.1, 0.1 + 4 * math.ulp(0.1)) == 4
    assert distance(0.1, 0.2) is None
    assert distance(0.0, 1e-300) is None
    assert distance(0.1, math.nan) is None
    single = [{"tensor": value, "dtype": "torch.float32"}
              for value in (0.009999999776482582, 0.009999997913837433)]  # fmt: skip
    assert distance(*single) == 2


def test_the_leaves_of_a_nested_state_name_the_key_that_differs():
    expected = {"_schedulers": [{"mode": "a", "gamma": 1.0}, {"mode": "b"}]}
    broken = Difference(0, 0, expected, {"_schedulers": [{"mode": "a", "gamma": 1.0}, {}]})
    assert fields_of(broken) == {"_schedulers.mode"}
    assert shows_of(broken) == "_schedulers[1].mode is (missing) and should be 'b'"
