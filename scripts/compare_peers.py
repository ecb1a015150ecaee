"""Compares the harness with the ways other projects test a scheduler's checkpoint today.

    python scripts/compare_peers.py

Each pattern is a few lines of code after the source that its docstring names. It is
run on all planted faults and controls. The script prints a Markdown table: faults
caught, false alarms on the controls, and the CPU time for all of them together. If a
pattern can't be used for a scheduler, for instance because it needs ``last_epoch``,
it counts as passed.

On torch 2.13.0, with 111 faults and 38 controls:

| the test | caught | false alarms | CPU s |
| --- | --- | --- | --- |
| PyTorch, `__dict__` after load | 37 | 1 | 0.11 |
| PyTorch, `last_epoch=0` | 2 | 0 | 0.04 |
| transformers, reload at 5 of 10 | 12 | 0 | 0.24 |
| timm, `state_dict()` after load | 16 | 1 | 0.07 |
| ignite, rewind to the start | 30 | 2 | 0.18 |
| composer, final checkpoints | 30 | 0 | 0.37 |
| pytest-torch, resume in the middle | 31 | 1 | 0.21 |
| BioNeMo, LRs with one stop | 20 | 0 | 0.24 |
| a plain sweep over all epochs | 29 | 0 | 1.76 |
| this harness, sweep alone | 89 | 0 | 143.12 |

The selftest shows what the other two find: the default checks 91 of the faults, all checks 111.
Every fault was planted for some check of this harness, 20 of them for opt-in checks. So the counts
show which kinds of faults a pattern finds, not how good its project is. Most patterns take only
milliseconds. The false alarms are about a scheduler that takes a function out of the dict that it
loads (timm, pytest-torch), one that multiplies the current LR and one that keeps its position in
the optimizer (ignite), and one without a ``__dict__`` (PyTorch).
"""

from __future__ import annotations

import io
import math
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import click
import torch

from harness import CHECKS, Budget, Check, Subject, check_subject
from harness.checks.registry import select_checks
from harness.core.operations import optimizer_step
from harness.core.run import same
from harness.core.training_loop import plain, restore_parameters, save_checkpoint
from harness.core.types import Checkpoint
from harness.subjects.subject import Bound
from lr_schedules.controls import CONTROLS
from lr_schedules.faults import FAULTS

TABLE = {"table": (1.0, 0.5, 0.75, 0.25)}  # for the control whose table is otherwise drawn


class Run:
    """A training run of a subject: new, or resumed from a checkpoint."""

    def __init__(self, bound: Bound) -> None:
        self.bound = bound
        self.optimizer = bound.new_optimizer()
        self.scheduler = bound.build(self.optimizer)
        self.epoch = 0

    def train(self, epochs: int) -> list[list[Any]]:
        """Train for that many epochs; the LR of each group after each epoch."""
        rates = []
        for _ in range(epochs):
            optimizer_step(self.optimizer, self.epoch)
            self.bound.step(self.scheduler, self.epoch)
            self.epoch += 1
            rates.append(self.rates())
        return rates

    def rates(self) -> list[Any]:
        """The LR of each group."""
        return [plain(group["lr"]) for group in self.optimizer.param_groups]

    def save(self) -> Checkpoint:
        """A checkpoint: the states of optimizer and scheduler, and the weights."""
        return save_checkpoint(self.optimizer, self.scheduler, self.epoch)

    def resume(self, checkpoint: Checkpoint) -> Run:
        """A new run resumed from a checkpoint: load the optimizer, then the scheduler."""
        run = Run(self.bound)
        run.optimizer.load_state_dict(checkpoint["optimizer"])
        run.scheduler.load_state_dict(checkpoint["scheduler"])
        restore_parameters(run.optimizer, checkpoint)
        run.epoch = checkpoint["epoch"]
        return run


def of_pytorch(bound: Bound) -> bool:
    """PyTorch: ``__dict__`` is equal after a load.

    test/optim/test_lrscheduler.py, _check_scheduler_state_dict. Here values are compared deeply;
    PyTorch skips, by name, values that its assertEqual can't compare.
    """
    run = Run(bound)
    run.train(10)
    copied = bound.build(run.optimizer)
    copied.load_state_dict(run.scheduler.state_dict())
    for key, value in vars(run.scheduler).items():
        if key != "optimizer" and not same(plain(value), plain(vars(copied)[key])):
            return False
    if not hasattr(run.scheduler, "get_last_lr"):
        return True
    return same(plain(run.scheduler.get_last_lr()), plain(copied.get_last_lr()))


def of_pytorch_last_epoch(bound: Bound) -> bool:
    """PyTorch: ``last_epoch=0`` after one step.

    test/optim/test_lrscheduler.py, test_lr_scheduler_checkpoint.
    """
    if not bound.takes_last_epoch:
        return True
    run = Run(bound)
    run.train(1)
    optimizer = bound.new_optimizer()
    optimizer.load_state_dict(run.optimizer.state_dict())
    scheduler = bound.build(optimizer, last_epoch=0)
    return same(plain(scheduler.get_last_lr()[0]), run.rates()[0])


def of_transformers(bound: Bound) -> bool:
    """transformers: saved and loaded at step 5 of 10, into the same object.

    tests/optimization/test_optimization.py, unwrap_and_save_reload_schedule.
    """
    expected = [rates[0] for rates in Run(bound).train(10)]
    run = Run(bound)
    seen = [rates[0] for rates in run.train(6)]
    file = io.BytesIO()
    torch.save(run.scheduler.state_dict(), file)
    run.scheduler.load_state_dict(torch.load(io.BytesIO(file.getvalue()), weights_only=False))
    return same(expected, seen + [rates[0] for rates in run.train(4)])


