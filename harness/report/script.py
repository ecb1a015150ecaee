"""Writes a reproduction script: a counterexample as a program that needs torch alone.

It is put together from the source of the very functions that the search ran; only
the trace is unrolled into plain statements. Of a scheduler of one's own it needs its module,
too, installed or beside it.

It exits with 1 while the bug is there, 0 when it is gone, and 125 when a torch can't run it, so
that ``git bisect run`` can use it, and so does ``scripts/bisect_torch.py``. A script of a check
that needs ``torch.load(weights_only=True)`` exits with 125 on torch 1.13, whose ``weights_only``
loads no float.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.checks.registry import as_check, routes
from harness.core import training_loop as loop
from harness.core.check import Check
from harness.core.errors import ScriptError
from harness.core.operations import (
    BACK,
    BY_WORD,
    STEPS,
    Operation,
    branches,
    epochs,
    gradients,
    groups_added,
    unpath,
    walk,
    with_groups,
)
from harness.core.result import Result, Verdict, shorten
from harness.core.trace import Trace
from harness.engine.option_changes import allowed_by, plain_operations
from harness.engine.requirements import load_a_float
from harness.engine.session import replay
from harness.report import script_helpers as side_by_side
from harness.report.script_other_process import HOW_TO_RUN, elsewhere_lines
from harness.subjects.pasted_subject import bindings, paste_operations
from harness.subjects.references import as_subject
from harness.subjects.source_code import Source
from harness.subjects.subject import Subject


def write_script(subject: Any, check: Any, trace: Any, *, resume_python: str = "") -> str:
    """The text of a script that runs one trace with torch alone, and says what it shows.

    The arguments are those of `harness.replay`. Raises `ScriptError` where the
    source of a function can't be had, and what `harness.replay` raises.
    """
    result = replay(subject, check, trace, resume_python=resume_python)
    return script_of(as_subject(subject), as_check(check), result, trace)


def script_of(subject: Subject, check: Check, result: Result, trace: Any) -> str:
    """The same, where `result` says what a replay of the trace showed."""
    trace = trace if isinstance(trace, Trace) else Trace.parse(trace)
    broken = result.counterexample
    if broken is not None:
        shorter = trace.until(broken.operation, broken.step)
        again = result.resume_python
        if (
            shorter != trace
            and replay(subject, check, shorter, resume_python=again).verdict != Verdict.BROKEN
        ):
            # In a mixed trace a save makes what later resumes need, so it may do less now.
            raise ScriptError(
                f"the trace breaks at '{trace.operations[broken.operation]}', and not where it is "
                "cut off there, so saving itself changes the run: see saving_changes_nothing"
            )
        trace = shorter
    writer = _Writer(subject, check, trace)
    ends = broken is not None and set(broken.expected) == {"raises"}
    if check.changes_options:
        lines = writer.contract()
    elif check.compares == "values":
        lines = writer.values()
    else:
        lines = writer.runs(result.weights, ends=ends)
    body = "\n".join(lines)
    source = writer.source
    probe = _probe(source) if any("weights_only" in way.needs for way in writer.ways) else ""
    head = _head(subject, check, trace, result, list(source.modules))
    imports = sorted(source.imports, key=lambda line: (line.startswith("from"), line))
    imports = [line for line in imports if line != "import sys"]
    definitions = "\n\n\n".join(source.definitions.values())
    return f'''"""{head}
"""

import sys
import warnings

try:
    {
        """
    """.join(imports)
    }
except Exception as error:
    print(f"This Python can't run it: {{type(error).__name__}}: {{error}}")
    sys.exit(125)

warnings.simplefilter("ignore")  # of the order of steps, which the trace sets


{definitions}


{probe}{body}


if __name__ == "__main__":
    sys.exit(main())
'''


def _probe(source: Source) -> str:
    """The statements of a script whose check needs ``torch.load(weights_only=True)``."""
    return f"""try:
    {source.name(load_a_float)}()
except Exception as error:
    print(f"This torch can't run it: {{type(error).__name__}}: {{error}}")
    sys.exit(125)


"""


def _head(subject: Subject, check: Check, trace: Trace, result: Result, modules: list[str]) -> str:
    needs = "Needs torch alone."
    if modules:
        named = " and ".join(modules)
        needs = f"Needs torch, and {named} with what that imports: installed, or beside this file."
    lines = [f"{subject.name}: {check.name}", "", needs, ""]
    lines += [f"The promise: {check.doc}", f"The trace: {trace}"]
    if result.counterexample is not None:
        lines.append(f"With torch {result.torch}:")
        expected, actual = result.counterexample.expected, result.counterexample.actual
        lines += [f"    {name} must be {shorten(value)}" for name, value in expected.items()]
        lines += [
            f"    it raises {value}" if name == "raises" else f"    {name} is {shorten(value)}"
            for name, value in actual.items()
        ]
    if check.elsewhere:
        lines += ["", *([result.note] if result.note else []), *HOW_TO_RUN]
    lines += [
        "",
        "Exit status: 1 while the bug is there, 0 when it is gone, 125 when this torch",
        "can't run it; so `git bisect run` can use it.",
    ]
    return "\n".join(lines).replace("\\", r"\\").replace('"""', r"\"\"\"")


