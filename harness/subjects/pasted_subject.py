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
    """What a text calls the functions of a subject, beside ``build``.

    `scheduler` is the expression of what `step` is called with.
    """

    new_optimizer: str
    step: str
    scheduler: str


def bindings(source: Source, bound: Bound) -> Names:
    """Give `source` the functions of `bound`, and return their names.

    Raises `ScriptError` where the source of one can't be had.
    """
    names = Names(
        _field(source, bound, "optimizer", "new_optimizer"),
        _field(source, bound, "step", "step"),
        # the one that `Stateful` stands for
        "scheduler" if bound.subject.state_dict is None else "scheduler.scheduler",
    )
    source.name(loop.observe)
    _build(source, bound)
    return names


def paste_operations(source: Source, path: str) -> None:
    """Give `source` the operations of a path, and no others.

    Without this, a text that performs operations by their letters has all of them.
    """
    performed = {letter: BY_LETTER[letter] for letter in dict.fromkeys(path)}
    source.definitions["BY_LETTER"] = f"BY_LETTER = {source.expression(performed)}"


def _field(source: Source, bound: Bound, field: str, known_as: str) -> str:
    """The name of the function that makes the optimizer, or steps the scheduler."""
    term = bound.fields.get(field)
    if term is None:
        return source.name(getattr(bound.subject, field))
    said = source.expression(term)
    text = f"step = {said}" if field == "step" else f"def {known_as}():\n    return {said}"
    source.definitions[known_as] = text
    return known_as


def _build(source: Source, bound: Bound) -> None:
    subject = bound.subject
    build = source.expression(subject.build)
    options = {name: source.expression(value) for name, value in bound.options.items()}
    given = ", ".join(f"{name}={value}" for name, value in options.items())
    terms = holds_term(bound.options)  # made anew for each scheduler
    if given and not terms:
        source.imports["import functools"] = None
        build = f"functools.partial({build}, {given})"
    if subject.state_dict is None and not terms:
        source.definitions["build"] = f"build = {build}"
        return
    listed = ", ".join(f'"{name}": {value}' for name, value in options.items())
    made = f"{build}(optimizer, **{{{listed}, **given}})" if terms else "make(optimizer, **given)"
    if subject.state_dict is not None:
        wrapper = source.name(loop.Stateful)
        functions = ", ".join(
            source.name(function) for function in (subject.state_dict, subject.load_state_dict)
        )
        made = f"{wrapper}({made}, {functions})"
    source.definitions["build"] = (
        "" if terms else f"make = {build}\n\n\n"
    ) + f"def build(optimizer, **given):\n    return {made}"
