"""Counterexamples that earlier runs found, kept in Hypothesis's example database."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis.database import DirectoryBasedExampleDatabase, ExampleDatabase

from harness.core.errors import TraceError
from harness.core.files import check_folder
from harness.core.trace import Trace


class Examples:
    """Traces that broke a pair, by its subject and check; each is written at once and whole."""

    def __init__(self, database: ExampleDatabase) -> None:
        self.database = database

    @classmethod
    def here(cls) -> Examples:
        """Those where Hypothesis keeps its own: ``.hypothesis/examples``, or where it was told to.

        Raises `OutputError` where nothing can be written there.
        """
        folder = Path(os.environ.get("HYPOTHESIS_STORAGE_DIRECTORY", ".hypothesis"), "examples")
        check_folder(folder)
        return cls(DirectoryBasedExampleDatabase(folder))

    def of(self, subject: str, check: str) -> list[Trace]:
        """The traces of a pair, the shortest first; what is no trace any more is forgotten."""
        traces = []
        for value in list(self.database.fetch(_key(subject, check))):
            try:
                traces.append(Trace.parse(value.decode()))
            except (TraceError, UnicodeDecodeError):
                self.database.delete(_key(subject, check), value)
        return sorted(traces, key=lambda trace: (len(str(trace)), str(trace)))

    def save(self, subject: str, check: str, trace: Trace) -> None:
        """Keep a trace."""
        self.database.save(_key(subject, check), str(trace).encode())

    def forget(self, subject: str, check: str, trace: Trace) -> None:
        """Keep a trace no longer."""
        self.database.delete(_key(subject, check), str(trace).encode())


def _key(subject: str, check: str) -> bytes:
    return f"lr-resume-harness {subject} {check}".encode()
