import contextlib
import errno
import io
import json
import os
import pty
import re
import shlex
import signal
import string
import subprocess
import sys
import tomllib
from dataclasses import replace

import pytest
import torch
from fork_server import CLOSED, PLACES, fork_harness, run_harness, status_of
from helpers import ROOT, served
from rich.console import Console

import harness
import lr_resume_harness
from harness import CHECKS, Budget, check_subject
from harness.checks.registry import ABOUT_EVENTS, IN_THIS_PROCESS, select_checks
from harness.cli.show import show_results
from harness.core.relations import AGAIN
from harness.core.result import FoundBy, Result
from harness.core.run import Role, Tally
from harness.core.trace import Trace
from harness.core.verdict import Reason, Verdict
from harness.report.result_file import dump_results, read_results
from harness.report.text import broken_text, failures, summary, table
from harness.subjects.lookup import as_subject
from lr_schedules.faults import FAULTS
from lr_schedules.subjects import SUBJECTS

ONE_CHECK = ("StepLR", "--check", "resume_by_pickle", "--max-examples", "0")
HOLDING = "lr_schedules.correct:Halving"  # on every torch
STEP_BUG = "step_size=3 gamma=0.5 train:3 save:a resume:a"
SHORT = [
    replace(subject, length=6)
    for subject in SUBJECTS
    if subject.name in ("StepLR", "ReduceLROnPlateau")
]
"""Two subjects that are swept in a quarter of the time."""


def test_help_does_not_import_torch():
    code = (
        "import atexit, runpy, sys\n"
        "atexit.register(lambda: print('torch' in sys.modules, 'hypothesis' in sys.modules))\n"
        "sys.argv = ['harness', '--help']\n"
        "runpy.run_module('lr_resume_harness', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": PLACES},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "replay" in done.stdout
    assert done.stdout.splitlines()[-1] == "False False"


def test_a_broken_check_exits_1_with_all_that_is_needed(command, tmp_path):
    status, printed, errors = command(
        "check", "StepLR", "--check", "resume_by_last_epoch", "--json", "r.json"
    )
    assert status == 1
    [result] = read_results(tmp_path / "r.json").results
    [failure] = failures([result])
    assert printed.startswith(broken_text(failure))
    found = failure.counterexample
    assert (str(found.trace), found.operation, found.step) == (STEP_BUG, 2, 0)
    assert (found.expected, found.actual) == ({"lr": [0.05, 0.005]}, {"lr": [0.025, 0.0025]})
    assert failure.relations == (AGAIN,)
    for name in ("replay", "script"):
        line = f'    lr-resume-harness {name} StepLR resume_by_last_epoch "{STEP_BUG}"'
        assert line in printed.splitlines()
    assert not re.search(r"^StepLR\s+B$", printed, re.MULTILINE)  # no table for a single pair
    assert printed.splitlines()[-1] == summary([result])
    assert errors.startswith("StepLR: 1 BROKEN (")


def test_the_commands_of_a_report_reproduce_it(command, run_script):
    name = "lr_schedules.faults:SUBJECTS.EmptiesTheDict"
    _, printed, _ = command("check", name, "--check", "resume_twice_from_one_dict")
    replay, script = (
        shlex.split(line)[1:] for line in printed.splitlines() if "lr-resume-harness" in line
    )
    status, again, _ = command(*replay)
    assert status == 1
    assert again.splitlines()[1] == printed.splitlines()[0]
    status, text, errors = command(*script)
    assert (status, errors) == (0, "")
    assert run_script(text).returncode == 1


def test_what_holds_exits_0(command):
    status, printed, _ = command("check", HOLDING, "--max-examples", 0)
    assert status == 0
    names = [check.name for check in select_checks()]
    by_hand = {check.name for check in ABOUT_EVENTS.values()}  # `HOLDING` replaces such an LR
    holding = served(names) - by_hand
    assert ("\nsubject " in printed) == (served(names) < set(names))
    assert "BROKEN" not in printed.replace("0 BROKEN", "")
    assert f" {len(holding)} HOLDS" in printed


@pytest.mark.parametrize(("checks", "printed"), [(3, True), (4, False)])
def test_more_than_a_few_entries_are_not_printed(checks, printed, capsys):
    names = served(check.name for check in IN_THIS_PROCESS if not check.event)
    chosen = [check for check in IN_THIS_PROCESS if check.name in names][:checks]
    results = list(check_subject(as_subject("faulty:Forgets"), chosen, Budget(0)))
    assert {result.verdict for result in results} == {"BROKEN"}
    show_results(results, ledger=True)
    text = capsys.readouterr().out
    assert (text.count("[[failure]]") == 3) == printed
    assert ("\n  lr-resume-harness ledger update FILE\n" in text) != printed


