"""Finds the release of torch where a bug appears or disappears, by bisection.

    python scripts/bisect_torch.py SUBJECT CHECK "TRACE"

The reproduction script of the trace is written once, with the installed torch. Then every release
that is tried runs it. It is a script for ``git bisect run``: it exits with 1 if the bug is there,
0 if it is gone and 125 if this torch can't run it. Each release is installed into a temporary
environment, with uv if it is on the PATH and with pip otherwise; only one exists at a time. All
files are in one temporary folder (set TMPDIR to move it), which is removed at the end, and also
after an error, Ctrl-C or SIGTERM. A release with CUDA takes 8 GB while it is tried, so 10 GB must
be free (``--min-free``); UV_TORCH_BACKEND=cpu makes it small.

For ``ExponentialLR resume_by_last_epoch "gamma=0.8 train:1 save:a resume:a"`` it prints ``first
torch where it is gone: 2.8.0 (2.7.1 still has it)``, with both outputs.

Exit status: 0 a change was found, 1 the oldest and the newest release agree, 2 an argument is
wrong or torch could not be installed, 130 after Ctrl-C, 143 after SIGTERM.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Generic, TypeVar

import click
from packaging.version import InvalidVersion, Version

from harness.core.errors import HarnessError

GOOD, BAD, SKIP = "gone", "there", "cannot run"
"""What is known about a release: the bug is gone, it is there, or the script can't be run."""

FOUND, NO_CHANGE, FAILED = 0, 1, 2

OLDEST = "1.13.1"
"""The oldest release that the harness supports."""

MIN_FREE = 10.0
"""GB for one environment and its installer's cache: we measured 8.4 with CUDA and uv."""

TIME_LIMIT = 600.0
"""Time limit in seconds for a script, which normally takes one or two."""

FULL = ("No space left on device", "os error 28", "Errno 28", "Disk quota exceeded")

T = TypeVar("T")


@dataclass(frozen=True)
class Change(Generic[T]):
    """Where the verdict changes: `before` has the verdict `was`, `after` has `becomes`.

    If both are the same, nothing changes, and these are the first and the last release.
    """

    before: T
    after: T
    was: str
    becomes: str
    between: tuple[T, ...] = ()
    """Releases that can't be run; the verdict may have changed with one of these already."""


def bisect(releases: Sequence[T], ask: Callable[[T], str]) -> Change[T]:
    """Where the verdict changes, if it does.

    `ask` says whether a release is `GOOD`, `BAD` or to `SKIP`; it is called at most once for
    each. A skipped release is replaced by a neighbour. Raises `HarnessError` if fewer than two
    releases can be run.

    >>> bisect([1, 2, 3, 4, 5], lambda number: BAD if number < 4 else GOOD)
    Change(before=3, after=4, was='there', becomes='gone', between=())
    """
    verdicts: dict[int, str] = {}

    def first_that_runs(indices: Sequence[int]) -> int:
        for index in indices:
            verdicts[index] = ask(releases[index])
            if verdicts[index] != SKIP:
                return index
        running = (str(releases[index]) for index in verdicts if verdicts[index] != SKIP)
        only = f"only {number}" if (number := next(running, "")) else "none"
        raise HarnessError(
            f"a bisection needs two releases that can run it, and {only} can: "
            "see why above, or try others with --versions"
        )

    low = first_that_runs(range(len(releases)))
    high = first_that_runs(range(len(releases) - 1, low, -1))
    was = verdicts[low]
    if verdicts[high] == was:
        return Change(releases[low], releases[high], was, was)
    while untried := [index for index in range(low + 1, high) if index not in verdicts]:
        index = min(untried, key=lambda index: abs(2 * index - low - high))
        verdicts[index] = ask(releases[index])
        if verdicts[index] == was:
            low = index
        elif verdicts[index] != SKIP:
            high = index
    between = tuple(releases[low + 1 : high])
    return Change(releases[low], releases[high], was, verdicts[high], between)


class Stopped(BaseException):
    """A signal asked this script to end; holds the signal's number."""


