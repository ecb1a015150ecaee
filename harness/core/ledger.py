"""The ledger: known failures, each with the trace that shows it.

A ledger is a TOML file with a table ``[[failure]]`` for each known failure::

    [[failure]]
    subject = "StepLR"                     # or "my_package.schedules:MySchedule"
    check = "resume_by_last_epoch"
    torch = ">=1.13.1"                     # a version specifier (PEP 440)
    library = "timm>=1.0,<2"               # for a library's scheduler: its versions (PEP 508)
    trace = "step_size=3 gamma=0.5 train:3 save:a resume:a"
    shows = "lr is [0.025, 0.0025] and should be [0.05, 0.005]"  # or "raises KeyError: 'x'"
    relation = "multiplied a second time by the factor of the last step"    # if one is known
    kind = "bug"                           # or "by-design", or "rounding", then also ulps = 2
    tracked = "pytorch/pytorch#102261"     # "like ...": a similar case; or "no report found"
    reason = "The constructor makes a step, which decays again."

The command line and `parametrize_with_checks` read the ledgers that installed packages ship
(`harness.subjects.installed`): each is about that package's subjects. ``--ledger FILE`` adds your
own, ``--no-ledger`` ignores all ledgers. `check_scheduler` reads only your own: those of its
argument ``ledger="known.toml"``, or else of pytest's ``--ledger``.

In your own file a subject is ``module:attribute``, or the name that reports show. A name that
``lr-resume-harness list`` shows, such as StepLR, is the listed subject, as is its reference,
``their_package.subjects:SUBJECTS.StepLR`` for example: name a class of yours that is also called
StepLR as ``module:StepLR``.

An entry explains one failure of a pair, and hides no other. Its trace is run again: the trace must
break the check at its last step, with the values in `shows`, to the last bit, and its `relation`
must hold. Then the entry is *true* here, and the pair is swept and searched for other failures. A
failure on another trace with the subject's own options is the same failure if all of these are
true:

* it is after the same kind of operation: at a resume, at a save, at a step after a resume, ...
* it is in the same fields: the values that differ, or the parts of a nested state;
* its values have the entry's `relation` to the uninterrupted run, which is exact. An entry
  without a relation covers only failures for which none is known. With ``relation = "any"`` it
  covers any values, which may hide a regression: use it only where the known failure follows no
  relation, as in a composition, where the other parts also change the LR;
* for `kind = "rounding"`, its values are at most `ulps` units in the last place apart. This takes
  the place of the relation;
* an exception begins with the same text, apart from numbers;
* if the entry has a `part`, the class of a scheduler inside the subject, its trace has such a
  part. A composition does not inherit the entries of its parts, and an entry about one part does
  not excuse the others.

With other options or another optimizer, the same failure can look different. There the operation
and the values may differ, but not the exception or the part. No field may differ that does not
differ on the entry's own trace, and rounding must stay rounding. Only an entry about a check of the
state with `kind = "by-design"` also covers other fields, because each optimizer has its own.

If all entries about the pair are true and all failures are explained, the pair is KNOWN, and the
run passes. A failure that no entry explains is BROKEN, even on the trace of an entry. If
the trace of an entry holds, or the check is declined, the entry is STALE: the run fails, and says
what to write instead. The traces of entries about other versions are also run: if one breaks the
check, and no entry for this torch explains it, the pair is BROKEN, because the range is too short.
For a broken pair, the report prints the entry to paste. A pair can have several entries.

Wrong entries are refused with file and line: ranges that overlap, for the same trace; an unknown
key. If a trace is not minimal, its pair is UNKNOWN, with the smaller trace.

* ``lr-resume-harness ledger verify`` runs the traces of all entries, and no others, and says which
  ranges are wrong for the installed torch.
* ``lr-resume-harness ledger update RESULT...`` prints the ledger with the ranges that these
  results of ``check --json`` show, for one or many versions of torch. With ``--ledger FILE
  --write`` it writes the file. Comments stay.
* ``lr-resume-harness ledger ranges RESULT...`` says which ranges could begin or end one release
  earlier or later without making any run fail.
"""

from __future__ import annotations

import itertools
import math
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path

import tomlkit
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, Specifier, SpecifierSet
from packaging.version import Version

