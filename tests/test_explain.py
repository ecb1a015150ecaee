"""``--explain``: what is looked for, what is printed, and what stays as it was."""

import json
import re
import time

import pytest
from conftest import ROOT
from faulty import Falls
from harness.engine.grouping import AGAIN
from hypothesis import strategies as st
from torch.optim.lr_scheduler import StepLR

import harness
from harness import BrokenSchedule, Budget, Subject, check_scheduler, check_subject, explain
from harness.checks.registry import as_check, select_checks

PLAIN = "resume_optimizer_then_scheduler"
LAST_EPOCH = "resume_by_last_epoch"


def checked(subject, *checks, **budget):
    return list(check_subject(subject, select_checks(checks), Budget(explain=True, **budget)))


def test_the_options_of_others_are_tried_once_and_are_minimal_traces():
    options = {"step_size": st.integers(1, 4), "gamma": st.sampled_from([0.5, 0.25])}
    subject = Subject("StepLR", StepLR, options=options)
    [result] = checked(subject, LAST_EPOCH)
    sets = [dict(found.trace.options) for found in (result.counterexample, *result.others)]
    assert len({tuple(sorted(values.items())) for values in sets}) == len(sets) > 4
    for found in result.others:
        size = dict(found.trace.options)["step_size"]
        assert str(found.trace).endswith(f" train:{size} save:a resume:a")
        again = harness.replay(subject, LAST_EPOCH, found.trace)
        assert again.counterexample == found


class Slow(Falls):
    """Falls, and takes its time; forever where it is told to."""

    def __init__(self, optimizer, last_epoch=-1, *, hangs=False, scale=1.0):
        self.hangs = hangs
        super().__init__(optimizer, last_epoch, wrong="begins", scale=scale)

    def load_state_dict(self, state):
        super().load_state_dict(state)
        while self.hangs:
            time.sleep(0.01)


def test_the_time_limit_ends_the_explanation_and_not_the_verdict():
    subject = Subject("Slow", Slow, drawn=st.sampled_from([{"hangs": True}]))
    started = time.monotonic()
    [result] = checked(subject, PLAIN, time_limit=1.0)
    assert time.monotonic() - started < 20
    assert (result.verdict, result.others) == ("BROKEN", ())
    [cause] = explain([result])
    assert cause.subjects == {"Slow": 1}


# ---------------------------------------------------------------------------- what is printed


def test_without_explain_nothing_changes(command):
    """To the byte, but for the time: the example of the README."""
    readme = (ROOT / "README.md").read_text()
    shown = f"$ python -m harness check StepLR --check {LAST_EPOCH} --no-ledger\n"
    example = readme.split(shown)[1]
    status, printed, _ = command("check", "StepLR", "--check", LAST_EPOCH)
    assert status == 1

    def timeless(text):
        return re.sub(r"torch \d[^ :)]*|\d+\.\d s", "", text)

    lines = [line.rstrip() for line in timeless(printed).splitlines()]
    assert lines == timeless(example.split("```")[0]).splitlines()


