"""Finds the schedulers that a package or module defines.

``python -m harness check my_package`` checks every ``LRScheduler`` subclass that a package or
module defines. The options that a constructor needs are drawn if type hints say what they are.
Classes that can't be built are listed with the three lines to add, and the exit status is not 0.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import shlex
import types
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch.optim import lr_scheduler

from harness.core.errors import SubjectError, TimeLimit
from harness.core.guard import Guard, time_limit
from harness.core.training_loop import (
    LRScheduler,
    describe,
    new_sgd,
    step_scheduler,
    step_with_metric,
)  # fmt: skip
from harness.subjects.drawn_options import draw_options
from harness.subjects.subject import Subject
from harness.subjects.type_hints import required, strategy_of, without_default

TRIES = 25
"""How many sets of drawn options a constructor may refuse."""
BUILD_TIME_LIMIT = 30.0
"""Seconds that all these tries may take together."""
_SCHEDULERS = LRScheduler, lr_scheduler.ReduceLROnPlateau  # not an LRScheduler before torch 2.2


@dataclass(frozen=True)
class Missed:
    """A scheduler that can't be built, or subjects that can't be loaded: what, and why.

    `lines` are the lines to add to a module so that it can be checked, if they are known. `needs`
    are the options that ``--kwargs`` must give, if that is enough.
    """

    what: str
    why: str
    lines: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()

    def __str__(self) -> str:
        text = f"NOT CHECKED {self.what}: {self.why}"
        if self.needs:
            options = shlex.quote(" ".join(f"{option}=..." for option in self.needs))
            text += f"\n  Check it with: python -m harness check {self.what} --kwargs {options}"
        if self.lines:
            indented = "\n".join(f"    {line}" for line in self.lines)
            add = "or add" if self.needs else "Add"
            text += f"\n  {add} to a module, and check it as MODULE:SUBJECT:\n{indented}"
        return text


@dataclass(frozen=True)
class Selection:
    """The subjects that were found, those that were missed, and notes on what was not read."""

    subjects: tuple[Subject, ...] = ()
    missed: tuple[Missed, ...] = ()
    notes: tuple[str, ...] = ()

    def plus(self, other: Selection) -> Selection:
        """Both together."""
        return Selection(
            self.subjects + other.subjects, self.missed + other.missed, self.notes + other.notes
        )


def subjects_of(
    package: str,
    taken: Collection[str] = (),
    skip: Mapping[str, str] = types.MappingProxyType({}),
    trying: Callable[[str], None] = lambda place: None,
) -> Selection:
    """A subject for every scheduler class that a package or module defines.

    The options that a constructor needs are drawn if type hints say what they are. A subject
    whose name is in `taken` gets its module's name too. Names that begin with ``_`` and abstract
    classes are left out; a class without ``get_lr`` and ``step`` is noted. A class in `skip` is not
    built: it is in `missed`, with the reason that `skip` gives. `trying` is called with the
    reference of each class before it is built, and with an empty text at the end. Raises
    `SubjectError` if the package can't be imported, or defines no scheduler.
    """
    modules, notes = _modules(package)
    classes = list(dict.fromkeys(cls for module in modules for cls in _schedulers(module, package)))
    names = Counter(cls.__name__ for cls in classes)
    subjects: list[Subject] = []
    missed: list[Missed] = []
    for cls in classes:
        place = f"{cls.__module__}:{cls.__qualname__}"
        is_base = any(issubclass(other, cls) for other in classes if other is not cls)
        if _does_nothing(cls):
            if not is_base:
                notes.append(f"{place} is not checked: it has no get_lr and no step")
            continue
        alone = names[cls.__name__] == 1 and cls.__name__ not in taken
        trying(place)
        name = cls.__name__ if alone else place
        made = Missed(place, skip[place]) if place in skip else _subject(cls, name, place)
        if isinstance(made, Subject):
            subjects.append(made)
        elif not (made.why.startswith("NotImplementedError") and is_base):
            missed.append(made)
    trying("")
    if not subjects and not missed:
        raise SubjectError(
            f"{package!r} defines no scheduler: nothing in it is a subclass of LRScheduler. Name "
            "a scheduler of another kind as MODULE:NAME"
        )
    return Selection(tuple(subjects), tuple(missed), tuple(notes))


def _modules(package: str) -> tuple[list[types.ModuleType], list[str]]:
    """A module and all its submodules, and a note on each that can't be imported."""
    modules: list[types.ModuleType] = []
    notes: list[str] = []
    names = [package]
    while names:
        name = names.pop(0)
        try:
            with Guard(name).on():
                module = importlib.import_module(name)
        except (Exception, SystemExit) as error:
            if name == package:
                raise SubjectError(f"cannot import {name!r} ({describe(error)})") from None
            notes.append(f"{name} cannot be imported ({describe(error)})")
            continue
        modules.append(module)
        inside = pkgutil.iter_modules(getattr(module, "__path__", ()), f"{name}.")
        # importing a __main__ would run it
        names[:0] = [one.name for one in inside if not one.name.endswith(".__main__")]
    return modules, notes


