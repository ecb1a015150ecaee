"""Measures the cost of the harness, as ratios within one run.

    python scripts/bench.py [SUBJECT ...] [--against FOLDER]
    python scripts/bench.py train

(a) For each subject: CPU time to check it with the default checks, divided by the CPU time of a
    bare loop that makes the same torch calls. The loop builds the same optimizers and schedulers,
    and makes the same gradients, steps, saves, copies, resumes and calls of state checks. It does
    not draw, observe or compare anything. And waste: the steps made, divided by the steps that
    would be left if runs with the same beginning shared it.
(b) Time to the first counterexample of StepLR's bug. It includes the import of the harness, but not
    the import of torch.
(c) How (a) grows with the length of the traces and the number of param groups.
(d) With ``--against``: CPU time and wall time of ``check`` for these subjects, divided by those of
    the harness in another folder, such as a checkout of an older version.

``train`` measures the check of training scripts instead:

(e) CPU time of a step of a model with 1 M parameters that is recorded, with snapshots of a folder
    that does not change, divided by that of a step that is not.
(f) CPU time of ``train`` on a plain script with 24 steps and 8 checkpoints, divided by the CPU time
    of one run of the script.

Each ratio is the median of paired runs; which of the two comes first alternates.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import torch
from torch.optim.lr_scheduler import StepLR

from harness import Budget, Check, Subject, Trace
from harness.checks.registry import checks_used, select_checks
from harness.core.operations import BY_WORD, GO_BACK, is_needed_again, operations_of, with_groups
from harness.core.result import Result
from harness.core.training_loop import new_sgd, restore_parameters, snapshot
from harness.core.types import Checkpoint, OptimizerAndScheduler, Save, Scheduler
from harness.core.verdict import Reason
from harness.engine.machine import DRAWN_ROUNDS
from harness.engine.one_run import Outcome, Runner, TraceRun, UninterruptedRun
from harness.engine.session import SubjectSession
from harness.subjects.known_failures import known_failures
from harness.subjects.lookup import choose_subjects
from harness.training.injected import recorder
from harness.training.processes import make_run


@dataclass(frozen=True)
class RecordedRun:
    """A run: its runner, the check (None for an uninterrupted run), and the trace up to its end.

    `raises` says whether an exception may end it.
    """

    runner: Runner
    check: Check | None
    trace: Trace
    raises: bool


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
        self.runs: list[RecordedRun] = []
        self.go, self.uninterrupted = TraceRun.go, Runner._run_uninterrupted

    def __enter__(self) -> Recorder:
        def go(run: TraceRun) -> Outcome:
            outcome = self.go(run)
            difference = outcome.difference
            trace = (
                run.trace.until(difference.operation, difference.step) if difference else run.trace
            )
            raises = any(each.raises for each in run.uninterrupted) or bool(
                outcome.refused or (difference and "raises" in difference.actual)
            )
            self.runs.append(RecordedRun(run.runner, run.check, trace, raises))
            return outcome

        def uninterrupted(
            runner: Runner, path: str, goes_on: Callable[[Scheduler], bool] | None = None
        ) -> UninterruptedRun:
            run = self.uninterrupted(runner, path, goes_on)
            trace = Trace(tuple(operations_of(run.path)))
            self.runs.append(RecordedRun(runner, None, trace, bool(run.raises)))
            return run

        TraceRun.go = go  # type: ignore[assignment,method-assign]
        Runner._run_uninterrupted = uninterrupted  # type: ignore[assignment,method-assign]
        return self

    def __exit__(self, *error: object) -> None:
        TraceRun.go, Runner._run_uninterrupted = self.go, self.uninterrupted  # type: ignore[method-assign]


def bare(runs: Iterable[RecordedRun]) -> None:
    """Make only the torch calls of these runs, with the copies of what is saved."""
    for run in runs:
        expected = (Exception, SystemExit) if run.raises else ()
        with contextlib.suppress(*expected):
            _bare(run.runner, run.check, run.trace)


def _bare(runner: Runner, check: Check | None, trace: Trace) -> None:
    bound = runner.bound
    optimizer = runner.new_optimizer()
    scheduler = bound.build(optimizer)
    ways = checks_used(check, trace) if check is not None else []
    slots: dict[str, tuple[int, int, int, dict[Save, Checkpoint]]] = {}
    latest: Checkpoint | None = None
    index = epoch = groups = 0

    def call(way: Check, checkpoint: Checkpoint | None) -> Any:
        new_optimizer: Callable[[], Any] = runner.new_optimizer
        if groups:
            new_optimizer = functools.partial(with_groups, new_optimizer, groups)
        has = {
            "new_optimizer": new_optimizer, "build": bound.build, "step": bound.step,
            "checkpoint": checkpoint, "optimizer": optimizer, "scheduler": scheduler,
        }  # fmt: skip
        if "build_other" in way.parameters:
            has["build_other"] = bound.with_changed.build
        return way.function(**{name: has[name] for name in way.parameters})

    def resumed(way: Check, checkpoint: Checkpoint) -> OptimizerAndScheduler:
        pair: OptimizerAndScheduler = call(way, way.load(checkpoint) if way.load else checkpoint)
        restore_parameters(pair[0], checkpoint)
        return pair

    def look(moment: str) -> None:
        if check is None or check.compares != "values" or check.at != moment:
            return
        if "checkpoint" not in check.parameters or latest is not None:
            call(check, latest)

    look("step")
    for number, operation in enumerate(trace.operations):
        if operation.kind == "save" and check is not None:
            later = [
                way.save
                for op, way in zip(trace.operations[number:], ways[number:], strict=True)
                if op.kind in GO_BACK and op.slot == operation.slot
            ]
            saves: dict[Save, None] = dict.fromkeys(later if check.mixes else [check.save])
            saved = {save: save(optimizer, scheduler, epoch) for save in saves}
            slots[operation.slot] = index, epoch, groups, saved
            latest = saved.get(check.save)
            if check.at == "save" and check.compares == "values":
                look("save")
            elif check.at == "save":
                optimizer, scheduler = resumed(check, saved[check.save])
        elif operation.kind in GO_BACK:
            index, epoch, groups, saved = slots[operation.slot]
            way = ways[number]
            again = is_needed_again(trace.operations, number)
            optimizer, scheduler = resumed(
                way, snapshot(saved[way.save]) if again else saved[way.save]
            )
        for _ in range(operation.count):
            kind = BY_WORD[operation.kind]
            kind.perform(optimizer, scheduler, index, epoch, bound.step)
            index += kind.uses_gradient
            epoch += kind.steps_scheduler
            groups += kind.adds_group
            look("step")


def check_all(subject: Subject, checks: Sequence[Check], budget: Budget) -> list[Result]:
    """Check a subject as ``check`` does, with the ledgers that are installed; the results."""
    DRAWN_ROUNDS.clear()
    ledger = known_failures((), [subject], checks)
    session = SubjectSession(subject, (), budget, ledger=ledger)
    return [session.check(check) for check in checks]


def cpu(function: Callable[[], object]) -> float:
    """CPU seconds of a call."""
    start = time.process_time()
    function()
    return time.process_time() - start


def paired(
    first: Callable[[], float], second: Callable[[], float], repeats: int
) -> tuple[float, float]:
    """The median ratio of two measurements, and the median of the first; they alternate."""
    ratios, values = [], []
    for number in range(repeats):
        if number % 2:
            divisor, value = second(), first()
        else:
            value, divisor = first(), second()
        ratios.append(value / divisor)
        values.append(value)
    return statistics.median(ratios), statistics.median(values)


def steps_of(runs: Iterable[RecordedRun]) -> int:
    """How many steps these runs make."""
    return sum(run.trace.steps for run in runs)


def waste(runs: Sequence[RecordedRun]) -> float:
    """Steps made, divided by those that are left if runs of the same kind share beginnings."""
    beginnings: set[tuple[int, str, str]] = set()
    for run in runs:
        made, name = "", run.check.name if run.check else ""
        for operation in run.trace.operations:
            for _ in range(operation.count):
                made += f" {operation.kind}"
                beginnings.add((id(run.runner), name, made))
            if not operation.count:
                made += f" {operation}"
    return steps_of(runs) / max(len(beginnings), 1)


def measure(
    subject: Subject, checks: Sequence[Check], repeats: int, budget: Budget
) -> tuple[float, float, list[RecordedRun]]:
    """CPU time to check a subject over that of the bare loop, its seconds, and its runs."""
    with Recorder() as recorder:
        results = check_all(subject, checks, budget)
    for result in results:
        if result.why == Reason.HARNESS_ERROR:
            raise click.ClickException(f"{result.subject} {result.check}: {result.reason}")
    gc.collect()
    gc.freeze()  # a check does not hold these runs: no collection should look at them
    ratio, seconds = paired(
        lambda: cpu(lambda: check_all(subject, checks, budget)),
        lambda: cpu(lambda: bare(recorder.runs)),
        repeats,
    )
    gc.unfreeze()
    return ratio, seconds, recorder.runs


def of_each_subject(names: Sequence[str], repeats: int) -> None:
    """Print (a)."""
    print("\n(a) CPU time of a check / CPU time of a bare loop with the same torch calls; waste of")
    print("    steps in uninterrupted runs, and in those that the checks interrupt")
    print(f"{'':28}  ratio  seconds    steps  plain  interrupted")
    ratios, total = [], 0.0
    for subject in choose_subjects(names, {}).subjects:
        ratio, seconds, runs = measure(subject, select_checks(), repeats, Budget(time_limit=600))
        plain = [run for run in runs if run.check is None]
        others = [run for run in runs if run.check is not None]
        print(
            f"{subject.name:28}  {ratio:5.2f}  {seconds:7.2f}  {steps_of(runs):7}  "
            f"{waste(plain):5.2f}  {waste(others):11.2f}",
            flush=True,
        )
        ratios.append(ratio)
        total += seconds
    print(f"{'median, and sum':28}  {statistics.median(ratios):5.2f}  {total:7.2f}")


def groups_of(count: int) -> Callable[[], torch.optim.Optimizer]:
    """A function that makes an optimizer with `count` param groups."""

    def optimizer() -> torch.optim.Optimizer:
        made = new_sgd()
        for number in range(count - 2):
            parameter = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
            made.add_param_group({"params": [parameter], "lr": 0.1 / (number + 1)})
        return made

    return optimizer


def growth(repeats: int) -> None:
    """Print (c)."""
    [check] = select_checks(["resume_optimizer_then_scheduler"])
    subject = Subject("StepLR", StepLR, options={"step_size": 5, "gamma": 0.5})
    print(f"\n(c) growth of (a), for StepLR and {check.name}")
    for what, subjects in (
        ("epochs of the plain run", {n: replace(subject, length=n) for n in (6, 12, 24, 48)}),
        ("param groups", {n: replace(subject, optimizer=groups_of(n)) for n in (2, 4, 8, 16, 32)}),
    ):
        print(f"{what:24}   steps  ratio")
        for number, each in subjects.items():
            ratio, _, runs = measure(each, [check], repeats, Budget(time_limit=600))
            print(f"{number:24}  {steps_of(runs):6}  {ratio:5.2f}")


def time_of_check(folder: Path, names: Sequence[str], jobs: int | None) -> tuple[float, float]:
    """CPU and wall seconds of ``check`` with the harness in `folder`."""
    arguments = [*names, *([] if jobs is None else [f"--jobs={jobs}"])]
    environment = {**os.environ, "PYTHONPATH": str(folder.resolve())}
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "lr_resume_harness", "check", *arguments],
        env=environment, cwd=folder,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in (0, 1):
        raise click.ClickException(f"check in {folder} fails: {done.stderr[-500:]}")
    return sum(after[:2]) - sum(before[:2]), wall


def against(other: Path, names: Sequence[str], jobs: Sequence[int], repeats: int) -> None:
    """Print (d)."""
    here = Path(__file__).resolve().parent.parent
    takes_jobs = (other / "harness/engine/workers.py").exists()  # older versions have no --jobs
    print(f"\n(d) check, divided by check in {other}")
    for number in jobs:
        theirs = functools.partial(time_of_check, other, names, number if takes_jobs else None)
        ours = functools.partial(time_of_check, here, names, number)
        pairs = []
        for repeat in range(repeats):
            if repeat % 2:
                their, mine = theirs(), ours()
            else:
                mine, their = ours(), theirs()
            pairs.append((mine, their))
        cpus = statistics.median(mine[0] / their[0] for mine, their in pairs)
        walls = statistics.median(mine[1] / their[1] for mine, their in pairs)
        print(f"--jobs {number}: CPU {cpus:.2f}, wall {walls:.2f}", flush=True)


TRAIN = """
import os, torch
torch.manual_seed(0)
model = torch.nn.Linear(8, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 24)
parts, start = {"model": model, "optimizer": optimizer, "scheduler": scheduler}, 0
if os.path.exists("runs/last.pt"):
    saved = torch.load("runs/last.pt")
    start = saved.pop("step")
    for name, state in saved.items():
        parts[name].load_state_dict(state)
