"""The reproduction of a finding about a training script, as a shell script.

It needs torch and the user's command, and nothing of the harness. A real signal leaves what the
snapshot held, so the script has no need of it, except for a state inside a save: that is in the
script.
"""

from __future__ import annotations

import base64
import json
import shlex
import textwrap
import zlib
from collections.abc import Sequence

import harness
from harness.core.errors import ScriptError
from harness.core.output import printable
from harness.report.html import environment
from harness.training.compare import Field
from harness.training.injected.snapshots import SavedFile
from harness.training.recording import InsideSave
from harness.training.result import Chain, Finding, Signal, TrainingResult, Verdict
from harness.training.text import finding_headline, stop_moment

__all__ = ["training_script"]

HYPERPARAMETER = """\
    values = [group.get({name!r}) for group in optimizer.param_groups]
    used = json.dumps(values, default=lambda value: value.tolist())
    return used[1:-1] if len(values) == 1 else used"""
STATE = """\
    states = [s for s in optimizer.state.values() if isinstance(s, dict)]
    tensors = [value for state in states for value in state.values() if hasattr(value, "double")]
    return total(tensors) if tensors else "no state\""""
WEIGHTS = """\
    return total([p for group in optimizer.param_groups for p in group["params"]])"""
GRADIENTS = """\
    weights = [p for group in optimizer.param_groups for p in group["params"]]
    return total([p.grad for p in weights if p.grad is not None])"""
TOTAL = """


def total(tensors):
    return repr(float(sum(tensor.detach().double().sum().cpu() for tensor in tensors)))"""
USED_BY = {
    Field.STATE: ("sum of the optimizer's state", STATE + TOTAL),
    Field.WEIGHTS: ("sum of the weights", WEIGHTS + TOTAL),
    Field.GRADIENTS: ("sum of the gradients", GRADIENTS + TOTAL),
    Field.STEPS: ("lr", HYPERPARAMETER.format(name="lr")),
}
"""For each field that is not a hyperparameter: what the script prints, and code that returns it."""


def training_script(result: TrainingResult, finding: Finding) -> str:
    """A shell script that kills, resumes and compares as in the first outcome of `finding`.

    Raises `ScriptError` if there is none for a finding of this kind.
    """
    outcome, difference = finding.first, finding.first.difference
    if outcome.verdict == Verdict.UNKNOWN:
        raise ScriptError("it is not known whether this is a failure")
    if difference is not None and difference.field == Field.RANKS:
        raise ScriptError("a script compares the steps of one rank, and here a rank is missing")
    stop, kill = outcome.stop, finding.kill_point
    if isinstance(stop, InsideSave) and not outcome.saved:
        raise ScriptError("these checkpoints are too large to be written into a script")
    if isinstance(stop, Chain):
        if outcome.reason:
            raise ScriptError("a script compares steps, and here it is the number of resumes")
        kill = stop.every
    if isinstance(stop, Signal):
        kill = stop.after
    rank = difference.rank if difference else min(result.recordings)
    number = difference.optimizer if difference else 0
    recorded = result.recordings[rank]
    field = difference.field if difference else Field.LR
    what, used_by = USED_BY.get(field, (field.value, HYPERPARAMETER.format(name=field.value)))
    before = [s for s in recorded.steps[: outcome.starts.get(rank, 0)] if s.optimizer == number]
    several = len({step.optimizer for step in recorded.steps}) > 1
    whose = f" of optimizer {number}" if several else ""
    if len(result.recordings) > 1:
        whose += f" on rank {rank}"
    cannot = outcome.verdict == Verdict.CANNOT_RESUME
    return (
        environment(html=False)
        .get_template("reproduce.sh.j2")
        .render(
            headline=printable(finding_headline(result, finding)),
            version=harness.__version__,
            statuses="0 it resumes, 1 it can't be resumed"
            if cannot
            else "0 the same, 1 they differ",
            stopped=f"sent {stop.name}" if isinstance(stop, Signal) else "killed",
            signal=stop.name if isinstance(stop, Signal) else "SIGKILL",
            moment=stop_moment(result, finding),
            saved=_packed(outcome.saved) if isinstance(stop, InsideSave) else "",
            more_kills=stop.attempts - 2 if isinstance(stop, Chain) else 0,
            command=shlex.join(result.command),
            resume=shlex.join(result.resume),
            paths=shlex.join(result.checkpoints),
            kill=kill,
            killed=kill < result.steps,
            cannot_resume=cannot,
            stop_after=len(recorded.steps) if recorded.stopped else 0,
            rank=rank,
            optimizer=number,
            used_by=used_by,
            what=what,
            whose=whose,
            start=len(before),
            first_only=field == Field.STATE,
        )
    )


def _packed(saved: Sequence[SavedFile]) -> str:
    """Files and folders as lines of text."""
    values = [
        (file.name, file.kind, file.mtime, base64.b64encode(file.content).decode(), file.target)
        for file in saved
    ]
    packed = base64.b64encode(zlib.compress(json.dumps(values).encode(), 9)).decode()
    return "\n".join(textwrap.wrap(packed, 100))
