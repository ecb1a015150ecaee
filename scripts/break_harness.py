"""Breaks the harness, one function at a time, and checks that a test fails each time.

    python scripts/break_harness.py [NAME ...]

Each edit of ``scripts/harness_edits.py`` replaces one function of the harness by one that
misbehaves, while the test that the edit names runs. The exit status is 1 if an edit survives, if
the function that it replaces is gone, if its test fails without the edit, or if the edit's own
code can't be run: then its test may fail for that alone. A NAME is a part of an edit's name. For
mechanical changes, such as ``<`` in place of ``<=``, see ``mutation.toml``.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import io
import multiprocessing
import os
import pkgutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click
import harness_edits
import pytest
from harness_edits import EDITS, Edit

ROOT = Path(__file__).resolve().parent.parent
START = """import sys
sys.path.insert(0, {scripts!r})
import harness_edits
del sys.path[0]
harness_edits.install({number}, {mistakes!r})
"""
"""Python runs a module called ``sitecustomize`` before anything else, in subprocesses too."""


def why_impossible(edit: Edit) -> str:
    """Why the edit can't be made; empty if it can."""
    try:
        original = pkgutil.resolve_name(edit.target)
    except (AttributeError, ImportError):
        return f"{edit.target} is not in the harness"
    if text := harness_edits.why_not_callable(edit, original):
        return text
    found = files_with(edit.test)
    return "" if len(found) == 1 else f"{edit.test} is in {len(found)} files of tests/, not in one"


def files_with(test: str) -> list[Path]:
    """The test files that define this test."""
    definition = f"def {test.partition('[')[0]}("
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    return [file for file in files if definition in file.read_text()]


def node_of(test: str) -> str:
    """The test as an argument of pytest."""
    return f"{files_with(test)[0].relative_to(ROOT)}::{test}"


def run_tests(tests: Sequence[str], number: int | None = None) -> tuple[int, str, str]:
    """The exit status of pytest, the end of its output, and what the code of the edit raises.

    Edit `number`, if given, stays in this process, and is made in the processes that it starts.
    """
    printed = io.StringIO()
    # The parent has imported Hypothesis, whose own assertions are of no interest.
    ignored = "ignore::pytest.PytestAssertRewriteWarning"
    command = ["-q", "-x", "-p", "no:cacheprovider", "-W", ignored, *tests]
    with tempfile.TemporaryDirectory() as folder:
        mistakes = Path(folder, "mistakes.txt")
        if number is not None:
            text = START.format(
                scripts=str(ROOT / "scripts"), number=number, mistakes=str(mistakes)
            )
            Path(folder, "sitecustomize.py").write_text(text)
            harness_edits.install(number, mistakes)
        sys.path[:0] = [folder, str(ROOT)]  # a test may hand them on
        path = os.pathsep.join([*sys.path[:2], os.environ.get("PYTHONPATH", "")])
        os.environ["PYTHONPATH"] = path.rstrip(os.pathsep)
        os.chdir(ROOT)
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            status = int(pytest.main(command))
        mistake = mistakes.read_text()[-2000:] if mistakes.exists() else ""
    return status, printed.getvalue()[-2000:], mistake


def why_unnoticed(edit: Edit) -> str:
    """Why the edit counts as unnoticed; empty if its test fails."""
    status, output, mistake = run_tests([node_of(edit.test)], EDITS.index(edit))
    if status == pytest.ExitCode.OK:
        return f"it survives {edit.test}"
    if status != pytest.ExitCode.TESTS_FAILED:
        return f"{edit.test} could not be run:\n{output}"
    return f"the edit's own code raises:\n{mistake}" if mistake else ""


def pool(jobs: int) -> concurrent.futures.Executor:
    """Processes that each do one task, forked from one that has imported all but the harness."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["hypothesis.stateful", "pytest", "torch"])
    return concurrent.futures.ProcessPoolExecutor(jobs, context, max_tasks_per_child=1)


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--jobs", type=click.IntRange(min=1), default=os.cpu_count() or 1,
              show_default="all cores", help="How many edits to try at a time.")  # fmt: skip
def main(names: tuple[str, ...], jobs: int) -> None:
    """Break the harness with each edit, and check that a test notices."""
    edits = [edit for edit in EDITS if not names or any(name in edit.name for name in names)]
    if not edits:
        raise click.UsageError(f"no edit's name contains {' or '.join(map(repr, names))}")
    with pool(jobs) as processes:
        # in a child, because resolving a target imports the harness
        found = zip(edits, processes.map(why_impossible, edits, chunksize=len(edits)), strict=True)
        problems = [f"{edit.name}: {text}" for edit, text in found if text]
        if not problems:
            tests = list(dict.fromkeys(node_of(edit.test) for edit in edits))
            status, output, _ = processes.submit(run_tests, tests).result()
            if status:
                problems.append(f"the tests fail, or can't be run, without any edit:\n{output}")
        if not problems:
            for edit, text in zip(edits, processes.map(why_unnoticed, edits), strict=True):
                click.echo(f"{'PROBLEM ' if text else 'noticed '} {edit.name}")
                if text:
                    problems.append(f"{edit.name}: {text}")
    for text in problems:
        click.echo(text, err=True)
    click.echo(f"{len(edits)} edits, {len(problems)} problems")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
