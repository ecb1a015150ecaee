"""What makes a function a check."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, overload

from harness.errors import CheckError
from harness.loop import save_checkpoint

__all__ = ["Check", "resume_check", "state_check"]

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
    search: bool = True

    @property
    def name(self) -> str:
        """The name of the function."""
        return self.function.__name__

    @property
    def reference(self) -> str:
        """How the command line names it: its name, or ``module:attribute`` for a user's own."""
        function = self.function
        if function.__module__.partition(".")[0] == __package__:
            return self.name
        if function.__module__ == "__main__" or "<" in function.__qualname__:
            return ""
        return f"{function.__module__}:{function.__qualname__}"

    @property
    def doc(self) -> str:
        """The promise: the first line of the docstring."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]

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
    search: bool = ...,
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
    search: bool = True,
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
        ``last_epoch``, or ``options``; one that lacks it declines the check.
    about : str
        Whose state it is about.
    from_epoch : int
        The first epoch (scheduler steps made) that it can resume at.
    weights : bool
        Whether the weights of the model must go on as well: not where the
        optimizer's own state is not restored.
    same_dict : bool
        Whether every resume from a slot is given one and the same dict, where
        otherwise each is given its own copy.
    search : bool
        Whether traces are drawn for it after the sweep.

    Raises `CheckError` for a function without a docstring, or with a parameter
    that no check can take.
    """
    if at not in ("resume", "load", "save"):
        raise CheckError(f"a resume check's 'at' must be resume, load or save (got {at!r})")

    def decorate(function: Function) -> Function:
        return _decorate(
            function,
            Check(
                function, "resume", at, "trajectory", save, default, needs, about,
                from_epoch, weights, same_dict, search,
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
) -> Callable[[Function], Function]:
    """Make a function that returns ``(expected, actual)`` a state check.

    `at` is ``save`` (right after every save) or ``step`` (at the start and after
    every step). With ``compares="trajectory"`` the function returns
    ``(optimizer, scheduler)`` instead, as that of a resume check does. The other
    parameters, and the errors, are those of `resume_check`.
    """
    if at not in ("save", "step"):
        raise CheckError(f"a state check's 'at' must be save or step (got {at!r})")
    if compares not in ("values", "trajectory"):
        raise CheckError(f"'compares' must be values or trajectory (got {compares!r})")

    def decorate(function: Function) -> Function:
        return _decorate(
            function, Check(function, "state", at, compares, save, default, needs, about)
        )

    return decorate
