"""An output that fails is told, stops no other output, and changes no verdict."""

import errno
import json
import os
import re
from pathlib import Path

import pytest
from fork_server import CLOSED, fork_harness, run_harness, status_of
from torch.optim.lr_scheduler import StepLR

from harness.core.errors import ScriptError

BROKEN = ("check", "StepLR", "--check", "resume_by_last_epoch", "--max-examples", "0",
          "--no-ledger")  # fmt: skip
HOLDS = ("check", "StepLR", "--check", "resume_by_pickle", "--max-examples", "0", "--no-ledger")
VERDICT = {BROKEN: 1, HOLDS: 2}
"""The exit status of each where an output fails."""
FULL = os.strerror(errno.ENOSPC)
full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
both = pytest.mark.parametrize("arguments", [BROKEN, HOLDS], ids=["broken", "holds"])


class Leaves(StepLR):
    """Removes the folder ``gone`` of the run, if it is there, when it is built."""

    def __init__(self, optimizer, step_size=3, gamma=0.5, last_epoch=-1):
        super().__init__(optimizer, step_size, gamma, last_epoch)
        folder = Path("gone")
        if folder.is_dir():
            folder.rmdir()


def started(arguments, folder, **output):
    done = run_harness(*arguments, folder=folder, **output)
    assert "Traceback" not in done.stderr
    return done


def assert_written(folder, status):
    """That the data, the page and the summary of a run are whole."""
    verdict = {1: "BROKEN", 2: "HOLDS"}[status]
    data = json.loads((folder / "r.json").read_text())
    assert [result["verdict"] for result in data["results"]] == [verdict]
    assert (folder / "r.html").read_text().rstrip().endswith("</html>")


FILES = ("--json", "r.json", "--html", "r.html", "--scripts", "d", "--plots", "d")


@full
@both
def test_standard_output_on_a_full_disk(arguments, tmp_path):
    done = started([*arguments, *FILES], tmp_path, stdout="/dev/full")
    assert done.returncode == VERDICT[arguments]
    assert re.search(f"^error: .*: {FULL}$", done.stderr, re.MULTILINE)
    assert_written(tmp_path, done.returncode)
    names = {path.suffix for path in (tmp_path / "d").iterdir()}
    assert names == ({".py", ".svg"} if arguments is BROKEN else set())


@both
def test_a_closed_pipe(arguments, tmp_path):
    done = started([*arguments, *FILES], tmp_path, stdout=CLOSED)
    assert done.returncode == VERDICT[arguments]
    assert re.search(f"^error: .*: {os.strerror(errno.EPIPE)}$", done.stderr, re.MULTILINE)
    assert_written(tmp_path, done.returncode)


@both
def test_nobody_reads_standard_error(arguments, tmp_path):
    done = started([*arguments, "--json", "r.json"], tmp_path, stderr=CLOSED)
    assert done.returncode == (1 if arguments is BROKEN else 0)
    assert re.search(r"1 (BROKEN|HOLDS)", done.stdout)
    assert (tmp_path / "r.json").exists()


@full
@both
@pytest.mark.parametrize("option", ["--json", "--html"])
def test_a_file_on_a_full_disk(command, tmp_path, arguments, option):
    others = {"--json": ("--html", "r.html"), "--html": ("--json", "r.json")}[option]
    status, printed, errors = command(*arguments, option, "/dev/full", *others, "--scripts", "d")
    assert status == VERDICT[arguments]
    assert errors.count("error: ") == 1
    assert re.search(f"error: .* /dev/full: {FULL}", errors)
    assert re.search(r"\d HOLDS, \d BROKEN", printed)
    assert (tmp_path / others[1]).stat().st_size
    assert len(list((tmp_path / "d").iterdir())) == (arguments is BROKEN)


@both
def test_the_summary_of_the_job_is_a_copy(command, tmp_path, arguments, monkeypatch):
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "no" / "summary"))
    status, printed, errors = command(*arguments, "--ci", "github", "--json", "r.json")
    assert status == (1 if arguments is BROKEN else 0)
    assert re.search(f"^warning: .*{tmp_path / 'no' / 'summary'}", errors, re.MULTILINE)
    assert printed.count("::error ") == (arguments is BROKEN)
    assert (tmp_path / "r.json").exists()


@pytest.mark.parametrize("option", ["--scripts", "--plots"])
def test_a_folder_that_is_removed_in_the_run(command, tmp_path, option):
    if option == "--plots":
        pytest.importorskip("matplotlib.backends.backend_svg")
    other = {"--scripts": "--plots", "--plots": "--scripts"}[option]
    status, printed, errors = command(
        "check", "test_outputs:Leaves", *BROKEN[2:6], option, "gone", other, "kept",
        "--html", "r.html",
    )  # fmt: skip
    assert status == 1
    assert {"--scripts": "No script: ", "--plots": "No picture: "}[option] in printed
    assert re.search("error: .* gone/", errors)
    assert len(list((tmp_path / "kept").iterdir())) == 1
    assert (tmp_path / "r.html").exists()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ScriptError("it is a lambda"), "it is a lambda"),
        (RecursionError("too deep"), "RecursionError('too deep')"),
    ],
)  # fmt: skip
def test_a_script_that_cannot_be_made(command, tmp_path, monkeypatch, error, said):
    def fails(*arguments):
        raise error

    monkeypatch.setattr("harness.cli.show.script_of", fails)
    status, printed, _ = command(*BROKEN, *FILES)
    assert status == 1
    assert said in printed
    assert "No script: " in (tmp_path / "r.html").read_text()
    assert [path.suffix for path in (tmp_path / "d").iterdir()] == [".svg"]


@full
def test_merge_and_matrix_go_on(command, tmp_path):
    assert command(*BROKEN, "--shard", "1/1", "--json", "r.json")[0] == 1
    status, printed, errors = command("merge", "r.json", "--json", "/dev/full")
    assert (status, errors.count("\n")) == (1, 1)
    assert re.match(f"error: .* /dev/full: {FULL}", errors)
    assert "BROKEN StepLR" in printed
    status, printed, errors = command(
        "matrix", "r.json", "--markdown", "/dev/full", "--html", "m.html"
    )
    assert (status, printed.split()[1:], errors.count("\n")) == (2, ["m.html"], 1)
    assert re.match(f"error: .* /dev/full: {FULL}", errors)
    assert (tmp_path / "m.html").exists()


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs a folder in which nobody can write")
@pytest.mark.parametrize("option", ["--json", "--html", "--scripts"])
def test_a_folder_that_is_not_writable(command, option):
    status, printed, errors = command(*BROKEN, option, "/proc/out")
    assert (status, printed) == (2, "")
    assert re.fullmatch("error: cannot (write to|make) the folder /proc.*\n", errors)


def test_two_runs_that_write_the_same_files(tmp_path):
    with open(os.devnull, "w") as nothing:
        runs = [
            fork_harness(*BROKEN, *FILES, folder=tmp_path, stdout=nothing.fileno(), stderr=2)
            for _ in range(2)
        ]
    assert [status_of(run) for run in runs] == [1, 1]
    assert_written(tmp_path, 1)
    kept = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    name = "d/StepLR-resume_by_last_epoch"
    assert kept == {"r.json", "r.html", f"{name}.py", f"{name}.svg"}