from harness.core.errors import HarnessError, LedgerError
from harness.core.output import one_line
from harness.core.relations import (
    NUMBER,
    ROUNDING,
    every_relation,
    fields_of,
    moment_of,
    shows_of,
    ulps_of,
)
from harness.core.result import Counterexample, Promise
from harness.core.run import Difference
from harness.core.suggest import did_you_mean
from harness.core.trace import Trace

BUG, BY_DESIGN, ROUNDED = KINDS = ("bug", "by-design", "rounding")
NO_REPORT = "no report found"
ANY = "any"
"""The relation of an entry that covers any values."""
REQUIRED = ("subject", "check", "torch", "trace", "shows", "kind", "tracked", "reason")
KEYS = (
    "subject", "check", "torch", "library", "trace", "shows", "relation", "part", "kind", "ulps",
    "tracked", "reason",
)  # fmt: skip
_LISTED = "lr-resume-harness list shows the names."
MAX_BYTES = 10_000_000
"""The largest ledger that is read."""
MAX_RANGE = 200
"""The most characters of a range of versions."""
_LAST = Version(f"{10**MAX_RANGE}!0")
"""Later than any version of torch."""
PART = re.compile(r"\b([A-Za-z_]\w*)\(")
"""What is built in the options of a trace, such as the schedulers inside a composition."""
_TRACKED = re.compile(r"[\w.-]+/[\w.-]+#\d+|https?://\S+")


@dataclass(frozen=True)
class Entry:
    """A known failure; `place` is the file and line where it begins.

    `shows` is what differs on its trace, with the values, as `harness.core.relations.shows_of`
    writes it. `relation`, `part` and `ulps` say which failures on other traces are the same (see
    above). `library` is the requirement that the library of the subject meets, or empty.
    `package` is the installed package that ships the entry, empty for a user's file.
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
    package: str = ""
    relation: str = ""
    part: str = ""
    ulps: int = 0
    library: str = ""

    def covers(self, version: Version) -> bool:
        """Whether its ranges hold a version of torch and the installed version of its library."""
        if not self.torch.contains(version, prereleases=True):
            return False
        if not self.library:
            return True
        wanted = Requirement(self.library)
        try:
            return wanted.specifier.contains(installed_version(wanted.name), prereleases=True)
        except PackageNotFoundError:
            return False

    @property
    def versions(self) -> str:
        """What it covers, in a message."""
        return f"torch '{self.torch}'" + (f" with {self.library}" if self.library else "")

    def is_shown_by(self, found: Difference) -> bool:
        """Whether its own trace shows what the entry says; an exception may say more."""
        text = shows_of(found)
        if "raises" not in found.actual:
            return text == self.shows
        return text.startswith(self.shows) and not text[len(self.shows) :][:1].isalnum()


@dataclass(frozen=True)
class Ledger:
    """Entries, of one file or several."""

    entries: tuple[Entry, ...] = ()

    def about(self, subjects: Iterable[str], *checks: str) -> list[Entry]:
        """The entries about a pair, given the names of its subject and of its check."""
        names = set(subjects)
        return [e for e in self.entries if e.check in checks and e.subject in names]


EMPTY_LEDGER = Ledger()
"""A ledger without entries."""


def version_of(torch: str) -> Version:
    """A version of torch without the part after its ``+``."""
    return Version(Version(torch).public)


@dataclass(frozen=True)
class KnownFailure:
    """A true entry with what its trace shows on this torch."""

    entry: Entry
    shown: Counterexample

    def explains(self, promise: Promise, found: Counterexample, *, own: bool = True) -> bool:
        """Whether a failure on any trace is the one that the entry is about.

        `own` says whether the trace has the subject's own options. With other options the
        operation and the values may differ, except that rounding must stay rounding. A field may
        be right: a constant LR hides what the momentum shows. Only a by-design failure of a saved
        state may have other fields: each optimizer has its own.
        """
        entry, shown = self.entry, self.shown
        if own and moment_of(promise, found) != moment_of(promise, shown):
            return False
        fields, known_fields = fields_of(found), fields_of(shown)
        covered = fields == known_fields if own else fields <= known_fields
        of_any_fields = not own and promise.kind == "state" and entry.kind == BY_DESIGN
        if not covered and (not of_any_fields or "raises" in found.actual):
            return False
        if entry.part and entry.part not in PART.findall(str(found.trace)):
            return False
        if "raises" in found.actual:
            text, known = (NUMBER.sub("N", each) for each in (shows_of(found), entry.shows))
            return text.startswith(known)
        if entry.kind == ROUNDED:
            return (ulps_of(found) or math.inf) <= (entry.ulps if own else ROUNDING)
        if not own or entry.relation == ANY:
            return True
        known_relations = every_relation(found)
        return entry.relation in known_relations if entry.relation else not known_relations


def read_ledger(
    paths: Sequence[Path],
    subjects: Iterable[str] | None = None,
    checks: Iterable[str] | None = None,
    *,
    package: str = "",
) -> Ledger:
    """The entries of all these files, which a `package` ships, or the user's own.

    `subjects` and `checks` are the names to accept; None accepts every name, because a test sees
    only some of the subjects. A ``module:attribute`` is always accepted. Raises `LedgerError`,
    with file and line, for a file that is not a ledger.
    """
    subjects = None if subjects is None else set(subjects)
    checks = None if checks is None else set(checks)
    entries: list[Entry] = []
    for path in paths:
        for entry in _read(path, package):
            if subjects is not None and ":" not in entry.subject and entry.subject not in subjects:
                raise LedgerError(
                    f"{entry.place}: no subject is called {entry.subject!r}: "
                    f"{did_you_mean(entry.subject, subjects, _LISTED)} Name your own as MODULE:NAME"
                )
            if checks is not None and ":" not in entry.check and entry.check not in checks:
                raise LedgerError(
                    f"{entry.place}: no check is called {entry.check!r}: "
                    f"{did_you_mean(entry.check, checks, _LISTED)} Name your own as MODULE:NAME"
                )
            entries.append(entry)
    refuse_overlaps(entries)
    return Ledger(tuple(entries))


def read_text(path: Path) -> str:
    """The text of a ledger; raises `LedgerError` if it can't be read."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: NUL in the name
        why = error.strerror if isinstance(error, OSError) else error
        raise LedgerError(f"cannot read the ledger {str(path)!r}: {why}") from None
    if len(content) > MAX_BYTES:
        raise LedgerError(f"{path} is too large: a ledger has at most {MAX_BYTES:,} bytes")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise LedgerError(f"{path}:{line}: the text is not UTF-8: save the file as UTF-8") from None


