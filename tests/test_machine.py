import os
import subprocess
import sys

import pytest
from hypothesis import strategies as st

from harness.machine import Plan, draw_options, search
from harness.trace import MAX_STEPS

RESUME = Plan((("resume", "", 0),), epochs=24, length=12)
MIXED = Plan(
    (("resume", "one", 1), ("load", "two", 0)),
    epochs=24,
    length=12,
    options=(("gamma", st.sampled_from([0.1, 0.5])),),
)


def drawn(plan, max_examples=40, seed=0, options=None):
    traces = []
    found = search(
        plan, options or {}, lambda trace: bool(traces.append(trace)),
        max_examples=max_examples, seed_number=seed,
    )  # fmt: skip
    assert found is None
    return traces


def test_the_same_seed_draws_the_same_traces():
    assert list(map(str, drawn(RESUME))) == list(map(str, drawn(RESUME)))
    assert list(map(str, drawn(RESUME, seed=1))) != list(map(str, drawn(RESUME, seed=0)))


@pytest.mark.parametrize("plan", [RESUME, MIXED])
def test_every_trace_goes_back_and_stays_within_the_uninterrupted_run(plan):
    for trace in drawn(plan):
        assert trace.resumes
        assert trace.steps <= MAX_STEPS
        epoch, slots = 0, {}
        for operation in trace.operations:
            if operation.kind == "save":
                slots[operation.slot] = epoch
            elif operation.slot:
                epoch = slots[operation.slot]
                assert epoch >= (operation.check == "one")
            elif operation.kind != "optimizer":
                epoch += operation.count
            assert epoch <= plan.epochs


def test_all_kinds_of_operations_are_interleaved():
    traces = drawn(MIXED)
    kinds = {(op.kind, op.check) for trace in traces for op in trace.operations}
    assert kinds == {
        ("train", ""), ("optimizer", ""), ("scheduler", ""), ("save", ""),
        ("resume", "one"), ("load", "two"),
    }  # fmt: skip
    assert {op.slot for trace in traces for op in trace.operations} == {"", "a", "b"}
    assert {dict(trace.options)["gamma"] for trace in traces} == {0.1, 0.5}
    assert any(trace.resumes > 2 for trace in traces)


def test_without_a_way_back_there_is_still_a_save():
    for trace in drawn(Plan((), epochs=24, length=12)):
        assert not trace.resumes
        assert any(operation.kind == "save" for operation in trace.operations)


def test_fixed_options_stand_in_every_trace():
    assert {str(trace).split()[0] for trace in drawn(RESUME, options={"gamma": 2})} == {"gamma=2"}


def test_drawn_options_come_back_shrunk():
    """The operations are for `minimise` to make small."""
    plan = Plan(RESUME.ways, epochs=24, length=12, options=(("every", st.integers(1, 99)),))
    found = search(
        plan, {}, lambda trace: trace.resumes > 1 and dict(trace.options)["every"] > 5,
        max_examples=25, seed_number=0,
    )  # fmt: skip
    assert dict(found.options)["every"] == 6


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, SystemExit])
def test_an_error_comes_out_as_it_is(error):
    def breaks(trace):
        raise error

    with pytest.raises(error):
        search(RESUME, {}, breaks, max_examples=5, seed_number=0)


def test_drawn_options_come_the_simplest_first():
    sets = draw_options({"gamma": st.integers(2, 9)}, 3, 0)
    assert sets[0] == {"gamma": 2}
    assert 1 < len(sets) <= 3


def test_the_same_seed_draws_the_same_traces_whatever_is_imported(tmp_path):
    """Hypothesis would draw the numbers of local modules, and leave a folder behind."""
    (tmp_path / "numbers_at_hand.py").write_text("LIST = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]\n")
    code = (
        "{}import hashlib; from harness.machine import Plan, _draw\n"
        "plan = Plan((('resume', '', 0),), epochs=24, length=12)\n"
        "print(hashlib.sha256(' '.join(map(str, _draw(plan, 90, 0))).encode()).hexdigest())"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    drawn = {
        subprocess.run(
            [sys.executable, "-c", code.format(first)], cwd=tmp_path, env=environment,
            capture_output=True, text=True, check=True,
        ).stdout
        for first in ("", "import numbers_at_hand; ")
    }  # fmt: skip
    assert len(drawn) == 1
    assert not (tmp_path / ".hypothesis").exists()
