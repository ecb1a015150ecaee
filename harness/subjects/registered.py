"""Finds the subjects for a name on the command line, and the ledger entries for a subject."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from harness.checks.registry import CHECKS
from harness.core.check import Check
from harness.core.errors import SubjectError
from harness.core.ledger import Entry, Ledger, read_ledger, refuse_overlaps
from harness.core.references import full_reference, is_package
from harness.subjects.discover import Found, subjects_of
from harness.subjects.installed import (
    default_subjects,
    installed_subjects,
    shipped_ledgers,
    subjects_of_package,
)
from harness.subjects.lookup import find_subject, select_subjects
from harness.subjects.subject import Subject


def choose_subjects(
    names: Sequence[str],
    options: Mapping[str, Any],
    *,
    installed: bool = False,
    skip: Mapping[str, str] = MappingProxyType({}),
    trying: Callable[[str], None] = lambda place: None,
) -> Found:
    """The subjects with these names, or all listed ones; each gets the options.

    A name can also be a package or module, for every scheduler that it defines, except those to
    `skip` (see `subjects_of`). `installed` adds the subjects that packages ship.
    """
    listed = default_subjects()
    taken = [subject.name for subject in listed]
    found = installed_subjects() if installed else Found()
    if not names and not installed and not listed:
        raise SubjectError("no installed package ships default subjects: name a SUBJECT")
    for name in names or ([] if installed else taken):
        if name in taken or full_reference(name) or not is_package(name):
            found.subjects += _called(name, listed, options)
        elif options:
            raise SubjectError(
                f"{name!r} is a package or module: options are for one scheduler, {name}:NAME"
            )
        else:
            more = subjects_of(name, taken, skip, trying)
            found.subjects += more.subjects
            found.missed += more.missed
            found.unread += more.unread
    found.subjects = list({s.reference or id(s): s for s in found.subjects}.values())
    for subject in found.subjects:
        subject.bind(dict.fromkeys(subject.open))
    return found


def subject_called(name: str) -> Subject:
    """The subject that is listed or shipped under this name, or that a reference names."""
    listed = default_subjects()
    if full_reference(name) and name not in [subject.name for subject in listed]:
        return find_subject(name)  # it refuses several
    return _called(name, listed, {})[0]


def _called(name: str, listed: Sequence[Subject], options: Mapping[str, Any]) -> list[Subject]:
    """The subjects called `name`: listed, by reference, or shipped by one installed package."""
    if name not in [subject.name for subject in listed] and not full_reference(name):
        shipped = [subject for subject in _shipped_subjects() if subject.name == name]
        if len(shipped) == 1:
            return [shipped[0].with_options(options)]
        if shipped:
            places = ", ".join(subject.reference or "(without reference)" for subject in shipped)
            raise SubjectError(
                f"several installed subjects are called {name!r}: name one of {places}"
            )
    return select_subjects([name], listed, options)


def _shipped_subjects() -> list[Subject]:
    try:
        return installed_subjects().subjects
    except SubjectError:  # no package ships one
        return []


# ------------------------------------------------------------------------------- ledgers


def shipped_failures() -> Ledger:
    """The entries of the ledgers that installed packages ship."""
    ledgers = [read_ledger([one.path], package=one.package) for one in shipped_ledgers()]
    return Ledger(tuple(entry for ledger in ledgers for entry in ledger.entries))


def own_failures(
    files: Sequence[Path], subjects: Sequence[Subject] = (), checks: Sequence[Check] = ()
) -> Ledger:
    """The entries of a user's files; `subjects` and `checks` are the user's own.

    Raises `LedgerError` for any other name that is not listed or shipped by a package.
    """
    if not files:
        return Ledger()
    names = {subject.name for subject in (*default_subjects(), *_shipped_subjects(), *subjects)}
    return read_ledger(files, names, [check.name for check in (*CHECKS, *checks)])


def known_failures(
    files: Sequence[Path] = (), subjects: Sequence[Subject] = (), checks: Sequence[Check] = ()
) -> Ledger:
    """The entries of all installed ledgers and of a user's files.

    Raises `LedgerError` also if two entries about one of the `subjects` overlap.
    """
    entries = (*shipped_failures().entries, *own_failures(files, subjects, checks).entries)
    for subject in subjects:
        known_to(subject, Ledger(entries))
    return Ledger(entries)


def known_to(subject: Subject, ledger: Ledger) -> Ledger:
    """The entries of `ledger` that apply to `subject`.

    An entry that a package ships applies to subjects of that package. In a user's file a
    reference applies to the subject with that reference, and a name to the subject with that name;
    but a listed name applies to the listed subject, not to a user's class of the same name.

    Raises `LedgerError` if two of them cover the same version of torch.
    """
    names = {subject.name, subject.reference} - {""}
    found = [entry for entry in ledger.entries if entry.subject in names]
    found = [entry for entry in found if _applies(entry, subject)]
    for check in dict.fromkeys(entry.check for entry in found):
        refuse_overlaps([entry for entry in found if entry.check == check])
    return Ledger(tuple(found))


def _applies(entry: Entry, subject: Subject) -> bool:
    """Whether an entry that names the subject applies to it."""
    if entry.package:
        return _is_shipped(subject, entry)
    if entry.subject == (subject.reference or subject.name):
        return True
    listed = {other.name: other for other in default_subjects()}
    return entry.subject not in listed or _same(subject, listed[entry.subject])


def _is_shipped(subject: Subject, entry: Entry) -> bool:
    """Whether the package that ships the entry also ships the subject, or defines it."""
    modules = [one.module for one in shipped_ledgers() if one.package == entry.package]
    if entry.subject == subject.reference and ":" in subject.reference:
        top = subject.reference.partition(":")[0].partition(".")[0]
        return top in {module.partition(".")[0] for module in modules}
    return any(_same(subject, other) for other in subjects_of_package(entry.package))


def _same(one: Subject, other: Subject) -> bool:
    """Whether two subjects have the same name and build the same class."""
    return one.name == other.name and _built(one) is _built(other)


def _built(subject: Subject) -> object:
    return subject.build.func if isinstance(subject.build, partial) else subject.build
