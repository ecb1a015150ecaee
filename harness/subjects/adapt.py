"""From a scheduler class, or a function that returns one, to the fields of a subject."""

from __future__ import annotations

import functools
import inspect
import itertools
import re
import traceback
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from harness.checks.registry import CHECKS
from harness.core.errors import TimeLimit
from harness.core.guard import Guard, time_limit
from harness.core.literals import resolve
from harness.core.training_loop import describe, new_sgd, step_scheduler
from harness.core.types import NewOptimizer, Step, Words
from harness.subjects.optimizers import make_optimizer
from harness.subjects.protocols import (
    INDEX,
    OPTIMIZER,
    STATELESS,
    Look,
    Protocol,
    build_from_index,
    build_held,
    build_with,
    convention_of,
    is_torch,
    protocols_of,
    saving_of,
    scheduler_in,
)
from harness.subjects.type_hints import (
    Unresolved,
    Values,
    hints_of,
    holds_scheduler,
    parameters_of,
    values_for,
)

TRIES = 25
"""How many sets of drawn options a constructor may refuse."""
BUILD_TIME_LIMIT = 30.0
"""Seconds that all these tries may take together."""
INDEX_TIME_LIMIT = 3.0
"""Seconds for the runs that show which convention an index follows, with each set of options."""
SETS = 5
"""Sets of options that are tried to see which convention an index follows."""
MORE = 3
"""At most this many optional parameters are drawn because an exception asks for them."""
SHORT = 12
"""Steps of the runs that show which convention an index follows."""

new_adamw: NewOptimizer = functools.partial(make_optimizer, torch.optim.AdamW, groups=2)
"""For schedulers that need an optimizer with betas."""
WITHOUT_STATE = (
    "resume_optimizer_then_scheduler", "resume_by_deepcopy", "resume_by_pickle",
    "resume_by_last_epoch", "resume_by_initial_lr", "lr_is_finite", "lr_is_never_negative",
    "last_lr_is_the_groups_lr", "other_schedulers_change_nothing",
)  # fmt: skip
"""The checks that say something about a scheduler that saves nothing."""


@dataclass(frozen=True)
class Adapted:
    """How a class or function is built and stepped: fields of a subject.

    `unknown` are the options for which nothing can be drawn, each with a description of its type
    hint. `why` says why it can't be stepped, and `refusal` why it can't be built, if so. `notes`
    are for the report.
    """

    build: Callable[..., Any]
    step: Step = step_scheduler
    drawn: Mapping[str, Values] = field(default_factory=dict)
    unknown: Mapping[str, str] = field(default_factory=dict)
    state_dict: Callable[[Any], Any] | None = None
    load_state_dict: Callable[[Any, Any], None] | None = None
    declines: Mapping[str, str] = field(default_factory=dict)
    optimizer: NewOptimizer = new_sgd
    notes: tuple[str, ...] = ()
    why: str = ""
    refusal: BaseException | None = None

    @property
    def words(self) -> Words:
        """The meaning of the terms that are drawn."""
        return {word: value for each in self.drawn.values() for word, value in each.words.items()}


