"""Collects the source of functions, with all that it needs, for a script of its own.

A function of a module that may be pasted is pasted, and so is what it uses; of
any other module it is imported.
"""

from __future__ import annotations

import ast
import builtins
import functools
import inspect
import sys
import textwrap
import types
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NoReturn

from harness.core.errors import ScriptError, TraceError
from harness.core.literals import Term, format_value

DROPPED_DECORATORS = ("resume_check", "state_check", "planted")


class Source:
    """Imports and definitions of a script in the making.

    With `paste_all` every function is pasted that is neither torch's nor the
    standard library's, otherwise only those of the harness; `subject` is the name
    that errors give, and `words` what terms stand for.
    """

    def __init__(
        self, subject: str, *, paste_all: bool, words: Mapping[str, Any] = MappingProxyType({})
    ) -> None:
        self.words = words
        self.paste_all = paste_all
        self.subject = subject
        self.imports: dict[str, None] = {}
        self.definitions: dict[str, str] = {}
        self.homes: dict[str, str] = {}
        """The module that each pasted definition is from."""
        self.modules: dict[str, None] = {}
        """The modules that are neither torch's nor the standard library's."""

    def name(self, value: Any, *, known_as: str = "") -> str:
        """The name by which the script can use a function, class or module.

        Raises `ScriptError` for a lambda and others whose source can't be had.
        """
        if isinstance(value, types.ModuleType):
            return self._import_module(value, known_as or value.__name__)
        if isinstance(value, types.MethodType) or not hasattr(value, "__qualname__"):
            self._refuse(value, "neither a function nor a class")
        if value.__name__ == "<lambda>":
            self._refuse(value, "a lambda")
        if "<locals>" in value.__qualname__:
            self._refuse(value, "defined inside a function")
        module = sys.modules.get(value.__module__)
        if module is None or module.__name__ == "__main__":
            self._refuse(value, "defined in a session or in the program itself")
        package = module.__name__.partition(".")[0]
        if package == "harness" or (self.paste_all and _foreign(package)):
            self.paste(value)
            return str(value.__name__)
        first = value.__qualname__.partition(".")[0]
        if functools.reduce(_get, value.__qualname__.split("."), module) is not value:
            self._refuse(value, f"not to be found as {module.__name__}.{value.__qualname__}")
        self._note_module(package)
        if module.__name__ != "builtins":
            self.imports[f"from {module.__name__} import {first}"] = None
        return str(value.__qualname__)

    def expression(self, value: Any) -> str:
        """`value` as an expression of the script; `ScriptError` where there is none."""
        if isinstance(value, list):
            return "[" + ", ".join(map(self.expression, value)) + "]"
        if isinstance(value, tuple):
            return "(" + "".join(self.expression(item) + ", " for item in value) + ")"
        if isinstance(value, dict):
            pairs = (f"{self.expression(k)}: {self.expression(v)}" for k, v in value.items())
            return "{" + ", ".join(pairs) + "}"
        if isinstance(value, functools.partial):
            self.imports["import functools"] = None
            return self.call("functools.partial", [value.func, *value.args], value.keywords)
        if isinstance(value, Term):
            return self._term(value)
        if isinstance(value, float) and repr(value).strip("-") in ("inf", "nan"):
            return f'float("{value!r}")'
        try:
            format_value(value)
        except TraceError:
            return self.name(value)
        return repr(value)

    def call(self, function: str, arguments: list[Any], keywords: dict[str, Any]) -> str:
        """A call of `function` with values as its arguments."""
        given = [self.expression(argument) for argument in arguments]
        given += [f"{name}={self.expression(value)}" for name, value in keywords.items()]
        return f"{function}({', '.join(given)})"

    def _term(self, term: Term) -> str:
        word = self.words[term.name]
        if term.arguments is None:
            return self.expression(word)
        arguments, keywords = list(term.arguments), dict(term.keywords)
        if isinstance(word, functools.partial):
            arguments, keywords = [*word.args, *arguments], {**word.keywords, **keywords}
            word = word.func
        if word is functools.partial:
            self.imports["import functools"] = None
            return self.call("functools.partial", arguments, keywords)
        return self.call(self.name(word), arguments, keywords)

    def _refuse(self, value: Any, what: str) -> NoReturn:
        raise ScriptError(
            f"subject {self.subject}: a script needs the source of {value!r:.80}, which is {what}: "
            "define it by def or class at the top of a module"
        )

    def _import_module(self, module: types.ModuleType, known_as: str) -> str:
        self._note_module(module.__name__.partition(".")[0])
        plain = known_as == module.__name__
        self.imports[f"import {module.__name__}" + ("" if plain else f" as {known_as}")] = None
        return known_as

    def _note_module(self, package: str) -> None:
        if _foreign(package):
            self.modules[package] = None

    def paste(self, value: Any) -> None:
        """Give the script the definition of a function or class, and of all that it uses."""
        name = value.__name__
        if name in self.definitions:
            return
        self.definitions[name] = ""  # keeps its place: what uses itself is not pasted twice
        text = _bare(textwrap.dedent(inspect.getsource(value)))
        del self.definitions[name]
        scope = vars(sys.modules[value.__module__])
        for used in _names(ast.parse(text)):
            if used != name and used in scope and not hasattr(builtins, used):
                self._need(used, scope[used])
        self.definitions[name] = text.strip()
        self.homes[name] = value.__module__

    def body(self, function: Callable[..., Any], arguments: Mapping[str, str]) -> list[str]:
        """The statements of a function, with an expression for each of its arguments.

        The script gets all that they use.
        """
        [definition] = ast.parse(textwrap.dedent(inspect.getsource(function))).body
        assert isinstance(definition, ast.FunctionDef)
        statements = ast.Module(definition.body[1:], [])  # the first is the docstring
        scope = vars(sys.modules[function.__module__])
        for used in _names(statements):
            if used in scope and used not in arguments:
                self._need(used, scope[used])
        return ast.unparse(_Replace(arguments).visit(statements)).splitlines()

    def _need(self, name: str, value: Any) -> None:
        """Give the script what a pasted function uses under `name`."""
        if isinstance(value, types.ModuleType):
            self._import_module(value, name)
        elif isinstance(value, (types.FunctionType, type)):
            found = self.name(value)
            if found != name:
                self.definitions.setdefault(name, f"{name} = {found}")
        elif name not in self.definitions:  # it may have fewer operations
            self.definitions[name] = f"{name} = {self.expression(value)}"


