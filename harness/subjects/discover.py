"""Finds the schedulers that a package or module defines.

``lr-resume-harness check my_package`` checks everything in it that behaves like a scheduler,
whatever it inherits from: classes and functions with an optimizer, or another scheduler, to build
on, and a way to step that `harness.subjects.protocols` knows; and the `Subject`s in it. The options
that a constructor needs are drawn if it is known what they are (`harness.subjects.type_hints`).
What looks like a scheduler and can't be checked is listed, with lines to add if any were found that
work; then the exit status is not 0.

Modules of tests, scripts and examples are not imported. In a package with many modules, only those
are imported whose source mentions schedules.
"""

from __future__ import annotations

import contextlib
import fnmatch
import functools
import importlib
import importlib.util
import inspect
import io
import itertools
import logging
import pkgutil
import re
import shlex
import types
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.optim import lr_scheduler

from harness.core.errors import SubjectError, TimeLimit
from harness.core.guard import Guard, time_limit
from harness.core.literals import format_value
from harness.core.operations import optimizer_step
from harness.core.project import SubjectSettings
from harness.core.references import path_reference, why_not_imported
from harness.core.suggest import did_you_mean
from harness.core.training_loop import LRScheduler, describe
from harness.core.types import Options
from harness.subjects import adapt as adapting
from harness.subjects.adapt import Adapted, adapt, sets_of
from harness.subjects.mistakes import advised, wrong_rates, wrong_result
from harness.subjects.protocols import OPTIMIZER, scheduler_in
from harness.subjects.subject import Subject, subject_of

MANY = 60
"""If a package has more modules than this, only those that mention schedules are imported."""
_SCHEDULERS = LRScheduler, lr_scheduler.ReduceLROnPlateau  # not an LRScheduler before torch 2.2
_NOT_IMPORTED = re.compile(
    r"_*(tests?|testing|test_\w+|\w+_tests?|conftest|setup|scripts?|examples?|benchmarks?|main)_*"
)
"""The names of modules that are there to be run."""
_MENTION = re.compile(r"lr_scheduler|LRScheduler|[sS]cheduler\b|[sS]chedules?\b|[wW]armup|\[.lr.\]")
"""What the source of a module with a scheduler contains."""
_CLASS = re.compile(
    r"Schedul(e|er)s?$|LRSchedul|LR(?![a-z])|Warmup|WarmUp|Anneal|Lr[A-Z]|Lr$|Restarts"
)
"""The names of classes that look like schedulers."""
_FUNCTION = re.compile(r"(^|_)(schedulers?|schedules?)(_|$)|(^|_)lr_sched|warmup|anneal")
"""The names of functions that look as if they make one."""
_DOES_OTHER_THINGS = re.compile(
    r"_|(is|has|set|load|save|update|step|log|plot|test|print|add|register|visualize|compute|parse"
    r"|list|check|compare|validate|convert|scheduler_kwargs|apply|run|simulate)(_|$)"
    r"|.*_(lambda|ratio|fn|type|names?|args|params|kwargs|config|schedulers|steps|permutation)$"
)
"""The names of functions that do something else with a schedule."""
_GUESSES: tuple[object, ...] = (4, 0.5, [2, 4], "lr", True, None)
"""Values to try for options about which nothing is known, to find lines to paste."""
GUESSED_OPTIONS = 3
"""Lines to paste are looked for if nothing is known about at most this many options."""


@dataclass(frozen=True)
class Missed:
    """A scheduler that can't be built, or subjects that can't be loaded: what, and why.

    `lines` are lines to add to a module so that it can be checked; they were tried, and `kwargs`
    are the options in them, if options alone are enough. `abstract`: a method that it needs raises
    `NotImplementedError`.
    """

    what: str
    why: str
    lines: tuple[str, ...] = ()
    kwargs: str = ""
    abstract: bool = False

    def __str__(self) -> str:
        text = f"NOT CHECKED {self.what}: {self.why}"
        if self.kwargs:
            options = shlex.quote(self.kwargs)
            text += f"\n  Check it with: lr-resume-harness check {self.what} "
            text += f"--kwargs {options}"
        if self.lines:
            indented = "\n".join(f"    {line}" for line in self.lines)
            add = "or add" if self.kwargs else "Add"
            text += f"\n  {add} to a module, and check it as MODULE:SUBJECT:\n{indented}"
        return text


