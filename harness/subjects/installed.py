"""Finds what installed packages ship: subjects, ledgers, planted faults and controls.

A package declares them as entry points, in its pyproject.toml::

    [project.entry-points."lr_resume_harness.subjects"]
    mine = "my_package.subjects:SUBJECTS"

    [project.entry-points."lr_resume_harness.ledgers"]
    mine = "my_package:known_failures.toml"

======================================  =====================================================
group                                   value
======================================  =====================================================
``lr_resume_harness.subjects``          a `Subject`, a list of them, or a function that returns
                                        them; ``check --installed`` checks these
``lr_resume_harness.default_subjects``  the same; ``check`` checks these if no subject is named,
                                        and ``list`` lists them
``lr_resume_harness.ledgers``           ``package:file``, a ledger (`harness.core.ledger`) in the
                                        package; its entries apply to the subjects that the same
                                        distribution ships, and to classes in the package
``lr_resume_harness.protocols``         a `harness.subjects.protocols.Protocol`: how a kind of
                                        scheduler is recognised and driven
``lr_resume_harness.planted_faults``    a list of `harness.engine.selftest.Fault`, for
                                        ``selftest``
``lr_resume_harness.controls``          a list of correct subjects, for ``selftest``
======================================  =====================================================
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from harness.core.errors import LedgerError, SubjectError
from harness.core.guard import Guard
from harness.core.training_loop import describe
from harness.subjects.discover import Discovery, Missed
from harness.subjects.subject import Subject, subject_from

SUBJECTS = "lr_resume_harness.subjects"
DEFAULT_SUBJECTS = "lr_resume_harness.default_subjects"
LEDGERS = "lr_resume_harness.ledgers"
PLANTED_FAULTS = "lr_resume_harness.planted_faults"
CONTROLS = "lr_resume_harness.controls"


@dataclass(frozen=True)
class ShippedLedger:
    """The ledger of an installed package; `name` is the name of its entry point.

    `package` is the installed package, `import_name` the name by which the folder of the file is
    imported.
    """

    name: str
    package: str
    import_name: str
    path: Path


def _points(group: str) -> list[EntryPoint]:
    return sorted(entry_points(group=group), key=lambda point: (_package(point), point.name))


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "(unknown)"


def _load(point: EntryPoint) -> list[Subject]:
    """The subjects of an entry point, each with its reference, if it has one.

    Raises `SubjectError` if they can't be loaded.
    """
    try:
        with Guard(_package(point)).on():
            value = point.load()
            called = not isinstance(value, (Subject, type)) and callable(value)
            if called:
                value = value()
            several = isinstance(value, Sequence) and not isinstance(value, str)
            subjects = [subject_from(item) for item in (value if several else [value])]
            if not subjects:
                raise SubjectError("it contains no subject")
    except (Exception, SystemExit) as error:
        raise SubjectError(f"{point.value} cannot be loaded: {describe(error)}") from None
    if called:
        return subjects
    place = f"{point.module}:{point.attr}"
    return [replace(one, reference=f"{place}.{one.name}" if several else place)
            for one in subjects]  # fmt: skip


def default_subjects() -> list[Subject]:
    """The subjects that are listed, and checked if no subject is named.

    Raises `SubjectError` if an entry point can't be loaded, or two subjects have the same name.
    """
    found: dict[str, Subject] = {}
    for point in _points(DEFAULT_SUBJECTS):
        try:
            subjects = _load(point)
        except SubjectError as error:
            raise SubjectError(
                f"cannot use the default subjects of the package {_package(point)!r}: {error}"
            ) from None
        for subject in subjects:
            if subject.name in found:
                raise SubjectError(
                    f"two packages ship a default subject called {subject.name!r} "
                    f"({_package(point)!r} is one): rename one, or uninstall a package"
                )
            found[subject.name] = subject
    return list(found.values())


def shipped_selection() -> Discovery:
    """What ``--installed`` checks; raises `SubjectError` if no package ships subjects."""
    points = _points(SUBJECTS)
    if not points:
        raise SubjectError(
            "no installed package ships subjects: give a package an entry point of the group "
            f"{SUBJECTS!r}"
        )
    return _loaded(points)


def shipped_subjects() -> tuple[Subject, ...]:
    """The subjects that packages ship for ``--installed`` and that can be loaded here."""
    return _loaded(_points(SUBJECTS)).subjects


def subjects_of_package(package: str) -> tuple[Subject, ...]:
    """All subjects of a distribution that can be loaded here."""
    points = [*_points(DEFAULT_SUBJECTS), *_points(SUBJECTS)]
    return _loaded([point for point in points if _package(point) == package]).subjects


def _loaded(points: Sequence[EntryPoint]) -> Discovery:
    """The subjects of entry points, and what can't be loaded."""
    subjects: list[Subject] = []
    missed: list[Missed] = []
    for point in points:
        try:
            subjects += _load(point)
        except SubjectError as error:
            what = f"the entry point {point.name!r} of the package {_package(point)!r}"
            missed.append(Missed(what, str(error)))
    return Discovery(tuple(subjects), tuple(missed))


def shipped_ledgers() -> list[ShippedLedger]:
    """The ledgers of installed packages; raises `LedgerError` if one can't be found."""
    ledgers = []
    for point in _points(LEDGERS):
        import_name, _, file = point.value.partition(":")
        try:
            spec = importlib.util.find_spec(import_name)
        except (ImportError, ValueError):
            spec = None
        folders = list(spec.submodule_search_locations or ()) if spec is not None else []
        if not folders or not file:
            raise LedgerError(
                f"cannot find the ledger {point.value!r} of the package {_package(point)!r}: "
                "its entry point must be package:file"
            )
        path = Path(folders[0]) / file
        ledgers.append(ShippedLedger(point.name, _package(point), import_name, path))
    return ledgers


def planted_fault_lists() -> list[str]:
    """References to the lists of planted faults that installed packages ship."""
    return [point.value for point in _points(PLANTED_FAULTS)]


def control_lists() -> list[str]:
    """References to the lists of controls that installed packages ship."""
    return [point.value for point in _points(CONTROLS)]
