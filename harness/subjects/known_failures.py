"""Says which ledger entries apply to a subject: those of its package, and the user's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from harness.checks.registry import CHECKS
from harness.core.check import Check
from harness.core.ledger import Entry, Ledger, read_ledger, refuse_overlaps
from harness.subjects.installed import (
    default_subjects,
    shipped_ledgers,
    shipped_subjects,
    subjects_of_package,
)
from harness.subjects.subject import Subject


def shipped_failures() -> Ledger:
    """The entries of the ledgers that installed packages ship."""
    ledgers = [read_ledger([one.path], package=one.package) for one in shipped_ledgers()]
    return by_listed_names(Ledger(tuple(e for ledger in ledgers for e in ledger.entries)))


def by_listed_names(ledger: Ledger) -> Ledger:
    """The same entries; those that name a listed subject by its reference have its name."""
    if not any(":" in entry.subject for entry in ledger.entries):
        return ledger
    names = {subject.reference: subject.name for subject in default_subjects()}
    return Ledger(
        tuple(
            replace(entry, subject=names[entry.subject]) if entry.subject in names else entry
            for entry in ledger.entries
        )
    )


def own_failures(
    files: Sequence[Path], subjects: Sequence[Subject] = (), checks: Sequence[Check] = ()
) -> Ledger:
    """The entries of a user's files; `subjects` and `checks` are the user's own.

    Raises `LedgerError` for any other name that is not listed or shipped by a package.
    """
    if not files:
        return Ledger()
    names = {subject.name for subject in (*default_subjects(), *shipped_subjects(), *subjects)}
    return by_listed_names(read_ledger(files, names, [c.name for c in (*CHECKS, *checks)]))


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
    but a listed name applies to the listed subject, not to a user's class of the same name. The
    reference of a listed subject means the same as its name.

    Raises `LedgerError` if two of them cover the same version of torch.
    """
    names = {subject.name, subject.reference} - {""}
    found = [entry for entry in by_listed_names(ledger).entries if entry.subject in names]
    found = [entry for entry in found if _applies(entry, subject)]
    refuse_overlaps([replace(entry, subject=subject.name) for entry in found])
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
    names = [one.import_name for one in shipped_ledgers() if one.package == entry.package]
    if entry.subject == subject.reference and ":" in subject.reference:
        top = subject.reference.partition(":")[0].partition(".")[0]
        return top in {name.partition(".")[0] for name in names}
    return any(_same(subject, other) for other in subjects_of_package(entry.package))


def _same(one: Subject, other: Subject) -> bool:
    """Whether two subjects have the same name and build the same class."""
    return one.name == other.name and _built(one) is _built(other)


def _built(subject: Subject) -> object:
    return subject.build.func if isinstance(subject.build, partial) else subject.build
