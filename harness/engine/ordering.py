"""Decides when, in which process and for how long each pair is checked.

Each subject is checked in its own worker process. If a worker dies, the pair that it was checking
is UNKNOWN, and another worker goes on with the subject's other pairs. With ``--jobs 0`` everything
happens in this process, for a debugger. The results do not depend on the number of workers.

``--profile gate``, the default, checks every pair once and gives the same results every time. With
``--time-budget 60`` it sweeps all pairs before it searches any. A pair it could not get to is
UNKNOWN; a pair it swept but could not search gets a NOTE. ``--shard 2/5`` is the second of five
parts of the same work, for five jobs; ``lr-resume-harness merge RESULT.json ...`` combines their
``--json`` files and reports like ``check``.

The explorer, ``--profile explore``, keeps searching with fresh seeds until Ctrl-C (or
``--time-budget``), and prints its seed. It saves what it finds in Hypothesis's example database,
and the next explorer tries those traces first. A gate ignores them.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import torch

from harness.core.check import Check
from harness.core.errors import HarnessError
from harness.core.ledger import EMPTY_LEDGER, Ledger
from harness.core.operations import optimizer_step
from harness.core.result import Budget, Result
from harness.core.training_loop import new_sgd
from harness.core.types import Options
from harness.core.verdict import Reason, Verdict
from harness.engine.examples import Examples
from harness.engine.machine import DRAWN_ROUNDS, Operations, RoundKey
from harness.engine.plan import NamedCheck, NamedSubject, Plan
from harness.engine.session import SubjectSession
from harness.engine.workers import Died, Pool, Tell
from harness.subjects.subject import Subject

Pair: TypeAlias = tuple[NamedSubject, NamedCheck]
Script: TypeAlias = Callable[[Subject, Check, Result], "str | HarnessError | None"]
PATIENCE = 10.0
"""Seconds, in addition to twice the time limit, that a worker may be silent."""


@dataclass(frozen=True)
class WorkerSettings:
    """The settings that all workers share.

    `names` are the names of all checks. `script`, if given, writes a script for a result. `rates`:
    whether to return the LRs of uninterrupted runs. `examples`: whether to use the example
    database.
    """

    names: tuple[str, ...] = ()
    options: Options = field(default_factory=dict)
    ledger: Ledger = EMPTY_LEDGER
    resume_python: str = ""
    script: Script | None = None
    rates: bool = False
    examples: bool = False


@dataclass(frozen=True)
class Checked:
    """The result of a pair, by its index, and its script or the reason why there is none."""

    index: int
    result: Result
    script: str | HarnessError | None = None


@dataclass(frozen=True)
class Begun:
    """A pair, by its index, that is being checked from now on."""

    index: int


@dataclass(frozen=True)
class Rates:
    """The LRs of the uninterrupted runs of a subject, by trace."""

    subject: str
    runs: dict[str, list[object]]


@dataclass(frozen=True)
class Drawn:
    """What a worker has drawn, so that the next workers need not draw it again."""

    rounds: dict[RoundKey, tuple[Operations, ...]]


@dataclass(frozen=True)
class Task:
    """Pairs of one subject, by index, for one worker.

    `end` is a reading of ``time.monotonic()`` after which no pair is begun. `earlier` are results
    of the same subject, with their budgets.
    """

    subject: NamedSubject
    checks: tuple[tuple[int, NamedCheck], ...]
    budget: Budget
    settings: WorkerSettings
    end: float = math.inf
    earlier: tuple[tuple[Budget, Result], ...] = ()


def warm_up() -> None:
    """Load here, once, what every worker would load: torch, and what its first steps import."""
    torch.set_num_threads(1)
    optimizer = new_sgd()
    optimizer_step(optimizer, 0)


def shard_of(plan: Plan, number: int, count: int) -> dict[int, Pair]:
    """The pairs in part `number` of `count` parts of `plan`, by their index; parts count from 1.

    All checks of a subject are in one part, so that no work is done twice. Only the subjects left
    over are divided; a check always stays with the checks that it depends on.
    """
    pairs: dict[int, Pair] = {}
    of_subject: list[dict[int, NamedCheck]] = []
    for subject in plan.subjects:
        checks = plan.checks_of(subject)
        of_subject.append(dict(enumerate(checks, len(pairs))))
        pairs.update({index: (subject, check) for index, check in of_subject[-1].items()})
    whole = len(of_subject) // count * count
    units = [list(checks) for checks in of_subject[:whole]]
    units += sorted(
        ([list(checks)[each] for each in group]
         for checks in of_subject[whole:] for group in _together(list(checks.values()))),
        key=len, reverse=True,
    )  # fmt: skip
    parts: list[list[int]] = [[] for _ in range(count)]
    for unit in units:
        min(parts, key=len).extend(unit)
    return {index: pairs[index] for index in sorted(parts[number - 1])}


def _together(checks: Sequence[NamedCheck]) -> list[list[int]]:
    """The indices of checks in groups that do not depend on each other, the largest first."""
    groups = [[index] for index in range(len(checks))]
    for check in checks:
        names = {check.name, *check.prerequisites}
        if check.prerequisites:
            linked = [group for group in groups if any(checks[i].name in names for i in group)]
            rest = [group for group in groups if group not in linked]
            groups = [sorted(itertools.chain.from_iterable(linked)), *rest]
    return sorted(groups, key=len, reverse=True)


class Checker:
    """Checks pairs in up to `jobs` workers, or in this process; collects the `rates` they send."""

    def __init__(self, settings: WorkerSettings, jobs: int) -> None:
        self.settings = settings
        self.jobs = jobs
        self.rates: dict[str, dict[str, list[object]]] = {}

    def check(
        self,
        pairs: Mapping[int, Pair],
        budget: Budget,
        end: float = math.inf,
        earlier: Iterable[tuple[Budget, Result]] = (),
    ) -> Iterator[Checked]:
        """Every pair, as it is checked. Until `end`, a reading of ``time.monotonic()``."""
        earlier = list(earlier)
        tasks = []
        for subject, group in itertools.groupby(pairs.items(), lambda item: item[1][0]):
            checks = tuple((index, check) for index, (_, check) in group)
            mine = tuple(each for each in earlier if each[1].subject == subject.name)
            tasks.append(Task(subject, checks, budget, self.settings, end, mine))
        for message in self._in_workers(tasks) if self.jobs else _in_this_process(tasks):
            if isinstance(message, Rates):
                self.rates.setdefault(message.subject, message.runs)
            else:
                yield message

    def _in_workers(self, tasks: Sequence[Task]) -> Iterator[Checked | Rates]:
        patience = PATIENCE + 2 * max((task.budget.time_limit for task in tasks), default=0.0)
        left = {task.subject.name: task for task in tasks}
        begun: dict[str, int] = {}
        with Pool(_tell_all, self.jobs, patience) as pool:
            for task in tasks:
                pool.add(task)
            for task, message in pool:
                rest = left[task.subject.name]
                if isinstance(message, Checked):
                    left[task.subject.name] = _without(rest, message)
                if isinstance(message, (Checked, Rates)):
                    yield message
                elif isinstance(message, Drawn):
                    DRAWN_ROUNDS.update(message.rounds)
                elif isinstance(message, Begun):
                    begun[task.subject.name] = message.index
                elif isinstance(message, Died):
                    # None: the subject itself killed it, so all are lost
                    at = begun.pop(task.subject.name, None)
                    lost = [pair for pair in rest.checks if at in (pair[0], None)]
                    for index, check in lost:
                        dead = Checked(index, _died(rest, check, message))
                        left[task.subject.name] = rest = _without(rest, dead)
                        yield dead
                    if rest.checks:
                        pool.add(rest, first=True)


def _in_this_process(tasks: Iterable[Task]) -> Iterator[Checked | Rates]:
    for task in tasks:
        for message in _messages(task, lambda text: None):
            if not isinstance(message, Begun):
                yield message


def _tell_all(task: Task, tell: Tell) -> None:
    torch.set_num_threads(1)
    before = set(DRAWN_ROUNDS)
    for message in _messages(task, tell.note):
        tell(message)
    tell(Drawn({key: DRAWN_ROUNDS[key] for key in DRAWN_ROUNDS if key not in before}))


def _messages(task: Task, note: Callable[[str], None]) -> Iterator[Begun | Checked | Rates]:
    """The result of each pair of a task, and the LRs of the uninterrupted runs.

    All pairs are swept before any is searched; those that depend on others come last.
    """
    settings, subject = task.settings, task.subject.find(task.settings.options)
    session = SubjectSession(
        subject, settings.names, task.budget, resume_python=settings.resume_python,
        ledger=settings.ledger,
        examples=Examples.here() if settings.examples else None, earlier=task.earlier, note=note,
    )  # fmt: skip

    done: set[int] = set()

    def check_all(
        pairs: Iterable[tuple[int, NamedCheck]], check_one: Callable[[Check, Budget], Result | None]
    ) -> Iterator[Begun | Checked]:
        for index, named in pairs:
            left = task.end - time.monotonic()
            if left <= 0:
                done.add(index)
                yield Checked(index, _out_of_time(task.subject, named))
                continue
            yield Begun(index)
            note("")
            check = named.find()
            limit = min(task.budget.time_limit, left)
            result = check_one(check, replace(task.budget, time_limit=limit))
            if result is not None:
                done.add(index)
                script = settings.script(subject, check, result) if settings.script else None
                yield Checked(index, result, script)

    pairs = sorted(task.checks, key=lambda pair: bool(pair[1].prerequisites))
    if task.budget.sweep and task.budget.max_examples:
        yield from check_all([pair for pair in pairs if not pair[1].prerequisites], session.sweep)
    yield from check_all([pair for pair in pairs if pair[0] not in done], session.check)
    if settings.rates:
        yield Rates(task.subject.name, session.rates())


def _without(task: Task, checked: Checked) -> Task:
    """A task without a pair that has been checked."""
    checks = tuple(each for each in task.checks if each[0] != checked.index)
    return replace(task, checks=checks, earlier=(*task.earlier, (task.budget, checked.result)))


def _unknown(subject: NamedSubject, check: NamedCheck, reason: str, why: Reason) -> Result:
    return Result(
        subject.name, check.name, Verdict.UNKNOWN, reason, torch=str(torch.__version__),
        references=(subject.reference, check.reference), place=subject.place, why=why,
        promise=check.promise,
    )  # fmt: skip


def _died(task: Task, check: NamedCheck, died: Died) -> Result:
    where = f" in the trace {died.note}" if died.note else ""
    return _unknown(task.subject, check, f"its process {died.how}{where}", Reason.DIED)


def _out_of_time(subject: NamedSubject, check: NamedCheck) -> Result:
    return _unknown(subject, check, "", Reason.OUT_OF_TIME)


def gate(
    checker: Checker, pairs: Mapping[int, Pair], budget: Budget, seconds: float | None = None
) -> Iterator[Checked]:
    """The result of each of the pairs, which are given with their indices.

    If `seconds` is given, all pairs together take no longer. Then a pair may have two results:
    one after its sweep, and one after its search that covers both.
    """
    if seconds is None:
        yield from checker.check(pairs, budget)
        return
    end = time.monotonic() + seconds
    ran_out = f"the time budget of {seconds:g} s ran out"
    sweeping, searching = replace(budget, max_examples=0), replace(budget, sweep=False)
    swept: dict[int, Checked] = {}
    for checked in checker.check(pairs, sweeping, end):
        result = checked.result
        if result.why == Reason.OUT_OF_TIME:
            result = replace(result, reason=f"{ran_out} before it was tried")
        elif result.verdict == Verdict.UNKNOWN and time.monotonic() >= end:
            result = replace(result, reason=f"{ran_out} in its sweep", why=Reason.OUT_OF_TIME)
        swept[checked.index] = replace(checked, result=result)
        yield swept[checked.index]
    to_search = {
        index: pair
        for index, pair in pairs.items()
        if budget.max_examples and pair[1].searched and swept[index].result.verdict == Verdict.HOLDS
    }
    earlier = [(sweeping, checked.result) for checked in swept.values()]
    for found in checker.check(to_search, searching, end, earlier):
        first = swept[found.index].result
        late = found.result.verdict == Verdict.UNKNOWN and time.monotonic() >= end
        if not late:
            yield replace(found, result=_added(first, found.result))
            continue
        when = "before" if found.result.why == Reason.OUT_OF_TIME else "in"
        reason = "; ".join(filter(None, [f"{ran_out} {when} its search", first.reason]))
        yield Checked(found.index, replace(first, reason=reason, why=Reason.OUT_OF_TIME))


def explore(checker: Checker, pairs: Mapping[int, Pair], budget: Budget) -> Iterator[Checked]:
    """The results of one round after another.

    Each round has the next seed, and a result covers all rounds so far. A broken pair is not
    tried again; the explorer ends when no pair is left that holds or is known.
    """
    so_far: dict[int, Result] = {}
    left = dict(pairs)
    for number in itertools.count():
        for checked in checker.check(left, replace(budget, seed=budget.seed + number)):
            result = checked.result
            if checked.index in so_far:
                result = _added(so_far[checked.index], result)
            so_far[checked.index] = result
            yield replace(checked, result=result)
        left = {
            index: pair
            for index, pair in left.items()
            if so_far[index].verdict in (Verdict.HOLDS, Verdict.KNOWN)
        }
        if not left:
            return


def _added(first: Result, second: Result) -> Result:
    """The second result, which also counts what was tried for the first."""
    seconds = round(first.seconds + second.seconds, 4)
    return replace(second, tally=first.tally.plus(second.tally), seconds=seconds)
