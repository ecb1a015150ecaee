"""Output: text that is safe to print, files written whole or not at all, a clean stdout."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from harness.core.errors import OutputError

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


def count(number: int | str, noun: str) -> str:
    """A number with a noun, which gets an s unless the number is 1.

    >>> count(2, "step")
    '2 steps'
    """
    return f"{number} {noun}" + "s" * (str(number) != "1")


LONGEST = 120
"""The longest file name, in characters, without its ending and the mark of a shared name."""


def file_name(name: str) -> str:
    """`name` with every character that is unsafe in a file's name replaced by ``_``."""
    return "".join(
        letter if letter.isascii() and (letter.isalnum() or letter in "-_") else "_"
        for letter in name
    )[:LONGEST]


def file_names(names: Iterable[str]) -> dict[str, str]:
    """A file's name for each of `names`, all different even on systems that ignore case.

    A name that would share its file's name with another gets a mark made from the whole name.
    The order of the names changes nothing.
    """
    different = set(names)
    count = Counter(file_name(name).lower() for name in different)
    shared = {name for name in different if count[file_name(name).lower()] > 1}
    made = {name: _marked(name) if name in shared else file_name(name) for name in different}
    if len({file.lower() for file in made.values()}) == len(made):
        return made
    return {name: _marked(name) for name in different}  # a marked name equals another name


def _marked(name: str) -> str:
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{file_name(name)}-{digest[:12]}"


def require_writable(path: Path) -> None:
    """Raise `OutputError` if `path` can't be written, without writing it."""
    if path.is_dir():
        raise OutputError(f"cannot write {path}: it is a folder; give the name of a file")
    if path.exists() and not os.access(path, os.W_OK):
        raise OutputError(f"cannot write {path}: permission denied; give another name")
    if not path.exists() or path.is_file():
        _try_folder(path.parent)


def require_folder(path: Path) -> None:
    """Raise `OutputError` if no file can be written to the folder `path`, without making it."""
    there = next(each for each in (path, *path.absolute().parents) if os.path.lexists(each))
    if not there.is_dir():
        raise OutputError(
            f"cannot make the folder {path}: {there} is not a folder; give another one"
        )
    _try_folder(there)


def make_folder(path: Path) -> None:
    """Make the folder `path` if it is missing; raise `OutputError` if it can't be written to."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot make the folder {path}: {error.strerror}; give another one"
        ) from None
    _try_folder(path)


def _try_folder(folder: Path) -> None:
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(
            f"cannot write to the folder {folder}: {error.strerror}; give another one"
        ) from None


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` whole or not at all; raises `OutputError`.

    A lone surrogate, which UTF-8 lacks, is written as its escape.
    """
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` whole or not at all; raises `OutputError`."""
    try:
        if path.exists() and not path.is_file():  # a device or a pipe can't be replaced
            path.write_bytes(content)
            return
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            mask = os.umask(0)
            os.umask(mask)
            Path(name).chmod(0o666 & ~mask)
            Path(name).replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(name).unlink()
            raise
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from None


@contextlib.contextmanager
def stdout_kept() -> Iterator[None]:
    """Reserve standard output for what is written to ``sys.stdout`` from here on.

    What child processes and libraries in C write to the file descriptor goes to standard error.
    """
    stdout = sys.stdout
    try:
        stdout.flush()
        ours = stdout.fileno() == 1
        kept = os.dup(1)
        os.dup2(2, 1)
    except OSError:  # a stream is closed, or has no descriptor
        yield
        return
    try:
        if ours:
            sys.stdout = open(kept, "w", encoding=stdout.encoding, errors=stdout.errors,  # noqa: SIM115
                              closefd=False)  # fmt: skip
        yield
    finally:
        sys.stdout.flush()
        sys.stdout = stdout
        os.dup2(kept, 1)
        os.close(kept)
