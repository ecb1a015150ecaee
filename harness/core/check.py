"""The class `Check`, and the decorators that make a function a check."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, TypedDict, TypeVar, Unpack, overload

from harness.core.errors import CheckError
from harness.core.result import Promise
from harness.core.training_loop import save_checkpoint
from harness.core.types import Load, Save

Function = TypeVar("Function", bound=Callable[..., object])
CheckKind: TypeAlias = Literal["resume", "state"]
At: TypeAlias = Literal["resume", "load", "save", "step"]
Compares: TypeAlias = Literal["trajectory", "values"]
OtherProcess: TypeAlias = Literal["", "resume", "save", "all"]
PARAMETERS = (
    "new_optimizer", "build", "build_other", "step", "checkpoint", "optimizer", "scheduler",
)  # fmt: skip


class StateFields(TypedDict, total=False):
    """Parameters of `state_check` and `resume_check`, which describes them."""

    save: Save
    default: bool
    needs: tuple[str, ...]
    about: str
    without: tuple[str, ...]
    search: bool


class Fields(StateFields, total=False):
    """Parameters of `resume_check`, which describes them."""

    at: At
    load: Load | None
    from_epoch: int
    weights: bool
    same_dict: bool
    other_process: OtherProcess
    mixes: bool


class VariantFields(Fields, total=False):
    """What `Check.variant` can change."""

    changes_options: bool
    prerequisite: Check
    event: str


@dataclass(frozen=True)
class Check:
    """A check; `resume_check` and `state_check`, which make one, describe most fields.

    `changes_options`: each resume changes an option (`harness.checks.changed_options`).
    `prerequisite`: the check that must hold first. `event`: the operation by hand that it is about;
    each of its traces has it, and where this check fails, no other fails because of it. `variant`
    sets `own_name` and `own_doc`.
    """

    function: Callable[..., Any]
    kind: CheckKind
    compares: Compares
    at: At = "resume"
    save: Save = save_checkpoint
    load: Load | None = None
    default: bool = True
    needs: tuple[str, ...] = ()
    about: str = "the scheduler's state"
    from_epoch: int = 0
    weights: bool = True
    same_dict: bool = False
    without: tuple[str, ...] = ()
    search: bool = True
    other_process: OtherProcess = ""
    changes_options: bool = False
    mixes: bool = False
    prerequisite: Check | None = None
    event: str = ""
    own_name: str = ""
    own_doc: str = ""

    @property
    def searched(self) -> bool:
        """Whether the search draws traces for it after the sweep."""
        return self.kind == "resume" and self.search and not self.event

    @property
    def needs_save(self) -> bool:
        """Whether it looks at a checkpoint, so that a trace for it must save."""
        return self.at != "step" or "checkpoint" in self.parameters

    @property
    def name(self) -> str:
        """The name of its function, or `own_name` if several checks share that function."""
        return self.own_name or self.function.__name__

    def variant(self, name: str, doc: str, **changes: Unpack[VariantFields]) -> Check:
        """A check with the same route at another moment or with another transport.

        `doc` is its promise; `changes` are the fields that differ.
        """
        return replace(self, own_name=name, own_doc=doc, **changes)

    @property
    def reference(self) -> str:
        """Its name on the command line; ``module:attribute`` for a user's check."""
        function = self.function
        if function.__module__.partition(".")[0] == "harness":
            return self.name
        if self.own_name or function.__module__ == "__main__" or "<" in function.__qualname__:
            return ""
        return f"{function.__module__}:{function.__qualname__}"

    @property
    def doc(self) -> str:
        """The promise: the first line of the docstring."""
        return self.own_doc or (inspect.getdoc(self.function) or "").partition("\n")[0]

    @property
    def promise(self) -> Promise:
        """What reports say about it."""
        return Promise(
            self.doc, self.about, self.kind, self.at, self.compares, self.changes_options
        )

    @functools.cached_property
    def parameters(self) -> tuple[str, ...]:
        """The names of the function's parameters."""
        return tuple(inspect.signature(self.function).parameters)


def _decorate(function: Function, check: Check) -> Function:
    if not check.doc:
        raise CheckError(f"check {check.name} needs a docstring: its first line is the promise")
    unknown = [name for name in check.parameters if name not in PARAMETERS]
    if unknown:
        raise CheckError(
            f"check {check.name} has a parameter {unknown[0]!r}; "
            f"a check can take {', '.join(PARAMETERS)}"
        )
    function.__check__ = check  # type: ignore[attr-defined]
    return function


