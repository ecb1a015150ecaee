"""The pytest plugin: a test for each pair of subject and check, and reports instead of tracebacks.

::

    from harness import Subject, parametrize_with_checks

    @parametrize_with_checks([MyScheduler, Subject("warm", build=..., options={...})])
    def test_survives_a_checkpoint(subject, check):
        check(subject)

=========  =====================================================================================
HOLDS      passes
BROKEN     fails and shows the report
STALE      fails and says which ledger entry is wrong
KNOWN      is an xfail with the ledger's reason, and where other failures were looked for; fails
           with ``--runxfail``
DECLINED   is a skip with its reason
UNKNOWN    is an error, as is a wrong argument
=========  =====================================================================================

A test that calls ``check_scheduler`` shows the same reports, and one that calls
``check_training`` shows the report of ``train``: it passes if the verdict is HOLDS, and is an error
if it is UNKNOWN. ``--full-trace`` and ``--tb=native``
show tracebacks. Below the tests, ``looked at:`` says at which epochs and with which optimizers the
pairs that hold were checked; ``-v`` says it for each pair. In ``--junitxml`` each pair has the
properties ``subject``, ``check``, ``verdict``, ``tried``, ``looked_at`` and ``reason``, and a
failure also has ``trace`` and ``replay``.

The options are those of ``lr-resume-harness check``, with ``lr-`` before their names, because all
plugins share their options: ``--lr-ledger FILE``, ``--lr-no-ledger``, ``--lr-max-examples N``,
``--lr-seed N``, ``--lr-time-limit SECONDS``, ``--lr-all-checks``. Each has an ini key, such as
``lr_seed``. An argument in a test comes first, then the option, then the key, then the table
``[tool.lr-resume-harness]`` of pyproject.toml (`harness.core.project`). ``--lr-ledger`` adds to the
files of both; ``--lr-all-checks`` adds nothing to a test that names its checks.

`parametrize_with_checks` reads the ledgers that installed packages ship. ``check_scheduler`` reads
only your own files (its argument ``ledger``, or ``--lr-ledger``, or the key), because a test that
passes can't show a known failure.

`lr_resume_harness.pytest_plugin` is loaded by pytest, and registers this module when a test, a
conftest.py or an option uses the harness; until then it imports nothing but pytest. In a project
that has its own package called ``harness``, it steps back with a warning.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

from harness import __version__, settings
from harness.core.errors import CheckError, HarnessError, LedgerError, ProjectError
from harness.core.project import read_project
from harness.parametrize import forget_run, ledger_of
from harness.settings import Settings

if TYPE_CHECKING:
    from harness.core.result import Result
    from harness.training.result import TrainingResult

NUMBERS: dict[str, tuple[Callable[[str], float], str]] = {
    "max_examples": (int, "a whole number, 0 or more"),
    "seed": (int, "a whole number"),
    "time_limit": (float, "a number of seconds, more than 0 and at most 86400"),
}
FLAGS = ("all_checks", "no_ledger")

Report: TypeAlias = pytest.CollectReport | pytest.TestReport
_BEFORE = pytest.StashKey[Settings]()


def start(config: pytest.Config) -> None:
    """Take the settings of this run from options and ini keys."""
    config.stash[_BEFORE] = settings.current
    settings.current, settings.unreported = _settings_of(config), []


def stop(config: pytest.Config) -> None:
    """Restore the settings from before this run."""
    settings.current, settings.unreported = config.stash.get(_BEFORE, Settings()), None
    forget_run()


def _settings_of(config: pytest.Config) -> Settings:
    """The settings in options and ini keys; raises `pytest.UsageError`."""
    try:
        project = read_project(config.rootpath)
    except ProjectError as error:
        raise pytest.UsageError(str(error)) from None
    ini: dict[str, Any] = {}
    for name in (*NUMBERS, *FLAGS, "ledger"):
        try:
            ini[name] = config.getini(f"lr_{name}")
        except (TypeError, ValueError, pytest.UsageError) as error:
            raise pytest.UsageError(f"the ini key lr_{name}: {error}") from None
    given = {name: config.getoption(f"lr_{name}", None) for name in ini}
    found: dict[str, Any] = {name: bool(given[name] or ini[name]) for name in FLAGS}
    found["all_checks"] = found["all_checks"] or bool(project.all_checks)
    for name, (convert, what) in NUMBERS.items():
        for text, where in (
            (given[name], f"--lr-{name.replace('_', '-')}"),
            (ini[name], f"the ini key lr_{name}"),
        ):
            if text not in (None, "") and name not in found:
                try:
                    found[name] = convert(text)
                    Settings(**{name: found[name]})
                except (ValueError, CheckError):
                    raise pytest.UsageError(f"{where} must be {what} (got {text!r})") from None
        if name not in found and getattr(project, name) is not None:
            found[name] = getattr(project, name)
    files = [config.invocation_params.dir / file for file in given["ledger"] or ()]
    if found["no_ledger"] and files:
        raise pytest.UsageError("--lr-no-ledger can't be combined with --lr-ledger")
    # A worker of pytest-xdist gets each file twice: from its controller and from the command line.
    found["ledgers"] = tuple(dict.fromkeys([*project.ledgers, *ini["ledger"], *files]))
    for file in () if found["no_ledger"] else found["ledgers"]:
        if not file.is_file():
            raise pytest.UsageError(f"cannot read the ledger {file}: no such file")
    return Settings(**found, project=project)


# ------------------------------------------------------------------------------------ header


def pytest_report_collectionfinish(config: pytest.Config) -> list[str]:
    """The header, after the number of items: only now we know if any test uses the harness."""
    if config.getoption("verbose", 0) < 0:
        return []
    try:
        return _header()
    except LedgerError as error:
        raise pytest.UsageError(str(error)) from None


def pytest_collection_finish(session: pytest.Session) -> None:
    """In a worker of pytest-xdist, send the header to the controller."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        try:
            output["lr_resume_header"] = _header()
        except LedgerError as error:
            output["lr_resume_header"] = [f"error: {error}"]


