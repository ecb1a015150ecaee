"""The user's checkpoints: put aside, and put back whatever happens."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.core.errors import HarnessError
from harness.training import paths
from harness.training.injected import snapshots, watcher
from harness.training.paths import PathError, Workplace, checked_paths

TRAIN = """
import os, time
for step in range(1000):
    os.makedirs("runs", exist_ok=True)
    with open("runs/last.pt", "w") as file:
        file.write(str(step))
    with open("alone.pt", "w") as file:
        file.write(str(step))
    with open("new/deep/last.pt", "w") if os.path.isdir("new") else open(os.devnull, "w") as file:
        file.write("x")
    os.makedirs("new/deep", exist_ok=True)
    time.sleep(0.01)
"""
"""A script that writes to all its checkpoint paths, and loads no torch."""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with checkpoints of the user's, which is the current folder."""
    monkeypatch.chdir(tmp_path)
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr("tempfile.tempdir", None)
    old = tmp_path / "runs" / "old"
    old.mkdir(parents=True)
    (old / "a.pt").write_bytes(b"\0mine")
    (old / "link").symlink_to("a.pt")
    (tmp_path / "runs" / "read_only.pt").write_text("mine too")
    (tmp_path / "runs" / "read_only.pt").chmod(0o400)
    (tmp_path / "alone.pt").write_text("alone")
    (tmp_path / "train.py").write_text(TRAIN)
    for number, path in enumerate(sorted((tmp_path / "runs").rglob("*"), reverse=True)):
        os.utime(path, (1e9 + number, 1e9 + number), follow_symlinks=False)
    for path in (tmp_path / "runs", tmp_path / "alone.pt"):
        os.utime(path, ns=(10**18 + 7, 10**18 + 7))
    return tmp_path


