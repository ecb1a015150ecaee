"""Sets of options that Hypothesis draws, and shrinks."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias
from unittest import mock

from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis import strategies as st

OptionsStrategy: TypeAlias = st.SearchStrategy[dict[str, object]]
"""Draws sets of options."""


class _Leave(BaseException):
    """Carries an exception of `breaks` through Hypothesis, which would catch and shrink it."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


class _Found(Exception):
    """The drawn options break something."""

    def __init__(self, options: dict[str, object]) -> None:
        self.options = options


def quiet_settings(max_examples: int) -> settings:
    """Hypothesis settings for drawing only: nothing is printed or saved, and no deadline."""
    return settings(
        max_examples=max_examples,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        verbosity=Verbosity.quiet,
        report_multiple_bugs=False,
        print_blob=False,
    )


@contextlib.contextmanager
def without_local_constants() -> Iterator[None]:
    """Stop Hypothesis from drawing numbers that it finds in the imported modules.

    With these numbers the traces of a seed would depend on which modules are imported, and
    the folder ``.hypothesis`` would be left behind. There is no setting for it. If a version
    of Hypothesis doesn't have these names, nothing is done.
    """
    with contextlib.ExitStack() as stack:
        providers: Any = sys.modules.get("hypothesis.internal.conjecture.providers")
        names = ("_get_local_constants", "_local_constants", "CONSTANTS_CACHE")
        if all(hasattr(providers, name) for name in names):
            none = type(providers._local_constants)()
            patch = mock.patch.multiple(
                providers, _get_local_constants=lambda: none, CONSTANTS_CACHE={}
            )
            stack.enter_context(patch)
        yield


def draw_options(
    strategy: OptionsStrategy, count: int, seed_number: int
) -> list[dict[str, object]]:
    """Draw up to `count` different sets of options, the simplest first."""
    seen: dict[str, dict[str, object]] = {}
    _each(strategy, lambda values: seen.setdefault(_text(values), values), count, seed_number)
    return [dict(sorted(values.items())) for values in seen.values()]


def _text(values: dict[str, object]) -> str:
    """Drawn options as text, independent of the order in which they were drawn."""
    return repr(sorted(values.items()))


def shrink_options(
    strategy: OptionsStrategy,
    breaks: Callable[[dict[str, object]], bool],
    count: int,
    seed_number: int,
) -> dict[str, object] | None:
    """The simplest drawn options for which `breaks` is true, shrunk; None if there are none.

    Exceptions of `breaks` are passed on.
    """
    known: dict[str, bool] = {}

    def see(values: dict[str, object]) -> None:
        text = _text(values)
        if text not in known:
            try:
                known[text] = breaks(values)
            except BaseException as error:
                raise _Leave(error) from error
        if known[text]:
            raise _Found(values)

    try:
        _each(strategy, see, count, seed_number)
    except _Found as found:
        return dict(sorted(found.options.items()))
    except _Leave as leave:
        raise leave.error from None
    return None


def _each(
    strategy: OptionsStrategy,
    see: Callable[[dict[str, object]], object],
    count: int,
    seed_number: int,
) -> None:
    """Call `see` with at most `count` drawn sets of options; shrink a set for which it raises."""

    @seed(seed_number)
    @quiet_settings(count)
    @given(strategy)
    def draw(values: dict[str, object]) -> None:
        see(values)

    with without_local_constants():
        draw()
