"""Checks a training script: records it, resumes it from every checkpoint, and compares."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from harness.core.run import ranges
from harness.training.compare import Compared, Difference, Field, compare, compare_ranks
from harness.training.injected import snapshots, watcher
from harness.training.paths import PathError, Workplace, checked_paths
from harness.training.processes import (
    CommandError,
    Ended,
    ForkServer,
    can_fork,
    make_run,
    run_new,
    split,
)
from harness.training.recording import Recorded, Recording, Snapshot, read_run
from harness.training.result import Outcome, TrainingResult, Verdict, verdict_of

__all__ = ["Request", "check_command"]

Show = Callable[[int, int, str], None]
"""Shows progress: resumes done, all resumes, and what happens."""

Value = TypeVar("Value")

TAIL = 15
"""How many of the last lines of its output are shown when a command fails."""


@dataclass(frozen=True)
class Request:
    """What to check.

    `command` trains from the start; `resume` goes on from a checkpoint and is the same command by
    default. `checkpoints` are the files and folders that hold all checkpoints. `everything`: the
    data and the random state count too. `stop_after`: record only so many optimizer steps.
    `outside` allows checkpoints outside the current folder. `time_limit` is in seconds, for one
    resumed run; the default depends on the recorded run. `new_processes`: never fork.
    """

    command: str | Sequence[str]
    checkpoints: Sequence[Path]
    resume: str | Sequence[str] = ()
    everything: bool = False
    stop_after: int | None = None
    outside: bool = False
    time_limit: float | None = None
    new_processes: bool = False


def check_command(
    request: Request,
    show: Show = lambda done, total, what: None,
    ready: ForkServer | None = None,
) -> TrainingResult:
    """The verdict on a training command.

    `ready` is a fork server for several checks: then every run is a fork of it, the recorded one
    too, which is fast, but hides what differs between processes.

    Raises `HarnessError` if the command or the paths can't be used. After `KeyboardInterrupt`
    the result holds what is known, if a run was recorded.
    """
    began = time.monotonic()
    command, resume = split(request.command), split(request.resume or request.command)
    if not request.checkpoints:
        raise PathError("give the files or folders that hold the checkpoints with --checkpoints")
    paths = checked_paths(request.checkpoints, needed=[*command, *resume], outside=request.outside)
    workplace = Workplace(paths)
    with workplace:
        session = _Session(request, command, resume, workplace, ready)
        try:
            result = session.result(show)
        finally:
            session.close()
    if workplace.left:
        raise PathError(" ".join(workplace.left))
    return replace(result, seconds=time.monotonic() - began)


class _Session:
    """The runs of one check, in the folder of a `Workplace`."""

    def __init__(
        self,
        request: Request,
        command: list[str],
        resume: list[str],
        workplace: Workplace,
        ready: ForkServer | None,
    ) -> None:
        self.request, self.command, self.resume = request, command, resume
        self.workplace = workplace
        self.store = workplace.folder / "snapshots"
        self.store.mkdir()
        self.server = self.ready = ready
        self.forks = not request.new_processes
        self.fails = False  # whether a resume in a new process has failed
        self.runs = 0

    def close(self) -> None:
        """End the fork server and every process of the command."""
        if self.server is not None and self.server is not self.ready:
            self.server.close()
            self.server = None
        self._kill_all()

    def result(self, show: Show) -> TrainingResult:
        """Record the command, see that it repeats, and resume it from every snapshot."""
        known = TrainingResult(
            tuple(self.command), tuple(self.resume), Verdict.UNKNOWN,
            checkpoints=tuple(map(str, self.request.checkpoints)),
        )  # fmt: skip
        show(0, 0, "recording an uninterrupted run")
        taker = snapshots.Store(str(self.store), [str(path) for path in self.workplace.paths])
        start = _stored(taker.take)
        run = self._new_run(store=True)
        ended = self._ended(self.command, run, None)
        recorded = read_run(run, _stored(taker.take))
        if ended.status:
            raise CommandError(_failure("the command fails by itself", ended))
        for problem in recorded.problems:
            if problem.startswith("cannot store a snapshot"):
                raise _no_space(problem)
        if not recorded.steps:
            return replace(known, reason=_nothing_recorded(recorded), outcomes=())
        if recorded.problems:
            return replace(known, reason=f"the recorder failed: {recorded.problems[0]}")
        self.limit = self.request.time_limit or 60 + 10 * ended.seconds
        written = [s for s in recorded.snapshots if not snapshots.is_empty(str(self.store), s.name)]
        if not written:
            names = ", ".join(map(str, self.request.checkpoints))
            raise PathError(f"the command writes nothing to {names}; give the paths it saves to")
        known = replace(
            known,
            steps=recorded.steps,
            recordings=recorded.recordings,
            planned=len(written),
            before=_all_points([s for s in recorded.snapshots if s not in written]),
        )
        show(0, len(written), "recording a second uninterrupted run")
        reason, notes = self._repeats(recorded, run, start)
        if reason:
            return replace(known, reason=reason, planned=0)
        return self._resumed(replace(known, notes=notes), recorded, written, bool(notes), show)

    def _resumed(
        self,
        known: TrainingResult,
        recorded: Recorded,
        written: Sequence[Snapshot],
        noisy: bool,
        show: Show,
    ) -> TrainingResult:
        outcomes: list[Outcome] = []
        notes = list(known.notes)
        try:
            for number, snapshot in enumerate(written):
                show(number, len(written), f"resuming after step {snapshot.kill_points[0]}")
                outcomes.append(self._outcome(snapshot, recorded, noisy))
        except KeyboardInterrupt:
            notes.append("interrupted: this is what is known so far")
        before, planned = known.before, known.planned
        if self.request.resume:
            early = _before_the_first(outcomes)
            before = tuple(sorted([*before, *_all_points(early)]))
            outcomes = outcomes[len(early) :]
            planned -= len(early)
        real = [each for each in outcomes if each.kill_points[-1] > 0 and each.resumed]
        if real and all(outcome.from_scratch for outcome in real) and len(outcomes) == planned:
            raise CommandError(
                f"the resumed run has all {recorded.steps} steps: the checkpoint was not used; "
                "give the command that resumes with --resume-with"
            )
        scratch = _all_points([outcome for outcome in outcomes if outcome.from_scratch])
        if scratch:
            notes.append(f"starts from scratch when killed after steps {ranges(scratch)}")
        return replace(
            known,
            outcomes=tuple(outcomes),
            before=before,
            planned=planned,
            notes=tuple(notes),
            verdict=verdict_of(tuple(outcomes)),
        )

    def _forks_are_new(self) -> bool:
        """Whether runs are forks, and a run in a new process decides if one of them is strange."""
        return self.forks and self.server is not None and self.server is not self.ready

    def _kill_all(self) -> None:
        """End what the command has left running, so that it can't write to the next state."""
        watcher.kill_processes(str(self.workplace.folder), self.server.pid if self.server else 0)

    # -------------------------------------------------------------- runs

    def _new_run(self, *, store: bool = False) -> Path:
        self.runs += 1
        run = self.workplace.folder / f"run-{self.runs}"
        make_run(
            run, everything=self.request.everything, store=self.store if store else None,
            paths=self.workplace.paths, stop_after=self.request.stop_after, modules=store,
        )  # fmt: skip
        return run

    def _run(
        self, command: Sequence[str], snapshot: str, *, new: bool = False
    ) -> tuple[Ended, Recorded]:
        """Run a command on a snapshot: in a fork if that is possible, unless `new`."""
        paths = [str(path) for path in self.workplace.paths]
        _stored(lambda: snapshots.restore(str(self.store), snapshot, paths))
        run = self._new_run()
        return self._ended(command, run, self.limit, new=new), read_run(run)

    def _ended(
        self, command: Sequence[str], run: Path, time_limit: float | None, *, new: bool = False
    ) -> Ended:
        python, server, ended = can_fork(command), self.server, None
        if self.forks and not new and python is not None and server is not None:
            ended = server.run(python, run, time_limit)
        if ended is None:
            ended = run_new(command, run, time_limit)
        self._kill_all()
        return ended

    def _start_server(self, recorded: Path) -> None:
        modules, python = recorded / "modules.json", can_fork(self.command)
        if self.server is None and self.forks and python is not None and modules.exists():
            folder = self.workplace.folder / "server"
            folder.mkdir()
            self.server = ForkServer(python.interpreter, modules, folder)

    def _repeats(self, recorded: Recorded, run: Path, start: str) -> tuple[str, tuple[str, ...]]:
        """Why nothing can be said, if two uninterrupted runs differ; else notes for the report.

        The second run is a fork of a new process, if forks are possible at all. If it differs, a
        run in a process of its own decides whether that is due to the fork.
        """
        self._start_server(run)
        differences = self._second_run(recorded, start, new=False)
        if differences and self._forks_are_new():
            in_new_process = self._second_run(recorded, start, new=True)
            self.forks = bool(in_new_process)
            differences = in_new_process
        counting = [d for d in differences if self._counts(d)]
        if counting:
            return _not_repeatable(counting[0]), ()
        if differences:
            d = differences[0]
            return "", (
                f"two uninterrupted runs differ in their {d.field} from step {d.step} on, so "
                "what resumed runs compute was not compared",
            )
        return "", ()

    def _counts(self, difference: Difference) -> bool:
        return self.request.everything or difference.field not in (Field.WEIGHTS, Field.GRADIENTS)

    def _second_run(self, recorded: Recorded, start: str, *, new: bool) -> list[Difference]:
        ended, second = self._run(self.command, start, new=new)
        if ended.status:
            raise CommandError(_failure("the command fails when it is run a second time", ended))
        if ended.status is None:
            raise CommandError(f"a second run of the command did not end in {self.limit:.0f} s")
        found: list[Difference] = []
        for rank, recording in recorded.recordings.items():
            found += compare(recording, second.recordings.get(rank, Recording(rank, ())))
        order = list(Field)
        return sorted(found, key=lambda d: (order.index(d.field), d.step))

    def _outcome(self, snapshot: Snapshot, recorded: Recorded, noisy: bool) -> Outcome:
        ended, resumed = self._run(self.resume, snapshot.name)
        if ended.status != 0 and self._forks_are_new() and not self.fails:
            ended, resumed = self._run(self.resume, snapshot.name, new=True)
            self.fails = ended.status != 0
            self.forks = self.fails  # else it is the fork that fails
        points = snapshot.kill_points
        if ended.status is None:
            reason = f"a resumed run did not end in {self.limit:.0f} s (see --time-limit)"
            return Outcome(points, Verdict.UNKNOWN, reason)
        if ended.status:
            return Outcome(points, Verdict.CANNOT_RESUME, _last_line(ended))
        if resumed.problems:
            reason = f"the recorder failed: {resumed.problems[0]}"
            return Outcome(points, Verdict.UNKNOWN, reason)
        found = compare_ranks(recorded.recordings, resumed.recordings, points[0])
        return _judged(found, points, resumed.recordings, self.request.everything, noisy)


