"""Checks that a learning-rate schedule survives a checkpoint.

from harness import check_scheduler

def test_resume():
    check_scheduler(MyScheduler, num_steps=7)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.api import check_scheduler, replay
    from harness.causes import Cause, explain
    from harness.checks import CHECKS
    from harness.decorators import Check, resume_check, state_check
    from harness.errors import (
        CheckError,
        HarnessError,
        OutputError,
        ScriptError,
        SubjectError,
        TraceError,
        UndecidedError,
    )
    from harness.loop import metrics, step_with_metric
    from harness.pairs import check_subject
    from harness.pytest_plugin import parametrize_with_checks
    from harness.results import BrokenSchedule, Budget, Counterexample, Result
    from harness.script import write_script
    from harness.subject import Subject
    from harness.terms import Term
    from harness.trace import Operation, Trace

__version__ = "0.1.0"

_HOME = {
    "CHECKS": "checks",
    "BrokenSchedule": "results",
    "Budget": "results",
    "Cause": "causes",
    "Check": "decorators",
    "CheckError": "errors",
    "Counterexample": "results",
    "HarnessError": "errors",
    "Operation": "trace",
    "OutputError": "errors",
    "Result": "results",
    "ScriptError": "errors",
    "Subject": "subject",
    "SubjectError": "errors",
    "Term": "terms",
    "Trace": "trace",
    "TraceError": "errors",
    "UndecidedError": "errors",
    "check_scheduler": "api",
    "check_subject": "pairs",
    "explain": "causes",
    "metrics": "loop",
    "parametrize_with_checks": "pytest_plugin",
    "replay": "api",
    "resume_check": "decorators",
    "state_check": "decorators",
    "step_with_metric": "loop",
    "write_script": "script",
}

__all__ = [
    "CHECKS",
    "BrokenSchedule",
    "Budget",
    "Cause",
    "Check",
    "CheckError",
    "Counterexample",
    "HarnessError",
    "Operation",
    "OutputError",
    "Result",
    "ScriptError",
    "Subject",
    "SubjectError",
    "Term",
    "Trace",
    "TraceError",
    "UndecidedError",
    "check_scheduler",
    "check_subject",
    "explain",
    "metrics",
    "parametrize_with_checks",
    "replay",
    "resume_check",
    "state_check",
    "step_with_metric",
    "write_script",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: ``--help`` must not wait for torch."""
    if name not in _HOME:
        raise AttributeError(f"module 'harness' has no attribute {name!r}")
    return getattr(importlib.import_module(f"harness.{_HOME[name]}"), name)
