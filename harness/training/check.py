"""Checks a training script: records it, resumes it from every checkpoint, and compares."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from harness.training.compare import Difference, Field, compare, compare_ranks
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
from harness.training.recording import InsideSave, Recorded, Recording, Snapshot, read_run
from harness.training.result import (
    Chain,
    Outcome,
    Signal,
    TrainingResult,
    Verdict,
    points_of,
    verdict_of,
)

__all__ = ["Request", "check_command"]

Show = Callable[[int, int, str], None]
"""Shows progress: resumes done, all resumes, and what happens."""

Value = TypeVar("Value")

TAIL = 15
"""How many of the last lines of its output are shown when a command fails."""
SMALL = 1_000_000
"""The most bytes of checkpoints that are kept to be written into a script."""


@dataclass(frozen=True)
class Request:
    """What to check.

    `command` trains from the start; `resume` goes on from a checkpoint and is the same command by
    default. `checkpoints` are the files and folders that hold all checkpoints. `everything`: the
    data and the random state count too. `stop_after`: every run stops after so many optimizer
    steps. `outside` allows checkpoints outside the current folder. `time_limit` is in seconds, for
    one resumed run; the default depends on the recorded run. `new_processes`: never fork.

    `inside_saves`: also resume from the states in the middle of saves. `signal`, such as ``TERM``,
    is sent after each of the numbers of steps in `at`, each time in a run of its own. `chain`: kill
    every attempt after so many steps, until one ends by itself.
    """

    command: str | Sequence[str]
    checkpoints: Sequence[Path]
    resume: str | Sequence[str] = ()
    everything: bool = False
    stop_after: int | None = None
    outside: bool = False
    time_limit: float | None = None
    new_processes: bool = False
    inside_saves: bool = False
    signal: str = ""
    at: Sequence[int] = ()
    chain: int | None = None


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
    number = _signal_number(request)
    if not request.checkpoints:
        raise PathError("give the files or folders that hold the checkpoints with --checkpoints")
    paths = checked_paths(request.checkpoints, needed=[*command, *resume], outside=request.outside)
    workplace = Workplace(paths)
    with workplace:
        session = _Session(request, command, resume, workplace, ready, number)
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
        signal_number: int,
    ) -> None:
        self.request, self.command, self.resume = request, command, resume
        self.workplace, self.signal_number = workplace, signal_number
        self.store = workplace.folder / "snapshots"
        self.store.mkdir()
        self.taker = snapshots.Store(str(self.store), [str(path) for path in workplace.paths])
        self.server = self.ready = ready
        self.forks = not request.new_processes
        self.saves = False  # whether the command has saved something
        self.fails = False  # whether a resume in a new process has failed
        self.runs = 0

    def close(self) -> None:
        """End the fork server and every process of the command."""
        if self.server is not None and self.server is not self.ready:
            self.server.close()
            self.server = None
        self._kill_all()

    def result(self, show: Show) -> TrainingResult:
        """Record the command, see that it repeats, and resume it after every way of stopping it."""
        request = self.request
        known = TrainingResult(
            tuple(self.command), tuple(self.resume), Verdict.UNKNOWN,
            checkpoints=tuple(map(str, request.checkpoints)),
        )  # fmt: skip
        show(0, 0, "recording an uninterrupted run")
        start = self._take()
        run = self._new_run(store=True)
        ended = self._ended(self.command, run, None)
        recorded = read_run(run, self._take())
        if ended.status:
            raise CommandError(_failure("the command fails by itself", ended))
        if recorded.not_stored:
            raise _no_space(f"cannot store a snapshot: {recorded.not_stored}")
        if not recorded.steps:
            return replace(known, reason=_nothing_recorded(recorded), outcomes=())
        if recorded.problems:
            return replace(known, reason=f"the recorder failed: {recorded.problems[0]}")
        if request.at and max(request.at) >= recorded.steps:
            raise CommandError(
                f"no signal can be sent after step {max(request.at)}, because the run has only "
                f"{recorded.steps} steps; give smaller numbers with --at"
            )
        self.limit = request.time_limit or 60 + 10 * ended.seconds
        written, before = self._by_content(recorded.snapshots)
        self.saves = bool(written)
        if not written and not request.signal:
            raise self._nothing_written()
        planned = len(written) + len(request.at) + (request.chain is not None)
        known = replace(
            known, steps=recorded.steps, recordings=recorded.recordings, planned=planned,
            before=before,
        )  # fmt: skip
        show(0, planned, "recording a second uninterrupted run")
        reason, notes = self._repeats(recorded, run, start)
        if reason:
            return replace(known, reason=reason, planned=0)
        judge = _Judge(recorded.recordings, request.everything, bool(notes), self.limit)
        known = replace(known, notes=notes)
        return self._tried(known, self._trials(written, start, judge, planned, show), show)

    def _by_content(self, found: Sequence[Snapshot]) -> tuple[list[Snapshot], tuple[int, ...]]:
        """The snapshots to resume from, and the kill points before the first checkpoint.

        An empty state is resumed from only if it follows a checkpoint, in the middle of a save.
        """
        empty = [s for s in found if snapshots.is_empty(str(self.store), s.name)]
        first = min(
            (s.kill_points[0] for s in found if s.inside is None and s not in empty),
            default=math.inf,
        )
        none_yet = [s for s in empty if s.inside is None or s.kill_points[-1] <= first]
        before = [k for s in none_yet if s.inside is None for k in s.kill_points]
        return [s for s in found if s not in none_yet], tuple(sorted(before))

    def _trials(
        self,
        written: Sequence[Snapshot],
        start: str,
        judge: _Judge,
        planned: int,
        show: Show,
    ) -> Iterator[tuple[str, Callable[[], Outcome]]]:
        """Each way of stopping the command, in words, with what tries it."""
        for snapshot in written:
            when = "after" if snapshot.inside is None else "inside the save after"
            what = f"resuming {when} step {snapshot.kill_points[0]}"
            yield what, partial(self._resumed_from, snapshot, judge)
        name = _signal_name(self.request)
        for k in self.request.at:
            what = f"sending {name} after step {k}"
            yield what, partial(self._signalled, Signal(name, k), start, judge)
        every = self.request.chain
        if every is not None:
            say = partial(show, planned - 1, planned)
            yield (
                f"killing after every {every} steps",
                partial(self._chained, every, start, judge, say),
            )

    def _tried(
        self,
        known: TrainingResult,
        trials: Iterable[tuple[str, Callable[[], Outcome]]],
        show: Show,
    ) -> TrainingResult:
        outcomes: list[Outcome] = []
        notes, before, planned = known.notes, known.before, known.planned
        try:
            for number, (what, tried) in enumerate(trials):
                show(number, planned, what)
                outcomes.append(tried())
        except KeyboardInterrupt:
            notes = (*notes, "interrupted: this is what is known so far")
        if self.request.resume:
            early = _before_the_first(outcomes)
            before = tuple(sorted({*before, *points_of(o for o in early if o.stop is None)}))
            outcomes = [outcome for outcome in outcomes if outcome not in early]
            planned -= len(early)
        real = [each for each in outcomes if each.kill_points[-1] > 0 and each.resumed]
        if real and all(outcome.from_scratch for outcome in real) and len(outcomes) == planned:
            if not self.saves:
                raise self._nothing_written()
            raise CommandError(
                f"the resumed run has all {known.steps} steps: the checkpoint was not used; "
                "give the command that resumes with --resume-with"
            )
        return replace(
            known,
            outcomes=tuple(outcomes),
            before=before,
            planned=planned,
            notes=notes,
            verdict=verdict_of(tuple(outcomes)),
        )

    def _nothing_written(self) -> PathError:
        names = ", ".join(map(str, self.request.checkpoints))
        return PathError(f"the command writes nothing to {names}; give the paths it saves to")

    def _forks_are_new(self) -> bool:
        """Whether runs are forks, and a run in a new process decides if one of them is strange."""
        return self.forks and self.server is not None and self.server is not self.ready

    def _kill_all(self) -> None:
        """End what the command has left running, so that it can't write to the next state."""
        watcher.kill_processes(str(self.workplace.folder), self.server.pid if self.server else 0)

    # -------------------------------------------------------------- runs

    def _take(self) -> str:
        """The name of a snapshot of the checkpoint paths as they are now."""
        return _stored(self.taker.take)

    def _new_run(
        self,
        *,
        store: bool = False,
        every: int | None = None,
        steps_left: Mapping[int, Mapping[str, int]] = MappingProxyType({}),
        signal_after: tuple[int, int] | None = None,
    ) -> Path:
        """The folder of a new run; `every` is an attempt's number of steps."""
        self.runs += 1
        run = self.workplace.folder / f"run-{self.runs}"
        limits = [limit for limit in (self.request.stop_after, every) if limit is not None]
        make_run(
            run, everything=self.request.everything, store=self.store if store else None,
            paths=self.workplace.paths, stop_after=min(limits, default=None), modules=store,
            inside_saves=store and self.request.inside_saves, signal_after=signal_after,
            steps_left=steps_left,
        )  # fmt: skip
        return run

    def _run(
        self,
        command: Sequence[str],
        run: Path,
        snapshot: str,
        *,
        new: bool = False,
        to_the_last: bool = False,
    ) -> tuple[Ended, Recorded]:
        """Run a command on a snapshot: in a fork if that is possible, unless `new`.

        `to_the_last`: wait until every process of the command has ended.
        """
        paths = [str(path) for path in self.workplace.paths]
        _stored(lambda: snapshots.restore(str(self.store), snapshot, paths))
        ended = self._ended(command, run, self.limit, new=new, to_the_last=to_the_last)
        return ended, read_run(run)

    def _resume(
        self,
        snapshot: str,
        recordings: Mapping[int, Recording],
        total: int,
        every: int | None = None,
    ) -> tuple[Ended, Recorded]:
        """Resume from a snapshot; a new process decides whether a fork that fails may be trusted.

        `recordings` are of the run that saved it. If that was to stop after `total` steps, the
        resumed run stops there too.
        """
        left = _steps_left(recordings, total) if self.request.stop_after is not None else {}
        run = self._new_run(every=every, steps_left=left)
        ended, resumed = self._run(self.resume, run, snapshot)
        if ended.status != 0 and self._forks_are_new() and not self.fails:
            run = self._new_run(every=every, steps_left=left)
            ended, resumed = self._run(self.resume, run, snapshot, new=True)
            self.fails = ended.status != 0
            self.forks = self.fails  # else it is the fork that fails
        return ended, resumed

    def _ended(
        self,
        command: Sequence[str],
        run: Path,
        time_limit: float | None,
        *,
        new: bool = False,
        to_the_last: bool = False,
    ) -> Ended:
        python, server, ended = can_fork(command), self.server, None
        if self.forks and not new and python is not None and server is not None:
            ended = server.run(python, run, time_limit, to_the_last=to_the_last)
        if ended is None:
            ended = run_new(command, run, time_limit, to_the_last=to_the_last)
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
        ended, second = self._run(self.command, self._new_run(), start, new=new)
        if ended.status:
            raise CommandError(_failure("the command fails when it is run a second time", ended))
        if ended.status is None:
            raise CommandError(f"a second run of the command did not end in {self.limit:.0f} s")
        found: list[Difference] = []
        for rank, recording in recorded.recordings.items():
            found += compare(recording, second.recordings.get(rank, Recording(rank, ())))
        order = list(Field)
        return sorted(found, key=lambda d: (order.index(d.field), d.step))

    # -------------------------------------------------------------- ways of stopping the command

    def _resumed_from(self, snapshot: Snapshot, judge: _Judge) -> Outcome:
        """What happens after a kill that leaves a snapshot."""
        ended, resumed = self._resume(snapshot.name, judge.recordings, judge.steps)
        outcome = judge.outcome(snapshot.kill_points, ended, resumed)
        if snapshot.inside is None or outcome.verdict not in (
            Verdict.BROKEN,
            Verdict.CANNOT_RESUME,
        ):
            return replace(outcome, stop=snapshot.inside)
        paths = [str(path) for path in self.request.checkpoints]
        saved = snapshots.saved_files(str(self.store), snapshot.name, paths, SMALL)
        return replace(outcome, stop=snapshot.inside, saved=saved)

    def _signalled(self, stop: Signal, start: str, judge: _Judge) -> Outcome:
        """What happens after a signal that the script may handle."""
        run = self._new_run(signal_after=(self.signal_number, stop.after))
        ended, told = self._run(self.command, run, start, to_the_last=True)
        points, reason = (told.steps,), ""
        if ended.status is None:
            reason = f"the run did not end in {self.limit:.0f} s (see --time-limit)"
        elif not told.signalled:
            reason = f"the run ended before it could get the signal: {_last_line(ended)}"
        elif told.steps == judge.steps > stop.after + 1:
            reason = f"was not stopped: it went on and made all {judge.steps} steps"
        if reason:
            return Outcome(points, Verdict.UNKNOWN, reason, stop=stop)
        snapshot = self._take()
        self.saves |= not snapshots.is_empty(str(self.store), snapshot)
        ended, resumed = self._resume(snapshot, judge.recordings, judge.steps)
        return replace(judge.outcome(points, ended, resumed), stop=stop)

    def _chained(
        self, every: int, start: str, judge: _Judge, say: Callable[[str], None]
    ) -> Outcome:
        """What happens if every attempt is killed after so many steps, until one of them ends."""
        ended, attempt = self._run(self.command, self._new_run(every=every), start)
        outcome = judge.outcome((0,), ended, attempt)
        joined, points, before, number = judge.recordings, [], -1, 1
        while outcome.verdict == Verdict.HOLDS and _stopped_early(attempt, outcome, judge):
            lowest = min(outcome.starts)
            if outcome.starts[lowest] <= before:
                outcome = _no_progress(outcome, number, attempt.recordings[lowest], judge)
                break
            before = outcome.starts[lowest]
            joined = _joined(joined, attempt.recordings, outcome.starts)
            points.append(len(joined[lowest].steps))
            number += 1
            say(f"attempt {number}, killed after step {points[-1]}")
            ended, attempt = self._resume(self._take(), joined, judge.steps, every)
            outcome = judge.outcome(tuple(points), ended, attempt, joined)
        return replace(outcome, kill_points=tuple(points) or (0,), stop=Chain(every, number))


