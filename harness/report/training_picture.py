"""A resumed run of a training script as a picture: its LRs over those of the recorded run."""

from __future__ import annotations

from collections.abc import Sequence

from harness.core.output import one_line
from harness.core.result import shorten
from harness.core.run import Role, Run, Seen, number, numbers_of
from harness.report.picture import QUANTITIES, Trajectory, apart, svg_or_why
from harness.training.compare import Difference, Field
from harness.training.recording import InsideSave, Step
from harness.training.result import Chain, Outcome, Signal, TrainingResult
from harness.training.text import first_start, script_name

__all__ = ["training_picture", "training_trajectory"]


def training_picture(result: TrainingResult, outcome: Outcome) -> bytes | str:
    """The picture of a resumed run as SVG, or a sentence that says why there is none."""
    shown = training_trajectory(result, outcome)
    return svg_or_why(shown, "no step of the resumed run is known")


def training_trajectory(result: TrainingResult, outcome: Outcome) -> Trajectory | None:
    """The recorded and the resumed run; None if no step was recorded of one of them.

    They are those of the rank and the optimizer that differ. The picture shows the LR unless
    another hyperparameter differs. A point is what an optimizer step used, by its number.
    """
    difference = outcome.difference or outcome.data
    rank = difference.rank if difference else min(result.recordings, default=0)
    optimizer = difference.optimizer if difference else 0
    if rank not in outcome.starts or rank not in result.recordings:
        return None
    recorded, start = result.recordings[rank].steps, outcome.starts[rank]
    resumed = outcome.resumed[rank].steps if rank in outcome.resumed else ()
    field = difference.field.value if difference else ""
    quantity = field if field in QUANTITIES else "lr"
    killed = next((k for k in outcome.kill_points if k), 0)
    if isinstance(outcome.stop, Chain):
        killed = outcome.kill_points[-1]
    how = "stopped" if isinstance(outcome.stop, Signal) else "killed"
    inside = " inside the save" if isinstance(outcome.stop, InsideSave) else ""
    marks = {killed: f"{how}{inside} after step {killed}"}
    from_ = f"checkpoint of step {first_start(outcome)}"
    marks[start] = f"{from_}, {marks[start]}" if start == killed else from_
    several = [f"rank {rank}"] if len(result.recordings) > 1 else []
    if len({step.optimizer for step in recorded}) > 1:
        several.append(f"optimizer {optimizer}")
    title = ", ".join([f"{script_name(result.command)}: {outcome.verdict}", *several])
    label, wrong, right = _labelled(difference, start, resumed)
    return Trajectory(
        one_line(title),
        one_line(" ".join(result.command)),
        quantity,
        (
            Run(Role.UNINTERRUPTED, _seen(recorded, optimizer, 0), name="uninterrupted"),
            Run(Role.RESUMED, _seen(resumed, optimizer, start), name="resumed"),
        ),
        marks,
        difference.step if difference else start,
        label,
        wrong,
        right,
        axis="optimizer step",
    )


def _seen(steps: Sequence[Step], optimizer: int, start: int) -> tuple[Seen, ...]:
    """What the steps of an optimizer used, with the number of each step in the recorded run."""
    return tuple(
        Seen("", start + index + 1, step.values)
        for index, step in enumerate(steps)
        if step.optimizer == optimizer
    )


def _labelled(
    difference: Difference | None, start: int, resumed: Sequence[Step]
) -> tuple[dict[int | None, str], dict[int, float], dict[int, float]]:
    """A description of a difference, and the wrong and right numbers, by param group."""
    if difference is None:
        return {}, {}, {}
    at = f"step {difference.step}: "
    if difference.group >= 0:
        is_, must = number(difference.actual), number(difference.expected)
        got, expected = apart(difference.actual, difference.expected)
        text = one_line(f"{at}expected {shorten(expected, 40)}, got {shorten(got, 40)}")
        return {difference.group: text}, {difference.group: is_}, {difference.group: must}
    what = f"{difference.field} differ"
    if difference.field not in (Field.WEIGHTS, Field.GRADIENTS):
        known = f"{difference.relations[0]}: " if difference.relations else ""
        what = f"{known}expected {difference.expected}, got {difference.actual}"
    text = one_line(at + what)
    place = difference.step - start - 1
    past_the_end = difference.field == Field.STEPS and place in range(len(resumed))
    if past_the_end and (values := numbers_of(resumed[place].values, "lr")):
        return {0: text}, {0: values[0]}, {}
    return {None: text}, {}, {}
