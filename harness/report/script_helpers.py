"""Functions with which a reproduction script compares runs and prints them; pasted into it.

An exit status is 1 if the bug is there, 0 if it is gone, and 125 if the script can't tell.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from harness.checks.changed_options import (
    DESCRIPTIONS,
    Builders,
    contrast,
    judge_behaviour,
    resumed_runs,
)
from harness.core.run import Observation
from harness.core.training_loop import describe, differences, observe, plain
from harness.core.types import OptimizerAndScheduler, Options, Save, Scheduler, Step
from harness.engine.other_process_main import Reply, Request

if TYPE_CHECKING:
    from torch.optim import Optimizer

Answer = TypeVar("Answer")
Ask: TypeAlias = Callable[[Request], Reply]
"""Does a request, here or in another process."""
Part: TypeAlias = tuple[str, str, int, int, int, str, Sequence[str]]
"""The arguments that `run_parts` explains."""

Ended = tuple[list[Observation], str]
"""What was seen after each step of a run, and the exception that ended it or ``""``."""


def observed(run: Iterable[tuple[int, Optimizer, Scheduler]]) -> Ended:
    """Do a run: what is seen after each step, and the exception that ends it or ``""``."""
    seen: dict[int, Observation] = {}
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
    """Print both runs up to where they differ. Returns the exit status."""
    (expected, end), (seen, error) = uninterrupted, interrupted
    if end and not may_raise:
        print("The uninterrupted run raises", end)
        return 125
    rows = []
    left: Observation = {}
    right: Observation = {}
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
        print(f"expected {name} {left[name]}, got {right[name]}")
    ends_otherwise = error != end or (bool(error) and len(seen) != len(expected))
    if ends_otherwise and not left:
        print(f"The uninterrupted run raises {end or 'nothing'} at its end")
        print(f"The interrupted run raises {error or 'nothing'}")
    bug = bool(left) or ends_otherwise
    print("The bug is there." if bug else "The runs are the same: the bug is gone.")
    return int(bug)


def show_contract(
    builders: Builders, step: Step, save: Save, resume: Callable[..., OptimizerAndScheduler],
    changed: Options, operations: Sequence[tuple[str, int | str]], allowed: Sequence[str],
) -> int:  # fmt: skip
    """Print a resumed run next to both uninterrupted ones. Returns the exit status.

    The bug is there if the resumed run follows none of the allowed contracts.
    """
    try:
        builders[2](builders[0]())
    except Exception as raised:
        print("The changed options are refused:", describe(raised))
        return 125
    runs = resumed_runs(builders, step, save, resume, operations)
    judged = judge_behaviour(builders, step, changed, runs, allowed) if runs else {"follows": ""}
    if judged["follows"] == "":
        print("The change makes no difference after a resume, so this script can't tell.")
        return 125
    if judged["follows"]:
        contract = DESCRIPTIONS[judged["follows"]]
        print(f"The resumed run follows a contract: {contract}. The bug is gone.")
        return 0
    run = judged["run"]
    expected, actual = contrast(judged, allowed)
    column = next((name for name in actual if name != "raises"), "lr")
    print(f"{column} of every group after each step, changed on resume: {changed}\n")
    rows = [("old options", "changed options", "resumed")]
    for index, seen in enumerate(run["seen"][: judged["index"] + 1]):
        position = run["first"] + index
        cells = [(judged[name] + [{}] * (position + 1))[position] for name in ("saved", "start")]
        shown = [str(cell.get(column, cell.get("raises", ""))) for cell in (*cells, seen)]
        rows.append((shown[0], shown[1], shown[2]))
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    for index, row in enumerate(rows):
        number = f"{run['first'] + index - 1:4}" if index else "step"
        mark = "  <- follows neither" if index == len(rows) - 1 else ""
        print(f"{number}  {row[0]:{widths[0]}}  {row[1]:{widths[1]}}  {row[2]}{mark}")
    print()
    for name, value in expected.items():
        print(f"{name}: expected {value}")
    for name, value in actual.items():
        verb = {"raises": "it raises", "until then": "until then"}.get(name, f"got {name}")
        print(f"{verb} {value}")
    print("The bug is there.")
    return 1


class BugIsThere(BaseException):
    """Ends a run at the first value that differs from what was expected."""


def attempt(where: str, function: Callable[..., Answer], *arguments: object) -> Answer:
    """Call a function; if it raises, that is the bug."""
    try:
        return function(*arguments)
    except (Exception, SystemExit) as error:
        raise BugIsThere(f"{where}: {function.__name__} raises {describe(error)}") from error


def examine(
    where: str, function: Callable[..., tuple[Observation, Observation]], *arguments: object
) -> None:
    """Call a check, which returns what it expects and what it got, and compare the two."""
    expected, actual = map(plain, attempt(where, function, *arguments))
    left, right = differences(expected, actual)
    if left:
        raise BugIsThere(
            "\n".join(f"{where}: expected {name} {left[name]}, got {right[name]}" for name in left)
        )
    print(f"{where}: as expected")


def examined(run: Callable[[], None]) -> int:
    """Do a run that examines itself. Returns the exit status: 125 if the run itself raises."""
    try:
        run()
    except BugIsThere as bug:
        print(f"{bug}\nThe bug is there.")
        return 1
    except (Exception, SystemExit) as raised:
        print("The run itself raises", describe(raised))
        return 125
    print("Everything is as expected: the bug is gone.")
    return 0


# ------------------------------------------------------ a part in another process


def run_parts(parts: Iterable[Part], seen: list[Observation], here: Ask, there: Ask) -> str:
    """Run a trace part by part, each here or there; fill `seen` and return the exception, if any.

    A part is ``here`` or ``there``, the slot it goes back to (or nothing), index, epoch and added
    groups, what to do, and the slots it saves to. Going back to a slot restores what was seen on
    the way to it.
    """
    slots: dict[str, tuple[bytes, list[Observation]]] = {"": (b"", [])}
    for where, slot, index, epoch, groups, todo, names in parts:
        data, before = slots[slot]
        request: Request = {
            "data": data, "index": index, "epoch": epoch, "groups": groups, "todo": todo
        }  # fmt: skip
        reply = there(request) if where == "there" else here(request)
        seen[:] = [*before, *reply["seen"][:1]]
        saved = iter(zip(names, reply["saved"]))  # noqa: B905 (it may have raised)
        for letter, after in zip(todo, reply["seen"][1:]):  # noqa: B905 (the same)
            if letter == "w":
                name, file = next(saved)
                slots[name] = (file, seen[:-1])
                seen.pop()
            seen.append(after)
        if reply["raised"]:
            return str(reply["raised"])
    return ""


def ask_script(python: str, script: str, request: Request) -> Reply:
    """Run a request with the same script in a new process; `SystemExit` 125 if it can't."""
    done = subprocess.run(
        [python, script, "there"], input=pickle.dumps(request, 2), stdout=subprocess.PIPE
    )
    if done.returncode:
        print(f"{python} can't run this script (see above): give the path of a Python with torch")
        sys.exit(125)
    reply: Reply = pickle.loads(done.stdout)
    return reply


def reply_to_script(there: Ask) -> int:
    """Read a request from standard input, run it and write the reply."""
    reply = there(pickle.loads(sys.stdin.buffer.read()))
    sys.stdout.buffer.write(pickle.dumps(reply, 2))
    return 0
