"""Writes the functions of a subject into a script: those that make its optimizer and scheduler.

Reproduction scripts and the scripts of other processes contain them, with its step function.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.core import training_loop as loop
from harness.core.literals import holds_term
from harness.core.operations import BY_LETTER
from harness.subjects.source_code import Source
from harness.subjects.subject import Bound


@dataclass(frozen=True)
class Names:
    """The names of a subject's functions in a script.

    `scheduler` is the expression that `step` is called with.
    """

    new_optimizer: str
    build: str
    step: str
    scheduler: str


def bindings(source: Source, bound: Bound) -> Names:
    """Give `source` the functions of `bound`, and return their names.

    Raises `ScriptError` if the source of one is not available.
    """
    build = _build(source, bound)
    # the scheduler inside a `Stateful`
    scheduler = "scheduler" if bound.subject.state_dict is None else "scheduler.scheduler"
    return Names(_new_optimizer(source, bound), build, _step(source, bound), scheduler)


def paste_operations(source: Source, path: str) -> None:
    """Give `source` the operations of a path, and no others.

    Without this, a script that performs operations by their letters contains all of them.
    """
    performed = {letter: BY_LETTER[letter] for letter in dict.fromkeys(path)}
    source.paste_value("BY_LETTER", BY_LETTER, performed)


def _new_optimizer(source: Source, bound: Bound) -> str:
    term = bound.fields.get("optimizer")
    if term is None:
        return source.expression(bound.subject.optimizer)
    return source.define("new_optimizer", source.expression(term), parameters="")


def _step(source: Source, bound: Bound) -> str:
    """The name of the step function; empty for ``step_scheduler``, which is a plain call."""
    term = bound.fields.get("step")
    if term is None:
        if bound.subject.step is loop.step_scheduler:
            return ""
        expression = source.expression(bound.subject.step)
        if expression.isidentifier():
            return expression
    else:
        expression = source.expression(term)
    return source.define("step", expression)


def step_call(names: Names, epoch: str) -> str:
    """The statement that steps the scheduler at an epoch."""
    if not names.step:
        return f"{names.scheduler}.step()"
    return f"{names.step}({names.scheduler}, {epoch})"


def _build(source: Source, bound: Bound) -> str:
    subject = bound.subject
    make = source.expression(subject.build)
    options = {name: source.expression(value) for name, value in bound.options.items()}
    listed = ", ".join(f"{name}={value}" for name, value in options.items())
    terms = holds_term(bound.options)  # new objects for each scheduler
    if listed and not terms:
        make = f"{source.module('functools')}.partial({make}, {listed})"
    if subject.state_dict is None and not terms:
        return source.define("build", make)
    if terms:
        pairs = ", ".join(f'"{option}": {value}' for option, value in options.items())
        made = f"{make}(optimizer, **{{{pairs}, **given}})"
    else:
        made = f"{source.define('make', make)}(optimizer, **given)"
    if subject.state_dict is not None:
        wrapper = source.name(loop.Stateful)
        functions = ", ".join(map(source.expression, (subject.state_dict, subject.load_state_dict)))
        made = f"{wrapper}({made}, {functions})"
    return source.define("build", made, parameters="optimizer, **given")
