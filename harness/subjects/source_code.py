"""Collects the source of functions, with everything they use, for a standalone script.

A function whose module may be pasted is pasted, with what it uses; any other function is
imported. No two things get the same name: the user's keep their names if possible, and the
harness's are changed. `names_of_subject` adds the functions of a subject, for a reproduction
script or for the module that another process runs.
"""

from __future__ import annotations

import ast
import builtins
import enum
import functools
import importlib.metadata
import inspect
import keyword
import re
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import NoReturn, Protocol, runtime_checkable

from harness.core import training_loop as loop
from harness.core.errors import ScriptError, TraceError
from harness.core.literals import Term, format_value, holds_term
from harness.core.operations import BY_LETTER
from harness.subjects.source_text import (
    as_pasted,
    dedented,
    global_names,
    is_text_of,
    local_names,
    renamed,
)
from harness.subjects.subject import Bound

ALWAYS_IMPORTED = ("atexit", "os", "sys")
"""The modules that a script imports first."""
RESERVED = frozenset({*dir(builtins), *keyword.kwlist, "exit_status", "ENTRY", "HOMES"})
"""Names that nothing in a script may have."""


@runtime_checkable
class Definition(Protocol):
    """A function or class, also one that is written in C."""

    __module__: str
    __name__: str
    __qualname__: str

    def __call__(self, *args: object, **kwargs: object) -> object:
        """Call it."""


class Imports(enum.Enum):
    """What a script imports in addition to the standard library; the rest is pasted into it."""

    TORCH = "torch"
    LIBRARY = "library"
    """Torch and every installed package, but not modules that are only files in a folder."""
    ALL = "all"

    def includes(self, package: str) -> bool:
        """Whether a top-level package is imported instead of pasted."""
        if package == "harness":
            return False
        if not is_foreign(package) or self is Imports.ALL:
            return True
        return self is Imports.LIBRARY and is_installed(package)


def package_of(module: str) -> str:
    """The top-level package of a module."""
    return module.partition(".")[0]


def is_foreign(package: str) -> bool:
    """Whether a top-level package is not torch and not in the standard library."""
    return package != "torch" and package not in sys.stdlib_module_names


def is_installed(package: str) -> bool:
    """Whether a top-level package belongs to an installed distribution."""
    file = getattr(sys.modules.get(package), "__file__", None) or ""
    return bool({"site-packages", "dist-packages"} & set(re.split(r"[\\/]", file))) or (
        package in _distributions()
    )


@functools.cache
def _distributions() -> Mapping[str, list[str]]:
    return importlib.metadata.packages_distributions()


@dataclass(frozen=True)
class FirstDraft:
    """The names in the first version of a script, so that the second version avoids clashes."""

    users: frozenset[str] = frozenset()
    """The user's global names."""
    local: frozenset[str] = frozenset()
    """The names that the functions in the script itself bind."""
    words: frozenset[str] = frozenset()
    """Every word of the script."""


