"""Snapshots of the checkpoint paths: stored by content, restored with the same times."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    Entry = tuple[int, str, str, int, int, str]
    """Index of the path, relative name, kind, mode, mtime in ns, and blob or target of a link."""

ATTEMPTS = 20
"""How often to look again when another process changes a file while it is being copied."""
APART = 0.015
"""Seconds between the entries of a folder, so that their ctimes are in the order of mtimes."""


class Changed(OSError):
    """A file changed or went away while it was being copied."""


class SavedFile(NamedTuple):
    """A ``file``, ``folder`` or ``link`` with its mtime in ns; a link has a `target`."""

    name: str
    kind: str
    mtime: int
    content: bytes
    target: str


class Store:
    """Snapshots of `paths` in `folder`; each content is stored once."""

    def __init__(self, folder: str, paths: list[str]) -> None:
        self.folder = folder
        self.paths = paths
        self._stats: list[tuple[int, str, tuple[int, ...]]] | None = None
        self._latest = ""
        self._blobs: dict[tuple[object, ...], str] = {}

    def take(self, attempts: int = ATTEMPTS) -> str:
        """The name of a snapshot of what is there now; raises `OSError`."""
        for attempt in range(attempts):
            try:
                return self._take()
            except (Changed, FileNotFoundError, NotADirectoryError):
                if attempt == attempts - 1:
                    raise
                time.sleep(0.01)
        raise AssertionError("the loop returns or raises")

    def _take(self) -> str:
        found = [item for index, path in enumerate(self.paths) for item in _walk(index, path, "")]
        stats = [(index, name, _key(status)) for index, name, _, status in found]
        if stats == self._stats:
            return self._latest
        entries = [self._entry(*item) for item in found]
        name = _name_of(entries)
        target = os.path.join(self.folder, name + ".json")
        if not os.path.exists(target):
            _write(target, json.dumps(entries).encode())
        self._stats, self._latest = stats, name
        return name

    def _entry(self, index: int, name: str, path: str, status: os.stat_result) -> Entry:
        mode, content = stat.S_IMODE(status.st_mode), ""
        if stat.S_ISDIR(status.st_mode):
            kind = "folder"
        elif stat.S_ISLNK(status.st_mode):
            kind, content = "link", os.readlink(path)
        elif stat.S_ISREG(status.st_mode):
            kind, content = "file", self._blob(path, status)
        else:
            kind = "other"
        return index, name, kind, mode, status.st_mtime_ns, content

    def _blob(self, path: str, status: os.stat_result) -> str:
        key = (path, *_key(status))
        if key not in self._blobs:
            self._blobs[key] = self._copy(path)
            if _key(os.lstat(path)) != _key(status):
                del self._blobs[key]
                raise Changed(f"{path} changes while it is being copied")
        return self._blobs[key]

    def _copy(self, path: str) -> str:
        digest = hashlib.blake2b(digest_size=16)
        part = os.path.join(self.folder, f"part-{os.getpid()}")
        with open(path, "rb") as source, open(part, "wb") as target:
            for piece in iter(lambda: source.read(1 << 20), b""):
                digest.update(piece)
                target.write(piece)
        os.replace(part, os.path.join(self.folder, digest.hexdigest()))
        return digest.hexdigest()


def is_empty(folder: str, name: str) -> bool:
    """Whether a snapshot has no file and no link."""
    return all(entry[2] == "folder" for entry in entries_of(folder, name))


def entries_of(folder: str, name: str) -> list[Entry]:
    """The entries of a snapshot."""
    with open(os.path.join(folder, name + ".json"), encoding="utf-8") as file:
        entries: list[Entry] = [tuple(entry) for entry in json.load(file)]
    return entries


def restore(folder: str, name: str, paths: list[str]) -> None:
    """Make the paths what they were when the snapshot was taken, mtimes included.

    The ctime can't be set. Scripts that sort their checkpoints by it see the same order, because
    what is directly in a folder is written in the order of the mtimes, with a pause in between.
    """
    for path in paths:
        remove(path)
    entries = entries_of(folder, name)
    groups: dict[tuple[int, str], list[Entry]] = {}
    for entry in entries:
        groups.setdefault((entry[0], entry[1].split("/")[0]), []).append(entry)
    folders = []
    ordered = sorted(groups.items(), key=lambda item: (item[0][1] != "", _newest(item[1])))
    before = None
    for (_, first), group in ordered:
        if first and before not in (None, _newest(group)):
            time.sleep(APART)
        before = _newest(group) if first else None
        for entry in sorted(group, key=lambda entry: entry[1].count("/")):
            _put(folder, entry, paths)
        inner = [entry for entry in group if entry[2] == "folder"]
        folders += [entry for entry in inner if not entry[1]]
        _finish([entry for entry in inner if entry[1]], paths)
    _finish(folders, paths)


def saved_files(folder: str, name: str, paths: list[str], most: int) -> tuple[SavedFile, ...]:
    """What is in a snapshot of `paths`, named as they are; nothing if it has over `most` bytes."""
    found = []
    for entry in entries_of(folder, name):
        _, _, kind, _, mtime, content = entry
        data = b""
        if kind == "file":
            blob = os.path.join(folder, content)
            most -= os.path.getsize(blob)
            if most < 0:
                return ()
            with open(blob, "rb") as file:
                data = file.read()
        target = content if kind == "link" else ""
        found.append(SavedFile(_path(entry, paths), kind, mtime, data, target))
    return tuple(found)


def remove(path: str) -> None:
    """Remove a file, a link or a folder with all that is in it; nothing there is no error."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


