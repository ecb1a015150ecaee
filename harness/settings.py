"""Default settings: what to check, and how thoroughly. A call in a test can override them.

While pytest runs, its plugin sets `current` from options and ini keys, and reads `unreported`.
The plugin does not import this module, which tells it when it is imported.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.core.errors import CheckError
from harness.core.project import NO_PROJECT, Project

if TYPE_CHECKING:
    from harness.core.result import Budget, Result
    from harness.training.result import TrainingResult


@dataclass(frozen=True)
class Settings:
    """The settings of `harness.check_scheduler` and `harness.parametrize_with_checks`.

    `ledgers` are files of known failures; `no_ledger` ignores them. `time_limit` is the limit for
    each pair, in seconds. The `project` is its configuration, whose numbers and ledgers are here
    too. Raises `CheckError` for an invalid value.
    """

    all_checks: bool = False
    max_examples: int = 25
    seed: int = 0
    time_limit: float = 30.0
    ledgers: tuple[Path, ...] = ()
    no_ledger: bool = False
    project: Project = field(default=NO_PROJECT, hash=False)

    def __post_init__(self) -> None:
        if self.max_examples < 0:
            raise CheckError(f"'max_examples' must be 0 or more (got {self.max_examples!r})")
        if not 0 < self.time_limit <= 86400:
            raise CheckError(
                "'time_limit' must be a number of seconds, more than 0 and at most 86400 "
                f"(got {self.time_limit!r})"
            )

    def with_arguments(
        self,
        *,
        checks: Collection[object] = (),
        all_checks: bool | None = None,
        max_examples: int | None = None,
        seed: int | None = None,
        time_limit: float | None = None,
        ledger: str | Path | Iterable[str | Path] | None = None,
    ) -> Settings:
        """A copy in which each argument that is not None replaces the present value.

        A call that names its `checks` gets the opt-in checks only if it asks for them itself.
        """
        if checks and all_checks is None:
            all_checks = False
        given: dict[str, object] = {
            "all_checks": all_checks,
            "max_examples": max_examples,
            "seed": seed,
            "time_limit": time_limit,
        }
        if ledger is not None:
            files = [ledger] if isinstance(ledger, (str, Path)) else ledger
            given |= {"ledgers": tuple(map(Path, files)), "no_ledger": False}
        changes = {name: value for name, value in given.items() if value is not None}
        return replace(self, **changes)  # type: ignore[arg-type]

    @property
    def budget(self) -> Budget:
        """How much to try for each pair."""
        from harness.core.result import Budget

        return Budget(self.max_examples, self.seed, self.time_limit)

    @property
    def files(self) -> tuple[Path, ...]:
        """The ledgers to read."""
        return () if self.no_ledger else self.ledgers


current = Settings()
"""The settings of this process."""
unreported: list[Sequence[Result]] | None = None
"""The results of each call in a test, until pytest reports it; None without the plugin."""

unreported_training: list[TrainingResult] = []
"""The results of `harness.check_training` in a test, until pytest reports it."""


def keep_for_report(results: Sequence[Result]) -> None:
    """Hand the results of a call in a test to the pytest plugin."""
    if unreported is not None:
        unreported.append(results)


def keep_training_for_report(result: TrainingResult) -> None:
    """Hand the result on a training script to the pytest plugin."""
    if unreported is not None:
        unreported_training.append(result)


if "lr_resume_harness.pytest_plugin" in sys.modules:
    sys.modules["lr_resume_harness.pytest_plugin"].use_harness()
