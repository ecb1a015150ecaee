"""Failures: one for each cause, nothing lost, and told by evidence alone."""

import math
from collections import Counter as Multiset

import faulty
import pytest
from helpers import served
from hypothesis import given
from hypothesis import strategies as st
from own_counter import ForgetsOnLoad, OwnCounter

from harness import (
    BrokenSchedule,
    Budget,
    Counterexample,
    Result,
    Subject,
    Trace,
    check_scheduler,
    check_subject,
    failures,
)
from harness.checks.registry import IN_THIS_PROCESS, as_check, select_checks
from harness.core.relations import BEGINS, EARLIER, relations
from harness.core.result import LostAttribute
from harness.core.verdict import Verdict
from harness.engine.one_run import UninterruptedRun
from harness.report.text import broken_text
from lr_schedules.faults import SUBJECTS as FAULTS
from lr_schedules.faults.check_groups import EVERY_LOAD

PLAIN = "resume_optimizer_then_scheduler"
OTHER_ORDER = "resume_scheduler_then_optimizer"
AT_SAVES = "resume_at_every_save"
IN_PLACE = "roll_back_in_place"


def checked(subject, *checks, **budget):
    return list(check_subject(subject, select_checks(checks), Budget(**budget)))


# ------------------------------------------------------------------------- a lost attribute


def test_an_attribute_that_is_not_saved_is_one_failure_of_all_its_checks():
    """Their traces, and what these show, differ: the attribute is the cause."""
    checks = served((PLAIN, OTHER_ORDER, AT_SAVES, IN_PLACE, "resume_from_file"))
    results = checked(Subject("OwnCounter", OwnCounter), *checks, max_examples=0)
    assert {result.verdict for result in results} == {Verdict.BROKEN}
    shown = {result.check: result.counterexample for result in results}
    assert shown[PLAIN].actual != shown[IN_PLACE].actual
    [failure] = failures(results)
    assert failure.lost == shown[AT_SAVES].lost[0]
    assert (failure.lost.name, failure.lost.saved) == ("count", False)
    assert sorted(failure.checks) == sorted(checks)
    assert failure.result is failure.results[0]
    assert failure.counterexample is failure.result.counterexample
    assert str(failure.counterexample.trace) == "train:1 save:a train:1"


def test_the_report_has_one_block_for_it():
    with pytest.raises(BrokenSchedule) as caught:
        check_scheduler(OwnCounter, checks=[PLAIN, AT_SAVES, IN_PLACE], max_examples=0)
    text = str(caught.value)
    assert text.count("BROKEN ") == 1
    [failure] = failures(caught.value.results)
    assert failure.checks == (AT_SAVES, IN_PLACE, PLAIN)
    assert text == broken_text(failure)
    assert len(caught.value.results) == 3


def test_an_attribute_that_is_saved_is_no_headline():
    """That a load forgets it is one way of many to have it wrong."""
    results = checked(Subject("x", ForgetsOnLoad), PLAIN, OTHER_ORDER, max_examples=0)
    [failure] = failures(results)
    assert failure.lost is None
    assert failure.counterexample.lost[0].name == "count"
    assert failure.headline == ", ".join(failure.checks) == f"{PLAIN}, {OTHER_ORDER}"


def lost(*names):
    return tuple(LostAttribute(name, "1", "2", saved=False) for name in names)


def a_result(subject="x", check=PLAIN, trace="train:1 save:a resume:a", actual=1, lost=()):
    trace = Trace.parse(trace)
    last = len(trace.operations) - 1
    found = Counterexample(last, 0, {"lr": [0]}, {"lr": [actual]}, trace, lost=lost)
    promise = as_check(check).promise
    return Result(subject, check, Verdict.BROKEN, counterexample=found, promise=promise)


def test_other_attributes_and_other_subjects_are_other_failures():
    results = [
        a_result(lost=lost("one")),
        a_result(lost=lost("two")),
        a_result(lost=lost("one"), check="resume_from_file", trace="train:2 save:a resume:a"),
        a_result(lost=lost("one"), subject="y"),
        a_result(lost=(LostAttribute("saved", "1", "2", saved=True), *lost("two")), actual=3),
    ]
    assert [failure.results for failure in failures(results)] == [
        (results[0], results[2]), (results[1], results[4]), (results[3],),
    ]  # fmt: skip


# --------------------------------------------------------------------------- the same trace


def test_checks_that_one_trace_breaks_with_the_same_values_are_one_failure():
    same = [
        a_result(check=PLAIN),
        a_result(check="resume_from_file", trace="train:1 save:b resume:b"),
        a_result(check=AT_SAVES, trace="train:1 save:a"),
        a_result(check=PLAIN, trace="train:1 save:a resume:a@resume_from_file"),
    ]
    [first, second] = failures(same)
    assert set(first.checks) == {PLAIN, AT_SAVES}
    assert len(first.results) == 3
    assert second.results == (same[1],)  # minimal traces call their first slot a