def test_a_reader_that_has_seen_enough_is_no_fault_of_the_subject(tmp_path):
    done = run_harness("list", folder=tmp_path, stdout=CLOSED)
    assert (done.returncode, done.stderr) == (2, "")


def test_two_subjects_are_a_table_in_80_columns_and_json_holds_the_same(command, tmp_path):
    file = tmp_path / "out.json"
    status, printed, errors = command(
        "check", "test_cli:SHORT", "--json", file, "--max-examples", 5, "--seed", 3
    )
    checks = select_checks(contract=True)
    assert status == 1
    rows = printed[printed.index("\nsubject") + 1 :].split("\n\n")[0].splitlines()
    assert len(rows) == 3
    assert all(len(line.rstrip()) <= 80 for line in rows)
    letters = "".join(rows[0].split()[1:])
    assert len(letters) == len(checks)
    for letter, check in zip(letters, checks, strict=True):
        assert f"\n{letter} {check.name}\n" in printed
    assert "DECLINED ReduceLROnPlateau: resume_by_last_epoch\n" in printed
    assert len(errors.splitlines()) == 2

    data = json.loads(file.read_text())
    assert list(tmp_path.iterdir()) == [file]
    assert (data["schema"], data["seed"], data["max_examples"], data["complete"]) == (2, 3, 5, True)
    assert data["torch"] == torch.__version__
    rows = {(row["subject"], row["check"]): row for row in data["results"]}
    assert len(rows) == 2 * len(checks)
    row = rows["StepLR", "resume_by_last_epoch"]
    found = row["counterexample"]
    assert (row["verdict"], found["trace"], found["operation"], found["step"]) == (
        "BROKEN",
        STEP_BUG,
        2,
        0,
    )
    assert found["expected"] == {"lr": [0.05, 0.005]}
    assert found["actual"] == {"lr": [0.025, 0.0025]}
    assert [run["role"] for run in found["runs"]] == ["uninterrupted", "resumed"]
    held = rows["StepLR", "resume_optimizer_then_scheduler"]
    assert held["verdict"] == "HOLDS"
    assert min(held["tally"][key] for key in ("traces", "steps", "resumes")) > 0
    assert held["counterexample"] is None
    runs = data["runs"]["StepLR"]
    rates = runs["step_size=3 gamma=0.5 train:6"]
    assert (len(rates), rates[2], rates[3]) == (7, [0.1, 0.01], [0.05, 0.005])
    assert len(runs) > 4
    assert any("optimizer=" in trace for trace in runs)
    assert rows["ReduceLROnPlateau", "resume_by_last_epoch"]["reason"]
    counts = re.search(r"(\d+) HOLDS, (\d+) BROKEN, (\d+) DECLINED, (\d+) UNKNOWN", printed)
    verdicts = [row["verdict"] for row in data["results"]]
    assert [int(count) for count in counts.groups()] == [
        verdicts.count(verdict) for verdict in ("HOLDS", "BROKEN", "DECLINED", "UNKNOWN")
    ]


def test_json_is_read_back_as_it_was(command, tmp_path):
    """Typed results survive the file, with tensors, exceptions and both runs."""
    file = tmp_path / "out.json"
    checks = ("resume_by_last_epoch", "lr_is_never_negative", "resume_with_changed_options")
    faults = [fault.name for fault in FAULTS if not {*checks}.isdisjoint(fault.caught_by)]
    subjects = [f"lr_schedules.faults:SUBJECTS.{name}" for name in faults]
    command("check", *subjects, "--json", file, "--max-examples", 0,
            *(f"--check={check}" for check in checks))  # fmt: skip
    again = read_results(file)
    assert dump_results(again) == file.read_text()
    for result in again.results:
        assert isinstance(result.verdict, Verdict)
        assert isinstance(result.why, Reason)
        assert isinstance(result.tally, Tally)
        if result.counterexample is not None:
            assert isinstance(result.counterexample.trace, Trace)
            assert isinstance(result.counterexample.found.by, FoundBy)
            assert all(isinstance(run.role, Role) for run in result.counterexample.runs)
    assert sum(result.counterexample is not None for result in again.results) > 10


def test_scripts_are_written_one_for_each_counterexample(command, tmp_path):
    status, printed, _ = command(
        "check", "faulty:Drains", "--scripts", tmp_path / "new" / "scripts", "--max-examples", 0
    )
    assert status == 1
    written = sorted(path.name for path in (tmp_path / "new" / "scripts").iterdir())
    assert len(written) == printed.count("\nBROKEN ") + printed.startswith("BROKEN ")
    assert written[0] == "Drains-loading_leaves_its_argument_alone.py"
    assert all(name in printed for name in written)


