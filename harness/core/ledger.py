"""The ledger: what is known to be broken, each with the trace that shows it.

A ledger is a TOML file with a table ``[[failure]]`` for each known failure::

    [[failure]]
    subject = "StepLR"                     # or "my_package.schedules:MySchedule"
    check = "resume_by_last_epoch"
    torch = ">=1.13.1"                     # a version specifier (PEP 440)
    trace = "step_size=3 gamma=0.5 train:3 save:a resume:a"
    shows = "lr"                           # what differs; or "raises KeyError"
    kind = "bug"                           # or "by-design"
    tracked = "pytorch/pytorch#102261"     # or "no report found"
    reason = "The constructor makes a step, which decays once more."

That of PyTorch, ``lr_schedules/known_failures.toml``, is always read by the command line;
``--ledger FILE`` adds one's own, ``--no-ledger`` takes nothing for known. In a test it is
``check_scheduler(..., ledger="known.toml")``.

An entry is judged by its trace, which is run again: while that breaks the check at its end and
in the same values, the pair is KNOWN, and the run passes. When it holds, breaks otherwise, or is
declined, the entry is STALE: the run fails, and says what to write instead. No search is part of
it, so there is nothing random in it. The traces of entries about other versions are run, too:
where one breaks the check, and no entry is about this torch, the pair is BROKEN, for the range
is too short. A broken pair without an entry is BROKEN, and its entry is printed to be pasted.

Wrong entries are refused with file and line: ranges that overlap, a trace that is not minimal, a
key that is not known.

A known failure can hide another defect: ``check --search-known`` searches such pairs, too, and
reports what the entry does not tell. ``python -m harness ledger verify`` runs the traces of all
entries and no others, and says which ranges are not true of the installed torch. ``python -m
harness ledger update RESULT.json ...`` prints the ledger with ranges that are true of all these
results of ``check --json``, of one or many versions of torch, and writes it with ``--write``.
Comments stay.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.specifiers import InvalidSpecifier, Specifier, SpecifierSet
from packaging.version import Version

from harness.core.errors import HarnessError, LedgerError
from harness.core.run import Difference
from harness.core.trace import Trace

KINDS = ("bug", "by-design")
NO_REPORT = "no report found"
KEYS = ("subject", "check", "torch", "trace", "shows", "kind", "tracked", "reason")
_TRACKED = re.compile(r"[\w.-]+/[\w.-]+#\d+|https?://\S+")
_SHOWS = re.compile(r"raises [A-Za-z_][\w.]*|\w[\w ]*(, \w[\w ]*)*")


@dataclass(frozen=True)
class Entry:
    """A known failure; `place` is the file and line where it begins.

    `shows` are the names of the values that differ, or ``raises`` and the exception.
    """

    subject: str
    check: str
    torch: SpecifierSet
    trace: Trace
    shows: str
    kind: str
    tracked: str
    reason: str
    place: str

    def covers(self, version: Version) -> bool:
        """Whether it is about a version of torch."""
        return self.torch.contains(version, prereleases=True)


@dataclass(frozen=True)
class Ledger:
    """Entries, of one file or several."""

    entries: tuple[Entry, ...] = ()

    def on(self, subjects: Iterable[str], check: str) -> list[Entry]:
        """The entries on a pair; `subjects` are the names that a subject goes by."""
        names = set(subjects)
        return [e for e in self.entries if e.check == check and e.subject in names]


NOTHING_KNOWN = Ledger()
"""A ledger without entries."""


def version_of(torch: str) -> Version:
    """A version of torch without what comes behind its ``+``."""
    return Version(Version(torch).public)


def shows_of(broken: Difference) -> str:
    """What differs in a break: names, or the exception's."""
    raised = broken.actual.get("raises")
    if raised is not None:
        return f"raises {str(raised).partition(':')[0]}"
    return ", ".join(sorted({*broken.expected, *broken.actual}))


def read_ledger(
    paths: Sequence[Path],
    subjects: Iterable[str] | None = None,
    checks: Iterable[str] | None = None,
) -> Ledger:
    """The entries of all these files; `subjects` and `checks` are the names that there are.

    A ``module:attribute`` is any name, and so is all where they are None, as it is in a test that
    sees some of the subjects. Raises `LedgerError` for what is not as it must be, with file and
    line.
    """
    subjects = None if subjects is None else set(subjects)
    checks = None if checks is None else set(checks)
    entries: list[Entry] = []
    for path in paths:
        for entry in _read(path):
            if subjects is not None and ":" not in entry.subject and entry.subject not in subjects:
                raise LedgerError(f"{entry.place}: no subject is called {entry.subject!r}")
            if checks is not None and ":" not in entry.check and entry.check not in checks:
                raise LedgerError(f"{entry.place}: no check is called {entry.check!r}")
            for other in entries:
                same = (other.subject, other.check) == (entry.subject, entry.check)
                if same and (version := overlap(entry.torch, other.torch)):
                    raise LedgerError(
                        f"{entry.place}: torch {version} is in {str(entry.torch)!r} and in "
                        f"{str(other.torch)!r} at {other.place}, of the same pair: part the ranges"
                    )
            entries.append(entry)
    return Ledger(tuple(entries))


