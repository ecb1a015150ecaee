"""Puts the functions of a subject into a text: what makes its optimizer and scheduler, and steps.

A reproduction script and what another process runs are both made of these.
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
    """What a text calls the functions of a subject.

    `scheduler` is the expression of what `step` is called with.
    """

    new_optimizer: str
    build: str
    step: str
    scheduler: str


def bindings(source: Source, bound: Bound) -> Names:
    """Give `source` the functions of `bound`, and return their names.

    Raises `ScriptError` where the source of one can't be had.
    """
    build = _build(source, bound)
    # the one that `Stateful` stands for
    scheduler = "scheduler" if bound.subject.state_dict is None else "scheduler.scheduler"
    return Names(_new_optimizer(source, bound), build, _step(source, bound), scheduler)


def paste_operations(source: Source, path: str) -> None:
    """Give `source` the operations of a path, and no others.

    Without this, a text that performs operations by their letters has all of them.
    """
    performed = {letter: BY_LETTER[letter] for letter in dict.fromkeys(path)}
    source.paste_value("BY_LETTER", BY_LETTER, performed)


def _new_optimizer(source: Source, bound: Bound) -> str:
    term = bound.fields.get("optimizer")
    if term is None:
        return source.expression(bound.subject.optimizer)
    name = source.own("new_optimizer")
    source.first[name] = f"def {name}():\n    return {source.expression(term)}"
    return name


def _step(source: Source, bound: Bound) -> str:
    """What steps the scheduler; nothing where that is ``step_scheduler``, a mere call."""
    term = bound.fields.get("step")
    if term is None:
        if bound.subject.step is loop.step_scheduler:
            return ""
        said = source.expression(bound.subject.step)
        if said.isidentifier():
            return said
    else:
        said = source.expression(term)
    name = source.own("step")
    source.first[name] = f"{name} = {said}"
    return name


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
    name = source.own("build")
    terms = holds_term(bound.options)  # made anew for each scheduler
    if listed and not terms:
        make = f"{source.module('functools')}.partial({make}, {listed})"
    if subject.state_dict is None and not terms:
        source.first[name] = f"{name} = {make}"
        return name
    if terms:
        pairs = ", ".join(f'"{option}": {value}' for option, value in options.items())
        made = f"{make}(optimizer, **{{{pairs}, **given}})"
    else:
        maker = source.own("make")
        source.first[maker] = f"{maker} = {make}"
        made = f"{maker}(optimizer, **given)"
    if subject.state_dict is not None:
        wrapper = source.name(loop.Stateful)
        functions = ", ".join(map(source.expression, (subject.state_dict, subject.load_state_dict)))
        made = f"{wrapper}({made}, {functions})"
    source.first[name] = f"def {name}(optimizer, **given):\n    return {made}"
    return name
