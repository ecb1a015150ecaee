"""The part of the pytest plugin that is always loaded.

It imports nothing of `harness` until a test, a conftest.py or an option does, so a project that
does not use it pays nothing, and a project with its own package called ``harness`` keeps it. Then
it registers the rest, `harness.pytest_plugin`, which describes the outcomes and the options.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lr_resume_harness import PLACE
from lr_resume_harness.help import HELP

NUMBERS = {"max_examples": "N", "seed": "N", "time_limit": "SECONDS"}
FLAGS = ("all_checks", "no_ledger")
NAMES = (*NUMBERS, *FLAGS, "ledger")
"""Each is an option such as ``--lr-seed`` and an ini key such as ``lr_seed``."""
OURS = PLACE / "harness"


@dataclass
class Run:
    """A run of pytest: whether the harness is used in it, and the headers that workers sent."""

    config: pytest.Config
    used: bool = False
    headers: list[str] = field(default_factory=list)


runs: list[Run] = []
"""The runs that have begun: one, unless a test runs pytest in this process."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options and the ini keys."""
    group = parser.getgroup("lr-resume-harness", "lr-resume-harness")
    for name, metavar in NUMBERS.items():
        group.addoption(_option(name), dest=f"lr_{name}", metavar=metavar, help=HELP[name])
        parser.addini(f"lr_{name}", HELP[name], default="")
    for name in FLAGS:
        group.addoption(
            _option(name), dest=f"lr_{name}", action="store_true", help=HELP[name], default=False
        )
        parser.addini(f"lr_{name}", HELP[name], type="bool", default=False)
    group.addoption("--lr-ledger", metavar="FILE", action="append", help=HELP["ledger"], default=[])
    parser.addini("lr_ledger", HELP["ledger"], type="paths", default=[])


def _option(name: str) -> str:
    return f"--lr-{name.replace('_', '-')}"


def pytest_configure(config: pytest.Config) -> None:
    """Begin a run; warn if this project has its own package called ``harness``."""
    runs.append(Run(config))
    if other := _other_harness():
        text = (
            f"lr-resume-harness is not used here, because {other} comes first where Python looks "
            "for its package 'harness': the command lr-resume-harness works; to silence this, run "
            f"pytest with -p no:{__name__}"
        )
        try:
            if not hasattr(config, "workerinput"):  # a worker of pytest-xdist
                config.issue_config_time_warning(pytest.PytestConfigWarning(text), stacklevel=2)
        except pytest.PytestConfigWarning:  # -W error
            sys.stderr.write(f"warning: {text}\n")
    elif _loaded("harness.settings") or _asked(config):
        use_harness()


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the run."""
    if runs and runs[-1].config is config:
        run = runs.pop()
        if run.used:
            _plugin().stop(config)


def use_harness() -> None:
    """Give our `harness` the settings of this run; its module of settings calls this too."""
    if runs and not runs[-1].used:
        runs[-1].used = True  # first: the plugin imports the settings
        plugin, manager = _plugin(), runs[-1].config.pluginmanager
        plugin.start(runs[-1].config)
        if not manager.is_registered(plugin):
            manager.register(plugin, plugin.__name__)


def _plugin() -> Any:
    from harness import pytest_plugin

    return pytest_plugin


def _asked(config: pytest.Config) -> bool:
    """Whether an option or an ini key of ours is given."""
    try:
        values = [
            read(f"lr_{name}") for name in NAMES for read in (config.getoption, config.getini)
        ]
    except (TypeError, ValueError):  # a wrong value of a key: `start` explains it
        return True
    return any(value not in (None, "", False, []) for value in values)


def _loaded(name: str) -> ModuleType | None:
    """The module of ours called `name`, if it is imported."""
    module = sys.modules.get(name)
    file = getattr(module, "__file__", None) or ""
    return module if file and Path(file).resolve().is_relative_to(OURS) else None


def _other_harness() -> str:
    """The place of another package called ``harness`` that Python finds first, or ``""``."""
    try:
        spec = importlib.util.find_spec("harness")
    except (ImportError, ValueError):
        return ""
    if spec is None:
        return ""
    places = [*(spec.submodule_search_locations or ()), *filter(None, [spec.origin])]
    ours = any(Path(place).resolve().is_relative_to(OURS) for place in places)
    return "" if ours else str(places[0] if places else spec.name)


# ------------------------------------------------------------------------------- other hooks


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Keep the header of a worker of pytest-xdist, because the controller collects nothing."""
    header = getattr(node, "workeroutput", {}).get("lr_resume_header", [])
    if header and runs:
        runs[-1].headers = header


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the header that the workers sent, and where the pairs that hold were looked at."""
    if runs and (runs[-1].used or runs[-1].headers) and config.getoption("verbose", 0) >= 0:
        _plugin().print_summary(terminalreporter, runs[-1].headers)


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, Any, None]:
    """Show an error in a test module without a traceback through our code."""
    outcome = yield
    if runs and runs[-1].used:
        report = outcome.get_result()
        excinfo = getattr(getattr(report, "call", None), "excinfo", None)
        _plugin().shorten_report(report, excinfo, collector.config)


@pytest.hookimpl(tryfirst=True)
def pytest_report_teststatus(report: Any) -> tuple[str, str, str] | None:
    """Count an UNKNOWN verdict or a wrong argument as an error, not as a failure."""
    if report.failed and getattr(report, "lr_resume_is_error", False):
        return "error", "E", "ERROR"
    return None
