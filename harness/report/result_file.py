"""The file that ``check --json`` writes: what is in it, written and read by one converter.

A file is a `ResultFile` as JSON: an object with its fields, whose ``results`` are objects with the
fields of `harness.core.result.Result`, and so on down. A trace is its text. Numbers that JSON lacks
are ``{"$float": "nan"}``, bytes ``{"$bytes": "..."}`` (Latin-1), and dicts with other keys than
strings ``{"$items": [[key, value], ...]}``.
"""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_origin

import cattrs
from cattrs.errors import BaseValidationError

from harness.core.errors import HarnessError, ResultsError
from harness.core.result import Budget, Result
from harness.core.trace import Trace

__all__ = ["SCHEMA", "ResultFile", "dump_results", "read_results", "results_of_run"]

SCHEMA = 2
"""The version of the format; it goes up when a key changes its sense or goes."""


@dataclass(frozen=True)
class ResultFile:
    """What one run found.

    `shard` is ``2/5`` for every fifth pair from the second on; `complete` is false if the run was
    stopped. `runs` holds the LRs of the uninterrupted runs by subject and trace: the LR of every
    param group at the start and after each epoch. `not_checked` are schedulers that could not be
    built, each with the reason.
    """

    schema: int
    torch: str
    python: str
    seed: int
    max_examples: int
    complete: bool
    shard: str
    results: tuple[Result, ...]
    runs: dict[str, dict[str, list[Any]]] = field(default_factory=dict)
    not_checked: dict[str, str] = field(default_factory=dict)


def results_of_run(
    results: Sequence[Result],
    budget: Budget,
    *,
    complete: bool,
    runs: Mapping[str, dict[str, list[Any]]] = MappingProxyType({}),
    shard: str = "1/1",
) -> ResultFile:
    """The results of this process as they are kept."""
    version = results[0].torch if results else ""
    return ResultFile(
        SCHEMA, version, platform.python_version(), budget.seed, budget.max_examples, complete,
        shard, tuple(results), dict(runs),
    )  # fmt: skip


def dump_results(file: ResultFile) -> str:
    """A file as JSON text."""
    return json.dumps(_encode(_CONVERTER.unstructure(file)), indent=1, allow_nan=False) + "\n"


def read_results(path: Path) -> ResultFile:
    """What ``check --json`` wrote to `path`; raises `ResultsError` if it is something else."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ResultsError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        why = str(error).partition("\n")[0]
        raise ResultsError(
            f"{path} is not JSON ({why}): give a file that check --json wrote"
        ) from None
    if not (isinstance(data, dict) and "schema" in data and isinstance(data.get("results"), list)):
        raise ResultsError(f"{path} has no results of check in it: give a file of check --json")
    if data["schema"] != SCHEMA:
        raise ResultsError(
            f"{path} has schema {data['schema']!r:.40}, and this harness reads {SCHEMA}: "
            "write it again with this version's check --json"
        )
    try:
        return _CONVERTER.structure(_decode(data), ResultFile)
    except (BaseValidationError, HarnessError, RecursionError, ValueError, TypeError) as error:
        raise ResultsError(
            f"{path} is not as check --json wrote it ({_first(error)}): write it again"
        ) from None


def _first(error: BaseException) -> str:
    """The first thing that is wrong, with its place in the file."""
    if isinstance(error, BaseValidationError):
        return cattrs.transform_error(error, format_exception=_message)[0]
    return str(error).partition("\n")[0][:200] or type(error).__name__


def _message(error: BaseException, kind: type | None) -> str:
    if isinstance(error, KeyError):
        return f"{error.args[0]!r} is missing"
    return str(error).partition("\n")[0][:200]


def _encode(value: Any) -> Any:
    """`value` as JSON can hold it."""
    if isinstance(value, dict):
        if all(isinstance(key, str) for key in value):
            return {key: _encode(item) for key, item in value.items()}
        return {"$items": [[_encode(key), _encode(item)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        return [_encode(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": str(value)}
    return {"$bytes": value.decode("latin-1")} if isinstance(value, bytes) else value


def _decode(value: Any) -> Any:
    """What `_encode` made JSON of."""
    if isinstance(value, list):
        return [_decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        [(tag, content)] = value.items()
        if tag == "$float":
            return float(content)
        if tag == "$bytes":
            return content.encode("latin-1")
        if tag == "$items":
            return {_decode(key): _decode(item) for key, item in content}
    return {key: _decode(item) for key, item in value.items()}


def _strict(kind: type, accepted: tuple[type, ...]) -> Any:
    """A hook that takes a value of one of these types only, and no bool for a number.

    It is for enums of text as well.
    """

    def take(value: Any, wanted: Any) -> Any:
        if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
            raise TypeError(f"{value!r:.40} is not a {wanted.__name__}")
        return wanted(value)

    return take


def _converter() -> cattrs.Converter:
    converter = cattrs.Converter()
    for kind, accepted in (
        (str, (str,)), (bool, (bool,)), (int, (int,)), (float, (int, float)),
    ):  # fmt: skip
        converter.register_structure_hook(kind, _strict(kind, accepted))
    converter.register_structure_hook_func(_is_list, lambda value, _: _list(value))
    converter.register_unstructure_hook(Trace, str)
    converter.register_structure_hook(Trace, lambda text, _: Trace.parse(_text(text)))
    return converter


def _is_list(kind: Any) -> bool:
    return get_origin(kind) is list


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r:.40} is not a list")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.40} is not a trace")
    return value


_CONVERTER = _converter()
