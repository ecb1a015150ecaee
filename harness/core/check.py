"""What makes a function a check."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar, overload

from harness.core.errors import CheckError
from harness.core.result import Promise
from harness.core.training_loop import save_checkpoint

Function = TypeVar("Function", bound=Callable[..., Any])
PARAMETERS = ("new_optimizer", "build", "checkpoint", "optimizer", "scheduler")


@dataclass(frozen=True)
class Check:
    """A check, as its decorator describes it; see `resume_check` and `state_check`."""

    function: Callable[..., Any]
    kind: str
    at: str
    compares: str
    save: Callable[..., dict[str, Any]]
    default: bool
    needs: tuple[str, ...]
    about: str
    from_epoch: int = 0
    weights: bool = True
    same_dict: bool = False
    without: tuple[str, ...] = ()
    search: bool = True
    elsewhere: str = ""
    changes_options: bool = False
    mixes: bool = False
    prerequisite: Check | None = None
    own_name: str = ""
    own_doc: str = ""

    @property
    def name(self) -> str:
        """The name of the function, or its own if another check has the same function."""
        return self.own_name or self.function.__name__

    def variant(self, name: str, doc: str, **changes: Any) -> Check:
        """A check with the same route at another moment.

        `doc` is its promise; `changes` are those of its fields that differ.
        """
        return replace(self, own_name=name, own_doc=doc, **changes)

    @property
    def reference(self) -> str:
        """How the command line names it: its name, or ``module:attribute`` for a user's own."""
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
        """What reports say of it."""
        return Promise(
            self.doc, self.about, self.kind, self.at, self.compares, self.changes_options
        )

    @functools.cached_property
    def parameters(self) -> tuple[str, ...]:
        """What the function takes."""
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


def check_of(function: Callable[..., Any]) -> Check:
    """The check that a decorated function is; raises `CheckError` if it is not decorated."""
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
def resume_check(
    *,
    at: str = ...,
    save: Callable[..., dict[str, Any]] = ...,
    default: bool = ...,
    needs: tuple[str, ...] = ...,
    about: str = ...,
    from_epoch: int = ...,
    weights: bool = ...,
    same_dict: bool = ...,
    without: tuple[str, ...] = ...,
    search: bool = ...,
    elsewhere: str = ...,
    mixes: bool = ...,
) -> Callable[[Function], Function]: ...


def resume_check(
    function: Any = None,
    /,
    *,
    at: str = "resume",
    save: Callable[..., dict[str, Any]] = save_checkpoint,
    default: bool = True,
    needs: tuple[str, ...] = (),
    about: str = "the scheduler's state",
    from_epoch: int = 0,
    weights: bool = True,
    same_dict: bool = False,
    without: tuple[str, ...] = (),
    search: bool = True,
    elsewhere: str = "",
    mixes: bool = False,
) -> Any:
    """Make a function that returns ``(optimizer, scheduler)`` a resume check.

    Parameters
    ----------
    at : str
        The operation that calls it: ``resume`` (from a slot), ``load`` (into
        the live objects) or ``save`` (right after every save).
    save : callable
        ``save(optimizer, scheduler, epoch)`` returns the checkpoint, a dict.
    default : bool
        Whether it is on where no checks are named.
    needs : tuple of str
        What not every scheduler has, ``get_last_lr``, (a build that takes)
        ``last_epoch`` or (a state that goes into) ``json``, or not every torch,
        ``distributed_checkpoint`` or (a float by) ``weights_only``; where it
        lacks, the check is declined.
    about : str
        Whose state it is about.
    from_epoch : int
        The first epoch (scheduler steps made) that it can resume at.
    weights : bool
        Whether the weights of the model must go on as well: not where the
        optimizer's own state is not restored.
    same_dict : bool
        Whether every resume from a slot is given one and the same scheduler state; otherwise
        each gets its own copy. Everything else in the checkpoint is copied each time: an
        optimizer goes on using the tensors that it loads.
    without : tuple of str
        The operations (of `harness.core.operations.EVENTS`) that it does not bring back:
        where one was done before the save, it is not tried.
    search : bool
        Whether traces are drawn for it after the sweep; where not, for it is slow,
        the sweep takes few save points as well.
    elsewhere : str
        What is done in another process: nothing, ``resume`` (every resume, and what
        follows it), ``save`` (what comes before the first resume), or ``all``. Such a
        check is not searched.
    mixes : bool
        Whether it has no route of its own: each resume of its traces names another check.

    Raises `CheckError` for a function without a docstring, or with a parameter
    that no check can take.
    """
    if at not in ("resume", "load", "save"):
        raise CheckError(f"a resume check's 'at' must be resume, load or save (got {at!r})")
    if elsewhere not in ("", "resume", "save", "all"):
        raise CheckError(f"'elsewhere' must be resume, save, all or nothing (got {elsewhere!r})")
    if elsewhere and (at != "resume" or same_dict):
        raise CheckError("what is done in another process goes by resume, and by no shared dict")

    def decorate(function: Function) -> Function:
        live = {"optimizer", "scheduler"} & set(inspect.signature(function).parameters)
        if elsewhere and live:
            raise CheckError(
                f"check {function.__name__} has a parameter {min(live)!r}; "
                "in another process there is no live one"
            )
        return _decorate(
            function,
            Check(
                function, "resume", at, "trajectory", save, default, needs, about,
                from_epoch, weights, same_dict, without, search and not elsewhere, elsewhere,
                mixes=mixes,
            ),
        )  # fmt: skip

    return decorate if function is None else decorate(function)


def state_check(
    *,
    at: str,
    save: Callable[..., dict[str, Any]] = save_checkpoint,
    default: bool = True,
    needs: tuple[str, ...] = (),
    about: str = "the scheduler's state",
    compares: str = "values",
    without: tuple[str, ...] = (),
) -> Callable[[Function], Function]:
    """Make a function that returns ``(expected, actual)`` a state check.

    `at` is ``save`` (right after every save) or ``step`` (at the start and after
    every step). With ``compares="trajectory"`` the function returns
    ``(optimizer, scheduler)`` instead, as that of a resume check does. Its promise
    is not about runs with the operations `without`. The other parameters, and the
    errors, are those of `resume_check`.
    """
    if at not in ("save", "step"):
        raise CheckError(f"a state check's 'at' must be save or step (got {at!r})")
    if compares not in ("values", "trajectory"):
        raise CheckError(f"'compares' must be values or trajectory (got {compares!r})")

    def decorate(function: Function) -> Function:
        return _decorate(
            function,
            Check(
                function, "state", at, compares, save, default, needs, about, without=without
            ),
        )  # fmt: skip

    return decorate
