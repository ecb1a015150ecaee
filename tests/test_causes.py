"""Counterexamples grouped by cause: the relations are exact, and nothing is lost."""

import math
import random
from collections import Counter as Multiset

import ending
import pytest
from conftest import served
from faulty import Falls
from harness.engine.grouping import AGAIN, BEGINS, EARLIER, LATER, STAYS, UNDONE, relations
from hypothesis import given
from hypothesis import strategies as st
from torch.optim.lr_scheduler import MultiStepLR, StepLR

from harness import (
    CHECKS,
    Budget,
    Counterexample,
    Result,
    Subject,
    Trace,
    check_subject,
    explain,
    state_check,
)
from harness.checks.registry import HERE, as_check, select_checks
from harness.core.result import Found
from harness.engine.counterexample import counterexample
from harness.engine.outcome import Reference
from harness.engine.verdict import SubjectCheck
from harness.report.text import causes_count, causes_text
from lr_schedules.faults import SUBJECTS as FAULTS
from lr_schedules.faults.routes import EVERY_LOAD
from lr_schedules.subjects import SUBJECTS

PLAIN = "resume_optimizer_then_scheduler"
LAST_EPOCH = "resume_by_last_epoch"


class Stays(Falls):
    """Steps no more, once it is loaded."""

    loaded = False

    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.loaded = True

    def step(self):
        if not self.loaded:
            super().step()


def shown(subject, check, trace):
    """What `trace` shows, as a counterexample."""
    work = SubjectCheck(subject, Budget())
    with work.limited():
        return counterexample(work, as_check(check), Trace.parse(trace), Found("sweep", 0, 0.0))


def checked(subject, *checks, **budget):
    return list(check_subject(subject, select_checks(checks), Budget(explain=True, **budget)))


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
        ("first", "train:3 save:a resume:a", {"that of the first group in every group"}),
        ("other", "train:3 save:a resume:a", set()),
    ],
)
def test_a_relation_is_one_that_holds_exactly(wrong, trace, expected):
    found = shown(Subject("x", Falls, options={"wrong": wrong}), PLAIN, trace)
    assert relations(found) == expected


def test_what_is_off_by_one_float_is_no_relation():
    found = shown(
        Subject("x", Falls, options={"wrong": "earlier"}), PLAIN, "train:3 save:a resume:a"
    )
    off = [math.nextafter(rate, 1) for rate in found.actual["lr"]]
    near = Counterexample(
        found.operation,
        found.step,
        found.expected,
        {"lr": off},
        found.trace,
        uninterrupted=found.uninterrupted,
    )
    assert relations(found) == {EARLIER}
    assert relations(near) == set()


def test_a_run_that_goes_on_from_where_it_was_is_told_from_one_that_stands_still():
    subject = Subject("x", Stays)
    assert relations(shown(subject, PLAIN, "train:4 save:a resume:a train:1")) == {STAYS, EARLIER}
    earlier = Subject("x", Falls, options={"wrong": "earlier"})
    assert relations(shown(earlier, PLAIN, "train:4 save:a resume:a train:1")) == {EARLIER}


class LoadsNothing(Falls):
    """Leaves its count as it was, and writes its rates."""

    def load_state_dict(self, state):
        self.write()


def test_what_going_back_did_not_undo():
    found = shown(Subject("x", LoadsNothing), "roll_back_in_place", "train:1 save:a train:3 load:a")
    assert relations(found) == {UNDONE}
    found = shown(Subject("x", LoadsNothing), "roll_back_in_place", "train:1 save:a train:1 load:a")
    assert relations(found) == {UNDONE, LATER}


def test_a_later_optimizer_step_of_the_same_epoch_is_not_the_checkpoint():
    trace = Trace.parse("train:1 save:a optimizer:1 load:a")
    weights = [{"weights": [[float(number)]]} for number in range(4)]
    run = Reference("tot", weights)
    found = Counterexample(3, 0, weights[1], weights[2], trace, uninterrupted=run)
    assert relations(found) == set()


@pytest.mark.parametrize("gamma", [0.1, 0.3, 1 / 3, 0.9])
@pytest.mark.parametrize("epoch", [2, 4, 6])
def test_a_factor_that_is_taken_twice_is_found_in_spite_of_rounding(gamma, epoch):
    options = {"step_size": 2, "gamma": gamma}
    found = shown(
        Subject("x", StepLR, options=options), LAST_EPOCH, f"train:{epoch} save:a resume:a"
    )
    assert AGAIN in relations(found)


@state_check(at="step")
def stays_above(optimizer):
    """Each LR is above 0, and there is no other key."""
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


