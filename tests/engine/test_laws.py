"""What is true of every trace, by property tests; that it parses back is in ``test_trace``."""

import contextlib

import pytest
from drawn_traces import traces
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import Trace, TraceError
from harness.checks.registry import IN_THIS_PROCESS, as_check
from harness.core.operations import branches
from harness.core.run import same
from harness.core.training_loop import observe, plain
from harness.engine.one_run import Runner
from harness.engine.runs import run_trace
from lr_schedules.controls import CONTROLS
from lr_schedules.faults import FAULTS

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # of the order of steps

PLAIN = [control for control in CONTROLS if control.strategy is None]
BY_NAME = {fault.name: fault for fault in FAULTS if fault.subject.strategy is None}


def observations(monkeypatch, subject, check, trace):
    """Everything that a run of a trace looks at, and its outcome, with a new runner."""
    seen = []

    def noting(optimizer, scheduler):
        seen.append(observe(optimizer, scheduler))
        return seen[-1]

    monkeypatch.setattr("harness.engine.one_run.observe", noting)
    runner = Runner(subject.bind({}))
    outcome = run_trace(runner, check, trace)
    return seen, outcome


@given(st.sampled_from(PLAIN), traces(counts=st.integers(1, 16)))
@settings(max_examples=60)
def test_a_trace_without_resumes_is_its_uninterrupted_run_bit_for_bit(control, trace):
    stays = [
        operation for operation in trace.operations if operation.kind not in ("resume", "load")
    ]
    if not stays:
        return
    trace = Trace(tuple(stays))
    with pytest.MonkeyPatch.context() as patch:
        seen, outcome = observations(patch, control, as_check("saving_changes_nothing"), trace)
    path = branches(trace.operations)[-1]
    uninterrupted = Runner(control.bind({})).uninterrupted(path).observations
    assert outcome.difference is None
    # The uninterrupted run is made first; the run of the trace looks once more at every save.
    first, looks = seen[: len(path) + 1], iter(seen[len(path) + 1 :])
    assert first == list(uninterrupted)
    position = 0
    assert next(looks) == first[0]
    for operation in trace.operations:
        for _ in range(operation.count or 1):
            position += operation.kind != "save"
            assert next(looks) == first[position]
    assert position == len(path)


@given(st.sampled_from(sorted(BY_NAME)), st.data())
@settings(max_examples=80)
def test_replaying_twice_gives_the_same_observations(name, data):
    """Of every fault without drawn options, by any check, whether that breaks or not."""
    subject = BY_NAME[name].subject
    check = data.draw(
        st.sampled_from([c for c in IN_THIS_PROCESS if c.name not in subject.declines])
    )
    trace = data.draw(traces(counts=st.integers(1, 16)))
    trace = Trace(trace.operations)
    runs = []
    for _ in range(2):
        with pytest.MonkeyPatch.context() as patch, contextlib.suppress(TraceError):
            runs.append(observations(patch, subject, check, trace))
    assert len(runs) in (0, 2)
    if runs:
        assert same(plain(runs[0]), plain(runs[1]))  # an LR may be NaN


@given(st.sampled_from(PLAIN), traces(counts=st.integers(1, 16)))
@settings(max_examples=60)
def test_a_save_never_changes_what_follows(control, trace):
    """The last observation is the same with all saves, and without those that nothing needs."""
    check = as_check("resume_scheduler_then_optimizer")
    kept, needed = [], set()
    for operation in reversed(trace.operations):
        if operation.kind == "load":
            continue
        if operation.kind == "resume":
            needed.add(operation.slot)
        if operation.kind == "save":
            if operation.slot not in needed:
                continue
            needed.discard(operation.slot)
        kept.append(operation)
    with_saves = [operation for operation in trace.operations if operation.kind != "load"]
    steps = ("train", "optimizer", "scheduler")
    if not any(operation.kind in steps for operation in kept):
        return
    last = []
    for operations in (with_saves, kept[::-1]):
        plain = [
            Trace.parse(str(operation).partition("@")[0]).operations[0]
            if operation.kind in ("save", *steps)
            else type(operation)("resume", slot=operation.slot)
            for operation in operations
        ]
        with pytest.MonkeyPatch.context() as patch:
            seen, outcome = observations(patch, control, check, Trace(tuple(plain)))
        assert outcome.difference is None
        last.append(seen[-1])
    assert last[0] == last[1]
