"""Finds the subjects for a name: a listed one, a reference, a package, or a scheduler itself."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from harness.core.errors import SubjectError
from harness.core.project import SubjectSettings
from harness.core.references import (
    full_reference,
    import_attribute,
    is_package,
    is_path,
    module_of,
    modules_near,
)
from harness.core.suggest import closest, did_you_mean
from harness.core.types import Options
from harness.subjects.discover import (
    Discovery,
    NoSchedulerError,
    by_path,
    file_mentions_schedules,
    is_excluded,
    subjects_of,
)
from harness.subjects.installed import default_subjects, shipped_selection, shipped_subjects
from harness.subjects.subject import Subject, subject_from

SettingsOf = Callable[..., SubjectSettings]
"""What the user says about the subject with some names or references."""


def nothing_said(*names: str) -> SubjectSettings:
    """No settings, for any subject."""
    return SubjectSettings()


def as_subject(
    value: object, *, options: Options | None = None, settings_of: SettingsOf = nothing_said
) -> Subject:
    """The subject for a reference, or for a value like `subject_from`.

    Raises `SubjectError` for another value.
    """
    if not isinstance(value, str):
        return _subject_from(value, options, settings_of)
    if not full_reference(value):
        raise SubjectError(
            f"a subject in a string must be written as module:attribute (got {value!r}); "
            "or give the Subject, scheduler class or function itself"
        )
    return find_subject(value, options, settings_of)


def _subject_from(
    value: object, options: Options | None, settings_of: SettingsOf, reference: str = ""
) -> Subject:
    """The subject for a value, with what is said about it and then with the options."""
    if isinstance(value, Subject):
        said = settings_of(*filter(None, dict.fromkeys([value.name, value.reference, reference])))
        return value.with_settings(said).with_options(options)
    function = value.func if isinstance(value, functools.partial) else value
    name = str(getattr(function, "__name__", ""))
    place = f"{getattr(value, '__module__', '')}:{getattr(value, '__qualname__', '')}"
    said = settings_of(*filter(None, dict.fromkeys([name, place, reference])))
    given = {**said.options, **(options or {})}
    shown = reference.rpartition(":")[2] if callable(value) else reference
    return subject_from(value, name=shown, options=given).with_settings(said).with_options(options)


def find_subjects(
    reference: str, options: Options | None = None, settings_of: SettingsOf = nothing_said
) -> list[Subject]:
    """The subjects that ``module:attribute`` names, one or a sequence of them."""
    file = Path(reference.rpartition(":")[0])
    if file.suffix == ".py" and not file.exists():
        raise SubjectError(f"there is no file {str(file)!r}{_near_path(file)}")
    reference = full_reference(reference) or reference
    value = import_attribute(reference)
    if isinstance(value, Sequence) and value and all(isinstance(one, Subject) for one in value):
        return [
            replace(_subject_from(one, options, settings_of, place), reference=place)
            for one in value
            for place in [f"{reference}.{one.name}"]
        ]
    return [replace(_subject_from(value, options, settings_of, reference), reference=reference)]


def find_subject(
    reference: str, options: Options | None = None, settings_of: SettingsOf = nothing_said
) -> Subject:
    """The only subject that ``module:attribute`` names; `SubjectError` if there are several."""
    found = find_subjects(reference, options, settings_of)
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
    settings_of: SettingsOf = nothing_said,
    exclude: Sequence[str] = (),
) -> Discovery:
    """The subjects with these names, or all listed ones; each gets the options.

    A name can also be a package, a module, a file or a folder, for every scheduler that it
    defines, which gets the options that it takes; `skip` and `trying` are those of `subjects_of`.
    `installed` adds the subjects that packages ship. What is said about a subject comes before its
    own fields, and `options` before both. `exclude` has patterns of names, references and modules
    to leave out. Raises `SubjectError` for a name that names nothing.
    """
    listed = {subject.name: subject for subject in default_subjects()}
    if not names and not installed and not listed:
        raise SubjectError("no installed package ships default subjects: name a SUBJECT")
    parts = [shipped_selection()] if installed else []
    inside = functools.partial(
        subjects_of, taken=listed, skip=skip, trying=trying, options=options,
        settings_of=settings_of, exclude=exclude,
    )  # fmt: skip
    for name in names or (() if installed else listed):
        if name not in listed and is_path(name):
            parts.append(_in_path(Path(name), inside))
        elif name in listed or full_reference(name) or not is_package(name):
            called = _subjects_called(name, listed, options, settings_of)
            parts.append(Discovery(tuple(called)))
        else:
            parts.append(inside(name))
    found = functools.reduce(Discovery.plus, parts)
    different = {subject.reference or id(subject): subject for subject in found.subjects}
    kept = [each for each in different.values() if not _is_excluded(each, exclude)]
    if different and not kept:
        raise SubjectError(f"every subject is excluded by {', '.join(exclude)}: leave one out")
    for subject in kept:
        subject.check_options()
    driven: dict[str, list[str]] = {}
    for subject in kept:
        for note in subject.notes:
            driven.setdefault(note, []).append(subject.name)
    notes = (*found.notes, *(f"{note}: {', '.join(names)}" for note, names in driven.items()))
    return replace(found, subjects=tuple(kept), notes=notes)


def _is_excluded(subject: Subject, patterns: Sequence[str]) -> bool:
    names = (subject.name, subject.reference, subject.reference.replace(":", "."))
    return any(is_excluded(name, patterns) for name in names)


def _in_path(path: Path, inside: Callable[[str], Discovery]) -> Discovery:
    """The subjects in a file, or in the folder of a package or of several modules."""
    if not path.exists():
        raise SubjectError(f"there is no file or folder {str(path)!r}{_near_path(path)}")
    if path.is_file() or (path / "__init__.py").is_file():
        module = module_of(path)
        return by_path(inside(module))
    found: list[Discovery] = []
    for child in sorted(path.iterdir()):
        package = (child / "__init__.py").is_file()
        if package or (child.suffix == ".py" and file_mentions_schedules(child)):
            with contextlib.suppress(NoSchedulerError):
                found.append(by_path(inside(module_of(child))))
    if not found:
        raise SubjectError(
            f"no package or module in the folder {str(path)!r} defines a scheduler: name a file "
            "as FILE.py, or a scheduler in it as FILE.py:NAME"
        )
    return functools.reduce(Discovery.plus, found)


def _near_path(path: Path) -> str:
    folder = path.parent
    names = [child.name for child in folder.iterdir()] if folder.is_dir() else []
    close = closest(path.name, names)
    return f": did you mean {folder / close}?" if close else ": check the name"


def subject_called(name: str, settings_of: SettingsOf = nothing_said) -> Subject:
    """The subject that is listed or shipped under this name, or that a reference names."""
    listed = {subject.name: subject for subject in default_subjects()}
    if full_reference(name) and name not in listed:
        return find_subject(name, settings_of=settings_of)  # it refuses several
    return _subjects_called(name, listed, {}, settings_of)[0]


def _subjects_called(
    name: str, listed: dict[str, Subject], options: Options, settings_of: SettingsOf
) -> list[Subject]:
    """The subjects called `name`: listed, by reference, or shipped by one installed package."""
    if name in listed:
        return [replace(_subject_from(listed[name], options, settings_of, name), reference=name)]
    if full_reference(name):
        return find_subjects(name, options, settings_of)
    shipped = [subject for subject in shipped_subjects() if subject.name == name]
    if len(shipped) == 1:
        return [_subject_from(shipped[0], options, settings_of)]
    if shipped:
        places = ", ".join(subject.reference or "(without reference)" for subject in shipped)
        raise SubjectError(f"several installed subjects are called {name!r}: name one of {places}")
    near = modules_near(name)
    known = [*listed, *(subject.name for subject in shipped_subjects()), *near]
    inside = [each for each in near if each.endswith(f".{name}")]
    hint = did_you_mean(inside[0] if inside else name, known, "lr-resume-harness list shows them.")
    raise SubjectError(
        f"no subject, package or module is called {name!r}: {hint} Name your own "
        "scheduler as MODULE:NAME or FILE.py:NAME"
    )
