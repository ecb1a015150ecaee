"""A hostile subject disturbs neither the other pairs nor the report.

`hostile` has them. Left out is what no process survives: ``os._exit``, a crash.
"""

import json
import os
import random
import sys
import threading
import warnings

import hostile
import numpy
import pytest
import torch
from torch.optim.lr_scheduler import ExponentialLR

from harness import Budget, Subject, check_subject
from harness.checks.registry import select_checks
from harness.core.guard import Guard
from harness.core.training_loop import new_sgd
from harness.core.verdict import Reason, Verdict

HARMLESS = Subject("harmless", ExponentialLR, options={"gamma": 0.9})
FEW = select_checks(["resume_optimizer_then_scheduler", "resume_by_pickle"])
SWEEP = Budget(max_examples=0)

DISTURBS = [name for name in hostile.SUBJECTS if not name.startswith(("Exits", "Fork"))]


new_sgd()  # the first optimizer imports the rest of torch, which sets what it needs


def state():
    """All that a subject must not change."""
    return {
        "random": random.getstate(),
        "numpy": numpy.random.get_state()[1].tolist(),
        "torch": torch.get_rng_state().tolist(),
        "dtype": torch.get_default_dtype(),
        "device": torch.empty(0).device,
        "gradients": torch.is_grad_enabled(),
        "threads": torch.get_num_threads(),
        "folder": os.getcwd(),
        "environment": {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"},
        "warnings": list(warnings.filters),
        "stdout": sys.stdout,
    }


def verdicts(results):
    return {(result.subject, result.check): result.verdict for result in results}


@pytest.mark.parametrize("name", DISTURBS)
def test_what_a_subject_changes_is_as_before(name, capfd):
    before = state()
    results = list(check_subject(hostile.SUBJECTS[name], FEW, SWEEP))
    after = state()
    assert [key for key in before if before[key] != after[key]] == []
    assert capfd.readouterr().out.replace("written to the file descriptor\n", "").replace(
        "printed by a child\n", ""
    ) == ""  # fmt: skip
    expected = Verdict.UNKNOWN if name == "ChangesDevice" else Verdict.HOLDS
    if name == "ChangesDevice" and not hasattr(torch, "set_default_device"):
        expected = Verdict.HOLDS
    assert {result.verdict for result in results} == {expected}
    assert not any(result.why == Reason.HARNESS_ERROR for result in results)


def test_the_settings_of_the_process_are_kept_where_they_are_not_the_usual_ones():
    torch.set_default_dtype(torch.float64)
    try:
        list(check_subject(hostile.SUBJECTS["ChangesDtype"], FEW, SWEEP))
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_the_other_pairs_are_as_they_are_alone(harness_command, tmp_path):
    names = ["Prints", "PrintsBelowPython", "Warns", "ChangesDtype", "ChangesEnvironment"]
    last = ["StepLR", "--kwargs", ""]
    arguments = ["--check", "resume_by_last_epoch", "--no-ledger", "--max-examples", 0]
    alone = harness_command("check", *last, *arguments)
    after = harness_command(
        "check", *(f"hostile:ALL.{name}" for name in names), *last, *arguments, "--json", "out.json"
    )
    assert (alone.returncode, after.returncode) == (1, 1)
    block = alone.stdout[: alone.stdout.index("\ntorch ")].strip()
    assert block.startswith("BROKEN StepLR")
    assert block in after.stdout
    for said in ("a line of a scheduler", "file descriptor", "printed by a child", "warning of"):
        assert said not in after.stdout
    once = "Prints: its output is not shown; it begins: a line of a scheduler\n"
    assert after.stderr.count(once) == 1
    assert "UserWarning" not in after.stderr
    rows = json.loads((tmp_path / "out.json").read_text())["results"]
    by_subject = {row["subject"]: row["verdict"] for row in rows}
    assert list(by_subject) == [*names, "StepLR"]


def test_standard_output_is_a_json_file(harness_command):
    done = harness_command(
        "check", "hostile:ALL.Prints", "hostile:ALL.PrintsBelowPython", "--check",
        "resume_optimizer_then_scheduler", "--max-examples", 0, "--json", "/dev/stderr",
    )  # fmt: skip
    assert done.returncode == 0
    assert done.stdout.startswith("NOT TRIED: epoch (-v says why)\n")
    assert "one more {" not in done.stdout


@pytest.mark.parametrize(
    ("name", "verdict"),
    [
        ("ExitsWhenBuilt", Verdict.UNKNOWN),
        ("ExitsAtAStep", Verdict.HOLDS),
        ("ExitsWhenSaved", Verdict.BROKEN),
        ("ExitsWhenLoaded", Verdict.BROKEN),
        ("ExitsWhenCopied", Verdict.BROKEN),
        ("ExitsWhenAsked", Verdict.HOLDS),
        ("ExitsWithLastEpoch", Verdict.BROKEN),
        ("ExitsOnOtherOptions", Verdict.HOLDS),
    ],
)
def test_sys_exit_is_an_exception_of_the_subject(name, verdict):
    checks = FEW
    if name == "ExitsWithLastEpoch":  # others may be broken there, by torch itself
        checks = [*FEW, *select_checks(["resume_by_last_epoch"])]
    results = list(check_subject(hostile.SUBJECTS[name], checks, SWEEP))
    assert len(results) == len(checks)
    found = {result.verdict for result in results}
    assert found == ({verdict} if verdict != Verdict.BROKEN else {Verdict.HOLDS, Verdict.BROKEN})
    for result in results:
        if result.verdict == Verdict.BROKEN:
            assert result.counterexample.actual == {"raises": "SystemExit: 0"}


@pytest.mark.skipif("not hasattr(os, 'fork')", reason="this system can't fork")
@pytest.mark.parametrize("name", ["Forks", "ForksAndExits"])
def test_a_fork_ends_where_it_comes_back(name, harness_command, tmp_path):
    done = harness_command(
        "check", f"hostile:ALL.{name}", "LinearAnnealingLR", "--check",
        "resume_optimizer_then_scheduler",
        "--max-examples", 0, "--json", "out.json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("torch 2") + done.stdout.count("torch 1") == 1
    assert "2 subjects, 1 check: 2 HOLDS" in done.stdout
    assert done.stderr.count("LinearAnnealingLR: 1 HOLDS") == 1
    assert len(json.loads((tmp_path / "out.json").read_text())["results"]) == 2


@pytest.mark.skipif("not hasattr(os, 'fork')", reason="this system can't fork")
@pytest.mark.parametrize("raises", [False, True])
def test_a_child_that_comes_back_does_no_work(tmp_path, raises):
    written = tmp_path / "pids"

    class ForksFiveTimes(ExponentialLR):
        calls = 0

        def step(self):
            ForksFiveTimes.calls += 1
            if ForksFiveTimes.calls > 5:
                return super().step()
            with written.open("a") as file:
                file.write(f"{os.getpid()}\n")
            child = os.fork() == 0
            if child and raises:
                raise ValueError("in the child")
            return super().step()

    subject = Subject("forks", ForksFiveTimes, options={"gamma": 0.9}, length=2)
    results = list(check_subject(subject, FEW[:1], SWEEP))
    assert [result.verdict for result in results] == [Verdict.HOLDS]
    assert set(written.read_text().split()) == {str(os.getpid())}


@pytest.mark.skipif("not hasattr(os, 'fork')", reason="this system can't fork")
def test_a_child_may_do_its_own_work(tmp_path):
    with Guard("forks").on():
        pid = os.fork()
        if pid == 0:
            (tmp_path / "done").write_text("by a child")
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert (tmp_path / "done").read_text() == "by a child"


def test_a_module_that_prints_and_exits_at_import_is_said(harness_command, tmp_path):
    (tmp_path / "prints.py").write_text(
        "import os, torch\n"
        "print('at import')\n"
        "os.write(1, b'below')\n"
        "torch.set_default_dtype(torch.float16)\n"
        "from torch.optim.lr_scheduler import ExponentialLR as Decays\n"
    )
    (tmp_path / "exits.py").write_text("print('at import')\nimport sys\nsys.exit(0)\n")
    done = harness_command("check", "exits:Decays")
    assert (done.returncode, done.stdout) == (2, "")
    assert "error: cannot import 'exits' for 'exits:Decays' (SystemExit: 0)" in done.stderr
    done = harness_command(
        "check",
        "prints:Decays",
        "--kwargs",
        "gamma=0.9",
        "--check",
        "resume_optimizer_then_scheduler",
    )
    assert done.returncode == 0
    first, last = done.stdout.splitlines()
    assert first.startswith("looked at: epochs ")
    assert last.startswith(f"torch {torch.__version__}: 1 subject, ")
    assert done.stderr.startswith("prints: its output is not shown; it begins: at import\nDecays: ")


def test_a_class_that_raises_at_import_is_one_sentence(harness_command, tmp_path):
    (tmp_path / "raises.py").write_text("class Decays:\n    table = {}['factor']\n")
    done = harness_command("check", "raises:Decays")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: cannot import 'raises' for 'raises:Decays' (KeyError: 'factor')\n"
    )


def test_a_constructor_that_never_ends_meets_the_time_limit(harness_command, tmp_path):
    """Even if it swallows the first alarm. The other subject has all the time it needs."""
    (tmp_path / "slow.py").write_text(
        "import time\n"
        "from time_is_up import ring_soon\n"
        "from torch.optim.lr_scheduler import ExponentialLR\n"
        "class Slow(ExponentialLR):\n"
        "    def __init__(self, *given, **more):\n"
        "        ring_soon()\n"
        "        try:\n"
        "            time.sleep(600)\n"
        "        except BaseException:\n"
        "            pass\n"
        "        time.sleep(600)\n"
    )
    done = harness_command(
        "check", "slow:Slow", "lr_schedules.correct:Halving", "--check",
        "resume_optimizer_then_scheduler", "--time-limit",
        600, "--max-examples", 0, "--json", "out.json",
    )  # fmt: skip
    assert done.returncode == 2
    assert "the time limit of 600 s ran out" in done.stdout
    assert "1 HOLDS, 0 BROKEN, 0 DECLINED, 1 UNKNOWN" in done.stdout
    rows = json.loads((tmp_path / "out.json").read_text())["results"]
    assert [row["verdict"] for row in rows] == [Verdict.UNKNOWN, Verdict.HOLDS]


def test_what_is_printed_is_said_once_a_subject(capsys):
    class Chatty(ExponentialLR):
        def step(self):
            print()
            print("first", "line")
            sys.stdout.write("more")
            sys.stdout.buffer.write(b"below")
            super().step()

    subject = Subject("chatty", Chatty, options={"gamma": 0.9})
    list(check_subject(subject, FEW, SWEEP))
    printed, errors = capsys.readouterr()
    assert (printed, errors) == ("", "chatty: its output is not shown; it begins: first line\n")


def test_a_guard_in_another_thread_and_inside_another():
    done = []

    def work():
        with Guard("outer").on(), Guard("inner").on():
            done.append(verdicts(check_subject(HARMLESS, FEW, SWEEP)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert set(done[0].values()) == {Verdict.HOLDS}


def test_what_is_raised_inside_comes_out_and_all_is_as_before():
    before = state()

    def harm():
        with Guard("raises").on():
            torch.set_default_dtype(torch.float16)
            os.chdir("/")
            raise KeyError

    with pytest.raises(KeyError):
        harm()
    assert {key for key, value in state().items() if value != before[key]} == set()