def state(folder):
    """Every file below a folder: its kind and mode, mtime and content."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        if path.is_symlink():
            content = os.readlink(path)
        else:
            content = path.read_bytes() if path.is_file() else ""
        mtime = 0 if path == folder / "tmp" else status.st_mtime_ns
        found[str(path.relative_to(folder))] = (status.st_mode, mtime, content)
    return found


CHECKPOINTS = ["runs", "alone.pt", "new/deep"]
HARNESS = [sys.executable, "-m", "lr_resume_harness"]
TOOL = [*HARNESS, "train", *(f"--checkpoints={path}" for path in CHECKPOINTS)]


def start(here, *command):
    """The tool, running with its output in ``tool.txt``."""
    environment = {**os.environ, "PYTHONPATH": str(Path(paths.__file__).parents[2])}
    with (here.parent / "tool.txt").open("w") as output:
        return subprocess.Popen(
            [*TOOL, "--", *command], stdout=output, stderr=output, start_new_session=True,
            env=environment,
        )  # fmt: skip


def wait_for(condition, seconds=300.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.01)


def processes_of(folder):
    mark = f"LR_RESUME_HARNESS_RUN={folder}".encode()
    return [pid for pid in watcher._all_processes() if mark in watcher._environment(pid)]


def is_gone(here):
    """Whether nothing is left of a run of the tool: no folder and no process."""
    return not (
        list(here.glob(".lr-resume*")) or list((here / "tmp").iterdir()) or processes_of(here)
    )


# ------------------------------------------------------------------ put aside, put back


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks at processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_checkpoints_are_put_back_when_the_tool_is_killed(number, here):
    before = state(here)
    tool = start(here, sys.executable, "train.py")
    wait_for(lambda: (here / "new/deep/last.pt").exists())
    assert state(here) != before
    tool.send_signal(number)
    status = tool.wait(300)
    wait_for(lambda: is_gone(here))
    assert state(here) == before
    assert status == {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}[number]


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks at processes in /proc")
def test_50_kills_at_random_moments_leave_nothing_behind(here):
    before = state(here)
    draw = random.Random(0)
    for _ in range(50):
        tool = start(here, sys.executable, "train.py")
        time.sleep(draw.uniform(0, 2))
        tool.kill()
        tool.wait(300)
        wait_for(lambda: is_gone(here))
        assert state(here) == before


def test_the_command_sees_no_checkpoints_and_the_user_gets_them_back(here):
    before = state(here)
    with Workplace(checked_paths([Path(name) for name in CHECKPOINTS])) as workplace:
        assert list((here / "runs").iterdir()) == []
        assert not (here / "alone.pt").exists()
        (here / "alone.pt").mkdir()
        (here / "runs").rmdir()
        (here / "new/deep").mkdir(parents=True)
        assert workplace.folder.parent == here / "tmp"
    assert state(here) == before
    assert workplace.left == []


def test_the_tool_puts_them_back_itself_if_the_watcher_was_killed(here):
    before = state(here)
    with Workplace(checked_paths([Path("runs")])) as workplace:
        workplace._watcher.kill()
        workplace._watcher.wait()
    assert state(here) == before
    assert workplace.left == []


def test_what_cannot_be_put_back_is_named(here, monkeypatch):
    with Workplace(checked_paths([Path("runs")])) as workplace:
        journal = workplace.folder / watcher.JOURNAL
        moved = journal.read_text().replace(str(here / "runs"), str(here / "alone.pt/runs"))
        journal.write_text(moved)
    [problem] = workplace.left
    [aside] = here.glob(".lr-resume-harness-*/runs")
    assert f"Your own files are in {aside}." in problem
    with pytest.raises(PathError, match=r"your own files are in .*/runs; if no run is active"):
        checked_paths([Path("runs")])


# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["."], "holds the current folder"),
        ([".."], "holds the current folder"),
        (["/"], "holds the current folder"),
        (["../elsewhere"], "outside the current folder"),
        (["runs", "runs/old"], "inside another"),
        (["runs", "runs"], "given twice"),
        (["runs/old/link"], "is a symbolic link"),
    ],
)
def test_a_path_that_could_not_be_restored_is_refused(given, message, here):
    before = state(here)
    with pytest.raises(PathError, match=message) as refused:
        checked_paths([Path(path) for path in given])
    assert "\n" not in str(refused.value)
    assert state(here) == before


def test_a_path_outside_is_allowed_with_consent(here, monkeypatch):
    monkeypatch.chdir(here / "tmp")
    assert checked_paths([Path("../runs")], outside=True) == [here / "runs"]


def test_a_link_in_the_middle_leads_outside(here, monkeypatch):
    (here / "tmp" / "there").symlink_to(here / "runs")
    monkeypatch.chdir(here / "tmp")
    with pytest.raises(PathError, match="outside the current folder"):
        checked_paths([Path("there/old")])


def test_the_script_cannot_be_inside_the_checkpoints(here):
    (here / "runs" / "train.py").write_text(TRAIN)
    with pytest.raises(HarnessError, match=r"the command needs runs/train.py"):
        checked_paths([Path("runs")], needed=["python", "runs/train.py"])


# ------------------------------------------------------------------ snapshots


def test_a_restored_snapshot_is_the_same_with_its_times(here):
    store = here / "tmp" / "store"
    store.mkdir()
    given = [str(here / "runs"), str(here / "alone.pt"), str(here / "missing")]
    taker = snapshots.Store(str(store), given)
    before, first = state(here / "runs"), taker.take()
    mtimes = [Path(path).stat().st_mtime_ns for path in given[:2]]
    (here / "runs" / "old" / "a.pt").write_bytes(b"other")
    (here / "missing").mkdir()
    (here / "alone.pt").unlink()
    second = taker.take()
    assert first != second
    snapshots.restore(str(store), first, given)
    assert state(here / "runs") == before
    assert [Path(path).stat().st_mtime_ns for path in given[:2]] == mtimes
    assert not (here / "missing").exists()
    assert taker.take() == first
    snapshots.restore(str(store), second, given)
    assert (here / "runs" / "old" / "a.pt").read_bytes() == b"other"
    assert taker.take() == second


def test_an_unchanged_folder_is_not_read_again(here, monkeypatch):
    store = here / "tmp" / "store"
    store.mkdir()
    taker = snapshots.Store(str(store), [str(here / "runs")])
    name = taker.take()
    monkeypatch.setattr("builtins.open", None)
    assert taker.take() == name


def test_entries_are_restored_in_the_order_of_their_mtimes(here):
    store = here / "tmp" / "store"
    store.mkdir()
    many = here / "many"
    many.mkdir()
    for number, name in enumerate("cadb"):
        (many / name).mkdir()
        (many / name / "file").write_text(name)
        os.utime(many / name, (2e9 + number, 2e9 + number))
    name = snapshots.Store(str(store), [str(many)]).take()
    snapshots.restore(str(store), name, [str(many)])
    by_ctime = sorted(many.iterdir(), key=lambda path: path.stat().st_ctime_ns)
    assert [path.name for path in by_ctime] == list("cadb")


def test_the_name_of_a_snapshot_depends_on_contents_alone(here):
    store = here / "tmp" / "store"
    store.mkdir()
    taker = snapshots.Store(str(store), [str(here / "alone.pt")])
    name = taker.take()
    os.utime(here / "alone.pt", (1, 1))
    assert taker.take() == name
    (here / "alone.pt").write_text("other")
    assert taker.take() != name
    (here / "alone.pt").write_text("alone")
    assert taker.take() == name
    assert not snapshots.is_empty(str(store), name)