def test_relations_of_a_state_check():
    subject = Subject("x", Falls)
    found = [
        explain(check_subject(subject, select_checks([check])))
        for check in (stays_above, has_left, has_right)
    ]
    sentences = [cause.relation for [cause] in found]
    assert sentences == ["lr is negative", "left is missing", "right is there, and must not be"]
    assert [cause.operation for [cause] in found] == ["the start"] * 3


# ------------------------------------------------------------------------------- groups


def test_one_defect_under_many_options_is_one_cause():
    scales = [1.0, 0.9, 0.8, 0.7, 0.6]
    options = {"wrong": "begins", "scale": st.sampled_from(scales)}
    [result] = checked(Subject("Falls", Falls, options=options), PLAIN)
    assert len(result.others) == len(scales) - 1
    [cause] = explain([result])
    assert (cause.checks, cause.operation) == ((PLAIN,), "resume")
    assert cause.relations == (BEGINS, EARLIER)  # from the first epoch: both are true
    assert cause.subjects == {"Falls": len(scales)}
    assert len(cause.members) == len(scales)
    assert cause.smallest == (result, result.counterexample)
    assert str(cause.smallest[1].trace) == "wrong='begins' scale=1.0 train:1 save:a resume:a"
    said = {dict(found.trace.options)["scale"] for _, found in cause.members}
    assert said == set(scales)


def test_two_defects_under_different_options_are_two_causes():
    options = {"wrong": st.sampled_from(["later", "raises", None]), "scale": st.sampled_from([1.0])}
    [result] = checked(Subject("Falls", Falls, options=options), PLAIN)
    causes = explain([result])
    assert sorted(cause.relation for cause in causes) == [
        "lr is that of the uninterrupted run one epoch later",
        "raises ValueError: N epochs of N, N in group2 at N",
    ]
    for cause in causes:
        assert len(cause.members) == 1


def test_messages_that_differ_in_numbers_are_one_cause():
    found = [
        shown(Subject("x", Falls, options={"wrong": "raises"}), PLAIN, f"train:{k} save:a resume:a")
        for k in (5, 1, 3)
    ]
    assert len({str(one.actual) for one in found}) == 3
    result = Result("x", PLAIN, "BROKEN", "", found[0], others=tuple(found[1:]))
    [cause] = explain([result])
    assert str(cause.smallest[1].trace) == "train:1 save:a resume:a"


def test_short_counterexamples_are_told_by_long_ones():
    """At the first epoch, one epoch earlier is the start: the longer trace says which it is."""
    subjects = {
        wrong: Subject(wrong, Falls, options={"wrong": wrong}) for wrong in ("earlier", "begins")
    }
    for wrong, relation in (("earlier", EARLIER), ("begins", BEGINS)):
        results = [
            Result(wrong, PLAIN, "BROKEN", "", shown(subjects[wrong], PLAIN, trace))
            for trace in ("train:1 save:a resume:a", "train:3 save:a resume:a")
        ]
        [cause] = explain(results)
        assert cause.relations == (relation,)


def test_another_value_is_no_evidence_across_subjects():
    subjects = [Subject(name, Falls, options={"wrong": "other"}) for name in "ab"]
    causes = explain([result for subject in subjects for result in checked(subject, PLAIN)])
    assert [cause.subjects for cause in causes] == [{"a": 1}, {"b": 1}]
    assert {cause.relation for cause in causes} == {"lr is another value"}
    subject = Subject("a", Falls, options={"wrong": "other", "scale": st.sampled_from([1.0, 0.5])})
    [cause] = explain(checked(subject, PLAIN))
    assert cause.subjects == {"a": 2}


def test_subjects_with_one_relation_are_one_cause():
    subjects = [
        Subject("StepLR", StepLR, options={"step_size": st.integers(2, 5), "gamma": 0.3}),
        Subject("MultiStepLR", MultiStepLR, options={"milestones": [2, 5, 5], "gamma": 0.5}),
        Subject("Falls", Falls, options={"scale": 0.5}),
    ]
    [cause] = explain([result for subject in subjects for result in checked(subject, LAST_EPOCH)])
    assert cause.relations == (AGAIN,)
    assert cause.subjects == {"StepLR": 4, "MultiStepLR": 1}


