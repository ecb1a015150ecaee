"""Values that print as text and parse back: Python literals, and terms.

A *term* is a word that a subject defines, alone or called with values. With terms a trace
can name what has no literal, such as a function, an optimizer or a scheduler inside another.
A word with dots, such as ``my_package.decay``, is imported.

>>> value = parse_value("[root_decay,Linear(total_iters=3)]")
>>> value[1]
Term(name='Linear', arguments=(), keywords=(('total_iters', 3),))
>>> format_value(value)
'[root_decay,Linear(total_iters=3)]'
>>> resolve(Term.of("dict", a=1), {"dict": dict})
{'a': 1}
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from harness.core.errors import TraceError
from harness.core.suggest import closest


@dataclass(frozen=True)
class Term:
    """A word that a subject defines; called, unless `arguments` is None.

    >>> print(Term("root_decay"), Term.of("Step", 3, gamma=0.5))
    root_decay Step(3,gamma=0.5)
    """

    name: str
    arguments: tuple[object, ...] | None = None
    keywords: tuple[tuple[str, object], ...] = ()

    @classmethod
    def of(cls, name: str, /, *arguments: object, **keywords: object) -> Term:
        """The word `name`, called."""
        return cls(name, arguments, tuple(keywords.items()))

    def __str__(self) -> str:
        return format_value(self)


def resolve(value: object, words: Mapping[str, Callable[..., object]]) -> Any:
    """`value` with each term replaced by a new object; `TraceError` for an unknown word."""
    if isinstance(value, Term):
        if value.name not in words:
            quote = f", or quote it for a string: '{value.name}'" if value.arguments is None else ""
            close = closest(value.name, words)
            hint = f"write {close}" if close else "add it to the Subject's 'words'"
            raise TraceError(f"{value.name!r} is not a word of this subject: {hint}{quote}")
        word = words[value.name]
        if value.arguments is None:
            return word
        keywords = {name: resolve(item, words) for name, item in value.keywords}
        return word(*resolve(value.arguments, words), **keywords)
    if isinstance(value, (list, tuple)):
        return type(value)([resolve(item, words) for item in value])
    if isinstance(value, dict):
        return {key: resolve(item, words) for key, item in value.items()}
    return value


def holds_term(value: object) -> bool:
    """Whether `value` contains a term."""
    if isinstance(value, dict):
        return any(map(holds_term, value.values()))
    if isinstance(value, (list, tuple)) and type(value) in (list, tuple):
        return any(map(holds_term, value))
    return isinstance(value, Term)


def parse_value(text: str) -> object:
    """The value written in `text`; raises `ValueError` or `SyntaxError`."""
    return _value(ast.parse(text, mode="eval").body)


def _value(node: ast.expr) -> object:
    if isinstance(node, ast.Attribute) and (dotted := _dotted(node)):
        return Term(dotted)
    if isinstance(node, ast.Name):
        return {"inf": math.inf, "nan": math.nan}.get(node.id, Term(node.id))
    if isinstance(node, ast.Call):
        word = _dotted(node.func)
        if not word or any(k.arg is None for k in node.keywords):
            raise ValueError("a term must be a word, alone or called with values")
        arguments = tuple(_value(argument) for argument in node.args)
        return Term(word, arguments, tuple((str(k.arg), _value(k.value)) for k in node.keywords))
    if isinstance(node, ast.List):
        return [_value(item) for item in node.elts]
    if isinstance(node, ast.Tuple):
        return tuple(_value(item) for item in node.elts)
    if isinstance(node, ast.Dict):
        if None in node.keys:
            raise ValueError("a dict must contain keys and values only")
        pairs = zip(node.keys, node.values, strict=True)
        return {_value(key): _value(item) for key, item in pairs if key is not None}
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        number = _value(node.operand)
        if isinstance(number, (int, float)) and not isinstance(number, bool):
            return -number
    return ast.literal_eval(node)


def _dotted(node: ast.expr) -> str:
    """The word of a term, with its dots; empty if the expression is not a word."""
    if isinstance(node, ast.Name):
        return node.id
    before = _dotted(node.value) if isinstance(node, ast.Attribute) else ""
    return f"{before}.{node.attr}" if before and isinstance(node, ast.Attribute) else ""


def format_options(options: Mapping[str, object]) -> dict[str, str]:
    """Each option as text; ``...`` for a value that no text can name, such as a function.

    >>> format_options({"gamma": 0.5, "lr_lambda": len})
    {'gamma': '0.5', 'lr_lambda': '...'}
    """
    shown = {}
    for name, value in options.items():
        try:
            shown[name] = format_value(value)
        except TraceError:
            shown[name] = "..."
    return shown


def format_value(value: object) -> str:
    """`value` as text without spaces; the inverse of `parse_value`.

    >>> format_value([1, 2.5, "a b"])
    "[1,2.5,'a\\\\x20b']"

    Raises `TraceError` for a value that is neither a literal nor a term.
    """
    if value is None or type(value) in (bool, int, float):
        return repr(value)
    if type(value) in (str, bytes):
        return repr(value).replace(" ", r"\x20")
    if type(value) is list:
        return "[" + ",".join(map(format_value, value)) + "]"
    if type(value) is tuple:
        return "(" + "".join(format_value(item) + "," for item in value) + ")"
    if type(value) is dict:
        items = (f"{format_value(key)}:{format_value(item)}" for key, item in value.items())
        return "{" + ",".join(items) + "}"
    if isinstance(value, Term):
        if value.arguments is None:
            return value.name
        arguments = [format_value(argument) for argument in value.arguments]
        arguments += [f"{name}={format_value(item)}" for name, item in value.keywords]
        return f"{value.name}({','.join(arguments)})"
    raise TraceError(
        f"{value!r} cannot be written in a trace: use numbers, strings, None, lists, "
        "tuples and dicts of them, and terms"
    )