def of_timm(bound: Bound) -> bool:
    """timm: ``state_dict()`` is equal after a load.

    tests/test_scheduler.py, test_state_dict_save_load.
    """
    run = Run(bound)
    run.train(5)
    state = run.scheduler.state_dict()
    resumed = Run(bound)
    resumed.scheduler.load_state_dict(state)
    return same(plain(resumed.scheduler.state_dict()), plain(state))


def of_ignite(bound: Bound) -> bool:
    """ignite: after a rewind to its start, it repeats the same run.

    tests/ignite/handlers/test_param_scheduler.py, test_linear_scheduler. ignite sets the LR at
    the start of a step and torch at its end, so the first LR is not compared.
    """
    run = Run(bound)
    state = run.scheduler.state_dict()
    expected = run.train(10)
    run.scheduler.load_state_dict(state)
    run.epoch = 0
    return same(expected, run.train(10))


def of_composer(bound: Bound) -> bool:
    """composer: the final checkpoints of both runs are equal.

    tests/trainer/test_checkpoint.py, _assert_checkpoints_equivalent.
    """
    run = Run(bound)
    run.train(5)
    file = io.BytesIO()
    torch.save(run.save(), file)
    run.train(5)
    resumed = run.resume(torch.load(io.BytesIO(file.getvalue()), weights_only=False))
    resumed.train(5)
    return same(plain(run.save()), plain(resumed.save()))


def of_pytest_torch(bound: Bound) -> bool:
    """pytest-torch: resumed at the middle; states, then losses, then weights.

    pytest_torch/training_loop.py (1.1.1), assert_resume_equivalent. The loss is the sum of the
    squared weights.
    """
    run = Run(bound)
    run.train(4)
    saved = run.save()
    resumed = run.resume(saved)
    rates = zip(run.optimizer.param_groups, resumed.optimizer.param_groups, strict=True)
    if not all(math.isclose(a["lr"], b["lr"], rel_tol=1e-12) for a, b in rates):
        return False
    if not same(plain(saved["scheduler"]), plain(resumed.scheduler.state_dict())):
        return False
    for _ in range(4):
        losses = []
        for one in (run, resumed):
            groups = one.optimizer.param_groups
            losses.append(float(sum((p**2).sum() for group in groups for p in group["params"])))
            one.train(1)
        if not math.isclose(*losses, rel_tol=1e-5, abs_tol=1e-6):
            return False
    return True


def of_bionemo(bound: Bound) -> bool:
    """BioNeMo: every LR of the first group, with one stop in the middle.

    sub-packages/bionemo-testing, harnesses/stop_and_go.py, test_stop_and_go_consistency.
    """
    expected = [rates[0] for rates in Run(bound).train(10)]
    run = Run(bound)
    seen = [rates[0] for rates in run.train(5)]
    seen += [rates[0] for rates in run.resume(run.save()).train(5)]
    return same(expected, seen)


def plain_sweep(bound: Bound) -> bool:
    """A plain sweep: every LR of every group, resumed once at every epoch.

    We found no project that does this; it is the obvious next test to write.
    """
    expected = Run(bound).train(12)
    for stop in range(13):
        run = Run(bound)
        seen = run.train(stop)
        if not same(expected, seen + run.resume(run.save()).train(12 - stop)):
            return False
    return True


def _harness(subject: Subject, checks: Sequence[Check], examples: int) -> bool:
    results = check_subject(subject, checks, Budget(max_examples=examples))
    # Like a test, it fails at the first broken check.
    return all(result.verdict in ("HOLDS", "DECLINED") for result in results)


DEFAULT = select_checks()
PEERS: dict[str, Callable[[Bound], bool]] = {
    "PyTorch, `__dict__` after load": of_pytorch,
    "PyTorch, `last_epoch=0`": of_pytorch_last_epoch,
    "transformers, reload at 5 of 10": of_transformers,
    "timm, `state_dict()` after load": of_timm,
    "ignite, rewind to the start": of_ignite,
    "composer, final checkpoints": of_composer,
    "pytest-torch, resume in the middle": of_pytest_torch,
    "BioNeMo, LRs with one stop": of_bionemo,
    "a plain sweep over all epochs": plain_sweep,
    "this harness, sweep alone": lambda bound: _harness(bound.subject, DEFAULT, 0),
    "this harness": lambda bound: _harness(bound.subject, DEFAULT, 25),
    "this harness, `--all-checks`": lambda bound: _harness(bound.subject, CHECKS, 25),
}


def passes(peer: Callable[[Bound], bool], subject: Subject) -> bool:
    """Whether a peer's test passes; an exception is a failure."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return peer(subject.bind(TABLE if subject.drawn_fields else {}))
        except Exception:
            return False


@click.command()
def main() -> None:
    """Print how many planted faults and controls fail each way of testing."""
    subjects = [fault.subject for fault in FAULTS]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    optimizer.step()  # the first one imports the rest of torch
    click.echo(f"torch {torch.__version__}, {len(subjects)} faults, {len(CONTROLS)} controls\n")
    click.echo("| the test | caught | false alarms | CPU s |\n| --- | --- | --- | --- |")
    for name, peer in PEERS.items():
        started = time.process_time()
        caught = [subject.name for subject in subjects if not passes(peer, subject)]
        alarms = [subject.name for subject in CONTROLS if not passes(peer, subject)]
        seconds = time.process_time() - started
        click.echo(f"| {name} | {len(caught)} | {len(alarms)} | {seconds:.2f} |")
        if alarms:
            click.echo(f"{name}: false alarms on {', '.join(alarms)}", err=True)


if __name__ == "__main__":
    main()
