"""Writes a reproduction script: a counterexample as a program of plain torch code.

The script begins with what concerns the bug: the scheduler, how it is built, and the run, which
spells out what is saved and how it is resumed. Then it compares the interrupted run with the
uninterrupted one, using the source of the functions that the search itself ran. `Imports` explains
what a script imports and what is pasted into it.

A script exits with 1 if the bug is there, 0 if it is gone, and 125 if it can't tell, for any
reason, so that ``git bisect run`` and ``scripts/bisect_torch.py`` can use it. Only a script that
Python can't parse exits with 1 by mistake. If the check needs ``torch.load(weights_only=True)``,
the script exits with 125 on torch 1.13, where ``weights_only`` can't load a float.
"""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Iterable, Mapping, Sequence

from harness.checks.registry import as_check, checks_used, checks_using_save
from harness.core import training_loop as loop
from harness.core.check import Check
from harness.core.errors import ScriptError
from harness.core.operations import (
    BY_WORD,
    GO_BACK,
    STEPS,
    Operation,
    branches,
    epochs,
    gradients,
    groups_added,
    operations_of,
    walk,
    with_groups,
)
from harness.core.output import printable
from harness.core.result import Result, shorten
from harness.core.run import same as same_values
from harness.core.trace import Trace
from harness.core.verdict import Verdict
from harness.engine.option_changes import allowed_by, as_tuples
from harness.engine.option_sets import load_a_float
from harness.engine.other_process import done_there, letters, segment_lines, segments
from harness.engine.session import replay
from harness.report import script_helpers as helpers
from harness.subjects.lookup import as_subject
from harness.subjects.source_code import ALWAYS_IMPORTED, Imports, Source, names_of_subject
from harness.subjects.subject import Bound, Subject

START = f"""import {", ".join(ALWAYS_IMPORTED)}
atexit.register(lambda: os._exit(globals().get("exit_status", 125)))  # 125: any error"""
WIDTH = 100
ABOUT_PARTS = (
    "# in which process, the slot to resume from, the next step of the optimizer and of the",
    "# scheduler, the groups added, what to do (w: save; else: see BY_LETTER), slots saved to",
)
HOW_TO_RUN = (
    "It starts itself again in another process. To use another torch there, give the path of",
    "another Python as its argument.",
)


def write_script(
    subject: object,
    check: object,
    trace: str | Trace,
    *,
    resume_python: str = "",
    imports: str = "",
) -> str:
    """The text of a script that runs one trace with plain torch, and prints what happens.

    The first arguments are the same as for `harness.replay`. `imports` says what the script
    imports: ``torch`` (only torch; everything else is pasted), ``library`` (also installed
    packages) or ``all``. The default is ``torch`` if the subject is ``standalone``, else ``all``.
    Raises `ScriptError` if the source of a function is not available, and the same errors as
    `harness.replay`.
    """
    chosen = Imports(imports) if imports else None
    result = replay(subject, check, trace, resume_python=resume_python)
    return script_of(as_subject(subject), as_check(check), result, trace, chosen)


def script_of(
    subject: Subject,
    check: Check,
    result: Result,
    trace: str | Trace,
    imports: Imports | None = None,
) -> str:
    """The same script, when the `result` of replaying the trace is already there."""
    trace = trace if isinstance(trace, Trace) else Trace.parse(trace)
    trace = _cut(subject, check, result, trace)
    if imports is None:
        imports = Imports.TORCH if subject.standalone else Imports.ALL
    bound = subject.bind(dict(trace.options))
    source = Source(subject.name, imports, words=bound.words)
    # Written twice: the first draft shows which names are used, so that the second can avoid them.
    body, _ = _Writer(source, bound, check, trace, result).write()
    source = source.second_version("\n".join(body)).for_helpers
    body, call = _Writer(source, bound, check, trace, result).write()
    end = []
    if any("weights_only" in resuming.needs for resuming in (check, *checks_used(check, trace))):
        end.append(f"{source.name(load_a_float)}()  # fails if this torch can't run the check")
    warnings = source.module("warnings")
    end.append(f'{warnings}.simplefilter("ignore")  # about the order of steps: the trace sets it')
    end.append("atexit.register(sys.stdout.flush)")
    if not check.other_process:
        end.append(f'print("torch", {source.module("torch")}.__version__)')
    text = "\n\n".join(
        [
            f'"""{_head(subject, check, trace, result, source)}"""\n'
            + "\n".join([START, *_imports(source, top=True)]),
            *_groups(source.top.values()),
            "\n".join(body),
            "\n".join(["# Helpers.", *_imports(source, top=False)]),
            *_groups(source.helpers.values()),
            "\n".join([*end, f"exit_status = {call}", ""]),
        ]
    )
    compile(text, "the script", "exec")
    return text