@dataclass(frozen=True)
class Source:
    """Collects the imports and definitions of a script.

    What a script defines is in two sections: the `top`, which concerns the bug, and the `helpers`
    after the run. A source adds to the top, and its `for_helpers` adds to the helpers of the same
    script. The user's definitions are always in the top. Only methods change the collections.

    `subject` is the subject's name for errors, `imports_from` says what is imported, and `words`
    gives the meaning of terms. A script is written twice: `draft` holds the names in the first
    version.
    """

    subject: str
    imports_from: Imports
    words: Mapping[str, object] = field(default_factory=dict)
    draft: FirstDraft = FirstDraft()
    adds_to_helpers: bool = False
    top: dict[str, str] = field(default_factory=dict)
    """The user's definitions, and those that make the optimizer and the scheduler."""
    helpers: dict[str, str] = field(default_factory=dict)
    """The harness's definitions that come after the run."""
    imports: dict[str, bool] = field(default_factory=dict)
    """Import statements, and whether the top needs them."""
    homes: dict[str, str] = field(default_factory=dict)
    """The module that each pasted definition is from."""
    modules: dict[str, None] = field(default_factory=dict)
    """The imported packages that are neither torch's nor the standard library's."""
    pasted_modules: dict[str, None] = field(default_factory=dict)
    """The user's modules from which something is pasted."""
    _names: dict[tuple[object, ...], str] = field(
        default_factory=lambda: {("import", module, module): module for module in ALWAYS_IMPORTED}
    )
    _users: set[str] = field(default_factory=set)
    _pasted: set[tuple[object, ...]] = field(default_factory=set)

    @property
    def for_top(self) -> Source:
        """The source that adds to the top of the same script."""
        return replace(self, adds_to_helpers=False)

    @property
    def for_helpers(self) -> Source:
        """The source that adds to the helpers of the same script."""
        return replace(self, adds_to_helpers=True)

    @property
    def _section(self) -> dict[str, str]:
        return self.helpers if self.adds_to_helpers else self.top

    @property
    def definitions(self) -> dict[str, str]:
        """All definitions, in order."""
        return {**self.top, **self.helpers}

    def second_version(self, text: str) -> Source:
        """An empty source that avoids clashes with the names so far and with those of `text`.

        Without it a local variable of `text` could hide a name that is added later.
        """
        pasted = "\n".join([*self.definitions.values(), text])
        words = frozenset(re.findall(r"\w+", pasted))
        draft = FirstDraft(frozenset(self._users), frozenset(local_names(text)), words)
        return Source(self.subject, self.imports_from, self.words, draft)

    def import_lines(self, *, top: bool | None = None) -> list[str]:
        """The import statements of the top, of the helpers, or by default of both, sorted."""
        lines = [line for line, for_top in self.imports.items() if top in (None, for_top)]
        return sorted(lines, key=lambda line: (line.startswith("from"), line))

    def _import(self, line: str) -> None:
        self.imports[line] = self.imports.get(line, False) or not self.adds_to_helpers

    # ------------------------------------------------------------------------- names

    def own(self, name: str) -> str:
        """Reserve a name for the harness's use; returns it, with a number if it is taken."""
        return self._allot(("", name), name, keeps_its_name=False)

    def define(self, name: str, expression: str, parameters: str | None = None) -> str:
        """Add a value, or a function with these parameters, to the top.

        Returns its name in the script.
        """
        known_as = self.own(name)
        if parameters is None:
            self.top[known_as] = f"{known_as} = {expression}"
        else:
            self.top[known_as] = f"def {known_as}({parameters}):\n    return {expression}"
        return known_as

    def _allot(self, key: tuple[object, ...], name: str, *, keeps_its_name: bool) -> str:
        """The name for `key`: `name`, or `name` with a number if that is taken.

        `keeps_its_name`: it may have a name that the user's code uses; the harness's own may not.
        """
        if key not in self._names:
            taken = {*RESERVED, *self.draft.local, *self._names.values()}
            if not keeps_its_name:
                taken |= self.draft.users
            free, number = name, 1
            while free in taken or (number > 1 and free in self.draft.words):
                number += 1
                free = f"{name}_{number}"
            self._names[key] = free
        if keeps_its_name:
            self._users.add(name)
        return self._names[key]

    def name(self, value: object) -> str:
        """Import or paste a function, class or module; returns the expression for it.

        Raises `ScriptError` if it is defined inside a function, or its source is not available
        for another reason.
        """
        if isinstance(value, types.ModuleType):
            return self.module(value.__name__)
        if isinstance(value, types.MethodType) or not isinstance(value, Definition):
            self._refuse(value, "neither a function nor a class")
        if isinstance(value, types.FunctionType) and value.__name__ == "<lambda>":
            return self._lambda(value)
        if "<locals>" in value.__qualname__:
            self._refuse(value, "defined inside a function")
        module = sys.modules.get(value.__module__)
        if module is None or module.__name__ == "__main__":
            self._refuse(value, "defined in a session or in the program itself")
        if module.__name__ == "builtins":
            return value.__qualname__
        first, _, rest = value.__qualname__.partition(".")
        if not self.imports_from.includes(package_of(module.__name__)):
            name = self.paste(getattr(module, first) if rest else value)
            return f"{name}.{rest}" if rest else name
        found: object = module
        for part in value.__qualname__.split("."):
            found = getattr(found, part, None)
        if found is not value:
            self._refuse(value, f"not available as {module.__name__}.{value.__qualname__}")
        name = self._import_from(module.__name__, first)
        return f"{name}.{rest}" if rest else name

    def _import_from(self, module: str, attribute: str) -> str:
        name = self._allot(("from", module, attribute), attribute, keeps_its_name=True)
        self._note_package(module)
        known_as = "" if name == attribute else f" as {name}"
        self._import(f"from {module} import {attribute}{known_as}")
        return name

    def module(self, module: str, known_as: str = "") -> str:
        """The name of a module that the script imports."""
        known_as = known_as or module
        self._note_package(module)
        if "." in known_as:  # importing it binds its package
            self._import(f"import {module}")
            package, _, rest = module.partition(".")
            return f"{self.module(package)}.{rest}"
        name = self._allot(("import", module, known_as), known_as, keeps_its_name=True)
        self._import(f"import {module}" + ("" if name == module else f" as {name}"))
        return name

    def _note_package(self, module: str) -> None:
        if is_foreign(package_of(module)):
            self.modules[package_of(module)] = None

    # ------------------------------------------------------------------- expressions

    def expression(self, value: object) -> str:
        """`value` as an expression; adds what that uses to the script.

        Raises `ScriptError` if there is none.
        """
        if isinstance(value, list):
            return "[" + ", ".join(map(self.expression, value)) + "]"
        if isinstance(value, tuple):
            return "(" + "".join(self.expression(item) + ", " for item in value) + ")"
        if isinstance(value, dict):
            pairs = (f"{self.expression(k)}: {self.expression(v)}" for k, v in value.items())
            return "{" + ", ".join(pairs) + "}"
        if isinstance(value, functools.partial):
            return self._call(self._partial(), [value.func, *value.args], value.keywords)
        if isinstance(value, Term):
            return self._term(value)
        if isinstance(value, enum.Enum):
            return f"{self.name(type(value))}.{value.name}"
        if isinstance(value, float) and repr(value).strip("-") in ("inf", "nan"):
            return f'float("{value!r}")'
        try:
            format_value(value)
        except TraceError:
            return self.name(value)
        return repr(value)

    def _call(
        self, function: str, arguments: Sequence[object], keywords: Mapping[str, object]
    ) -> str:
        given = [self.expression(argument) for argument in arguments]
        given += [f"{name}={self.expression(value)}" for name, value in keywords.items()]
        return f"{function}({', '.join(given)})"

    def _partial(self) -> str:
        return f"{self.module('functools')}.partial"

    def _term(self, term: Term) -> str:
        word = self.words[term.name]
        if term.arguments is None:
            return self.expression(word)
        arguments, keywords = list(term.arguments), dict(term.keywords)
        if isinstance(word, functools.partial):
            arguments, keywords = [*word.args, *arguments], {**word.keywords, **keywords}
            word = word.func
        if word is functools.partial:
            return self._call(self._partial(), arguments, keywords)
        return self._call(self.name(word), arguments, keywords)

    def _lambda(self, value: types.FunctionType) -> str:
        """The source of a lambda; `ScriptError` if the source alone is not enough."""
        if value.__closure__:
            self._refuse(value, "a lambda that uses a variable of the function around it")
        try:
            text = inspect.getsource(sys.modules.get(value.__module__) or value)
        except (OSError, TypeError):
            self._refuse(value, "a lambda whose file can't be read")
        found = {
            segment
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.Lambda) and node.lineno == value.__code__.co_firstlineno
            if (segment := ast.get_source_segment(text, node)) and is_text_of(segment, value)
        }
        if len(found) != 1:
            self._refuse(value, "a lambda that can't be found in its line")
        text = f"({found.pop()})"
        return renamed(text, self._add_globals(text, value.__globals__, is_users=True))

    def _refuse(self, value: object, what: str) -> NoReturn:
        raise ScriptError(
            f"subject {self.subject}: a script needs the source of {value!r:.80}, which is {what}: "
            "define it with def or class at the top level of a module"
        )

    # ------------------------------------------------------------------- definitions

    def paste(self, value: Callable[..., object]) -> str:
        """Add a function or class, and all that it uses; returns its name in the script."""
        key = ("of", value.__module__, value.__name__)
        is_users = package_of(value.__module__) != "harness"
        name = self._allot(key, value.__name__, keeps_its_name=is_users)
        if key in self._pasted:
            return name
        self._pasted.add(key)
        into = self.for_top if is_users else self
        if is_users:
            self.pasted_modules[value.__module__] = None
        try:
            text = dedented(inspect.getsource(value))
        except (OSError, TypeError):
            self._refuse(value, "not in a file that can be read")
        scope = _scope(value)
        text = as_pasted(text, scope, ours=not is_users, documented=into.adds_to_helpers)
        names = into._add_globals(text, scope, is_users=is_users, known={value.__name__: name})
        into._section[name] = renamed(text, names)
        self.homes[name] = value.__module__
        return name

    def inline(
        self, value: Callable[..., object], given: Mapping[str, str], target: str
    ) -> list[str] | None:
        """The statements of a harness function, to put in place of a call.

        `given` are its arguments, and `target` the variables that get what it returns. None
        if statements can't replace a call.
        """
        scope = _scope(value)
        text = dedented(inspect.getsource(value))
        text = as_pasted(text, scope, ours=True, documented=False)
        [function] = ast.parse(text).body
        assert isinstance(function, ast.FunctionDef)
        last = function.body[-1]
        early = [node for node in ast.walk(function)
                 if isinstance(node, (ast.Return, ast.Yield)) and node is not last]  # fmt: skip
        if early or package_of(value.__module__) != "harness":
            return None
        first = function.body[0]
        lines = [line[first.col_offset :] for line in text.splitlines()[first.lineno - 1 :]]
        if isinstance(last, ast.Return):
            assert last.value is not None
            place = last.lineno - first.lineno
            lines[place] = f"{target} = {lines[place].removeprefix('return ')}"
            if ast.unparse(last.value).strip("()") == target:
                lines = lines[:place]
        text = "\n".join(lines)
        return renamed(
            text, self._add_globals(text, scope, is_users=False, known=given)
        ).splitlines()

    def _add_globals(
        self,
        text: str,
        scope: Mapping[str, object],
        *,
        is_users: bool,
        known: Mapping[str, str] = MappingProxyType({}),
    ) -> dict[str, str]:
        """The script's name for each global name in a text; adds what they need."""
        names = dict(known)
        for used in global_names(text):
            if used in names:
                continue
            if used in scope:
                names[used] = self._add_global(used, scope[used], scope)
            elif is_users:
                self._users.add(used)
        return names

    def _add_global(self, name: str, value: object, scope: Mapping[str, object]) -> str:
        """Add what a pasted function uses under `name`; returns its name in the script."""
        if isinstance(value, types.ModuleType):
            return self.module(value.__name__, name)
        if isinstance(value, (types.FunctionType, type)) and value.__name__ != "<lambda>":
            return self.name(value)
        home = str(scope["__name__"])
        shared = isinstance(value, (list, dict, set))
        key = ("value", id(value)) if shared else ("value", home, name)
        known_as = self._allot(key, name, keeps_its_name=package_of(home) != "harness")
        if key not in self._pasted:
            self._pasted.add(key)
            self._section[known_as] = f"{known_as} = {self.expression(value)}"
        return known_as

    def paste_operations(self, path: str) -> None:
        """Add the operations of a path, and no others.

        Without this, a script that performs operations by their letters contains all of them.
        """
        key = ("value", id(BY_LETTER))
        known_as = self._allot(key, "BY_LETTER", keeps_its_name=False)
        self._pasted.add(key)
        performed = {letter: BY_LETTER[letter] for letter in dict.fromkeys(path)}
        self._section[known_as] = f"{known_as} = {self.expression(performed)}"