def test_explain_reports_by_cause(command, tmp_path):
    file = tmp_path / "out.json"
    arguments = ["check", "StepLR", "MultiStepLR", "CyclicLR", "--max-examples", "3"]
    status, printed, _ = command(*arguments, "--explain", "--json", file)
    assert status == 1
    blocks = re.split(r"\n\n", printed)
    data = json.loads(file.read_text())
    assert data["schema"] == 1
    # CyclicLR has other causes, on some torches larger ones.
    place = [row["checks"] for row in data["causes"]].index([LAST_EPOCH])
    first = data["causes"][place]
    assert set(first["subjects"]) == {"MultiStepLR", "StepLR"}
    sets = [f"{name} ({count} sets of options)" for name, count in first["subjects"].items()]
    assert min(first["subjects"].values()) > 5  # how many are drawn, torch's optimizers decide
    assert blocks[place].splitlines() == [
        f"CAUSE {place + 1} of {len(data['causes'])}: at resume, lr is multiplied a second time by "
        "the factor of the last step",
        "  check     resume_by_last_epoch",
        f"  promise   {as_check(LAST_EPOCH).doc}",
        f"  subjects  it looks the same in {', '.join(sets)}",
        "  smallest  StepLR step_size=1 gamma=0.5 train:1 save:a resume:a",
        "  at        resume:a (operation 3 of 3), epoch 1",
        "  expected  lr [0.05, 0.005], because the uninterrupted run (train:1) has it there",
        "  got       lr [0.025, 0.0025], however this run was resumed by resume_by_last_epoch",
        "  Reproduce with:",
        "    python -m harness replay StepLR resume_by_last_epoch "
        '"step_size=1 gamma=0.5 train:1 save:a resume:a"',
        "    python -m harness script StepLR resume_by_last_epoch "
        '"step_size=1 gamma=0.5 train:1 save:a resume:a"',
    ]
    assert "\nBROKEN " not in printed
    counts = [row["count"] for row in data["causes"]]
    assert f"\n\n{sum(counts)} counterexamples, {len(counts)} causes\n\nsubject " in printed
    broken = [row for row in data["results"] if "others" in row]
    assert sum(counts) == sum(1 + len(row["others"]) for row in broken)
    assert (first["checks"], first["operation"]) == ([LAST_EPOCH], "resume")
    assert first["relation"] == f"lr is {AGAIN}"
    assert first["trace"] == "step_size=1 gamma=0.5 train:1 save:a resume:a"
    assert (first["expected"], first["actual"]) == ({"lr": [0.05, 0.005]}, {"lr": [0.025, 0.0025]})
    status, plainly, _ = command("check", "StepLR", "--check", LAST_EPOCH, "--json", file)
    assert status == 1
    assert "CAUSE" not in plainly
    data = json.loads(file.read_text())
    assert "causes" not in data
    assert not any("others" in row for row in data["results"])


DRAWN = Subject(
    "Drawn", Falls, options={"wrong": "begins", "scale": st.sampled_from([1.0, 0.5, 0.25])}
)


def test_explain_says_how_many_sets_of_options_and_writes_scripts(command, tmp_path):
    status, printed, errors = command(
        "check", "test_explain:DRAWN", "--check", PLAIN, "--explain",
        "--json", tmp_path / "out.json", "--scripts", tmp_path / "scripts",
    )  # fmt: skip
    assert status == 1, errors
    assert "CAUSE 1 of 1: at resume, lr is as if the schedule began at the checkpoint; " in printed
    assert "  subject   Drawn (3 sets of options)\n" in printed
    assert "\n\n3 counterexamples, 1 cause\n\n" in printed
    [script] = (tmp_path / "scripts").iterdir()
    assert f"\n\n  Script: {script}\n\n" in printed
    row = json.loads((tmp_path / "out.json").read_text())["results"][0]
    assert len(row["others"]) == 2
    for trace in row["others"]:
        status, again, _ = command("replay", "test_explain:DRAWN", PLAIN, trace)
        assert (status, again[:12]) == (1, "still broken")


def test_explain_with_nothing_broken_says_so(command):
    status, printed, _ = command(
        "check", "lr_schedules.correct:Halving", "--explain", "--max-examples", "0"
    )
    assert status == 0
    assert "cause" not in printed.lower()


def test_check_scheduler_explains():
    with pytest.raises(BrokenSchedule) as stop:
        check_scheduler(DRAWN, checks=[PLAIN], explain=True)
    assert str(stop.value).startswith("CAUSE 1 of 1: at resume, lr is ")
    assert str(stop.value).endswith("\n\n3 counterexamples, 1 cause")
    [cause] = harness.explain(stop.value.results)
    assert isinstance(cause, harness.Cause)
    assert len(cause.members) == 3
