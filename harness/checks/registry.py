"""Every check of the harness, and which check each resume in a trace uses.

A resume check is a route (the function), at a moment (``at``, ``same_dict``, ``other_process``),
with a transport (``save`` and ``load``). In `harness.checks.resume`, several checks share a route.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness.checks import resume, saved_state
from harness.core.check import Check, check_of
from harness.core.errors import CheckError, TraceError
from harness.core.operations import (
    ADDS_GROUP,
    GO_BACK,
    LETTER,
    Operation,
    epochs,
    groups_added,
    walk,
)
from harness.core.references import import_attribute
from harness.core.suggest import did_you_mean
from harness.core.trace import Trace

_VALUES = [value for module in (resume, saved_state) for value in vars(module).values()]
_FOUND = dict.fromkeys(
    value if isinstance(value, Check) else value.__check__
    for value in _VALUES
    if isinstance(value, Check) or hasattr(value, "__check__")
)
CHECKS: tuple[Check, ...] = tuple(
    sorted(_FOUND, key=lambda check: (check.mixes, check.kind, not check.default))
)
"""Every check of the harness, in the order of reports."""
ABOUT_EVENTS = {check.event: check for check in CHECKS if check.event}
"""For an operation by hand, the check that is about it."""
ABOUT_LAST_LR = check_of(saved_state.last_lr_goes_on)
"""The check that ``get_last_lr()`` is right after a resume."""
IN_THIS_PROCESS = tuple(check for check in CHECKS if not check.other_process)
"""The checks that stay in this process."""


def as_check(value: object) -> Check:
    """`value` as a check: a `Check`, a decorated function, or the name of one.

    A name is the name of a harness check, or ``module:attribute``. Raises `CheckError` for
    anything else, and `SubjectError` for a ``module:attribute`` that can't be imported.
    """
    if isinstance(value, Check):
        return value
    if isinstance(value, str):
        named = {check.name: check for check in CHECKS}
        if value in named:
            return named[value]
        if ":" not in value:
            hint = did_you_mean(value, named, "lr-resume-harness list shows them.")
            raise CheckError(
                f"no check is called {value!r}: {hint} Name your own check as MODULE:NAME"
            )
        value = import_attribute(value)
        if isinstance(value, Check):
            return value
    return check_of(value)


def list_of_checks(checks: Iterable[object]) -> list[object]:
    """`checks` as a list; raises `CheckError` for a single one."""
    if isinstance(checks, (str, Check)) or callable(checks):
        name = checks if isinstance(checks, str) else getattr(checks, "__name__", "...")
        raise CheckError(f"'checks' must be a list: write checks=[{name!r}]")
    if not isinstance(checks, Iterable):
        raise CheckError(f"'checks' must be a list of checks (got {checks!r:.80})")
    return list(checks)


def select_checks(
    names: Iterable[object] = (),
    *,
    all_checks: bool = False,
    other_process: bool = False,
    contract: bool = False,
) -> list[Check]:
    """The checks called `names`, in that order; without names the default ones.

    `all_checks` adds the opt-in checks. `contract` adds the checks that change options, for a
    subject that has a contract about them. `other_process` adds the checks that use another
    process, unless one of them is already chosen. Raises `CheckError` for an unknown name.
    """
    chosen = [as_check(name) for name in names]
    if not chosen or all_checks:
        wanted = (
            check
            for check in CHECKS
            if check.default or all_checks or (contract and check.changes_options)
        )
        chosen = [*wanted, *chosen]
    if other_process and not any(check.other_process for check in chosen):
        chosen += [check for check in CHECKS if check.other_process]
    return list(dict.fromkeys(chosen))


def prerequisites(check: Check) -> list[Check]:
    """The resume checks whose verdicts `check` depends on."""
    if check.mixes:
        routes = (each for each in CHECKS if each.default and each.kind == "resume")
        return [each for each in routes if each.at in GO_BACK and not (each.mixes or each.event)]
    return [check.prerequisite] if check.prerequisite else []


def checks_used(check: Check, trace: Trace) -> list[Check]:
    """For every operation of `trace`, the check that a resume or load there uses.

    Raises `TraceError` if the check does not work with the trace.
    """
    found: list[Check] = []
    for operation, before, path in walk(trace.operations):
        route = check
        if check.kind == "state" and operation.kind in check.without:
            raise TraceError(
                f"'{operation}' in the trace: {check.name} promises nothing for runs with it; "
                "leave it out"
            )
        if operation.kind in GO_BACK:
            route = _route(check, operation)
            _require_restored(route, operation, before, path)
            if epochs(path) < route.from_epoch:
                raise TraceError(
                    f"'{operation}' in the trace goes back to epoch {epochs(path)}, and "
                    f"{route.name} resumes from epoch {route.from_epoch} on: put train:1 "
                    "before the save"
                )
        found.append(route)
    return found


def checks_using_save(
    check: Check, used: Sequence[Check], operations: Sequence[Operation], number: int
) -> list[Check]:
    """The checks that resume from what operation `number` saves, in the order of the resumes.

    This is `check` alone unless it mixes others. `used` is the result of `checks_used`.
    """
    if not check.mixes:
        return [check]
    found: list[Check] = []
    for resuming, later in zip(used[number + 1 :], operations[number + 1 :], strict=True):
        if later.slot == operations[number].slot:
            if later.kind == "save":
                break
            found.append(resuming)
    return found


def _require_restored(route: Check, operation: Operation, before: str, path: str) -> None:
    """Raise `TraceError` if a check does not restore what was done before a slot was saved."""
    for kind in route.without:
        if LETTER[kind] in path:
            raise TraceError(
                f"'{operation}' in the trace goes back to a state after {kind}, and {route.name} "
                "does not restore the effect: leave it out before the save"
            )
    if operation.kind == "load" and groups_added(before) != groups_added(path):
        raise TraceError(
            f"'{operation}' in the trace goes back to another number of param groups, which "
            f"an optimizer cannot do: save again after {' and '.join(ADDS_GROUP)}"
        )


def _route(check: Check, operation: Operation) -> Check:
    """The check that one resume or load uses."""
    route = check
    if check.mixes:
        if not operation.check:
            raise TraceError(
                f"'{operation}' in the trace: {check.name} must know which check to use: "
                f"write {operation}@CHECK"
            )
        route = as_check(operation.check)
    elif operation.check not in ("", check.name):
        raise TraceError(
            f"'{operation}' in the trace: only resumes_mixed mixes checks; "
            f"leave out @{operation.check}"
        )
    if route.mixes or route.kind != "resume" or route.at != operation.kind:
        how = {"save": "but at every save", "step": "but after every step"}
        how |= {kind: f"but by {kind}:{operation.slot}" for kind in GO_BACK}
        raise TraceError(
            f"'{operation}' in the trace: {route.name} is not done by {operation.kind}, "
            f"{how[route.at]}"
        )
    return route
