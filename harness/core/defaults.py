"""What is checked, and how thoroughly, where a call in a test does not say it.

`current` is what the pytest plugin read from options and ini keys, while pytest runs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from harness.core.errors import CheckError


@dataclass(frozen=True)
class Settings:
    """The settings of `harness.check_scheduler` and `harness.parametrize_with_checks`.

    `ledgers` are files of known failures, none of which is read with `no_ledger`; `time_limit`
    is in seconds for each pair. Raises `CheckError` for a value that can't be.
    """

    all_checks: bool = False
    max_examples: int = 25
    seed: int = 0
    time_limit: float = 30.0
    ledgers: tuple[Path, ...] = ()
    no_ledger: bool = False
    search_known: bool = False

    def __post_init__(self) -> None:
        if self.max_examples < 0:
            raise CheckError(f"'max_examples' must be 0 or more (got {self.max_examples!r})")
        if not 0 < self.time_limit <= 86400:
            raise CheckError(
                f"'time_limit' must be seconds, above 0 and within a day (got {self.time_limit!r})"
            )

    def having(
        self,
        *,
        all_checks: bool | None = None,
        max_examples: int | None = None,
        seed: int | None = None,
        time_limit: float | None = None,
        ledger: str | Path | Iterable[str | Path] | None = None,
    ) -> Settings:
        """The same with what is not None in place of its own."""
        given: dict[str, object] = {
            "all_checks": all_checks,
            "max_examples": max_examples,
            "seed": seed,
            "time_limit": time_limit,
        }
        if ledger is not None:
            files = [ledger] if isinstance(ledger, (str, Path)) else ledger
            given |= {"ledgers": tuple(map(Path, files)), "no_ledger": False}
        said = {name: value for name, value in given.items() if value is not None}
        return replace(self, **said)  # type: ignore[arg-type]

    @property
    def files(self) -> tuple[Path, ...]:
        """The ledgers to read."""
        return () if self.no_ledger else self.ledgers


current = Settings()
"""The settings of this process."""