@pytest.mark.parametrize(
    "other",
    [
        {"actual": 2},
        {"subject": "y"},
        {"trace": "train:2 save:a resume:a"},
        {"trace": "gamma=0.5 train:1 save:a resume:a"},
        {"check": "saved_state_is_a_snapshot", "trace": "train:1 save:a"},
    ],
)
def test_what_shows_otherwise_is_another_failure(other):
    results = [a_result(), a_result(**other)]
    assert [failure.results for failure in failures(results)] == [(one,) for one in results]


def test_checks_that_one_trace_breaks_in_a_run_are_one_failure():
    subject = next(fault for fault in FAULTS if fault.name == "SavesNoPosition")
    first, *others = failures(check_subject(subject, IN_THIS_PROCESS, Budget(max_examples=0)))
    swept = served(["resume_from_distributed_checkpoint"])  # its first save is at epoch 1
    alone = {OTHER_ORDER, IN_PLACE}
    assert swept | set(first.checks) == served(EVERY_LOAD) - alone
    assert first.relations == (BEGINS, EARLIER)
    assert {failure.checks for failure in others} >= {(name,) for name in alone}


def test_the_relations_of_a_failure_are_true_of_all_its_results():
    run = UninterruptedRun("tttt", [{"lr": [rate]} for rate in (8, 4, 2, 1, 0)]).run(4)
    shown = {"train:1 save:a resume:a": ([4], [8]), "train:3 save:a resume:a": ([1], [8])}
    results = []
    for trace, (expected, actual) in shown.items():
        found = Counterexample(2, 0, {"lr": expected}, {"lr": actual}, Trace.parse(trace),
                               uninterrupted=run, lost=lost("count"))  # fmt: skip
        results.append(Result("x", PLAIN, Verdict.BROKEN, counterexample=found))
    assert relations(results[0].counterexample) == {BEGINS, EARLIER}
    [failure] = failures(results)
    assert failure.relations == (BEGINS,)


@pytest.mark.parametrize("verdict", [v for v in Verdict if v != Verdict.BROKEN])
def test_nothing_but_what_is_broken_is_a_failure(verdict):
    found = a_result().counterexample
    assert failures([Result("x", PLAIN, verdict, counterexample=found)]) == []


def test_nothing_is_no_failure():
    assert failures([]) == []
    assert failures(checked(faulty.COUNTER, PLAIN, max_examples=0)) == []


# -------------------------------------------------------------------------------- all of them

TRACES = [
    "train:1 save:a resume:a",
    "train:4 save:a resume:a",
    "train:1 scheduler:1 save:a resume:a",
    "save:a train:3 load:a",
    "train:2",
]
RATES = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, -1.0, math.nan]


@st.composite
def some_counterexamples(draw):
    gamma = draw(st.sampled_from([0.1, 0.5]))
    trace = Trace.parse(f"gamma={gamma} {draw(st.sampled_from(TRACES))}")
    last = len(trace.operations) - 1
    reference = UninterruptedRun(
        "ttttt", [{"lr": [rate]} for rate in draw(st.permutations(RATES[:6]))]
    )
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
        uninterrupted=draw(st.sampled_from([reference.run(5), None])),
        lost=draw(st.sampled_from([(), (), lost("count"), lost("rates", "count")])),
    )


def some_result(subject, check, verdict, found):
    promise = as_check(check).promise
    return Result(subject, check, verdict, counterexample=found, promise=promise)


some_results = st.lists(
    st.builds(
        some_result,
        st.sampled_from(["A", "B"]),
        st.sampled_from([PLAIN, AT_SAVES, IN_PLACE, "saved_state_is_a_snapshot"]),
        st.sampled_from([Verdict.BROKEN, Verdict.BROKEN, Verdict.KNOWN]),
        some_counterexamples(),
    ),
    max_size=8,
)


def as_sets(found):
    return {frozenset(map(id, failure.results)) for failure in found}


@given(some_results, st.randoms(use_true_random=False))
def test_the_failures_are_a_partition_and_true(results, chance):
    found = failures(results)
    broken = [result for result in results if result.verdict == Verdict.BROKEN]
    order = {id(result): place for place, result in enumerate(broken)}
    every = [id(result) for failure in found for result in failure.results]
    assert Multiset(every) == Multiset(list(order))
    assert len({id(failure.results[0]) for failure in found}) == len(found)
    first = [min(order[id(result)] for result in failure.results) for failure in found]
    assert first == sorted(first)
    for failure in found:
        shown = [result.counterexample for result in failure.results]
        assert len({result.subject for result in failure.results}) == 1
        assert all(relations(one) >= set(failure.relations) for one in shown)
        if failure.lost is not None:
            assert {one.lost[0].name for one in shown} == {failure.lost.name}
            assert failure.headline.startswith(f"{failure.lost.name} ")
        else:
            assert not any(one.lost for one in shown)
            assert len({repr((one.expected, one.actual)) for one in shown}) == 1
            assert len({one.trace.options for one in shown}) == 1
            assert len({one.trace.steps for one in shown}) == 1
            assert failure.headline == ", ".join(failure.checks)
        if set(failure.checks) == {PLAIN}:  # others count the ways back otherwise
            sizes = [(len(one.trace.operations), one.trace.steps) for one in shown]
            assert sizes == sorted(sizes)
    shuffled = list(results)
    chance.shuffle(shuffled)
    assert as_sets(failures(shuffled)) == as_sets(found)