def _put(folder: str, entry: Entry, paths: list[str]) -> None:
    path = _path(entry, paths)
    _, _, kind, mode, mtime, content = entry
    if kind == "folder":
        os.makedirs(path, exist_ok=True)
        return
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if kind == "link":
        os.symlink(content, path)
        os.utime(path, ns=(mtime, mtime), follow_symlinks=False)
    elif kind == "file":
        shutil.copyfile(os.path.join(folder, content), path)
        os.chmod(path, mode)
        os.utime(path, ns=(mtime, mtime))


def _finish(folders: list[Entry], paths: list[str]) -> None:
    """Set the modes and times of folders, the innermost first."""
    for entry in sorted(folders, key=lambda entry: entry[1].count("/"), reverse=True):
        path = _path(entry, paths)
        os.chmod(path, entry[3])
        os.utime(path, ns=(entry[4], entry[4]))


def _path(entry: Entry, paths: list[str]) -> str:
    return os.path.join(paths[entry[0]], entry[1]) if entry[1] else paths[entry[0]]


def _newest(entries: list[Entry]) -> int:
    first = min(entries, key=lambda entry: entry[1].count("/"))
    return int(first[4])


def _walk(index: int, path: str, name: str) -> list[tuple[int, str, str, os.stat_result]]:
    """Everything in a path, with its status, in the order of names."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        if name:
            raise
        return []
    found = [(index, name, path, status)]
    if stat.S_ISDIR(status.st_mode):
        for child in sorted(os.listdir(path)):
            inner = name + "/" + child if name else child
            found += _walk(index, os.path.join(path, child), inner)
    return found


def _key(status: os.stat_result) -> tuple[int, ...]:
    """What changes whenever a file is written, renamed or replaced."""
    return (
        status.st_mode, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns,
    )  # fmt: skip


def _name_of(entries: list[Entry]) -> str:
    """A name for the contents; it does not depend on times."""
    text = json.dumps([[*entry[:4], entry[5]] for entry in entries])
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()


def _write(target: str, content: bytes) -> None:
    part = f"{target}-{os.getpid()}"
    with open(part, "wb") as file:
        file.write(content)
    os.replace(part, target)