@dataclass(frozen=True)
class Discovery:
    """The subjects that were found, those that were missed, and notes on what was not read."""

    subjects: tuple[Subject, ...] = ()
    missed: tuple[Missed, ...] = ()
    notes: tuple[str, ...] = ()

    def plus(self, other: Discovery) -> Discovery:
        """Both together."""
        return Discovery(
            self.subjects + other.subjects, self.missed + other.missed, self.notes + other.notes
        )


class NoSchedulerError(SubjectError):
    """A package or module that defines no scheduler."""


def subjects_of(
    package: str,
    taken: Collection[str] = (),
    skip: Mapping[str, str] = types.MappingProxyType({}),
    trying: Callable[[str], None] = lambda place: None,
    options: Options = types.MappingProxyType({}),
    settings_of: Callable[..., SubjectSettings] = lambda *names: SubjectSettings(),
    exclude: Sequence[str] = (),
) -> Discovery:
    """A subject for everything in a package or module that behaves like a scheduler.

    A subject whose name is in `taken` gets its module's name too. Names that begin with ``_`` and
    abstract classes are left out. What is in `skip`, a module or a scheduler, is not imported or
    built: it is noted, or in `missed`, with the reason that `skip` gives. `trying` is called with
    the name of each module before it is imported and of each scheduler before it is built, and
    with an empty text at the end. Each scheduler gets those of the `options` that it takes, and
    `settings_of` its names says what else the user says about it. Modules and schedulers whose
    names match one of the patterns in `exclude` are left out.

    Raises `SubjectError` if the package can't be imported, defines no scheduler, or none that takes
    the options.
    """
    modules, notes = _modules(package, skip, trying, exclude)
    inside = functools.partial(_is_inside, package)
    found = _candidates(modules, inside, notes.append)
    shipped = _shipped(modules)
    if not found and not shipped:  # it may offer what other modules define
        root = package.partition(".")[0]
        found = _candidates(modules[:1], functools.partial(_is_inside, root), notes.append)
        listed = [name for module in modules for name in getattr(module, "__all__", ())]
        named = _candidates(
            modules, lambda value: getattr(value, "__name__", "") in listed, notes.append
        )
        found = list(dict.fromkeys([*found, *named]))
    names = Counter(value.__name__ for value in found)
    subjects: list[Subject] = [
        one.with_settings(settings_of(one.name, one.reference)).with_options(options)
        for one in shipped
    ]
    missed: list[Missed] = []
    used: set[str] = set()
    for value in found:
        place = f"{value.__module__}:{value.__qualname__}"
        is_base = isinstance(value, type) and any(
            isinstance(other, type) and issubclass(other, value)
            for other in found if other is not value
        )  # fmt: skip
        if isinstance(value, type) and _does_nothing(value):
            if not is_base:
                notes.append(f"{place} is not checked: it has no get_lr and no step")
            continue
        if is_excluded(place.replace(":", "."), exclude) or is_excluded(value.__name__, exclude):
            continue
        alone = names[value.__name__] == 1 and value.__name__ not in taken
        trying(place)
        name = value.__name__ if alone else place
        mine = _taken_by(value, options)
        used |= set(mine)
        said = settings_of(value.__name__, place)
        given = {**said.options, **mine}
        made = Missed(place, skip[place]) if place in skip else _subject(value, name, place, given)
        if isinstance(made, Subject):
            made = made.with_settings(replace(said, options={}))
        if isinstance(made, Subject):
            subjects.append(made)
        elif is_base and (made.abstract or _is_unfinished(value)):
            notes.append(f"{place} is not checked: it is there to inherit from")
        else:
            missed.append(made)
    trying("")
    if not subjects and not missed:
        raise NoSchedulerError(
            f"{package!r} defines no scheduler: nothing in it is built on an optimizer and has a "
            "way to step that is known. Name a scheduler of another kind as MODULE:NAME"
        )
    if unused := sorted(set(options) - used):
        taken_by_some = {name for value in found for name in _parameters(value)}
        hint = did_you_mean(unused[0], taken_by_some, "leave it out")
        raise SubjectError(f"nothing in {package!r} takes the option {unused[0]!r}: {hint}")
    return Discovery(tuple(subjects), tuple(missed), tuple(dict.fromkeys(notes)))


