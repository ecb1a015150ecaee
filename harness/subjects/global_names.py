"""Finds and renames the global names in source code, and leaves its strings unchanged.

>>> text = "def same(a): return scale(a, same=1) == same('same')"
>>> list(read(text).names)
['scale', 'same']
>>> renamed(text, {"same": "same_2"})
"def same_2(a): return scale(a, same=1) == same_2('same')"
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp


@dataclass
class _Scope:
    local: set[str]
    declared: set[str] = field(default_factory=set)
    """The names that a ``global`` statement declares as the module's."""
    is_class: bool = False


class GlobalNames(ast.NodeVisitor):
    """The nodes of a tree that are global names of its module.

    `names` has them in order, with the names that the tree itself binds at its top level.
    """

    def __init__(self, tree: ast.AST) -> None:
        self.nodes: list[ast.Name] = []
        self.in_strings: set[ast.Name] = set()
        """The nodes in f-strings."""
        self.declarations: list[ast.Global] = []
        self._scopes: list[_Scope] = []
        self._string = False
        self.visit(tree)

    @property
    def names(self) -> dict[str, None]:
        """The names, in order."""
        return dict.fromkeys(node.id for node in self.nodes)

    def _is_global(self, name: str, *, stored: bool) -> bool:
        for scope in reversed(self._scopes):
            if name in scope.declared:
                return True
            innermost = scope is self._scopes[-1]
            if scope.is_class and innermost and stored:
                return False  # an attribute of the class
            if name in scope.local and (innermost or not scope.is_class):
                return False
        return True

    def visit_Name(self, node: ast.Name) -> None:
        """Note a name, if it is a global one."""
        if self._is_global(node.id, stored=not isinstance(node.ctx, ast.Load)):
            self.nodes.append(node)
            if self._string:
                self.in_strings.add(node)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Note that what follows is inside a string."""
        before, self._string = self._string, True
        self.generic_visit(node)
        self._string = before

    def visit_Global(self, node: ast.Global) -> None:
        """Note a declaration."""
        self.declarations.append(node)

    def _function(self, node: Function) -> None:
        outside: list[ast.AST | None] = [*node.args.defaults, *node.args.kw_defaults]
        body: Iterable[ast.AST] = [node.body] if isinstance(node, ast.Lambda) else node.body
        if not isinstance(node, ast.Lambda):
            outside += [*node.decorator_list, node.returns]
            outside += [argument.annotation for argument in _arguments(node.args)]
        self._visit_all(outside)
        bound = _Bound(body)
        local = bound.names | {argument.arg for argument in _arguments(node.args)}
        self._scopes.append(_Scope(local - bound.declared, bound.declared))
        self._visit_all(body)
        self._scopes.pop()

    visit_FunctionDef = visit_AsyncFunctionDef = visit_Lambda = _function

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        """Visit a class; its methods do not see the names in its body."""
        self._visit_all([*node.decorator_list, *node.bases, *node.keywords])
        scope = _Scope(set(), is_class=True)
        self._scopes.append(scope)
        for statement in node.body:  # until it is bound there, a name is the module's
            bound = _Bound([statement])
            scope.declared |= bound.declared
            if isinstance(statement, (ast.For, ast.While)):
                scope.local |= bound.names - scope.declared
            self.visit(statement)
            scope.local |= bound.names - scope.declared
        self._scopes.pop()

    def _comprehension(self, node: Comprehension) -> None:
        first, *others = node.generators
        self.visit(first.iter)
        local = {
            name.id
            for generator in node.generators
            for name in ast.walk(generator.target)
            if isinstance(name, ast.Name)
        }
        self._scopes.append(_Scope(local))
        parts = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        self._visit_all([first.target, *first.ifs, *others, *parts])
        self._scopes.pop()

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _comprehension

    def _visit_all(self, nodes: Iterable[ast.AST | None]) -> None:
        for node in nodes:
            if node is not None:
                self.visit(node)


def _arguments(arguments: ast.arguments) -> list[ast.arg]:
    more = [argument for argument in (arguments.vararg, arguments.kwarg) if argument]
    return [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, *more]


class _Bound(ast.NodeVisitor):
    """The names that statements bind in their own scope, and those that they declare global."""

    def __init__(self, statements: Iterable[ast.AST]) -> None:
        self.names: set[str] = set()
        self.declared: set[str] = set()
        for statement in statements:
            self.visit(statement)

    def visit_Name(self, node: ast.Name) -> None:
        """Note a name, if it is a global one."""
        if not isinstance(node.ctx, ast.Load):
            self.names.add(node.id)

    def visit_Global(self, node: ast.Global) -> None:
        """Note a declaration."""
        self.declared.update(node.names)

    def visit_alias(self, node: ast.alias) -> None:
        self.names.add(node.asname or node.name.partition(".")[0])

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        if node.name:
            self.names.add(node.name)
        self.generic_visit(node)

    def _match(self, node: ast.MatchAs | ast.MatchStar) -> None:
        if node.name:
            self.names.add(node.name)
        self.generic_visit(node)

    visit_MatchAs = visit_MatchStar = _match

    def visit_MatchMapping(self, node: ast.MatchMapping) -> None:
        if node.rest:
            self.names.add(node.rest)
        self.generic_visit(node)

    def _definition(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> None:
        self.names.add(node.name)
        for decorator in node.decorator_list:
            self.visit(decorator)

    visit_FunctionDef = visit_AsyncFunctionDef = visit_ClassDef = _definition

    def visit_Lambda(self, node: ast.Lambda) -> None:
        """Skip a lambda, which has its own scope."""

    def _comprehension(self, node: Comprehension) -> None:
        for inner in ast.walk(node):  # only := binds outside of it
            if isinstance(inner, ast.NamedExpr):
                self.names.add(inner.target.id)

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _comprehension


def read(text: str) -> GlobalNames:
    """The global names in source code, which may be an expression."""
    return GlobalNames(ast.parse(text))


def bound(text: str) -> set[str]:
    """Every name that the functions and classes in source code bind."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            body = [node.body] if isinstance(node, ast.Lambda) else node.body
            names |= _Bound(body).names | {argument.arg for argument in _arguments(node.args)}
        elif isinstance(node, ast.ClassDef):
            names |= _Bound(node.body).names
        elif isinstance(node, ast.comprehension):
            names |= _Bound([node.target]).names
    return names