def print_summary(terminalreporter: pytest.TerminalReporter, headers: Sequence[str]) -> None:
    """Print the header that workers sent, and where the pairs that hold were looked at."""
    for line in headers:
        terminalreporter.write_line(line)
    reports = [report for several in terminalreporter.stats.values() for report in several]
    for line in (one for report in reports for one in getattr(report, "lr_resume_trained", [])):
        terminalreporter.write_line(f"lr-resume-harness: {line}")
    sent = [one for report in reports for one in getattr(report, "lr_resume_looked", [])]
    if not sent:
        return
    from harness.core.run import Looked
    from harness.report.text import looked_at

    verbose = terminalreporter.config.getoption("verbose", 0) > 0
    looked = [Looked(frozenset(epochs), frozenset(map(tuple, used))) for _, epochs, used in sent]
    for (pair, _, _), here in zip(sent, looked, strict=True) if verbose else ():
        terminalreporter.write_line(f"{pair}: looked at: {here}")
    for line in looked_at(looked):
        terminalreporter.write_line(f"lr-resume-harness: {line}")


def _header() -> list[str]:
    """Versions, seed and ledgers, if any test uses the harness."""
    if "harness.checks.registry" not in sys.modules:
        return []
    import torch

    current = settings.current
    first = f"lr-resume-harness: {__version__}, torch {torch.__version__}, seed {current.seed}"
    if current.no_ledger:
        return [f"{first}, no ledger"]
    from harness.subjects.installed import shipped_ledgers

    places = Counter(entry.place.rpartition(":")[0] for entry in ledger_of(current).entries)
    files = {f"{one.name}'s": one.path for one in shipped_ledgers()}
    files |= {str(file): file for file in current.files}
    counts = {name: places[str(file)] for name, file in files.items()}
    ledgers = [f"{name} ({n} {'entry' if n == 1 else 'entries'})" for name, n in counts.items()]
    return [f"{first}, ledger {', '.join(ledgers)}"]


