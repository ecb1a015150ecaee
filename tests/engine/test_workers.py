"""That nothing a subject does loses a result of another, and that a death is a verdict."""

import json
import os
import time
from multiprocessing.connection import wait
from types import SimpleNamespace

import pytest

from harness.core.verdict import Reason
from harness.engine import workers
from harness.engine.workers import Died, Pool

DIED, STOPPED, LIMIT = Reason.DIED, Reason.NOT_RUNNABLE, Reason.TIME_LIMIT
ENDS = {
    "ExitsWith0": (DIED, "its process ended with status 0"),
    "ExitsWith7": (DIED, "its process ended with status 7"),
    "Segfaults": (DIED, "its process was killed by SIGSEGV"),
    "KillsItself": (DIED, "its process was killed by SIGKILL"),
    "DeletesModules": (DIED, ""),
    "ClosesEverything": (DIED, "its process ended with status 1"),
    "Interrupts": (DIED, "its process raised KeyboardInterrupt"),
    "Raises": (STOPPED, "the subject raised BaseException"),
    "ExitsAGenerator": (STOPPED, "the subject raised GeneratorExit"),
    "IsCancelled": (STOPPED, "the subject raised CancelledError"),
}
"""Subjects that can't be checked: the kind of the reason, and a part of it."""
HANG = {
    "Loops": (DIED, "its process did not end in time and was killed"),
    "HangsInC": (LIMIT, "the time limit of 600 s ran out"),
}
"""The same of those that are waited for."""
OTHERS = {
    "RunsOutOfMemory": {"HOLDS", "UNKNOWN"},
    "RaisesUnprintable": {"HOLDS"},
    "Recurses": {"BROKEN", "HOLDS"},
    "Forks": {"HOLDS", "UNKNOWN"},
    "PatchesTorch": {"BROKEN", "HOLDS"},
    "LeavesAThread": {"HOLDS"},
    "ReplacesStdout": {"HOLDS"},
    "WritesALot": {"HOLDS"},
}
"""Subjects that can be checked, or that a limit stops: the verdicts that they may get."""
CHECKS = ("resume_optimizer_then_scheduler", "resume_by_pickle")


def checked(command, tmp_path, *names, jobs=2, checks=CHECKS):
    """The exit status and the results of a run, by subject and check."""
    subjects = [f"hostile_subjects:{name}" for name in names]
    status, *_ = command(
        "check", *subjects, "--jobs", jobs, "--max-examples", 0, "--time-limit", 600,
        *(f"--check={name}" for name in checks), "--json", tmp_path / "out.json",
    )  # fmt: skip
    data = json.loads((tmp_path / "out.json").read_text())
    assert data["complete"]
    assert len(data["results"]) == len(names) * len(checks)
    for row in data["results"]:
        row.pop("seconds")
        if row["counterexample"]:
            row["counterexample"]["found"].pop("seconds")
    return status, {(row["subject"], row["check"]): row for row in data["results"]}


def assert_undecided(row, expected):
    kind, reason = expected
    assert (row["verdict"], row["why"]) == ("UNKNOWN", kind)
    assert reason in row["reason"]


def test_what_a_subject_does_loses_no_result_of_another(command, tmp_path):
    _, alone = checked(command, tmp_path, "Good", "Also", checks=CHECKS[:1])
    assert {row["verdict"] for row in alone.values()} == {"HOLDS"}
    status, rows = checked(command, tmp_path, "Good", *ENDS, *OTHERS, "Also", checks=CHECKS[:1])
    for key, row in alone.items():
        assert rows.pop(key) == row
    for (name, _), row in rows.items():
        if name in ENDS:
            assert_undecided(row, ENDS[name])
        else:
            assert row["verdict"] in OTHERS[name], name
    assert status == (1 if any(row["verdict"] == "BROKEN" for row in rows.values()) else 2)


