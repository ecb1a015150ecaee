"""How a reproduction script compares and shows; pasted into it as it stands.

Each entry returns the exit status: 1 the bug is there, 0 it is gone, 125 nothing can be told.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

from harness.checks.changed_options import DESCRIPTIONS, contrast, judge, resumed_runs
from harness.core.training_loop import describe, differences, observe, plain

Ended = tuple[list[dict[str, Any]], str]
"""What was seen after each step of a run, and the exception that ended it or nothing."""


def observed(run: Iterable[tuple[int, Any, Any]]) -> Ended:
    """What a run shows after each step, and the exception that ends it or nothing."""
    seen: dict[int, dict[str, Any]] = {}
    step, error = 0, ""
    try:
        for step, optimizer, scheduler in run:
            seen[step] = observe(optimizer, scheduler)
    except (Exception, SystemExit) as raised:
        error = describe(raised)
    return [seen[number] for number in sorted(seen) if number <= step], error


def compare(
    uninterrupted: Ended, interrupted: Ended, ignored: Collection[str] = (),
    may_raise: bool = False,
) -> int:  # fmt: skip
    """Print both runs up to where they differ: 1 if they do, 0 if not, 125 if that can't be."""
    (expected, end), (seen, error) = uninterrupted, interrupted
    if end and not may_raise:
        print("The uninterrupted run raises", end)
        return 125
    rows = []
    left: dict[str, Any] = {}
    right: dict[str, Any] = {}
    for pair in zip(expected, seen):  # noqa: B905 (one may have raised)
        rows.append([{name: run[name] for name in run if name not in ignored} for run in pair])
        left, right = differences(*rows[-1])
        if left:
            break
    column = next(iter(left), "lr")
    cells = [[str(run.get(column)) for run in pair] for pair in rows]
    width = max(len(cell) for cell, _ in [*cells, ("uninterrupted run", "")])
    print(f"{column} of every group after each step:\n")
    print(f"step  {'uninterrupted run':{width}}  interrupted run")
    for step, (before, after) in enumerate(cells):
        mark = "  <- differs" if left and step == len(cells) - 1 else ""
        print(f"{step:4}  {before:{width}}  {after}{mark}")
    print()
    for name in left:
        print(f"{name} must be {left[name]}, and is {right[name]}")
    ends_otherwise = error != end or (bool(error) and len(seen) != len(expected))
    if ends_otherwise and not left:
        print(f"The uninterrupted run raises {end or 'nothing'} at its end")
        print(f"The interrupted run raises {error or 'nothing'}")
    bug = bool(left) or ends_otherwise
    print("The bug is there." if bug else "The runs are the same: the bug is gone.")
    return int(bug)


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
        print(
            f"A contract is followed exactly: {DESCRIPTIONS[verdict['follows']]}. The bug is gone."
        )
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


class BugIsThere(BaseException):
    """Ends a run where something is not as it must be."""


def attempt(where: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call what must not raise; if it does, that is the bug."""
    try:
        return function(*arguments)
    except (Exception, SystemExit) as error:
        raise BugIsThere(f"{where}: {function.__name__} raises {describe(error)}") from error


def examine(where: str, function: Callable[..., Any], *arguments: Any) -> None:
    """Call a check, which returns what must be and what is."""
    expected, actual = map(plain, attempt(where, function, *arguments))
    left, right = differences(expected, actual)
    if left:
        raise BugIsThere(
            "\n".join(
                f"{where}: {name} must be {left[name]}, and is {right[name]}" for name in left
            )
        )
    print(f"{where}: as it must be")


def examined(run: Callable[[], None]) -> int:
    """Make a run that examines itself: 1 if the bug is there, 0 if not, 125 if it raises."""
    try:
        run()
    except BugIsThere as bug:
        print(f"{bug}\nThe bug is there.")
        return 1
    except (Exception, SystemExit) as raised:
        print("The run itself raises", describe(raised))
        return 125
    print("Everything is as it must be: the bug is gone.")
    return 0
