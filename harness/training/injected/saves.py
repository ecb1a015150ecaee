"""Sees every operation on the checkpoint paths while a script saves.

A kill inside a save leaves what the operations before it left on disk. Python's audit events tell
of an operation before it is made. They tell nothing of writes, so files of the checkpoint paths
are opened with a raw layer that reports each one, and the native writers of torch and safetensors
are wrapped. What no one reports, such as the writes of another native library, is not seen.
"""

from __future__ import annotations

import builtins
import contextlib
import functools
import io
import os
import sys
import threading
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Look = Callable[[list[tuple[str, int]], str], None]
    """Called with the files that are being written, each with its size in bytes, and the last
    operation before."""

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
HERE = -1
"""The folder descriptor that stands for the current folder, in audit events."""

_watches: list[Watch] = []
"""The watch of this process, if there is one."""


class Watch:
    """Calls `look` before and after each operation on `paths`.

    Large files are written in many pieces, and each look copies the file. So of the writes to one
    file it looks after the 1st, 2nd, 4th, 8th ..., and whenever the file has twice the size.
    """

    def __init__(self, paths: list[str], look: Look) -> None:
        self.paths = paths
        self.look = look
        self.folder = os.getcwd()
        self.open_files: dict[int, str] = {}
        self.lock = threading.RLock()
        self.busy = 0
        self.done = ""

    def covers(self, path: str) -> bool:
        """Whether a file is one of the checkpoint paths, in one, or a folder above one."""
        path = os.path.abspath(path)
        return any(
            path == own or path.startswith(own + os.sep) or own.startswith(path + os.sep)
            for own in self.paths
        )

    def see(self, coming: str = "") -> None:
        """Look before the operation that is `coming`, unless it is one of our own."""
        with self.lock:
            if not self.busy:
                with self.quiet():
                    paths = filter(os.path.exists, self.open_files.values())
                    self.look([(self.name(p), os.path.getsize(p)) for p in paths], self.done)
                self.done = coming or self.done

    @contextlib.contextmanager
    def quiet(self) -> Iterator[None]:
        """See nothing of what this thread does in the block; other threads wait."""
        with self.lock:
            self.busy += 1
            try:
                yield
            finally:
                self.busy -= 1

    def name(self, path: str) -> str:
        """How messages name a file."""
        return os.path.relpath(path, self.folder)


class Writes:
    """Counts the writes to one file, from its opening on."""

    def __init__(self, watch: Watch, path: str) -> None:
        self.watch, self.path = watch, path
        self.number = self.size = 0
        with watch.lock:
            watch.open_files[id(self)] = path
        watch.see()

    def written(self) -> None:
        """Call this after each write."""
        self.number += 1
        size = os.stat(self.path).st_size if os.path.exists(self.path) else 0
        if self.number & (self.number - 1) == 0 or size >= max(1, 2 * self.size):
            self.size = size
            self.watch.see()

    def closed(self) -> None:
        """Call this when the file is closed; calling it again does nothing."""
        with self.watch.lock:
            self.watch.open_files.pop(id(self), None)


def start(paths: list[str], look: Look) -> None:
    """Watch `paths` from now on, in this process."""
    first = not _watches
    _watches[:] = [Watch(paths, look)]
    if not first:
        return
    sys.addaudithook(_audit)
    builtins.open = io.open = _open
    for name in ("torch._C", "safetensors", "safetensors.torch"):
        wrap(sys.modules.get(name))


def wrap(module: Any) -> None:
    """Wrap the native writers in a module that has just been imported."""
    if not _watches or module is None:
        return
    writer = getattr(module, "PyTorchFileWriter", None)
    if writer is not None:
        module.PyTorchFileWriter = _torch_writer(writer)
    write = getattr(module, "serialize_file", None)
    if write is not None and not hasattr(write, "__wrapped__"):
        module.serialize_file = _safetensors_writer(write)


# ------------------------------------------------------------------ audit events


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    """See what is there before an operation; an exception here would stop the script's own."""
    read = _OPERATIONS.get(event)
    if read is None or not _watches:
        return
    watch = _watches[0]
    try:
        paths, words = read(*arguments)
    except (TypeError, ValueError, OSError):  # a descriptor in place of a path
        return
    if any(map(watch.covers, paths)):
        watch.see(words.format(*map(watch.name, paths)))


def _opened(path: Any, mode: Any, flags: int) -> tuple[list[str], str]:
    if not flags & WRITES:
        return [], ""
    return [os.fsdecode(path)], "{} is written"


def _renamed(source: Any, target: Any, one: int = HERE, other: int = HERE) -> tuple[list[str], str]:
    return [_path(source, one), _path(target, other)], "{} is renamed to {}"


def _removed(path: Any, folder: int = HERE) -> tuple[list[str], str]:
    return [_path(path, folder)], "{} is removed"


def _folder_made(path: Any, mode: int = 0, folder: int = HERE) -> tuple[list[str], str]:
    return [_path(path, folder)], "the folder {} is made"


def _cut(path: Any, length: int) -> tuple[list[str], str]:
    return [_path(path, HERE)], "{} is truncated"


def _linked(source: Any, target: Any, *folders: int) -> tuple[list[str], str]:
    return [_path(target, folders[-1])], "{} is linked"


_OPERATIONS: dict[str, Callable[..., tuple[list[str], str]]] = {
    "open": _opened,
    "os.rename": _renamed,
    "os.remove": _removed,
    "os.rmdir": _removed,
    "os.mkdir": _folder_made,
    "os.truncate": _cut,
    "os.link": _linked,
    "os.symlink": _linked,
}
"""Gives the paths and the words for the arguments of an audit event."""


