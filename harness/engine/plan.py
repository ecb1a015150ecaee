"""What to check, as data, so that the process that reports never imports the user's code."""

from __future__ import annotations

import contextlib
import functools
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.checks.registry import as_check, prerequisites, select_checks
from harness.core.check import Check
from harness.core.errors import HarnessError, ProjectError, SubjectError
from harness.core.ledger import EMPTY_LEDGER, Ledger
from harness.core.pattern import selector
from harness.core.project import NO_PROJECT, TABLE, Project, SubjectSettings
from harness.core.references import place_of
from harness.core.result import Promise
from harness.core.suggest import did_you_mean
from harness.core.types import Options
from harness.engine.other_process import worker_of
from harness.engine.workers import Died, Pool, Tell
from harness.subjects.discover import Missed
from harness.subjects.known_failures import known_failures
from harness.subjects.lookup import choose_subjects
from harness.subjects.subject import Subject


@dataclass(frozen=True)
class Selection:
    """What the user selected to be checked.

    `skip` are schedulers of a package whose construction ended a worker, each with the reason.
    `ledgers` are the user's files; None ignores all ledgers. `exclude` has patterns of names to
    leave out, `pattern` selects pairs (`harness.core.pattern`). `settings` are for every subject;
    the `project` says more about some.
    """

    names: tuple[str, ...] = ()
    options: Options = field(default_factory=dict)
    installed: bool = False
    checks: tuple[str, ...] = ()
    all_checks: bool = False
    resume_python: str = ""
    ledgers: tuple[Path, ...] | None = ()
    skip: Mapping[str, str] = field(default_factory=dict)
    exclude: tuple[str, ...] = ()
    pattern: str = ""
    settings: SubjectSettings = field(default_factory=SubjectSettings)
    project: Project = NO_PROJECT

    def settings_of(self, *names: str) -> SubjectSettings:
        """What the user says about the subject with one of these names."""
        return self.project.settings_of(*names).plus(self.settings)


@dataclass(frozen=True)
class NamedSubject:
    """A subject by its name and reference, and the place of its definition.

    `contract` says whether it promises something about options that change, `takes` which of the
    options that were given are for it, and `settings` what else the user says about it.
    """

    name: str
    reference: str
    place: str
    contract: bool = False
    takes: frozenset[str] = frozenset()
    settings: SubjectSettings = field(default_factory=SubjectSettings)

    def find(self, options: Options) -> Subject:
        """The subject itself, with these options.

        What its module prints is not shown again: it was shown when the plan was made.
        """
        with contextlib.redirect_stderr(io.StringIO()):
            mine = {name: value for name, value in options.items() if name in self.takes}
            (subject,) = choose_subjects(
                [self.reference or self.name], mine, settings_of=lambda *names: self.settings
            ).subjects
        return replace(subject, name=self.name)


@dataclass(frozen=True)
class NamedCheck:
    """A check by its name and reference, with what reports say about it.

    `prerequisites` are the names of the checks whose verdicts it depends on.
    """

    name: str
    reference: str
    promise: Promise
    searched: bool
    prerequisites: tuple[str, ...] = ()

    def find(self) -> Check:
        """The check itself."""
        return as_check(self.reference or self.name)


@dataclass(frozen=True)
class Plan:
    """The subjects and checks to run, with what can't be checked and what is known.

    The checks `only_by_contract` are for subjects with a contract.
    """

    subjects: tuple[NamedSubject, ...]
    checks: tuple[NamedCheck, ...]
    only_by_contract: frozenset[str] = frozenset()
    missed: tuple[Missed, ...] = ()
    notes: tuple[str, ...] = ()
    ledger: Ledger = EMPTY_LEDGER
    pattern: str = ""

    def checks_of(self, subject: NamedSubject) -> list[NamedCheck]:
        """The checks to run for a subject."""
        selects = selector(self.pattern)
        return [
            check
            for check in self.checks
            if (subject.contract or check.name not in self.only_by_contract)
            and selects(f"{subject.name}-{check.name}")
        ]


