"""Finds and renames the global names in source code, and leaves its strings unchanged.

>>> text = "def same(a): return scale(a, same=1) == same('same')"
>>> global_names(text)
['scale', 'same']
>>> renamed(text, {"same": "same_2"})
"def same_2(a): return scale(a, same=1) == same_2('same')"
"""

from __future__ import annotations

import ast
import dis
import re
import sys
import types
import warnings
from collections.abc import Iterator, Mapping

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
_ALWAYS_GLOBAL = ("LOAD_GLOBAL", "STORE_GLOBAL", "DELETE_GLOBAL", "LOAD_FROM_DICT_OR_GLOBALS")


def global_names(text: str) -> list[str]:
    """The global names in source code, in order, with those that it binds at its top level.

    The names of functions, classes and imports are left out where they are defined.
    """
    _, nodes = _global_nodes(text)
    nodes.sort(key=lambda node: (node.lineno, node.col_offset))
    return list(dict.fromkeys(node.id for node in nodes))


def local_names(text: str) -> set[str]:
    """Every name that the functions and classes in source code bind."""
    module, *others = _code_objects(_compiled(ast.parse(text)))
    names = set(module.co_varnames)  # of comprehensions, since Python 3.12
    for code in others:
        stores = [step.argval for step in dis.get_instructions(code) if "STORE" in step.opname]
        names.update(code.co_varnames, code.co_cellvars, map(str, stores))
    return names


def _global_nodes(text: str) -> tuple[ast.Module, list[ast.Name]]:
    """The syntax tree of a text, and its nodes that are global names.

    Python's compiler tells which names are global. In a second tree each name gets a line of its
    own, which the instructions that use the name have too.
    """
    tree, numbered = ast.parse(text), ast.parse(text)
    nodes: dict[int, ast.Name] = {}
    for line, (node, twin) in enumerate(zip(ast.walk(tree), ast.walk(numbered)), 2):  # noqa: B905
        if isinstance(twin, (ast.stmt, ast.expr, ast.excepthandler, ast.pattern)):
            twin.lineno = twin.end_lineno = line if isinstance(twin, ast.Name) else 1
            twin.col_offset = twin.end_col_offset = 0
        if isinstance(node, ast.Name):
            nodes[line] = node
    found = {line for code in _code_objects(_compiled(numbered)) for line in _global_lines(code)}
    return tree, [node for line, node in nodes.items() if line in found]


def _compiled(tree: ast.Module) -> types.CodeType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # for example about `x is 1`
        return compile(tree, "", "exec", dont_inherit=True, optimize=0)


def _code_objects(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _code_objects(constant)


def _global_lines(code: types.CodeType) -> Iterator[int | None]:
    """The lines of the instructions that use a global name."""
    bound: set[str] = set()
    for step in dis.get_instructions(code):
        line = step.positions.lineno if step.positions else None
        if step.opname in _ALWAYS_GLOBAL:
            yield line
        elif step.opname.endswith("_NAME"):  # at the top level of a module or of a class
            if code.co_name == "<module>":
                yield line
            elif step.opname == "STORE_NAME":
                bound.add(step.argval)
            elif step.argval not in bound:  # until a class binds it, it is the module's
                yield line


def renamed(text: str, names: Mapping[str, str]) -> str:
    """`text` with each global name in `names` replaced by its expression.

    A definition at its top level is renamed too. Strings and comments stay as they are, with one
    exception: comments are lost if Python does not tell the position of a name (in an f-string
    before Python 3.12, or after ``global``).
    """
    names = {old: new for old, new in names.items() if old != new}
    tree, nodes = _global_nodes(text)
    nodes = [node for node in nodes if node.id in names]
    definitions = [
        node for node in tree.body if isinstance(node, Definition) and node.name in names
    ]
    declarations = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Global) and not names.keys().isdisjoint(node.names)
    ]
    if not nodes and not definitions and not declarations:
        return text
    if not declarations and not _in_old_f_string(tree, nodes):
        edits = [(node.lineno - 1, node.col_offset, node.id) for node in nodes]
        edits += [_place_of_name(text, definition) for definition in definitions]
        return _edited(text, edits, names)
    for node in nodes:
        node.id = names[node.id]
    for definition in definitions:
        definition.name = names[definition.name]
    for declaration in declarations:
        declaration.names = [names.get(name, name) for name in declaration.names]
    return ast.unparse(tree)


def _in_old_f_string(tree: ast.Module, nodes: list[ast.Name]) -> bool:
    """Whether a node is in an f-string, and this Python does not tell its position there."""
    return sys.version_info < (3, 12) and any(
        node in nodes
        for string in ast.walk(tree)
        if isinstance(string, ast.JoinedStr)
        for node in ast.walk(string)
    )


def _place_of_name(text: str, definition: Definition) -> tuple[int, int, str]:
    line = definition.lineno - 1
    rest = text.encode().splitlines(keepends=True)[line][definition.col_offset :]
    head = re.match(rb"(async\s+def|def|class)\s+", rest)
    return line, definition.col_offset + (head.end() if head else 0), definition.name


def _edited(text: str, edits: list[tuple[int, int, str]], names: Mapping[str, str]) -> str:
    """`text` with the names at these positions, counted in bytes, renamed."""
    lines = text.encode().splitlines(keepends=True)
    for line, column, name in sorted(edits, reverse=True):
        before, after = lines[line][:column], lines[line][column + len(name.encode()) :]
        lines[line] = before + names[name].encode() + after
    return b"".join(lines).decode()