def _imports(source: Source, *, top: bool) -> list[str]:
    known = {f"import {module}" for module in ALWAYS_IMPORTED}
    return [line for line in source.import_lines(top=top) if line not in known]


def _groups(definitions: Iterable[str]) -> list[str]:
    """Definitions, with neighbouring one-line definitions joined."""
    groups: list[str] = []
    for text in definitions:
        if groups and "\n" not in text and "\n" not in groups[-1].rpartition("\n\n")[2]:
            groups[-1] += f"\n{text}"
        else:
            groups.append(text)
    return groups


def _cut(subject: Subject, check: Check, result: Result, trace: Trace) -> Trace:
    """`trace` up to where it breaks."""
    broken = result.counterexample
    if broken is None:
        return trace
    shorter = trace.until(broken.operation, broken.step)
    again = result.resume_python
    if (
        shorter != trace
        and replay(subject, check, shorter, resume_python=again).verdict != Verdict.BROKEN
    ):
        # In a mixed trace a save stores what later resumes need, so a shorter trace may save less.
        raise ScriptError(
            f"the trace breaks at '{trace.operations[broken.operation]}', but not if it is cut "
            "off there, so saving itself changes the run: see saving_changes_nothing"
        )
    return shorter


def _head(subject: Subject, check: Check, trace: Trace, result: Result, source: Source) -> str:
    lines = [f"{subject.name}: {check.name}", _needs(source)]
    lines += [f"The promise: {check.doc}", f"The trace: {trace}"]
    if result.counterexample is not None:
        expected, actual = result.counterexample.expected, result.counterexample.actual
        shown = [
            f"expected it to raise {value}"
            if name == "raises"
            else f"expected {name} {shorten(value)}, got {shorten(actual[name])}"
            if name in actual
            else f"{name}: expected {shorten(value)}"
            for name, value in expected.items()
        ]
        shown += [
            f"it raises {value}" if name == "raises" else f"got {name} {shorten(value)}"
            for name, value in actual.items()
            if name not in expected or name == "raises"
        ]
        line = f"With torch {result.torch}: {', '.join(shown)}"
        several = [f"With torch {result.torch}:", *(f"    {part}" for part in shown)]
        lines += [line] if len(line) <= WIDTH else several
    if check.other_process:
        lines += [*([result.note] if result.note else []), *HOW_TO_RUN]
    lines.append(
        "Exit status, for `git bisect run`: 1 the bug is there, 0 it is gone, 125 can't tell."
    )
    return printable("\n".join(lines)).replace("\\", r"\\").replace('"""', r"\"\"\"")


def _needs(source: Source) -> str:
    """What a script needs to run, which depends on what it imports."""
    if not source.modules:
        return "Needs only torch: everything else is in this file."
    named = " and ".join(source.modules)
    match source.imports_from:
        case Imports.TORCH:
            return f"Needs torch and {named}, which the functions in this file import."
        case Imports.LIBRARY:
            pasted = " and ".join(source.pasted_modules) or "nothing"
            return f"Needs torch and an installed {named}; pasted into this file: {pasted}."
        case Imports.ALL:
            return f"Needs torch and {named}, either installed or in the folder of this file."