@dataclass
class Signals:
    """Raises `Stopped` at the first signal that asks to end; while `held`, only notes it."""

    held: bool = True
    pending: int = 0

    def listen(self) -> None:
        """Handle the signals, except those that the parent process ignores."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._arrived)

    def _arrived(self, number: int, frame: FrameType | None) -> None:
        if self.held:
            self.pending = number
        else:
            self.held = True  # so that nothing interrupts the clean-up
            raise Stopped(number)

    def hold(self) -> None:
        """From now on, only note signals."""
        self.held = True

    def release(self) -> None:
        """Raise `Stopped` from now on, and at once if a signal arrived meanwhile."""
        self.held = False
        if self.pending:
            self._arrived(self.pending, None)


@contextlib.contextmanager
def own_folder(signals: Signals) -> Iterator[Path]:
    """A new folder that is removed at the end, even after an error or a signal."""
    signals.hold()
    folder = Path(tempfile.mkdtemp(prefix="bisect_torch."))
    try:
        try:
            signals.release()
            yield folder
        finally:
            signals.hold()
    finally:
        remove(folder)


def remove(folder: Path) -> None:
    """Remove a folder; try again if a process that just ended still wrote a file."""
    for _ in range(3):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.1)
    shutil.rmtree(folder)  # says why it can't be


@dataclass(frozen=True)
class Done:
    """How a process ended."""

    status: int
    output: str
    errors: str

    @property
    def reason(self) -> str:
        """The last line of standard error, else of standard output, without uv's line drawing."""
        text = self.errors.strip() or self.output.strip()
        if self.status < 0:
            return f"ended by signal {-self.status}"
        return (
            text.splitlines()[-1].strip(" \u00d7\u2570\u2500\u25b6")
            if text
            else f"exit status {self.status}"
        )


class InstallError(Exception):
    """This release can't be installed; others may be."""


