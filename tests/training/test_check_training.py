"""`check_training`, as a call and as an item of pytest."""

import functools
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

import harness
from harness import BrokenTraining, CheckError, HarnessError, UndecidedError, api, check_training
from harness.training.check import check_command
from harness.training.result import Verdict

pytest_plugins = ["pytester"]

SCRIPTS = Path(__file__).parent / "scripts"


@pytest.fixture(autouse=True)
def _in_forks(ready, monkeypatch, tmp_path):
    monkeypatch.setattr(api, "check_command", functools.partial(check_command, ready=ready))
    monkeypatch.chdir(tmp_path)


def checked(name, text="", **options):
    Path(f"{name}.py").write_text(text or (SCRIPTS / f"{name}.py").read_text())
    return check_training([sys.executable, f"{name}.py"], checkpoints="runs", **options)


def test_the_result_has_what_each_step_used():
    result = checked("correct")
    assert result.verdict == Verdict.HOLDS
    assert [step.values["lr"] for step in result.recordings[0].steps[:2]] == [[0.1], [0.095]]
    assert [outcome.kill_points for outcome in result.outcomes[:2]] == [(3, 4, 5), (6, 7, 8)]


def test_a_broken_script_raises_with_its_result():
    with pytest.raises(BrokenTraining, match="the schedule starts again") as found:
        checked("scheduler_not_loaded", compare="all")
    assert isinstance(found.value, AssertionError)
    assert found.value.result.verdict == Verdict.BROKEN


def test_a_script_that_saves_when_told_to_stop():
    result = checked("saves_when_told", signal="TERM", at=[3])
    [outcome] = result.outcomes
    assert (outcome.stop.name, outcome.kill_points) == ("SIGTERM", (4,))


def test_what_is_unknown_raises():
    text = (SCRIPTS / "correct.py").read_text()
    with pytest.raises(UndecidedError, match="two uninterrupted runs differ"):
        checked("train", text=text.replace("lr=0.1", "lr=__import__('random').random()"))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"compare": "weights"}, "'compare' must be 'lr' or 'all'"),
        ({"stop_after": 0}, "'stop_after' must be 1 or more"),
        ({"chain": 0}, "'chain' must be 1 or more"),
        ({"signal": "TERM"}, "give both --signal and --at"),
        ({"signal": "TERM", "at": [0]}, "from 1 on"),
        ({"time_limit": float("nan")}, "'time_limit' must be a number of seconds above 0"),
        ({"checkpoints": []}, "give the files or folders"),
        ({"command": "no_such_program"}, "there is no command"),
    ],
)
def test_a_wrong_argument_is_refused(wrong, message):
    with pytest.raises(HarnessError, match=message):
        check_training(**{"command": "python", "checkpoints": "runs", **wrong})
    assert issubclass(CheckError, HarnessError)


def test_ctrl_c_ends_the_tests(monkeypatch):
    known = checked("correct")
    half = known.__class__(**{**vars(known), "outcomes": known.outcomes[:1]})
    monkeypatch.setattr(api, "check_command", lambda request: half)
    with pytest.raises(KeyboardInterrupt, match="1 of 4 checkpoint states"):
        checked("correct")


def test_it_is_public():
    assert {"check_training", "BrokenTraining", "TrainingResult"} <= set(dir(harness))
    assert harness.check_training is check_training


TESTS = """
import sys
from harness import check_training

def test_holds():
    check_training([sys.executable, "data_order_lost.py"], checkpoints="runs")

def test_broken():
    check_training([sys.executable, "scheduler_not_loaded.py"], checkpoints="runs")

def test_unknown():
    check_training([sys.executable, "-c", "pass"], checkpoints="runs")
"""


def test_an_item_shows_the_report(pytester):
    for name in ("data_order_lost", "scheduler_not_loaded"):
        (pytester.path / f"{name}.py").write_text((SCRIPTS / f"{name}.py").read_text())
    pytester.makepyfile(test_it=TESTS)
    ran = pytester.runpytest_inprocess(
        "-p", "lr_resume_harness.pytest_plugin", "-p", "no:randomly", "-p", "no:cacheprovider",
        "-p", "no:xdist", "--junitxml=r.xml",
    )  # fmt: skip
    ran.assert_outcomes(passed=1, failed=1, errors=1)
    ran.stdout.fnmatch_lines(
        [
            "*ERROR at call of test_unknown*",
            "UNKNOWN *",
            "BROKEN scheduler_not_loaded.py: killed after steps 3 to 11 (9 of 12)*",
            "  first     step 5, rank 0, optimizer 0, group 0",
            "scheduler_not_loaded.py: BROKEN (12 steps, 4 checkpoint states resumed, *",
            "lr-resume-harness: data_order_lost.py: HOLDS (12 steps, 4 checkpoint states*",
            "lr-resume-harness: data: weights differ from step 5 on when killed *",
        ]
    )
    ran.stdout.no_fnmatch_line("*api.py*")
    found = {
        case.get("name"): {p.get("name"): p.get("value") for p in case.iter("property")}
        for case in ET.parse(pytester.path / "r.xml").iter("testcase")
    }
    assert found["test_broken"] == {
        "subject": "scheduler_not_loaded.py", "check": "train", "verdict": "BROKEN",
    }  # fmt: skip