class _Writer:
    """Writes the part of a script that performs the trace."""

    def __init__(
        self, source: Source, bound: Bound, check: Check, trace: Trace, result: Result
    ) -> None:
        self.source = source.for_helpers
        self.top = source.for_top
        self.bound = bound
        self.check = check
        self.trace = trace
        self.result = result
        self.checks_used = checks_used(check, trace)
        self.top.module("torch")
        self.names = names_of_subject(self.top, bound)
        self.step = ""
        """The name of the function that steps a scheduler, once a check has asked for it."""

    def write(self) -> tuple[list[str], str]:
        """The statements of the trace, and the expression for the exit status."""
        if self.check.changes_options:
            return self._contract()
        if self.check.compares == "values":
            return self._values()
        if self.check.other_process:
            return self._in_two_processes()
        return self._runs()

    def _runs(self) -> tuple[list[str], str]:
        """The script of a check that compares runs."""
        backs = zip(self.checks_used, self.trace.operations, strict=True)
        without_weights = any(op.kind in GO_BACK and not resuming.weights for resuming, op in backs)
        ignored = ["weights"] if without_weights or not self.result.weights else []
        ignored += [] if self.result.last_lr else ["get_last_lr"]
        more = f", ignored={json.dumps(ignored)}" if ignored else ""
        broken = self.result.counterexample
        if broken is not None and set(broken.expected) == {"raises"}:
            more += ", may_raise=True"
        straight = all(before == after for operation, before, after in walk(self.trace.operations)
                       if operation.kind in GO_BACK)  # fmt: skip
        if straight:
            run = self.source.own("run")
            lines = [
                f"def {run}(interrupted):",
                *self._statements(self.trace.operations, guarded=True),
            ]
            return lines, self._comparison(f"{run}(False)", f"{run}(True)", more)
        whole, parts = self.source.own("uninterrupted"), self.source.own("interrupted")
        lines = [
            f"def {whole}():",
            *self._statements(operations_of(branches(self.trace.operations)[-1])),
            "",
            f"def {parts}():",
            *self._statements(self.trace.operations),
        ]
        return lines, self._comparison(f"{whole}()", f"{parts}()", more)

    def _comparison(self, uninterrupted: str, interrupted: str, more: str) -> str:
        observed = self.source.name(helpers.observed)
        compare = self.source.name(helpers.compare)
        return f"{compare}({observed}({uninterrupted}), {observed}({interrupted}){more})"

    def _start(self) -> list[str]:
        return [
            f"    optimizer = {self.names.new_optimizer}()",
            f"    scheduler = {self.names.build}(optimizer)",
        ]

    def _loop(self, operation: Operation, path: str, *, seen: bool = False) -> list[str]:
        """A loop over the steps of one operation; if `seen`, it yields after each step."""
        kind = BY_WORD[operation.kind]
        index, epoch = gradients(path), epochs(path)
        begin = index if kind.uses_gradient or not kind.steps_scheduler else epoch
        here = _plus("i", epoch - begin) if kind.steps_scheduler else str(epoch)
        given = {
            "optimizer": "optimizer",
            "scheduler": self.names.scheduler,
            "index": "i" if kind.uses_gradient else str(index),
            "epoch": here,
            "step": "step",
        }
        statements = self.source.inline(kind.perform, given, "")
        assert statements is not None  # it returns nothing
        # If a statement is just the step, write it in the subject's own way.
        step = f"step({self.names.scheduler}, {here})"
        lines = [self.names.step_call(here) if line == step else line for line in statements]
        first = f"{begin}, " if begin else ""
        look = f"yield {_plus('i', len(path) - begin + 1)}, optimizer, scheduler" if seen else ""
        return [
            f"for i in range({first}{begin + operation.count}):",
            *(f"    {line}" for line in [*lines, look] if line),
        ]

    def _statements(self, operations: Sequence[Operation], *, guarded: bool = False) -> list[str]:
        """The statements of a run; if `guarded`, it saves and resumes only ``if interrupted``."""
        lines = [*self._start(), "    yield 0, optimizer, scheduler"]
        stopped: list[Operation] = []
        pending: list[str] = []
        steps = list(walk(operations))
        whole = branches(operations)[-1] if operations else ""
        for number, (operation, before, after) in enumerate(steps):
            if operation.kind in STEPS:
                seen = whole.startswith(after)  # else it is on a branch that the run leaves again
                lines += [f"    {line}" for line in self._loop(operation, before, seen=seen)]
                continue
            if operation.kind == "save":
                pending += self._save(number, after)
                if self.check.at == "save":
                    pending += self._pair(self.check, self._slot(operation.slot, self.check), after)
            else:
                resuming = self.checks_used[number]
                saved = self._slot(operation.slot, resuming)
                if not resuming.same_dict:
                    saved = f"{self.source.name(loop.snapshot)}({saved})"
                pending += self._pair(resuming, saved, after)
            stopped.append(operation)
            # Saves and resumes that follow each other at one place share a comment and an `if`.
            if number + 1 < len(steps) and not (
                steps[number + 1][0].kind in STEPS or steps[number + 1][2] != after
            ):
                continue
            if whole.startswith(after):
                pending.append(f"yield {len(after)}, optimizer, scheduler")
            comment = f"# {', '.join(map(str, stopped))}, at epoch {epochs(after)}"
            lines.append(f"    if interrupted:  {comment}" if guarded else f"    {comment}")
            lines += [f"    {'    ' if guarded else ''}{line}" for line in pending]
            stopped, pending = [], []
        return lines

    def _save(self, number: int, path: str) -> list[str]:
        """Statements that make a checkpoint for each check that goes back to this save."""
        given = {"optimizer": "optimizer", "scheduler": "scheduler", "epoch": str(epochs(path))}
        lines = []
        for variable, resuming in self._saved(number).items():
            lines += self._do(resuming.save, given, variable)
        return lines

    def _saved(self, number: int) -> dict[str, Check]:
        """The variables that a save operation sets, each with the check that uses it later."""
        slot = self.trace.operations[number].slot
        checks: dict[str, Check] = {}
        for resuming in checks_using_save(
            self.check, self.checks_used, self.trace.operations, number
        ):
            checks.setdefault(self._slot(slot, resuming), resuming)
        return checks

    def _slot(self, slot: str, resuming: Check) -> str:
        """The variable that holds what was saved."""
        saves = [operation for operation in self.trace.operations if operation.kind == "save"]
        name = "saved" if len(saves) == 1 else f"saved_{slot}"
        if not self.check.mixes:
            return name
        shared = "_shared" if resuming.same_dict else ""
        return f"{name}_{resuming.save.__name__.removeprefix('save_')}{shared}"

    def _pair(self, check: Check, saved: str, path: str) -> list[str]:
        """Statements that resume from `saved`, an expression."""
        lines = [f"checkpoint = {saved}"] if "checkpoint" in check.parameters else []
        restores = bool(lines) and check.kind == "resume"
        if check.load is not None:
            lines += self._do(check.load, {"checkpoint": "checkpoint"}, "checkpoint")
        lines += self._do(check.function, self._given(path), "optimizer, scheduler")
        if restores:
            lines.append(f"{self.source.name(loop.restore_parameters)}(optimizer, checkpoint)")
        return lines

    def _given(self, path: str) -> dict[str, str]:
        """The arguments that a check can take after a path, as expressions."""
        new_optimizer = self.names.new_optimizer
        if groups := groups_added(path):
            partial = f"{self.source.module('functools')}.partial"
            with_more = self.source.name(with_groups)
            new_optimizer = f"{partial}({with_more}, {new_optimizer}, {groups})"
        same = {name: name for name in ("checkpoint", "optimizer", "scheduler")}
        given = {"new_optimizer": new_optimizer, "build": self.names.build, **same}
        if "build_other" in self.check.parameters:
            given["build_other"] = self._build_other()
        if "step" in self.check.parameters:
            if not self.step:
                call = self.names.step_call("epoch")
                self.step = self.top.define("step", call, parameters="scheduler, epoch")
            given["step"] = self.step
        return given

    def _build_other(self) -> str:
        """An expression for the function that builds with the changed options."""
        changed = self.bound.changed
        if not changed:
            return self.names.build
        values = ", ".join(f"{name}={self.top.expression(changed[name])}" for name in changed)
        return f"{self.source.module('functools')}.partial({self.names.build}, {values})"

    def _do(
        self, function: Callable[..., object], given: Mapping[str, str], target: str
    ) -> list[str]:
        """The statements of a save or a resume: written out if it happens once, else a call."""
        if self.functions.count(function) == 1:
            lines = self.source.inline(function, given, target)
            if lines is not None:
                return lines
        return [f"{target} = {self._call(function, given)}"]

    def _call(self, function: Callable[..., object], given: Mapping[str, str]) -> str:
        arguments = (given[name] for name in inspect.signature(function).parameters)
        return f"{self.top.paste(function)}({', '.join(arguments)})"

    @functools.cached_property
    def functions(self) -> list[Callable[..., object]]:
        """The functions that save and resume, each as often as the trace calls it."""
        done: list[Callable[..., object]] = []
        for number, operation in enumerate(self.trace.operations):
            if operation.kind == "save":
                done += [resuming.save for resuming in self._saved(number).values()]
                done += self._resuming(self.check) if self.check.at == "save" else []
            elif operation.kind in GO_BACK:
                done += self._resuming(self.checks_used[number])
        return done

    @staticmethod
    def _resuming(check: Check) -> list[Callable[..., object]]:
        return [check.load, check.function] if check.load else [check.function]

    def _in_two_processes(self) -> tuple[list[str], str]:
        """The script of a check that does a part in another process."""
        source = self.source
        source.paste_operations("".join(branches(self.trace.operations)))
        there, lines = segment_lines(source, self.bound, self.check)
        sys, torch = source.module("sys"), source.module("torch")
        run_parts, ask, reply, same, show = map(
            source.name,
            (
                helpers.run_parts, helpers.ask_script, helpers.reply_to_script,
                same_values, helpers.compare,
            ),
        )  # fmt: skip
        parts, main = source.own("PARTS"), source.own("main")
        ignored = [] if self.result.weights and self.check.weights else ["weights"]
        ignored += [] if self.result.last_lr else ["get_last_lr"]
        path = branches(self.trace.operations)[-1]
        lines = [
            *lines,
            "",
            "",
            *ABOUT_PARTS,
            f"{parts} = [",
            *(f"    {part!r}," for part in _parts(self.check, self.trace)),
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

    def _contract(self) -> tuple[list[str], str]:
        """The script of the check whose traces change options on resume."""
        source, changed, names = self.source, self.bound.changed, self.names
        source.paste_operations("".join(branches(self.trace.operations)))
        save, resume = self.top.paste(self.check.save), self.top.paste(self.check.function)
        given = {name: self.top.expression(value) for name, value in changed.items()}
        show = source.name(helpers.show_contract)
        rebuild, step_it, operations, allowed = map(
            source.own, ("rebuild", "step_it", "operations", "allowed")
        )
        listed = ", ".join(f"{name}={value}" for name, value in given.items())
        options = ", ".join(f"{name!r}: {value}" for name, value in given.items())
        lines = [
            f"def {rebuild}(optimizer):",
            f"    return {names.build}(optimizer, {listed})",
            "",
            f"def {step_it}(scheduler, epoch):",
            f"    {names.step_call('epoch')}",
            "",
            f"{operations} = [",
            *(f"    {operation!r}," for operation in as_tuples(self.trace.operations)),
            "]",
            f"{allowed} = {allowed_by(self.bound.subject.contract)}",
        ]
        call = (
            f"{show}(\n"
            f"    ({names.new_optimizer}, {names.build}, {rebuild}), {step_it}, {save}, {resume},\n"
            f"    {{{options}}}, {operations}, {allowed},\n"
            ")"
        )
        return lines, call

    def _values(self) -> tuple[list[str], str]:
        """The script of a check that compares values."""
        name = self.source.name
        attempt, examine = name(helpers.attempt), name(helpers.examine)
        run = self.source.own("run")
        function = self.top.paste(self.check.function)

        def look(where: str, path: str) -> str:
            given = self._given(path)
            arguments = ", ".join([function, *(given[name] for name in self.check.parameters)])
            return f"    {examine}({where}, {arguments})"

        at_step = self.check.at == "step"
        lines = self._start()
        can_look = "checkpoint" not in self.check.parameters
        if at_step and can_look:
            lines.append(look('"at the start"', ""))
        for operation, before, after in walk(self.trace.operations):
            if operation.kind in STEPS:
                part = self._loop(operation, before)
                if at_step and can_look:
                    part.append(look('f"after step {i + 1}"', after))
                lines += [f"    {line}" for line in part]
            else:
                save = self.top.paste(self.check.save)
                epoch = epochs(after)
                lines.append(
                    f'    checkpoint = {attempt}("{operation}", {save}, optimizer, scheduler, '
                    f"{epoch})"
                )
                can_look = True
                lines.append(look(f'"{operation} at epoch {epoch}"', after))
        return [f"def {run}():", *lines], f"{name(helpers.examined)}({run})"


def _plus(variable: str, number: int) -> str:
    """A variable plus a number, as code."""
    if number == 0:
        return variable
    return f"{variable} + {number}" if number > 0 else f"{variable} - {-number}"


def _parts(check: Check, trace: Trace) -> Sequence[helpers.Part]:
    """The parts of a trace, as arguments of `harness.report.script_helpers.run_parts`."""
    steps = list(walk(trace.operations))
    parts = []
    for indices in segments(trace.operations):
        operations = [trace.operations[number] for number in indices]
        first, _, path = steps[indices[0]]
        slot = first.slot if first.kind in GO_BACK else ""
        if not slot:
            path = ""
        where = "there" if done_there(check, indices[0]) else "here"
        saved = tuple(operation.slot for operation in operations if operation.kind == "save")
        todo = "".join(map(letters, operations))
        position = (gradients(path), epochs(path), groups_added(path))
        parts.append((where, slot, *position, todo, saved))
    return parts
