"""From a command to a verdict: what is reported, and what is refused."""

import base64
import contextlib
import functools
import json
import os
import re
import signal
import sys
from pathlib import Path

import pytest
from inline_snapshot import snapshot
from pages import Page

from harness.cli import train as command_line
from harness.core.errors import HarnessError
from harness.training import check as checking
from harness.training.check import Request, check_command
from harness.training.result import Verdict, findings
from harness.training.text import result_text

SCRIPTS = Path(__file__).parent / "scripts"
CORRECT = (SCRIPTS / "correct.py").read_text()
LOADS = 'if os.path.exists("runs/last.pt"):'
assert LOADS in CORRECT


@pytest.fixture
def train(ready, command, monkeypatch, tmp_path):
    """Runs ``train`` on a script of this folder, as on the command line, in forks."""
    monkeypatch.setattr(checking, "check_command", functools.partial(check_command, ready=ready))

    def run(name, *options, text=""):
        (tmp_path / f"{name}.py").write_text(text or (SCRIPTS / f"{name}.py").read_text())
        return command("train", *options, "--", sys.executable, f"{name}.py")

    return run


def without_times(text):
    text = text.replace(sys.executable, "python")
    return re.sub(r"\d+\.\d s\)", "T s)", text)


# ruff: noqa: E501 (reports are not wrapped)
# ------------------------------------------------------------------ the report


def test_the_report_of_a_broken_script(train):
    status, printed, errors = train("scheduler_not_loaded", "--checkpoints", "runs")
    assert status == 1
    assert without_times(printed) == snapshot("""\
BROKEN scheduler_not_loaded.py: killed after steps 3 to 11 (9 of 12), resumed from the checkpoint of step 3
  first     step 5, rank 0, optimizer 0, group 0
  expected  lr 0.08000000000000002
  got       lr 0.095 (7 of 7 later steps differ)
  cause     the schedule starts again at the checkpoint
  Reproduce with:
    python scheduler_not_loaded.py    # kill it right before its step 4
    python scheduler_not_loaded.py

no checkpoint yet after steps 1 to 2 (2 of 12): a run starts from scratch

scheduler_not_loaded.py: BROKEN (12 steps, 4 checkpoint states resumed, T s)
""")
    assert errors == snapshot("""\
recording an uninterrupted run
recording a second uninterrupted run
resuming after step 3
""")


def test_the_report_of_a_correct_script(train, tmp_path):
    status, printed, _ = train("data_order_lost", "--checkpoints=runs", "--json=result.json")
    assert status == 0
    assert without_times(printed) == snapshot("""\
data: weights differ from step 5 on when killed after steps 3 to 11 (9 of 12): another order of the data, or another random state.
      The schedule is the same, so this is BROKEN only with --compare all.
no checkpoint yet after steps 1 to 2 (2 of 12): a run starts from scratch

data_order_lost.py: HOLDS (12 steps, 4 checkpoint states resumed, T s)
""")
    found = json.loads((tmp_path / "result.json").read_text())
    assert (found["format"], found["verdict"]) == ("lr-resume-harness train 1", "HOLDS")
    assert [len(each["resumed"]["0"]) for each in found["resumes"][:-1]] == [9, 6, 3]
    assert found["recorded"]["0"][1]["lr"] == [0.095]
    assert found["before_the_first_checkpoint"] == [0, 1, 2]


def test_every_output_is_written_even_if_one_fails(train, tmp_path, monkeypatch):
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    status, printed, errors = train(
        "scheduler_not_loaded", "--checkpoints=runs", "--json=/dev/full", "--html=page.html",
        "--plots=plots", "--scripts=scripts", "--ci=github",
    )  # fmt: skip
    assert status == 1
    assert "error: cannot write /dev/full: " in errors
    assert "  Script: scripts/scheduler_not_loaded_py-1.sh\n" in printed
    assert "  Picture: plots/scheduler_not_loaded_py-1.svg\n" in printed
    script = (tmp_path / "scripts/scheduler_not_loaded_py-1.sh").read_text()
    page = Page((tmp_path / "page.html").read_text())
    assert page.inside["s0"] == script
    picture = (tmp_path / "plots/scheduler_not_loaded_py-1.svg").read_bytes()
    [image] = page.all("img")
    assert base64.b64decode(image["src"].partition(",")[2]) == picture
    assert {"uninterrupted", "resumed"} <= set(re.findall(r">(\w+)</text>", picture.decode()))
    assert page.all("td")[-2:] == [{}, {"class": "H"}]
    title = "title=BROKEN scheduler_not_loaded.py%3A killed after steps 3 to 11 (9 of 12)%2C"
    assert f"\n::error file=scheduler_not_loaded.py,{title}" in printed
    assert (tmp_path / "summary.md").read_text().count("BROKEN scheduler_not_loaded.py") == 2


