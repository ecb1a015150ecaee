"""Merges the results of all shards of one run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from harness.core.errors import ResultsError
from harness.report.result_file import ResultFile

ONE_RUN = ("torch", "python", "seed", "max_examples")
"""The fields that must be the same in all files."""


def merged(files: Sequence[tuple[Path, ResultFile]]) -> ResultFile:
    """The results that a run without shards would have written, in its order.

    `files` are paths with their content. Raises `ResultsError` if these are not all the shards of
    one run.
    """
    parts: dict[int, tuple[Path, ResultFile]] = {}
    first_path, first = files[0]
    count = _shard(*files[0])[1]
    for path, file in files:
        number, of = _shard(path, file)
        for key in ONE_RUN:
            here, there = getattr(file, key), getattr(first, key)
            if here != there:
                raise ResultsError(
                    f"{path} has {key} {here!r}, but {first_path} has {there!r}: "
                    "give the shards of one run"
                )
        if of != count:
            raise ResultsError(
                f"{path} is shard {number}/{of}, but {first_path} is one of {count}: "
                "give the shards of one run"
            )
        if number in parts:
            raise ResultsError(
                f"{path} and {parts[number][0]} are both shard {number}/{of}: give one of them"
            )
        if not file.complete:
            raise ResultsError(f"{path} is from a run that was stopped: run that shard again")
        parts[number] = path, file
    missing = [f"{number}/{count}" for number in range(1, count + 1) if number not in parts]
    if missing:
        raise ResultsError(f"some shards are missing: also give {', '.join(missing)}")
    ordered = [parts[number][1] for number in range(1, count + 1)]
    results = tuple(
        file.results[index]
        for index in range(len(ordered[0].results))
        for file in ordered
        if index < len(file.results)
    )
    pairs = {(result.subject, result.check) for result in results}
    if len(pairs) < len(results):
        raise ResultsError("two of the files contain the same pair: give the shards of one run")
    runs = {name: run for file in ordered for name, run in file.runs.items()}
    return replace(first, shard="1/1", results=results, runs=runs)


def _shard(path: Path, file: ResultFile) -> tuple[int, int]:
    first, _, second = file.shard.partition("/")
    number, of = (
        int(part) if part.isdecimal() and len(part) < 9 else 0 for part in (first, second)
    )
    if not 1 <= number <= of:
        raise ResultsError(f"{path} does not say which shard it is: give a file of check --shard")
    return number, of
