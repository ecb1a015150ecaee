"""Escapes text that is not safe to show in a terminal, a page or a file."""

from __future__ import annotations

import re

__all__ = ["one_line", "printable"]

_UNSAFE = re.compile(
    "[\0-\x08\x0b-\x1f\x7f-\x9f"  # control characters, except tabs and ends of lines
    "\u2028\u2029"  # which some programs take for ends of lines
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # which reorder the text around them
    "\ud800-\udfff\ufffe\uffff]"  # which can't be encoded
)


def printable(text: str) -> str:
    r"""`text` with every character that is not safe to print replaced by its Python escape.

    Ends of lines, tabs and printable characters stay as they are.

    >>> print(printable("a\x00b \x1b[31mred \ud800"))
    a\x00b \x1b[31mred \ud800
    """
    return _UNSAFE.sub(_escape, text)


def one_line(text: str) -> str:
    r"""`text` like `printable`, with escapes for ends of lines and tabs too.

    >>> print(one_line("a\nb"))
    a\nb
    """
    return printable(text).replace("\n", r"\n").replace("\t", r"\t")


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
