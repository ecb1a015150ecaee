"""The file that ``check --json`` writes: its content, and how to write and read it.

The file is a `ResultFile` as JSON: an object with the fields of that class. Each item of
``results`` is an object with the fields of `harness.core.result.Result`, and so on. A trace is
written as its text. JSON can't hold some values: a number such as NaN is ``{"$float": "nan"}``,
bytes are ``{"$bytes": "..."}`` (Latin-1), and a dict whose keys are not strings is
``{"$items": [[key, value], ...]}``.
"""

from __future__ import annotations

import json
import math
import platform
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass, replace
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias, TypeVar, get_args, get_origin

import cattrs
from cattrs.errors import BaseValidationError, IterableValidationError, IterableValidationNote
from cattrs.gen import make_dict_structure_fn
from packaging.version import Version

from harness.core.errors import HarnessError, ResultsError
from harness.core.result import Budget, Result, grouped
from harness.core.run import Looked, parse_ranges, ranges
from harness.core.trace import Trace

SCHEMA = 2
"""The version of the format. It goes up when a key changes its meaning or is removed."""
TAGS = frozenset({"$float", "$bytes", "$items"})
"""The keys that mark values JSON can't hold. A dict that has only such a key is kept as items."""
CONTAINERS: tuple[object, ...] = (list, tuple, dict)
Kind = TypeVar("Kind")
Hook: TypeAlias = Callable[[Any, type], object]
"""Turns what JSON holds into a value of the type that is asked for."""
Rates: TypeAlias = dict[str, list[object]]
"""The uninterrupted runs of a subject: the LR of every param group at the start and after each
epoch, by trace (`SubjectSession.rates`)."""


@dataclass(frozen=True)
class ResultFile:
    """The results of one run.

    `shard` is ``2/5`` for the second of five parts of a run, and `positions` are the indices that
    its results have in the whole run. `complete` is false while the run goes on, and if it was
    stopped before all its `planned` pairs had a result. `runs` holds the uninterrupted runs by
    subject and trace: the LR of every param group at the start and after each epoch.
    `not_checked` maps schedulers that could not be built to the reason.
    """

    schema: int
    torch: str
    python: str
    seed: int
    max_examples: int
    complete: bool
    shard: str
    results: tuple[Result, ...]
    runs: dict[str, Rates] = field(default_factory=dict)
    not_checked: dict[str, str] = field(default_factory=dict)
    planned: int = 0
    positions: tuple[int, ...] = ()


def results_of_run(
    results: Sequence[Result],
    budget: Budget,
    *,
    complete: bool,
    planned: int = 0,
    runs: Mapping[str, Rates] = MappingProxyType({}),
    shard: str = "1/1",
    positions: Sequence[int] = (),
) -> ResultFile:
    """The results of a run of this process, as a `ResultFile`."""
    version = results[0].torch if results else ""
    return ResultFile(
        SCHEMA, version, platform.python_version(), budget.seed, budget.max_examples, complete,
        shard, tuple(results), dict(runs), planned=planned or len(results),
        positions=tuple(positions) or tuple(range(len(results))),
    )  # fmt: skip


def dump_results(file: ResultFile, written: dict[int, tuple[Result, str]] | None = None) -> str:
    """The JSON text of a file.

    `written` keeps the text of each result, for the next call with a file that also has it.
    """
    written = {} if written is None else written
    for result in file.results:
        if id(result) not in written or written[id(result)][0] is not result:
            written[id(result)] = result, _dumped(result).replace("\n", "\n  ")
    text = _dumped(replace(file, results=())) + "\n"
    if not file.results:
        return text
    results = ",\n  ".join(written[id(result)][1] for result in file.results)
    return text.replace('"results": []', f'"results": [\n  {results}\n ]', 1)


def _dumped(value: ResultFile | Result) -> str:
    return json.dumps(_encode(_CONVERTER.unstructure(value)), indent=1, allow_nan=False)


