"""Measures the cost of the harness, as ratios within one run.

    python scripts/bench.py

(a) CPU time to check one subject, divided by the CPU time of a bare torch loop.
    The loop makes the same torch calls: it builds the same optimizers and schedulers
    and makes the same gradients, steps, saves and resumes. It does not observe, copy
    or compare anything.
(b) Time to the first counterexample of StepLR's bug. It includes the import of the
    harness, but not the import of torch.
(c) How (a) grows with the length of the traces and the number of param groups.

Each ratio is the median of paired runs: the bare loop runs right after the check.
"""

from __future__ import annotations

import functools
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any
from unittest import mock

import click
import torch
from torch.optim.lr_scheduler import StepLR

from harness import Budget, Check, Subject, Trace
from harness.checks.registry import routes, select_checks
from harness.core import training_loop as loop
from harness.core.operations import BACK, BY_WORD, unpath, with_groups
from harness.core.training_loop import new_sgd
from harness.engine.machine import ROUNDS
from harness.engine.one_run import Outcome, Reference, Runner, TraceRun
from harness.engine.option_sets import lacking
from harness.engine.search import find
from harness.engine.session import SubjectSession
from harness.engine.trials import Limit, Trials

SUBJECT = Subject("StepLR", StepLR, options={"step_size": 5, "gamma": 0.5})
HOLDING = [
    check
    for check in select_checks()
    if check.kind == "resume"
    and check.name != "resume_by_last_epoch"
    and not any(map(lacking, check.needs))
]
WAYS = [check for check in HOLDING if check.at in BACK and not check.mixes]
PLAIN = "resume_optimizer_then_scheduler"

FIRST_COUNTEREXAMPLE = """
import time, torch
from torch.optim.lr_scheduler import StepLR
torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)  # imports the rest of torch
start = time.perf_counter()
from harness import BrokenSchedule, check_scheduler
try:
    check_scheduler(StepLR, step_size=3, gamma=0.5, checks=["resume_by_last_epoch"])
except BrokenSchedule as found:
    print(time.perf_counter() - start, found.results[0].counterexample.trace)
"""


class Recorder:
    """Records every run of a check, to repeat them without the harness."""

    def __init__(self) -> None:
        self.runs: list[tuple[Check | None, Trace]] = []
        self.go, self.uninterrupted = TraceRun.go, Runner._uninterrupted

    def __enter__(self) -> Recorder:
        def go(run: TraceRun) -> Outcome:
            outcome = self.go(run)
            self.runs.append((run.check, run.trace))
            return outcome

        def uninterrupted(runner: Runner, path: str) -> Reference:
            self.runs.append((None, Trace(tuple(unpath(path)))))
            return self.uninterrupted(runner, path)

        TraceRun.go = go  # type: ignore[assignment,method-assign]
        Runner._uninterrupted = uninterrupted  # type: ignore[assignment,method-assign]
        return self

    def __exit__(self, *error: object) -> None:
        TraceRun.go, Runner._uninterrupted = self.go, self.uninterrupted  # type: ignore[method-assign]


def bare(runs: list[tuple[Check | None, Trace]], subject: Subject) -> None:
    """Make only the torch calls of these runs; checkpoints are not copied either."""
    with mock.patch.object(loop, "snapshot", lambda state: state):
        _bare(runs, subject)


def _bare(runs: list[tuple[Check | None, Trace]], subject: Subject) -> None:
    build = functools.partial(subject.build, **subject.options)
    new_optimizer = subject.bind({}).new_optimizer
    for check, trace in runs:
        ways = routes(check, trace) if check is not None else [None] * len(trace.operations)
        optimizer = new_optimizer()
        scheduler = build(optimizer)
        slots: dict[str, Any] = {}
        index = epoch = groups = 0
        for operation, way in zip(trace.operations, ways, strict=True):
            if operation.kind == "save":
                assert check is not None  # an uninterrupted run has no saves
                saves = {w.save for w in ways if w} if check.mixes else {check.save}
                slots[operation.slot] = (
                    index, epoch, groups,
                    {save: save(optimizer, scheduler, epoch) for save in saves},
                )  # fmt: skip
            at_save = check is not None and check.at == "save" and operation.kind == "save"
            if way is not None and (operation.kind in BACK or at_save):
                index, epoch, groups, checkpoints = slots[operation.slot]
                checkpoint = checkpoints[way.save]
                has = {
                    "new_optimizer": new_optimizer,
                    "build": build,
                    "checkpoint": way.load(checkpoint) if way.load else checkpoint,
                    "optimizer": optimizer,
                    "scheduler": scheduler,
                }
                if groups:
                    more = functools.partial(with_groups, new_optimizer, groups)
                    has["new_optimizer"] = more
                optimizer, scheduler = way.function(**{name: has[name] for name in way.parameters})
            if operation.count:
                kind = BY_WORD[operation.kind]
                for _ in range(operation.count):
                    kind.perform(optimizer, scheduler, index, epoch, subject.step)
                    index += kind.gradients
                    epoch += kind.epochs
                    groups += kind.adds_group


