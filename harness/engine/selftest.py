"""The selftest: does every check catch the faults planted for it, without false alarms?

A *trial* runs all checks on one planted fault, or one control, with one seed. It is *exact* if the
broken checks are exactly those of the fault's record, or none for a control.

Planted faults (`harness.engine.selftest.planted`) and controls, which are correct schedulers, come
from the packages that ship them (`harness.subjects.installed`). ``lr-resume-harness selftest``
prints which checks caught each fault, by sweep or search, after how many traces and how much CPU
time. It exits with 0 only if every fault was caught by exactly the checks of its record, and no
control by any. ``--quick`` tries one check per fault and takes half a minute; ``--seeds 20``
measures how often each fault is caught. The sweep finds most faults. Those that only the search
finds need optimizer and scheduler steps that do not alternate, a way back to an older save, or a
dict shared by two runs.

tests/engine/test_proof.py has longer tests, and ``python -m tox run -e break`` runs
scripts/break_harness.py, which breaks the harness itself. Weights that an optimizer loses are
excused, so a harness that lost them itself would pass its own controls. That is why the tests
require that weights are compared. scripts/compare_peers.py shows how other projects' tests do on
the same faults.
"""

from __future__ import annotations

import concurrent.futures
import inspect
import math
import multiprocessing
import signal
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TypeVar

from harness.checks.registry import CHECKS, IN_THIS_PROCESS, as_check
from harness.core.check import Check
from harness.core.errors import CheckError, HarnessError, SubjectError
from harness.core.references import import_attribute
from harness.core.result import Budget, Found, FoundBy, Result
from harness.core.trace import Trace
from harness.core.training_loop import new_sgd
from harness.core.verdict import Verdict
from harness.engine.minimise import neighbours
from harness.engine.option_sets import what_torch_lacks
from harness.engine.pair_tester import Limit, PairTester, Runners, do_nothing
from harness.engine.session import check_subject, replay
from harness.subjects.installed import control_lists, planted_fault_lists
from harness.subjects.lookup import find_subjects
from harness.subjects.subject import Subject

Class = TypeVar("Class", bound=type)


@dataclass(frozen=True)
class Fault:
    """A subject with one planted defect, and the record of what it proves.

    `control` is the same subject without the defect, so the repair is to build the control
    instead. `wrong` says what is wrong. `real` says where a real bug of the same kind was
    reported; it is empty if none is known. `caught_by` names exactly the checks that must be
    broken, in the order of `harness.CHECKS`. `trace` is a minimal counterexample to the first.
    """

    subject: Subject
    control: Subject
    wrong: str
    real: str
    caught_by: tuple[str, ...]
    trace: Trace

    @property
    def name(self) -> str:
        """The name of its subject."""
        return self.subject.name


def planted(
    control: Subject, trace: str, *, caught_by: Sequence[str], real: str = ""
) -> Callable[[Class], Class]:
    """Make a class a planted fault of the subject `control`: a correct class with one defect.

    The first line of the class's docstring says what is wrong. The other arguments are
    fields of `Fault`. Raises `CheckError` if `caught_by` is empty or names an unknown check,
    `SubjectError` if the class has no docstring or is not derived from the control's class,
    and `TraceError` for a bad `trace`.
    """

    def plant(defect: Class) -> Class:
        name = defect.__name__
        wrong = inspect.cleandoc(vars(defect).get("__doc__") or "").partition("\n")[0]
        if not wrong:
            raise SubjectError(f"fault {name} needs a docstring: what is wrong with it")
        if not (isinstance(control.build, type) and issubclass(defect, control.build)):
            raise SubjectError(
                f"fault {name} must be derived from the class of its control, {control.name}"
            )
        if isinstance(caught_by, str) or not caught_by:
            raise CheckError(
                f"fault {name}: 'caught_by' must be a list of the checks that catch it "
                f"(got {caught_by!r})"
            )
        try:
            named = [as_check(check) for check in caught_by]
            counterexample = Trace.parse(trace)
        except HarnessError as error:
            raise type(error)(f"fault {name}: {error}") from None
        subject = replace(control, name=name, build=defect)
        ordered = [check for check in CHECKS if check in named]
        names = tuple(check.name for check in dict.fromkeys([*ordered, *named]))
        defect.__fault__ = Fault(  # type: ignore[attr-defined]
            subject, control, wrong, real, names, counterexample
        )
        return defect

    return plant


def planted_in(namespace: Mapping[str, object]) -> tuple[Fault, ...]:
    """The faults planted in a module, given its ``vars``, in their order."""
    own = (vars(value) for value in list(namespace.values()) if isinstance(value, type))
    return tuple(
        attributes["__fault__"]
        for attributes in own
        if attributes.get("__module__") == namespace["__name__"] and "__fault__" in attributes
    )


