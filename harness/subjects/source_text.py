"""Edits Python source code as text, and leaves its strings and comments unchanged.

>>> text = "def same(a): return scale(a, same=1) == same('same')"
>>> global_names(text)
['scale', 'same']
>>> renamed(text, {"same": "same_2"})
"def same_2(a): return scale(a, same=1) == same_2('same')"
"""

from __future__ import annotations

import ast
import dis
import itertools
import re
import sys
import types
import warnings
from collections.abc import Iterator, Mapping

_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
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
    for line, (node, twin) in enumerate(zip(ast.walk(tree), ast.walk(numbered), strict=True), 2):
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
        node for node in tree.body if isinstance(node, _Definition) and node.name in names
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


def _place_of_name(text: str, definition: _Definition) -> tuple[int, int, str]:
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


def is_text_of(segment: str, function: types.FunctionType) -> bool:
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


def dedented(text: str) -> str:
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


def as_pasted(text: str, scope: Mapping[str, object], *, ours: bool, documented: bool) -> str:
    """A definition as a script shows it: without annotations and decorators of the harness.

    The harness's own definitions (`ours`) also lose comments for linters and their docstrings,
    except the first line if `documented`, and have their parameters in one line if they fit.
    Strings and other comments stay as they are.
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
            else:  # perhaps a field of a dataclass, which needs it
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
            before = before.rpartition(b"\n")[0]  # nothing is left of the line
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


def _value(node: ast.expr, scope: Mapping[str, object]) -> object:
    """The value of a dotted name; None if there is none."""
    if isinstance(node, ast.Attribute):
        return getattr(_value(node.value, scope), node.attr, None)
    return scope.get(node.id) if isinstance(node, ast.Name) else None
