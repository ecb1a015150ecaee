import contextlib
import itertools
from dataclasses import replace

import faulty
import pytest
from drawn_traces import traces
from hypothesis import given
from hypothesis import strategies as st

from harness import Budget, Operation, Subject, Trace, TraceError, check_subject, replay
from harness.checks.registry import IN_THIS_PROCESS, as_check
from harness.core.operations import walk
from harness.engine.minimise import minimise, neighbours
from lr_schedules.subjects import SUBJECTS

STEPS = ("train", "optimizer", "scheduler")


def smaller(trace):
    """Every smaller neighbour of a trace, written without a look at `neighbours`."""
    operations = list(trace.operations)
    found = []
    for i in range(len(operations)):
        found.append(operations[:i] + operations[i + 1 :])
        found += [
            [*operations[:i], replace(operations[i], count=count), *operations[i + 1 :]]
            for count in range(1, operations[i].count)
            if count <= 36 or (operations[i].count - count).bit_count() == 1
        ]
    for i, (first, second) in enumerate(itertools.pairwise(operations)):
        if first.kind in STEPS and second.kind in STEPS:
            if first.kind == second.kind:
                one = Operation(first.kind, count=first.count + second.count)
            elif {first.kind, second.kind} == {"optimizer", "scheduler"} and (
                first.count == second.count
            ):
                one = Operation("train", count=first.count)
            else:
                continue
            found.append([*operations[:i], one, *operations[i + 2 :]])
    for candidate in found:
        # Without its save, or empty, it is not a valid trace.
        with contextlib.suppress(TraceError):
            yield Trace(tuple(candidate), trace.options)


@given(traces())
def test_neighbours_are_all_there_is(trace):
    assert {str(t) for t in neighbours(trace)} == {str(t) for t in smaller(trace)}


@given(traces(), st.integers(1, 40), st.integers(0, 2))
def test_what_comes_out_breaks_and_nothing_smaller_does(trace, steps, resumes):
    def breaks(candidate):
        return candidate.steps >= steps and candidate.resumes >= resumes

    if not breaks(trace):
        trace = Trace.parse("train:9 save:b optimizer:20 save:a resume:b load:a scheduler:20")
    small = minimise(trace, breaks)
    assert breaks(small)
    assert not any(map(breaks, smaller(small)))


def test_a_needless_slot_goes_with_all_that_uses_it():
    trace = Trace.parse("train:4 save:b resume:b resume:b")
    small = minimise(trace, lambda t: t.resumes in (0, 2) and t.steps > 2)
    assert str(small) == "train:3"


def test_the_first_slot_is_called_a():
    small = minimise(Trace.parse("train:4 save:b train:1 resume:b"), lambda t: t.resumes > 0)
    assert str(small) == "save:a resume:a"


def test_a_long_trace_that_loads_in_place_is_condensed_first():
    saves = " ".join(f"train:5 save:e{k}" for k in range(20))
    trace = Trace.parse(f"{saves} train:5 load:e3 train:9")
    tried = []

    def breaks(candidate):
        """A run that is taken back to one of its first epochs from far ahead."""
        tried.append(candidate)
        path = ""
        for operation, before, path in walk(candidate.operations):
            if operation.kind == "load" and len(before) - len(path) >= 40:
                return bool(path)
        return False

    small = minimise(trace, breaks)
    assert str(small) == "train:1 save:a train:40 load:a"
    assert "train:20 save:e3 train:85 load:e3 train:9" in map(str, tried[:3])


FAULTS = [faulty.Forgets, faulty.LateFault, faulty.NotOneToOne, faulty.RaisesOnLoad, faulty.Drains]


def still_breaks(subject, check, trace):
    try:
        return replay(subject, check, trace).verdict == "BROKEN"
    except TraceError:
        return False


def assert_minimal(subject, checks=IN_THIS_PROCESS, budget=None):
    broken = [r for r in check_subject(subject, checks, budget) if r.verdict == "BROKEN"]
    assert broken
    for result in broken:
        trace = result.counterexample.trace
        check = as_check(result.check)
        assert still_breaks(subject, check, trace)
        assert [str(t) for t in smaller(trace) if still_breaks(subject, check, t)] == []


# Those that are called at different moments. The slow tests try all.
CALLED = [
    "resume_optimizer_then_scheduler", "resume_at_every_save", "resume_twice_from_one_dict",
    "roll_back_in_place", "loading_leaves_its_argument_alone", "saving_after_loading_is_the_same",
    "last_lr_is_the_groups_lr", "resumes_mixed",
]  # fmt: skip


@pytest.mark.parametrize(
    "fault",
    [*FAULTS[:3], *(pytest.param(fault, marks=pytest.mark.slow) for fault in FAULTS[3:])],
    ids=lambda fault: fault.__name__,
)
def test_counterexamples_are_1_minimal(fault):
    checks = [as_check(name) for name in CALLED]
    assert_minimal(Subject(fault.__name__, fault), checks, Budget(max_examples=10))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["StepLR", "CyclicLR", "SWALR", "PublishedLinearAnnealingLR"])
def test_counterexamples_of_real_schedulers_are_1_minimal(name):
    [subject] = [subject for subject in SUBJECTS if subject.name == name]
    assert_minimal(subject)
