"""What a trace means: the uninterrupted runs behind it, and how each resume is made.

A *path* is what an uninterrupted run does, one letter a step: ``t`` for an
optimizer step and a scheduler step, ``o`` and ``s`` for one of them alone, and a
letter for every other operation with a count (`LETTER`). Going
back to a slot cuts the path where the slot was saved, so the path to the present
is always that of a run that was never interrupted.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from harness.checks import resume, saved_state, transports
from harness.checks.resume import resume_with_changed_options, resumes_mixed
from harness.core.check import Check
from harness.core.errors import CheckError, TraceError
from harness.core.operations import LETTER, epochs, groups_added, walk
from harness.core.references import import_attribute
from harness.core.trace import BACK, Operation, Trace


def routes(check: Check, trace: Trace) -> list[Check]:
    """For every operation of `trace`, the check that a resume or load goes by."""
    found: list[Check] = []
    for operation, before, path in walk(trace.operations):
        route = check
        if check.kind == "state" and operation.kind in check.without:
            raise TraceError(
                f"'{operation}' in the trace: {check.name} promises nothing of runs with it; "
                "leave it out"
            )
        if operation.kind in BACK:
            route = _route(check, operation)
            _covers(route, operation, before, path)
            if epochs(path) < route.from_epoch:
                raise TraceError(
                    f"'{operation}' in the trace goes back to epoch {epochs(path)}, and "
                    f"{route.name} resumes from epoch {route.from_epoch} on: put train:1 "
                    "before the save"
                )
        found.append(route)
    return found


def _covers(route: Check, operation: Operation, before: str, path: str) -> None:
    """Raise `TraceError` where a check does not resume what was done on the way to a slot."""
    for kind in route.without:
        if LETTER[kind] in path:
            raise TraceError(
                f"'{operation}' in the trace goes back behind {kind}, and {route.name} does not "
                f"bring back what that did: leave it out before the save"
            )
    if operation.kind == "load" and groups_added(before) != groups_added(path):
        raise TraceError(
            f"'{operation}' in the trace goes back to another number of param groups, and "
            "no optimizer can: save after add_group as well"
        )


def _route(check: Check, operation: Operation) -> Check:
    """The check that one resume or load goes by."""
    route = check
    if check is MIXED:
        if not operation.check:
            raise TraceError(
                f"'{operation}' in the trace: {check.name} needs to know by which check: "
                f"write {operation}@CHECK"
            )
        route = as_check(operation.check)
    elif operation.check not in ("", check.name):
        raise TraceError(
            f"'{operation}' in the trace: only {MIXED.name} mixes checks; "
            f"leave out @{operation.check}"
        )
    if route is MIXED or route.kind != "resume" or route.at != operation.kind:
        how = {"save": "but at every save", "step": "but after every step"}
        how |= {kind: f"but by {kind}:{operation.slot}" for kind in BACK}
        raise TraceError(
            f"'{operation}' in the trace: {route.name} is not done by {operation.kind}, "
            f"{how[route.at]}"
        )
    return route


MIXED: Check = resumes_mixed.__check__  # type: ignore[attr-defined]
"""The check that has no way of its own: each resume of its traces names one."""
_DECORATED = [
    value for module in (resume, saved_state, transports) for value in vars(module).values()
]
CHECKS: tuple[Check, ...] = tuple(
    sorted(
        (value.__check__ for value in _DECORATED if hasattr(value, "__check__")),
        key=lambda check: (check is MIXED, check.kind, not check.default),
    )
)
"""Every check of the harness, in the order of reports."""
HERE = tuple(check for check in CHECKS if not check.elsewhere)
"""Those that stay in this process."""
CHANGED: Check = resume_with_changed_options.__check__  # type: ignore[attr-defined]
"""The check whose traces change options on resume, and say so by ``changed={...}``."""


def as_check(value: Any) -> Check:
    """`value` as a check: a `Check`, a decorated function, or the name of one.

    A name is one of the harness's own or ``module:attribute``. Raises
    `CheckError` for anything else.
    """
    if isinstance(value, Check):
        return value
    if isinstance(value, str):
        named = {check.name: check for check in CHECKS}
        if value in named:
            return named[value]
        if ":" not in value:
            close = difflib.get_close_matches(value, named, n=1)
            hint = f"did you mean {close[0]}?" if close else "see python -m harness list."
            raise CheckError(
                f"no check is called {value!r}: {hint} One of your own is module:attribute"
            )
        value = import_attribute(value)
    check = getattr(value, "__check__", None)
    if not isinstance(check, Check):
        raise CheckError(
            f"{value!r} is no check: decorate it with harness.resume_check or harness.state_check"
        )
    return check


def select_checks(
    names: Iterable[Any] = (), *, all_checks: bool = False, elsewhere: bool = False
) -> list[Check]:
    """The checks called `names`, in that order; without names the default ones.

    `all_checks` adds the opt-in ones, `elsewhere` those that go through another process, one
    at a time, if none is among the others. Raises `CheckError` for an unknown name.
    """
    chosen = [as_check(name) for name in names]
    if not chosen or all_checks:
        chosen = [*(check for check in CHECKS if check.default or all_checks), *chosen]
    if elsewhere and not any(check.elsewhere for check in chosen):
        chosen += [check for check in CHECKS if check.elsewhere]
    return list(dict.fromkeys(chosen))
