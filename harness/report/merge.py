"""Puts the results of all shards of one run together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.core.errors import ResultsError

ONE_RUN = ("torch", "python", "seed", "max_examples")
"""What must be the same in all files."""


def merged(files: Sequence[tuple[Path, Mapping[str, Any]]]) -> dict[str, Any]:
    """What a run without shards would have written; `files` are paths with their data.

    The pairs come back in the order of that run. Raises `ResultsError` where these are not all
    the shards of one run.
    """
    parts: dict[int, tuple[Path, Mapping[str, Any]]] = {}
    first_path, first = files[0]
    count = _shard(*files[0])[1]
    for path, data in files:
        number, of = _shard(path, data)
        for key in ONE_RUN:
            if data.get(key) != first.get(key):
                raise ResultsError(
                    f"{path} has {key} {data.get(key)!r} and {first_path} {first.get(key)!r}: "
                    "give the shards of one run"
                )
        if of != count:
            raise ResultsError(
                f"{path} is shard {number}/{of} and {first_path} is one of {count}: "
                "give the shards of one run"
            )
        if number in parts:
            raise ResultsError(
                f"{path} and {parts[number][0]} are both shard {number}/{of}: give one of them"
            )
        if not data.get("complete"):
            raise ResultsError(f"{path} is of a run that was stopped: run that shard again")
        parts[number] = path, data
    missing = [f"{number}/{count}" for number in range(1, count + 1) if number not in parts]
    if missing:
        raise ResultsError(f"not all shards are there: {', '.join(missing)} would complete them")
    ordered = [parts[number][1] for number in range(1, count + 1)]
    results = [
        data["results"][index]
        for index in range(len(ordered[0]["results"]))
        for data in ordered
        if index < len(data["results"])
    ]
    pairs = [(row["subject"], row["check"]) for row in results]
    if len(set(pairs)) < len(pairs):
        raise ResultsError("a pair is in two of the files: give the shards of one run")
    runs = {name: run for data in ordered for name, run in data.get("runs", {}).items()}
    return {**first, "shard": "1/1", "results": results, "runs": runs}


def _shard(path: Path, data: Mapping[str, Any]) -> tuple[int, int]:
    number, of = (int(part) if part.isdigit() else 0 for part in _parts(data))
    if not 1 <= number <= of:
        raise ResultsError(f"{path} does not say which shard it is: give a file of check --shard")
    return number, of


def _parts(data: Mapping[str, Any]) -> tuple[str, str]:
    number, _, of = str(data.get("shard", "")).partition("/")
    return number, of
