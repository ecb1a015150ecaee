"""Collects the source of functions, with everything they use, for a standalone script.

A function whose module may be pasted is pasted, with what it uses; any other function is
imported. No two things get the same name: the user's keep their names if possible, and the
harness's are changed. Names are changed at their positions in the syntax tree.
"""

from __future__ import annotations

import ast
import builtins
import enum
import functools
import importlib.metadata
import inspect
import itertools
import keyword
import re
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NoReturn

from harness.core.errors import ScriptError, TraceError
from harness.core.literals import Term, format_value
from harness.subjects.global_names import global_names, local_names, renamed

FIXED = frozenset({*dir(builtins), *keyword.kwlist, "exit_status", "ENTRY", "HOMES"})
"""Names that nothing in a script may have."""

ALWAYS_IMPORTED = ("atexit", "os", "sys")
"""The modules that a script imports first."""


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
class Seen:
    """The names in the first version of a script, so that the second version avoids clashes."""

    theirs: frozenset[str] = frozenset()
    """The user's global names."""
    local: frozenset[str] = frozenset()
    """The names that the functions in the script itself bind."""
    words: frozenset[str] = frozenset()
    """Every word of the script."""


class Source:
    """Collects the imports and definitions of a script.

    `subject` is the subject's name for errors, `imports_from` says what is imported, and `words`
    gives the meaning of terms. A script is written twice: `seen` holds the names in the first
    version.
    """

    def __init__(
        self,
        subject: str,
        imports_from: Imports,
        *,
        words: Mapping[str, object] = MappingProxyType({}),
        seen: Seen = Seen(),
    ) -> None:
        self.words = words
        self.imports_from = imports_from
        self.subject = subject
        self.seen = seen
        self.imports: dict[str, bool] = {}
        """Import statements, and whether the first section needs them."""
        self.first: dict[str, str] = {}
        """The user's definitions, and those that make the optimizer and the scheduler."""
        self.last: dict[str, str] = {}
        """The harness's definitions that come after the run."""
        self.section = self.first
        self.homes: dict[str, str] = {}
        """The module that each pasted definition is from."""
        self.modules: dict[str, None] = {}
        """The imported packages that are neither torch's nor the standard library's."""
        self.pasted_modules: dict[str, None] = {}
        """The user's modules from which something is pasted."""
        self._names: dict[tuple[object, ...], str] = {
            ("import", module, module): module for module in ALWAYS_IMPORTED
        }
        self._theirs: set[str] = set()
        self._pasted: set[tuple[object, ...]] = set()

    @property
    def definitions(self) -> dict[str, str]:
        """All definitions, in order."""
        return {**self.first, **self.last}

    def again(self, text: str) -> Source:
        """An empty source that avoids clashes with the names so far and with those of `text`.

        Without it a local variable of `text` could hide a name that is added later.
        """
        pasted = "\n".join([*self.definitions.values(), text])
        words = frozenset(re.findall(r"\w+", pasted))
        seen = Seen(frozenset(self._theirs), frozenset(local_names(text)), words)
        return Source(self.subject, self.imports_from, words=self.words, seen=seen)

    def import_lines(self, section: dict[str, str] | None = None) -> list[str]:
        """The import statements of one section or both, sorted."""
        lines = [line for line, first in self.imports.items()
                 if section is None or first == (section is self.first)]  # fmt: skip
        return sorted(lines, key=lambda line: (line.startswith("from"), line))

    def _import(self, line: str) -> None:
        self.imports[line] = self.imports.get(line, False) or self.section is self.first

    # ------------------------------------------------------------------------- names

    def own(self, name: str) -> str:
        """The script's name for something that the harness defines and that isn't a function."""
        return self._allot(("", name), name, theirs=False)

    def define(self, name: str, expression: str, parameters: str | None = None) -> str:
        """Add a value, or a function with these parameters, to the first section.

        Returns its name in the script.
        """
        known_as = self.own(name)
        if parameters is None:
            self.first[known_as] = f"{known_as} = {expression}"
        else:
            self.first[known_as] = f"def {known_as}({parameters}):\n    return {expression}"
        return known_as

    def _allot(self, key: tuple[object, ...], name: str, *, theirs: bool) -> str:
        """The name for `key`: `name`, or `name` with a number if that is taken."""
        if key not in self._names:
            taken = {*FIXED, *self.seen.local, *self._names.values()}
            if not theirs:
                taken |= self.seen.theirs
            free, number = name, 1
            while free in taken or (number > 1 and free in self.seen.words):
                number += 1
                free = f"{name}_{number}"
            self._names[key] = free
        if theirs:
            self._theirs.add(name)
        return self._names[key]

    def name(self, value: Any) -> str:
        """The expression with which the script can use a function, class or module.

        Raises `ScriptError` if it is defined inside a function, or its source is not available
        for another reason.
        """
        if isinstance(value, types.ModuleType):
            return self.module(value.__name__)
        if isinstance(value, types.MethodType) or not hasattr(value, "__qualname__"):
            self._refuse(value, "neither a function nor a class")
        if value.__name__ == "<lambda>":
            return self._lambda(value)
        if "<locals>" in value.__qualname__:
            self._refuse(value, "defined inside a function")
        module = sys.modules.get(value.__module__)
        if module is None or module.__name__ == "__main__":
            self._refuse(value, "defined in a session or in the program itself")
        if module.__name__ == "builtins":
            return str(value.__qualname__)
        package = module.__name__.partition(".")[0]
        first, _, rest = value.__qualname__.partition(".")
        if not self.imports_from.includes(package):
            name = self.paste(getattr(module, first) if rest else value)
            return f"{name}.{rest}" if rest else name
        if functools.reduce(_get, value.__qualname__.split("."), module) is not value:
            self._refuse(value, f"not available as {module.__name__}.{value.__qualname__}")
        name = self._import_from(module.__name__, first)
        return f"{name}.{rest}" if rest else name

    def _import_from(self, module: str, attribute: str) -> str:
        name = self._allot(("from", module, attribute), attribute, theirs=True)
        self._note_module(module.partition(".")[0])
        known_as = "" if name == attribute else f" as {name}"
        self._import(f"from {module} import {attribute}{known_as}")
        return name

    def module(self, module: str, known_as: str = "") -> str:
        """The name of a module that the script imports."""
        known_as = known_as or module
        self._note_module(module.partition(".")[0])
        if "." in known_as:  # importing it binds its package
            self._import(f"import {module}")
            package, _, rest = module.partition(".")
            return f"{self.module(package)}.{rest}"
        name = self._allot(("import", module, known_as), known_as, theirs=True)
        self._import(f"import {module}" + ("" if name == module else f" as {name}"))
        return name

    def _note_module(self, package: str) -> None:
        if is_foreign(package):
            self.modules[package] = None

    # ------------------------------------------------------------------- expressions

    def expression(self, value: object) -> str:
        """`value` as an expression for the script; `ScriptError` if there is none."""
        if isinstance(value, list):
            return "[" + ", ".join(map(self.expression, value)) + "]"
        if isinstance(value, tuple):
            return "(" + "".join(self.expression(item) + ", " for item in value) + ")"
        if isinstance(value, dict):
            pairs = (f"{self.expression(k)}: {self.expression(v)}" for k, v in value.items())
            return "{" + ", ".join(pairs) + "}"
        if isinstance(value, functools.partial):
            return self.call(self._partial(), [value.func, *value.args], value.keywords)
        if isinstance(value, Term):
            return self._term(value)
        if isinstance(value, float) and repr(value).strip("-") in ("inf", "nan"):
            return f'float("{value!r}")'
        try:
            format_value(value)
        except TraceError:
            return self.name(value)
        return repr(value)

    def call(self, function: str, arguments: list[object], keywords: dict[str, object]) -> str:
        """A call of `function` with values as its arguments."""
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
            return self.call(self._partial(), arguments, keywords)
        return self.call(self.name(word), arguments, keywords)

    def _lambda(self, value: types.FunctionType) -> str:
        """The source of a lambda; `ScriptError` if the source alone is not enough."""
        module = sys.modules.get(value.__module__)
        if value.__closure__:
            self._refuse(value, "a lambda that uses a variable of the function around it")
        try:
            text = inspect.getsource(module or value)
        except (OSError, TypeError):
            self._refuse(value, "a lambda whose file can't be read")
        found = {
            segment
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.Lambda) and node.lineno == value.__code__.co_firstlineno
            if (segment := ast.get_source_segment(text, node)) and _is_text_of(segment, value)
        }
        if len(found) != 1:
            self._refuse(value, "a lambda that can't be found in its line")
        [segment] = found
        text = f"({segment})"
        return renamed(text, self._needs(text, value.__globals__, theirs=True))

    def _refuse(self, value: object, what: str) -> NoReturn:
        raise ScriptError(
            f"subject {self.subject}: a script needs the source of {value!r:.80}, which is {what}: "
            "define it with def or class at the top level of a module"
        )

    # ------------------------------------------------------------------- definitions

    def paste(self, value: Any) -> str:
        """Add a function or class, and all that it uses; returns its name in the script."""
        key = ("of", value.__module__, value.__name__)
        theirs = value.__module__.partition(".")[0] != "harness"
        name = self._allot(key, value.__name__, theirs=theirs)
        if key in self._pasted:
            return name
        self._pasted.add(key)
        before = self.section
        if theirs:
            self.section = self.first
            self.pasted_modules[value.__module__] = None
        try:
            text = _dedent(inspect.getsource(value))
        except (OSError, TypeError):
            self._refuse(value, "not in a file that can be read")
        scope = _scope(value)
        text = _bare(text, scope, ours=not theirs, documented=self.section is self.last)
        names = self._needs(text, scope, theirs=theirs, known={value.__name__: name})
        self.section[name] = renamed(text, names)
        self.section = before
        self.homes[name] = value.__module__
        return name

    def inline(
        self, value: Callable[..., object], given: Mapping[str, str], target: str
    ) -> list[str] | None:
        """The statements of a harness function, to put in place of a call.

        `given` are its arguments, and `target` the variables that get what it returns. None
        if statements can't replace a call.
        """
        text = _bare(_dedent(inspect.getsource(value)), _scope(value), ours=True, documented=False)
        [function] = ast.parse(text).body
        assert isinstance(function, ast.FunctionDef)
        last = function.body[-1]
        early = [node for node in ast.walk(function)
                 if isinstance(node, (ast.Return, ast.Yield)) and node is not last]  # fmt: skip
        if early or value.__module__.partition(".")[0] != "harness":
            return None
        lines = text.splitlines()[function.body[0].lineno - 1 :]
        indent = function.body[0].col_offset
        lines = [line[indent:] for line in lines]
        if isinstance(last, ast.Return):
            assert last.value is not None
            place = last.lineno - function.body[0].lineno
            lines[place] = f"{target} = {lines[place].removeprefix('return ')}"
            if ast.unparse(last.value).strip("()") == target:
                lines = lines[:place]
        text = "\n".join(lines)
        names = self._needs(text, _scope(value), theirs=False, known=given)
        return renamed(text, names).splitlines()

    def _needs(
        self,
        text: str,
        scope: Mapping[str, object],
        *,
        theirs: bool,
        known: Mapping[str, str] = MappingProxyType({}),
    ) -> dict[str, str]:
        """The script's name for each global name in a text; adds what they need."""
        names = dict(known)
        for used in global_names(text):
            if used in names:
                continue
            if used in scope:
                names[used] = self._need(used, scope[used], scope)
            elif theirs:
                self._theirs.add(used)
        return names

    def _need(self, name: str, value: object, scope: Mapping[str, object]) -> str:
        """Add what a pasted function uses under `name`; returns its name in the script."""
        if isinstance(value, types.ModuleType):
            return self.module(value.__name__, name)
        if isinstance(value, (types.FunctionType, type)) and value.__name__ != "<lambda>":
            return self.name(value)
        home = str(scope["__name__"])
        shared = isinstance(value, (list, dict, set))
        key = ("value", id(value)) if shared else ("value", home, name)
        known_as = self._allot(key, name, theirs=home.partition(".")[0] != "harness")
        if key not in self._pasted:
            self._pasted.add(key)
            self.section[known_as] = f"{known_as} = {self.expression(value)}"
        return known_as

    def paste_value(self, name: str, value: object, part: object) -> None:
        """Add only a `part` of the value that the harness's functions use as `name`."""
        key = ("value", id(value))
        known_as = self._allot(key, name, theirs=False)
        self._pasted.add(key)
        self.section[known_as] = f"{known_as} = {self.expression(part)}"


