"""Checks that a learning-rate schedule survives a checkpoint.

If training stops at any moment and is resumed in any of the ways people resume, does the
learning-rate trajectory go on exactly as if nothing had happened?

from harness import check_scheduler

def test_resume():
    check_scheduler(MyScheduler, num_steps=7)

Read on, each by ``python -m pydoc``:

===========================  ======================================================================
`harness.subjects.subject`   what is checked, and how to say it
`harness.checks.registry`    the promises, and how to write one
`harness.core.trace`         what was done, as a line that prints and parses back
`harness.core.operations`    what a training loop does, and how to add to it
`harness.core.result`        the verdicts, and what is compared
`harness.report.text`        reports as text and as JSON; `harness.report.failures`: by cause
`harness.core.ledger`        known failures
`harness.pytest_plugin`      in pytest
`harness.engine.ordering`    time budgets, shards, and runs that go on until stopped
`harness.subjects.discover`  subjects that are found in packages
`harness.report.diff`        two versions of torch; `harness.report.matrix`: several
`harness.engine.search`      how it looks for a difference, and what that rests on
`harness.engine.selftest`    how it is proven, and against which other tests it was measured
`harness.subjects.installed` what installed packages ship: subjects, ledgers, planted faults
===========================  ======================================================================

What it cannot see, each with a test in tests/test_blind_spots.py that passes while it is so:

* What depends on more than the steps: the clock, the loss or the gradients of a real model. A
  schedule that is not the same twice is UNKNOWN. A metric is a fixed sequence.
* State outside of optimizer and scheduler: data loaders, AMP scalers, random generators, ranks
  that hold other parameters. The default checks share one process, so what a module global keeps
  is not lost as it would be; `resume_in_another_process` sees that.
* Faults later than the runs: every save point of the first 12 epochs is tried (``length``, a
  field of a subject), those up to epoch 36 only by chance.
* Options that it was not given, or that are not drawn.
* A second defect behind the first, under the same options.
* Param groups after the second, unless the subject's optimizer has more, or is drawn;
  hyperparameters other than lr, momentum, betas and weight decay; which tensor holds an LR,
  where a captured graph would read the old one.
* Optimizers whose ``step`` needs a closure: UNKNOWN. The drawn LBFGS steps without one.
* On torch 1.13 ``weights_only`` can't load a float, so the two checks that need it are DECLINED
  there, and the selftest sets them aside.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.api import check_scheduler
    from harness.checks.registry import CHECKS
    from harness.core.check import Check, resume_check, state_check
    from harness.core.errors import (
        CheckError,
        HarnessError,
        OutputError,
        ScriptError,
        SubjectError,
        TraceError,
        UndecidedError,
    )
    from harness.core.literals import Term
    from harness.core.operations import Operation
    from harness.core.result import BrokenSchedule, Budget, Counterexample, Result
    from harness.core.trace import Trace
    from harness.core.training_loop import metrics, step_with_metric
    from harness.engine.session import check_subject, replay
    from harness.parametrize import parametrize_with_checks
    from harness.report.script import write_script
    from harness.subjects.subject import Subject

__version__ = "0.1.0"

_HOME = {
    "Failure": "report.failures",
    "Verdict": "core.verdict",
    "failures": "report.failures",
    "CHECKS": "checks.registry",
    "BrokenSchedule": "core.result",
    "Budget": "core.result",
    "Check": "core.check",
    "CheckError": "core.errors",
    "Counterexample": "core.result",
    "HarnessError": "core.errors",
    "Operation": "core.operations",
    "OutputError": "core.errors",
    "Result": "core.result",
    "ScriptError": "core.errors",
    "Subject": "subjects.subject",
    "SubjectError": "core.errors",
    "Term": "core.literals",
    "Trace": "core.trace",
    "TraceError": "core.errors",
    "UndecidedError": "core.errors",
    "check_scheduler": "api",
    "check_subject": "engine.session",
    "metrics": "core.training_loop",
    "parametrize_with_checks": "parametrize",
    "replay": "engine.session",
    "resume_check": "core.check",
    "state_check": "core.check",
    "step_with_metric": "core.training_loop",
    "write_script": "report.script",
}

__all__ = [
    "CHECKS",
    "BrokenSchedule",
    "Budget",
    "Check",
    "CheckError",
    "Counterexample",
    "Failure",
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
    "Verdict",
    "check_scheduler",
    "check_subject",
    "failures",
    "metrics",
    "parametrize_with_checks",
    "replay",
    "resume_check",
    "state_check",
    "step_with_metric",
    "write_script",
]


def __dir__() -> list[str]:
    """The public names, so that ``dir``, ``pydoc`` and editors show what is imported late."""
    return [*__all__, "__doc__", "__version__"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: ``--help`` must not wait for torch."""
    if name not in _HOME:
        raise AttributeError(f"module 'harness' has no attribute {name!r}")
    return getattr(importlib.import_module(f"harness.{_HOME[name]}"), name)
