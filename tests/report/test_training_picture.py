"""What a picture of a training script shows."""

from harness.report.training_picture import training_picture, training_trajectory
from harness.training.compare import compare_ranks
from harness.training.recording import Recording, State, Step
from harness.training.result import Outcome, TrainingResult, Verdict

LRS = (0.5, 0.4, 0.3, 0.2, 0.1)


def recordings(lrs, start=0):
    """One rank with two optimizers: the second has a constant LR."""
    steps = []
    for number, lr in enumerate(lrs, start):
        steps.append(Step(0, {"lr": [lr]}, State(f"a{number}", "")))
        steps.append(Step(1, {"lr": [7.0]}, State(f"b{number}", "")))
    return {0: Recording(0, tuple(steps), (State(f"a{start + len(lrs)}", ""),))}


def shown(lrs):
    expected, resumed = recordings(LRS), recordings(lrs, 2)
    found = compare_ranks(expected, resumed, 5)
    outcome = Outcome(
        (5, 6), Verdict.BROKEN, starts={0: found.starts[0].steps},
        difference=found.broken(everything=False), resumed=resumed,
    )  # fmt: skip
    result = TrainingResult(
        ("python", "train.py"), ("python", "train.py"), Verdict.BROKEN, steps=10,
        recordings=expected, outcomes=(outcome,), planned=1, checkpoints=("runs",),
    )  # fmt: skip
    return result, outcome, training_trajectory(result, outcome)


def test_the_steps_of_one_optimizer_are_drawn():
    result, outcome, picture = shown((0.3, 0.25, 0.15))
    whole, resumed = (picture.points(run) for run in picture.runs)
    assert whole == [(1, [0.5]), (3, [0.4]), (5, [0.3]), (7, [0.2]), (9, [0.1])]
    assert resumed == [(5, [0.3]), (7, [0.25]), (9, [0.15])]
    assert picture.marks == {4: "checkpoint of step 4", 5: "killed after step 5"}
    assert (picture.wrong, picture.right) == ({0: 0.25}, {0: 0.2})
    assert picture.labels == {0: "step 7: expected 0.2, got 0.25"}
    assert picture.title == "train.py: BROKEN, optimizer 0"
    assert training_picture(result, outcome).startswith(b"<?xml")


def test_steps_past_the_end_are_pointed_at():
    _, _, picture = shown((0.3, 0.2, 0.1, 0.05))
    assert picture.labels == {0: "step 11: runs past the end: expected 10 steps, got 12 steps"}
    assert picture.wrong == {0: 0.05}


def test_there_is_no_picture_of_a_resume_that_fails():
    result = TrainingResult(("x",), ("x",), Verdict.CANNOT_RESUME)
    outcome = Outcome((1,), Verdict.CANNOT_RESUME, "KeyError: 'x'")
    assert training_picture(result, outcome) == "No picture: no step of the resumed run is known"