def read_results(path: Path) -> ResultFile:
    """Read a file that ``check --json`` wrote; raises `ResultsError` for any other file."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ResultsError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        why = str(error).partition("\n")[0]
        raise ResultsError(
            f"{path} is not JSON ({why}): give a file that check --json wrote"
        ) from None
    if not isinstance(data, dict) or "schema" not in data or "results" not in data:
        raise ResultsError(f"{path} has no results in it: give a file that check --json wrote")
    if data["schema"] != SCHEMA:
        raise ResultsError(
            f"{path} has schema {_shown(data['schema'])}, but this version reads {SCHEMA}: "
            "write it again with this version of check --json"
        )
    try:
        file = _CONVERTER.structure(_decode(data), ResultFile)
        _require_places(file)
    except (
        BaseValidationError, HarnessError, OverflowError, RecursionError, TypeError, ValueError,
    ) as error:  # fmt: skip
        raise ResultsError(
            f"{path} is not what check --json writes ({_first(error)}): write it again"
        ) from None
    return file


@dataclass(frozen=True)
class VersionFile:
    """The results of one version of torch, and the path they were read from."""

    path: Path
    torch: Version
    file: ResultFile


def read_versions(
    paths: Iterable[Path], version_of: Callable[[str], Version] = Version
) -> list[VersionFile]:
    """Read the files of runs that went to the end, one for each version; the oldest comes first.

    `version_of` reads a version of torch. Raises `ResultsError` for other files, and for two files
    of one version.
    """
    found: dict[Version, VersionFile] = {}
    for path in paths:
        file = read_results(path)
        if not file.complete or not file.results:
            raise ResultsError(f"{path} is from a run that was stopped: run it again to the end")
        try:
            version = version_of(file.torch)
        except ValueError:
            raise ResultsError(f"{path} does not say which torch it was run with") from None
        for (subject, check), several in grouped(file.results, lambda result: result.pair).items():
            if len(several) > 1:
                raise ResultsError(f"{path} has two verdicts for {subject}: {check}")
        if version in found:
            raise ResultsError(
                f"{found[version].path} and {path} are both from torch {version}: "
                "give one file for each version"
            )
        found[version] = VersionFile(path, version, file)
    return [found[version] for version in sorted(found)]


def _require_places(file: ResultFile) -> None:
    """Raise `ValueError` if a counterexample refers to a step that its trace does not have."""
    for result in file.results:
        for found in (result.counterexample, *result.replays):
            if found is None:
                continue
            operations = found.trace.operations
            place, step = found.operation, found.step
            if not 0 <= place < len(operations) or not 0 <= step <= operations[place].count:
                raise ValueError(f"its trace {found.trace} has no step {step} of operation {place}")


def _first(error: BaseException) -> str:
    """The first error, with its place in the file."""
    if isinstance(error, BaseValidationError):
        return cattrs.transform_error(error, format_exception=_message)[0]
    return str(error).partition("\n")[0][:200] or type(error).__name__


def _message(error: BaseException, kind: type | None) -> str:
    if isinstance(error, KeyError):
        return f"{error.args[0]!r} is missing"
    return str(error).partition("\n")[0][:200]


def _encode(value: object) -> object:
    """`value` in a form that JSON can hold."""
    if isinstance(value, dict):
        # A dict that could be mistaken for a marked value is written as items.
        is_marked = len(value) == 1 and not TAGS.isdisjoint(value)
        if all(isinstance(key, str) for key in value) and not is_marked:
            return {key: _encode(item) for key, item in value.items()}
        return {"$items": [[_encode(key), _encode(item)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        return [_encode(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": str(value)}
    return {"$bytes": value.decode("latin-1")} if isinstance(value, bytes) else value


def _decode(value: object) -> object:
    """The inverse of `_encode`."""
    if isinstance(value, list):
        return [_decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        [(tag, content)] = value.items()
        if tag == "$float":
            return float(content)
        if tag == "$bytes":
            return _text(content).encode("latin-1")
        if tag == "$items":
            return {_decode(key): _decode(item) for key, item in content}
    return {key: _decode(item) for key, item in value.items()}


def _strict(kind: type, accepted: tuple[type, ...]) -> Hook:
    """A hook that takes only a value of one of these types, and refuses a bool as a number."""

    def take(value: object, _: type) -> object:
        if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
            raise TypeError(f"{_shown(value)} is not of type {kind.__name__}")
        return kind(value)

    return take


def _container(asked: type, converter: cattrs.Converter) -> Hook:
    """A hook for a list, tuple or dict: refuses other types, and names the first wrong item."""
    origin, kinds = get_origin(asked) or asked, get_args(asked)

    def item(value: object, kind: type, place: int | str) -> object:
        try:
            return converter.structure(value, kind)
        except Exception as error:
            error.add_note(IterableValidationNote(f"at {place!r}", place, kind))
            raise IterableValidationError(f"wrong {asked}", [error], asked) from None

    def take(value: object, _: type) -> object:
        if origin is dict:
            pairs = _instance(value, dict).items()
            return {_text(key): item(each, kinds[1], key) for key, each in pairs}
        value = _instance(value, list)
        every = kinds[:1] * len(value) if origin is list or kinds[-1] is Ellipsis else kinds
        if len(every) != len(value):
            raise ValueError(f"expected {len(every)} items, got {len(value)}")
        return origin(map(item, value, every, range(len(value))))

    return take


def _object(asked: type, converter: cattrs.Converter) -> Hook:
    """A hook for a dataclass: takes only a dict."""
    build: Hook = make_dict_structure_fn(asked, converter)
    return lambda value, kind: build(_instance(value, dict), kind)


def _instance(value: object, kind: type[Kind]) -> Kind:
    if not isinstance(value, kind):
        raise TypeError(f"{_shown(value)} is not of type {kind.__name__}")
    return value


def _converter() -> cattrs.Converter:
    converter = cattrs.Converter()
    for kind, accepted in (
        (str, (str,)), (bool, (bool,)), (int, (int,)), (float, (int, float)),
    ):  # fmt: skip
        converter.register_structure_hook(kind, _strict(kind, accepted))
    converter.register_structure_hook_func(lambda asked: asked is object, lambda value, _: value)
    converter.register_structure_hook(StrEnum, lambda value, asked: asked(_text(value)))
    converter.register_structure_hook_factory(is_dataclass, lambda asked: _object(asked, converter))
    converter.register_structure_hook_factory(
        lambda asked: get_origin(asked) in CONTAINERS, lambda asked: _container(asked, converter)
    )
    converter.register_unstructure_hook(Looked, _looked_to_json)
    converter.register_structure_hook(Looked, lambda value, _: _looked_from_json(value))
    converter.register_unstructure_hook(Trace, str)
    converter.register_structure_hook(Trace, lambda text, _: Trace.parse(_text(text)))
    return converter


def _looked_to_json(looked: Looked) -> dict[str, object]:
    optimizers = [f"{name}(groups={groups})" for name, groups in sorted(looked.optimizers)]
    return {"epochs": ranges(looked.epochs), "optimizers": optimizers}


def _looked_from_json(value: object) -> Looked:
    both = _instance(value, dict)
    names = [_text(name) for name in _instance(both.get("optimizers", []), list)]
    found = [re.fullmatch(r"(\w+)\(groups=(\d{1,9})\)", name) for name in names]
    if not all(found):
        raise ValueError("an optimizer must be written as SGD(groups=2)")
    optimizers = frozenset((match[1], int(match[2])) for match in found if match)
    return Looked(frozenset(parse_ranges(_text(both.get("epochs", "")))), optimizers)


def _text(value: object) -> str:
    return _instance(value, str)


def _shown(value: object) -> str:
    """A value for a message; for a container, only its type."""
    if isinstance(value, (dict, list, bytes)):
        return f"a {type(value).__name__}"
    return f"{value!r:.40}"


_CONVERTER = _converter()


SAME_IN_ALL_SHARDS = ("torch", "python", "seed", "max_examples")
"""The fields that must be the same in all files of one run."""


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
        for key in SAME_IN_ALL_SHARDS:
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
        if len(file.positions) != len(file.results):
            raise ResultsError(f"{path} is from an older version: run that shard again")
        parts[number] = path, file
    missing = [f"{number}/{count}" for number in range(1, count + 1) if number not in parts]
    if missing:
        raise ResultsError(f"some shards are missing: also give {', '.join(missing)}")
    ordered = [parts[number][1] for number in range(1, count + 1)]
    placed = {
        position: result
        for file in ordered
        for position, result in zip(file.positions, file.results, strict=True)
    }
    results = tuple(placed[position] for position in sorted(placed))
    if len({result.pair for result in results}) < sum(len(file.results) for file in ordered):
        raise ResultsError("two of the files contain the same pair: give the shards of one run")
    runs = {name: run for file in ordered for name, run in file.runs.items()}
    planned = sum(file.planned for file in ordered)
    return replace(
        first, shard="1/1", results=results, runs=runs, planned=planned,
        positions=tuple(sorted(placed)),
    )  # fmt: skip


def _shard(path: Path, file: ResultFile) -> tuple[int, int]:
    first, _, second = file.shard.partition("/")
    number, of = (
        int(part) if part.isdecimal() and len(part) < 9 else 0 for part in (first, second)
    )
    if not 1 <= number <= of:
        raise ResultsError(f"{path} does not say which shard it is: give a file of check --shard")
    return number, of
