"""Subjects: a scheduler under test, with what is needed to build and step it.

A scheduler class with options is already a subject: on the command line ``check
my_package.schedules:MySchedule --kwargs 'warmup=3 total=10'``, in a test
``check_scheduler(MySchedule, warmup=3, total=10)``. Choose options that make everything happen
within 12 epochs: the warm-up, a restart, the end and what follows. A `Subject` can also give its
own optimizer, a step that takes a metric, state functions for an object that is not an
``LRScheduler``, and the checks that it does not promise.

* An option can also be a Hypothesis strategy. Options that depend on each other are drawn together
  by ``drawn``, a strategy of dicts, and an optimizer by
  ``optimizer=harness.subjects.optimizers.optimizers()``.
* A value without a literal (a function, a scheduler inside another) is written as a *term*:
  ``Subject(words={"Decay": Decay}, options={"fn": Term.of("Decay", 0.5)})`` prints as
  ``fn=Decay(0.5)``, and a new object is made for each scheduler.
* A subject declines what its scheduler cannot do. For example, if the scheduler holds a lambda,
  which can't be pickled, decline ``resume_by_pickle``. ``declines`` names checks, or operations
  that the scheduler can't do or go on from; every report lists what is declined.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard

from harness.core.errors import SubjectError, TraceError
from harness.core.literals import Term, format_value, holds_term, parse_value, resolve
from harness.core.project import SubjectSettings
from harness.core.references import full_reference, import_attribute
from harness.core.suggest import did_you_mean
from harness.core.training_loop import (
    Stateful,
    metrics,
    new_sgd,
    step_scheduler,
    step_with_metric,
)
from harness.core.types import NewOptimizer, Options, Scheduler, Step, Words
from harness.subjects.adapt import Adapted, adapt
from harness.subjects.optimizers import WORDS

if TYPE_CHECKING:
    import torch
    from hypothesis.strategies import SearchStrategy

AnyOptimizer: TypeAlias = "NewOptimizer | SearchStrategy[Term]"
"""What builds a subject's optimizer, or draws it."""
MAX_LENGTH = 1000
MAPPINGS = ("options", "words", "declines", "expected_failures")
REPLACEABLE = ("optimizer", "step")
"""The fields that a term in the options can replace."""
STEP_WORDS: Words = MappingProxyType({"metrics": metrics, "step_with_metric": step_with_metric})
"""The words that every subject knows for its step."""
CONTRACTS = ("saved", "new", "raises")
"""What a subject can promise about options that change on resume."""


