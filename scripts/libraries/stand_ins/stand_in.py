"""Stands in for a package that does not fit the torch at hand, so that others can be imported.

timm imports torchvision and speechbrain imports torchaudio, and their schedulers use neither. Each
submodule of such a package exists here, and each name in it is an empty class.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Sequence


class _Empty(type):
    """The type of an empty class, of which each attribute is the attribute's name."""

    def __getattr__(cls, name: str) -> str:
        if name.startswith("__"):
            raise AttributeError(name)
        return name


class _Module(types.ModuleType):
    """A module in which each name is an empty class."""

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        made = _Empty(name, (), {"__init__": lambda self, *args, **kwargs: None})
        setattr(self, name, made)
        return made


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds each submodule of a package that it stands in for."""

    def __init__(self, package: str) -> None:
        self.package = package

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The spec of a submodule."""
        if not name.startswith(f"{self.package}."):
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        """An empty module."""
        return _Module(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """There is nothing to execute."""


def stand_in(package: str, version: str) -> None:
    """Make the package with this name, which is being imported, a stand-in."""
    sys.meta_path.append(_Finder(package))
    module = sys.modules[package]
    module.__class__ = _Module
    vars(module)["__version__"] = version