for step in range(start, 24):
    optimizer.zero_grad()
    model(torch.ones(4, 8)).pow(2).mean().backward()
    optimizer.step()
    scheduler.step()
    if step % 3 == 2:
        os.makedirs("runs", exist_ok=True)
        state = {name: part.state_dict() for name, part in parts.items()}
        torch.save({**state, "step": step + 1}, "runs/last.pt")
"""
"""A plain script with 24 steps and 8 checkpoints."""


def recorded_step(repeats: int) -> tuple[float, float]:
    """CPU time of a recorded step over that of another one, and its milliseconds."""
    model = torch.nn.Sequential(
        torch.nn.Linear(256, 1024), torch.nn.ReLU(), torch.nn.Linear(1024, 720)
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    data = torch.randn(32, 256)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "runs").mkdir()
        for number in range(5):
            (folder / "runs" / f"{number}.pt").write_bytes(bytes(1000))
        (folder / "store").mkdir()
        make_run(
            folder / "run", everything=False, store=folder / "store", paths=[folder / "runs"],
            stop_after=None, modules=False,
        )  # fmt: skip
        recorder.hook(sys.modules["torch.optim.optimizer"])

        def steps(run: Path) -> float:
            recorder.begin(str(run))  # nothing is recorded in a folder that is not a run's

            def go() -> None:
                for _ in range(100):
                    optimizer.zero_grad()
                    model(data).pow(2).mean().backward()
                    optimizer.step()

            return cpu(go)

        steps(folder)
        ratio, seconds = paired(
            lambda: steps(folder / "run"), lambda: steps(folder), 4 * repeats + 1
        )
        if not list((folder / "run").glob("*.jsonl")):
            raise click.ClickException("no step was recorded")
        recorder.begin(str(folder))
    return ratio, 10 * seconds


def all_kill_points(repeats: int) -> tuple[float, float]:
    """CPU time of ``train`` over that of one run of the script, and its seconds."""
    here = Path(__file__).resolve().parent.parent
    train = [sys.executable, "-m", "lr_resume_harness", "train", "--checkpoints=runs", "--"]
    script = [sys.executable, "train.py"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "train.py").write_text(TRAIN)

        def run(command: Sequence[str]) -> float:
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            done = subprocess.run(
                command, cwd=folder, env={**os.environ, "PYTHONPATH": str(here)},
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            if done.returncode:
                raise click.ClickException(f"{command} fails: {done.stdout}{done.stderr}")
            shutil.rmtree(folder / "runs", ignore_errors=True)
            return sum(after[:2]) - sum(before[:2])

        return paired(lambda: run([*train, *script]), lambda: run(script), repeats)


def training(repeats: int) -> None:
    """Print (e) and (f)."""
    ratio, milliseconds = recorded_step(repeats)
    print(f"\n(e) a recorded step / a step: {ratio:.3f} ({milliseconds:.2f} ms)", flush=True)
    ratio, seconds = all_kill_points(repeats)
    print(f"(f) train, all kill points / one run: {ratio:.2f} ({seconds:.2f} s)")


@click.command()
@click.argument("subjects", nargs=-1)
@click.option("--repeats", default=3, show_default=True, help="Paired runs for each ratio.")
@click.option("--against", "other", type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="Only (d): compare with the harness in this folder.")  # fmt: skip
@click.option("--jobs", type=int, multiple=True, default=(0, 2), show_default=True,
              help="Numbers of workers for (d).")  # fmt: skip
def main(subjects: tuple[str, ...], repeats: int, other: Path | None, jobs: Sequence[int]) -> None:
    """Print the ratios, of the given subjects or of all listed ones; or those of `train`."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, Python {sys.version.split()[0]}")
    if subjects == ("train",):
        training(repeats)
        return
    if other is not None:
        against(other, subjects, jobs, repeats)
        return
    of_each_subject(subjects, repeats)
    print("\n(b) seconds to the first counterexample, without the import of torch")
    for _ in range(repeats):
        run = [sys.executable, "-W", "ignore", "-c", FIRST_COUNTEREXAMPLE]
        print("   ", subprocess.run(run, capture_output=True, text=True, check=True).stdout.strip())
    growth(repeats)


if __name__ == "__main__":
    main()