class _Replace(ast.NodeTransformer):
    """Puts expressions in the place of names."""

    def __init__(self, expressions: Mapping[str, str]) -> None:
        self.expressions = expressions

    def visit_Name(self, node: ast.Name) -> ast.expr:
        """The expression that stands for a name, or the name itself."""
        if node.id not in self.expressions:
            return node
        return ast.parse(self.expressions[node.id], mode="eval").body


def _foreign(package: str) -> bool:
    """Whether a script can't count on a top-level package."""
    return package != "torch" and package not in sys.stdlib_module_names


def _get(value: Any, name: str) -> Any:
    return getattr(value, name, None)


def _names(tree: ast.AST) -> list[str]:
    """The names that some source reads, in their order."""
    names = (node.id for node in ast.walk(tree) if isinstance(node, ast.Name))
    return list(dict.fromkeys(names))


def _bare(text: str) -> str:
    """Source without annotations, the harness's decorators and remarks to linters.

    Everything else, comments too, stays as it was written.
    """
    cuts: list[tuple[tuple[int, int], tuple[int, int]]] = []

    def cut(start: tuple[int, int], end: ast.expr) -> None:
        assert end.end_lineno is not None
        assert end.end_col_offset is not None
        cuts.append((start, (end.end_lineno, end.end_col_offset)))

    lines = text.encode().splitlines(keepends=True)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.arg) and node.annotation is not None:
            cut((node.lineno, node.col_offset + len(node.arg.encode())), node.annotation)
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            assert node.target.end_lineno is not None
            assert node.target.end_col_offset is not None
            cut((node.target.end_lineno, node.target.end_col_offset), node.annotation)
        if isinstance(node, ast.FunctionDef) and node.returns is not None:
            line = node.returns.lineno
            arrow = lines[line - 1].rindex(b"->", 0, node.returns.col_offset)
            cut((line, len(lines[line - 1][:arrow].rstrip())), node.returns)
        for decorator in getattr(node, "decorator_list", []):
            function = decorator.func if isinstance(decorator, ast.Call) else decorator
            if isinstance(function, ast.Name) and function.id in DROPPED_DECORATORS:
                cut((decorator.lineno, 0), decorator)
    for (line, column), (end_line, end_column) in sorted(cuts, reverse=True):
        rest = lines[end_line - 1][end_column:]
        lines[line - 1 : end_line] = [lines[line - 1][:column] + rest]
    kept = (line.decode().partition("  # noqa")[0].rstrip() for line in lines)
    bare = [line.partition("  # type:")[0].partition("  # fmt:")[0] for line in kept]
    return "\n".join(bare)
