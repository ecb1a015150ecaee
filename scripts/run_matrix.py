"""Runs tox on many releases of torch, with only one environment on disk at a time.

    python scripts/run_matrix.py [ENV ...]

An ENV is a tox environment, for example torch2.4.1. Without one, all environments with the label
`full` are run. Each is made, run and removed again, with everything that was downloaded for it:
uv's cache is in a temporary folder (set TMPDIR to move it). The output of tox goes to a log in
`.tox/results`, next to the results of `check`. Both are kept, and
`lr-resume-harness matrix .tox/results/*.json` merges the results. tox must be installed.

Exit status: 0 all environments are green, 1 one is not, 2 tox can't be run or an ENV is unknown,
130 after Ctrl-C, 143 after SIGTERM.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import click
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / ".tox"
RESULTS = WORK / "results"
TOX = (sys.executable, "-m", "tox")

GREEN, RED, FAILED = 0, 1, 2


@dataclass(frozen=True)
class Ran:
    """The outcome of one environment.

    `verdicts` counts what `check` found, `tests` is pytest's last line, and `gigabytes` is the
    disk space it used at its end.
    """

    env: str
    green: bool
    verdicts: str
    tests: str
    seconds: float
    gigabytes: float


def envs_of(label: str) -> list[str]:
    """The environments with this label in tox.ini."""
    words = [*TOX, "list", "-m", label, "--no-desc", "-q"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr or done.stdout).strip() or "it printed nothing"
        raise click.UsageError(f"tox can't be run, is it installed? {reason.splitlines()[-1]}")
    return re.findall(r"^torch\S+", done.stdout, re.MULTILINE)


def run(env: str) -> Ran:
    """Make, run and remove one environment."""
    started = time.monotonic()
    report, log = (RESULTS / f"{env}.{ending}" for ending in ("json", "log"))
    report.unlink(missing_ok=True)
    made = WORK / env
    with tempfile.TemporaryDirectory(prefix="run_matrix-") as cache:
        try:
            with log.open("w", encoding="utf-8") as file:
                status = _tox(env, {**os.environ, "UV_CACHE_DIR": cache}, file)
            size = _size(Path(cache), made)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    text = log.read_text(encoding="utf-8", errors="replace")
    took = time.monotonic() - started
    return Ran(env, status == 0, verdicts(report), tests(text), took, size / 1e9)


def _tox(env: str, environ: dict[str, str], log: TextIO) -> int:
    """The exit status of tox; if this script is interrupted, tox and its children are ended."""
    words = [*TOX, "run", "-e", env]
    tox = subprocess.Popen(
        words, cwd=ROOT, env=environ, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        return tox.wait()
    except BaseException:
        os.killpg(tox.pid, signal.SIGTERM)
        tox.wait()
        raise


def verdicts(report: Path) -> str:
    """How many pairs have each verdict in the results of `check`."""
    try:
        rows = json.loads(report.read_text(encoding="utf-8"))["results"]
    except OSError:
        return "did not run"
    return ", ".join(f"{n} {verdict}" for verdict, n in Counter(r["verdict"] for r in rows).items())


def tests(text: str) -> str:
    """The last line of pytest's output, without the time.

    >>> tests("=== 1 failed, 12 passed in 3.21s ===")
    '1 failed, 12 passed'
    """
    found = re.findall(r"^=+ (.*(?:passed|failed|error).*) in .* =+$", text, re.MULTILINE)
    return found[-1] if found else "did not run"


def _size(*folders: Path) -> int:
    """The size of the folders in bytes; a file with hard links in several counts once."""
    seen = {}
    for folder in folders:
        for path in folder.rglob("*"):
            state = path.lstat()
            seen[state.st_ino] = state.st_blocks * 512
    return sum(seen.values())


def table(all_ran: Sequence[Ran]) -> Table:
    """A table with a row for each environment."""
    grid = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="")
    for name in ("env", "", "check", "tests", "min", "GB"):
        grid.add_column(name, justify="right" if name in ("min", "GB") else "left")
    for ran in all_ran:
        took, size = f"{ran.seconds / 60:.1f}", f"{ran.gigabytes:.1f}"
        state = "green" if ran.green else "[bold red]RED[/]"
        grid.add_row(ran.env, state, ran.verdicts, ran.tests, took, size)
    return grid


@click.command(help=__doc__)
@click.argument("envs", metavar="[ENV]...", nargs=-1)
def command(envs: Sequence[str]) -> int:
    """Run the environments and print a table; the help text is the module's docstring."""
    full = envs_of("full")
    for env in envs:
        if env not in full:
            raise click.UsageError(f"{env!r} is not one of {', '.join(full)}")
    RESULTS.mkdir(parents=True, exist_ok=True)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    all_ran = []
    for env in envs or full:
        all_ran.append(run(env))
        took = f"{all_ran[-1].seconds / 60:.1f} min"
        console.print(f"{env}: {'green' if all_ran[-1].green else 'RED'}, {took}")
    console.print()
    console.print(table(all_ran))
    console.print(f"\nResults and logs: {RESULTS}")
    return GREEN if all(ran.green for ran in all_ran) else RED


def main() -> None:
    """Run the command; SIGTERM cleans up like Ctrl-C."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        sys.exit(command.main(standalone_mode=False))
    except click.ClickException as error:
        click.echo(f"error: {error.format_message()}", err=True)
        sys.exit(FAILED)
    except (KeyboardInterrupt, click.Abort):
        sys.exit(130)


if __name__ == "__main__":
    main()