@dataclass(frozen=True)
class _Judge:
    """What resumed runs are compared with; `noisy`: what is computed differs from run to run."""

    recordings: Mapping[int, Recording]
    everything: bool
    noisy: bool
    limit: float

    @property
    def steps(self) -> int:
        """The number of steps of the lowest rank."""
        return len(self.recordings[min(self.recordings)].steps)

    def outcome(
        self,
        points: tuple[int, ...],
        ended: Ended,
        resumed: Recorded,
        stopped: Mapping[int, Recording] = MappingProxyType({}),
    ) -> Outcome:
        """The verdict on a resumed run after a kill at one of the `points`.

        `stopped` is the run that was killed, if its steps may differ from the recorded ones.
        """
        if ended.status is None:
            reason = f"a resumed run did not end in {self.limit:.0f} s (see --time-limit)"
            return Outcome(points, Verdict.UNKNOWN, reason)
        if ended.status:
            return Outcome(points, Verdict.CANNOT_RESUME, _last_line(ended))
        if resumed.problems:
            reason = f"the recorder failed: {resumed.problems[0]}"
            return Outcome(points, Verdict.UNKNOWN, reason)
        killed_after = points[-1] if stopped else points[0]
        found = compare_ranks(self.recordings, resumed.recordings, killed_after, stopped)
        starts = {rank: start.steps for rank, start in found.starts.items()}
        known = Outcome(points, Verdict.HOLDS, "", starts, resumed=resumed.recordings)
        broken = found.broken(everything=self.everything)
        if broken is not None:
            return replace(known, verdict=Verdict.BROKEN, difference=broken)
        if found.unaligned:
            return replace(known, verdict=Verdict.UNKNOWN, reason=found.unaligned)
        return replace(known, data=None if self.noisy else found.data)