def _get(value: object, name: str) -> Any:
    return getattr(value, name, None)


def _value(node: ast.expr, scope: Mapping[str, object]) -> Any:
    """The value of a dotted name; None if there is none."""
    if isinstance(node, ast.Attribute):
        return getattr(_value(node.value, scope), node.attr, None)
    return scope.get(node.id) if isinstance(node, ast.Name) else None


def _scope(value: Any) -> Mapping[str, object]:
    """The global names where a function or class is defined."""
    function = inspect.unwrap(value)
    return getattr(function, "__globals__", None) or vars(sys.modules[value.__module__])


def _is_text_of(segment: str, function: types.FunctionType) -> bool:
    """Whether the text of a lambda defines exactly this function."""
    tree = ast.parse(f"({segment})", mode="eval")
    assert isinstance(tree.body, ast.Lambda)
    code = compile(tree, "", "eval")
    found = [const for const in code.co_consts if isinstance(const, types.CodeType)]
    arguments = tree.body.args
    try:
        defaults = tuple(map(ast.literal_eval, arguments.defaults))
        keywords = {
            argument.arg: ast.literal_eval(default)
            for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
            if default is not None
        }
    except ValueError:  # a value that the text alone does not give
        return False
    given = function.__defaults__ or (), function.__kwdefaults__ or {}
    return (defaults, keywords) == given and _shape(found[-1]) == _shape(function.__code__)


