"""The configuration of a project: the table ``[tool.lr-resume-harness]`` of its pyproject.toml.

::

    [tool.lr-resume-harness]
    paths = ["my_package"]             # what `check` checks if no SUBJECT is named
    exclude = ["my_package.old*"]      # names, references and modules to leave out
    checks = ["resume_from_file"]      # instead of the default checks
    ledger = ["known.toml"]
    jobs = 4
    max-examples = 50                  # also seed, time-limit and all-checks

    [tool.lr-resume-harness.subjects.Warmup]    # or "my_package.schedules:Warmup"
    options = {warmup = 3, total = 10}
    length = 20
    optimizer = "AdamW(groups=2)"      # as in a trace
    step = "metric"                    # or metrics([4.0,nan]), or my_package.loop.step
    declines = {resume_by_pickle = "it holds a lambda"}
    expected-failures = {resume_by_last_epoch = "issue 12"}
    contract = "saved"
    constant = true

The command looks for the file in the current folder and its parents, pytest in its rootdir. Files
are relative to it. What an argument says comes first; ledgers are added.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from harness.core.errors import ProjectError
from harness.core.output import one_line
from harness.core.suggest import did_you_mean

TABLE = "tool.lr-resume-harness"
_MENTION = re.compile(r"lr-resume-harness[\"']?\s*[\].=]")


@dataclass(frozen=True)
class SubjectSettings:
    """What the user says about a subject; None, or empty, is unsaid.

    `optimizer` and `step` are texts as in a trace, or functions as in `Subject`.
    """

    options: Mapping[str, object] = field(default_factory=dict)
    length: int | None = None
    optimizer: object = None
    step: object = None
    declines: Mapping[str, str] = field(default_factory=dict)
    expected_failures: Mapping[str, str] = field(default_factory=dict)
    contract: str = ""
    constant: bool = False

    def plus(self, other: SubjectSettings) -> SubjectSettings:
        """Both together; `other` comes first."""
        values = {each.name: getattr(other, each.name) for each in fields(other)}
        said = {
            name: value
            for name, value in values.items()
            if value is not None and value is not False and value != ""
        }
        for name in ("options", "declines", "expected_failures"):
            said[name] = {**getattr(self, name), **getattr(other, name)}
        return replace(self, **said)


@dataclass(frozen=True)
class Project:
    """The configuration of a project; `file` is its pyproject.toml, None without a table of ours.

    `paths` are names as on the command line, relative to the current folder.
    """

    file: Path | None = None
    paths: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    checks: tuple[str, ...] = ()
    ledgers: tuple[Path, ...] = ()
    jobs: int | None = None
    max_examples: int | None = None
    seed: int | None = None
    time_limit: float | None = None
    all_checks: bool | None = None
    subjects: Mapping[str, SubjectSettings] = field(default_factory=dict)

    def settings_of(self, *names: str) -> SubjectSettings:
        """What it says about the subject with one of these names or references."""
        found = SubjectSettings()
        for name in names:
            if name in self.subjects:
                found = found.plus(self.subjects[name])
        return found


NO_PROJECT = Project()
"""No configuration."""


def read_project(folder: Path) -> Project:
    """The configuration in the nearest pyproject.toml, upwards from `folder`, with our table.

    Raises `ProjectError` for a wrong key or value.
    """
    for place in (folder, *folder.parents):
        file = place / "pyproject.toml"
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        if not _MENTION.search(text):
            continue
        try:
            tool = tomllib.loads(text).get("tool", {})
        except ValueError as error:
            raise ProjectError(f"{_short(file)}: this is not valid TOML: {error}") from None
        if "lr-resume-harness" in tool:
            return _project(file, tool["lr-resume-harness"])
    return NO_PROJECT


def _short(path: Path) -> str:
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def _project(file: Path, table: Any) -> Project:
    found = dict(_read(file, f"[{TABLE}]", table, _KEYS))
    folder = file.parent
    found["paths"] = tuple(_from_here(folder, name) for name in found.get("paths", ()))
    found["ledgers"] = tuple(folder / name for name in found.pop("ledger", ()))
    found["subjects"] = {
        name: SubjectSettings(
            **dict(_read(file, f"[{TABLE}.subjects.{_key(name)}]", of_it, _SUBJECT_KEYS))
        )
        for name, of_it in found.get("subjects", {}).items()
    }
    return Project(file, **found)


def _from_here(folder: Path, name: str) -> str:
    """A name of the command line; a path relative to the current folder."""
    path, colon, attribute = name.partition(":")
    if path.endswith(".py") or "/" in path or os.sep in path or (folder / path).is_dir():
        slash = "/" if (folder / path).is_dir() else ""
        return os.path.relpath(folder / path) + slash + colon + attribute
    return name


def _key(name: str) -> str:
    return name if re.fullmatch(r"[\w-]+", name) else f'"{name}"'


def _read(
    file: Path, where: str, table: Any, keys: Mapping[str, _Kind]
) -> Iterator[tuple[str, Any]]:
    """The names and values of a table; raises `ProjectError` for what is not as it must be."""
    if not isinstance(table, dict):
        raise ProjectError(f"{_short(file)}: {where} must be a table (got {_cut(table)})")
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in keys:
            hint = did_you_mean(key, [each.replace("_", "-") for each in keys])
            known = ", ".join(each.replace("_", "-") for each in keys)
            raise ProjectError(
                f"{_short(file)}: {where} has no key {key!r}: {hint or f'the keys are {known}'}"
            )
        what, convert = keys[name]
        try:
            yield name, convert(value)
        except (TypeError, ValueError):
            raise ProjectError(
                f"{_short(file)}: {key} in {where} must be {what} (got {_cut(value)})"
            ) from None


def _cut(value: object) -> str:
    text = one_line(repr(value))
    return text if len(text) < 80 else f"{text[:80]}..."


# ------------------------------------------------------------------------------ kinds of values

_Kind = tuple[str, Callable[[Any], Any]]


def _require(right: bool, value: Any) -> Any:
    if not right:
        raise ValueError
    return value


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _texts(value: Any) -> tuple[str, ...]:
    found = [value] if isinstance(value, str) else value
    right = isinstance(found, list) and all(isinstance(each, str) and each for each in found)
    return tuple(_require(right, found))


def _text(value: Any) -> Any:
    return _require(isinstance(value, str) and value.strip() != "", value)


def _reasons(value: Any) -> Any:
    right = isinstance(value, dict) and all(
        isinstance(why, str) and why.strip() for why in value.values()
    )
    return _require(right, value)


def _at_least(least: int) -> Callable[[Any], Any]:
    return lambda value: _require(_is_whole(value) and value >= least, value)


def _seconds(value: Any) -> float:
    number = isinstance(value, float) or _is_whole(value)
    return float(_require(number and 0 < value <= 86400, value))


_TABLE: _Kind = ("a table", lambda value: _require(isinstance(value, dict), value))
_FLAG: _Kind = ("true or false", lambda value: _require(isinstance(value, bool), value))
_TEXTS: _Kind = ("a string or a list of strings", _texts)
_REASONS: _Kind = ('a table of reasons, such as {resume_by_pickle = "why"}', _reasons)
_KEYS: dict[str, _Kind] = {
    "paths": _TEXTS,
    "exclude": _TEXTS,
    "checks": _TEXTS,
    "ledger": _TEXTS,
    "jobs": ("a whole number, 0 or more", _at_least(0)),
    "max_examples": ("a whole number, 0 or more", _at_least(0)),
    "seed": ("a whole number", lambda value: _require(_is_whole(value), value)),
    "time_limit": ("a number of seconds, more than 0 and at most 86400", _seconds),
    "all_checks": _FLAG,
    "subjects": _TABLE,
}
_SUBJECT_KEYS: dict[str, _Kind] = {
    "options": _TABLE,
    "length": ("a whole number of epochs, 1 or more", _at_least(1)),
    "optimizer": ('a text such as "AdamW(groups=2)"', _text),
    "step": ('"metric", "metrics([4.0,nan])" or "package.module.function"', _text),
    "declines": _REASONS,
    "expected_failures": _REASONS,
    "contract": ("saved, new or raises", lambda value: _require(
        value in ("saved", "new", "raises"), value)),
    "constant": _FLAG,
}  # fmt: skip