@dataclass(frozen=True)
class Subject:
    """A scheduler under test, with what is needed to build and step it.

    Parameters
    ----------
    name : str
        Its name in reports and on the command line.
    build : callable
        ``build(optimizer, last_epoch=-1, **options)`` returns a scheduler. A
        scheduler class is such a function. If it takes no ``last_epoch``,
        the checks that need it are declined.
    options : mapping
        Keyword arguments of `build`: each a value, or a Hypothesis strategy
        that draws numbers, strings, None and terms (`harness.Term`), or lists,
        tuples and dicts of these.
    drawn : strategy, optional
        A Hypothesis strategy that draws dicts of options, for options that
        depend on each other. Drawn options override `options`, which are first
        tried alone. A term as ``optimizer`` or ``step`` in such a dict replaces
        that field.
    words : mapping
        The meaning of the terms in options: functions, classes or other callables,
        by their word in a trace. Every subject knows
        `harness.subjects.optimizers.WORDS`, and ``metrics`` and ``step_with_metric`` of
        `harness.core.training_loop`. A word with dots is imported.
    optimizer : callable or strategy
        Makes a new optimizer over new parameters, always with the same values.
        By default SGD with momentum and two groups with different LRs. A
        Hypothesis strategy draws terms that make one; see
        `harness.subjects.optimizers.optimizers`.
    step : callable
        ``step(scheduler, epoch)`` steps the scheduler; `epoch` counts its
        steps from 0. By default ``scheduler.step()``;
        `harness.step_with_metric` passes a metric.
    state_dict, load_state_dict : callable, optional
        ``state_dict(scheduler)`` and ``load_state_dict(scheduler, state)``,
        for a scheduler without methods of these names. Both or neither.
    declines : mapping
        Checks that it does not promise, and operations
        (`harness.core.operations.EVENTS`) that it cannot do or go on from:
        the name of each, and the reason, which must not be empty.
    expected_failures : mapping
        Checks that are known to fail: the name of each, and the reason. Such a failure is KNOWN,
        whatever it looks like; if the check holds, it is STALE. A ledger is exact.
    contract : str
        What `resume_with_changed_options` demands: ``saved`` (the saved option
        wins), ``new`` (the new one) or ``raises``. By default any of them.
    length : int
        Epochs of the short run without interruption. Each of them is a save point; later
        epochs only around changes, and a few more. So everything that the scheduler does
        should happen within them.
    constant : bool
        Whether no hyperparameter is meant to change. Unless it is, a subject is
        declined if nothing changes in a long run: nothing could be lost.
    standalone : bool
        Whether a reproduction script may paste the source of `build` and of the
        other functions here, instead of importing their modules.
    reference : str
        Its name on the command line: a listed name or ``module:attribute``.
        Set if the subject was found by one.
    notes : tuple of str
        How it is driven, for the report, such as "stepped as step(epoch, metric)".

    >>> from torch.optim.lr_scheduler import StepLR
    >>> Subject("decays", StepLR, options={"step_size": 3, "gamma": 0.5}).name
    'decays'

    Raises
    ------
    SubjectError
        For an invalid field; the message names it.
    """

    name: str
    build: Callable[..., Any]
    _: KW_ONLY
    options: Options = field(default_factory=dict)
    drawn: SearchStrategy[dict[str, object]] | None = None
    words: Words = field(default_factory=dict)
    optimizer: AnyOptimizer = new_sgd
    step: Step = step_scheduler
    state_dict: Callable[[Any], Any] | None = None
    load_state_dict: Callable[[Any, Any], None] | None = None
    declines: Mapping[str, str] = field(default_factory=dict)
    expected_failures: Mapping[str, str] = field(default_factory=dict)
    contract: str = ""
    length: int = 12
    constant: bool = False
    standalone: bool = False
    reference: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (
            not isinstance(self.name, str)
            or self.name.split() != [self.name]
            or not self.name.isprintable()
        ):
            raise SubjectError(
                "a subject's name must be a word without spaces or control characters "
                f"(got {self.name!r})"
            )
        if problem := next(self._problems(), ""):
            raise SubjectError(f"subject {self.name}: {problem}")
        for what in MAPPINGS:
            object.__setattr__(self, what, MappingProxyType(dict(getattr(self, what))))

    def _problems(self) -> Iterator[str]:
        """What is wrong with the fields; each test relies on the ones before it."""
        for what in ("build", "optimizer", "step"):
            value = getattr(self, what)
            if not callable(value) and not (what == "optimizer" and _is_strategy(value)):
                yield f"{what!r} must be callable (got {value!r})"
        if (self.state_dict is None) != (self.load_state_dict is None):
            yield "give both state_dict and load_state_dict, or neither"
        if type(self.length) is not int or not 1 <= self.length <= MAX_LENGTH:
            yield (
                f"'length' must be a whole number of epochs from 1 to {MAX_LENGTH} "
                f"(got {self.length!r})"
            )
        for what in MAPPINGS:
            if not isinstance(getattr(self, what), Mapping):
                yield f"{what!r} must be a dict (got {getattr(self, what)!r})"
        for what in ("declines", "expected_failures"):
            for declined, reason in getattr(self, what).items():
                if not isinstance(reason, str) or not reason.strip():
                    yield (
                        f"{what!r} must give a reason for {declined!r}, a string that is not empty "
                        f"(got {reason!r})"
                    )
        for both in sorted({*self.declines} & {*self.expected_failures}):
            yield f"{both!r} is in 'declines' and in 'expected_failures': keep one of them"
        if self.drawn is not None and not _is_strategy(self.drawn):
            yield f"'drawn' must be a Hypothesis strategy (got {self.drawn!r})"
        for what, who in (("last_epoch", "the checks set it"), ("changed", "a trace sets it")):
            if what in self.options:
                yield f"{what!r} is not an option, {who}: leave it out"
        if self.contract not in ("", *CONTRACTS):
            yield (
                f"'contract' must be one of {', '.join(CONTRACTS)}, or empty "
                f"(got {self.contract!r})"
            )

    @property
    def drawn_fields(self) -> dict[str, SearchStrategy[object]]:
        """The options, and the optimizer, that have a strategy instead of a value."""
        values = {"optimizer": self.optimizer, **self.options}
        return {name: value for name, value in values.items() if _is_strategy(value)}

    @property
    def strategy(self) -> SearchStrategy[dict[str, object]] | None:
        """The strategy that draws options, if there is one."""
        if not self.drawn_fields:
            return self.drawn
        from hypothesis import strategies as st

        fields = st.fixed_dictionaries(self.drawn_fields)
        if self.drawn is None:
            return fields
        return st.tuples(fields, self.drawn).map(lambda sets: {**sets[0], **sets[1]})

    def bind(self, options: Options) -> Bound:
        """The subject with a value for every option; `options` override its own.

        Raises `SubjectError` if `build` does not take them, `TraceError` for a term that
        is not a word of the subject.
        """
        values = {**self.options, **self.drawn_fields, **options}
        open_ = [name for name, value in values.items() if _is_strategy(value)]
        if open_:
            raise SubjectError(
                f"subject {self.name}: the trace must begin with a value for the drawn option "
                f"{open_[0]!r}: write {open_[0]}=VALUE"
            )
        fields = {
            name: values.pop(name)
            for name in REPLACEABLE
            if isinstance(values.get(name), Term)
            or (name in values and _is_strategy(getattr(self, name)))
        }
        changed = values.pop("changed", {})
        if not isinstance(changed, dict) or not all(isinstance(name, str) for name in changed):
            raise TraceError(
                f"'changed' must be a dict of options by their names (got {changed!r}): "
                "write changed={'name':value}"
            )
        signature = _signature(self.build)
        if signature is not None and not signature.parameters:
            what = getattr(self.build, "__name__", "build")
            raise SubjectError(
                f"subject {self.name}: {what} takes nothing: let it take the optimizer, as in "
                f"def {what}(optimizer, last_epoch=-1)"
            )
        if signature is not None:
            try:
                signature.bind(None, **values)
            except TypeError as error:
                raise SubjectError(
                    f"subject {self.name}: build cannot be called with the options "
                    f"{sorted(values)}: {_misfit(signature, values) or error}; its signature is "
                    f"{signature}"
                ) from None
        bound = Bound(self, values, fields, changed)
        bound.check_words()
        if changed:
            bound.with_changed.check_words()
        return bound

    def bind_trace(self, options: Options) -> Bound:
        """The subject as a trace with these options says; raises like `bind`.

        A trace names its optimizer and step, unless they are those of the subject's fields.
        """
        own = {
            name: value
            for name, value in self.options.items()
            if name not in REPLACEABLE or name in options or not isinstance(value, Term)
        }
        subject = self if len(own) == len(self.options) else replace(self, options=own)
        return subject.bind(options)

    def check_options(self) -> None:
        """Raise `SubjectError` if `build` does not take the options; like `bind`."""
        self.bind(dict.fromkeys(self.drawn_fields))

    def with_options(self, options: Options | None) -> Subject:
        """The same subject, with `options` in place of its own options with these names."""
        return replace(self, options={**self.options, **options}) if options else self

    def with_settings(self, settings: SubjectSettings) -> Subject:
        """The same subject with what the user says about it.

        Raises `SubjectError` or `TraceError` for a wrong value.
        """
        if settings == SubjectSettings():
            return self
        options = {**self.options, **settings.options}
        fields: dict[str, Any] = {}
        for name, function in (("optimizer", settings.optimizer), ("step", settings.step)):
            if isinstance(function, str):
                options[name] = _term(name, function)
            elif function is not None:
                fields[name] = function
        if settings.length is not None:
            fields["length"] = settings.length
        if settings.contract:
            fields["contract"] = settings.contract
        return replace(
            self, options=options, constant=self.constant or settings.constant,
            declines={**self.declines, **settings.declines},
            expected_failures={**self.expected_failures, **settings.expected_failures}, **fields,
        )  # fmt: skip


