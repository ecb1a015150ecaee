"""Puts the user's checkpoints back when the tool ends, however it ends.

It runs as a process of its own, which no signal of the terminal reaches. It makes the temporary
folder, prints its name, and waits for the end of standard input, which comes when the tool closes
it or dies. Then it kills what still runs, restores by the journal, and removes the folder.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
import time
from typing import Any

JOURNAL = "journal.json"
ATTEMPTS = 100
"""How often to try to remove the folder, while what was killed may still write to it."""


def main() -> None:
    """Wait for the end of the tool, then clean up; prints a line for what could not be done."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    work = tempfile.mkdtemp(prefix="lr-resume-harness-")
    print(json.dumps(work), flush=True)
    sys.stdin.read()
    problems = clean_up(work)
    try:
        print(json.dumps(problems), flush=True)
    except OSError:  # the tool was killed
        for problem in problems:
            print(problem, file=sys.stderr)


def clean_up(work: str) -> list[str]:
    """Kill the processes of this run, put everything back; what could not be done, in sentences."""
    kill_processes(work)
    problems = []
    journal = os.path.join(work, JOURNAL)
    moves = []
    if os.path.exists(journal):
        with open(journal, encoding="utf-8") as file:
            moves = json.load(file)
    for move in moves:
        try:
            put_back(move)
        except OSError as error:
            where = f" Your own files are in {move['aside']}." if move["existed"] else ""
            problems.append(f"could not restore {move['path']}: {error}.{where}")
    for _ in range(ATTEMPTS if not problems else 0):
        shutil.rmtree(work, ignore_errors=True)
        kill_processes(work)  # one that had just been started when the tool died
        if not os.path.exists(work):
            return []
        time.sleep(0.05)
    return problems or [f"could not remove the temporary folder {work}."]


def put_back(move: dict[str, Any]) -> None:
    """Make a path what it was before the tool started."""
    path, aside = move["path"], move["aside"]
    if not move["existed"]:
        _remove(path)
        for parent in move["parents"]:  # the innermost first
            if os.path.isdir(parent) and not os.listdir(parent):
                os.rmdir(parent)
        return
    if os.path.lexists(aside):
        _remove(path)
        os.rename(aside, path)
        os.utime(path, ns=(move["atime"], move["mtime"]), follow_symlinks=False)
    folder = os.path.dirname(aside)
    if os.path.isdir(folder) and not os.listdir(folder):
        os.rmdir(folder)


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


def kill_processes(work: str, spared: int = 0) -> None:
    """Kill every process of this run but `spared`, in whatever session or group it is now.

    Their environment names the temporary folder. Where there is no ``/proc``, the tool kills the
    process groups that it started.
    """
    for _ in range(100):
        pids = [pid for pid in processes(work + os.sep) if pid != spared]
        if not pids:
            return
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                continue
        time.sleep(0.01)


def processes(prefix: str) -> list[int]:
    """The processes of the runs whose folders begin with `prefix`, where there is a ``/proc``."""
    mark = ("LR_RESUME_HARNESS_RUN=" + prefix).encode()
    return [pid for pid in _all_processes() if mark in _environment(pid)]


def group_lives(group: int) -> bool:
    """Whether a process of a group still runs, where there is a ``/proc``."""
    for pid in _all_processes():
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                state, _, own = file.read().rpartition(b")")[2].split()[:3]
        except OSError:  # it has ended
            continue
        if int(own) == group and state != b"Z":
            return True
    return False


def _all_processes() -> list[int]:
    if not os.path.isdir("/proc/self"):
        return []
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _environment(pid: int) -> bytes:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return file.read()
    except OSError:  # it has ended, or is another user's
        return b""


if __name__ == "__main__":
    main()
