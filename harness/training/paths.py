"""The user's checkpoint paths: put aside while the tool works there, and put back in any event."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from harness.core.errors import HarnessError
from harness.training.injected import watcher

__all__ = ["PathError", "Workplace", "checked_paths"]

ASIDE = ".lr-resume-harness-"


class PathError(HarnessError):
    """Checkpoint paths that the tool could not promise to restore."""


def checked_paths(
    paths: Sequence[Path], *, needed: Sequence[str] = (), outside: bool = False
) -> list[Path]:
    """The absolute paths; raises `PathError` for those that could not be restored for certain.

    `needed` are words of the command: a file among them can't be inside a checkpoint path.
    `outside` allows paths outside the current folder.
    """
    here = Path.cwd()
    found = [Path(os.path.abspath(path)) for path in paths]
    for given, path in zip(paths, found, strict=True):
        real = Path(os.path.realpath(path))
        if path.is_symlink():
            raise PathError(f"{given} is a symbolic link; give the path it leads to ({real})")
        if here == real or here.is_relative_to(real):
            raise PathError(
                f"{given} holds the current folder; give a path for the checkpoints alone"
            )
        if not outside and not real.is_relative_to(here):
            raise PathError(
                f"{given} is outside the current folder; its files are put aside while the command "
                "runs, so allow that with --allow-outside"
            )
        if path.is_mount():
            raise PathError(
                f"{given} is a mount point, which can't be put aside; use a folder in it"
            )
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise PathError(f"{given} is neither a file nor a folder")
        for word in needed:
            if Path(os.path.realpath(word)).is_relative_to(real) and os.path.exists(word):
                raise PathError(
                    f"the command needs {word}, which is inside {given}; give a path for the "
                    "checkpoints alone"
                )
        _require_no_leftover(given, path)
    for path in found:
        if sum(path.is_relative_to(other) for other in found) > 1:
            raise PathError(f"{path} is given twice, or is inside another of the checkpoint paths")
    return found


def _require_no_leftover(given: Path, path: Path) -> None:
    parent = path.parent
    left = sorted(parent.glob(f"{ASIDE}*/{path.name}")) if parent.is_dir() else []
    if left:
        raise PathError(
            f"an earlier run of this tool could not put {given} back, or still works there: your "
            f"own files are in {left[0]}; if no run is active, move them back"
        )


class Workplace:
    """A temporary folder, and the checkpoint paths free for the command; a context manager.

    The originals are renamed to a folder beside them. A process of its own, the watcher, puts
    them back and removes the temporary folder when the block ends or this process dies.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = list(paths)
        self.folder = Path()
        self.left: list[str] = []

    def __enter__(self) -> Workplace:
        self._watcher = subprocess.Popen(
            [sys.executable, "-I", "-S", watcher.__file__],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        assert self._watcher.stdout is not None
        line = self._watcher.stdout.readline()
        if not line:
            raise PathError(f"cannot make a temporary folder in {tempfile.gettempdir()}")
        self.folder = Path(json.loads(line))
        try:
            self._put_aside()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._close()

    def _put_aside(self) -> None:
        moves = [
            _move(path, self.folder.name.removeprefix("lr-resume-harness-")) for path in self.paths
        ]
        journal = self.folder / watcher.JOURNAL
        part = journal.with_suffix(".part")
        part.write_text(json.dumps(moves), encoding="utf-8")
        part.replace(journal)
        for move in moves:
            if not move["existed"]:
                continue
            path, aside = Path(str(move["path"])), Path(str(move["aside"]))
            try:
                aside.parent.mkdir(mode=0o700, exist_ok=True)
                path.rename(aside)
                if aside.is_dir():
                    path.mkdir()
                    path.chmod(aside.stat().st_mode & 0o7777)
            except OSError as error:
                raise PathError(f"cannot put {path} aside: {error.strerror}") from None

    def _close(self) -> None:
        """Let the watcher clean up; do it here if the watcher was killed."""
        assert self._watcher.stdin is not None
        assert self._watcher.stdout is not None
        clean_up: Callable[[str], list[str]] = watcher.clean_up
        self._watcher.stdin.close()
        line = self._watcher.stdout.readline()
        self._watcher.stdout.close()
        self._watcher.wait()
        self.left = json.loads(line) if line else clean_up(str(self.folder))


def _move(path: Path, mark: str) -> dict[str, object]:
    """What the journal says about a path."""
    aside = path.parent / f"{ASIDE}{mark}" / path.name
    if not os.path.lexists(path):
        missing = [str(parent) for parent in path.parents if not parent.exists()]
        return {"path": str(path), "aside": "", "existed": False, "parents": missing}
    status = path.stat()
    return {
        "path": str(path), "aside": str(aside), "existed": True, "parents": [],
        "atime": status.st_atime_ns, "mtime": status.st_mtime_ns,
    }  # fmt: skip
