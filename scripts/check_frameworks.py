"""Checks training scripts that use frameworks, and prints a table.

    python scripts/check_frameworks.py [--only TEXT] [--inside-saves] [--json FOLDER]

Each script in `scripts/frameworks` trains a tiny model as the documentation of its framework shows,
and goes on from its newest checkpoint. Each configuration of it runs in a folder of its own. The
frameworks must be installed: `tox -e frameworks` does that. `scripts/frameworks/by_hand.py` shows
the learning rates of one configuration without the harness.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import itertools
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click

from harness.core.errors import HarnessError
from harness.training.check import Request, check_command
from harness.training.recording import InsideSave
from harness.training.result import TrainingResult, Verdict, findings, to_json
from harness.training.text import inside_text

SCRIPTS = Path(__file__).resolve().parent / "frameworks"
GRIDS: tuple[tuple[str, dict[str, tuple[str, ...]]], ...] = (
    ("transformers_trainer", {
        "--schedule": ("cosine", "linear", "cosine_with_restarts", "reduce_lr_on_plateau"),
        "--save": ("epoch", "steps"),
    }),
    ("lightning_trainer", {
        "--schedule": ("cosine", "warmup", "onecycle", "plateau"),
        "--interval": ("epoch", "step"),
        "--save": ("epoch", "steps", "validation"),
    }),
    ("accelerate_loop", {
        "--schedule": ("cosine", "onecycle", "plateau"),
        "--interval": ("epoch", "step"),
        "--every": ("8", "5"),
    }),
    ("ignite_loop", {
        "--schedule": ("cosine", "torch-cosine", "onecycle", "warmup", "plateau"),
        "--interval": ("epoch", "step"),
        "--every": ("8", "5"),
    }),
    ("timm_loop", {"--schedule": ("cosine", "step"), "--interval": ("epoch", "step")}),
    ("timm_loop", {"--schedule": ("plateau",), "--interval": ("epoch",)}),
    ("ddp", {"--schedule": ("cosine", "onecycle", "plateau")}),
)  # fmt: skip
"""Scripts with the values of each option; every combination is a configuration."""
PACKAGES = ("torch", "transformers", "lightning", "accelerate", "pytorch-ignite", "timm")


def configurations() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each script with its arguments."""
    for script, grid in GRIDS:
        for values in itertools.product(*grid.values()):
            yield script, tuple(itertools.chain(*zip(grid, values, strict=True)))


def command_of(script: str, arguments: tuple[str, ...]) -> list[str]:
    """The command line that trains."""
    start = [sys.executable]
    if script == "ddp":
        start += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return [*start, str(SCRIPTS / f"{script}.py"), *arguments]


def row(result: TrainingResult) -> str:
    """The verdict, and what is known about the first finding."""
    if result.verdict == Verdict.HOLDS:
        data = sum(outcome.data is not None for outcome in result.outcomes)
        return f"exact | {f'data or random state differ from {data} checkpoints' if data else ''}"
    found = findings(result.outcomes)
    if not found:
        return f"{result.verdict} | {result.reason}"
    first = found[0].first
    points = len(found[0].kill_points)
    where = f"{points} of {result.steps} kill points"
    if isinstance(first.stop, InsideSave):
        where = f"{points} saves, {inside_text(first.stop)}"
    if first.difference is None:
        return f"{first.verdict} | {where}: {first.reason}"
    difference = first.difference
    why = "; ".join(found[0].relations)
    return (
        f"{first.verdict} | {where}; step {difference.step}: {difference.field} "
        f"{difference.expected} expected, got {difference.actual}{'; ' + why if why else ''}"
    )


@click.command()
@click.option("--only", default="", help="Only configurations whose command contains this.")
@click.option("--inside-saves", is_flag=True, help="Also kill in the middle of each save.")
@click.option("--json", "folder", type=click.Path(path_type=Path), help="Write results here.")
def main(only: str, inside_saves: bool, folder: Path | None) -> None:
    """Check every configuration and print a table in Markdown."""
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    print(", ".join(f"{name} {version}" for name, version in versions.items()))
    print("\n| script | arguments | result | |\n| --- | --- | --- | --- |")
    for script, arguments in configurations():
        command = command_of(script, arguments)
        if only not in " ".join(command):
            continue
        result: TrainingResult | None = None
        with tempfile.TemporaryDirectory() as temporary, contextlib.chdir(temporary):
            try:
                result = check_command(Request(command, [Path("runs")], inside_saves=inside_saves))
                text = row(result)
            except HarnessError as error:
                text = f"error | {error}"
        text = " ".join(text.split())
        print(f"| {script} | {' '.join(arguments)} | {text} |", flush=True)
        if folder is not None and result is not None:
            folder.mkdir(parents=True, exist_ok=True)
            name = "_".join([script, *(value for value in arguments if value[0] != "-")])
            (folder / f"{name}.json").write_text(json.dumps(to_json(result), indent=1) + "\n")


if __name__ == "__main__":
    main()
