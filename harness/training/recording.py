"""Recordings: what the optimizer steps of a training script used, one recording for each rank."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.core.errors import HarnessError
from harness.core.run import Observation

__all__ = [
    "InsideSave", "Recorded", "Recording", "RecordingError", "Snapshot", "State", "Step",
    "UnfinishedFile", "read_run",
]  # fmt: skip


class RecordingError(HarnessError):
    """What was recorded can't be used."""


@dataclass(frozen=True)
class State:
    """Hashes of the weights and of the optimizer's state; an empty hash stands for no tensors."""

    weights: str
    optimizer: str


@dataclass(frozen=True)
class Step:
    """One optimizer step: the state before it, and what it used.

    `optimizer` numbers the optimizers in the order of their first steps. `values` holds a list
    for each of ``lr``, ``momentum``, ``betas`` and ``weight_decay`` that the optimizer has, with
    one item for each param group. `gradients` is a hash, empty unless everything is compared.
    """

    optimizer: int
    values: Observation
    before: State
    gradients: str = ""


@dataclass(frozen=True)
class Recording:
    """The optimizer steps of one rank.

    `after` is the state of each optimizer after the last step, empty if the process was killed.
    `stopped` says whether the recorder ended it, because enough steps were made.
    """

    rank: int
    steps: tuple[Step, ...]
    after: tuple[State, ...] = ()
    stopped: bool = False


@dataclass(frozen=True)
class UnfinishedFile:
    """A file that is being written: `size` bytes of it are on disk."""

    name: str
    size: int


@dataclass(frozen=True)
class InsideSave:
    """A moment inside a save: the files that are being written, and the last operation before."""

    files: tuple[UnfinishedFile, ...] = ()
    done: str = ""


@dataclass(frozen=True)
class Snapshot:
    """A state of the checkpoint paths: what a kill after one of the `kill_points` leaves.

    A kill point is the number of optimizer steps that rank 0 had made. `inside` is None if the
    state was there right before the next step, or at the end; else it is the first such moment.
    """

    name: str
    kill_points: tuple[int, ...]
    inside: InsideSave | None = None


@dataclass(frozen=True)
class Recorded:
    """All that one run left: a recording for each rank, and snapshots in the order of time.

    Snapshots inside saves come last. `signalled` is whether the recorder sent its signal.
    `not_stored` says why a snapshot could not be stored, if so, and `problems` what else the
    recorder could not do. `loaded` says whether a Python process of the command had the recorder,
    `torch` whether one imported ``torch.optim``.
    """

    recordings: Mapping[int, Recording] = field(default_factory=dict)
    snapshots: tuple[Snapshot, ...] = ()
    problems: tuple[str, ...] = ()
    loaded: bool = False
    torch: bool = False
    signalled: bool = False
    not_stored: str = ""

    @property
    def steps(self) -> int:
        """The number of optimizer steps of the lowest rank."""
        return len(self.recordings[min(self.recordings)].steps) if self.recordings else 0


def read_run(folder: Path, last_snapshot: str = "") -> Recorded:
    """Read what the recorder wrote for one run; `last_snapshot` is what was there at its end.

    Processes of one rank that train one after the other make one recording. Raises
    `RecordingError` if they train at the same time.
    """
    processes = sorted(map(_events, folder.glob("*.jsonl")), key=lambda events: _time(events[0]))
    ranks: dict[int, list[list[dict[str, Any]]]] = {}
    for events in processes:
        for rank in {event["rank"] for event in events if event["kind"] == "step"}:
            ranks.setdefault(rank, []).append(events)
    changes: list[tuple[int, str]] = []
    inside: list[tuple[int, dict[str, Any]]] = []
    for events in ranks.get(0, []):
        before = changes[-1][0] if changes else 0
        changes += [(before + e["steps"], e["name"]) for e in events if e["kind"] == "snapshot"]
        inside += [(before + e["steps"], e) for e in events if e["kind"] == "inside"]
    recordings = {rank: _recording(rank, ranks[rank]) for rank in sorted(ranks)}
    total = len(recordings[min(recordings)].steps) if recordings else 0
    if last_snapshot:
        changes.append((total, last_snapshot))
    snapshots = _snapshots(changes, total)
    return Recorded(
        recordings,
        (*snapshots, *_inside_saves(inside, snapshots)),
        tuple(e["text"] for events in processes for e in events if e["kind"] == "problem"),
        (folder / "loaded").exists(),
        (folder / "torch").exists(),
        any(e["kind"] == "signal" for events in processes for e in events),
        next((e["text"] for events in processes for e in events if e["kind"] == "not stored"), ""),
    )


def _events(path: Path) -> list[dict[str, Any]]:
    """The events in a file; a last line that a kill cut off is dropped."""
    lines = path.read_bytes().split(b"\n")[:-1]
    return [json.loads(line) for line in lines]


def _time(event: Mapping[str, Any]) -> float:
    return float(event["time"])


def _recording(rank: int, processes: list[list[dict[str, Any]]]) -> Recording:
    for earlier, later in itertools.pairwise(processes):
        if earlier[-1]["kind"] != "end" or _time(earlier[-1]) > _time(later[0]):
            raise RecordingError(
                f"two processes of rank {rank} make optimizer steps at the same time, so the order "
                "of their steps is unknown; test them one at a time"
            )
    steps = [_step(event) for events in processes for event in events if event["kind"] == "step"]
    last = processes[-1]
    after = [event["after"] for event in last if event["kind"] == "end"]
    return Recording(
        rank,
        tuple(steps),
        tuple(_state(each) for each in after[-1]) if after else (),
        any(event["kind"] == "stopped" for event in last),
    )


def _step(event: Mapping[str, Any]) -> Step:
    return Step(event["optimizer"], event["values"], _state(event), event.get("gradients", ""))


def _state(hashes: Mapping[str, str]) -> State:
    return State(hashes["weights"], hashes["state"])


def _snapshots(changes: list[tuple[int, str]], total: int) -> tuple[Snapshot, ...]:
    """The snapshots with the kill points at which each of them was there."""
    points: dict[str, list[int]] = {}
    for index, (steps, name) in enumerate(changes):
        until = changes[index + 1][0] if index + 1 < len(changes) else total + 1
        points.setdefault(name, []).extend(range(steps, until))
    return tuple(Snapshot(name, tuple(at)) for name, at in points.items() if at)


def _inside_saves(
    events: list[tuple[int, dict[str, Any]]], snapshots: Sequence[Snapshot]
) -> list[Snapshot]:
    """The states inside saves, without those that were there right before or after the save.

    A file is complete as soon as its last byte is written, so a state is named after the event
    with the fewest files that are being written.
    """
    between = {(k, snapshot.name) for snapshot in snapshots for k in snapshot.kill_points}
    found: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    for steps, event in events:
        name = event["name"]
        if not {(steps - 1, name), (steps, name)} & between:
            found.setdefault(name, []).append((steps, event))
    states = []
    for name, each in found.items():
        event = min((event for _, event in each), key=lambda event: len(event["writing"]))
        files = tuple(UnfinishedFile(*file) for file in event["writing"])
        points = tuple(sorted({steps for steps, _ in each}))
        states.append(Snapshot(name, points, InsideSave(files, event["done"])))
    return states