def _scope(value: Callable[..., object]) -> Mapping[str, object]:
    """The global names where a function or class is defined."""
    function = inspect.unwrap(value)
    return getattr(function, "__globals__", None) or vars(sys.modules[value.__module__])


# ------------------------------------------------------------------------------- a subject


@dataclass(frozen=True)
class SubjectNames:
    """The names of a subject's functions in a script.

    `scheduler` is the expression that `step` is called with; `step` is empty for
    ``step_scheduler``, which is a plain call.
    """

    new_optimizer: str
    build: str
    step: str
    scheduler: str

    def step_call(self, epoch: str) -> str:
        """The statement that steps the scheduler at an epoch."""
        if not self.step:
            return f"{self.scheduler}.step()"
        return f"{self.step}({self.scheduler}, {epoch})"


def names_of_subject(source: Source, bound: Bound) -> SubjectNames:
    """Add the functions of `bound` to the top of `source`, and return their names.

    Raises `ScriptError` if the source of one is not available.
    """
    build = _build(source, bound)
    # the scheduler inside a `Stateful`
    scheduler = "scheduler" if bound.subject.state_dict is None else "scheduler.scheduler"
    return SubjectNames(_new_optimizer(source, bound), build, _step(source, bound), scheduler)


def _new_optimizer(source: Source, bound: Bound) -> str:
    term = bound.fields.get("optimizer")
    if term is None:
        return source.expression(bound.subject.optimizer)
    return source.define("new_optimizer", source.expression(term), parameters="")