def _read(path: Path, package: str) -> Iterator[Entry]:
    text = read_text(path)
    try:
        data = tomllib.loads(text)
    except RecursionError:
        raise LedgerError(f"{path}: values are nested too deeply: use [[failure]] only") from None
    except ValueError as error:  # TOMLDecodeError; or int() refuses 5,000 digits
        found = re.search(r"at line (\d+)", str(error))
        line = int(found[1]) if found else text.count("\n") + 1
        why = one_line(str(error).partition(";")[0])
        raise LedgerError(f"{path}:{line}: this is not valid TOML: {why}") from None
    lines = text.split("\n")
    starts = [i for i, line in enumerate(lines, 1) if re.match(r"\s*\[\[\s*failure\s*\]\]", line)]
    for key, value in data.items():
        if key != "failure" or not isinstance(value, list) or len(starts) != len(value):
            line = next((i for i, text in enumerate(lines, 1) if key in text), 1)
            raise LedgerError(
                f"{path}:{line}: {key!r} is not a table [[failure]]: a ledger holds nothing else, "
                "and no text that looks like one"
            )
    for number, table in enumerate(data.get("failure", [])):
        end = starts[number + 1] - 1 if number + 1 < len(starts) else len(lines)
        yield _entry(table, path, starts[number], lines[starts[number] : end], package)


