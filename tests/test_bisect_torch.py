"""That ``scripts/bisect_torch.py`` finds the change, and leaves nothing behind.

Its installer is a fake one: an environment holds the number of its torch, and its Python prints
what `VERDICTS` says for that number.
"""

import importlib.metadata
import importlib.util
import math
import os
import signal
import subprocess
import sys
import time

import pytest
from fork_server import heed_ctrl_c
from helpers import ROOT
from hypothesis import example, given
from hypothesis import strategies as st
from packaging.version import Version

from harness.core.errors import HarnessError

spec = importlib.util.spec_from_file_location("bisect_torch", ROOT / "scripts/bisect_torch.py")
bisect_torch = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = bisect_torch
spec.loader.exec_module(bisect_torch)

GOOD, BAD, SKIP = bisect_torch.GOOD, bisect_torch.BAD, bisect_torch.SKIP
Change = bisect_torch.Change

# Which torch an environment has is a file in it; the bug is in those before 2.5.
FAKE_PYTHON = """#!{python} -IS
import os, subprocess, sys
arguments = sys.argv[1:]
environment = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
with open({log!r}, "a") as file:
    print("python", *arguments, file=file)
if arguments[:4] == ["-m", "pip", "index", "versions"]:
    print("torch (2.6.0)\\nAvailable versions: 2.6.0, 2.5.1+cpu, 2.5.1, 2.5.0, 2.5.0rc1, 2.4.1, "
          "2.4.0, 2.3.1, 1.13.1, 1.12.0\\n  LATEST: 2.6.0")
elif arguments[:2] == ["-m", "venv"] or arguments[:3] == ["-m", "pip", "install"]:
    place = [sys.argv[0]] * ("install" in arguments)
    sys.exit(subprocess.call(["fake-uv", *arguments[1:], *place]))
else:
    number = open(environment + "/torch").read()
    print("torch", os.environ.get("OTHER_TORCH", number))
    if number in os.environ.get("CANNOT_RUN", "").split():
        sys.exit("no such scheduler")
    if number in os.environ.get("RAISES", "").split():
        raise KeyError(number)
    old = tuple(map(int, number.split("."))) < (2, 5)
    print("The bug is there." if old else "The runs are the same: the bug is gone.")
    sys.exit(old)
"""

FAKE_UV = """#!{python} -IS
import os, shutil, subprocess, sys, time
arguments = sys.argv[1:]
with open({log!r}, "a") as file:
    print(os.path.basename(__file__), *arguments, file=file)
if "venv" in arguments:
    if "CANNOT_MAKE" in os.environ:
        sys.exit("error: no interpreter found")
    os.makedirs(arguments[-1] + "/bin")
    shutil.copy({fake_python!r}, arguments[-1] + "/bin/python")
else:
    (number,) = [said[7:] for said in arguments if said.startswith("torch==")]
    if number in os.environ.get("CANNOT_INSTALL", "").split():
        sys.exit("  no wheel\\n  ╰─▶ there is no torch " + number)
    if "DISK_FULL" in os.environ:
        sys.exit("error: failed to extract: No space left on device (os error 28)")
    if "SLOW" in os.environ:
        open(os.environ["TMPDIR"] + "/half of a wheel", "w").write("x")
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(6000)"])
        open(os.environ["SLOW"], "w").write(str(child.pid))
        time.sleep(6000)
    (place,) = [said for said in arguments if said.endswith("/bin/python")]
    open(os.path.dirname(os.path.dirname(place)) + "/torch", "w").write(number)
"""

