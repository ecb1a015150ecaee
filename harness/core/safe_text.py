"""Shows text that a terminal, a page or a file can't take as it is."""

from __future__ import annotations

import re

__all__ = ["one_line", "printable"]

_UNSAFE = re.compile(
    "[\0-\x08\x0b-\x1f\x7f-\x9f"  # control characters, but for tabs and ends of lines
    "\u2028\u2029"  # which some programs take for ends of lines
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # which reorder the text around them
    "\ud800-\udfff\ufffe\uffff]"  # which no encoding has
)


def printable(text: str) -> str:
    r"""`text` with every character that is not safe to print as its escape in Python.

    Ends of lines and tabs stay. What is printable already stays as it is.

    >>> print(printable("a\x00b \x1b[31mred \ud800"))
    a\x00b \x1b[31mred \ud800
    """
    return _UNSAFE.sub(_escape, text)


def one_line(text: str) -> str:
    r"""`text` as `printable` has it, with ends of lines and tabs as escapes too.

    >>> print(one_line("a\nb"))
    a\nb
    """
    return printable(text).replace("\n", r"\n").replace("\t", r"\t")


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