def _entry(
    table: Mapping[str, object], path: Path, start: int, lines: Sequence[str], package: str
) -> Entry:
    """The entry of one table, which begins at the line `start`, followed by `lines`."""

    def refusal(key: str, why: str) -> LedgerError:
        found = re.compile(rf"""\s*["']?{re.escape(key)}["']?\s*=""")
        line = next((i for i, text in enumerate(lines, start + 1) if found.match(text)), start)
        return LedgerError(f"{path}:{line}: {why}")

    for key in table:
        if key not in KEYS:
            hint = did_you_mean(key, KEYS, f"the keys are {', '.join(KEYS)}")
            raise refusal(key, f"{key!r} is not a key of a failure: {hint}")
    texts: dict[str, str] = {}
    for key in KEYS:
        if key not in table and key in REQUIRED:
            raise refusal(key, f"the failure has no {key!r}")
        if key not in table or key == "ulps":
            continue
        value = table[key]
        if not isinstance(value, str) or not value.strip():
            raise refusal(key, f"{key!r} must be a string that is not empty (got {_short(value)})")
        if not all(c.isprintable() or c in "\n\t" for c in value):
            raise refusal(key, f"{key!r} holds a control character (got {_short(value)})")
        texts[key] = value
    if texts["kind"] not in KINDS:
        raise refusal(
            "kind",
            f"'kind' must be {', '.join(KINDS[:-1])} or {KINDS[-1]} (got {_short(texts['kind'])})",
        )
    ulps = table.get("ulps", 0)
    if isinstance(ulps, bool) or not isinstance(ulps, int) or ulps < 0:
        raise refusal("ulps", f"'ulps' must be a whole number (got {_short(ulps)})")
    if bool(ulps) != (texts["kind"] == ROUNDED):
        raise refusal("kind", "kind = 'rounding' needs 'ulps', and no other kind has it")
    if not (_TRACKED.search(texts["tracked"]) or texts["tracked"] == NO_REPORT):
        raise refusal(
            "tracked",
            "'tracked' must be an issue, such as 'pytorch/pytorch#102261', a URL, or "
            f"{NO_REPORT!r} (got {_short(texts['tracked'])})",
        )
    try:
        versions = _versions(texts["torch"])
    except ValueError as error:
        raise refusal("torch", str(error)) from None
    if "library" in texts:
        try:
            Requirement(texts["library"])
        except InvalidRequirement:
            raise refusal(
                "library",
                "'library' must be a package with its versions, as in 'timm>=1.0,<2' "
                f"(got {_short(texts['library'])})",
            ) from None
    try:
        trace = Trace.parse(texts["trace"])
    except HarnessError as error:
        raise refusal("trace", _cut(str(error))) from None
    rest = {key: text.strip() for key, text in texts.items() if key not in ("torch", "trace")}
    return Entry(
        torch=versions, trace=trace, place=f"{path}:{start}", package=package, ulps=ulps, **rest
    )  # fmt: skip


def _short(value: object) -> str:
    """A string, shortened; for another value only its type, as it may be nested deeply."""
    if isinstance(value, str):
        return _cut(repr(value))
    names = {bool: "true or false", int: "a number", float: "a number", list: "a list"}
    return names.get(type(value), "a table" if isinstance(value, dict) else "a date or time")


def _cut(text: str) -> str:
    return text if len(text) <= 300 else f"{text[:200]} ... {text[-80:]}"


def _versions(text: str) -> SpecifierSet:
    """The range that `text` describes; raises `ValueError`, with the reason."""
    wanted = f"'torch' must be a version specifier, as in '>=2.0,<2.7' (got {_short(text)})"
    if len(text) > MAX_RANGE:
        raise ValueError(f"{wanted}: at most {MAX_RANGE} characters")
    try:
        versions = SpecifierSet(text)
    except InvalidSpecifier:
        raise ValueError(wanted) from None
    if any(specifier.operator == "===" for specifier in versions):
        raise ValueError(f"{wanted}: write == instead of ===")
    if not any(versions.contains(point, prereleases=True) for point in points(versions)):
        raise ValueError(f"'torch' contains no version (got {text!r})")
    return versions


# ------------------------------------------------------------------------------ ranges


def refuse_overlaps(entries: Sequence[Entry]) -> None:
    """Raise `LedgerError` if two entries with the same trace cover the same version.

    Only entries about the same subject and check are compared; a subject must have one name. Each
    range is cut into intervals of consecutive versions, which are sorted by their first version.
    If any two overlap, so do two neighbours.
    """
    groups: dict[tuple[str, str, str, str], list[Entry]] = defaultdict(list)
    for entry in entries:
        groups[entry.subject, entry.check, str(entry.trace), entry.library].append(entry)
    for group in groups.values():
        in_order = sorted(
            (start, end, index)
            for index, entry in enumerate(group)
            for start, end in intervals(entry.torch)
        )
        for (_, end, one), (start, _, other) in itertools.pairwise(in_order):
            if start < end:
                first, second = (group[index] for index in sorted((one, other)))
                raise LedgerError(
                    f"{second.place}: torch {overlap(second.torch, first.torch)} is in "
                    f"{str(second.torch)!r} and in {str(first.torch)!r} at {first.place}, about "
                    "the same subject, check and trace: change the ranges so that they do not "
                    "overlap"
                )


