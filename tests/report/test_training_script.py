"""The shell script that reproduces a failure of a training script, run with a small torch."""

import subprocess
import sys
from dataclasses import replace

import pytest
from inline_snapshot import snapshot

from harness.core.errors import ScriptError
from harness.report.training_script import training_script
from harness.training.compare import compare_ranks
from harness.training.injected.snapshots import SavedFile
from harness.training.recording import InsideSave, Recording, State, Step, UnfinishedFile
from harness.training.result import Chain, Finding, Outcome, Signal, TrainingResult, Verdict

TORCH = {
    "__init__": "",
    "optim/__init__": "from torch.optim.optimizer import Optimizer\nimport torch.optim.later\n",
    "optim/later": "",
    "optim/optimizer": """
_hooks = []
def register_optimizer_step_pre_hook(hook):
    _hooks.append(hook)
def hooked(step):
    def wrapper(self):
        for hook in _hooks:
            hook(self, (), {})
        step(self)
    return wrapper
class Optimizer:
    def __init__(self, lr):
        self.param_groups, self.state = [{"lr": lr, "params": []}], {}
    @hooked
    def step(self):
        pass
class Nested(Optimizer):
    @hooked
    def step(self):
        super().step()
""",
}
"""What a training script needs of torch."""

TRAIN = """
import json, os, sys
import torch.optim

optimizer, start = torch.optim.Optimizer(0.5), 0
if os.path.exists("runs/last.json"):
    start = json.load(open("runs/last.json"))
for step in range(start, 6):
    optimizer.param_groups[0]["lr"] = 0.5 / (1 + step - WRONG)
    optimizer.step()
    if step % 2:
        os.makedirs("runs", exist_ok=True)
        json.dump(step + 1, open("runs/last.json", "w"))
"""
"""Its LR is 1/2, 1/4, 1/6 and so on. It saves after every second step."""

LRS = tuple(0.5 / (1 + step) for step in range(6))


def recording(lrs, start=0):
    steps = (Step(0, {"lr": [lr]}, State(str(start + n), "")) for n, lr in enumerate(lrs))
    return {0: Recording(0, tuple(steps))}


@pytest.fixture
def reproduced(tmp_path):
    """Runs the script about a resumed run on a training script: exit status, output and errors."""
    for name, text in TORCH.items():
        path = tmp_path / "torch" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def run(
        text, lrs=LRS[:4], verdict=Verdict.BROKEN, kill_points=(2, 3), stop=None, saved=(), start=2
    ):
        (tmp_path / "train.py").write_text(text)
        expected = recording(LRS)
        resumed = recording(lrs, start)
        found = compare_ranks(expected, resumed, start) if lrs else None
        outcome = Outcome(
            kill_points, verdict, starts={0: start} if found else {},
            difference=found.broken(everything=False) if found else None, resumed=resumed,
            stop=stop, saved=saved,
        )  # fmt: skip
        command = (sys.executable, "train.py")
        result = TrainingResult(
            command, command, verdict, steps=6, recordings=expected, outcomes=(outcome,),
            planned=1, checkpoints=("runs",),
        )  # fmt: skip
        (tmp_path / "script.sh").write_text(training_script(result, Finding((outcome,))))
        environment = {"PATH": f"{sys.prefix}/bin:/usr/bin:/bin", "TMPDIR": str(tmp_path / "tmp")}
        (tmp_path / "tmp").mkdir(exist_ok=True)
        done = subprocess.run(
            ["sh", "script.sh"], cwd=tmp_path, env=environment, capture_output=True, text=True,
            timeout=600, check=False,
        )  # fmt: skip
        assert list((tmp_path / "tmp").iterdir()) == []
        return done.returncode, done.stdout, done.stderr

    return run


def test_both_schedules_are_printed_and_differ(reproduced, tmp_path):
    status, printed, errors = reproduced(TRAIN.replace("WRONG", "start"))
    lines = [line.rstrip() for line in printed.splitlines()]
    assert (status, errors) == (1, "")
    assert lines == snapshot(
        [
            "killed right before its step 3, then resumed",
            "lr of each step",
            "step  uninterrupted           resumed",
            "   1  0.5",
            "   2  0.25",
            "   3  0.16666666666666666     0.5   <- differs",
            "   4  0.125                   0.25   <- differs",
            "   5  0.1                     0.16666666666666666   <- differs",
            "   6  0.08333333333333333     0.125   <- differs",
            "4 of 4 steps after the checkpoint differ (6 steps in all)",
        ]
    )
    assert not (tmp_path / "runs").exists()


def test_a_script_that_was_mended_is_the_same(reproduced):
    status, printed, errors = reproduced(TRAIN.replace("WRONG", "0"))
    assert (status, errors) == (0, "")
    assert "0 of 4 steps after the checkpoint differ" in printed


def test_steps_inside_steps_are_counted_once(reproduced):
    text = TRAIN.replace("optim.Optimizer(0.5)", "optim.optimizer.Nested(0.5)")
    status, printed, _ = reproduced(text.replace("WRONG", "0"))
    assert (status, "(6 steps in all)" in printed) == (0, True)


