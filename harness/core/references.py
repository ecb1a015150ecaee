"""Finds what a reference names: ``module:attribute``, or another form that people write.

``package.module.attribute`` and ``path/to/file.py:attribute`` are also references.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import os
import pkgutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from harness.core.errors import SubjectError
from harness.core.guard import Guard
from harness.core.suggest import closest, did_you_mean
from harness.core.training_loop import describe


def why_not_imported(error: BaseException) -> str:
    """Why an import failed, in one line; with advice if a package of the user's has our name."""
    text = describe(error)
    ours = Path(__file__).resolve().parent.parent
    theirs = Path.cwd() / ours.name
    named = isinstance(error, ImportError) and f"{error.name}.".startswith(f"{ours.name}.")
    if named and theirs.is_dir() and theirs.resolve() != ours:
        return (
            f"{text}; your package {ours.name!r} has the name of this tool's package, so it can't "
            "be imported here: move what the scheduler needs out of it"
        )
    return text


def is_package(name: str) -> bool:
    """Whether a package or module called `name` can be found."""
    if not all(part.isidentifier() for part in name.split(".")):
        return False
    try:
        with Guard(name).on():
            return importlib.util.find_spec(name) is not None
    except (Exception, SystemExit):  # raised by its parent package
        return False


def full_reference(name: str) -> str:
    """`name` as ``module:attribute``, or an empty text if it is not a reference.

    A file that can't be imported under a module name from here stays ``file.py:attribute``.

    >>> full_reference("torch.optim.lr_scheduler.StepLR")
    'torch.optim.lr_scheduler:StepLR'
    >>> full_reference("StepLR")
    ''
    """
    if ":" in name:
        home, _, attribute = name.rpartition(":")
        if not home.endswith(".py"):
            return name
        folder, module = _module_of_file(Path(home))
        importable = str(folder) in _search_path() - _added
        return f"{module}:{attribute}" if importable else name
    parts = name.split(".")
    if not all(part.isidentifier() for part in parts):
        return ""
    for count in range(len(parts) - 1, 0, -1):
        module = ".".join(parts[:count])
        if is_package(module):
            return "" if is_package(name) else f"{module}:{'.'.join(parts[count:])}"
    return ""


def _module_of_file(path: Path) -> tuple[Path, str]:
    """The folder that a file can be imported from, and the file's module name there."""
    path = path.absolute()
    folder, names = path.parent, [path.stem]
    while (folder / "__init__.py").is_file():
        names.insert(0, folder.name)
        folder = folder.parent
    return folder.resolve(), ".".join(names)


def is_path(name: str) -> bool:
    """Whether a name is the path of a file or folder, and not a module or a reference."""
    if ":" in name:
        return False
    return (
        name.endswith((".py", "/", os.sep)) or "/" in name or os.sep in name or name in (".", "..")
    )


def module_of(path: Path) -> str:
    """The name by which the module or package in `path` can be imported from now on."""
    if path.is_dir():
        path = path.absolute() / "__init__.py"
        folder, module = _module_of_file(path)
        module = module.removesuffix(".__init__")
    else:
        folder, module = _module_of_file(path)
    if str(folder) not in _search_path():
        sys.path.insert(0, str(folder))
        _added.add(str(folder))
    return module


def path_reference(reference: str) -> str:
    """``file.py:attribute`` for ``module:attribute`` if other processes don't find the module."""
    module, _, attribute = reference.rpartition(":")
    file = getattr(sys.modules.get(module), "__file__", None)
    if not file or str(_module_of_file(Path(file))[0]) not in _added:
        return reference
    path = Path(file)
    here = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return f"{here.as_posix()}:{attribute}"