def find_faults(reference: str) -> list[Fault]:
    """The faults in the list that ``module:attribute`` names.

    Raises `SubjectError` if it can't be imported, or is not a sequence of faults.
    """
    value = import_attribute(reference)
    if (
        not isinstance(value, Sequence)
        or not value
        or not all(isinstance(item, Fault) for item in value)
    ):
        raise SubjectError(f"{reference} must be a sequence of harness.engine.selftest.Fault")
    return list(value)


FOR_CONTROLS = 2
"""A control is searched with this many times the traces of a fault."""
REQUIRED = 0.95
"""The share of seeds with which the trials of a fault must be exact: 19 of 20."""


@dataclass(frozen=True)
class Trial:
    """The results of the checks on one fault or control with one seed.

    `expected` are the checks that must be broken: none for a control, and none for a fault
    whose checks are all set aside. `problems` says what else is wrong, for instance with the
    fault's record.
    """

    name: str
    is_fault: bool
    seed: int
    expected: tuple[str, ...]
    results: Sequence[Result] = field(repr=False)
    problems: tuple[str, ...] = ()

    @property
    def caught_by(self) -> tuple[str, ...]:
        """The checks that are broken."""
        return tuple(result.check for result in self.results if result.verdict == Verdict.BROKEN)

    @property
    def missed(self) -> tuple[str, ...]:
        """The checks that must be broken and are not."""
        return tuple(name for name in self.expected if name not in self.caught_by)

    @property
    def alarms(self) -> tuple[str, ...]:
        """The checks that are broken and must not be."""
        return tuple(name for name in self.caught_by if name not in self.expected)

    @property
    def unknown(self) -> tuple[Result, ...]:
        """The results that decide nothing."""
        return tuple(result for result in self.results if result.verdict == Verdict.UNKNOWN)

    @property
    def exact(self) -> bool:
        """Whether exactly the expected checks are broken and nothing else is wrong."""
        return not (self.missed or self.alarms or self.unknown or self.problems)

    @property
    def first(self) -> Result | None:
        """The first result that is BROKEN."""
        return next((result for result in self.results if result.verdict == Verdict.BROKEN), None)

    @property
    def swept(self) -> bool:
        """Whether the sweep found any of its counterexamples."""
        found = [r.counterexample.found for r in self.results if r.counterexample]
        return any(how is not None and how.by == FoundBy.SWEEP for how in found)

    @property
    def found(self) -> Found | None:
        """How the first counterexample was found."""
        if self.first is None or self.first.counterexample is None:
            return None
        return self.first.counterexample.found

    def complaints(self) -> list[str]:
        """What is wrong with this trial, one sentence for each problem."""
        wrong = [f"not caught by {name}" for name in self.missed]
        alarm = "not in its record, but caught by" if self.is_fault else "false alarm of"
        wrong += [f"{alarm} {name}: {self._trace(name)}" for name in self.alarms]
        wrong += [f"{result.check} is UNKNOWN: {result.reason}" for result in self.unknown]
        return [f"{self.name} (seed {self.seed}): {what}" for what in (*wrong, *self.problems)]

    def _trace(self, check: str) -> str:
        [result] = [result for result in self.results if result.check == check]
        return "" if result.counterexample is None else str(result.counterexample.trace)


def set_aside() -> dict[str, str]:
    """The checks that can't run on this torch, each with the reason.

    They are UNKNOWN with a scheduler that does nothing, or need something this torch lacks.
    """
    aside = {
        check.name: why
        for check in CHECKS
        for need in check.needs
        if (why := what_torch_lacks(need))
    }
    results = check_subject(do_nothing(new_sgd), IN_THIS_PROCESS, Budget(max_examples=0))
    return {
        **aside,
        **{result.check: result.reason for result in results if result.verdict == Verdict.UNKNOWN},
    }


def try_fault(fault: Fault, budget: Budget, aside: Sequence[str] = (), *, quick: bool) -> Trial:
    """The trial of a fault: all checks that are not set aside; if `quick`, only its first check."""
    expected = tuple(name for name in fault.caught_by if name not in aside)
    if quick:
        expected = expected[:1]
    names = expected
    if not quick:
        here = [check.name for check in IN_THIS_PROCESS if check.name not in aside]
        names = tuple(dict.fromkeys([*here, *expected]))  # through another process is slow
    results = _results(fault.subject, [as_check(name) for name in names], budget, aside)
    problems = [] if fault.caught_by[0] in aside else _record_problems(fault)
    return Trial(fault.name, True, budget.seed, expected, results, tuple(problems))


def _record_problems(fault: Fault) -> list[str]:
    """What is wrong with the counterexample of a fault's record."""
    check = fault.caught_by[0]
    try:
        if replay(fault.subject, check, fault.trace).verdict != Verdict.BROKEN:
            return [f"the counterexample of its record does not break {check}: {fault.trace}"]
        if replay(fault.control, check, fault.trace).verdict == Verdict.BROKEN:
            return [f"its repair also breaks {check}: {fault.trace}"]
        limit = Limit(fault.subject, Budget().time_limit)
        tester = PairTester(Runners(fault.subject), as_check(check), limit)
        with limit.on():
            smaller = (t for t in neighbours(fault.trace) if tester.breaks(t))
            return [f"the counterexample of its record is not minimal: {t}" for t in smaller][:1]
    except HarnessError as error:
        return [f"its record can't be tried: {error}"]