def subject_from(value: object, *, name: str = "", options: Options | None = None) -> Subject:
    """The subject for a `Subject`, a scheduler class or a ``build`` function.

    Options that a class or function needs in addition to `options` are drawn if it is known what
    they are (`harness.subjects.type_hints`), and it is stepped as its methods demand
    (`harness.subjects.protocols`). Raises `SubjectError` for another value.
    """
    if isinstance(value, Subject):
        return value.with_options(options)
    if not callable(value) and hasattr(value, "step"):
        kind = type(value).__name__
        raise SubjectError(
            f"{name or 'a subject'} is a {kind} that is already built: name the class {kind}, or "
            "a function build(optimizer, last_epoch=-1) that returns a new one"
        )
    if not callable(value):
        raise SubjectError(
            f"{name or 'a subject'} must be a Subject, a scheduler class or a function "
            f"build(optimizer, last_epoch=-1) (got {value!r:.80})"
        )
    return subject_of(value, adapt(value, options or {}), name=name, options=options)


def subject_of(
    value: Callable[..., object],
    adapted: Adapted,
    *,
    name: str = "",
    options: Options | None = None,
) -> Subject:
    """The subject that builds and steps a class or function as `adapted` says."""
    function = value.func if isinstance(value, functools.partial) else value
    name = name or getattr(function, "__name__", type(function).__name__)
    module, path = getattr(value, "__module__", None), getattr(value, "__qualname__", "<")
    reference = "" if module in (None, "__main__") or "<" in path else f"{module}:{path}"
    return Subject(
        name.replace(" ", "_"), adapted.build,
        options={**(options or {}), **{n: each.strategy for n, each in adapted.drawn.items()}},
        words=adapted.words, optimizer=adapted.optimizer, step=adapted.step,
        state_dict=adapted.state_dict, load_state_dict=adapted.load_state_dict,
        declines=adapted.declines, reference=reference, notes=adapted.notes,
    )  # fmt: skip


