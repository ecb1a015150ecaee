"""Reads the files that ``check --json`` wrote."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.core.errors import ResultsError
from harness.core.result import BROKEN, Counterexample, Result
from harness.core.run import Tally
from harness.core.trace import Trace
from harness.report.text import SCHEMA


def read_results(path: Path) -> dict[str, Any]:
    """What ``check --json`` wrote to `path`; raises `ResultsError` where it is something else."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ResultsError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        why = str(error).partition("\n")[0]
        raise ResultsError(
            f"{path} is not JSON ({why}): give a file that check --json wrote"
        ) from None
    if not isinstance(data, dict) or "schema" not in data or not _is_results(data):
        raise ResultsError(f"{path} has no results of check in it: give a file of check --json")
    if data["schema"] != SCHEMA:
        raise ResultsError(
            f"{path} has schema {data['schema']!r}, and this harness reads {SCHEMA}: "
            "write it again with this version's check --json"
        )
    return data


def _is_results(data: Mapping[str, Any]) -> bool:
    rows, runs = data.get("results"), data.get("runs", {})
    return (
        isinstance(rows, list)
        and all(isinstance(row, dict) for row in rows)
        and all(isinstance(row.get(key), kind) for row in rows for key, kind in _keys(row))
        and isinstance(runs, dict)
        and all(isinstance(run, dict) for run in runs.values())
        and all(isinstance(rates, list) for run in runs.values() for rates in run.values())
    )


def _keys(row: Mapping[str, Any]) -> list[tuple[str, type]]:
    """The keys that a row must have, with the type of each."""
    keys: list[tuple[str, type]] = [("subject", str), ("check", str), ("verdict", str)]
    if "place" in row:
        keys.append(("place", str))
    if row.get("verdict") == BROKEN or "trace" in row:
        keys += [("trace", str), ("operation", int), ("step", int)]
        keys += [("expected", dict), ("actual", dict)]
    return keys


def result_of(row: Mapping[str, Any]) -> Result:
    """The result that a row was written of, but for what is not written."""
    found, references = None, ("", "")
    if "trace" in row:
        found = Counterexample(
            row["operation"], row["step"], row["expected"], row["actual"],
            trace=Trace.parse(row["trace"]), state=str(row.get("state", "")),
        )  # fmt: skip
        words = shlex.split(row.get("replay", ""))
        if words[:1] == ["python"] and len(words) > 5:
            references = words[4], words[5]
    tally = Tally(**{name: row.get(name, 0) for name in vars(Tally())})
    return Result(
        row["subject"], row["check"], row["verdict"], row.get("reason", ""), found, tally,
        row.get("seconds", 0.0), references, untried=tuple(row.get("untried", {}).items()),
        torch=row.get("torch", ""), place=row.get("place", ""),
    )  # fmt: skip