def test_who_waits_for_a_subject_loses_no_result_of_another(command, tmp_path, monkeypatch):
    """While `Loops` loops, it is a day later for who waits, so that no time limit must run out."""
    loops = tmp_path / "loops"
    kill = workers._kill

    def clock():
        return time.monotonic() + 86400.0 * loops.exists()

    def killed(running):
        kill(running)
        loops.unlink(missing_ok=True)

    monkeypatch.setattr("harness.engine.workers.time", SimpleNamespace(monotonic=clock))
    monkeypatch.setattr("harness.engine.workers._kill", killed)
    monkeypatch.setattr("harness.engine.workers.wait", lambda ends, timeout: wait(ends, 0.05))
    names = ("Good", *HANG, "Also")
    status, rows = checked(command, tmp_path, *names, checks=CHECKS[:1], jobs=1)
    assert status == 2
    for (name, _), row in rows.items():
        if name in HANG:
            assert_undecided(row, HANG[name])
        else:
            assert row["verdict"] == "HOLDS"


def test_the_results_do_not_depend_on_the_number_of_workers(command, tmp_path):
    names = ("Good", "IsCancelled", "Also")
    with_two = checked(command, tmp_path, *names)
    for jobs in (0, 1, 4):
        assert checked(command, tmp_path, *names, jobs=jobs) == with_two, jobs


def test_the_results_do_not_depend_on_how_a_worker_starts(
    command, tmp_path, monkeypatch, all_is_tried
):
    """All is tried, as in a process that is spawned."""
    forked = checked(command, tmp_path, "Good", checks=CHECKS[:1])
    monkeypatch.setattr("harness.engine.workers.METHOD", "spawn")
    assert checked(command, tmp_path, "Good", checks=CHECKS[:1]) == forked


def test_after_a_death_the_other_pairs_are_checked(command, tmp_path):
    """`ExitsAtAPickle` ends the process only when it is pickled."""
    status, rows = checked(command, tmp_path, "ExitsAtAPickle")
    assert status == 2
    found = {check: row["verdict"] for (_, check), row in rows.items()}
    assert found == {"resume_optimizer_then_scheduler": "HOLDS", "resume_by_pickle": "UNKNOWN"}
    reason = rows["ExitsAtAPickle", "resume_by_pickle"]["reason"]
    assert reason.endswith("status 3 in the trace train:3 save:a")


def test_what_dies_while_it_is_found_is_missed(harness_command, tmp_path):
    (tmp_path / "dies.py").write_text("import os; os._exit(0)")
    (tmp_path / "one_dies.py").write_text(
        "import os\n"
        "from hostile_subjects import Hostile\n"
        "class Fine(Hostile): pass\n"
        "class Dies(Hostile):\n"
        "    def __init__(self, optimizer): os._exit(0)\n"
    )
    options = ("--check", CHECKS[0], "--max-examples", 0)
    done = harness_command("check", "dies:X", *options)
    assert (done.returncode, done.stdout) == (2, "")
    why = "error: cannot load dies:X: the process that imports it ended with status 0\n"
    assert done.stderr == why
    done = harness_command("check", "dies:X", "one_dies", *options)
    assert done.returncode == 2
    ended = "its process ended with status 0 while it was"
    assert f"NOT CHECKED dies:X: {ended} imported\n" in done.stdout
    assert f"NOT CHECKED one_dies:Dies: {ended} built\n" in done.stdout
    assert "1 HOLDS" in done.stdout


# ------------------------------------------------------------------------------- the pool


def work(task, tell):
    tell.note(f"at {task}")
    if task == "exit":
        os._exit(5)
    if task == "fork" and not os.fork():
        tell("from a child")
    if task == "wait":
        time.sleep(600)
    tell(task)


@pytest.mark.parametrize(
    ("method", "tasks"),
    [("fork", ("one", "exit", "fork", "two", "three")), ("spawn", ("one", "exit", "fork"))],
)
def test_a_pool_loses_no_message(method, tasks):
    with Pool(work, 3, 600.0, method=method) as pool:
        for task in tasks:
            pool.add(task)
        messages = sorted(pool)
    assert messages == [
        ("exit", Died("ended with status 5", "at exit")),
        *((task, task) for task in sorted(tasks) if task != "exit"),
    ]


def test_a_pool_kills_a_worker_that_says_nothing():
    with Pool(work, 1, 0.1) as pool:
        pool.add("wait")
        [(_, died)] = pool
    assert died.how == "did not end in time and was killed"


def test_leaving_a_pool_kills_its_workers():
    with Pool(work, 2, 600.0) as pool:
        for task in ("wait", "one"):
            pool.add(task)
        assert next(iter(pool)) == ("one", "one")
        [pid] = [running.process.pid for running in pool.running if running.task == "wait"]
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