def check_of(function: object) -> Check:
    """The check of a decorated function; raises `CheckError` if it is not decorated."""
    check = getattr(function, "__check__", None)
    if not isinstance(check, Check):
        raise CheckError(
            f"{function!r} is not a check: decorate it with harness.resume_check or "
            "harness.state_check"
        )
    return check


@overload
def resume_check(function: Function, /) -> Function: ...


@overload
def resume_check(**fields: Unpack[Fields]) -> Callable[[Function], Function]: ...


def resume_check(
    function: Callable[..., object] | None = None, /, **fields: Unpack[Fields]
) -> object:
    """Make a function that returns ``(optimizer, scheduler)`` a resume check.

    Parameters
    ----------
    at : str
        The operation that calls it: ``resume`` (from a slot; the default), ``load`` (into
        the live objects) or ``save`` (right after every save).
    save : callable
        ``save(optimizer, scheduler, epoch)`` returns the checkpoint, a dict; by default
        `harness.core.training_loop.save_checkpoint`.
    load : callable, optional
        ``load(checkpoint)`` turns what `save` returned into what the function resumes from, if
        that is not the same. If it raises, the resume has failed.
    default : bool
        Whether it runs when no checks are named; True by default.
    needs : tuple of str
        What the check needs from the scheduler (``get_last_lr``; ``last_epoch``: its build takes
        one; ``options``: it has one that can change; ``json``: its state can be written as JSON;
        ``pickle``: it holds no lambda) or from torch (``distributed_checkpoint``;
        ``weights_only``: it loads floats). If something is missing, the check is declined.
    about : str
        The topic, for reports; by default "the scheduler's state".
    from_epoch : int
        The first epoch (number of scheduler steps) at which it can resume; 0 by default.
    weights : bool
        Whether the weights of the model are compared too (the default). Set it to False if the
        check does not restore the optimizer's own state.
    same_dict : bool
        Whether all resumes from a slot load the same scheduler state dict; by default each
        gets a copy. Everything else in the checkpoint is always copied, because an
        optimizer goes on using the tensors that it loads.
    without : tuple of str
        The operations (of `harness.core.operations.EVENTS`) whose effect it does not restore.
        It is not tried after a save that follows one of them.
    search : bool
        Whether the search draws traces for it after the sweep (the default). Set it to False
        for a slow check; the sweep then tries only a few save points. Set it to False also for
        a check that looks at the optimizer's state: its steps are then always computed.
    other_process : str
        What is done in another process: ``""`` (nothing; the default), ``resume`` (every resume,
        and what follows it), ``save`` (what comes before the first resume), or ``all``. A check
        that uses another process is not searched.
    mixes : bool
        Whether each resume in its traces names another check, because it has no route itself.

    Raises `CheckError` for a function without a docstring, or with a parameter
    that a check cannot take.
    """
    at, other_process = fields.get("at", "resume"), fields.get("other_process", "")
    if at not in ("resume", "load", "save"):
        raise CheckError(f"a resume check's 'at' must be resume, load or save (got {at!r})")
    if other_process not in ("", "resume", "save", "all"):
        raise CheckError(
            f"'other_process' must be resume, save, all or nothing (got {other_process!r})"
        )
    if other_process and (at != "resume" or fields.get("same_dict")):
        raise CheckError("a check with 'other_process' must have at='resume' and same_dict=False")
    if other_process:
        fields["search"] = False

    def decorate(function: Function) -> Function:
        parameters = inspect.signature(function).parameters
        live = {"optimizer", "scheduler", "build_other"} & set(parameters)
        if other_process and live:
            raise CheckError(
                f"check {function.__name__} has a parameter {min(live)!r}; "
                "another process has no live optimizer or scheduler, and no build_other"
            )
        return _decorate(function, Check(function, "resume", "trajectory", **fields))

    return decorate if function is None else decorate(function)


def state_check(
    *, at: At, compares: Compares = "values", **fields: Unpack[StateFields]
) -> Callable[[Function], Function]:
    """Make a function that returns ``(expected, actual)`` a state check.

    `at` is ``save`` (right after every save) or ``step`` (at the start and after
    every step). With ``compares="trajectory"`` the function returns
    ``(optimizer, scheduler)`` instead, like a resume check. Runs with one of the operations in
    `without` are not checked. `resume_check` describes the other parameters and the errors.
    """
    if at not in ("save", "step"):
        raise CheckError(f"a state check's 'at' must be save or step (got {at!r})")
    if compares not in ("values", "trajectory"):
        raise CheckError(f"'compares' must be values or trajectory (got {compares!r})")

    def decorate(function: Function) -> Function:
        return _decorate(function, Check(function, "state", compares, at, **fields))

    return decorate
