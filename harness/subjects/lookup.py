"""Finds the subjects for a name: a listed one, a reference, a package, or a scheduler itself."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from harness.core.errors import SubjectError
from harness.core.references import full_reference, import_attribute, is_package
from harness.core.types import Options
from harness.subjects.discover import Discovery, subjects_of
from harness.subjects.installed import default_subjects, shipped_selection, shipped_subjects
from harness.subjects.subject import Subject, subject_from


def as_subject(value: object, *, options: Options | None = None) -> Subject:
    """The subject for a reference, or for a value like `subject_from`.

    Raises `SubjectError` for another value.
    """
    if not isinstance(value, str):
        return subject_from(value, options=options)
    if not full_reference(value):
        raise SubjectError(
            f"a subject in a string must be written as module:attribute (got {value!r}); "
            "or give the Subject, scheduler class or function itself"
        )
    return find_subject(value, options)


def find_subjects(reference: str, options: Options | None = None) -> list[Subject]:
    """The subjects that ``module:attribute`` names, one or a sequence of them."""
    reference = full_reference(reference) or reference
    value = import_attribute(reference)
    if isinstance(value, Sequence) and value and all(isinstance(one, Subject) for one in value):
        return [
            replace(one.with_options(options), reference=f"{reference}.{one.name}") for one in value
        ]
    name = reference.rpartition(":")[2] if callable(value) else reference
    subject = subject_from(value, name="" if isinstance(value, Subject) else name, options=options)
    return [replace(subject, reference=reference)]


def find_subject(reference: str, options: Options | None = None) -> Subject:
    """The only subject that ``module:attribute`` names; `SubjectError` if there are several."""
    found = find_subjects(reference, options)
    if len(found) > 1:
        names = ", ".join(subject.reference for subject in found)
        raise SubjectError(f"{reference} contains several subjects: name one of {names}")
    return found[0]


def choose_subjects(
    names: Sequence[str],
    options: Options,
    *,
    installed: bool = False,
    skip: Mapping[str, str] = MappingProxyType({}),
    trying: Callable[[str], None] = lambda place: None,
) -> Discovery:
    """The subjects with these names, or all listed ones; each gets the options.

    A name can also be a package or module, for every scheduler that it defines, which gets the
    options that it takes; `skip` and `trying` are those of `subjects_of`. `installed` adds the
    subjects that packages ship. Raises `SubjectError` for a name that names nothing.
    """
    listed = {subject.name: subject for subject in default_subjects()}
    if not names and not installed and not listed:
        raise SubjectError("no installed package ships default subjects: name a SUBJECT")
    parts = [shipped_selection()] if installed else []
    for name in names or (() if installed else listed):
        if name in listed or full_reference(name) or not is_package(name):
            parts.append(Discovery(tuple(_subjects_called(name, listed, options))))
        else:
            parts.append(subjects_of(name, listed, skip, trying, options))
    found = functools.reduce(Discovery.plus, parts)
    different = {subject.reference or id(subject): subject for subject in found.subjects}
    for subject in different.values():
        subject.check_options()
    driven: dict[str, list[str]] = {}
    for subject in different.values():
        for note in subject.notes:
            driven.setdefault(note, []).append(subject.name)
    notes = (*found.notes, *(f"{note}: {', '.join(names)}" for note, names in driven.items()))
    return replace(found, subjects=tuple(different.values()), notes=notes)


def subject_called(name: str) -> Subject:
    """The subject that is listed or shipped under this name, or that a reference names."""
    listed = {subject.name: subject for subject in default_subjects()}
    if full_reference(name) and name not in listed:
        return find_subject(name)  # it refuses several
    return _subjects_called(name, listed, {})[0]


def _subjects_called(name: str, listed: dict[str, Subject], options: Options) -> list[Subject]:
    """The subjects called `name`: listed, by reference, or shipped by one installed package."""
    if name in listed:
        return [replace(listed[name].with_options(options), reference=name)]
    if full_reference(name):
        return find_subjects(name, options)
    shipped = [subject for subject in shipped_subjects() if subject.name == name]
    if len(shipped) == 1:
        return [shipped[0].with_options(options)]
    if shipped:
        places = ", ".join(subject.reference or "(without reference)" for subject in shipped)
        raise SubjectError(f"several installed subjects are called {name!r}: name one of {places}")
    close = difflib.get_close_matches(name, listed, n=1)
    hint = f"did you mean {close[0]}?" if close else "lr-resume-harness list shows them."
    raise SubjectError(
        f"no subject, package or module is called {name!r}: {hint} Name your own "
        "scheduler as MODULE:NAME"
    )