# What is tried is not what writes the script, and torch takes seconds to import.
DRIVER = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("bisect_torch", {path!r})
bisect_torch = sys.modules["bisect_torch"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(bisect_torch)
bisect_torch.write_script = lambda releases, *trace: releases.folder / "script.py"
bisect_torch.main()
"""

TRACE = ("ExponentialLR", "resume_by_last_epoch", "gamma=0.5 train:1 save:a resume:a")


@pytest.fixture
def fakes(tmp_path):
    """A folder with fake commands, one of them uv, and the log of what they were called with."""
    tools, log = tmp_path / "tools", tmp_path / "log"
    tools.mkdir()
    log.touch()
    texts = {"fake-python": FAKE_PYTHON, "uv": FAKE_UV, "fake-uv": FAKE_UV}
    for name, text in texts.items():
        file = tools / name
        made = {"python": sys.executable, "log": str(log), "fake_python": f"{tools}/fake-python"}
        for key, value in made.items():
            text = text.replace(f"{{{key}!r}}", repr(value)).replace(f"{{{key}}}", value)
        file.write_text(text)
        file.chmod(0o755)
    return tools, log


@pytest.fixture
def start(fakes, tmp_path):
    """Starts the script in an empty folder with the fakes, and with a TMPDIR of its own."""
    tools, _ = fakes
    folder, scratch = tmp_path / "here", tmp_path / "scratch"
    folder.mkdir()
    scratch.mkdir()

    def start(*arguments, real=False, **variables):
        path = str(ROOT / "scripts/bisect_torch.py")
        program = [path] if real else ["-c", DRIVER.format(path=path)]
        environment = {
            **os.environ,
            "PATH": str(tools),
            "PYTHONPATH": str(ROOT),
            "TMPDIR": str(scratch),
            **variables,
        }
        return subprocess.Popen(
            [sys.executable, *program, "--min-free", "0", *arguments],
            cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            preexec_fn=heed_ctrl_c,
        )  # fmt: skip

    return start


@pytest.fixture
def run(start, tmp_path):
    """Runs it to its end, sees that nothing is left, and returns status, output and errors."""

    def run(*arguments, **variables):
        process = start(*arguments, **variables)
        output, errors = process.communicate(timeout=300)
        assert list((tmp_path / "scratch").iterdir()) == []
        assert list((tmp_path / "here").iterdir()) == []
        return process.returncode, output, errors

    return run


@st.composite
def histories(draw):
    """Verdicts of releases that change once, the releases that are skipped, and the change."""
    size = draw(st.integers(2, 60))
    change = draw(st.integers(1, size - 1))
    was = draw(st.sampled_from([GOOD, BAD]))
    verdicts = [was] * change + [BAD if was == GOOD else GOOD] * (size - change)
    skipped = draw(st.sets(st.integers(0, size - 1), max_size=size // 2))
    return [SKIP if i in skipped else verdict for i, verdict in enumerate(verdicts)], change


@given(histories())
@example(([BAD, SKIP, GOOD], 1))
@example(([SKIP, BAD, SKIP, SKIP, GOOD, SKIP], 3))
def test_bisect_finds_the_change_and_asks_few(history):
    verdicts, change = history
    asked = []

    def ask(index):
        asked.append(index)
        return verdicts[index]

    before = [index for index in range(change) if verdicts[index] != SKIP]
    after = [index for index in range(change, len(verdicts)) if verdicts[index] != SKIP]
    if not before and not after:
        with pytest.raises(HarnessError, match="and none can"):
            bisect_torch.bisect(range(len(verdicts)), ask)
    elif len(before + after) == 1:
        with pytest.raises(HarnessError, match=f"and only {(before + after)[0]} can"):
            bisect_torch.bisect(range(len(verdicts)), ask)
    elif not before or not after:
        runs = before or after
        same = Change(runs[0], runs[-1], verdicts[runs[0]], verdicts[runs[0]])
        assert bisect_torch.bisect(range(len(verdicts)), ask) == same
    else:
        found = bisect_torch.bisect(range(len(verdicts)), ask)
        between = tuple(range(before[-1] + 1, after[0]))
        was, becomes = verdicts[before[-1]], verdicts[after[0]]
        assert found == Change(before[-1], after[0], was, becomes, between)
        skipped = sum(verdicts[index] == SKIP for index in asked)
        assert len(asked) - skipped <= 2 + math.ceil(math.log2(len(verdicts)))
    assert len(asked) == len(set(asked))


def test_it_finds_the_first_release_where_the_bug_is_gone(run, fakes):
    status, output, errors = run(*TRACE)
    lines = [line.rpartition(" (")[0] for line in output.splitlines()[:4]]
    assert lines == [
        "1.13.1: the bug is there",
        "2.6.0: the bug is gone",
        "2.4.1: the bug is there",
        "2.5.0: the bug is gone",
    ]
    assert output.splitlines()[5:] == [
        "first torch where it is gone: 2.5.0 (2.4.1 still has it)",
        "",
        "With torch 2.4.1:",
        "",
        "torch 2.4.1",
        "The bug is there.",
        "",
        "With torch 2.5.0:",
        "",
        "torch 2.5.0",
        "The runs are the same: the bug is gone.",
    ]
    assert (status, errors) == (0, "")
    calls = fakes[1].read_text()
    assert calls.count("uv venv") == 5  # one of them has the pip that lists the releases
    assert "torch==1.13.1 numpy<2\n" in calls
    assert "torch==2.4.1 numpy\n" in calls


def test_pip_is_used_where_there_is_no_uv(run, fakes):
    tools, log = fakes
    (tools / "uv").unlink()
    chosen = ["--oldest", "2.4", "--newest", "2.5.0", "--python", tools / "fake-python"]
    status, output, _ = run(*TRACE, *chosen)
    assert status == 0
    assert "gone: 2.5.0 (2.4.1 still has it)" in output
    assert "python -m venv" in log.read_text()
    assert "python -m pip install --no-cache-dir --no-compile torch==2.4.1 numpy\n" in (
        log.read_text()
    )


def test_a_release_that_cannot_be_had_or_run_is_skipped_and_said(run):
    chosen = ["--versions", "2.3.1,2.4.0,2.4.1,2.5.0,2.5.1,2.6.0"]
    status, output, _ = run(
        *TRACE, *chosen, CANNOT_INSTALL="2.4.1", CANNOT_RUN="2.5.0", RAISES="2.5.1"
    )
    assert status == 0
    assert "2.4.1: cannot be installed (there is no torch 2.4.1) (" in output
    assert "2.5.0: cannot run it (no such scheduler) (" in output
    assert "2.5.1: cannot run it (KeyError: '2.5.1') (" in output  # also with exit status 1
    assert (
        "\nfirst torch where it is gone: one of 2.4.1, 2.5.0, 2.5.1, 2.6.0 (2.4.0 still has it; "
        "2.4.1, 2.5.0, 2.5.1 cannot run it)\n"
    ) in output


def test_ends_that_agree_are_no_change(run):
    status, output, _ = run(*TRACE, "--newest", "2.4.1")
    assert status == 1
    assert "\nthe bug is there with torch 1.13.1 and with 2.4.1, the oldest and the" in output
    assert output.count("The bug is there.") == 2


@pytest.mark.slow
def test_the_real_script_is_run(fakes, run):
    (fakes[0] / "fake-python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    bug = ("StepLR", "resume_by_last_epoch", "step_size=3 gamma=0.5 train:3 save:a resume:a")
    here = importlib.metadata.version("torch").partition("+")[0]
    status, output, errors = run(*bug, "--versions", f"{here},{here}.1", real=True)
    assert output.startswith(f"{here}: the bug is there (")
    assert status == 2
    assert errors.startswith(f"error: the script is run by torch {here}")
    assert f" and not by {here}.1: take it off PYTHONPATH" in errors


@pytest.mark.parametrize(
    ("arguments", "variables", "said"),
    [
        (["--versions", "2.4.1"], {}, "a bisection needs at least two releases of torch (chosen: "),
        (["--versions", "2.4.1,new"], {}, "--versions: Invalid version: 'new'; write it like"),
        (["--oldest", "2.5,2.6"], {}, "--oldest must be one version (got '2.5,2.6')"),
        (["--oldest", "2.6.0"], {}, "a bisection needs at least two releases of torch (chosen: "),
        (["--oldest", "2", "--versions", "2.4.1,2.5.0"], {}, "give either --versions, or"),
        (["--min-free", "1e9"], {}, "GB are free in "),
        ([], {"DISK_FULL": "1"}, "is full: free some space, or set TMPDIR to a folder on another"),
        ([], {"CANNOT_MAKE": "1"}, "(error: no interpreter found): give another --python"),
        (
            ["--versions", "2.4.1,2.5.0,2.6.0"],
            {"CANNOT_RUN": "2.4.1 2.6.0"},
            "needs two releases that can run it, and only 2.5.0 can: see why",
        ),
        (
            ["--versions", "2.4.1,2.5.0"],
            {"CANNOT_INSTALL": "2.4.1 2.5.0"},
            "needs two releases that can run it, and none can: see why",
        ),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(run, arguments, variables, said):
    status, _, errors = run(*TRACE, *arguments, **variables)
    assert status == 2
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    assert said in errors


def test_a_wrong_subject_is_said_before_anything_is_installed(run, fakes):
    status, _, errors = run("NoSuchLR", *TRACE[1:], real=True)
    assert status == 2
    assert errors.startswith("error: ")
    assert "NoSuchLR" in errors
    assert errors.count("\n") == 1
    assert fakes[1].read_text() == ""


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_interrupted_it_leaves_no_file_and_no_process(start, tmp_path, number, status):
    slow = tmp_path / "slow"
    process = start(*TRACE, SLOW=str(slow))
    until = time.monotonic() + 600
    while not (slow.exists() and slow.read_text()) and time.monotonic() < until:
        time.sleep(0.02)
    scratch = tmp_path / "scratch"
    assert [file.name for file in scratch.glob("*/scratch/half*")] == ["half of a wheel"]
    process.send_signal(number)
    process.send_signal(number)  # a second one does not interrupt the removal
    _, errors = process.communicate(timeout=300)
    assert (process.returncode, errors) == (status, "interrupted: nothing is left behind\n")
    assert list(scratch.iterdir()) == []
    until = time.monotonic() + 600
    while _runs(int(slow.read_text())) and time.monotonic() < until:
        time.sleep(0.02)
    assert not _runs(int(slow.read_text()))


def _runs(process):
    """Whether a process is there; one that has ended but was not waited for is not."""
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_child_gets_what_was_said_to_pip_and_writes_to_its_scratch_folder(tmp_path):
    given = {
        "PIP_FIND_LINKS": "/a /b",
        "PIP_EXTRA_INDEX_URL": "file:///wheels",
        "PIP_TARGET": "/elsewhere",
        "UV_TORCH_BACKEND": "cpu",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": "/mine",
    }
    made = bisect_torch.child_environment(given, tmp_path, installs=True)
    assert made == {
        "PIP_FIND_LINKS": "/a /b",
        "PIP_EXTRA_INDEX_URL": "file:///wheels",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "UV_FIND_LINKS": "/a,/b",
        "UV_INDEX": "file:///wheels",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_TORCH_BACKEND": "cpu",
        "TMPDIR": str(tmp_path),
        "PYTHONPYCACHEPREFIX": str(tmp_path / "bytecode"),
    }
    given["UV_FIND_LINKS"] = "/own"
    made = bisect_torch.child_environment(given, tmp_path, installs=False)
    assert made["UV_FIND_LINKS"] == "/own"
    assert made["PYTHONPATH"] == f"{os.getcwd()}{os.pathsep}/mine"


def test_a_command_that_hangs_is_ended(tmp_path):
    signals = bisect_torch.Signals()
    releases = bisect_torch.Releases(tmp_path, signals, sys.executable, 0.0, uv=None)
    done = releases.execute([sys.executable, "-c", "import time; time.sleep(6000)"], time_limit=0.2)
    assert bisect_torch.verdict_of(done, Version("2.4.1")) == SKIP
    assert done.reason == "it ran longer than 0.2 s"
