import functools
import pickle
from dataclasses import replace

import pytest
import torch
from helpers import verdicts_of
from torch.optim import lr_scheduler

from harness import Budget, Subject, check_scheduler, check_subject
from harness.checks.registry import ABOUT_EVENTS, IN_THIS_PROCESS, select_checks
from harness.core.ledger import version_of
from harness.subjects.known_failures import shipped_failures
from lr_schedules import LinearAnnealingLR
from lr_schedules.linear_annealing import LRScheduler
from lr_schedules.published import PublishedLinearAnnealingLR
from lr_schedules.subjects import SUBJECTS

FEW = Budget(max_examples=5)
OWN_OPTIONS = {
    subject.name: replace(subject, drawn=None)
    for subject in SUBJECTS
    if "Annealing" in subject.name
}
"""Ours without drawn options: the default check tries those."""


def optimizer_of(*rates):
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates]
    return torch.optim.SGD(groups, lr=1.0)


def trajectory(scheduler, epochs):
    seen = []
    for _ in range(epochs):
        seen.append([float(rate) for rate in scheduler.get_last_lr()])  # now, if it is a tensor
        scheduler.optimizer.step()
        scheduler.step()
    return seen


@pytest.mark.parametrize(("annealing", "total"), [(50, 100), (20, 100), (20, 1000)])
def test_the_whole_trajectory_of_the_published_settings(annealing, total):
    base = 0.3
    scheduler = LinearAnnealingLR(optimizer_of(base), annealing, total)
    up = [[base * s / annealing] for s in range(1, annealing + 1)]
    down = [
        [base * (total - s) / (total - annealing)] for s in range(annealing + 1, total)
    ]  # fmt: skip
    assert trajectory(scheduler, total + 20) == up + down + [[0.0]] * 21
    assert up[-1] == [base]
    assert len(up + down) == total - 1


def test_each_group_has_its_own_base_rate():
    scheduler = LinearAnnealingLR(optimizer_of(1.0, 0.5), 2, 4)
    assert trajectory(scheduler, 5) == [
        [0.5, 0.25],
        [1.0, 0.5],
        [0.5, 0.25],
        [0.0, 0.0],
        [0.0, 0.0],
    ]


def test_a_tensor_rate_is_written_in_place():
    rate = torch.tensor(1.0)
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=rate)
    scheduler = LinearAnnealingLR(optimizer, 2, 4)
    assert trajectory(scheduler, 5) == [[0.5], [1.0], [0.5], [0.0], [0.0]]
    if writes_in_place():
        assert optimizer.param_groups[0]["lr"] is rate


def writes_in_place():
    """Whether a scheduler of this torch does: it depends on the base class."""
    rate = torch.tensor(1.0)
    optimizer = optimizer_of(rate)
    trajectory(lr_scheduler.ExponentialLR(optimizer, 0.5), 1)
    return optimizer.param_groups[0]["lr"] is rate


def tensor_adam():
    parameters = [torch.nn.Parameter(torch.tensor([1.0, -2.0])), torch.nn.Parameter(torch.ones(1))]
    groups = [{"params": [parameters[0]]}, {"params": [parameters[1]], "lr": torch.tensor(0.5)}]
    return torch.optim.Adam(groups, lr=torch.tensor(1.0), betas=(0.8, 0.9))


def in_sequence(optimizer, last_epoch=-1):
    children = [
        lr_scheduler.ConstantLR(optimizer, factor=0.5, total_iters=2),
        LinearAnnealingLR(optimizer, num_annealing_steps=3, num_total_steps=7),
    ]
    return lr_scheduler.SequentialLR(optimizer, children, milestones=[3], last_epoch=last_epoch)


@functools.cache
def ledger():
    return shipped_failures()


def of_torch(check):
    """Whether torch's own base class breaks a check of every scheduler, as the ledger says."""
    entries = ledger().about(["LinearAnnealingLR"], check.name)
    return any(entry.covers(version_of(torch.__version__)) for entry in entries)