def _stopped_early(attempt: Recorded, outcome: Outcome, judge: _Judge) -> bool:
    """Whether an attempt was stopped before the last step of the recorded run."""
    return any(
        recording.stopped
        and outcome.starts[rank] + len(recording.steps) < len(judge.recordings[rank].steps)
        for rank, recording in attempt.recordings.items()
    )


def _joined(
    before: Mapping[int, Recording], attempt: Mapping[int, Recording], starts: Mapping[int, int]
) -> dict[int, Recording]:
    """The run so far, whose last steps are those of an attempt that was stopped."""
    return {
        rank: replace(
            recording, steps=(*before[rank].steps[: starts[rank]], *recording.steps), stopped=True
        )
        for rank, recording in attempt.items()
    }


def _steps_left(recordings: Mapping[int, Recording], total: int) -> dict[int, dict[str, int]]:
    """For each rank and state, after how many steps from there `total` steps are made."""
    left: dict[int, dict[str, int]] = {}
    for rank, recording in recordings.items():
        states = [*(step.before for step in recording.steps), *recording.after]
        left[rank] = {}
        for made, state in enumerate(states):
            steps = total - min(made, len(recording.steps))
            left[rank].setdefault(f"{state.weights} {state.optimizer}", steps)
    return left


def _no_progress(outcome: Outcome, number: int, attempt: Recording, judge: _Judge) -> Outcome:
    """The outcome of a chain whose last attempts start at the same step."""
    start = outcome.starts[attempt.rank]
    reached = start + len(attempt.steps)
    where = f"from the checkpoint of step {start}" if start else "from scratch"
    difference = Difference(
        Field.STEPS, attempt.rank, reached + 1, 0, -1, f"{judge.steps} steps", f"{reached} steps",
        relations=("makes no progress",),
    )  # fmt: skip
    return replace(
        outcome, verdict=Verdict.BROKEN, difference=difference,
        reason=f"attempts {number - 1} and {number} both start {where}",
    )  # fmt: skip


