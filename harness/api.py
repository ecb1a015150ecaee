"""`check_scheduler` and `check_training`, for tests and scripts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from harness import settings
from harness.checks.registry import list_of_checks, select_checks
from harness.core.errors import CheckError, UndecidedError
from harness.core.ledger import read_ledger
from harness.core.project import SubjectSettings
from harness.core.result import BrokenSchedule, Result, nothing_was_checked
from harness.core.verdict import Verdict
from harness.engine.other_process import worker_of
from harness.engine.session import check_subject
from harness.report.text import broken_text, failures, reasons_text
from harness.subjects.lookup import as_subject
from harness.training.check import Request, check_command
from harness.training.result import BrokenTraining, TrainingResult
from harness.training.result import Verdict as Training
from harness.training.text import result_text

NOTHING_CHECKED = (
    "nothing was checked, because nothing changes in the schedule: give options with which "
    "something changes, or a Subject(..., constant=True) if nothing should"
)


def check_scheduler(
    subject: object,
    *,
    checks: Iterable[object] = (),
    all_checks: bool | None = None,
    max_examples: int | None = None,
    seed: int | None = None,
    time_limit: float | None = None,
    resume_python: str = "",
    ledger: str | Path | Iterable[str | Path] | None = None,
    length: int | None = None,
    optimizer: object = None,
    step: object = None,
    declines: Mapping[str, str] | None = None,
    expected_failures: Mapping[str, str] | None = None,
    **options: object,
) -> list[Result]:
    """Check that a scheduler survives a checkpoint; for any test.

    Parameters
    ----------
    subject : Subject, class or callable
        The scheduler: a `Subject`, a class or function that is called as
        ``build(optimizer, last_epoch=-1, **options)``, or ``"module:attribute"``.
    checks : iterable
        Names of checks, or functions decorated as checks; the default checks if empty.
    all_checks : bool, optional
        Whether to add the opt-in checks.
    max_examples : int, optional
        Random traces to try for each check, after the sweep; 0 runs only the sweep.
    seed : int, optional
        Seed of the search: the same seed draws the same traces.
    time_limit : float, optional
        Seconds for each check.
    resume_python : str
        Path of another Python, for example with another torch. Adds the checks that go through
        another process: they save with one Python and resume with the other.
    ledger : str, Path or iterable of these, optional
        Files of known failures (`harness.core.ledger`): a failure in them is KNOWN and does not
        fail the test. PyTorch's own ledger is not read unless its path is given.
    length, optimizer, step, declines, expected_failures
        As in `Subject`; `optimizer` and `step` can also be texts as in a trace, such as
        ``"AdamW(groups=2)"`` and ``"metric"``.
    **options
        Keyword arguments of `build`, values or Hypothesis strategies.

    An argument that is None takes its value from pytest's options and ini keys
    (`harness.pytest_plugin`), and otherwise the default of the command line, without a ledger.

    Returns the list of results. Raises `BrokenSchedule`, an `AssertionError`, if a check is
    BROKEN or a ledger entry about it is STALE; `UndecidedError` if a check is UNKNOWN and none
    is BROKEN or STALE, or if nothing was checked because nothing changes in the schedule;
    `CheckError`, `SubjectError` or `LedgerError` if an argument is wrong.

    >>> from torch.optim.lr_scheduler import ExponentialLR
    >>> results = check_scheduler(ExponentialLR, gamma=0.9, checks=["resume_at_every_save"])
    >>> results[0].verdict
    <Verdict.HOLDS: 'HOLDS'>
    """
    __tracebackhide__ = True  # pytest shows the report, not this function
    project = settings.current.project
    checks = list_of_checks(checks) or list(project.checks)
    given = SubjectSettings(
        length=length, optimizer=optimizer, step=step, declines=declines or {},
        expected_failures=expected_failures or {},
    )  # fmt: skip
    wanted = settings.current.with_arguments(
        checks=checks, all_checks=all_checks, max_examples=max_examples, seed=seed,
        time_limit=time_limit, ledger=ledger,
    )  # fmt: skip
    chosen = as_subject(
        subject, options=options, settings_of=lambda *names: project.settings_of(*names).plus(given)
    )
    if resume_python:
        worker_of(resume_python)  # so that an error in it is raised early
    selected = select_checks(
        checks,
        all_checks=wanted.all_checks,
        other_process=bool(resume_python),
        contract=bool(chosen.contract),
    )
    chosen.check_options()
    results = list(
        check_subject(
            chosen, selected, wanted.budget, resume_python=resume_python,
            ledger=read_ledger(wanted.files),
        )
    )  # fmt: skip
    settings.keep_for_report(results)
    broken = [broken_text(failure) for failure in failures(results)]
    broken += filter(None, [reasons_text(results, Verdict.STALE)])
    if broken:
        raise BrokenSchedule("\n\n".join(broken), results)
    if any(result.verdict == Verdict.UNKNOWN for result in results):
        raise UndecidedError(reasons_text(results, Verdict.UNKNOWN))
    if nothing_was_checked(results):
        raise UndecidedError(f"{NOTHING_CHECKED}\n\n{reasons_text(results, Verdict.DECLINED)}")
    return results


def check_training(
    command: str | Sequence[str],
    *,
    checkpoints: str | Path | Iterable[str | Path],
    resume: str | Sequence[str] = "",
    compare: str = "lr",
    stop_after: int | None = None,
    inside_saves: bool = False,
    signal: str = "",
    at: Iterable[int] = (),
    chain: int | None = None,
    time_limit: float | None = None,
    new_processes: bool = False,
    allow_outside: bool = False,
) -> TrainingResult:
    """Check that the schedule of a training script goes on exactly, wherever it is killed.

    It does what ``lr-resume-harness train`` does, and the options are the same.

    Parameters
    ----------
    command : str or sequence of str
        What trains from the start, such as ``"python train.py"``. It is run in the current folder.
    checkpoints : str, Path or iterable of these
        The files and folders that it saves to. What is there now is put aside, and put back.
    resume : str or sequence of str
        What resumes; `command` if empty.
    compare : str
        ``"lr"``: the LR, momentum, betas and weight decay of every step, and whether the
        optimizer's state is there. ``"all"``: also weights and gradients.
    stop_after : int, optional
        Stop every run after this many optimizer steps.
    inside_saves : bool
        Whether to kill it also in the middle of each save.
    signal : str
        A signal, such as ``"TERM"``, for a script that saves when it is told to stop.
    at : iterable of int
        The numbers of optimizer steps after which to send the signal, each time in another run.
    chain : int, optional
        Also kill every attempt after this many steps of its own, until one ends by itself.
    time_limit : float, optional
        Seconds for one resumed run; if None, 60 more than ten times what the recorded run took.
    new_processes : bool
        Whether to start a new process for every resume, and never fork.
    allow_outside : bool
        Whether checkpoints may be outside the current folder.

    Returns the result, whose verdict is HOLDS: ``result.recordings`` has what each step used, by
    rank, and ``result.outcomes`` what each resume did. Raises `BrokenTraining`, an
    `AssertionError` with the ``result``, if a resume is BROKEN or fails; `UndecidedError` if the
    verdict is UNKNOWN; another `HarnessError` if the command or the paths can't be used.

    ::

        def test_training_resumes():
            check_training("python train.py", checkpoints="runs")
    """
    __tracebackhide__ = True
    if compare not in ("lr", "all"):
        raise CheckError(f"'compare' must be 'lr' or 'all' (got {compare!r})")
    for name, number in (("stop_after", stop_after), ("chain", chain)):
        if number is not None and number < 1:
            raise CheckError(f"{name!r} must be 1 or more (got {number!r})")
    if time_limit is not None and not time_limit > 0:
        raise CheckError(f"'time_limit' must be a number of seconds above 0 (got {time_limit!r})")
    paths = [checkpoints] if isinstance(checkpoints, (str, Path)) else list(checkpoints)
    request = Request(
        command, [Path(path) for path in paths], resume, compare == "all", stop_after,
        allow_outside, time_limit, new_processes, inside_saves, signal, tuple(at), chain,
    )  # fmt: skip
    result = check_command(request)
    if not result.complete and not result.reason:  # Ctrl-C
        raise KeyboardInterrupt(result_text(result))
    settings.keep_training_for_report(result)
    if result.verdict in (Training.BROKEN, Training.CANNOT_RESUME):
        raise BrokenTraining(result_text(result), result)
    if result.verdict == Training.UNKNOWN:
        raise UndecidedError(result_text(result))
    return result