def _schedulers(module: types.ModuleType, package: str) -> Iterator[type]:
    """The public scheduler classes in a module that are defined in its package."""
    for name, value in list(vars(module).items()):
        if (
            isinstance(value, type)
            and issubclass(value, _SCHEDULERS)
            and not name.startswith("_")
            and not value.__name__.startswith("_")
            and f"{value.__module__}.".startswith(f"{package}.")
            and not inspect.isabstract(value)
        ):
            yield value


def _does_nothing(cls: type) -> bool:
    """Whether its only ``get_lr`` and ``step`` are those of torch's base class."""
    made = [vars(parent) for parent in cls.__mro__ if parent is not LRScheduler]
    return not any("get_lr" in names or "step" in names for names in made)


def _subject(cls: type[Any], name: str, place: str) -> Subject | Missed:
    """A subject that builds `cls`, whose reference is `place`; or why there is none."""
    options: dict[str, object] = {}
    step, step_needs = step_scheduler, ""

    def missed(why: str, needs: tuple[str, ...] = ()) -> Missed:
        return Missed(place, why, _lines(cls, options, step_needs), needs)

    try:
        with Guard(place).on():
            if next(iter(inspect.signature(cls).parameters), "") != "optimizer":
                return missed("the first parameter of its constructor is not 'optimizer'")
            hints = required(cls)
            options |= dict.fromkeys(hints)
            if issubclass(cls, lr_scheduler.ReduceLROnPlateau):
                step = step_with_metric
            elif step_needs := next(without_default(cls.step), ""):
                return missed(f"its step needs {step_needs!r}: write a 'step' that gives it")
            drawn = {option: strategy_of(hint) for option, hint in hints.items()}
            if open_ := tuple(option for option, strategy in drawn.items() if strategy is None):
                hint = _describe_hint(hints[open_[0]])
                return missed(f"its required {open_[0]!r} has {hint}", open_)
            options |= drawn
            subject = Subject(name, cls, options=options, step=step, reference=place)
            with time_limit(BUILD_TIME_LIMIT):
                _try(subject)
    except TimeLimit:
        return missed(f"it was not built within {BUILD_TIME_LIMIT:g} s")
    except (Exception, SystemExit) as error:
        return missed(str(error) if isinstance(error, SubjectError) else describe(error))
    return subject


def _describe_hint(hint: object) -> str:
    if hint is None:
        return "no type hint"
    return f"the type {getattr(hint, '__name__', hint)}, for which no values are known"


def _lines(cls: type, options: Iterable[str], step_needs: str) -> tuple[str, ...]:
    """The lines to add for a class that can't be built, with ``...`` to fill in."""
    fields = "{" + ", ".join(f'"{option}": ...' for option in options) + "}"
    if step_needs:
        fields += ", step=lambda scheduler, epoch: scheduler.step(...)"
    return (
        "from harness import Subject",
        f"from {cls.__module__} import {cls.__name__}",
        f'SUBJECT = Subject("{cls.__name__}", {cls.__name__}, options={fields})',
    )


def _try(subject: Subject) -> None:
    """Raise what the constructor raises, if it refuses all of the first drawn sets of options."""
    sets: list[dict[str, object]] = [{}]
    if subject.strategy is not None:
        sets = draw_options(subject.strategy, TRIES, 0)
    refusal: BaseException | None = None
    for values in sets:
        try:
            subject.bind(values).build(new_sgd())
        except (Exception, SystemExit) as error:
            refusal = refusal or error
        else:
            return
    assert refusal is not None
    raise refusal