def test_a_subject_of_a_users_module(command, tmp_path, run_script):
    (tmp_path / "mine.py").write_text("from own_schedule import *\nfrom faulty import *\n")
    checks = ("--check", "resume_by_last_epoch", "--check", "resume_by_pickle", "--max-examples", 0)
    status, printed, _ = command("check", "mine:Halves", "--kwargs", "every=2", *checks)
    assert status == 1
    assert 'replay mine:Halves resume_by_last_epoch "every=2 train:2 save:a resume:a"' in printed
    status, printed, _ = command(
        "replay", "mine:Halves", "resume_by_last_epoch", "every=3 train:3 save:a resume:a"
    )
    assert (status, "\nBROKEN Halves: " in printed) == (1, True)
    status, printed, _ = command("check", "faulty:SUBJECTS", *checks)
    assert status == 0
    assert re.search(r"^WithFunctions .*$", printed, re.MULTILINE)
    status, printed, _ = command(
        "replay", "faulty:SUBJECTS.Counter", "resume_at_every_save", "save:a train:1"
    )
    assert (status, printed.split()[0]) == (0, "holds")


def test_a_check_of_a_users_module(command):
    status, printed, _ = command(
        "check", "ExponentialLR", "--check", "running:resume_from_the_start"
    )
    assert status == 1
    assert "replay ExponentialLR running:resume_from_the_start" in printed


def test_list_shows_every_subject_and_check(command):
    status, printed, _ = command("list")
    assert status == 0
    for subject in SUBJECTS:
        assert re.search(rf"^  {re.escape(subject.name)} ", printed, re.MULTILINE)
    for check in CHECKS:
        assert re.search(rf"^  {check.name} .*{re.escape(check.doc)}$", printed, re.MULTILINE)
    status, checks, _ = command("check", "--list-checks")
    assert status == 0
    assert all(check.name in checks for check in CHECKS)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["check", "faulty:NOT_ONE"], "faulty:NOT_ONE"),
        (["check", "faulty:Counter", "--kwargs", "every=2"], "every"),
        (["check", "faulty:returns_none"], "None"),
        (["check", "faulty:UNKNOWN_DECLINE"], "'resume_by_last_epoc'"),
        (["check", "faulty:raises"], "ValueError: no such luck"),
        (["check", "faulty:Hangs", "--time-limit", "0.2"], " 0.2 s "),
        (["replay", "faulty:SUBJECTS", "resume_from_file", "train:1"], "faulty:SUBJECTS.Counter"),
    ],
)
def test_a_mistake_is_one_sentence_and_exits_2(arguments, part, command, tmp_path):
    """The sentence has the value at fault in it; `test_bad_inputs` has more."""
    status, printed, errors = command(*arguments)
    assert status == 2
    assert part in errors
    assert "Traceback" not in errors + printed
    assert printed == ""
    assert len([line for line in errors.splitlines() if line.lower().startswith("error")]) == 1
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_path_is_said_before_the_search(command, monkeypatch):
    monkeypatch.setattr("harness.engine.session.check_subject", pytest.fail)
    assert command("check", "StepLR", "--json", "no/x.json")[0] == 2


def test_a_lambda_is_checked_and_has_a_script(command, tmp_path):
    status, printed, _ = command(
        "check",
        "faulty:halve",
        "--check",
        "resume_scheduler_alone",
        "--max-examples",
        0,
        "--scripts",
        tmp_path / "s",
    )
    assert status == 1
    [script] = (tmp_path / "s").iterdir()
    assert f"Script: {script}" in printed


@pytest.mark.parametrize(
    ("trace", "status", "answer"),
    [
        (STEP_BUG, 1, "BROKEN StepLR: "),
        ("step_size=3 gamma=0.5 train:2 save:a resume:a", 0, "holds "),
        ("step_size=3 gamma=0.5 train:2 save:a", 2, ""),
        ("step_size=0 train:2 save:a resume:a", 2, "ZeroDivisionError"),
    ],
)
def test_replay_says_which(trace, status, answer, command):
    found, printed, errors = command("replay", "StepLR", "resume_by_last_epoch", trace)
    assert (found, errors) == (status, "")
    assert answer in printed


def test_a_script_goes_to_a_file(command, tmp_path):
    status, printed, _ = command(
        "script", "StepLR", "resume_by_last_epoch", STEP_BUG, "-o", "bug.py"
    )
    assert (status, printed) == (0, "wrote bug.py\n")
    assert (tmp_path / "bug.py").read_text().startswith('"""StepLR: resume_by_last_epoch')
    _, _, errors = command("script", "ExponentialLR", "resume_from_file", "save:a resume:a")
    assert errors.startswith("note: ")