def _path(path: Any, folder: int) -> str:
    """The path of a file that may be named relative to an open folder or by a descriptor."""
    if isinstance(path, int):
        return os.readlink(f"/proc/self/fd/{path}")
    text = os.fsdecode(path)
    if folder == HERE or os.path.isabs(text):
        return text
    return os.path.join(os.readlink(f"/proc/self/fd/{folder}"), text)


# ------------------------------------------------------------------ files of Python


class _Raw(io.FileIO):
    """The raw layer of a file that is written: reports each write when it is on disk."""

    writes: Writes

    def write(self, data: Any) -> Any:
        written = super().write(data)
        self.writes.written()
        return written

    def truncate(self, size: int | None = None) -> int:
        cut = super().truncate(size)
        self.writes.written()
        return cut

    def close(self) -> None:
        super().close()
        if hasattr(self, "writes"):
            self.writes.closed()


_real_open: Any = io.open


def _open(
    file: Any,
    mode: str = "r",
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    closefd: bool = True,
    opener: Any = None,
) -> Any:
    """``open``, with a raw layer of ours for a file that is written to the checkpoint paths."""
    options: dict[str, Any] = {"encoding": encoding, "errors": errors, "newline": newline}
    path = _written_path(file, mode)
    watch = _watches[0] if _watches else None
    text = "b" not in mode
    wrong = not text and any(value is not None for value in options.values())
    if path is None or watch is None or wrong or not watch.covers(path):
        return _real_open(file, mode, buffering, **options, closefd=closefd, opener=opener)
    raw = _Raw(file, mode.replace("b", "").replace("t", ""), closefd, opener)
    if opener is not None:  # as tempfile has, for a file in the folder that is named
        path = _of_descriptor(raw.fileno()) or path
    raw.writes = Writes(watch, path)
    if buffering == 0 and not text:
        return raw
    size = buffering if buffering > 1 else io.DEFAULT_BUFFER_SIZE
    buffer: Any = (io.BufferedRandom if "+" in mode else io.BufferedWriter)(raw, size)
    if not text:
        return buffer
    file_of_text: Any = io.TextIOWrapper(buffer, **options, line_buffering=buffering == 1)
    file_of_text.mode = mode
    return file_of_text


def _written_path(file: Any, mode: Any) -> str | None:
    """The path of a file that is opened to be written, if it is opened by one."""
    if not isinstance(mode, str) or not set(mode) & set("wax+") or set(mode) - set("rwaxbt+"):
        return None
    if isinstance(file, int):
        return _of_descriptor(file)
    return os.fsdecode(file) if isinstance(file, (str, bytes, os.PathLike)) else None


def _of_descriptor(number: int) -> str | None:
    try:
        return os.readlink(f"/proc/self/fd/{number}")
    except OSError:  # the system has no /proc
        return None


# ------------------------------------------------------------------ native writers


def _torch_writer(base: Any) -> Any:
    """The class that writes the files of ``torch.save``, reporting each record.

    It has a buffer of its own: what is on disk after a record is what a kill leaves.
    """

    class Writer(base):  # type: ignore[misc]
        def __init__(self, file: Any, *arguments: Any, **options: Any) -> None:
            watch, self._writes = _watches[0] if _watches else None, None
            path = os.fsdecode(file) if isinstance(file, (str, bytes, os.PathLike)) else None
            if watch is None or path is None or not watch.covers(path):
                super().__init__(file, *arguments, **options)
                return
            watch.see(f"{watch.name(path)} is written")
            super().__init__(file, *arguments, **options)
            self._writes = Writes(watch, path)

        def write_record(self, *arguments: Any, **options: Any) -> Any:
            done = super().write_record(*arguments, **options)
            if self._writes is not None:
                self._writes.written()
            return done

        def write_end_of_file(self) -> Any:
            done = super().write_end_of_file()
            if self._writes is not None:
                self._writes.closed()
            return done

    Writer.__name__ = Writer.__qualname__ = base.__name__
    return Writer


def _safetensors_writer(write: Any) -> Any:
    """``safetensors.serialize_file``, after showing what it leaves when it is killed."""

    @functools.wraps(write)
    def written(tensors: Any, filename: Any, *arguments: Any, **options: Any) -> Any:
        watch = _watches[0] if _watches else None
        path = os.path.abspath(os.fsdecode(filename))
        if watch is None or not hasattr(os, "fork") or not watch.covers(path):
            return write(tensors, filename, *arguments, **options)
        watch.see(f"{watch.name(path)} is written")
        folder = os.path.dirname(path)
        before = os.listdir(folder)
        size = sum(map(_size, tensors.values()))
        for limit in (0, size // 2):
            _write_and_be_killed(lambda: write(tensors, filename, *arguments, **options), limit)
            torn = [os.path.join(folder, name) for name in set(os.listdir(folder)) - {*before}]
            Writes(watch, torn[0] if torn else path).closed()
            with watch.quiet():
                for name in set(torn) - {path}:
                    os.unlink(name)  # it writes to another name first
        return write(tensors, filename, *arguments, **options)

    return written


def _size(tensor: Any) -> int:
    """The bytes of a tensor, as safetensors has it: a dict, or since 0.8 an object."""
    return len(tensor["data"]) if isinstance(tensor, dict) else int(tensor.data_len)


def _write_and_be_killed(write: Callable[[], object], limit: int) -> None:
    """Let a fork write a file until it has `limit` bytes, where the system kills it."""
    import resource
    import signal

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of forks of a process with threads
        pid = os.fork()
    if not pid:
        try:
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
            write()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