def test_it_holds_every_check_but_those_it_declines():
    subject = OWN_OPTIONS["LinearAnnealingLR"]
    results = list(
        check_subject(subject, [check for check in IN_THIS_PROCESS if not of_torch(check)], FEW)
    )
    halved, added = ABOUT_EVENTS["halve_lr"].name, ABOUT_EVENTS["add_group"].name
    # Its next step sets the LRs anew. Newer releases of torch also step no group that was added.
    declined = [r for r in results if r.check in (*subject.declines, halved)]
    declined += [r for r in results if r.check == added and r.verdict != "HOLDS"]
    assert {r.verdict for r in declined} == {"DECLINED"}
    assert verdicts_of(r for r in results if r not in declined) == {"HOLDS"}


def test_what_torch_breaks_of_it_is_one_thing():
    assert {check.name for check in IN_THIS_PROCESS if of_torch(check)} <= {
        "saved_state_is_a_snapshot"
    }


def test_it_holds_with_tensor_rates():
    subject = Subject(
        "tensor", LinearAnnealingLR, optimizer=tensor_adam, length=6,
        options={"num_annealing_steps": 2, "num_total_steps": 5},
    )  # fmt: skip
    shared = "saved_state_is_a_snapshot"
    checks = [each for each in select_checks() if each.name != shared and not each.event]
    assert verdicts_of(check_scheduler(subject, checks=checks, max_examples=1)) == {"HOLDS"}
    # torch 2.2 to 2.9 saves the groups' own tensors as _last_lr, whatever the schedule is.
    of_torch = Subject(
        "x", lr_scheduler.ExponentialLR, optimizer=tensor_adam, options={"gamma": 0.5}, length=6
    )
    ours, theirs = (
        list(check_subject(s, select_checks([shared]), FEW)) for s in (subject, of_torch)
    )
    assert [r.verdict for r in ours] == [r.verdict for r in theirs]
    assert ours[0].verdict == "HOLDS" or ours[0].counterexample.actual.keys() == {"_last_lr"}


def test_it_holds_in_a_sequence():
    # SequentialLR itself starts again from its first scheduler when built with last_epoch.
    without = "resume_by_last_epoch"
    checks = [each for each in select_checks() if each.name != without and not each.event]
    assert verdicts_of(check_scheduler(in_sequence, checks=checks, max_examples=5)) == {"HOLDS"}


@pytest.mark.parametrize(
    ("annealing", "total", "error", "value"),
    [
        (0, 5, ValueError, "got 0"),
        (-2, 5, ValueError, "got -2"),
        (5, 5, ValueError, "got 5"),
        (5, 4, ValueError, "got 4"),
        (2.0, 5, TypeError, "got 2.0"),
        (2, 5.5, TypeError, "got 5.5"),
        (True, 5, TypeError, "got True"),
        ("2", 5, TypeError, "got '2'"),
        (None, 5, TypeError, "got None"),
    ],
)
def test_bad_numbers_of_steps_are_refused(annealing, total, error, value):
    with pytest.raises(error) as caught:
        LinearAnnealingLR(optimizer_of(1.0), annealing, total)
    assert value in str(caught.value)


def test_it_is_a_scheduler_of_torch_and_can_be_pickled():
    scheduler = LinearAnnealingLR(optimizer_of(1.0), 2, 4)
    assert isinstance(scheduler, LRScheduler)
    assert pickle.loads(pickle.dumps(scheduler)).state_dict() == scheduler.state_dict()


def test_last_epoch_without_initial_lr_is_refused():
    with pytest.raises(KeyError, match="initial_lr"):
        LinearAnnealingLR(optimizer_of(1.0), 2, 4, last_epoch=1)


def test_the_published_one_is_right_where_it_is_not_resumed():
    published = PublishedLinearAnnealingLR(optimizer_of(1.0), 4, 9)
    ours = LinearAnnealingLR(optimizer_of(1.0), 4, 9)
    for left, right in zip(trajectory(published, 9), trajectory(ours, 9), strict=True):
        assert left == pytest.approx(right, rel=1e-15)


def test_the_harness_tells_the_two_apart():
    """Ours holds every check, as a test above says; the published one fails two."""
    subject = OWN_OPTIONS["PublishedLinearAnnealingLR"]
    checks = [check for check in select_checks() if not of_torch(check)]
    broken = {
        result.check: str(result.counterexample.trace)
        for result in check_subject(subject, checks, Budget(max_examples=0))
        if result.verdict == "BROKEN"
    }
    options = "num_annealing_steps=4 num_total_steps=9"
    assert broken == {
        "resume_by_last_epoch": f"{options} train:1 save:a resume:a",
        "lr_is_never_negative": f"{options} train:9",
    }
