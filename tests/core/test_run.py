import time

import faulty
import pytest
import torch
from drawn_traces import traces
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import (
    CheckError,
    Subject,
    SubjectError,
    Trace,
    TraceError,
    resume_check,
    state_check,
)
from harness.checks.registry import CHECKS, as_check
from harness.core.errors import TimeLimit
from harness.core.operations import branches, operations_of
from harness.engine.one_run import Runner
from harness.engine.runs import run_trace

PLAIN = "resume_optimizer_then_scheduler"

BY_NAME = {check.name: check for check in CHECKS}


def run(subject, check, trace, **options):
    runner = Runner(subject.bind({}), **options)
    outcome = run_trace(runner, as_check(check), Trace.parse(trace))
    return outcome, outcome.tally


@given(traces())
def test_the_path_to_the_present_has_no_gaps(trace):
    """Walks a trace with a plain list of steps per slot, the way one would by hand."""
    steps, slots, at = [], {}, []
    for operation in trace.operations:
        if operation.kind == "save":
            slots[operation.slot] = list(steps)
        elif operation.kind in ("resume", "load"):
            steps = list(slots[operation.slot])
        else:
            steps += [operation.kind[0]] * operation.count
        at.append("".join(steps))
    whole = branches(trace.operations)
    assert [path[: len(now)] for path, now in zip(whole, at, strict=True)] == at
    assert whole[-1] == at[-1]


@given(traces(counts=st.integers(1, 24)))
@settings(max_examples=25)
def test_a_trace_without_resumes_equals_its_uninterrupted_run(trace):
    check = BY_NAME["saving_changes_nothing"]
    kept = tuple(op for op in trace.operations if op.kind not in ("resume", "load"))
    outcome = run_trace(Runner(faulty.COUNTER.bind({})), check, Trace(kept))
    assert outcome.difference is None
    assert outcome.ended == ""


def test_the_uninterrupted_run_is_what_a_bare_loop_does():
    plain = Runner(faulty.COUNTER.bind({})).uninterrupted("toos")
    optimizer = faulty.COUNTER.optimizer()
    scheduler = faulty.Counter(optimizer)
    seen = [[group["lr"] for group in optimizer.param_groups]]
    for index, letter in zip((0, 1, 2, None), "toos", strict=True):
        if letter != "s":
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.grad = torch.full_like(
                        parameter, torch.tensor(float(index)).double().cos()
                    )
            optimizer.step()
        if letter != "o":
            scheduler.step()
        seen.append([group["lr"] for group in optimizer.param_groups])
    assert [row["lr"] for row in plain.observations] == seen
    weights = [p.tolist() for group in optimizer.param_groups for p in group["params"]]
    assert plain.observations[-1]["weights"] == weights
    assert plain.epochs == 2


def test_uninterrupted_runs_are_reused_where_one_begins_with_another():
    runner = Runner(faulty.COUNTER.bind({}))
    long = runner.uninterrupted("tttttt")
    assert runner.uninterrupted("ttt") is long
    assert runner.uninterrupted("tto") is not long


SHOWS = [
    ("Forgets", PLAIN, "train:4 save:a resume:a train:3", (3, 1)),
    ("Forgets", "roll_back_in_place", "train:2 save:a train:3 load:a train:3", (4, 1)),
    ("RaisesOnLoad", PLAIN, "train:5 save:a resume:a", (2, 0)),
    ("ExitsOnLoad", PLAIN, "save:a resume:a", (1, 0)),
    ("SavingSteps", "saving_changes_nothing", "train:1 save:a train:2", (2, 1)),
    ("SavingSteps", "resume_at_every_save", "save:a train:2 save:a train:3", None),
    ("Drains", "loading_leaves_its_argument_alone", "train:1 save:a", (1, 0)),
    ("Drains", "resume_twice_from_one_dict", "save:a resume:a train:2 resume:a", (3, 0)),
    ("Aliases", "saved_state_is_a_snapshot", "train:1 save:a train:2", (2, 1)),
    ("StaleReport", "last_lr_is_the_groups_lr", "train:4", (0, 3)),
    ("SecondGroup", "resume_by_deepcopy", "train:1 save:a resume:a train:4", None),
    ("SecondGroup", "resume_scheduler_then_optimizer", "save:a resume:a train:1", (2, 1)),
    (
        "NotOneToOne",
        PLAIN,
        "optimizer:3 save:a resume:a train:1",
        (3, 1),
    ),
    ("NotOneToOne", PLAIN, "train:3 save:a resume:a train:4", None),
]


@pytest.mark.parametrize(("fault", "check", "trace", "where"), SHOWS)
def test_a_break_is_found_where_it_shows(fault, check, trace, where):
    outcome, _ = run(Subject(fault, getattr(faulty, fault)), check, trace)
    broken = outcome.difference
    assert where == (None if broken is None else (broken.operation, broken.step))


def test_a_break_says_what_differs():
    broken = run(
        Subject("Forgets", faulty.Forgets), "roll_back_in_place", "train:3 save:a load:a train:1"
    )
    assert broken[0].difference is None  # a live scheduler need not load what it has
    broken, _ = run(
        Subject("Forgets", faulty.Forgets),
        PLAIN,
        "train:3 save:a resume:a train:1",
    )
    assert broken.difference.expected == {"lr": [0.05, 0.005]}
    assert broken.difference.actual == {"lr": [0.1, 0.01]}