def test_the_page_of_a_script_that_holds_shows_a_resumed_run(train, tmp_path):
    status, _, errors = train("correct", "--checkpoints=runs", "--html=page.html")
    page = Page((tmp_path / "page.html").read_text())
    assert (status, "error" in errors) == (0, False)
    assert [section["class"] for section in page.all("section")] == ["pair HOLDS"]
    assert len(page.all("img")) == 1


def test_what_happens_inside_a_save_and_after_a_signal_is_reported(train, tmp_path):
    status, printed, _ = train(
        "torn_in_place", "--checkpoints=runs", "--inside-saves", "--signal=term", "--at=5",
        "--chain=4", "--json=r.json", "--html=page.html", "--time-limit=600", "--stop-after=8",
    )  # fmt: skip
    assert status == 1
    assert without_times(printed) == snapshot("""\
CANNOT RESUME torn_in_place.py: killed inside the saves after steps 3, 6
  state     runs/last.pt: 0 bytes written
  reason    EOFError
  Reproduce with:
    python torn_in_place.py    # kill it in the save after its step 3 (runs/last.pt: 0 bytes written)
    python torn_in_place.py

no checkpoint yet after steps 1 to 2 (2 of 8): a run starts from scratch

torn_in_place.py: CANNOT RESUME (8 steps, 4 checkpoint states resumed, a chain of 3 attempts, T s)
""")
    stops = [each["stop"] for each in json.loads((tmp_path / "r.json").read_text())["resumes"]]
    assert [stop for stop in stops if stop] == [
        {
            "kind": "inside a save",
            "files": [{"name": "runs/last.pt", "size": 0}],
            "done": "runs/last.pt is written",
        },
        {"kind": "signal", "name": "SIGTERM", "after": 5},
        {"kind": "chain", "every": 4, "attempts": 3},
    ]
    page = (tmp_path / "page.html").read_text()
    assert "inside the saves after steps 3, 6; runs/last.pt: 0 bytes written</th>" in page
    assert page.count("sent SIGTERM after step 5</th>") == 1


def test_several_findings_are_all_reported(train):
    text = CORRECT.replace(
        'start = saved["step"]',
        'start = saved["step"]\n    if start == 6:\n        raise ValueError("six")\n'
        '    if start == 9:\n        optimizer.param_groups[0]["weight_decay"] = 0.5',
    )
    status, printed, _ = train("train", "--checkpoints=runs", "--time-limit=600", text=text)
    assert status == 1
    assert without_times(printed) == snapshot("""\
BROKEN train.py: killed after steps 9 to 11 (3 of 12), resumed from the checkpoint of step 9
  first     step 10, rank 0, optimizer 0, group 0
  expected  weight_decay 0
  got       weight_decay 0.5 (2 of 2 later steps differ)
  Reproduce with:
    python train.py    # kill it right before its step 10
    python train.py

CANNOT RESUME train.py: killed after steps 6 to 8 (3 of 12)
  reason    ValueError: six
  Reproduce with:
    python train.py    # kill it right before its step 7
    python train.py

no checkpoint yet after steps 1 to 2 (2 of 12): a run starts from scratch

train.py: BROKEN (12 steps, 4 checkpoint states resumed, T s)
""")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_what_is_known_is_reported_after_ctrl_c(number, status, train, tmp_path, monkeypatch):
    @contextlib.contextmanager
    def interrupted():
        def show(done, total, what):
            if (done, total) == (2, 4):
                os.kill(os.getpid(), number)

        yield show

    monkeypatch.setattr(command_line, "_progress", interrupted)
    got, printed, _ = train(
        "scheduler_not_loaded", "--checkpoints=runs", "--json=r.json", "--html=page.html"
    )
    assert got == status
    assert "BROKEN scheduler_not_loaded.py: killed after steps 3 to 8 (6 of 12)" in printed
    assert "note: interrupted: this is what is known so far\n" in printed
    assert "BROKEN (12 steps, 2 of 4 checkpoint states resumed, " in printed
    found = json.loads((tmp_path / "r.json").read_text())
    assert (found["planned"], len(found["resumes"])) == (4, 2)
    assert "<b>The check was stopped</b>" in (tmp_path / "page.html").read_text()


