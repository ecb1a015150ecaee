"""The benchmark's bare loop makes the torch calls that the check made, and no others."""

import collections
import importlib.util
import sys
from dataclasses import replace

import pytest
import torch
from helpers import ROOT
from torch.optim.lr_scheduler import LambdaLR, StepLR

from harness import Budget, Subject, Trace
from harness.checks.registry import as_check, prerequisites, select_checks
from harness.core.operations import STEPS
from harness.core.verdict import Verdict
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


SUBJECT = Subject("StepLR", StepLR, options={"step_size": 2, "gamma": 0.5}, length=5)


@pytest.mark.filterwarnings("ignore::UserWarning")  # a scheduler step before any of the optimizer
@pytest.mark.parametrize("check", select_checks(), ids=lambda check: check.name)
def test_the_bare_loop_makes_the_same_calls(check, calls):
    with bench.Recorder() as recorder:
        [result] = bench.check_all(SUBJECT, [check], Budget(max_examples=5))
    assert result.verdict != Verdict.UNKNOWN, result.reason
    checked = calls.copy()
    calls.clear()
    bench.bare(recorder.runs)
    assert calls["SGD.step"] > 40
    before = checked - calls  # before the check, the subject is built to see what it can do
    assert calls - checked == {}
    assert set(before) <= {"SGD.__init__", "StepLR.__init__", "StepLR.step"}
    # two for each of the four option sets that are not drawn, and four more
    assert max(before.values()) <= 12 + len(prerequisites(check))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("word", STEPS)
def test_the_bare_loop_performs_every_operation(word, calls):
    trace = Trace.parse(f"train:1 {word}:2 save:a resume:a {word}:1")
    with bench.Recorder() as recorder:
        run_trace(Runner(SUBJECT.bind({})), as_check("resume_optimizer_then_scheduler"), trace)
    checked = calls.copy()
    calls.clear()
    bench.bare(recorder.runs)
    assert calls == checked
    assert calls["SGD.__init__"] == 3


def test_a_run_that_should_not_end_early_must_not_in_the_bare_loop_either():
    runner = Runner(replace(SUBJECT, build=ends_at_3).bind({}))
    made = bench.RecordedRun(runner, None, Trace.parse("train:4"), raises=True)
    bench.bare([made])
    with pytest.raises(ValueError, match="3 steps"):
        bench.bare([replace(made, raises=False)])


def ends_at_3(optimizer, step_size, gamma, last_epoch=-1):
    def factor(epoch):
        if epoch > 3:
            raise ValueError("it has only 3 steps")
        return 1.0

    return LambdaLR(optimizer, factor, last_epoch)


def test_waste_counts_shared_beginnings_once():
    runner = Runner(SUBJECT.bind({}))

    def made(*traces):
        return [bench.RecordedRun(runner, None, Trace.parse(text), raises=False) for text in traces]

    assert bench.waste(made("train:3")) == 1
    assert bench.waste(made("train:3", "train:4")) == 7 / 4
    assert bench.waste(made("train:3", "train:3")) == 2
    assert bench.waste(made("train:2 save:a train:1", "train:2 save:b train:1")) == 6 / 4


def test_measurements_are_paired_and_alternate():
    order = []

    def takes(seconds):
        order.append(seconds)
        return seconds

    assert bench.paired(lambda: takes(6.0), lambda: takes(2.0), 3) == (3.0, 6.0)
    assert order == [6.0, 2.0, 2.0, 6.0, 6.0, 2.0]