def test_checks_that_one_trace_breaks_are_one_cause():
    subject = next(fault for fault in FAULTS if fault.name == "SavesNoPosition")
    causes = explain(check_subject(subject, HERE))
    swept = served(["resume_from_distributed_checkpoint"])  # its first save is at epoch 1
    others = {"resume_scheduler_then_optimizer", "roll_back_in_place"}
    assert swept | set(causes[0].checks) == served(EVERY_LOAD) - others
    assert {cause.checks for cause in causes[1:]} >= {(name,) for name in others}
    assert causes[0].operation == "resume"


SLOTTED = [
    "train:1 save:a resume:a",
    "train:4 save:a resume:a",
    "train:1 scheduler:1 save:a resume:a",
    "save:a train:3 load:a",
    "train:2",
]
RATES = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, -1.0, math.nan]


@st.composite
def some_counterexamples(draw):
    trace = Trace.parse(
        f"gamma={draw(st.sampled_from([0.1, 0.5]))} {draw(st.sampled_from(SLOTTED))}"
    )
    last = len(trace.operations) - 1
    run = Reference("ttttt", [{"lr": [rate]} for rate in draw(st.permutations(RATES[:6]))])
    actual = draw(
        st.one_of(
            st.sampled_from(RATES).map(lambda rate: {"lr": [rate]}),
            st.sampled_from([{"raises": "KeyError: 1"}, {"raises": "KeyError: 2"}]),
        )
    )
    return Counterexample(
        last,
        trace.operations[last].count,
        {"lr": [draw(st.sampled_from([0.1, 0.7]))]},
        actual,
        trace,
        uninterrupted=draw(st.sampled_from([run, None])),
    )


some_results = st.lists(
    st.builds(
        Result,
        st.sampled_from(["A", "B"]),
        st.sampled_from([PLAIN, "resume_at_every_save", "roll_back_in_place", "one_of_my_own"]),
        st.just("BROKEN"),
        st.just(""),
        some_counterexamples(),
        others=st.lists(some_counterexamples(), max_size=4).map(tuple),
    ),
    max_size=6,
)


def as_data(cause):
    members = [(r.subject, r.check, str(c.trace), repr(c.actual)) for r, c in cause.members]
    return cause.checks, cause.operation, cause.relation, sorted(members)


@given(some_results, st.randoms(use_true_random=False))
def test_the_causes_are_a_partition_and_true(results, chance):
    causes = explain(results)
    every = [id(c) for r in results for c in (r.counterexample, *r.others)]
    assert Multiset(id(c) for cause in causes for _, c in cause.members) == Multiset(every)
    for cause in causes:
        for result, found in cause.members:
            assert relations(found) >= set(cause.relations)
            assert result.check in cause.checks
            assert cause.values == tuple(found.actual)
            assert cause.relations or not relations(found)
        assert {result.check for result, _ in cause.members} == set(cause.checks)
        assert cause.relations or len(cause.subjects) == 1
        assert cause.smallest in cause.members
        if cause.checks == (PLAIN,):  # others count the ways back otherwise
            sizes = [(len(c.trace.operations), c.trace.steps) for _, c in cause.members]
            assert sizes[0] == min(sizes)
    shuffled = list(results)
    chance.shuffle(shuffled)
    assert list(map(as_data, explain(shuffled))) == list(map(as_data, causes))
    by_name = {name: as_check(PLAIN) for cause in causes for name in cause.checks}
    assert causes_text(causes, by_name).count("CAUSE") == len(causes)
    assert causes_count(causes).startswith(f"{len(every)} counterexample")


def test_the_order_of_drawn_results_does_not_matter():
    options = {"wrong": st.sampled_from(["earlier", "other"]), "scale": st.sampled_from([1.0, 0.5])}
    results = checked(Subject("Falls", Falls, options=options), PLAIN, "resume_by_pickle")
    shuffled = random.Random(0).sample(results, len(results))
    assert list(map(as_data, explain(shuffled))) == list(map(as_data, explain(results)))


def named(subjects, name):
    return next(subject for subject in subjects if subject.name == name)


def test_what_no_contract_or_end_explains_is_a_cause_all_the_same():
    """What was expected has other keys there than what was got."""
    results = []
    for subject, check in (
        (named(SUBJECTS, "LambdaLR-stateful"), "resume_with_changed_options"),
        (named(ending.SUBJECTS, "ForgetsItsEnd"), PLAIN),
    ):
        results += [r for r in check_subject(subject, [as_check(check)]) if r.counterexample]
    causes = explain(results)
    ended = [cause.relation for cause in causes if "raises" in cause.relation]
    assert len(ended) == 1
    assert ended[0].endswith("are given, where the uninterrupted run raises")
    assert len(causes) == len(results) == 2
    assert causes_text(causes, {check.name: check for check in CHECKS})