def _step(source: Source, bound: Bound) -> str:
    term = bound.fields.get("step")
    if term is None and bound.subject.step is loop.step_scheduler:
        return ""
    expression = source.expression(bound.subject.step if term is None else term)
    if term is None and expression.isidentifier():
        return expression
    return source.define("step", expression)


def _build(source: Source, bound: Bound) -> str:
    subject = bound.subject
    make = source.expression(subject.build)
    options = {name: source.expression(value) for name, value in bound.options.items()}
    listed = ", ".join(f"{name}={value}" for name, value in options.items())
    terms = holds_term(bound.options)  # new objects for each scheduler
    if listed and not terms:
        make = f"{source.module('functools')}.partial({make}, {listed})"
    if subject.state_dict is None and not terms:
        return source.define("build", make)
    if terms:
        pairs = ", ".join(f'"{option}": {value}' for option, value in options.items())
        made = f"{make}(optimizer, **{{{pairs}, **given}})"
    else:
        made = f"{source.define('make', make)}(optimizer, **given)"
    if subject.state_dict is not None:
        wrapper = source.name(loop.Stateful)
        functions = ", ".join(map(source.expression, (subject.state_dict, subject.load_state_dict)))
        made = f"{wrapper}({made}, {functions})"
    return source.define("build", made, parameters="optimizer, **given")