def test_progress_counts_the_resumes(ready, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("train.py").write_text(CORRECT)
    shown = []
    request = Request([sys.executable, "train.py"], [Path("runs")])
    check_command(request, lambda *what: shown.append(what), ready)
    assert shown == [
        (0, 0, "recording an uninterrupted run"),
        (0, 4, "recording a second uninterrupted run"),
        *((number, 4, f"resuming after step {3 * number + 3}") for number in range(4)),
    ]


# ------------------------------------------------------------------ verdicts


def test_a_resume_that_raises_is_loud(checked):
    raises = f"import os\n{LOADS}\n    raise RuntimeError('no way back')\n"
    result = checked("train", text=raises + CORRECT, time_limit=600.0)
    [finding] = findings(result.outcomes)
    assert (result.verdict, finding.first.reason) == (
        Verdict.CANNOT_RESUME,
        "RuntimeError: no way back",
    )
    assert finding.kill_points == tuple(range(3, 13))


def test_what_differs_between_two_runs_is_unknown(checked):
    text = CORRECT.replace("lr=0.1", "lr=__import__('random').random()")
    result = checked("train", text=text, time_limit=600.0)
    assert result.verdict == Verdict.UNKNOWN
    assert result.reason.startswith("two uninterrupted runs differ: lr at step 1, rank 0 (0.")


def test_weights_that_differ_between_two_runs_do_not_hide_the_schedule(checked):
    text = CORRECT.replace("torch.manual_seed(0)", "torch.seed()")
    result = checked("train", text=text)
    assert result.verdict == Verdict.HOLDS
    assert result.notes[0].startswith("two uninterrupted runs differ in their weights from step 1")
    assert not any(outcome.data for outcome in result.outcomes)


def test_a_command_to_resume_need_not_work_before_there_is_a_checkpoint(checked, tmp_path):
    text = CORRECT.replace(LOADS, "if '--resume' in os.sys.argv:").replace(
        "start = 0", "start = 0\nos.makedirs('runs', exist_ok=True)\nopen('runs/log', 'w').close()"
    )
    result = checked(
        "train", text=text, time_limit=600.0, resume=[sys.executable, "train.py", "--resume"]
    )
    assert (result.verdict, result.before, result.complete) == (Verdict.HOLDS, (0, 1, 2), True)


NOT_SEEN = "class Own:\n    def step(self):\n        pass\nOwn().step()\n"


@pytest.mark.parametrize(
    ("options", "text", "reason"),
    [
        (["-I"], "", "it runs python with -I, -E or -S"),
        ([], "print('no torch')", "never imports torch.optim"),
        ([], "import torch.optim\n" + NOT_SEEN, "no step of a torch.optim.Optimizer was seen"),
    ],
)
def test_nothing_recorded_is_unknown_with_what_to_do(options, text, reason, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("torch").mkdir()
    Path("torch/__init__.py").touch()
    Path("torch/optim").mkdir()  # a small torch
    Path("torch/optim/__init__.py").write_text("import torch.optim.optimizer")
    Path("torch/optim/optimizer.py").write_text("class Optimizer:\n    pass\n")
    Path("train.py").write_text(text)
    result = check_command(Request([sys.executable, *options, "train.py"], [Path("runs")]))
    assert result.verdict == Verdict.UNKNOWN
    assert reason in result.reason
    assert result_text(result).count("UNKNOWN") == 2


def test_what_the_recorder_could_not_do_is_unknown(checked):
    weight = "weight = torch.nn.Parameter(torch.ones(2, device='meta'))"
    text = CORRECT.replace("for step in", f"SGD = torch.optim.SGD\n{weight}\nfor step in").replace(
        "    optimizer.step()",
        "    optimizer.step()\n    SGD([weight], lr=1).step()",
    )
    result = checked("train", text=text)
    assert result.verdict == Verdict.UNKNOWN
    assert result.reason.startswith("the recorder failed: ")


@pytest.mark.slow
def test_a_resume_that_hangs_is_unknown(checked):
    hangs = f"import os, time\n{LOADS}\n    time.sleep(10000)\n"
    result = checked("train", text=hangs + CORRECT, time_limit=20.0, stop_after=4)
    assert (result.verdict, result.outcomes[0].verdict) == (Verdict.UNKNOWN, Verdict.UNKNOWN)
    assert "did not end in 20 s" in result.outcomes[0].reason


# ------------------------------------------------------------------ what is refused


def refused(checked, *arguments, **options):
    with pytest.raises(HarnessError) as error:
        checked(*arguments, **options)
    return str(error.value)


def test_checkpoints_that_are_never_written(checked):
    text = CORRECT.replace("runs", "elsewhere")
    assert refused(checked, "train", text=text) == (
        "the command writes nothing to runs; give the paths it saves to"
    )


def test_a_script_that_fails_by_itself_shows_its_output(checked):
    message = refused(checked, "train", text="print('so far'); 1 / 0", time_limit=600.0)
    first, *output = message.splitlines()
    assert (
        first
        == "the command fails by itself (exit status 1), so it can't be checked; its last output:"
    )
    assert (output[0], output[-1]) == ("so far", "ZeroDivisionError: division by zero")


def test_a_signal_after_the_last_step(checked):
    assert refused(checked, "correct", signal="TERM", at=(3, 12)) == (
        "no signal can be sent after step 12, because the run has only 12 steps; give smaller "
        "numbers with --at"
    )


def test_a_script_that_saves_nothing_when_told(checked):
    text = CORRECT.replace("        torch.save", "        if 0: torch.save").replace(
        "        os.replace", "        if 0: os.replace"
    )
    assert refused(checked, "train", text=text, signal="TERM", at=(3,)) == (
        "the command writes nothing to runs; give the paths it saves to"
    )


def test_no_space_for_the_snapshots(checked):
    lines = (
        "import resource, signal\n"
        "os.makedirs('runs', exist_ok=True)\n"
        "with open('runs/large', 'wb') as file:\n    file.write(bytes(100_000))\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))\n"
    )
    text = CORRECT.replace("start = 0", f"start = 0\n{lines}").replace(
        "STEPS, EVERY = 12, 3", "STEPS, EVERY = 2, 3"
    )
    message = refused(checked, "train", text=text)
    assert message.startswith("cannot store a snapshot: ")
    assert message.endswith("; set TMPDIR to a folder with more space")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--checkpoints=runs", "--", "no_such_program"], "there is no command 'no_such_program'"),
        (
            ["--checkpoints=runs", "--resume-with=no_such", "--", sys.executable],
            "no command 'no_such'",
        ),
        (["--checkpoints=runs", "--resume-with='", "--", sys.executable], "No closing quotation"),
        (["--checkpoints=..", "--", sys.executable, "x.py"], "holds the current folder"),
        (["--checkpoints=/tmp/x", "--", sys.executable, "x.py"], "is outside the current folder"),
        (["--", sys.executable, "x.py"], "with --checkpoints"),
        (["--checkpoints=runs"], "missing argument"),
        (["--checkpoints=runs", "--json=no/such/r.json", "--", sys.executable], "cannot write"),
        (["--checkpoints=runs", "--html=.", "--", sys.executable], "it is a folder"),
        (["--checkpoints=runs", "--scripts=/dev/null/x", "--", sys.executable], "cannot make the"),
        (["--scripts=a/b", "--plots=c", "--", sys.executable], "with --checkpoints"),
        (["--checkpoints=runs", "--time-limit=nan", "--", sys.executable], "number of seconds"),
        (["--checkpoints=runs", "--stop-after=0", "--", sys.executable], "0 is not in the range"),
        (["--checkpoints=runs", "--chain=0", "--", sys.executable], "0 is not in the range"),
        (["--checkpoints=runs", "--signal=TERM", "--", sys.executable], "both --signal and --at"),
        (["--checkpoints=runs", "--at=3", "--", sys.executable], "both --signal and --at"),
        (["--checkpoints=runs", "--at=3,x", "--", sys.executable], "'3,x' must be numbers of"),
        (["--checkpoints=runs", "--at=0", "--", sys.executable], "'0' must be numbers of steps"),
        (
            ["--checkpoints=runs", "--signal=NO", "--at=3", "--", sys.executable],
            "there is no signal 'NO'",
        ),
        (
            ["--checkpoints=runs", "--signal=KILL", "--at=3", "--", sys.executable],
            "a script can't handle SIGKILL",
        ),
    ],
)
def test_a_wrong_argument_is_one_sentence_and_status_2(words, message, command, tmp_path):
    status, printed, errors = command("train", *words)
    assert (status, printed) == (2, "")
    assert message in errors
    assert errors.strip().splitlines()[-1].lower().startswith("error: ")
    assert list(tmp_path.iterdir()) == []