def _taken_by(value: Any, options: Options) -> dict[str, object]:
    """Those of the options that a class or function takes."""
    parameters = _parameters(value) if options else ()
    return {name: options[name] for name in options if name in parameters}


def _parameters(value: Any) -> Collection[str]:
    """The names of the parameters of a class or function."""
    try:
        return inspect.signature(value).parameters.keys()
    except (TypeError, ValueError):
        return ()


def is_excluded(name: str, patterns: Sequence[str]) -> bool:
    """Whether a name, or the module or package that it is in, matches one of the patterns."""
    parts = name.split(".")
    names = [".".join(parts[: count + 1]) for count in range(len(parts))]
    return any(fnmatch.fnmatchcase(one, each) for one in names for each in patterns)


def by_path(found: Discovery) -> Discovery:
    """The same; subjects in modules that other processes don't find have references by path."""
    subjects = [replace(one, reference=path_reference(one.reference)) for one in found.subjects]
    missed = [
        replace(one, what=path_reference(one.what)) if ":" in one.what else one
        for one in found.missed
    ]
    return replace(found, subjects=tuple(subjects), missed=tuple(missed))


def file_mentions_schedules(file: Path) -> bool:
    """Whether the source in a file, which is not there to be run, mentions schedules."""
    if _NOT_IMPORTED.fullmatch(file.stem):
        return False
    try:
        return _MENTION.search(file.read_text(encoding="utf-8")) is not None
    except (OSError, UnicodeDecodeError):
        return False


# -------------------------------------------------------------------------------------- modules


def _modules(
    package: str,
    skip: Mapping[str, str],
    trying: Callable[[str], None],
    exclude: Sequence[str],
) -> tuple[list[types.ModuleType], list[str]]:
    """A module and its submodules, and a note on each that can't be, or is not, imported."""
    modules: list[types.ModuleType] = []
    notes: list[str] = []
    left_out: list[str] = []
    silent: list[str] = []
    names = [package]
    many = _is_large(package)
    while names:
        name = names.pop(0)
        if name in skip:
            if name == package:
                raise SubjectError(f"cannot import {name!r}: {skip[name]}")
            notes.append(f"{name} is not imported: {skip[name]}")
            continue
        if name != package and is_excluded(name, exclude):
            continue
        if name != package and _NOT_IMPORTED.fullmatch(name.rpartition(".")[2]):
            left_out.append(name)
            continue
        path: Any = None
        if many and name != package and not _mentions_schedules(name):
            silent.append(name)
            path = _folders(name)
        else:
            trying(name)
            try:
                with _quiet(name):
                    module = importlib.import_module(name)
            except (Exception, SystemExit) as error:
                if name == package:
                    raise SubjectError(
                        f"cannot import {name!r} ({why_not_imported(error)})"
                    ) from None
                notes.append(f"{name} cannot be imported ({why_not_imported(error)})")
                continue
            modules.append(module)
            path = getattr(module, "__path__", ())
        names[:0] = [one.name for one in pkgutil.iter_modules(path, f"{name}.")]
    if left_out:
        notes.append(
            f"not imported, because their names say that they are there to be run: "
            f"{', '.join(left_out[:4])}{' ...' if left_out[4:] else ''}"
        )
    if silent:
        notes.append(
            f"{len(silent)} modules of {package} were not imported, because their source does not "
            f"mention schedulers; name one to look into it"
        )
    return modules, notes


@contextlib.contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Import a module without what it prints, warns and logs; `Guard` reports that it printed."""
    level = logging.root.manager.disable
    try:
        with Guard(name).on(), contextlib.redirect_stderr(io.StringIO()):
            logging.disable(logging.ERROR)
            yield
    finally:
        logging.disable(level)


def _folders(name: str) -> list[str]:
    """The folders of the modules inside a package that is not imported."""
    file = _file_of(name)
    return [str(file.parent)] if file is not None and file.name == "__init__.py" else []


@functools.cache
def _file_of(name: str) -> Path | None:
    """The source file of a module, found without importing it."""
    root, *rest = name.split(".")
    spec = importlib.util.find_spec(root)
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        path = Path(folder, *rest)
        for file in (path / "__init__.py", path.with_name(f"{path.name}.py")):
            if file.is_file():
                return file
    return None


def _mentions_schedules(name: str) -> bool:
    """Whether the source of a module mentions schedules; True if it can't be read."""
    file = _file_of(name)
    if file is None:
        return True
    try:
        return _MENTION.search(file.read_text(encoding="utf-8")) is not None
    except (OSError, UnicodeDecodeError):
        return True


