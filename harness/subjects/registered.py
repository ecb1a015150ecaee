"""What the command line checks where nothing is named: the subjects, and the ledger of PyTorch."""

from __future__ import annotations

import importlib.resources
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from harness.checks.registry import CHECKS
from harness.core.check import Check
from harness.core.errors import SubjectError
from harness.core.ledger import Ledger, read_ledger
from harness.subjects.discover import Found, installed_subjects, is_package, subjects_of
from harness.subjects.references import find_subject, find_subjects, select_subjects
from harness.subjects.subject import Subject

CATALOGUE = "lr_schedules.subjects:SUBJECTS"
"""The subjects that are checked where none is named."""


def choose_subjects(
    names: Sequence[str], options: Mapping[str, Any], *, installed: bool = False
) -> Found:
    """The subjects of these names, or all that are listed; each takes the options.

    A name may be that of a package or module, for all that it defines; those `installed` are
    what packages ship.
    """
    catalogue = find_subjects(CATALOGUE)
    listed = [subject.name for subject in catalogue]
    found = installed_subjects() if installed else Found()
    for name in names or ([] if installed else listed):
        if ":" in name or name in listed or not is_package(name):
            found.subjects += select_subjects([name], catalogue, dict(options))
        elif options:
            raise SubjectError(
                f"{name!r} is a package or module: options are for one scheduler, {name}:NAME"
            )
        else:
            more = subjects_of(name, listed)
            found.subjects += more.subjects
            found.missed += more.missed
            found.unread += more.unread
    found.subjects = list({s.reference or id(s): s for s in found.subjects}.values())
    for subject in found.subjects:
        subject.bind(dict.fromkeys(subject.open))
    return found


def subject_called(name: str) -> Subject:
    """The subject that is listed by a name, or is to be found at a ``module:attribute``."""
    return (
        find_subject(name) if ":" in name else select_subjects([name], find_subjects(CATALOGUE))[0]
    )


def ledger_of_torch() -> Path:
    """The file of PyTorch's known failures, which comes with the subjects."""
    package = CATALOGUE.partition(".")[0]
    return Path(str(importlib.resources.files(package) / "known_failures.toml"))


def known_failures(
    files: Sequence[Path], subjects: Sequence[Subject] = (), checks: Sequence[Check] = ()
) -> Ledger:
    """The entries of these files; `subjects` and `checks` are a user's own beside the listed."""
    names = [subject.name for subject in (*find_subjects(CATALOGUE), *subjects)]
    return read_ledger(files, names, [check.name for check in (*CHECKS, *checks)])


def known_to(subject: Subject, ledger: Ledger) -> Ledger:
    """`ledger` without the entries of PyTorch's, where `subject` only has a name of PyTorch's.

    It is PyTorch's own where it has the listed subject's name and class.
    """
    listed = {other.name: other.build for other in find_subjects(CATALOGUE)}
    build = subject.build.func if isinstance(subject.build, partial) else subject.build
    if listed.get(subject.name) is build:
        return ledger
    place = f"{ledger_of_torch()}:"
    return Ledger(tuple(e for e in ledger.entries if not e.place.startswith(place)))
