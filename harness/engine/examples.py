"""The counterexamples of earlier runs with ``--profile explore``, in Hypothesis's database."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis.database import DirectoryBasedExampleDatabase, ExampleDatabase

from harness.core.errors import TraceError
from harness.core.output import make_folder
from harness.core.trace import Trace


class Examples:
    """Traces that broke a pair of subject and check; each is written at once and completely.

    `place` is the folder that they are in, for messages.
    """

    def __init__(self, database: ExampleDatabase, place: str = "") -> None:
        self.database = database
        self.place = place

    @classmethod
    def here(cls) -> Examples:
        """The examples in Hypothesis's own folder: ``.hypothesis/examples``, unless configured.

        ``HYPOTHESIS_STORAGE_DIRECTORY`` names another folder than ``.hypothesis``. Raises
        `OutputError` if the folder is not writable.
        """
        folder = Path(os.environ.get("HYPOTHESIS_STORAGE_DIRECTORY", ".hypothesis"), "examples")
        make_folder(folder)
        return cls(DirectoryBasedExampleDatabase(folder), str(folder))

    def of(self, subject: str, check: str) -> list[Trace]:
        """The traces of a pair, the shortest first; text that is not a valid trace is deleted."""
        traces = []
        for value in list(self.database.fetch(_key(subject, check))):
            try:
                traces.append(Trace.parse(value.decode()))
            except (TraceError, UnicodeDecodeError):
                self.database.delete(_key(subject, check), value)
        return sorted(traces, key=lambda trace: (len(str(trace)), str(trace)))

    def save(self, subject: str, check: str, trace: Trace) -> None:
        """Save a trace."""
        self.database.save(_key(subject, check), str(trace).encode())

    def forget(self, subject: str, check: str, trace: Trace) -> None:
        """Delete a trace."""
        self.database.delete(_key(subject, check), str(trace).encode())


def _key(subject: str, check: str) -> bytes:
    return f"lr-resume-harness {subject} {check}".encode()
