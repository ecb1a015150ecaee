"""How a reproduction script shows what it finds; pasted into it as it stands."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from harness.checks.changed_options import SAID, contrast, judge, resumed_runs
from harness.core.training_loop import describe, differences, plain


def show_runs(
    expected: list[Any], seen: list[Any], error: str, end: str, ignored: list[str]
) -> int:
    """Print both runs step by step, up to where they differ; 1 if they do, 0 if not.

    `error` ended the interrupted run, and `end` the uninterrupted one.
    """
    rows = []
    left: dict[str, Any] = {}
    right: dict[str, Any] = {}
    for before, after in zip(expected, seen):  # noqa: B905 (one may have raised)
        before = {name: value for name, value in before.items() if name not in ignored}
        after = {name: value for name, value in after.items() if name not in ignored}
        rows.append((before, after))
        left, right = differences(before, after)
        if left:
            break
    column = next(iter(left), "lr")
    cells = [(str(before.get(column)), str(after.get(column))) for before, after in rows]
    width = max(len(cell) for cell, _ in [*cells, ("uninterrupted run", "")])
    print(f"{column} of every group after each step:\n")
    print(f"step  {'uninterrupted run':{width}}  interrupted run")
    for step, (before_cell, after_cell) in enumerate(cells):
        mark = "  <- differs" if left and step == len(cells) - 1 else ""
        print(f"{step:4}  {before_cell:{width}}  {after_cell}{mark}")
    print()
    for name in left:
        print(f"{name} must be {left[name]}, and is {right[name]}")
    ended_otherwise = error != end or (bool(error) and len(seen) != len(expected))
    if ended_otherwise and not left:
        print(f"The uninterrupted run raises {end or 'nothing'} at its end")
        print(f"The interrupted run raises {error or 'nothing'}")
    if left or ended_otherwise:
        print("The bug is there.")
        return 1
    print("The runs are the same: the bug is gone.")
    return 0


def show_contract(
    builders: Any, step: Any, save: Any, resume: Any, changed: dict[str, Any],
    operations: list[Any], allowed: list[str],
) -> int:  # fmt: skip
    """Print a resumed run beside both uninterrupted ones; 1 where it follows no contract, else 0.

    125 where nothing can be told.
    """
    try:
        builders[2](builders[0]())
    except Exception as raised:
        print("The changed options are refused:", describe(raised))
        return 125
    verdict: dict[str, Any] = {"follows": ""}
    runs = resumed_runs(builders, step, save, resume, operations)
    if runs:
        verdict = judge(builders, step, changed, runs, allowed)
    if verdict["follows"] == "":
        print("The change makes no difference after a resume, so it tells nothing.")
        return 125
    if verdict["follows"]:
        print(f"A contract is followed exactly: {SAID[verdict['follows']]}. The bug is gone.")
        return 0
    run = verdict["run"]
    expected, actual = contrast(verdict, allowed)
    column = next((name for name in actual if name != "raises"), "lr")
    print(f"{column} of every group after each step, changed on resume: {changed}\n")
    rows = [("old options", "changed options", "resumed")]
    for index, seen in enumerate(run["seen"][: verdict["index"] + 1]):
        place = run["first"] + index
        cells = [(verdict[name] + [{}] * (place + 1))[place] for name in ("saved", "start")]
        said = [str(cell.get(column, cell.get("raises", ""))) for cell in (*cells, seen)]
        rows.append((said[0], said[1], said[2]))
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    for index, row in enumerate(rows):
        number = f"{run['first'] + index - 1:4}" if index else "step"
        mark = "  <- follows neither" if index == len(rows) - 1 else ""
        print(f"{number}  {row[0]:{widths[0]}}  {row[1]:{widths[1]}}  {row[2]}{mark}")
    print()
    for name, value in expected.items():
        print(f"{name} must be {value}")
    for name, value in actual.items():
        verb = {"raises": "it raises", "until then": "until then"}.get(name, f"{name} is")
        print(f"{verb} {value}")
    print("The bug is there.")
    return 1


def attempt(where: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call what must not raise; if it does, that is the bug."""
    try:
        return function(*arguments)
    except (Exception, SystemExit) as error:
        print(f"{where}: {function.__name__} raises {describe(error)}\nThe bug is there.")
        sys.exit(1)


def examine(where: str, function: Callable[..., Any], *arguments: Any) -> None:
    """Call a check, and print what it says must be and is, where these differ."""
    expected, actual = map(plain, attempt(where, function, *arguments))
    left, right = differences(expected, actual)
    for name in left:
        print(f"{where}: {name} must be {left[name]}, and is {right[name]}")
    if left:
        print("The bug is there.")
        sys.exit(1)
    print(f"{where}: as it must be")