@dataclass(frozen=True)
class Bound:
    """A subject with a value for every option; `fields` are terms that replace its fields.

    `changed` are the options that change when a run is resumed.
    """

    subject: Subject
    options: dict[str, object]
    fields: dict[str, object] = field(default_factory=dict)
    changed: dict[str, object] = field(default_factory=dict)

    @functools.cached_property
    def literals(self) -> tuple[tuple[str, object], ...]:
        """The options that a trace can contain; the others are the subject's, such as functions."""
        pairs: list[tuple[str, object]] = [("changed", self.changed)] if self.changed else []
        pairs += self.fields.items()
        for name, value in self.options.items():
            try:
                format_value(value)
            except TraceError as error:
                if self.subject.options.get(name) is not value:
                    raise SubjectError(
                        f"subject {self.subject.name}: the drawn option {name!r} has a value that "
                        f"a trace cannot contain: {error}"
                    ) from None
            else:
                pairs.append((name, value))
        return tuple(pairs)

    @functools.cached_property
    def words(self) -> Words:
        """The meaning of each word that a term can have."""
        words = {**WORDS, **STEP_WORDS, **self.subject.words}
        dotted = (word for word in _words_in([self.fields, self.options]) if "." in word)
        return {**words, **{w: _imported(w) for w in dotted if w not in words}}

    def check_words(self) -> None:
        """Raise `TraceError` for an unknown word, or for a term that doesn't make an optimizer."""
        term = self.fields.get("optimizer")
        if isinstance(term, Term) and term.arguments is None:
            raise TraceError(f"optimizer={term} does not make an optimizer: write {term}()")
        if self.fields or holds_term(self.options):
            for name in _words_in([self.fields, self.options]):
                resolve(Term(name), self.words)

    @property
    def new_optimizer(self) -> NewOptimizer:
        """The function that makes a new optimizer."""
        if "optimizer" in self.fields:
            return functools.partial(resolve, self.fields["optimizer"], self.words)
        assert callable(self.subject.optimizer)  # `fields` has it if it is drawn
        return self.subject.optimizer

    @property
    def with_changed(self) -> Bound:
        """The same subject with the changed options, for a resumed run; raises like `bind`.

        The optimizer and the step stay as they are.
        """
        return self.subject.bind({**self.fields, **self.options, **self.changed})

    @property
    def takes_last_epoch(self) -> bool:
        """Whether `build` has a parameter for ``last_epoch``."""
        signature = _signature(self.subject.build)
        if signature is None:
            return True
        return any(
            parameter.name == "last_epoch" or parameter.kind is parameter.VAR_KEYWORD
            for parameter in signature.parameters.values()
        )

    def build(self, optimizer: torch.optim.Optimizer, **given: int) -> Any:
        """A new scheduler; `given` is empty or holds ``last_epoch``."""
        options = self.options
        if self._holds_terms:
            options = resolve(options, self.words)
        scheduler = self.subject.build(optimizer, **given, **options)
        save, load = self.subject.state_dict, self.subject.load_state_dict
        return scheduler if save is None or load is None else Stateful(scheduler, save, load)

    def step(self, scheduler: Scheduler, epoch: int) -> None:
        """Step a scheduler that `build` made."""
        if isinstance(scheduler, Stateful):
            scheduler = scheduler.scheduler
        self._step(scheduler, epoch)

    def takes_epoch(self, scheduler: Scheduler) -> bool:
        """Whether a scheduler that `build` made can also be stepped with ``step(epoch)``."""
        step = getattr(scheduler, "step", None)
        signature = _signature(step) if callable(step) else None
        if signature is None or self._step is not step_scheduler:
            return False
        return "epoch" in signature.parameters

    @functools.cached_property
    def _holds_terms(self) -> bool:
        return holds_term(self.options)

    @functools.cached_property
    def _step(self) -> Step:
        if "step" in self.fields:
            step: Step = resolve(self.fields["step"], self.words)
            return step
        return self.subject.step