def _before_the_first(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The first resumes, if they fail and a later one does not: there was no checkpoint yet."""
    fails = Verdict.CANNOT_RESUME
    first = min(
        (o.kill_points[0] for o in outcomes if o.stop is None and o.verdict != fails), default=0
    )
    return [
        o
        for o in outcomes
        if o.verdict == fails
        and (
            (o.stop is None and o.kill_points[0] < first)
            or (isinstance(o.stop, InsideSave) and o.kill_points[-1] <= first)
        )
    ]


def _signal_name(request: Request) -> str:
    return f"SIG{request.signal.upper().removeprefix('SIG')}"


def _signal_number(request: Request) -> int:
    """The number of the signal to send, 0 if there is none; raises `CommandError`."""
    if bool(request.signal) != bool(request.at):
        raise CommandError(
            "give both --signal and --at: a signal, and after which steps to send it"
        )
    if not request.signal:
        return 0
    name = _signal_name(request)
    if name not in signal.Signals.__members__:
        raise CommandError(f"there is no signal {request.signal!r}; give one such as TERM or USR1")
    if name in ("SIGKILL", "SIGSTOP"):
        raise CommandError(f"a script can't handle {name}; give a signal such as TERM or USR1")
    if min(request.at) < 1:
        raise CommandError(f"--at needs numbers of steps from 1 on (got {min(request.at)})")
    return signal.Signals[name].value


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
