"""Planted faults: schedulers with one known defect, and the checks that must catch it.

They test the harness, as the harness tests schedulers: they prove that each check catches the
defects it is made for and nothing else. `harness.engine.selftest` runs them.

A fault is a decorated class. The decorator names the control (the correct scheduler), a minimal
counterexample, and the checks that must catch the fault. ``real`` names a real bug of the same
kind, if one was found::

    @planted(
        HALVING,
        "train:1 save:a resume:a train:2",
        caught_by=EVERY_LOAD,
        real="Lightning-AI/pytorch-lightning#11188",
    )
    class SavesNoPosition(Halving):
        '''Does not save its position.'''

A package ships a list of faults by an entry point (`harness.subjects.installed`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from harness.checks.registry import CHECKS, as_check
from harness.core.errors import CheckError, HarnessError, SubjectError
from harness.core.references import import_attribute
from harness.core.trace import Trace
from harness.subjects.subject import Subject

Class = TypeVar("Class", bound=type)


@dataclass(frozen=True)
class Fault:
    """A subject with one planted defect, and the record of what it proves.

    `control` is the same subject without the defect, so the repair is to build the control
    instead. `wrong` says what is wrong. `real` says where a real bug of the same kind was
    reported; it is empty if none is known. `caught_by` names exactly the checks that must be
    broken, in the order of `harness.CHECKS`. `trace` is a minimal counterexample to the first.
    """

    subject: Subject
    control: Subject
    wrong: str
    real: str
    caught_by: tuple[str, ...]
    trace: Trace

    @property
    def name(self) -> str:
        """The name of its subject."""
        return self.subject.name


def planted(
    control: Subject, trace: str, *, caught_by: Sequence[str], real: str = ""
) -> Callable[[Class], Class]:
    """Make a class a planted fault of the subject `control`: a correct class with one defect.

    The first line of the class's docstring says what is wrong. The other arguments are
    fields of `Fault`. Raises `CheckError` if `caught_by` is empty or names an unknown check,
    `SubjectError` if the class has no docstring or is not derived from the control's class,
    and `TraceError` for a bad `trace`.
    """

    def plant(defect: Class) -> Class:
        name = defect.__name__
        wrong = inspect.cleandoc(vars(defect).get("__doc__") or "").partition("\n")[0]
        if not wrong:
            raise SubjectError(f"fault {name} needs a docstring: what is wrong with it")
        if not (isinstance(control.build, type) and issubclass(defect, control.build)):
            raise SubjectError(
                f"fault {name} must be derived from the class of its control, {control.name}"
            )
        if isinstance(caught_by, str) or not caught_by:
            raise CheckError(
                f"fault {name}: 'caught_by' must be a list of the checks that catch it "
                f"(got {caught_by!r})"
            )
        try:
            named = [as_check(check) for check in caught_by]
            counterexample = Trace.parse(trace)
        except HarnessError as error:
            raise type(error)(f"fault {name}: {error}") from None
        subject = replace(control, name=name, build=defect)
        ordered = [check for check in CHECKS if check in named]
        names = tuple(check.name for check in dict.fromkeys([*ordered, *named]))
        defect.__fault__ = Fault(  # type: ignore[attr-defined]
            subject, control, wrong, real, names, counterexample
        )
        return defect

    return plant


def planted_in(namespace: Mapping[str, Any]) -> tuple[Fault, ...]:
    """The faults planted in a module, given its ``vars``, in their order."""
    own = (vars(value) for value in list(namespace.values()) if isinstance(value, type))
    return tuple(
        attributes["__fault__"]
        for attributes in own
        if attributes.get("__module__") == namespace["__name__"] and "__fault__" in attributes
    )


def find_faults(reference: str) -> list[Fault]:
    """The faults in the list that ``module:attribute`` names.

    Raises `SubjectError` if it can't be imported, or is not a sequence of faults.
    """
    value = import_attribute(reference)
    if (
        not isinstance(value, Sequence)
        or not value
        or not all(isinstance(item, Fault) for item in value)
    ):
        raise SubjectError(f"{reference} must be a sequence of harness.engine.planted_faults.Fault")
    return list(value)
