"""Escapes text that is not safe to show in a terminal, a page or a file."""

from __future__ import annotations

import re

__all__ = ["one_line", "printable"]

_UNUSUAL = re.compile(r"[^\n\t\x20-\x7e]")


def printable(text: str) -> str:
    r"""`text` with every character that does not print replaced by its Python escape.

    Ends of lines, tabs and printable characters stay as they are.

    >>> print(printable("a\x00b \x1b[31mred \ud800"))
    a\x00b \x1b[31mred \ud800
    """
    return _UNUSUAL.sub(lambda found: one_line(found[0]), text)


def one_line(text: str) -> str:
    r"""`text` like `printable`, with escapes for ends of lines and tabs too.

    >>> print(one_line("a\x00b\n"))
    a\x00b\n
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
