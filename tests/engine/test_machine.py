import json
import os
import subprocess
import sys

import pytest
from hypothesis import strategies as st

from harness.core.operations import MAX_STEPS
from harness.core.trace import Trace
from harness.engine.machine import DrawPlan, draw_operations
from harness.subjects.drawn_options import draw_options, shrink_options

RESUME = DrawPlan((("resume", "", 0),), epochs=24, length=12)
MIXED = DrawPlan((("resume", "one", 1), ("load", "two", 0)), epochs=24, length=12)


def drawn(plan, max_examples=40, seed=0):
    return list(map(Trace, draw_operations(plan, max_examples, seed)))


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
    assert any(trace.resumes > 2 for trace in traces)


def test_without_a_way_back_there_is_still_a_save():
    for trace in drawn(DrawPlan((), epochs=24, length=12)):
        assert not trace.resumes
        assert any(operation.kind == "save" for operation in trace.operations)


EVERY = st.fixed_dictionaries({"every": st.integers(1, 99)})


def test_drawn_options_come_back_shrunk():
    found = shrink_options(EVERY, lambda values: values["every"] > 5, 25, 0)
    assert found == {"every": 6}
    assert shrink_options(EVERY, lambda values: values["every"] > 99, 25, 0) is None


def test_what_was_drawn_is_there_to_be_shrunk():
    """The same seed draws the same options, so whatever breaks for one of them is found again."""
    for seed in range(4):
        for values in draw_options(EVERY, 25, seed):
            bad = values["every"]
            assert shrink_options(EVERY, lambda v, bad=bad: v["every"] == bad, 25, seed) == values


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, SystemExit])
def test_an_error_comes_out_as_it_is(error):
    def breaks(values):
        raise error

    with pytest.raises(error):
        shrink_options(EVERY, breaks, 5, 0)


def test_drawn_options_come_the_simplest_first():
    sets = draw_options(st.fixed_dictionaries({"gamma": st.integers(2, 9)}), 3, 0)
    assert sets[0] == {"gamma": 2}
    assert 1 < len(sets) <= 3


def test_the_same_seed_draws_the_same_traces_whatever_is_imported(tmp_path):
    """Hypothesis would draw the numbers of local modules, and leave a folder behind."""
    (tmp_path / "numbers_at_hand.py").write_text("LIST = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]\n")
    code = (
        "import json, numbers_at_hand\n"
        "from harness.engine.machine import DrawPlan, draw_operations\n"
        "plan = DrawPlan((('resume', '', 0),), epochs=24, length=12)\n"
        "print(json.dumps([[str(op) for op in ops] for ops in draw_operations(plan, 45, 0)]))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    there = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment,
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    plan = DrawPlan((("resume", "", 0),), epochs=24, length=12)
    here = [[str(op) for op in ops] for ops in draw_operations(plan, 45, 0)]
    assert json.loads(there) == here
    assert not (tmp_path / ".hypothesis").exists()
