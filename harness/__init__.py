"""Checks that a learning-rate schedule survives a checkpoint.

If training stops at any moment and is resumed in any of the ways people resume, does the
learning-rate trajectory go on exactly as if nothing had happened?

from harness import check_scheduler

def test_resume():
    check_scheduler(MyScheduler, num_steps=7)

Read on, each by ``python -m pydoc``:

=================================  ================================================================
`harness.subject`                  what is checked, and how to say it
`harness.checks`                   the promises, and how to write one
`harness.trace`                    what was done, as a line that prints and parses back
`harness.results`                  the verdicts, and what is compared
`harness.report`                   reports as text and as JSON; `harness.causes` by cause
`harness.ledger`                   known failures
`harness.pytest_plugin`            in pytest
`harness.profiles`                 time budgets, shards, and runs that go on until stopped
`harness.discover`                 subjects that are found in packages
`harness.diff`, `harness.matrix`   several versions of torch
`harness.machine`                  how it looks for a difference, and what that rests on
`harness.selftest`                 how it is proven, and against which other tests it was measured
`lr_schedules.subjects`            what it finds in PyTorch
=================================  ================================================================

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