def test_unknown_exits_2_and_broken_comes_first(command):
    check = ("--check", "resume_by_last_epoch", "--max-examples", 0)
    status, printed, _ = command("check", "faulty:Random", "StepLR", *check)
    assert status == 1
    assert "\nUNKNOWN Random: " in printed
    status, printed, _ = command("check", "faulty:Random", HOLDING, *check)
    assert status == 2
    assert "HOLDS" in printed


@pytest.mark.parametrize("arguments", [["list"], ["check", *ONE_CHECK]])
def test_output_that_cannot_be_written_is_said(arguments, tmp_path):
    done = run_harness(*arguments, folder=tmp_path, stdout="/dev/full")
    assert done.returncode == 2
    assert re.search(f"error: .*: {os.strerror(errno.ENOSPC)}", done.stderr)
    assert "Traceback" not in done.stderr


def test_a_subject_named_twice_is_checked_once(command):
    _, printed, _ = command("check", "StepLR", "StepLR", "--check", "resume_by_pickle")
    assert "1 HOLDS, " in printed


def test_what_an_uninterrupted_run_does_not_reach_is_said(command, tmp_path):
    status, printed, _ = command(
        "check", "OneCycleLR", "--check", "resume_at_every_save", "--check", "resume_by_pickle",
        "--max-examples", 0, "--json", "r.json",
    )  # fmt: skip
    assert status == 0
    [note] = {result.note for result in read_results(tmp_path / "r.json").results}
    assert re.search("ValueError: .* epoch 11", note)
    assert f"  {note}" in printed.splitlines()


def test_ctrl_c_prints_what_was_found_and_exits_130(tmp_path):
    file = tmp_path / "out.json"
    reader, stderr = os.pipe()
    with (tmp_path / "printed").open("w") as stdout:
        process = fork_harness(
            "check", "StepLR", "faulty:Hangs", "--json", file, "--max-examples", 0, "--no-ledger",
            "--check", "resume_by_last_epoch", folder=tmp_path, stdout=stdout.fileno(),
            stderr=stderr,
        )  # fmt: skip
    os.close(stderr)
    with open(reader) as errors:
        assert errors.readline().startswith("StepLR: ")
        os.kill(process, signal.SIGINT)
        rest = errors.read()
    assert status_of(process) == 130
    assert "interrupted" in rest
    assert "Traceback" not in rest
    assert "BROKEN StepLR: resume_by_last_epoch" in (tmp_path / "printed").read_text()
    data = json.loads(file.read_text())
    assert data["complete"] is False
    assert {row["subject"] for row in data["results"]} == {"StepLR"}


def test_a_terminal_sees_a_live_bar(tmp_path, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    leader, follower = pty.openpty()
    with (tmp_path / "printed").open("wb") as stdout:
        process = fork_harness(
            "check", HOLDING, "--max-examples", 0, folder=tmp_path, stdout=stdout.fileno(),
            stderr=follower,
        )  # fmt: skip
    os.close(follower)
    seen = b""
    with contextlib.suppress(OSError):  # on Linux, that is how a terminal ends
        while part := os.read(leader, 65536):
            seen += part
    os.close(leader)
    assert status_of(process) == 0
    assert b"Halving" in seen
    assert f"/{len(select_checks())}".encode() in seen
    assert b"\x1b[" in seen
    assert b"\x1b[" not in (tmp_path / "printed").read_bytes()


def test_the_version_is_that_of_the_package(command):
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert pyproject["project"]["dynamic"] == ["version"]
    status, printed, _ = command("--version")
    assert (status, printed.split()[-1]) == (0, harness.__version__)


def test_the_console_script_is_the_same_program():
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert pyproject["project"]["scripts"] == {"lr-resume-harness": "lr_resume_harness:main"}
    assert callable(lr_resume_harness.main)


def test_the_letters_of_many_checks_stand_side_by_side():
    """So a table of all of them fits in 80 columns."""
    results = [
        Result("CosineAnnealingWarmRestarts", f"check {number}", "HOLDS") for number in range(40)
    ]
    printed = io.StringIO()
    Console(file=printed, width=80).print(table(results))
    letters = string.ascii_lowercase + string.ascii_uppercase[:14]
    assert [line.split() for line in printed.getvalue().splitlines()] == [
        ["subject", letters], ["CosineAnnealingWarmRestarts", "H" * 40]
    ]  # fmt: skip


def test_a_check_is_explained(command):
    status, printed, _ = command("explain", "resume_by_last_epoch")
    assert status == 0
    assert printed.startswith("resume_by_last_epoch: Load the optimizer's state, then build with ")
    for title in ("who ", "mend ", "decline ", "This keeps it:", "This breaks it:"):
        assert f"\n{title}" in printed
    assert "class Mine(LRScheduler):" in printed
    status, printed, _ = command("explain", "running:resume_from_the_start")
    assert (status, printed.splitlines()[0]) == (0, "resume_from_the_start: Start again.")