def _judged(
    found: Compared,
    points: tuple[int, ...],
    resumed: Mapping[int, Recording],
    everything: bool,
    noisy: bool,
) -> Outcome:
    starts = {rank: start.steps for rank, start in found.starts.items()}
    broken = found.broken(everything=everything)
    if broken is not None:
        return Outcome(points, Verdict.BROKEN, "", starts, broken, None, resumed)
    if found.unaligned:
        return Outcome(points, Verdict.UNKNOWN, found.unaligned, starts, None, None, resumed)
    data = None if noisy else found.data
    return Outcome(points, Verdict.HOLDS, "", starts, None, data, resumed)


def _all_points(found: Sequence[Snapshot | Outcome]) -> tuple[int, ...]:
    return tuple(sorted(k for each in found for k in each.kill_points))


def _before_the_first(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The first resumes, if they fail and a later one does not: there was no checkpoint yet."""
    early: list[Outcome] = []
    for outcome in outcomes:
        if outcome.verdict != Verdict.CANNOT_RESUME:
            return early
        early.append(outcome)
    return []


def _stored(work: Callable[[], Value]) -> Value:
    """What `work`, which copies checkpoints, returns; raises `PathError` if it can't."""
    try:
        return work()
    except OSError as error:
        raise _no_space(f"cannot store or restore a snapshot: {error}") from None


def _no_space(problem: str) -> PathError:
    return PathError(f"{problem}; set TMPDIR to a folder with more space")


def _failure(what: str, ended: Ended) -> str:
    lines = ended.output.rstrip().splitlines()[-TAIL:]
    return "\n".join([f"{what} ({_how(ended)}), so it can't be checked; its last output:", *lines])


def _last_line(ended: Ended) -> str:
    lines = ended.output.strip().splitlines()
    if lines and (ended.status or 0) > 0:
        return lines[-1].strip()
    return _how(ended)


def _how(ended: Ended) -> str:
    status = ended.status or 0
    return f"killed by signal {-status}" if status < 0 else f"exit status {status}"


def _nothing_recorded(recorded: Recorded) -> str:
    if not recorded.loaded:
        return (
            "no Python process of the command could be recorded: it runs python with -I, -E or -S, "
            "or replaces PYTHONPATH; let it keep both"
        )
    if not recorded.torch:
        return "the command never imports torch.optim, so it makes no optimizer step; check it"
    return (
        "no step of a torch.optim.Optimizer was seen; an optimizer must be a subclass of it to be "
        "recorded"
    )


def _not_repeatable(difference: Difference) -> str:
    return (
        f"two uninterrupted runs differ: {difference.field} at step {difference.step}, rank "
        f"{difference.rank} ({difference.expected}, then {difference.actual}). Usual reasons: no "
        "seed for torch, numpy or random, workers with seeds of their own, kernels that are not "
        "deterministic, the time of day; or files outside --checkpoints that the first run left"
    )