# ----------------------------------------------------------------------------------- reports


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Give an item its properties, and show the report instead of a traceback through our code."""
    finished, settings.unreported = settings.unreported or [], []
    trained, settings.unreported_training = settings.unreported_training, []
    item.user_properties += [pair for result in trained for pair in _training_properties(result)]
    for results in finished:
        if len(results) == 1:
            item.user_properties += _properties(results[0])
    report = yield
    report.lr_resume_trained = [  # type: ignore[attr-defined]
        line for result in trained if result.verdict == "HOLDS" for line in _training_lines(result)
    ]
    report.lr_resume_looked = [  # type: ignore[attr-defined]  # pytest-xdist sends plain values
        (f"{result.subject}: {result.check}", sorted(looked.epochs), sorted(looked.optimizers))
        for results in finished
        for result in results
        if (looked := result.tally.looked).epochs and result.verdict == "HOLDS"
    ]
    place = getattr(getattr(item, "obj", None), "lr_resume_place", None)
    shorten_report(report, call.excinfo, item.config, place)
    return report


def shorten_report(
    report: Report,
    excinfo: pytest.ExceptionInfo[BaseException] | None,
    config: pytest.Config,
    place: tuple[str, int] | None = None,
) -> None:
    """Show our report instead of a traceback through our code, if the error is ours.

    `place` is the line of the test if no frame of it called us: see `harness.stateful`.
    """
    if report.failed and excinfo is not None and _mark(report, excinfo.value):
        _shorten(report, excinfo, config, place)
        if isinstance(report, pytest.TestReport) and not isinstance(excinfo.value, HarnessError):
            path, colon, rest = str(report.nodeid).partition("::")
            here = os.path.relpath(config.rootpath / path, config.invocation_params.dir)
            _add_line(report.longrepr, f"    pytest {shlex.quote(here + colon + rest)}")


def _properties(result: Result) -> list[tuple[str, str]]:
    """The properties of a pair in ``--junitxml``: plain strings, which pytest-xdist can send."""
    from harness.report.text import replay_command, tried_text

    looked = result.tally.looked
    properties = {
        "subject": result.subject,
        "check": result.check,
        "verdict": result.verdict,
        "tried": tried_text([result]),
        "looked_at": looked if looked.epochs else "",
        "reason": result.reason,
    }
    if result.counterexample is not None:
        trace = str(result.counterexample.trace)
        properties |= {"trace": trace, "replay": replay_command(result, trace)}
    return [(name, str(text)) for name, text in properties.items() if text]


def _training_properties(result: TrainingResult) -> list[tuple[str, str]]:
    """The properties of a training script in ``--junitxml``."""
    from harness.training.text import script_name

    properties = {
        "subject": script_name(result.command),
        "check": "train",
        "verdict": str(result.verdict),
        "reason": result.reason,
    }
    return [(name, text) for name, text in properties.items() if text]


def _training_lines(result: TrainingResult) -> list[str]:
    """What a test says of a script that holds: how much was tried, and what else was seen."""
    from harness.training.text import other_lines, summary

    return [summary(result), *(line.strip() for line in other_lines(result))]


def _mark(report: Report, error: BaseException) -> bool:
    """Whether our code raised `error`. A `HarnessError` is marked in the report, as an error."""
    if isinstance(error, HarnessError):
        report.lr_resume_is_error = True  # type: ignore[union-attr]
        return True
    broken = (
        ("harness.core.result", "BrokenSchedule"),
        ("harness.training.result", "BrokenTraining"),
    )
    return any(
        module in sys.modules and isinstance(error, getattr(sys.modules[module], name))
        for module, name in broken
    )


def _add_line(shown: object, line: str) -> None:
    """Add a line below the report of a failure."""
    entries = getattr(getattr(shown, "reprtraceback", None), "reprentries", [])
    for entry in entries[-1:]:
        if entry.lines:
            entry.lines.append(line)


def _shorten(
    report: Report,
    excinfo: pytest.ExceptionInfo[BaseException],
    config: pytest.Config,
    place: tuple[str, int] | None,
) -> None:
    """Show an exception of our code by its text and its line in the user's test."""
    if config.getoption("fulltrace", False) or config.getoption("tbstyle", "auto") == "native":
        return
    for depth, entry in enumerate(excinfo.traceback):
        if str(entry.frame.f_globals.get("__name__")).partition(".")[0] == "harness" and depth:
            excinfo.traceback = excinfo.traceback[:depth]
            break
    shown = excinfo.getrepr(style="value", chain=False)
    crash = shown.reprcrash
    if crash is not None:
        crash.message, *more = str(excinfo.value).splitlines()
        if place is not None:
            crash.path, crash.lineno = place
        here, path = config.invocation_params.dir, Path(crash.path)
        crash.path = str(path.relative_to(here) if path.is_relative_to(here) else path)
        for block in shown.reprtraceback.reprentries:
            block.reprfileloc = crash  # type: ignore[union-attr]
            block.lines = block.lines if more else []
    report.longrepr = shown
