"""Selects pairs of a subject and a check by a pattern, as ``pytest -k`` selects tests.

A pattern is words with ``and``, ``or``, ``not`` and parentheses. A word selects the pairs whose
text, such as ``StepLR-resume_from_file``, contains it, in upper or lower case.

>>> selects = selector("steplr and not (file or pickle)")
>>> selects("StepLR-resume_at_every_save"), selects("StepLR-resume_from_file")
(True, False)
"""

from __future__ import annotations

import re
from collections.abc import Callable

from harness.core.errors import SelectionError

Selects = Callable[[str], bool]


def selector(pattern: str) -> Selects:
    """Whether the pattern selects a text; an empty one selects all.

    Raises `SelectionError` for a text that is not a pattern.
    """
    tokens = re.findall(r"[()]|[^\s()]+", pattern)
    if not tokens:
        return lambda text: True
    selects = _either(tokens, pattern)
    if tokens:
        raise _wrong(pattern, f"{tokens[0]!r} is not expected")
    return selects


def _wrong(pattern: str, why: str) -> SelectionError:
    return SelectionError(
        f"-k {pattern!r}: {why}: write words with and, or, not and parentheses, such as "
        "'StepLR and not pickle'"
    )


def _either(tokens: list[str], pattern: str) -> Selects:
    selects = _both(tokens, pattern)
    while tokens[:1] == ["or"]:
        del tokens[0]
        selects = _join(any, selects, _both(tokens, pattern))
    return selects


def _both(tokens: list[str], pattern: str) -> Selects:
    selects = _one(tokens, pattern)
    while tokens[:1] == ["and"]:
        del tokens[0]
        selects = _join(all, selects, _one(tokens, pattern))
    return selects


def _join(how: Callable[[list[bool]], bool], one: Selects, other: Selects) -> Selects:
    return lambda text: how([one(text), other(text)])


def _one(tokens: list[str], pattern: str) -> Selects:
    token = tokens.pop(0) if tokens else ""
    if token == "not":
        inner = _one(tokens, pattern)
        return lambda text: not inner(text)
    if token == "(":
        inner = _either(tokens, pattern)
        if tokens[:1] != [")"]:
            raise _wrong(pattern, "a parenthesis is not closed")
        del tokens[0]
        return inner
    if token in ("", "and", "or", ")"):
        raise _wrong(
            pattern, f"a word is missing before {token!r}" if token else "a word is missing"
        )
    return lambda text: token.lower() in text.lower()