@dataclass
class Releases:
    """Installs releases of torch, one at a time, and runs scripts with them."""

    folder: Path
    signals: Signals
    python: str
    min_free: float
    uv: str | None = field(default_factory=lambda: shutil.which("uv"))

    @property
    def _environment(self) -> Path:
        return self.folder / "environment"

    def available(self) -> list[Version]:
        """The final releases in the index for this Python, in order."""
        with self._new_environment("--seed") as python:
            done = self.execute([python, "-m", "pip", "index", "versions", "torch"], installs=True)
        _, found, rest = done.output.partition("Available versions:")
        if done.status or not found:
            raise HarnessError(
                f"the releases of torch cannot be listed ({done.reason}): name them with --versions"
            )
        numbers = rest.strip().splitlines()[0]
        versions = {Version(number.strip()).public for number in numbers.split(",")}
        return sorted(v for v in map(Version, versions) if not v.is_prerelease)

    def run(self, version: Version, script: Path) -> Done:
        """Run a script with this torch; raises `InstallError` if it can't be installed."""
        numpy = "numpy<2" if version < Version("2.3") else "numpy"
        with self._new_environment() as python:
            install = [python, "-m", "pip", "install", "--no-cache-dir", "--no-compile"]
            if self.uv:
                install = [self.uv, "pip", "install", "--python", python, *self._uv_options()]
                install += ["--link-mode", "hardlink"]
            done = self.execute([*install, f"torch=={version}", numpy], installs=True)
            if any(sign in done.errors + done.output for sign in FULL):
                raise HarnessError(
                    f"the disk of {self.folder.parent} is full: free some space, or set TMPDIR to "
                    "a folder on another disk"
                )
            if done.status:
                raise InstallError(done.reason)
            return self.execute([python, str(script)], time_limit=TIME_LIMIT)

    @contextlib.contextmanager
    def _new_environment(self, *uv_options: str) -> Iterator[str]:
        """The Python of a new environment."""
        free = shutil.disk_usage(self.folder).free / 1e9
        if free < self.min_free:
            raise HarnessError(
                f"{free:.1f} GB are free in {self.folder.parent}, but a release of torch may take "
                f"{self.min_free:g}: free some space, set TMPDIR to a folder on another disk, or "
                "lower --min-free"
            )
        command = [self.python, "-m", "venv"]
        if self.uv:
            command = [self.uv, "venv", "--python", self.python, *self._uv_options(), *uv_options]
        try:
            done = self.execute([*command, str(self._environment)], installs=True)
            if done.status:
                raise HarnessError(
                    f"cannot make an environment with {self.python} ({done.reason}): give "
                    "another --python"
                )
            yield str(self._environment / "bin" / "python")
        finally:
            remove(self._environment)
            remove(self.folder / "scratch")

    def _uv_options(self) -> list[str]:
        return ["--cache-dir", str(self.folder / "scratch" / "uv")]

    def execute(
        self, command: Sequence[str], *, installs: bool = False, time_limit: float | None = None
    ) -> Done:
        """Run a command; if this is interrupted, kill it and all processes it started."""
        scratch = self.folder / "scratch"
        scratch.mkdir(exist_ok=True)
        environment = child_environment(os.environ, scratch, installs=installs)
        self.signals.hold()  # until the process is known
        try:
            process = subprocess.Popen(
                command, env=environment, text=True, errors="replace", start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )  # fmt: skip
        except OSError as error:
            self.signals.release()
            return Done(127, "", f"{command[0]}: {error.strerror}")
        try:
            self.signals.release()
            output, errors = process.communicate(timeout=time_limit)
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            for pipe in (process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()
            if isinstance(error, subprocess.TimeoutExpired):
                return Done(125, "", f"it ran longer than {time_limit:g} s")
            raise
        return Done(process.returncode, output, errors)


def child_environment(given: Mapping[str, str], scratch: Path, *, installs: bool) -> dict[str, str]:
    """The environment variables for an installer or a script; it only writes to `scratch`.

    pip's settings for the places of wheels also apply to uv, unless uv has its own. A script can
    import the user's modules from the current folder, like ``python -m``.
    """
    drop = ("PYTHONDONTWRITEBYTECODE", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_USER")
    environment = {name: value for name, value in given.items() if name not in drop}
    environment["TMPDIR"] = str(scratch)
    environment["PYTHONPYCACHEPREFIX"] = str(scratch / "bytecode")
    environment["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
    environment["UV_PYTHON_DOWNLOADS"] = "never"
    if links := environment.get("PIP_FIND_LINKS"):
        environment.setdefault("UV_FIND_LINKS", ",".join(links.split()))
    if index := environment.get("PIP_INDEX_URL"):
        environment.setdefault("UV_DEFAULT_INDEX", index)
    if indexes := environment.get("PIP_EXTRA_INDEX_URL"):
        environment.setdefault("UV_INDEX", indexes)
        environment.setdefault("UV_INDEX_STRATEGY", "unsafe-best-match")  # like pip
    path = environment.pop("PYTHONPATH", "")  # it would hide what is installed
    if not installs:
        environment["PYTHONPATH"] = os.pathsep.join([os.getcwd(), *([path] if path else [])])
    return environment


def verdict_of(done: Done, version: Version) -> str:
    """The verdict of a script on a release.

    Exit status 1 is not enough for `BAD`, because Python exits with 1 after any error: the script
    must also print that the bug is there. Raises `HarnessError` if another torch than `version`
    ran the script.
    """
    first, _, rest = done.output.partition("\n")[0].partition(" ")
    if first == "torch" and Version(rest).public != version.public:
        raise HarnessError(
            f"the script is run by torch {rest} instead of {version}: remove that torch from "
            "PYTHONPATH and from the current folder"
        )
    if done.status == 1 and "The bug is there." in done.output.splitlines():
        return BAD
    return GOOD if done.status == 0 else SKIP


def choose(
    available: Sequence[Version], oldest: Version | None, newest: Version | None
) -> list[Version]:
    """The releases from `oldest` to `newest`; raises `HarnessError` for fewer than two."""
    chosen = [
        version
        for version in available
        if (oldest is None or version >= oldest) and (newest is None or version <= newest)
    ]
    if len(chosen) < 2:
        raise HarnessError(
            "a bisection needs at least two releases of torch (chosen: "
            f"{', '.join(map(str, chosen)) or 'none'}; available: "
            f"{', '.join(map(str, available)) or 'none'})"
        )
    return chosen


def write_script(releases: Releases, subject: str, check: str, trace: str) -> Path:
    """The reproduction script of a trace, written by ``lr-resume-harness script``.

    That runs in another process, so that files which torch and the scheduler leave behind are
    removed with the temporary folder.
    """
    file = releases.folder / "script.py"
    command = [sys.executable, "-m", "lr_resume_harness", "script", "-o", str(file)]
    done = releases.execute([*command, "--", subject, check, trace])
    if done.status or not file.exists():
        raise HarnessError(done.reason.removeprefix("error: "))
    click.echo(done.errors, nl=False, err=True)
    return file


def report(found: Change[Version]) -> str:
    """What was found, in a sentence."""
    if found.becomes == found.was:
        return (
            f"the bug is {found.was} with torch {found.before} and with {found.after}, the oldest "
            "and the newest that can run it: if it changed in between, it changed back; look "
            "closer with --oldest and --newest"
        )
    still = f"{found.before} {'still has it' if found.was == BAD else 'does not have it'}"
    first = f"first torch where it is {found.becomes}"
    if not found.between:
        return f"{first}: {found.after} ({still})"
    skipped = ", ".join(map(str, found.between))
    return f"{first}: one of {skipped}, {found.after} ({still}; {skipped} cannot run it)"


def search(releases: Releases, versions: Sequence[Version], script: Path) -> int:
    """Bisect; print a line for each release, the result, and the outputs of the script."""
    outputs: dict[Version, str] = {}

    def ask(version: Version) -> str:
        started = time.monotonic()
        try:
            done = releases.run(version, script)
            verdict = verdict_of(done, version)
            message = f"the bug is {verdict}"
            if verdict == SKIP:
                message = f"cannot run it ({done.reason})"
            outputs[version] = done.output.rstrip()
        except InstallError as error:
            verdict, message = SKIP, f"cannot be installed ({error})"
        click.echo(f"{version}: {message} ({time.monotonic() - started:.0f} s)")
        return verdict

    found = bisect(versions, ask)
    click.echo(f"\n{report(found)}")
    for version in (found.before, found.after):
        click.echo(f"\nWith torch {version}:\n\n{outputs[version]}")
    return NO_CHANGE if found.becomes == found.was else FOUND


def _versions(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> list[Version] | None:
    if value is None:
        return None
    try:
        return sorted({Version(number.strip()) for number in value.split(",") if number.strip()})
    except InvalidVersion as error:
        raise HarnessError(f"{parameter.opts[0]}: {error}; write it like 2.4.1") from None


def _version(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> Version | None:
    versions = _versions(context, parameter, value)
    if versions is None:
        return None
    if len(versions) != 1:
        raise HarnessError(f"{parameter.opts[0]} must be one version (got {value!r})")
    return versions[0]


@click.command()
@click.argument("subject")
@click.argument("check")
@click.argument("trace")
@click.option("--oldest", metavar="VERSION", callback=_version,
              help=f"The oldest release to try.  [default: {OLDEST}]")  # fmt: skip
@click.option("--newest", metavar="VERSION", callback=_version,
              help="The newest release to try.  [default: the newest]")  # fmt: skip
@click.option("--versions", metavar="A,B,...", callback=_versions,
              help="Only these releases.  [default: all final ones]")  # fmt: skip
@click.option("--python", metavar="PATH", default=sys.executable,
              help="The Python to install the releases for; there must be wheels for it.  "
              "[default: this one]")  # fmt: skip
@click.option("--min-free", metavar="GB", type=click.FloatRange(min=0), default=MIN_FREE,
              show_default=True, help="Refuse to install with less disk space.")  # fmt: skip
def command(
    subject: str,
    check: str,
    trace: str,
    oldest: Version | None,
    newest: Version | None,
    versions: list[Version] | None,
    python: str,
    min_free: float,
) -> int:
    """Find the first torch where the verdict of CHECK on SUBJECT's TRACE changes.

    Exit status: 0 a change was found, 1 the oldest and the newest agree, 2 an
    argument is wrong or torch could not be installed.
    """
    if versions is not None and (oldest or newest):
        raise HarnessError("give either --versions, or --oldest and --newest")
    if versions is not None:
        versions = choose(versions, None, None)
    signals = Signals()
    signals.listen()
    with own_folder(signals) as folder:
        releases = Releases(folder, signals, python, min_free)
        script = write_script(releases, subject, check, trace)
        if versions is None:
            versions = choose(releases.available(), oldest or Version(OLDEST), newest)
        return search(releases, versions, script)


def main() -> None:
    """Run the command line."""
    try:
        status = command.main(standalone_mode=False)
    except HarnessError as error:
        click.echo(f"error: {error}", err=True)
        status = FAILED
    except click.ClickException as error:
        error.show()
        status = FAILED
    except Stopped as stopped:
        click.echo("interrupted: nothing is left behind", err=True)
        status = 128 + stopped.args[0]
    except (click.Abort, KeyboardInterrupt):
        status = 128 + signal.SIGINT
    except OSError as error:
        click.echo(f"error: {error.filename or 'output'}: {error.strerror}", err=True)
        status = FAILED
    sys.exit(status)


if __name__ == "__main__":
    main()