def cpu(function: Callable[[], object]) -> float:
    """CPU seconds of a call."""
    start = time.process_time()
    function()
    return time.process_time() - start


def work(subject: Subject, checks: Sequence[Check], phase: str) -> None:
    """Run the sweep of these checks, or their search; `phase` says which."""
    sweeps = phase == "sweep"
    budget = Budget(max_examples=0 if sweeps else 25, time_limit=600, sweep=sweeps)
    ROUNDS.clear()
    session = SubjectSession(subject, (), budget)
    limit = Limit(subject, budget.time_limit)
    for check in checks:
        trials = Trials(session.runners, check, limit)
        with limit.on():
            found = find(trials, session.prepared.option_sets, WAYS, budget)
        if found is not None:
            raise SystemExit(f"{check.name} is broken by {found.trace}: nothing to measure")


def ratio(subject: Subject, checks: Sequence[Check], phase: str, repeats: int) -> tuple[float, int]:
    """CPU time of a phase divided by the CPU time of the bare loop; and the number of steps."""
    with Recorder() as recorder:
        work(subject, checks, phase)
    ratios = []
    for _ in range(repeats):
        checked = cpu(lambda: work(subject, checks, phase))
        ratios.append(checked / cpu(lambda: bare(recorder.runs, subject)))
    return statistics.median(ratios), sum(trace.steps for _, trace in recorder.runs)


def groups_of(count: int) -> Callable[[], torch.optim.Optimizer]:
    """A function that makes an optimizer with `count` param groups."""

    def optimizer() -> torch.optim.Optimizer:
        made = new_sgd()
        for number in range(count - 2):
            parameter = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
            made.add_param_group({"params": [parameter], "lr": 0.1 / (number + 1)})
        return made

    return optimizer


@click.command()
@click.option("--repeats", default=5, show_default=True, help="Paired runs for each ratio.")
def main(repeats: int) -> None:
    """Print the ratios."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, Python {sys.version.split()[0]}")
    print("\n(a) CPU time of a check / CPU time of a bare loop with the same torch calls")
    print(f"{'':34} sweep  search")
    for checks in [*([check] for check in HOLDING), HOLDING]:
        sweep, _ = ratio(SUBJECT, checks, "sweep", repeats)
        search, _ = ratio(SUBJECT, checks, "search", repeats)
        name = checks[0].name if len(checks) == 1 else "all of these, one after the other"
        print(f"{name:34} {sweep:5.2f}  {search:6.2f}")

    print("\n(b) time to the first counterexample, without the import of torch")
    for _ in range(repeats):
        command = [sys.executable, "-W", "ignore", "-c", FIRST_COUNTEREXAMPLE]
        print(
            "   ",
            subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip(),
        )

    [check] = [check for check in HOLDING if check.name == PLAIN]
    print(f"\n(c) growth of (a), for {check.name}")
    print("epochs of the plain run   steps made   sweep  search")
    for length in (6, 12, 24, 48):
        longer = replace(SUBJECT, length=length)
        sweep, steps = ratio(longer, [check], "sweep", repeats)
        search, more = ratio(longer, [check], "search", repeats)
        print(f"{length:23}   {steps + more:10}   {sweep:5.2f}  {search:6.2f}")
    print("param groups              steps made   sweep  search")
    for groups in (2, 4, 8, 16, 32):
        wider = replace(SUBJECT, optimizer=groups_of(groups))
        sweep, steps = ratio(wider, [check], "sweep", repeats)
        search, more = ratio(wider, [check], "search", repeats)
        print(f"{groups:23}   {steps + more:10}   {sweep:5.2f}  {search:6.2f}")


if __name__ == "__main__":
    main()
