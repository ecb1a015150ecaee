import math

import pytest
from torch.optim.lr_scheduler import LRScheduler, StepLR

from harness import Budget, Subject, check_subject
from harness.checks.registry import IN_THIS_PROCESS, as_check
from harness.core.operations import MAX_STEPS
from harness.core.run import parse_ranges, ranges
from harness.core.verdict import Reason, Verdict
from harness.engine import option_sets
from harness.engine.horizon import FAR, Horizon, Watch, changes_of_shape, save_points
from harness.engine.option_sets import prepare
from harness.engine.pair_tester import Runners
from harness.engine.session import SubjectSession
from harness.engine.sweep import EARLY, sweep_along

SWEEP = Budget(max_examples=0, time_limit=600)  # a far run may take an eighth of it
FROM_FILE = as_check("resume_from_file")


@pytest.fixture(scope="module", autouse=True)
def whole_horizon():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(option_sets, "FAR", FAR)
        yield


class Restarts(LRScheduler):
    """Restarts every `period` epochs, and loses how often it did."""

    def __init__(self, optimizer, period, last_epoch=-1):
        self.period = period
        self.restarts = 0
        super().__init__(optimizer, last_epoch)

    def get_lr(self):
        self.restarts += self.last_epoch > 0 and self.last_epoch % self.period == 0
        return [rate / (1 + self.restarts) for rate in self.base_lrs]

    def state_dict(self):
        return {name: value for name, value in super().state_dict().items() if name != "restarts"}


class ForgetsLate(LRScheduler):
    """Counts from epoch 100 on, although nothing shows then, and loses the count."""

    count = 0

    def get_lr(self):
        self.count += self.last_epoch >= 100
        return [rate / (1 + self.last_epoch + self.count) for rate in self.base_lrs]

    def state_dict(self):
        return {name: value for name, value in super().state_dict().items() if name != "count"}


class Constant(LRScheduler):
    def get_lr(self):
        return list(self.base_lrs)


class NotANumber(LRScheduler):
    def get_lr(self):
        late = self.last_epoch == 40
        return [math.nan if late else rate / (1 + self.last_epoch) for rate in self.base_lrs]


def results_of(subject, *names, budget=SWEEP):
    return list(check_subject(subject, [as_check(name) for name in names], budget))


@pytest.mark.parametrize("period", [50, 130, 700])
def test_a_restart_that_comes_late_is_found_and_the_trace_is_minimal(period):
    subject = Subject("restarts", Restarts, options={"period": period})
    [result] = results_of(subject, "resume_from_file")
    assert result.verdict is Verdict.BROKEN
    minimal = f"period={period} train:{period} save:a resume:a train:1"
    assert str(result.counterexample.trace) == minimal


def test_a_count_that_is_lost_between_changes_is_found():
    [result] = results_of(Subject("late", ForgetsLate), "resume_from_file")
    assert result.verdict is Verdict.BROKEN
    assert str(result.counterexample.trace) == "train:100 save:a resume:a train:1"


def test_the_step_of_a_schedule_after_50_epochs_is_looked_at():
    results = results_of(
        Subject("steps", StepLR, options={"step_size": 50}),
        *(c.name for c in IN_THIS_PROCESS if c.default),
    )
    by_check = {result.check: result for result in results}
    assert by_check.pop("resume_by_last_epoch").verdict is Verdict.BROKEN
    assert {result.verdict for result in by_check.values()} == {Verdict.HOLDS}
    assert {48, 49, 50, 51} <= by_check["resume_from_file"].tally.looked.epochs
    assert "nothing changes before epoch 50" in by_check["resume_from_file"].note


def test_a_schedule_in_which_nothing_happens_is_declined_unless_it_is_meant_to_be_constant():
    [result] = results_of(Subject("constant", Constant), "resume_from_file")
    assert (result.verdict, result.why) == (Verdict.DECLINED, Reason.NOTHING_CHANGES)
    assert result.reason == f"nothing changed in {FAR} epochs"
    [meant] = results_of(Subject("constant", Constant, constant=True), "resume_from_file")
    assert meant.verdict is Verdict.HOLDS


