"""The part of a reproduction script that uses another process: the script starts itself again."""

from __future__ import annotations

from typing import Any

from harness.core import observation
from harness.core.check import Check
from harness.core.operations import BACK, branches, epochs, gradients, groups_added, walk
from harness.core.trace import Trace
from harness.engine import other_process_main as elsewhere
from harness.engine.other_process import segment_lines
from harness.engine.other_process_run import done_there, letters, segments
from harness.report import script_helpers as side_by_side
from harness.subjects.pasted_subject import paste_operations
from harness.subjects.source_code import Source
from harness.subjects.subject import Bound

HOW_TO_RUN = (
    "It starts itself again in another process. To use another torch there, give the path of",
    "another Python as its argument.",
)


def elsewhere_lines(
    source: Source, bound: Bound, check: Check, trace: Trace, weights: bool
) -> tuple[list[str], str]:
    """The script of a check that does a part in another process, and its last call."""
    paste_operations(source, "".join(branches(trace.operations)))
    there, lines = segment_lines(source, bound, check)
    source.section = source.last
    sys, torch = source.module("sys"), source.module("torch")
    run_parts, ask, reply, same, show = map(
        source.name,
        (
            elsewhere.run_parts, elsewhere.ask_script, elsewhere.reply_to_script,
            observation.same, side_by_side.compare,
        ),
    )  # fmt: skip
    parts, main = source.own("PARTS"), source.own("main")
    ignored = [] if weights and check.weights else ["weights"]
    path = branches(trace.operations)[-1]
    lines = [
        *lines,
        "",
        "",
        "# in which process, the slot to resume from, the next step of the optimizer and of the",
        "# scheduler, the groups added, what to do (w: save; else: see BY_LETTER), slots saved to",
        f"{parts} = [",
        *(f"    {part!r}," for part in _parts(check, trace)),
        "]",
        "",
        "",
        f"def {main}():",
        f'    if {sys}.argv[1:] == ["there"]:',
        f"        return {reply}({there})",
        f"    python = {sys}.argv[1] if {sys}.argv[1:] else {sys}.executable",
        f'    print("torch", {torch}.__version__)',
        f'    whole = {{"data": b"", "index": 0, "epoch": 0, "groups": 0, "todo": {path!r}}}',
        f"    expected = {there}(whole)",
        '    if expected["raised"]:',
        '        print("The uninterrupted run raises", expected["raised"])',
        "        return 125",
        f"    if {sys}.argv[1:]:",
        f"        other = {ask}(python, __file__, whole)",
        '        rates = [[seen["lr"] for seen in run["seen"]] for run in (expected, other)]',
        f'        if other["raised"] or not {same}(*rates):',
        '            print("Even without a resume, the schedule differs on the other Python.")',
        "            return 125",
        "    seen = []",
        f"    error = {run_parts}(",
        f"        {parts}, seen, {there}, lambda request: {ask}(python, __file__, request)",
        "    )",
        f'    return {show}((expected["seen"], ""), (seen, error), {ignored})',
    ]
    return lines, f"{main}()"


def _parts(check: Check, trace: Trace) -> list[tuple[Any, ...]]:
    """The parts of a trace, as arguments of `harness.engine.other_process_main.run_parts`."""
    steps = list(walk(trace.operations))
    parts = []
    for indices in segments(trace.operations):
        operations = [trace.operations[number] for number in indices]
        first, _, path = steps[indices[0]]
        slot = first.slot if first.kind in BACK else ""
        if not slot:
            path = ""
        place = "there" if done_there(check, indices[0]) else "here"
        saved = tuple(operation.slot for operation in operations if operation.kind == "save")
        todo = "".join(map(letters, operations))
        position = (gradients(path), epochs(path), groups_added(path))
        parts.append((place, slot, *position, todo, saved))
    return parts
