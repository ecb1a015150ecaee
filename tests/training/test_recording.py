"""What the recorder writes, as the tool reads it."""

import json

import pytest

from harness.training.recording import RecordingError, Snapshot, State, read_run

HASHES = {"weights": "w", "state": "s"}


def write(folder, pid, *events, cut=""):
    lines = "".join(json.dumps(event) + "\n" for event in events)
    (folder / f"{pid}.jsonl").write_text(lines + cut)


def start(time=0.0):
    return {"kind": "start", "time": time}


def end(time=1.0):
    return {"kind": "end", "time": time, "after": [HASHES]}


def step(lr=0.1, rank=0):
    return {"kind": "step", "rank": rank, "optimizer": 0, "values": {"lr": [lr]}, **HASHES}


def snapshot(steps, name):
    return {"kind": "snapshot", "steps": steps, "name": name}


def lrs(recording):
    return [step.values["lr"][0] for step in recording.steps]


def test_each_rank_has_a_recording(tmp_path):
    write(tmp_path, 1, start(), step(0.1, rank=1), end())
    write(tmp_path, 2, start(), step(0.2), end())
    found = read_run(tmp_path)
    assert {rank: lrs(recording) for rank, recording in found.recordings.items()} == {
        0: [0.2],
        1: [0.1],
    }
    assert found.recordings[0].after == (State("w", "s"),)


def test_a_line_that_a_kill_cut_off_is_dropped(tmp_path):
    write(tmp_path, 1, start(), step(0.1), step(0.2), cut='{"kind": "st')
    [recording] = read_run(tmp_path).recordings.values()
    assert (lrs(recording), recording.after) == ([0.1, 0.2], ())


def test_processes_one_after_the_other_are_one_run(tmp_path):
    write(tmp_path, 9, start(0.0), snapshot(0, "a"), step(0.1), snapshot(1, "b"), end(1.0))
    write(tmp_path, 3, start(2.0), snapshot(0, "b"), step(0.2), snapshot(1, "c"), end(3.0))
    found = read_run(tmp_path)
    assert lrs(found.recordings[0]) == [0.1, 0.2]
    assert found.snapshots == (Snapshot("a", (0,)), Snapshot("b", (1,)), Snapshot("c", (2,)))


def test_processes_of_one_rank_at_the_same_time_are_refused(tmp_path):
    write(tmp_path, 9, start(0.0), step(0.1), end(2.0))
    write(tmp_path, 3, start(1.0), step(0.2), end(3.0))
    with pytest.raises(RecordingError, match="two processes of rank 0"):
        read_run(tmp_path)


def test_a_snapshot_has_every_kill_point_at_which_it_was_there(tmp_path):
    changes = [snapshot(0, "a"), step(), step(), snapshot(2, "b"), step(), snapshot(3, "a"), step()]
    write(tmp_path, 1, start(), *changes, end())
    found = read_run(tmp_path, last_snapshot="c")
    assert found.snapshots == (
        Snapshot("a", (0, 1, 3)),
        Snapshot("b", (2,)),
        Snapshot("c", (4,)),
    )


def test_nothing_recorded(tmp_path):
    (tmp_path / "loaded").touch()
    found = read_run(tmp_path, "a")
    assert (found.steps, found.loaded, found.torch) == (0, True, False)