def test_a_rate_that_is_not_a_number_is_found_late_too():
    [result] = results_of(Subject("nan", NotANumber), "lr_is_finite")
    assert (result.verdict, str(result.counterexample.trace)) == (Verdict.BROKEN, "train:40")


def test_a_schedule_that_takes_long_is_not_run_far():
    subject = Subject("slow", StepLR, options={"step_size": 50})
    watch = Watch(deadline=0.0)
    runner = Runners(subject).new(subject.bind({}), math.inf)
    run = runner.watched("t" * FAR, watch)
    assert (run.path, len(run.observations)) == ("t", 2)
    assert watch.horizon(run.observations) == Horizon()


def test_what_was_watched_serves_as_the_uninterrupted_run():
    subject = Subject("steps", StepLR, options={"step_size": 50})
    runner = Runners(subject).new(subject.bind({}), math.inf)
    run = runner.watched("t" * 60, Watch())
    assert runner.uninterrupted("t" * 60) is run
    horizon = Watch().horizon(run.observations)
    assert (horizon.epochs, horizon.changes, horizon.first_change) == (60, (50, 51), 50)


@pytest.mark.parametrize(
    ("values", "changes"),
    [
        ([0.9**i for i in range(40)], []),
        ([0.1**i for i in range(9)], []),
        ([1 - 0.01 * i for i in range(40)], []),
        ([1.0] * 10 + [0.5] * 10, [10, 11]),
        ([1 + math.cos(math.pi * i / 40) for i in range(81)][9:30], []),
        ([min(i, 20) for i in range(40)], [21]),
        ([min(i, 20) + max(i - 20, 0) * 3 for i in range(40)], [21, 22]),
        ([0.0, math.inf, math.inf, 1.0], [2, 3]),
        ([math.nan] * 5, []),
        ([], []),
    ],
)  # fmt: skip
def test_where_a_series_changes_its_shape(values, changes):
    assert list(changes_of_shape(values)) == changes


def test_few_points_are_chosen_of_many_changes():
    points = save_points(range(3, FAR, 3), 12, FAR)
    assert len(points) < 50
    assert {13, 14, 15, 16} <= set(points)
    assert max(points) < 300
    assert save_points([1500], 12, FAR)[-4:] == (1498, 1499, 1500, 1501)


def test_a_long_trace_is_linear_in_its_epochs():
    points = (EARLY, *save_points([50, 1500], 12, FAR))
    operations = sweep_along(FROM_FILE, points, FAR)
    steps = sum(operation.count for operation in operations)
    assert 3 * points[-1] < steps < 3.5 * points[-1] < MAX_STEPS
    resumed = [op.slot for op in operations if op.kind == "resume"]
    assert sorted(resumed) == sorted(f"e{point}" for point in points)


def test_optimizers_that_differ_are_tried_with_a_bare_class(all_is_tried):
    session = SubjectSession(Subject("steps", StepLR, options={"step_size": 3}), budget=SWEEP)
    result = session.check(FROM_FILE)
    assert result.tally.looked.optimizers == {("SGD", 2), ("AdamW", 3), ("Adam", 1)}
    variations = [each.bound.fields for each in session.prepared.option_sets if each.variation]
    assert [str(fields["optimizer"]) for fields in variations] == [
        "AdamW(groups=3)", "SGD(groups=2,lr='shared',momentum=0.9)", "Adam(rates=[1.2345678e-05])",
    ]  # fmt: skip


def test_no_optimizer_is_tried_in_place_of_a_given_one():
    from harness.core.training_loop import new_sgd

    subject = Subject("steps", StepLR, options={"step_size": 3}, optimizer=lambda: new_sgd())
    prepared = prepare(subject, 0, lambda bound, compute=True: Runners(subject).new(
        bound, math.inf, compute=compute), [])  # fmt: skip
    assert not any(each.variation for each in prepared.option_sets)


def test_ranges_are_written_and_read():
    numbers = {0, 1, 2, 16, 47, 48}
    assert ranges(numbers) == "0-2, 16, 47-48"
    assert parse_ranges(ranges(numbers)) == numbers
    assert parse_ranges("") == set()
    for text in ("1-", "a", "1-999999", "3,4"):
        with pytest.raises(ValueError, match="epochs must be written"):
            parse_ranges(text)