def adapt(
    value: Callable[..., Any], given: Mapping[str, object], twice: Collection[str] = (),
    also: tuple[str, ...] = (),
) -> Adapted:  # fmt: skip
    """How to build and step what a class or function makes, with options that are `given`.

    `twice` are parameters of a parent that the class itself gives, and `also` are optional
    parameters to draw.
    """
    try:
        parameters = parameters_of(value)
    except (TypeError, ValueError):  # some builtins have none
        return Adapted(value)
    function = _function(value)
    is_class = isinstance(function, type)
    hints = hints_of(value)
    optimizer_name = _optimizer_name(parameters, hints)
    begins = next(iter(parameters), "")
    if not optimizer_name and (is_torch(function) if is_class else
                               not holds_scheduler(hints.get(begins), begins)):  # fmt: skip
        optimizer_name = begins
    values = values_for(value, given, {optimizer_name, *twice}, also)
    drawn = {name: each for name, each in values.items() if each is not None}
    unknown = {name: _describe_hint(hints.get(name)) for name in values if values[name] is None}
    known = Adapted(value, drawn=drawn, unknown=unknown, notes=_guessed(drawn))
    build: Callable[..., Any] = value
    first = begins == optimizer_name
    if any(each.nested for each in drawn.values()) or (optimizer_name and not first):
        build = functools.partial(build_with, value, optimizer_name)
    elif not optimizer_name and is_class:
        build = functools.partial(build_held, value)
    if is_class and is_torch(function):
        return _driven(known, build, build, Look(function, frozenset(parameters)), new_sgd)
    made = refusal = None
    new_optimizer: NewOptimizer = new_sgd
    if not unknown:
        for new_optimizer in (new_sgd, new_adamw):
            made, refusal = first_built(build, known, given, new_optimizer)
            if made is not None:
                break
        else:
            new_optimizer = new_sgd
    again = re.search(r"(?:multiple values for|an unexpected).* argument '(\w+)'", str(refusal))
    if again and again[1] in values:
        return adapt(value, given, {*twice, again[1]}, also)
    more = [name for name in _asked_for(refusal, parameters) if name not in (*also, *given)]
    if more and len(also) < MORE and not is_torch(function):
        with_more = adapt(value, given, twice, (*also, more[0]))
        if with_more.refusal is None and not with_more.unknown:
            return with_more
    if is_class:
        look = Look(function, frozenset(parameters))
    elif made is not None:
        look = Look(scheduler_in(made), frozenset(parameters))
    else:
        return replace(known, build=build, refusal=refusal)
    return replace(_driven(known, value, build, look, new_optimizer, given), refusal=refusal)


def _asked_for(
    refusal: BaseException | None, parameters: Mapping[str, inspect.Parameter]
) -> list[str]:
    """The optional parameters that an exception, or the assertion that failed, speaks of."""
    if refusal is None:
        return []
    frames = traceback.extract_tb(refusal.__traceback__)
    text = f"{refusal} {frames[-1].line if frames and isinstance(refusal, AssertionError) else ''}"
    words = re.findall(r"\w+", text)
    return [name for name in words if name in parameters and parameters[name].default is None]


def _function(value: Any) -> Any:
    while isinstance(value, functools.partial):
        value = value.func
    return value


def _optimizer_name(parameters: Collection[str], hints: Mapping[str, object]) -> str:
    """The parameter for the optimizer, by its name or else by its type; empty without one."""
    named = next((name for name in parameters if name in OPTIMIZER), "")
    typed = (name for name in parameters if hints.get(name) is torch.optim.Optimizer)
    return named or next(typed, "")


def _describe_hint(hint: object) -> str:
    if hint is None:
        return "no type hint"
    if isinstance(hint, Unresolved):
        return f"the type hint {hint.text!r}, which names what is not there at run time"
    return f"the type {getattr(hint, '__name__', hint)}, for which no values are known"


def _guessed(drawn: Mapping[str, Values]) -> tuple[str, ...]:
    names = [name for name, values in drawn.items() if values.guessed]
    return (f"values guessed from the names of {', '.join(names)}",) if names else ()


def _driven(
    known: Adapted, value: Callable[..., Any], build: Callable[..., Any], look: Look,
    new_optimizer: NewOptimizer, given: Mapping[str, object] | None = None,
) -> Adapted:  # fmt: skip
    """The same with the protocol that fits, and its ways to build, step, save and load."""
    fitting = list(protocols_of(look))
    if not fitting:
        return replace(known, build=build, optimizer=new_optimizer, why=_why_not(look))
    protocol, *others = fitting
    if protocol.build is build_held:
        build = functools.partial(build_held, value)
    elif protocol.build is not None:
        build = functools.partial(protocol.build, build)
    save, load, saves = saving_of(protocol, look)
    notes = [*_note_on(protocol, others), *known.notes]
    declines: dict[str, str] = {}
    if not saves:
        notes.append("has no state_dict, so nothing of it is in a checkpoint")
        names = [check.name for check in CHECKS if check.name not in WITHOUT_STATE]
        declines = dict.fromkeys(names, STATELESS)
    adapted = replace(
        known, build=build, step=protocol.step, state_dict=save, load_state_dict=load,
        declines=declines, optimizer=new_optimizer, notes=tuple(notes),
    )  # fmt: skip
    index = next((name for name in INDEX if name in look.options), "")
    if index and not adapted.unknown and given is not None:
        return _with_index(adapted, index, given)
    return adapted