def _read(path: Path) -> Iterator[Entry]:
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise LedgerError(f"cannot read the ledger {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise LedgerError(f"{path}:{line}: it is not UTF-8: save it as such") from None
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"at line (\d+)", str(error))
        line = int(found[1]) if found else text.count("\n") + 1
        raise LedgerError(f"{path}:{line}: it is no TOML: {error}") from None
    lines = text.splitlines()
    starts = [i for i, line in enumerate(lines, 1) if re.match(r"\s*\[\[\s*failure\s*\]\]", line)]
    for key in data:
        if key != "failure" or len(starts) != len(data[key]):
            line = next((i for i, text in enumerate(lines, 1) if key in text), 1)
            raise LedgerError(
                f"{path}:{line}: {key!r} is not known here: a ledger is tables [[failure]]"
            )
    for number, table in enumerate(data.get("failure", [])):
        end = starts[number + 1] - 1 if number + 1 < len(starts) else len(lines)
        yield _entry(table, path, starts[number], lines[starts[number] : end])


def _entry(table: dict[str, Any], path: Path, start: int, lines: Sequence[str]) -> Entry:
    """The entry of one table, which begins at a line and has more."""

    def refuse(key: str, why: str) -> LedgerError:
        found = re.compile(rf"""\s*["']?{re.escape(key)}["']?\s*=""")
        line = next((i for i, text in enumerate(lines, start + 1) if found.match(text)), start)
        return LedgerError(f"{path}:{line}: {why}")

    for key in table:
        if key not in KEYS:
            raise refuse(key, f"{key!r} is no key of a failure: those are {', '.join(KEYS)}")
    for key in KEYS:
        if key not in table:
            raise refuse(key, f"the failure lacks {key!r}")
        if not isinstance(table[key], str) or not table[key].strip():
            raise refuse(key, f"{key!r} must be a text, and not empty (got {table[key]!r})")
    if table["kind"] not in KINDS:
        raise refuse("kind", f"'kind' must be {' or '.join(KINDS)} (got {table['kind']!r})")
    if not (_TRACKED.search(table["tracked"]) or table["tracked"] == NO_REPORT):
        raise refuse(
            "tracked",
            "'tracked' must say where, as in 'pytorch/pytorch#102261', or be "
            f"{NO_REPORT!r} (got {table['tracked']!r})",
        )
    if not _SHOWS.fullmatch(table["shows"]):
        raise refuse(
            "shows", f"'shows' must be as 'lr' or 'raises KeyError' (got {table['shows']!r})"
        )
    try:
        versions = SpecifierSet(table["torch"])
    except InvalidSpecifier:
        raise refuse(
            "torch",
            f"'torch' must be a version specifier, as in '>=2.0,<2.7' (got {table['torch']!r})",
        ) from None
    if not any(versions.contains(point, prereleases=True) for point in _points(versions)):
        raise refuse("torch", f"no version is in {table['torch']!r}")
    try:
        trace = Trace.parse(table["trace"])
    except HarnessError as error:
        raise refuse("trace", str(error)) from None
    rest = {key: table[key].strip() for key in ("subject", "check", "kind", "tracked", "reason")}
    return Entry(torch=versions, trace=trace, shows=table["shows"], place=f"{path}:{start}", **rest)


def overlap(one: SpecifierSet, other: SpecifierSet) -> str:
    """A version that is in both, or nothing."""
    for point in _points(one, other):
        if all(versions.contains(point, prereleases=True) for versions in (one, other)):
            return str(point)
    return ""


def _points(*sets: SpecifierSet) -> list[Version]:
    """Every version that specifiers name, and one of each stretch between these."""
    named = {Version("0")}
    for specifier in (specifier for versions in sets for specifier in versions):
        named |= set(_named(specifier))
    return sorted(point for version in named for point in (version, _just_above(version)))


def _named(specifier: Specifier) -> Iterator[Version]:
    version = Version(specifier.version.removesuffix(".*"))
    yield version
    release = version.release
    if specifier.operator == "~=":
        release = release[:-1]
    if specifier.operator == "~=" or specifier.version.endswith(".*"):
        yield Version(".".join(map(str, (*release[:-1], release[-1] + 1))))


def _just_above(version: Version) -> Version:
    return Version(f"{version.base_version}.0.0.0.1")


def without(versions: SpecifierSet, version: Version) -> str:
    """The range for a ledger that ends before a version, or nothing where none is left."""
    capped = SpecifierSet(f"{versions},<{version}" if str(versions) else f"<{version}")
    if not any(capped.contains(point, prereleases=True) for point in _points(capped)):
        return ""
    kept = [s for s in versions if s.operator[0] != "<" or Version(s.version) < version]
    return ",".join([*sorted(map(str, kept), reverse=True), f"<{version}"])


def entry_text(values: dict[str, str]) -> str:
    """An entry as text of TOML, to be pasted."""
    lines = [f"{key} = {_quoted(values[key])}" for key in KEYS]
    return "\n".join(["[[failure]]", *lines])


def _quoted(text: str) -> str:
    """A TOML string: literal where it can be, as a trace holds quotes."""
    if "'" not in text and ('"' in text or "\\" in text):
        return f"'{text}'"
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
