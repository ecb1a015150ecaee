"""Ranges of versions (PEP 440): whether they overlap, and where they begin and end."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from packaging.specifiers import Specifier, SpecifierSet
from packaging.version import Version

MAX_RANGE = 200
"""The most characters of a range of versions."""


def stretches(versions: SpecifierSet) -> Iterator[tuple[Version, Version]]:
    """The stretches of consecutive versions in a range: first version, and first one after it."""
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


_LAST = Version(f"{10**MAX_RANGE}!0")
"""Later than any version of torch."""


def points(*sets: SpecifierSet) -> list[Version]:
    """Every version at which a range begins or ends, so at least one version of each stretch."""
    named = {Version("0")}
    for specifier in (specifier for versions in sets for specifier in versions):
        named |= set(_named(specifier))
    return sorted({point for version in named for point in (version, *_around(version))})


def bounds(versions: SpecifierSet) -> list[Version]:
    """The versions in a range, in the order of its parts."""
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