def _is_large(package: str) -> bool:
    """Whether a package has more than `MANY` modules."""
    file = _file_of(package)
    if file is None or file.name != "__init__.py":
        return False
    return len(list(itertools.islice(file.parent.rglob("*.py"), MANY + 1))) > MANY


# ----------------------------------------------------------------------------------- candidates


def _is_inside(package: str, value: Any) -> bool:
    return f"{getattr(value, '__module__', '')}.".startswith(f"{package}.")


def _candidates(
    modules: Sequence[types.ModuleType],
    inside: Callable[[Any], bool],
    note: Callable[[str], None],
) -> list[Callable[..., Any]]:
    """The public classes and functions that look like schedulers, each once.

    `note` is called with a sentence on each that can't be looked at.
    """
    found: dict[int, Callable[..., Any]] = {}
    for module in modules:
        for name, value in list(vars(module).items()):
            if (
                isinstance(value, (type, types.FunctionType))
                and not name.startswith("_")
                and not value.__name__.startswith("_")
                and inside(value)
            ):
                looks = _is_like_class if isinstance(value, type) else _is_like_function
                try:
                    if looks(value):
                        found[id(value)] = value
                except Exception as error:  # a class's own attributes can raise anything
                    place = f"{value.__module__}:{value.__qualname__}"
                    note(f"{place} is not checked: looking at it raises {describe(error)}")
    return list(found.values())


def _is_like_class(cls: Any) -> bool:
    """Whether a class looks like a scheduler that can be built."""
    others = (torch.optim.Optimizer, torch.nn.Module, BaseException, type)
    if inspect.isabstract(cls) or issubclass(cls, others) or hasattr(cls, "zero_grad"):
        return False
    if issubclass(cls, _SCHEDULERS):
        return True
    has = {name for parent in cls.__mro__ if parent is not object for name in vars(parent)}
    steps = has & {"step", "dampening", "__call__"}
    if not steps or getattr(cls, "_is_protocol", False):
        return False
    try:
        parameters = list(inspect.signature(cls).parameters)
    except (TypeError, ValueError):
        parameters = []
    names = " ".join(parent.__name__ for parent in cls.__mro__[:-1])
    reports = any(callable(getattr(cls, name, None)) for name in ("get_last_lr", "get_lr"))
    if any(name in OPTIMIZER for name in parameters):
        return bool(reports or any(_CLASS.search(each) for each in names.split()))
    return _CLASS.search(cls.__name__) is not None


def _is_like_function(function: Any) -> bool:
    """Whether a function looks as if it makes a scheduler."""
    name = function.__name__
    returns = str(function.__annotations__.get("return", ""))
    makes = re.search(r"(LRScheduler|Scheduler|LambdaLR)\b", returns) is not None
    takes = _takes_optimizer(function)
    if _DOES_OTHER_THINGS.match(name):
        return False
    if takes:
        return makes or _FUNCTION.search(name) is not None
    return re.match(r"(get|create|make|build)_.*schedul(e|er)(_|$)", name) is not None


def _takes_optimizer(function: Any) -> bool:
    """Whether a function takes an optimizer, or another scheduler."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False
    return any(name in OPTIMIZER or re.search("schedulers?$", name) for name in parameters)


def _shipped(modules: Sequence[types.ModuleType]) -> list[Subject]:
    """The subjects in the modules, alone or in lists, each with its reference."""
    found: dict[int, Subject] = {}
    for module in modules:
        for name, value in vars(module).items():
            several = isinstance(value, (list, tuple))
            for one in value if several else (value,):
                if isinstance(one, Subject):
                    reference = f"{module.__name__}:{name}" + (f".{one.name}" if several else "")
                    found.setdefault(id(one), replace(one, reference=reference))
    return list(found.values())


def _does_nothing(cls: type) -> bool:
    """Whether its only ``get_lr`` and ``step`` are those of torch's base class."""
    made = [vars(parent) for parent in cls.__mro__ if parent is not LRScheduler]
    return issubclass(cls, _SCHEDULERS) and not any(
        "get_lr" in names or "step" in names for names in made
    )