def _term(field_name: str, text: str) -> Term:
    """The term that ``optimizer`` or ``step`` is replaced by."""
    if field_name == "step" and text == "metric":
        return Term("step_with_metric")
    try:
        term = parse_value(text)
    except (ValueError, SyntaxError):
        term = None
    if not isinstance(term, Term):
        example = "AdamW(groups=2)" if field_name == "optimizer" else "metric, or module.function"
        raise TraceError(f"{field_name!r} must be written as {example} (got {text!r})")
    if field_name == "optimizer" and term.arguments is None:
        return Term.of(term.name)
    return term


def _imported(word: str) -> Callable[..., Any]:
    """What a word with dots names; raises `SubjectError` if it is not a function or class."""
    module, _, attribute = word.rpartition(".")
    value = import_attribute(full_reference(word) or f"{module}:{attribute}")
    if not callable(value):
        raise SubjectError(f"{word!r} must name a function or a class (got {value!r:.60})")
    return value


def _words_in(value: object) -> Iterator[str]:
    """The words in `value`."""
    if isinstance(value, Term):
        yield value.name
        value = [*(value.arguments or ()), *(item for _, item in value.keywords)]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _words_in(item)


def _is_strategy(value: object) -> TypeGuard[SearchStrategy[object]]:
    # Without importing Hypothesis, which is slow to import, for values that are not strategies.
    module = sys.modules.get("hypothesis.strategies")
    return module is not None and isinstance(value, module.SearchStrategy)


def _misfit(signature: inspect.Signature, options: Collection[str]) -> str:
    """Says which options a signature does not take, and which it still needs."""
    _, *takes = signature.parameters.values()
    names = [parameter.name for parameter in takes]
    any_name = any(parameter.kind is parameter.VAR_KEYWORD for parameter in takes)
    problems = []
    for name in () if any_name else (name for name in options if name not in names):
        hint = did_you_mean(name, names)
        problems.append(f"it takes no {name!r}" + (f" ({hint})" if hint else ""))
    needs = [
        repr(parameter.name)
        for parameter in takes
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        and parameter.name not in ("last_epoch", *options)
    ]
    if needs:
        give = f"{needs[0][1:-1]}=..."
        problems.append(
            f"it needs {', '.join(needs)}: give {give}, on the command line --kwargs '{give}'"
        )
    return ", and ".join(problems)


def _signature(function: Callable[..., object]) -> inspect.Signature | None:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):  # some builtins have none
        return None