FAILS = "import sys\nif {}:\n    sys.exit('no way')\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            FAILS.format("True") + TRAIN,
            "the command fails by itself; the end of its output:\nno way",
        ),
        (
            FAILS.format("__import__('os').path.exists('runs')") + TRAIN,
            "the resumed run fails; the end of its output:\nno way",
        ),
        (TRAIN.replace("range(start, 6)", "range(6, 6)"), "no optimizer step was seen"),
        (TRAIN.replace("range(start, 6)", "range(start, 2)"), "ended before it was killed"),
    ],
)
def test_what_cannot_be_told_is_125(text, message, reproduced):
    status, _, errors = reproduced(text.replace("WRONG", "0"))
    assert status == 125
    assert message in errors


def test_checkpoints_of_the_user_are_never_removed(reproduced, tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/mine").touch()
    status, printed, errors = reproduced(TRAIN.replace("WRONG", "0"))
    assert (status, printed) == (125, "")
    assert errors == "runs is there: move it away first, because this script removes it\n"
    assert (tmp_path / "runs/mine").exists()


@pytest.mark.parametrize(("raises", "status"), [(True, 1), (False, 0)])
def test_a_resume_that_fails_is_tried_again(raises, status, reproduced):
    text = TRAIN.replace("WRONG", "0")
    if raises:
        text = FAILS.format("__import__('os').path.exists('runs')") + text
    got, printed, errors = reproduced(text, lrs=(), verdict=Verdict.CANNOT_RESUME)
    assert (got, errors) == (status, "")
    assert printed.splitlines()[-1] == ("no way" if raises else "it resumes")


def test_after_the_last_step_the_run_ends_by_itself(reproduced):
    text = TRAIN.replace("WRONG", "0").replace("range(start, 6)", "range(start, start + 6)")
    status, printed, _ = reproduced(text, lrs=LRS, kill_points=(6,))
    assert status == 1
    assert printed.startswith("killed after its last step, then resumed\n")
    assert "6 of 6 steps after the checkpoint differ" in printed


INSIDE = InsideSave((UnfinishedFile("runs/last.json", 0),), "runs/last.json is written")


def test_a_state_inside_a_save_is_in_the_script(reproduced):
    saved = (
        SavedFile("runs", "folder", 0, b"", ""),
        SavedFile("runs/last.json", "file", 10**18, b"", ""),
        SavedFile("runs/link", "link", 0, b"", "last.json"),
    )
    seen = "sys.exit(os.readlink('runs/link') + str(os.path.getmtime('runs/link')))\n"
    torn = f"    if not os.path.getsize('runs/last.json'):\n        {seen}"
    text = TRAIN.replace("WRONG", "0").replace("    start = json", f"{torn}    start = json")
    got, printed, errors = reproduced(
        text, lrs=(), verdict=Verdict.CANNOT_RESUME, stop=INSIDE, saved=saved
    )
    assert (got, errors) == (1, "")
    assert printed.splitlines() == snapshot(
        [
            "killed in the save after its step 2 (runs/last.json: 0 bytes written), then resumed",
            "it can't be resumed; the end of its output:",
            "last.json1000000000.0",
        ]
    )


SAVES_WHEN_TOLD = (
    TRAIN.replace("if step % 2:", "if told:").replace(
        "import torch.optim",
        "import torch.optim, signal\ntold = []\n"
        "signal.signal(signal.SIGTERM, lambda *arguments: told.append(1))",
    )
    + "        sys.exit(1)\n"
)


@pytest.mark.parametrize(("wrong", "status"), [("start", 1), ("0", 0)])
def test_a_script_that_saves_when_told_is_told(wrong, status, reproduced):
    text = SAVES_WHEN_TOLD.replace("WRONG", wrong)
    got, printed, errors = reproduced(text, kill_points=(2,), stop=Signal("SIGTERM", 1))
    assert (got, errors) == (status, "")
    assert printed.startswith("sent SIGTERM right before its step 2, then resumed\n")
    assert f"{4 * status} of 4 steps after the checkpoint differ" in printed


def test_a_chain_is_killed_as_often(reproduced):
    text = TRAIN.replace("WRONG", "(start if start == 4 else 0)")
    status, printed, _ = reproduced(
        text, lrs=LRS[:2], kill_points=(3, 5), stop=Chain(3, 3), start=4
    )
    assert status == 1
    assert printed.startswith("killed after 3 steps, then resumed\n")
    assert "2 of 2 steps after the checkpoint differ (6 steps in all)" in printed


def test_there_is_no_script_for_what_is_unknown():
    outcome = Outcome((1,), Verdict.UNKNOWN, "it hangs")
    result = TrainingResult(("x",), ("x",), Verdict.UNKNOWN, outcomes=(outcome,))
    with pytest.raises(ScriptError, match="not known"):
        training_script(result, Finding((outcome,)))
    ranks = compare_ranks(recording(LRS), {1: replace(recording(LRS)[0], rank=1)}, 2)
    outcome = Outcome((1,), Verdict.BROKEN, difference=ranks.differences[0])
    with pytest.raises(ScriptError, match="a rank is missing"):
        training_script(result, Finding((outcome,)))
    outcome = Outcome((2,), Verdict.CANNOT_RESUME, "EOFError", stop=INSIDE)
    with pytest.raises(ScriptError, match="too large"):
        training_script(result, Finding((outcome,)))
    outcome = Outcome((2,), Verdict.BROKEN, "attempts 1 and 2", stop=Chain(2, 2))
    with pytest.raises(ScriptError, match="the number of resumes"):
        training_script(result, Finding((outcome,)))