def renamed(text: str, names: Mapping[str, str]) -> str:
    """`text` with each global name in `names` replaced by its expression.

    A definition at its top level is renamed too. Strings and comments stay as they are, with one
    exception: comments are lost if Python does not tell the position of a name (in an f-string
    before Python 3.12, or after ``global``).
    """
    tree = ast.parse(text)
    names = {old: new for old, new in names.items() if old != new}
    found = GlobalNames(tree)
    nodes = [node for node in found.nodes if node.id in names]
    definitions = [
        node
        for node in tree.body
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
        and node.name in names
    ]
    declarations = [node for node in found.declarations if set(node.names) & set(names)]
    if not nodes and not definitions and not declarations:
        return text
    hidden = sys.version_info < (3, 12) and not found.in_strings.isdisjoint(nodes)
    if not hidden and not declarations:
        edits = [(node.lineno - 1, node.col_offset, node.id) for node in nodes]
        edits += [_place_of_name(text, definition) for definition in definitions]
        edited = _edited(text, edits, names)
        if edited:
            return edited
    for node in nodes:
        node.id = names[node.id]
    for definition in definitions:
        definition.name = names[definition.name]
    for declaration in declarations:
        declaration.names = [names.get(name, name) for name in declaration.names]
    return ast.unparse(tree)


def _place_of_name(
    text: str, definition: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
) -> tuple[int, int, str]:
    line = definition.lineno - 1
    rest = text.encode().splitlines(keepends=True)[line][definition.col_offset :]
    head = re.match(rb"(async\s+def|def|class)\s+", rest)
    return line, definition.col_offset + (head.end() if head else 0), definition.name


def _edited(text: str, edits: list[tuple[int, int, str]], names: Mapping[str, str]) -> str:
    """`text` with the names at these positions renamed; empty if one is not at its position."""
    lines = text.encode().splitlines(keepends=True)
    for line, column, name in sorted(edits, reverse=True):
        end = column + len(name.encode())
        if lines[line][column:end] != name.encode():
            return ""
        lines[line] = lines[line][:column] + names[name].encode() + lines[line][end:]
    return b"".join(lines).decode()