def _note_on(protocol: Protocol, others: list[Protocol]) -> Iterator[str]:
    if protocol.stepped != "step()" or others:
        text = f"stepped as {protocol.stepped}"
        if others:
            text += f" ({' and '.join(each.stepped for each in others)} would fit as well: give "
            text += "a Subject a 'step' to choose)"
        yield text


def _why_not(look: Look) -> str:
    """Why no protocol fits."""
    for method in ("step", "__call__"):
        if look.has(method):
            name = "step" if method == "step" else "call"
            needs = look.needs(method)
            if needs:
                return f"its {name} needs {needs!r}: write a 'step' that gives it"
            return f"no known way fits the parameters of its {name}: write a 'step'"
    return "it has no step and can't be called"


def _with_index(adapted: Adapted, index: str, given: Mapping[str, object]) -> Adapted:
    """The same, resumed by this index as the scheduler counts it: k or k-1 after k steps.

    Which of the two it is, is found by trying both, and so is whether one goes on exactly. A class
    that inherits from PyTorch's is not tried: there, ``last_epoch`` means what PyTorch says.
    """
    made = {
        shift: functools.partial(build_from_index, adapted.build, index, shift) for shift in (0, 1)
    }
    tried, fits, why = 0, Counter[int](), ""
    for options in itertools.islice(sets_of(adapted, given), SETS):
        try:
            with Guard(index).on(), time_limit(INDEX_TIME_LIMIT):
                fits += convention_of(
                    {shift: functools.partial(made[shift], **options) for shift in made},
                    adapted.optimizer, adapted.step, SHORT,
                )  # fmt: skip
        except TimeLimit as error:
            why = describe(error)
            break
        except (Exception, SystemExit) as error:
            why = why or describe(error)
        else:
            tried += SHORT
    shift = 1 if fits[1] > fits[0] else 0
    if index == INDEX[0] and not shift:  # as in PyTorch; the check says whether it is exact
        return adapted
    text = f"resumes with {index}=k{'' if shift else '-1'} after k steps"
    if not tried:
        text += f", a guess: an uninterrupted run of {SHORT} epochs raises {why}"
    elif fits[shift] < tried:
        text += ", but not exactly at every epoch"
    return replace(adapted, build=made[shift], notes=(*adapted.notes, text))


def sets_of(adapted: Adapted, given: Mapping[str, object]) -> Iterator[dict[str, Any]]:
    """The first sets of options to build with: values, without terms."""
    sets: list[dict[str, Any]] = [{}]
    if adapted.drawn:
        from hypothesis import strategies as st

        from harness.subjects.drawn_options import draw_options

        strategy = st.fixed_dictionaries(
            {name: each.strategy for name, each in adapted.drawn.items()}
        )
        sets = draw_options(strategy, TRIES, 0)
    for values in sets:
        yield {**given, **resolve(values, adapted.words)}


def first_built(
    build: Callable[..., Any], adapted: Adapted, given: Mapping[str, object],
    new_optimizer: NewOptimizer,
) -> tuple[Any, BaseException | None]:  # fmt: skip
    """What `build` makes with the first set of options that it takes, or what it raises first."""
    refusal: BaseException | None = None
    name = getattr(_function(adapted.build), "__name__", "a scheduler")
    try:
        with Guard(name).on(), time_limit(BUILD_TIME_LIMIT):
            for options in sets_of(adapted, given):
                try:
                    made = build(new_optimizer(), **options)
                except (Exception, SystemExit) as error:
                    refusal = refusal or error
                else:
                    return made, None
    except TimeLimit as error:
        return None, error
    return None, refusal