def _shape(code: types.CodeType) -> tuple[object, ...]:
    """A value that is equal for two pieces of code that are the same except for their position."""
    constants = (_shape(c) if isinstance(c, types.CodeType) else repr(c) for c in code.co_consts)
    return code.co_code, code.co_names, code.co_varnames, code.co_freevars, tuple(constants)


# ------------------------------------------------------------------------------- texts


def _dedent(text: str) -> str:
    """`text` without the indentation of its first line; strings stay as they are."""
    indent = text[: len(text) - len(text.lstrip(" \t"))]
    if not indent:
        return text.rstrip()
    inside_strings = {
        line - 2  # for the first line, and for the line of the `if`
        for node in ast.walk(ast.parse(f"if True:\n{text}"))
        if isinstance(node, (ast.Constant, ast.JoinedStr))
        for line in range(node.lineno + 1, (node.end_lineno or 0) + 1)
    }
    return "".join(
        line if index in inside_strings else line.removeprefix(indent)
        for index, line in enumerate(text.splitlines(keepends=True))
    ).rstrip()


def _bare(text: str, scope: Mapping[str, object], *, ours: bool, documented: bool) -> str:
    """A definition without annotations, and without the decorators that only the harness uses.

    The harness's own definitions also lose comments for linters and their docstrings, except the
    first line if `documented`. Strings and other comments stay as they are.
    """
    if ours:
        text = re.sub(r" *# (noqa|type|fmt):?.*$", "", text, flags=re.MULTILINE)
    code = text.encode()
    starts = [0, *itertools.accumulate(map(len, code.splitlines(keepends=True)))]
    cuts: list[tuple[int, int, str]] = []

    def start(node: ast.expr | ast.stmt | ast.arg) -> int:
        return starts[node.lineno - 1] + node.col_offset

    def end(node: ast.expr | ast.stmt | ast.arg) -> int:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return starts[node.end_lineno - 1] + node.end_col_offset

    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.arg) and node.annotation is not None:
            equals = re.compile(rb"( *= *)?").match(code, end(node))
            assert equals is not None
            cuts.append(
                (start(node) + len(node.arg.encode()), equals.end(), "=" if equals[1] else "")
            )
        elif isinstance(node, ast.AnnAssign):
            if ours and node.value is not None:
                cuts.append((end(node.target), end(node.annotation), ""))
            else:  # a field of a dataclass
                quoted = repr(ast.unparse(node.annotation))
                cuts.append((start(node.annotation), end(node.annotation), quoted))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.returns is not None:
            arrow = code.rindex(b"->", 0, start(node.returns))
            cuts.append((len(code[:arrow].rstrip()), end(node.returns), ""))
        if ours and isinstance(node, (ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(node):
            first = (ast.get_docstring(node) or "").partition("\n")[0]
            keep = f'"""{first}"""' if documented or len(node.body) == 1 else ""
            cuts.append((start(node.body[0]), end(node.body[0]), keep))
        for decorator in getattr(node, "decorator_list", []):
            function = decorator.func if isinstance(decorator, ast.Call) else decorator
            known = _value(function, scope)
            if str(getattr(known, "__module__", "")).partition(".")[0] == "harness":
                cuts.append((starts[decorator.lineno - 1], end(decorator), ""))
    for begins, ends, instead in sorted(cuts, reverse=True):
        before, after = code[:begins], code[ends:]
        if not instead and not before.rpartition(b"\n")[2].strip() and after[:1] in (b"\n", b""):
            before, after = before.rpartition(b"\n")[0], after  # nothing is left of the line
        code = before + instead.encode() + after
    bare = code.decode().strip("\n")
    return _one_line(bare) if ours else bare


def _one_line(text: str, width: int = 100) -> str:
    """A harness function with its parameters in one line, if that is not too long."""
    [node] = ast.parse(text).body
    if not isinstance(node, ast.FunctionDef):
        return text
    lines = text.splitlines()
    first, last = node.lineno - 1, node.body[0].lineno - 1
    joined = " ".join(line.strip() for line in lines[first:last])
    joined = re.sub(r",? \)", ")", joined.replace("( ", "("))
    if last - first > 1 and len(joined) <= width:
        lines[first:last] = [joined]
    return "\n".join(lines)