def try_control(
    control: Subject, budget: Budget, aside: Sequence[str] = (), *, quick: bool
) -> Trial:
    """The trial of a control: all checks that are not set aside; if `quick`, only their sweep."""
    examples = 0 if quick else FOR_CONTROLS * budget.max_examples
    more = Budget(examples, budget.seed, budget.time_limit)
    checks = [check for check in IN_THIS_PROCESS if check.name not in aside]
    return Trial(control.name, False, budget.seed, (), _results(control, checks, more, aside))


def _results(
    subject: Subject, checks: Sequence[Check], budget: Budget, aside: Sequence[str]
) -> list[Result]:
    """The results, without those that are UNKNOWN only because checks are set aside."""
    results = list(check_subject(subject, checks, budget))
    if aside:
        results = [
            r for r in results if not as_check(r.check).mixes or r.verdict != Verdict.UNKNOWN
        ]
    return results


@dataclass(frozen=True)
class Job:
    """One trial to run: the index of a fault or control in its list, and how to try it.

    `reference` names the list, as ``module:attribute``.
    """

    reference: str
    index: int
    is_fault: bool
    budget: Budget
    quick: bool
    aside: tuple[str, ...]

    def run(self) -> Trial:
        """Run the trial."""
        if self.is_fault:
            fault = find_faults(self.reference)[self.index]
            return try_fault(fault, self.budget, self.aside, quick=self.quick)
        control = find_subjects(self.reference)[self.index]
        return try_control(control, self.budget, self.aside, quick=self.quick)


def all_jobs(
    budgets: Sequence[Budget],
    *,
    quick: bool,
    aside: Sequence[str],
    faults: Sequence[str] = (),
    controls: Sequence[str] = (),
) -> list[Job]:
    """One job for each control and fault with each budget.

    `faults` and `controls` are references of lists; without either, these are the lists that
    installed packages ship. Raises `SubjectError` if there are none.
    """
    if not faults and not controls:
        faults, controls = planted_fault_lists(), control_lists()
    if not faults and not controls:
        raise SubjectError(
            "no installed package ships planted faults or controls: name lists of them with "
            "--faults and --controls"
        )
    lists = [(False, name, len(find_subjects(name))) for name in controls]
    lists += [(True, name, len(find_faults(name))) for name in faults]
    return [
        Job(name, index, is_fault, budget, quick, tuple(aside))
        for budget in budgets
        for is_fault, name, count in lists
        for index in range(count)
    ]


def _begin() -> None:
    """Leave Ctrl-C to the parent, and import all of torch before any clock runs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    new_sgd()


def run_jobs(jobs: Sequence[Job], processes: int) -> Iterator[Trial]:
    """The trials in the order of their jobs, run in that many processes."""
    if processes == 1:
        new_sgd()
        yield from (job.run() for job in jobs)
        return
    context = multiprocessing.get_context("spawn")  # `set_aside` may have left threads
    pool = concurrent.futures.ProcessPoolExecutor(processes, context, _begin)
    try:
        yield from pool.map(Job.run, jobs)
    except BaseException:
        for process in list(getattr(pool, "_processes", {}).values()):
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def enough(trials: Sequence[Trial]) -> bool:
    """Whether the trials of one fault or control are exact often enough.

    A control must never raise an alarm. A fault must be caught exactly with the share `REQUIRED`
    of the seeds, and never raise a false alarm.
    """
    if any(trial.alarms or trial.unknown or trial.problems for trial in trials):
        return False
    return sum(trial.exact for trial in trials) >= REQUIRED * len(trials)


def median_seconds(trials: Sequence[Trial]) -> float:
    """The median CPU time until a fault was first caught, in seconds; nan if none was caught."""
    seconds = [trial.found.seconds for trial in trials if trial.found]
    return statistics.median(seconds) if seconds else math.nan


def to_json(trials: Sequence[Trial], aside: dict[str, str]) -> dict[str, object]:
    """The trials as data for JSON.

    ``schema`` (1), ``torch``, ``set_aside`` (checks that this torch can't do, with the
    reasons) and ``trials``: each with ``name``, ``seed``, ``expected`` and
    ``caught_by`` (names of checks), ``complaints`` (sentences), ``counterexamples``
    (a trace for each check), and ``found``: how the first one was found, or null.
    """
    return {
        "schema": 1,
        "torch": trials[0].results[0].torch,
        "set_aside": aside,
        "trials": [
            {
                "name": trial.name,
                "seed": trial.seed,
                "expected": trial.expected,
                "caught_by": trial.caught_by,
                "complaints": trial.complaints(),
                "counterexamples": {
                    result.check: str(result.counterexample.trace)
                    for result in trial.results
                    if result.counterexample is not None
                },
                "found": asdict(trial.found) if trial.found else None,
            }
            for trial in trials
        ],
    }