def test_an_exception_of_the_subject_is_shown():
    broken = run(
        Subject("x", faulty.RaisesOnLoad),
        PLAIN,
        "train:5 save:a resume:a",
    )[0].difference
    assert broken.actual == {"raises": "RuntimeError: lost the plot"}
    assert broken.expected == {"lr": [0.05, 0.005]}


def test_the_tally_counts_what_was_tried():
    _, tally = run(
        faulty.COUNTER, "resume_by_pickle", "train:3 save:a resume:a optimizer:2 resume:a"
    )
    assert (tally.traces, tally.steps, tally.resumes, tally.comparisons) == (1, 5, 2, 0)
    _, tally = run(faulty.COUNTER, "saved_state_is_a_snapshot", "train:3 save:a train:2")
    assert (tally.steps, tally.resumes, tally.comparisons) == (5, 0, 3)


def test_every_group_and_the_weights_are_compared():
    @resume_check
    def loses_momentum(new_optimizer, build, checkpoint):
        """Restores the scheduler and the weights, and not the optimizer's momentum."""
        optimizer = new_optimizer()
        scheduler = build(optimizer)
        scheduler.load_state_dict(checkpoint["scheduler"])
        return optimizer, scheduler

    trace = "train:2 save:a resume:a train:1"
    broken = run(faulty.COUNTER, loses_momentum, trace)[0].difference
    assert set(broken.actual) == {"weights"}
    assert (broken.operation, broken.step) == (3, 1)
    assert run(faulty.COUNTER, loses_momentum, trace, left_out={"weights"})[0].difference is None


def test_each_resume_gets_its_own_copy_of_the_checkpoint():
    drains = Subject("Drains", faulty.Drains)
    assert run(drains, PLAIN, "save:a resume:a resume:a")[0].difference is None


def test_the_end_of_the_uninterrupted_run_does_not_break_a_check():
    subject = Subject(
        "OneCycleLR", torch.optim.lr_scheduler.OneCycleLR, options={"max_lr": 0.1, "total_steps": 5}
    )
    outcome, _ = run(subject, "resume_by_pickle", "train:4 save:a resume:a train:9")
    assert outcome.difference is None
    assert "ValueError" in outcome.ended


@pytest.mark.parametrize(
    ("check", "trace", "names"),
    [
        ("resume_by_last_epoch", "save:a resume:a", "epoch 0"),
        ("resume_by_last_epoch", "optimizer:3 save:a resume:a", "epoch 0"),
        ("roll_back_in_place", "save:a resume:a", "load:a"),
        ("resume_from_file", "save:a load:a", "resume:a"),
        ("resume_at_every_save", "save:a resume:a", "save"),
        ("last_lr_is_the_groups_lr", "save:a resume:a", "step"),
        ("resume_from_file", "save:a resume:a@resume_by_pickle", "resumes_mixed"),
        ("resumes_mixed", "save:a resume:a", "resume:a@CHECK"),
        ("resumes_mixed", "save:a resume:a@resumes_mixed", "resumes_mixed"),
        ("resumes_mixed", "save:a load:a@resume_by_pickle", "resume:a"),
    ],
)
def test_a_trace_that_a_check_cannot_run_is_refused(check, trace, names):
    with pytest.raises(TraceError, match=names):
        run(faulty.COUNTER, check, trace)


def test_an_unknown_check_in_a_mixed_trace_is_refused():
    with pytest.raises(CheckError, match="resume_by_pickle"):
        run(faulty.COUNTER, "resumes_mixed", "save:a resume:a@resume_by_pickel")


@pytest.mark.parametrize(
    ("subject", "names"),
    [
        (Subject("x", faulty.raises), "build.*ValueError"),
        (Subject("x", faulty.returns_none), "returns None"),
        (Subject("x", faulty.Counter, optimizer=dict), "optimizer.*{}"),
        (
            Subject("x", faulty.Counter, optimizer=lambda: 1 / 0),
            "optimizer.*ZeroDivisionError",
        ),
    ],
)
def test_a_subject_that_cannot_be_built_is_refused(subject, names):
    with pytest.raises(SubjectError, match=names):
        run(subject, "resume_from_file", "save:a resume:a")


@resume_check
def returns_one(new_optimizer):
    """Returns no pair."""
    return new_optimizer()


@state_check(at="save")
def returns_three():
    """Returns no pair either."""
    return 1, 2, 3


@pytest.mark.parametrize(
    ("check", "trace"), [(returns_one, "save:a resume:a"), (returns_three, "save:a")]
)
def test_a_check_that_does_not_return_a_pair_is_refused(check, trace):
    with pytest.raises(CheckError, match=check.__name__):
        run(faulty.COUNTER, check, trace)


def test_a_run_stops_at_the_deadline():
    with pytest.raises(TimeLimit):
        run(faulty.COUNTER, "resume_from_file", "save:a resume:a", deadline=time.monotonic() - 1)


def test_paths_are_traces_too():
    assert str(Trace(tuple(operations_of("ttoss")))) == "train:2 optimizer:1 scheduler:2"