class _Writer:
    """The part of a script that is the trace."""

    def __init__(self, subject: Subject, check: Check, trace: Trace) -> None:
        self.subject = subject
        self.check = check
        self.trace = trace
        self.bound = subject.bind(dict(trace.options))
        self.routes = routes(check, trace)
        self.ways = (check, *self.routes)
        source = self.source = Source(
            subject.name, paste_all=subject.standalone, words=self.bound.words
        )
        source.imports["import torch"] = None
        names = bindings(source, self.bound)
        self.new_optimizer, self.step = names.new_optimizer, names.step
        self.scheduler = names.scheduler

    def runs(self, weights: bool, *, ends: bool) -> list[str]:
        """The script of a check that compares runs; `ends`: the uninterrupted one by an error."""
        if self.check.elsewhere:
            return elsewhere_lines(self.source, self.bound, self.check, self.trace, weights)
        on_error = [
            '        print("The uninterrupted run raises", describe(raised))',
            "        return 125",
        ]
        if ends:
            on_error = ["        end = describe(raised)"]
        ignored = [] if weights else ["weights"]
        backs = zip(self.routes, self.trace.operations, strict=True)
        if any(operation.kind in BACK and not way.weights for way, operation in backs):
            ignored = ["weights"]
        for function in (loop.describe, loop.restore_parameters, side_by_side.show_runs):
            self.source.name(function)
        return [
            "def uninterrupted(seen):",
            *self._statements(unpath(branches(self.trace.operations)[-1])),
            "",
            "",
            "def interrupted(seen):",
            *self._statements(self.trace.operations),
            "",
            "",
            "def main():",
            '    print("torch", torch.__version__)',
            '    expected, seen, error, end = [], [], "", ""',
            "    try:",
            "        uninterrupted(expected)",
            "    except Exception as raised:",
            *on_error,
            "    try:",
            "        interrupted(seen)",
            "    except (Exception, SystemExit) as raised:",
            "        error = describe(raised)",
            f"    return show_runs(expected, seen, error, end, {ignored})",
        ]

    def _start(self) -> list[str]:
        return [
            f"    optimizer = {self.new_optimizer}()",
            "    scheduler = build(optimizer)",
        ]

    def _loop(self, operation: Operation, path: str) -> list[str]:
        """A loop over the steps of one operation, without what follows each step."""
        kind = BY_WORD[operation.kind]
        index, epoch = gradients(path), epochs(path)
        first = index if kind.gradients or not kind.epochs else epoch
        shift = epoch - first
        later = "i" if shift == 0 else f"i + {shift}" if shift > 0 else f"i - {-shift}"
        arguments = {
            "scheduler": self.scheduler,
            "index": "i" if kind.gradients else str(index),
            "epoch": later if kind.epochs else str(epoch),
            "step": self.step,
        }
        return [
            f"for i in range({first}, {first + operation.count}):",
            *(f"    {line}" for line in self.source.body(kind.perform, arguments)),
        ]

    def _statements(self, operations: Sequence[Operation]) -> list[str]:
        """The statements of a run whose observations are compared."""
        look = "seen.append(observe(optimizer, scheduler))"
        lines = [*self._start(), f"    {look}"]
        for number, (operation, before, after) in enumerate(walk(operations)):
            if operation.kind in STEPS:
                loop_lines = [*self._loop(operation, before), f"    {look}"]
                lines += [f"    {line}" for line in loop_lines]
                continue
            lines.append(f"    # {operation}, at epoch {epochs(after)}")
            if operation.kind == "save":
                lines += [f"    {line}" for line in self._save(number, after)]
                lines.append(f"    seen_{operation.slot} = seen[:{len(after)}]")
            if operation.kind in BACK:
                way = self.routes[number]
                checkpoint = self._slot(operation.slot, way)
                if not way.same_dict:
                    checkpoint = f"{self.source.name(loop.snapshot)}({checkpoint})"
                lines += [f"    {line}" for line in self._pair(way, checkpoint, after)]
            elif self.check.at == "save":
                pair = self._pair(self.check, self._slot(operation.slot, self.check), after)
                lines += [f"    {line}" for line in pair]
            # What was seen on the way to a slot comes back with it: it may be of another branch.
            lines.append(f"    seen[:] = [*seen_{operation.slot}, observe(optimizer, scheduler)]")
        return lines

    def _save(self, number: int, path: str) -> list[str]:
        """One statement for each save function of the checks that go back to this save."""
        slot = self.trace.operations[number].slot
        ways = {self._slot(slot, self.check): self.check}
        if self.check.mixes:
            ways = {}
            for way, later in zip(
                self.routes[number + 1 :], self.trace.operations[number + 1 :], strict=True
            ):
                if later.slot == slot and later.kind == "save":
                    break
                if later.slot == slot:
                    ways.setdefault(self._slot(slot, way), way)
        return [
            f"{variable} = {self.source.name(way.save)}(optimizer, scheduler, {epochs(path)})"
            for variable, way in ways.items()
        ]

    def _slot(self, slot: str, way: Check) -> str:
        """The variable that holds a checkpoint."""
        if not self.check.mixes:
            return f"checkpoint_{slot}"
        shared = "_shared" if way.same_dict else ""
        return f"checkpoint_{slot}_{way.save.__name__.removeprefix('save_')}{shared}"

    def _pair(self, check: Check, checkpoint: str, path: str) -> list[str]:
        lines = [f"checkpoint = {checkpoint}"] if "checkpoint" in check.parameters else []
        lines.append(f"optimizer, scheduler = {self._call(check, path)}")
        if check.kind == "resume" and lines[:-1]:
            lines.append("restore_parameters(optimizer, checkpoint)")
        return lines

    def _call(self, check: Check, path: str) -> str:
        given = {"new_optimizer": self.new_optimizer}
        if groups := groups_added(path):
            self.source.imports["import functools"] = None
            more = self.source.name(with_groups)
            given["new_optimizer"] = f"functools.partial({more}, {self.new_optimizer}, {groups})"
        arguments = ", ".join(given.get(name, name) for name in check.parameters)
        self.source.paste(check.function)
        return f"{check.function.__name__}({arguments})"

    def contract(self) -> list[str]:
        """The script of the check whose traces change options on resume."""
        source, changed = self.source, self.bound.changed
        paste_operations(source, "".join(branches(self.trace.operations)))
        resume, save = self.check.function, source.name(self.check.save)
        show = source.name(side_by_side.show_contract)
        source.paste(resume)
        said = {name: source.expression(value) for name, value in changed.items()}
        given = ", ".join(f"{name}={value}" for name, value in said.items())
        source.definitions["rebuild"] = (
            f"def rebuild(optimizer):\n    return build(optimizer, {given})"
        )
        operations = plain_operations(self.trace.operations)
        return [
            "def step_it(scheduler, epoch):",
            f"    {self.step}({self.scheduler}, epoch)",
            "",
            "",
            "def main():",
            '    print("torch", torch.__version__)',
            f"    builders = {self.new_optimizer}, build, rebuild",
            f"    changed = {source.expression(changed)}",
            "    operations = [",
            *(f"        {operation!r}," for operation in operations),
            "    ]",
            f"    allowed = {allowed_by(self.subject.contract)}",
            f"    return {show}(",
            f"        builders, step_it, {save}, {resume.__name__}, changed, operations, allowed",
            "    )",
        ]

    def values(self) -> list[str]:
        """The script of a check that compares values."""
        for function in (loop.describe, side_by_side.attempt, side_by_side.examine):
            self.source.name(function)

        def call(path: str) -> str:
            said = self._call(self.check, path)
            return said.replace("(", ", ", 1).removesuffix(")").removesuffix(", ")

        needs = "checkpoint" in self.check.parameters
        at_step = self.check.at == "step"
        lines = self._start()
        saved = not needs
        if at_step and saved:
            lines.append(f'    examine("at the start", {call("")})')
        for operation, before, after in walk(self.trace.operations):
            if operation.kind in STEPS:
                part = self._loop(operation, before)
                if at_step and saved:
                    examined = call(after)
                    part.append(f'    examine(f"after step {{i + 1}}", {examined})')
                lines += [f"    {line}" for line in part]
            else:
                save = self.source.name(self.check.save)
                lines.append(
                    f'    checkpoint = attempt("{operation}", {save}, optimizer, scheduler, '
                    f"{epochs(after)})"
                )
                saved = True
                lines.append(f'    examine("{operation} at epoch {epochs(after)}", {call(after)})')
        return [
            "def run():",
            *lines,
            "",
            "",
            "def main():",
            '    print("torch", torch.__version__)',
            "    try:",
            "        run()",
            "    except Exception as raised:",
            '        print("The run itself raises", describe(raised))',
            "        return 125",
            '    print("Everything is as it must be: the bug is gone.")',
            "    return 0",
        ]