def modules_near(name: str) -> list[str]:
    """The names of modules that `name` may have been meant to be."""
    parent, _, last = name.rpartition(".")
    if parent:
        if not is_package(parent):
            near = closest(parent, modules_near(parent))
            return [f"{near}.{last}"] if near and is_package(f"{near}.{last}") else []
        places = getattr(importlib.util.find_spec(parent), "submodule_search_locations", None)
        return [one.name for one in pkgutil.iter_modules(places or (), f"{parent}.")]
    here = list(pkgutil.iter_modules([str(Path.cwd())]))
    inner = [
        f"{one.name}.{each.name}"
        for one in here if one.ispkg
        for each in pkgutil.iter_modules([str(Path.cwd() / one.name)])
        if each.name == name
    ]  # fmt: skip
    return [*(one.name for one in here), *inner]


_added: set[str] = set()
"""Folders that were added to ``sys.path`` for files; other processes don't have them there."""


def _search_path() -> set[str]:
    return {str(Path(folder).resolve()) for folder in sys.path}


def _import_file(path: Path) -> ModuleType:
    """The module in a file, imported by name so that other modules and processes find it."""
    if not path.is_file():
        raise ImportError("no such file")
    folder, name = _module_of_file(path)
    if str(folder) not in _search_path():
        sys.path.insert(0, str(folder))
        _added.add(str(folder))
    module = importlib.import_module(name)
    found = getattr(module, "__file__", None)
    if found is None or Path(found).resolve() != path.resolve():
        raise ImportError(f"another module is called {name}: rename the file")
    return module


def import_attribute(reference: str) -> object:
    """What ``module:attribute`` names; ``module:attribute.name`` is an item of a sequence.

    Raises `SubjectError` if it can't be imported.
    """
    reference = full_reference(reference) or reference
    module_name, _, path = reference.rpartition(":")
    value: object
    try:
        with Guard(module_name).on():
            if module_name.endswith(".py"):
                value = _import_file(Path(module_name))
            else:
                value = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        what = f"cannot import {module_name!r} for {reference!r} ({why_not_imported(error)})"
        if isinstance(error, ModuleNotFoundError) and error.name == module_name.partition(".")[0]:
            what += ": check the name, and that the module is installed or in the current folder"
        raise SubjectError(what) from None
    for name in path.split("."):
        if hasattr(value, name):
            value = getattr(value, name)
            continue
        items = value if isinstance(value, Sequence) else ()
        named = {item.name: item for item in items if hasattr(item, "name")}
        if name in named:
            value = named[name]
        else:
            hint = did_you_mean(name, [each for each in dir(value) if each[:1] != "_"])
            raise SubjectError(
                f"{reference!r}: module {module_name!r} has no attribute {path!r}"
                + (f": {hint}" if hint else "")
            )
    return value


def place_of(value: object) -> str:
    """``path:line`` of a class or function, ``path`` if the line is unknown, or an empty text.

    The path is relative if the file is below the current folder. For a partial the place is
    its function's, and for another object its class's.

    >>> place_of(place_of).rpartition(":")[0].endswith("references.py")
    True
    >>> place_of(len)
    ''
    """
    try:
        while isinstance(value, functools.partial):
            ours = value.func.__module__.startswith("harness.") and value.args
            value = value.args[0] if ours else value.func  # what a function of ours builds
        code: Callable[..., object] = inspect.unwrap(value) if callable(value) else type(value)
        has_source = inspect.isclass(code) or inspect.isroutine(code)
        known: object = code if has_source else type(code)
        place = _in_file(known)
    except Exception:  # a subject's own attributes can make inspect raise anything
        return ""
    if place is None:
        return ""
    path, line = place
    if path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())
    return f"{path.as_posix()}:{line}" if line else path.as_posix()


@functools.cache
def _in_file(value: Any) -> tuple[Path, int] | None:
    name = inspect.getsourcefile(value)
    if name is None or not Path(name).is_file():
        return None
    try:
        line = inspect.getsourcelines(value)[1]
    except OSError:
        line = 0
    return Path(name).resolve(), max(line, 0)