def intervals(versions: SpecifierSet) -> Iterator[tuple[Version, Version]]:
    """The intervals of consecutive versions in a range: first version, and first one after it."""
    ends = [*points(versions), _LAST]
    for start, end in itertools.pairwise(ends):
        if versions.contains(start, prereleases=True):
            yield start, end


def overlap(one: SpecifierSet, other: SpecifierSet) -> str:
    """A version in both ranges, or an empty text; a release rather than a pre-release."""
    both = [
        point
        for point in points(one, other)
        if all(versions.contains(point, prereleases=True) for versions in (one, other))
    ]
    return str(min(both, key=lambda v: (v.is_prerelease or v.is_postrelease, v))) if both else ""


def points(*sets: SpecifierSet) -> list[Version]:
    """Every version at which a range begins or ends, so at least one version of each interval."""
    named = {Version("0")}
    for specifier in (specifier for versions in sets for specifier in versions):
        named |= set(_named(specifier))
    return sorted({point for version in named for point in (version, *_around(version))})


def bounds(versions: SpecifierSet) -> list[Version]:
    """The versions that the parts of a range name, such as 2.0 and 2.7 in ``>=2.0,<2.7``."""
    return [_bound(specifier) for specifier in versions]


def _bound(specifier: Specifier) -> Version:
    return Version(specifier.version.removesuffix(".*"))


def _named(specifier: Specifier) -> Iterator[Version]:
    version = _bound(specifier)
    yield version
    release = version.release
    if specifier.operator == "~=":
        release = release[:-1]
    if specifier.operator == "~=" or specifier.version.endswith(".*"):
        yield Version(f"{version.epoch}!" + ".".join(map(str, (*release[:-1], release[-1] + 1))))


def _around(version: Version) -> Iterator[Version]:
    """The versions next to another one where a range can begin or end.

    They are the first pre-releases of it and of its release, what follows its own pre-releases and
    post-releases, and the next release: PEP 440 treats each of these groups as one.
    """
    base = version.base_version
    stem = version.public.partition(".dev")[0]
    yield from (Version(text) for text in (base, stem, f"{base}.dev0", f"{stem}.dev0"))
    if version.dev is not None:
        yield Version(f"{stem}.dev{version.dev + 1}")
    if version.post is not None:
        yield Version(f"{stem.rpartition('post')[0]}post{version.post + 1}.dev0")
    else:
        yield Version(f"{stem}.post0.dev0")
    if version.pre is not None:
        kind, number = version.pre
        yield Version(f"{base}{kind}{number + 1}.dev0")
    yield Version(f"{base}.0.0.0.1")


def without(versions: SpecifierSet, version: Version) -> str:
    """The range cut to end before a version, or an empty text if nothing is left."""
    capped = SpecifierSet(f"{versions},<{version}" if str(versions) else f"<{version}")
    if not any(capped.contains(point, prereleases=True) for point in points(capped)):
        return ""
    kept = [s for s in versions if s.operator[0] != "<" or Version(s.version) < version]
    return ",".join([*sorted(map(str, kept), reverse=True), f"<{version}"])


# ------------------------------------------------------------------------------- text


def entry_text(values: Mapping[str, str]) -> str:
    """An entry as TOML to paste; `read_ledger` accepts it."""
    lines = ["[[failure]]"]
    for key in KEYS:
        if not values.get(key) and key not in REQUIRED:
            continue
        text = one_line(values[key])
        if key != "ulps":  # a string; a literal one if possible, because traces contain quotes
            literal = "'" not in text and ('"' in text or "\\" in text)
            text = tomlkit.string(text, literal=literal).as_string()
        lines.append(f"{key} = {text}")
    return "\n".join(lines)