def make_plan(selection: Selection, trying: Callable[[str], None] = lambda place: None) -> Plan:
    """Find what the selection names, in this process.

    Calls `trying` with the place of each scheduler of a package before it is built. Raises
    `HarnessError`.
    """
    found = choose_subjects(
        selection.names, selection.options, installed=selection.installed, skip=selection.skip,
        trying=trying, settings_of=selection.settings_of, exclude=selection.exclude,
    )  # fmt: skip
    if selection.names == selection.project.paths:
        _require_used(selection.project, found.subjects)
    select = functools.partial(
        select_checks, selection.checks, all_checks=selection.all_checks,
        other_process=bool(selection.resume_python),
    )  # fmt: skip
    without = select()
    checks = select(contract=any(subject.contract for subject in found.subjects))
    if selection.resume_python:
        worker_of(selection.resume_python)  # so that an error in it is reported early
    ledger = EMPTY_LEDGER
    if selection.ledgers is not None:
        ledger = known_failures(selection.ledgers, found.subjects, checks)
    return Plan(
        tuple(
            NamedSubject(
                s.name, s.reference, place_of(s.build), contract=bool(s.contract),
                takes=frozenset(s.options) & frozenset(selection.options),
                settings=selection.settings_of(*_names_of(s)),
            )
            for s in found.subjects
        ),
        tuple(
            NamedCheck(
                c.name, c.reference, c.promise, c.searched,
                tuple(other.name for other in prerequisites(c)),
            )
            for c in checks
        ),
        frozenset(check.name for check in checks if check not in without),
        found.missed, found.notes, ledger, selection.pattern,
    )  # fmt: skip


def _names_of(subject: Subject) -> list[str]:
    """The names by which a configuration can speak of a subject."""
    build = subject.build.func if isinstance(subject.build, functools.partial) else subject.build
    names = [subject.name, subject.reference, str(getattr(build, "__name__", ""))]
    return [name for name in dict.fromkeys(names) if name]


def _require_used(project: Project, subjects: Sequence[Subject]) -> None:
    """Raise `ProjectError` if the configuration names a subject that is not there."""
    known = {name for subject in subjects for name in _names_of(subject)}
    for name in project.subjects:
        if name not in known:
            hint = did_you_mean(name, known, "lr-resume-harness list shows the names")
            raise ProjectError(
                f"{project.file}: [{TABLE}.subjects] has no subject {name!r} to speak of: {hint}"
            )


def plan_in_worker(selection: Selection, patience: float) -> Plan:
    """Like `make_plan`, but in a worker, so that the user's code can't end this process.

    A name, or a scheduler of a package, that ends the worker is listed in `Plan.missed`. Raises
    `HarnessError`.
    """
    answer = _ask(selection, patience)
    if isinstance(answer, Plan):
        return answer
    if isinstance(answer, Exception):
        raise answer
    if answer.note and answer.note not in (*selection.skip, *selection.names):
        # what was being built or imported
        during = "built" if ":" in answer.note else "imported"
        skip = {**selection.skip, answer.note: f"its process {answer.how} while it was {during}"}
        return plan_in_worker(replace(selection, skip=skip), patience)
    lost = {}
    for name in selection.names:
        alone = _ask(replace(selection, names=(name,), ledgers=None), patience)
        if isinstance(alone, Died) and not alone.note:
            lost[name] = alone.how
    left = tuple(name for name in selection.names if name not in lost)
    if not left or not lost:
        what = ", ".join(selection.names) or "the listed subjects"
        raise SubjectError(f"cannot load {what}: the process that imports it {answer.how}")
    plan = plan_in_worker(replace(selection, names=left), patience)
    missed = tuple(
        Missed(name, f"its process {how} while it was imported") for name, how in lost.items()
    )
    return replace(plan, missed=(*plan.missed, *missed))


def _ask(selection: Selection, patience: float) -> Plan | HarnessError | Died:
    with Pool(_tell_plan, 1, patience) as pool:
        pool.add(selection)
        for _, message in pool:
            if isinstance(message, (Plan, HarnessError, Died)):
                return message
    raise AssertionError("a worker sends a message")


def _tell_plan(selection: Selection, tell: Tell) -> None:
    try:
        tell(make_plan(selection, tell.note))
    except HarnessError as error:
        tell(error)
