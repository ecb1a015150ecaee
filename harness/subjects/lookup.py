"""Finds subjects by reference, such as ``module:attribute``, or by a listed name."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeGuard

from torch.optim.lr_scheduler import ReduceLROnPlateau

from harness.core.errors import SubjectError
from harness.core.references import full_reference, import_attribute
from harness.core.training_loop import step_scheduler, step_with_metric
from harness.subjects.subject import Subject
from harness.subjects.type_hints import strategies_for


def _holds_subjects(value: Any) -> TypeGuard[Sequence[Subject]]:
    return (
        isinstance(value, Sequence)
        and len(value) > 0
        and all(isinstance(item, Subject) for item in value)
    )


def as_subject(value: Any, *, name: str = "", options: Mapping[str, Any] | None = None) -> Subject:
    """The subject for a `Subject`, scheduler class or ``build`` function, or a reference to one.

    Options that a class or function needs in addition to `options` are drawn if type hints say
    what they are (`harness.subjects.type_hints`). Raises `SubjectError` for another value.
    """
    if isinstance(value, Subject):
        return value.with_options(options or {})
    if isinstance(value, str):
        if not full_reference(value):
            raise SubjectError(
                f"a subject in a string must be module:attribute (got {value!r}): "
                "or give the Subject, scheduler class or function itself"
            )
        return find_subject(value, options)
    if not callable(value):
        raise SubjectError(
            f"{name or 'a subject'} must be a Subject, a scheduler class or a function "
            f"build(optimizer, last_epoch=-1) (got {value!r:.80})"
        )
    function = value.func if isinstance(value, functools.partial) else value
    name = name or getattr(function, "__name__", type(function).__name__)
    module, path = getattr(value, "__module__", None), getattr(value, "__qualname__", "<")
    reference = "" if module in (None, "__main__") or "<" in path else f"{module}:{path}"
    options = {**(options or {}), **strategies_for(value, options or ())}
    plateau = isinstance(function, type) and issubclass(function, ReduceLROnPlateau)
    step = step_with_metric if plateau else step_scheduler
    return Subject(name.replace(" ", "_"), value, options=options, step=step, reference=reference)


def find_subjects(reference: str, options: Mapping[str, Any] | None = None) -> list[Subject]:
    """The subjects that ``module:attribute`` names, one or a sequence of them."""
    reference = full_reference(reference) or reference
    value = import_attribute(reference)
    if _holds_subjects(value):
        return [
            replace(subject.with_options(options or {}), reference=f"{reference}.{subject.name}")
            for subject in value
        ]
    name = reference.rpartition(":")[2]
    subject = as_subject(value, name="" if isinstance(value, Subject) else name, options=options)
    return [replace(subject, reference=reference)]


def find_subject(reference: str, options: Mapping[str, Any] | None = None) -> Subject:
    """The only subject that ``module:attribute`` names; `SubjectError` if there are several."""
    found = find_subjects(reference, options)
    if len(found) > 1:
        names = ", ".join(subject.reference for subject in found)
        raise SubjectError(f"{reference} contains several subjects: name one of {names}")
    return found[0]


def select_subjects(
    names: Iterable[str], catalogue: Sequence[Subject], options: Mapping[str, Any] | None = None
) -> list[Subject]:
    """The subjects called `names`, each a listed name or a reference.

    Raises `SubjectError` for a name that is neither.
    """
    listed = {subject.name: subject for subject in catalogue}
    chosen: list[Subject] = []
    for name in names:
        if name in listed:
            chosen.append(replace(listed[name].with_options(options or {}), reference=name))
        elif full_reference(name):
            chosen += find_subjects(name, options)
        else:
            close = difflib.get_close_matches(name, listed, n=1)
            hint = f"did you mean {close[0]}?" if close else "python -m harness list shows them."
            raise SubjectError(
                f"no subject, package or module is called {name!r}: {hint} Name your own "
                "scheduler as MODULE:NAME"
            )
    return list({subject.reference: subject for subject in chosen}.values())
