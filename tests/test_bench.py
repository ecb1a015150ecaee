"""The benchmark's bare loop makes the torch calls that the check made, and no others."""

import collections
import importlib.util
import sys

import pytest
import torch
from conftest import ROOT
from torch.optim.lr_scheduler import StepLR

from harness import Trace
from harness.checks.registry import as_check
from harness.core.operations import STEPS
from harness.engine.one_run import Runner
from harness.engine.runs import run_trace

spec = importlib.util.spec_from_file_location("bench", ROOT / "scripts/bench.py")
bench = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = bench
spec.loader.exec_module(bench)

COUNTED = [
    (torch.optim.SGD, "__init__"),
    (torch.optim.SGD, "step"),
    (torch.optim.SGD, "load_state_dict"),
    (StepLR, "__init__"),
    (StepLR, "step"),
    (StepLR, "load_state_dict"),
]


@pytest.fixture
def calls(monkeypatch):
    counts = collections.Counter()

    def counted(place, name):
        method = getattr(place, name)

        def call(*args, **kwargs):
            counts[f"{place.__name__}.{name}"] += 1
            return method(*args, **kwargs)

        return call

    for place, name in COUNTED:
        monkeypatch.setattr(place, name, counted(place, name))
    return counts


@pytest.mark.filterwarnings("ignore::UserWarning")  # a scheduler step before any of the optimizer
@pytest.mark.parametrize("phase", ["sweep", "search"])
@pytest.mark.parametrize(
    "name", [bench.PLAIN, "roll_back_in_place", "resume_at_every_save", "resumes_mixed"]
)
def test_the_bare_loop_makes_the_same_calls(name, phase, calls):
    with bench.Recorder() as recorder:
        bench.work(bench.SUBJECT, [as_check(name)], phase)
    checked = calls.copy()
    calls.clear()
    bench.bare(recorder.runs, bench.SUBJECT)
    assert calls["SGD.step"] > 50
    before = checked - calls  # the subject is built, and looked at, before it is checked
    assert calls - checked == {}
    assert set(before) <= {"SGD.__init__", "StepLR.__init__", "StepLR.step"}
    assert max(before.values()) <= 8


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("word", STEPS)
def test_the_bare_loop_performs_every_operation(word, calls):
    trace = Trace.parse(f"train:1 {word}:2 save:a resume:a {word}:1")
    with bench.Recorder() as recorder:
        run_trace(Runner(bench.SUBJECT.bind({})), as_check(bench.PLAIN), trace)
    checked = calls.copy()
    calls.clear()
    bench.bare(recorder.runs, bench.SUBJECT)
    assert calls == checked
    assert calls["SGD.__init__"] == 3
