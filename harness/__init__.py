"""Check that a learning-rate schedule survives a checkpoint.

If training stops at any moment and is resumed in any of the ways people resume, does the
learning-rate trajectory go on exactly as if nothing had happened?

from harness import check_scheduler

def test_resume():
    check_scheduler(MyScheduler, num_steps=7)

To read more, run ``python -m pydoc`` with one of these names:

===========================  ======================================================================
`harness.subjects.subject`   what is checked: a scheduler, and how to build and step it
`harness.checks.registry`    the checks, and how to write one
`harness.core.trace`         what a run did, as a line of text that parses back
`harness.core.operations`    what a training loop does, and how to add an operation
`harness.core.result`        results, and what is compared
`harness.report.text`        reports as text, with the failures grouped by cause
`harness.core.ledger`        known failures
`harness.stateful`           a Hypothesis state machine that resumes a scheduler
`harness.pytest_plugin`      how to use it in pytest
`harness.engine.ordering`    time budgets, shards, and runs that go on until stopped
`harness.subjects.discover`  how subjects are found in packages
`harness.subjects.protocols` how schedulers of other libraries are recognised and driven
`harness.report.diff`        compares two versions of torch; `harness.report.matrix` shows several
`harness.training.result`    the result of `check_training`, on a training script
`harness.engine.search`      how the sweep and the search find a difference
`harness.engine.selftest`    how the harness itself is tested
`harness.subjects.installed` what installed packages ship: subjects, ledgers, planted faults
===========================  ======================================================================

What it can't find (each has a test in tests/checks/test_blind_spots.py that passes as long as this
is true):

* Schedules that depend on more than the steps: on the clock, or on the loss or gradients of a
  real model. A schedule that differs between two identical runs is UNKNOWN. Metrics are a fixed
  sequence.
* State outside the optimizer and the scheduler: data loaders, AMP scalers, random generators,
  ranks with different parameters. The default checks run in one process, so a module global keeps
  its value where a real restart would lose it; `resume_in_another_process` finds that.
* Faults between the save points that are tried: all of the first 12 epochs (see ``length``, a field
  of a subject), then a few up to epoch 273, and those next to the changes in a run of 2,000 epochs.
* Options that were not given or drawn.
* A second defect behind the first, with the same options.
* Param groups after the third, unless the subject's optimizer has more or is drawn.
  Hyperparameters other than lr, momentum, betas and weight decay. Whether an LR is still in the
  same tensor: a captured graph may read the old one.
* Optimizers whose ``step`` needs a closure: they are UNKNOWN. The drawn LBFGS steps without one.
* On torch 1.13 ``weights_only`` can't load a float, so the two checks that need it are DECLINED
  there, and the selftest leaves them out.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.api import check_scheduler as check_scheduler
    from harness.api import check_training as check_training
    from harness.checks.registry import CHECKS as CHECKS
    from harness.core.check import Check as Check
    from harness.core.check import resume_check as resume_check
    from harness.core.check import state_check as state_check
    from harness.core.errors import CheckError as CheckError
    from harness.core.errors import HarnessError as HarnessError
    from harness.core.errors import OutputError as OutputError
    from harness.core.errors import ScriptError as ScriptError
    from harness.core.errors import SubjectError as SubjectError
    from harness.core.errors import TraceError as TraceError
    from harness.core.errors import UndecidedError as UndecidedError
    from harness.core.literals import Term as Term
    from harness.core.operations import Operation as Operation
    from harness.core.result import BrokenSchedule as BrokenSchedule
    from harness.core.result import Budget as Budget
    from harness.core.result import Counterexample as Counterexample
    from harness.core.result import Result as Result
    from harness.core.trace import Trace as Trace
    from harness.core.training_loop import metrics as metrics
    from harness.core.training_loop import step_with_metric as step_with_metric
    from harness.core.verdict import Verdict as Verdict
    from harness.engine.session import check_subject as check_subject
    from harness.engine.session import replay as replay
    from harness.parametrize import parametrize_with_checks as parametrize_with_checks
    from harness.report.script import write_script as write_script
    from harness.report.text import Failure as Failure
    from harness.report.text import failures as failures
    from harness.stateful import resume_machine as resume_machine
    from harness.subjects.subject import Subject as Subject
    from harness.training.result import BrokenTraining as BrokenTraining
    from harness.training.result import TrainingResult as TrainingResult

__version__ = "0.1.0"

_NAMES = {
    "api": "check_scheduler check_training",
    "checks.registry": "CHECKS",
    "core.check": "Check resume_check state_check",
    "core.errors": "CheckError HarnessError OutputError ScriptError "
    "SubjectError TraceError UndecidedError",
    "core.literals": "Term",
    "core.operations": "Operation",
    "core.result": "BrokenSchedule Budget Counterexample Result",
    "core.trace": "Trace",
    "core.training_loop": "metrics step_with_metric",
    "core.verdict": "Verdict",
    "engine.session": "check_subject replay",
    "parametrize": "parametrize_with_checks",
    "report.script": "write_script",
    "report.text": "Failure failures",
    "stateful": "resume_machine",
    "subjects.subject": "Subject",
    "training.result": "BrokenTraining TrainingResult",
}
"""The public names of each module."""
_HOME = {name: module for module, names in _NAMES.items() for name in names.split()}

__all__ = sorted(_HOME)


def __dir__() -> list[str]:
    """The public names: ``dir``, ``pydoc`` and editors show them before they are imported."""
    return [*__all__, "__doc__", "__version__"]


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for: ``--help`` must not wait for torch."""
    if name not in _HOME:
        raise AttributeError(f"module 'harness' has no attribute {name!r}")
    return getattr(importlib.import_module(f"harness.{_HOME[name]}"), name)
