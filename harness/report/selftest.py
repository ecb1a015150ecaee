"""The report of the selftest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from harness.checks.registry import CHECKS
from harness.core.output import count
from harness.core.result import Found, grouped
from harness.engine.selftest import REQUIRED, Trial, enough, median_seconds
from harness.report.text import letters_of

if TYPE_CHECKING:
    from rich.table import Table

LEGEND = (
    "traces, s: traces tried and CPU seconds used, for all checks, until the first counterexample\n"
    "size: operations / steps of the counterexample"
)
LETTER_OF = letters_of(check.name for check in CHECKS)


def by_name(trials: Sequence[Trial]) -> dict[str, list[Trial]]:
    """The trials of every fault or control."""
    return grouped(trials, lambda trial: trial.name)


def line(trial: Trial) -> str:
    """A trial as one line; its complaints if it has any."""
    if not trial.exact:
        return "\n".join(trial.complaints())
    if not trial.expected:
        return f"{trial.name}: " + ("its checks are left out" if trial.is_fault else "no alarm")
    return f"{trial.name}: caught by {len(trial.caught_by)} of {len(trial.results)} checks tried"


def text(trials: Sequence[Trial], aside: Mapping[str, str], *, quick: bool) -> str:
    """What is printed below the table: its legend, the complaints, and the totals."""
    lines = ["", LEGEND, *(f"{letter} {name}" for name, letter in LETTER_OF.items()), ""]
    for name, reason in aside.items():
        lines.append(f"left out, because this torch can't run it: {name}: {reason}")
    for trial in trials:
        lines += trial.complaints()
    for name, several in by_name(trials).items():
        exact = sum(trial.exact for trial in several)
        if len(several) > 1 and not enough(several):
            lines.append(
                f"{name}: as expected with {exact} of {count(len(several), 'seed')}, "
                f"needed {REQUIRED:.0%} and no false alarm"
            )
    return "\n".join([*lines, summary(trials, quick=quick)])


def table(trials: Sequence[Trial]) -> Table:
    """The faults as a table: which checks caught each, how, when, and with how small a trace."""
    from rich.table import Table

    grid = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="")
    grid.add_column("fault", no_wrap=True)
    grid.add_column("caught by", no_wrap=True)
    grid.add_column("found by", no_wrap=True)
    for title in ("traces", "s", "size", "exact"):
        grid.add_column(title, no_wrap=True, justify="right", min_width=len(title) + 1)
    for name, several in by_name([trial for trial in trials if trial.expected]).items():
        found = next((trial for trial in several if trial.found), several[0])
        letters = "".join(LETTER_OF.get(check, "?") for check in found.caught_by)
        exact = f"{sum(trial.exact for trial in several)}/{len(several)}"
        style = "" if enough(several) else "bold red"
        grid.add_row(name, letters, *_found(found), exact, style=style)
    return grid


def _found(trial: Trial) -> tuple[str, str, str, str]:
    """What caught a fault first, after how many traces and seconds, and the size of the trace."""
    found, first = trial.found, trial.first
    if not isinstance(found, Found) or first is None or first.counterexample is None:
        return "not caught", "", "", ""
    trace = first.counterexample.trace
    size = f"{len(trace.operations)}/{trace.steps}"
    return found.by, str(found.traces), f"{found.seconds:.2f}", size


def summary(trials: Sequence[Trial], *, quick: bool) -> str:
    """The totals in a few lines."""
    faults = by_name([trial for trial in trials if trial.expected])
    controls = by_name([trial for trial in trials if not trial.is_fault])
    caught = sum(map(enough, faults.values()))
    swept = sum(several[0].swept for several in faults.values())
    searched = sum(bool(t[0].found) and not t[0].swept for t in faults.values())
    silent = sum(map(enough, controls.values()))
    results = [result for trial in trials if not trial.is_fault for result in trial.results]
    alone = "" if quick else " alone"  # one check does not show that
    seeds = len({trial.seed for trial in trials})
    how = "the first of their checks" if quick else "exactly the checks in their records"
    often = f" with {REQUIRED:.0%} of {seeds} seeds" if seeds > 1 else ""
    lines = [
        f"torch {torch.__version__}: {caught} of {len(faults)} faults caught by {how}{often}, "
        f"{swept} by the sweep and {searched} by the search{alone}",
        f"median until caught: {median_seconds(trials):.2f} s of CPU",
        f"{silent} of {len(controls)} controls without an alarm "
        f"({sum(result.tally.traces for result in results)} traces, "
        f"{sum(result.tally.resumes for result in results)} resumes)",
    ]
    without = {trial.name for trial in trials if trial.is_fault} - set(faults)
    if without:
        lines.append(f"not tried, because their checks are left out: {', '.join(sorted(without))}")
    if quick:
        lines.append("quick: other checks were not tried, so they may raise a false alarm")
    return "\n".join(lines)


def status(trials: Sequence[Trial]) -> int:
    """The exit status: 0; 1 if a trial is not as expected; 2 if one could not decide."""
    named = by_name(trials).values()
    if any(trial.missed or trial.alarms or trial.problems for trial in trials):
        return 0 if all(map(enough, named)) else 1
    return 2 if any(trial.unknown for trial in trials) else 0