def _is_unfinished(cls: Any) -> bool:
    """Whether a method of a class itself raises `NotImplementedError`."""
    try:
        return "NotImplementedError" in inspect.getsource(cls)
    except (OSError, TypeError):
        return False


# ------------------------------------------------------------------------------------- building


def _subject(value: Callable[..., Any], name: str, place: str, given: Options) -> Subject | Missed:
    """A subject that builds a class or function, whose reference is `place`; or why not."""
    try:
        if not isinstance(value, type) and not _takes_optimizer(value):
            return Missed(place, "it takes no optimizer, and no other scheduler")
        with Guard(place).on():
            adapted = adapt(value, given)
        if adapted.unknown:
            option, hint = next(iter(adapted.unknown.items()))
            why = f"its required {option!r} has {hint}"
            return _with_lines(Missed(place, why), value, adapted, given)
        if adapted.why:
            return Missed(place, adapted.why)
        if adapted.refusal is not None:
            return _refused(value, place, adapted.refusal)
        subject = subject_of(value, adapted, name=name, options=given)
        with Guard(place).on(), time_limit(adapting.BUILD_TIME_LIMIT):
            _try(value, subject, adapted, given)
    except TimeLimit:
        return Missed(place, f"it was not built within {adapting.BUILD_TIME_LIMIT:g} s")
    except (Exception, SystemExit) as error:
        return _refused(value, place, error)
    return replace(subject, reference=place)


def _refused(value: Callable[..., Any], place: str, error: BaseException) -> Missed:
    why = str(error) if isinstance(error, SubjectError) else advised(value, error)
    return Missed(place, why, abstract=isinstance(error, NotImplementedError))


def _try(value: Callable[..., Any], subject: Subject, adapted: Adapted, given: Options) -> None:
    """Build and step it once; raise its exception if it refuses all of the first drawn options."""
    refusal: BaseException | None = None
    for options in sets_of(adapted, given):
        try:
            optimizer = adapted.optimizer()
            made = subject.build(optimizer, **options)
            if wrong := wrong_result(value, made) or wrong_rates(optimizer):
                raise SubjectError(wrong)
            inner = scheduler_in(made)
            if not hasattr(inner, "step") and not callable(inner):
                raise SubjectError(f"it makes no scheduler (got {made!r:.60})")
            optimizer_step(optimizer, 0)
            subject.step(made, 0)
        except (Exception, SystemExit) as error:
            refusal = refusal or error
        else:
            return
    assert refusal is not None
    raise refusal


def _with_lines(
    missed: Missed, value: Callable[..., Any], adapted: Adapted, given: Options
) -> Missed:
    """The same with lines to paste, if values are found with which it can be built and stepped."""
    if len(adapted.unknown) > GUESSED_OPTIONS or adapted.why:
        return missed
    for values in itertools.product(_GUESSES, repeat=len(adapted.unknown)):
        guessed = dict(zip(adapted.unknown, values, strict=True))
        try:
            with Guard(missed.what).on(), time_limit(adapting.BUILD_TIME_LIMIT):
                again = adapt(value, {**given, **guessed})
                subject = subject_of(value, again, options={**given, **guessed})
                if again.why or again.refusal is not None:
                    continue
                made = subject.build(
                    again.optimizer(), **next(sets_of(again, {**given, **guessed}))
                )
                subject.step(made, 0)
        except (Exception, SystemExit):
            continue
        options = {**given, **guessed}
        kwargs = " ".join(f"{name}={format_value(value)}" for name, value in options.items())
        fields = ", ".join(f"{name!r}: {value!r}" for name, value in options.items())
        lines = (
            "from harness.subjects.subject import subject_from",
            f"from {value.__module__} import {value.__name__}",
            f"SUBJECT = subject_from({value.__name__}, options={{{fields}}})",
        )
        return replace(missed, lines=lines, kwargs=kwargs)
    return missed
