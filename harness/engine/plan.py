"""What to check, as data, so that the process that reports never imports the user's code."""

from __future__ import annotations

import contextlib
import functools
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.checks.registry import as_check, prerequisites, select_checks
from harness.core.check import Check
from harness.core.errors import HarnessError, SubjectError
from harness.core.ledger import NOTHING_KNOWN, Ledger
from harness.core.references import place_of
from harness.core.result import Promise
from harness.core.types import Options
from harness.engine.other_process import worker_of
from harness.engine.workers import Died, Pool, Tell
from harness.subjects.discover import Missed
from harness.subjects.known_failures import known_failures
from harness.subjects.lookup import choose_subjects
from harness.subjects.subject import Subject

__all__ = ["NamedCheck", "NamedSubject", "Plan", "Request", "make_plan", "plan_in_worker"]


@dataclass(frozen=True)
class Request:
    """What a command was asked to check.

    `skip` are schedulers of a package that can't be built without losing the process, each with
    the reason. `ledgers` are a user's files; None ignores all ledgers.
    """

    names: tuple[str, ...] = ()
    options: Options = field(default_factory=dict)
    installed: bool = False
    checks: tuple[str, ...] = ()
    all_checks: bool = False
    resume_python: str = ""
    ledgers: tuple[Path, ...] | None = ()
    skip: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class NamedSubject:
    """A subject by its name and reference, and the place of its definition.

    `contract` says whether it promises something about options that change, `takes` which of the
    options that were given are for it.
    """

    name: str
    reference: str
    place: str
    contract: bool = False
    takes: frozenset[str] = frozenset()

    def find(self, options: Options) -> Subject:
        """The subject itself, with these options.

        What its module prints is not shown: it was when the plan was made.
        """
        with contextlib.redirect_stderr(io.StringIO()):
            mine = {name: value for name, value in options.items() if name in self.takes}
            (subject,) = choose_subjects([self.reference or self.name], mine).subjects
        return replace(subject, name=self.name)


@dataclass(frozen=True)
class NamedCheck:
    """A check by its name and reference, with what reports say about it.

    `after` are the names of the checks whose verdicts it depends on.
    """

    name: str
    reference: str
    promise: Promise
    searched: bool
    after: tuple[str, ...] = ()

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
    ledger: Ledger = NOTHING_KNOWN


def make_plan(request: Request, trying: Callable[[str], None] = lambda place: None) -> Plan:
    """Find what the request names, in this process.

    Calls `trying` with the place of each scheduler of a package before it is built. Raises
    `HarnessError`.
    """
    found = choose_subjects(
        request.names, request.options, installed=request.installed, skip=request.skip,
        trying=trying,
    )  # fmt: skip
    select = functools.partial(
        select_checks, request.checks, all_checks=request.all_checks,
        elsewhere=bool(request.resume_python),
    )  # fmt: skip
    without = select()
    checks = select(contract=any(subject.contract for subject in found.subjects))
    if request.resume_python:
        worker_of(request.resume_python)  # so that an error in it is reported early
    ledger = NOTHING_KNOWN
    if request.ledgers is not None:
        ledger = known_failures(request.ledgers, found.subjects, checks)
    return Plan(
        tuple(
            NamedSubject(
                s.name, s.reference, place_of(s.build), contract=bool(s.contract),
                takes=frozenset(s.options) & frozenset(request.options),
            )
            for s in found.subjects
        ),
        tuple(
            NamedCheck(
                c.name, c.reference, c.promise, c.searched,
                tuple(way.name for way in prerequisites(c)),
            )
            for c in checks
        ),
        frozenset(check.name for check in checks if check not in without),
        found.missed, found.notes, ledger,
    )  # fmt: skip


def plan_in_worker(request: Request, patience: float) -> Plan:
    """The same, found in a worker, so that nothing that is imported or built can end this process.

    A name, or a scheduler of a package, that ends the worker is listed in `Plan.missed`. Raises
    `HarnessError`.
    """
    answer = _ask(request, patience)
    if isinstance(answer, Plan):
        return answer
    if isinstance(answer, Exception):
        raise answer
    if answer.note and answer.note not in (*request.skip, *request.names):
        # what was being built or imported
        during = "built" if ":" in answer.note else "imported"
        skip = {**request.skip, answer.note: f"its process {answer.how} while it was {during}"}
        return plan_in_worker(replace(request, skip=skip), patience)
    lost = {}
    for name in request.names:
        alone = _ask(replace(request, names=(name,), ledgers=None), patience)
        if isinstance(alone, Died) and not alone.note:
            lost[name] = alone.how
    left = tuple(name for name in request.names if name not in lost)
    if not left or not lost:
        what = ", ".join(request.names) or "the listed subjects"
        raise SubjectError(f"cannot load {what}: the process that imports it {answer.how}")
    plan = plan_in_worker(replace(request, names=left), patience)
    missed = tuple(
        Missed(name, f"its process {how} while it was imported") for name, how in lost.items()
    )
    return replace(plan, missed=(*plan.missed, *missed))


def _ask(request: Request, patience: float) -> Plan | HarnessError | Died:
    with Pool(_tell_plan, 1, patience) as pool:
        pool.add(request)
        for _, message in pool:
            if isinstance(message, (Plan, HarnessError, Died)):
                return message
    raise AssertionError("a worker sends a message")


def _tell_plan(request: Request, tell: Tell) -> None:
    try:
        tell(make_plan(request, tell.note))
    except HarnessError as error:
        tell(error)
