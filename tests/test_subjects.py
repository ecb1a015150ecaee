import inspect
import re

import pytest
import torch
from packaging.version import Version
from torch.optim import lr_scheduler, swa_utils

from harness import check_subject, replay
from harness.catalogue import known_failures, ledger_of_torch
from harness.checks import CHECKS, as_check, select_checks
from harness.ledger import Ledger, version_of
from harness.run import Runner
from lr_schedules import LinearAnnealingLR
from lr_schedules.defects import DEFECTS, NO_REPORT
from lr_schedules.subjects import SUBJECTS

BY_NAME = {subject.name: subject for subject in SUBJECTS}
BASE = getattr(lr_scheduler, "LRScheduler", None) or lr_scheduler._LRScheduler

FOUND_ON_2_13_0 = {
    "StepLR": {
        "resume_by_last_epoch": "step_size=3 gamma=0.5 train:3 save:a resume:a",
    },
    "MultiStepLR": {
        "resume_by_last_epoch": "milestones=[2,5,5,9] gamma=0.5 train:2 save:a resume:a",
    },
    "ConstantLR": {
        "resume_by_last_epoch": "factor=0.25 total_iters=4 train:4 save:a resume:a",
    },
    "CosineAnnealingWarmRestarts": {
        "resume_by_last_epoch": "T_0=2 T_mult=2 eta_min=0.001 train:4 save:a resume:a",
    },
    "CyclicLR": {
        "resume_twice_from_one_dict": (
            "base_lr=0.01 max_lr=0.1 step_size_up=2 step_size_down=3 "
            "mode='triangular2' save:a resume:a resume:a"
        ),
        "resume_by_last_epoch": (
            "optimizer=SGD(groups=1,lr='tensor') base_lr=0.1 max_lr=0.01 "
            "step_size_up=1 step_size_down=None mode='triangular' cycle_momentum=False "
            "scheduler:1 save:a resume:a"
        ),
        "loading_leaves_its_argument_alone": (
            "base_lr=0.01 max_lr=0.1 step_size_up=2 step_size_down=3 mode='triangular2' save:a"
        ),
    },
    "CyclicLR-scale_fn": {
        "resume_twice_from_one_dict": (
            "base_lr=0.01 max_lr=0.1 step_size_up=2 scale_fn=fall_with_cycle save:a "
            "resume:a resume:a"
        ),
        "resume_by_last_epoch": (
            "optimizer=SGD(groups=2,lr='shared') base_lr=1.0 max_lr=0.1 step_size_up=1 "
            "scale_fn=fall_with_cycle cycle_momentum=False mode='triangular' "
            "step_size_down=None train:1 save:a resume:a"
        ),
        "loading_leaves_its_argument_alone": (
            "base_lr=0.01 max_lr=0.1 step_size_up=2 scale_fn=fall_with_cycle save:a"
        ),
    },
    "OneCycleLR": {
        "lr_is_never_negative": (
            "max_lr=0.1 total_steps=3 anneal_strategy='linear' cycle_momentum=False "
            "three_phase=False train:3"
        ),
    },
    "OneCycleLR-three_phase": {
        "lr_is_never_negative": (
            "max_lr=0.1 total_steps=10 three_phase=True anneal_strategy='linear' train:10"
        ),
    },
    "SequentialLR": {
        "resume_by_last_epoch": (
            "schedulers=[LinearLR(start_factor=0.25,total_iters=3),"
            "ExponentialLR(gamma=0.5),ConstantLR(factor=0.5,total_iters=2)] "
            "milestones=[3,7] train:1 save:a resume:a"
        ),
        "lr_is_never_negative": (
            "schedulers=[ExponentialLR(gamma=0.5),LinearLR(total_iters=4,"
            "end_factor=0.0)] milestones=[0] train:4"
        ),
    },
    "ChainedScheduler": {
        "resume_twice_from_one_dict": (
            "schedulers=[CyclicLR(base_lr=0.1,max_lr=0.1,step_size_up=1,"
            "cycle_momentum=False)] save:a resume:a resume:a"
        ),
        "resume_by_last_epoch": "schedulers=[ConstantLR(total_iters=1)] train:1 save:a resume:a",
        "loading_leaves_its_argument_alone": (
            "schedulers=[CyclicLR(base_lr=0.1,max_lr=0.1,step_size_up=1,"
            "cycle_momentum=False)] save:a"
        ),
        "lr_is_never_negative": (
            "schedulers=[ExponentialLR(gamma=0.5),CosineAnnealingLR(T_max=1,eta_min=0.05)] train:2"
        ),
    },
    "TwoSchedulers": {
        "resume_twice_from_one_dict": (
            "schedulers=[ExponentialLR(gamma=0.5),CyclicLR(base_lr=0.1,max_lr=0.1,"
            "step_size_up=1,cycle_momentum=False)] save:a resume:a resume:a"
        ),
        "resume_by_last_epoch": (
            "schedulers=[LinearLR(start_factor=0.25,total_iters=3),StepLR(step_size=4,"
            "gamma=0.5)] train:4 save:a resume:a"
        ),
        "loading_leaves_its_argument_alone": (
            "schedulers=[ExponentialLR(gamma=0.5),CyclicLR(base_lr=0.1,max_lr=0.1,"
            "step_size_up=1,cycle_momentum=False)] save:a"
        ),
    },
    "SWALR": {
        "resume_by_last_epoch": "swa_lr=0.05 anneal_epochs=4 train:1 save:a resume:a train:1",
    },
    "PublishedLinearAnnealingLR": {
        "resume_by_last_epoch": "num_annealing_steps=4 num_total_steps=9 train:1 save:a resume:a",
        "lr_is_never_negative": "num_annealing_steps=4 num_total_steps=9 train:9",
    },
}

AGAIN = "milestones=[2,5,5,9] gamma=0.5 train:1 save:a resume:a save:a"
ANOTHER = (
    "changed={'lr_lambda':[Swinging([0.3,0.25])]} optimizer=SGD(groups=1) lr_lambda=Fading(0.5) "
    "train:1 save:a resume:a train:1"
)
FOUND_WHERE_ASKED_FOR = {
    ("MultiStepLR", "resume_from_json"): ("milestones=[2,5,5,9] gamma=0.5 save:a resume:a train:2"),
    ("SequentialLR", "resume_from_json"): (
        "schedulers=[ExponentialLR(gamma=0.5),MultiStepLR(milestones=[])] milestones=[1] "
        "save:a resume:a train:1"
    ),
    ("ChainedScheduler", "resume_from_json"): (
        "schedulers=[MultiStepLR(milestones=[1])] save:a resume:a train:1"
    ),
    ("TwoSchedulers", "resume_from_json"): (
        "schedulers=[ExponentialLR(gamma=0.5),MultiStepLR(milestones=[1])] save:a resume:a train:1"
    ),
    ("MultiStepLR", "resume_from_distributed_checkpoint"): AGAIN,
    ("MultiStepLR", "resume_on_two_ranks"): AGAIN,
    ("MultiStepLR", "resume_from_two_ranks"): AGAIN,
    ("MultiStepLR", "resume_across_two_ranks"): AGAIN,
    ("LambdaLR-stateful", "resume_with_changed_options"): ANOTHER,
    ("MultiplicativeLR-stateful", "resume_with_changed_options"): ANOTHER,
}
"""What opt-in checks find, but for the ways that leave out a part of the state."""

NO_PROMISE = {
    "resume_built_on_loaded_optimizer", "resume_scheduler_alone", "resume_by_initial_lr"
}  # fmt: skip

DECLINES_LAST_EPOCH = ("ReduceLROnPlateau", "LambdaLR-stateful", "MultiplicativeLR-stateful")


def public_schedulers():
    """The schedulers that the installed torch shows, by what their modules hold."""
    found = set()
    for module in (lr_scheduler, swa_utils):
        for name, value in vars(module).items():
            if inspect.isclass(value) and not name.startswith("_") and value is not BASE:
                steps = issubclass(value, BASE) or name == "ReduceLROnPlateau"
                if steps and value.__module__.startswith("torch."):
                    found.add(value)
    return found


def test_every_public_scheduler_of_this_torch_has_a_subject():
    covered = {type(Runner(subject.bind({})).start()[1]) for subject in SUBJECTS}
    assert public_schedulers() - covered == set()
    assert LinearAnnealingLR in covered
    assert len(public_schedulers()) >= 16


def test_a_scheduler_that_torch_adds_is_seen(monkeypatch):
    new = type("NewLR", (BASE,), {"__module__": "torch.optim.lr_scheduler"})
    monkeypatch.setattr(lr_scheduler, "NewLR", new, raising=False)
    assert new in public_schedulers()


def test_names_are_unique():
    assert len(BY_NAME) == len(SUBJECTS)


@pytest.mark.parametrize("name", BY_NAME)
def test_something_happens_within_the_plain_run(name):
    subject = BY_NAME[name]
    reference = Runner(subject.bind({})).reference("t" * subject.length)
    rates = [tuple(map(str, seen["lr"])) for seen in reference.observations]
    assert len(set(rates)) > 2 or name in ("ConstantLR", "ReduceLROnPlateau")
    assert len(set(rates)) > 1


ON_2_13_0 = pytest.mark.skipif(
    not torch.__version__.startswith("2.13.0"), reason="what is broken differs between releases"
)


@ON_2_13_0
@pytest.mark.parametrize("name", FOUND_ON_2_13_0)
def test_what_was_found_on_torch_2_13_0_is_still_there(name):
    for check, trace in FOUND_ON_2_13_0[name].items():
        assert replay(BY_NAME[name], check, trace).verdict == "BROKEN"


@ON_2_13_0
@pytest.mark.parametrize("pair", FOUND_WHERE_ASKED_FOR)
def test_what_opt_in_checks_found_on_torch_2_13_0_is_still_there(pair):
    name, check = pair
    assert replay(BY_NAME[name], check, FOUND_WHERE_ASKED_FOR[pair]).verdict == "BROKEN"


MATRIX = (
    "1.13.1", "2.0.1", "2.2.2", "2.4.1", "2.6.0", "2.7.1", "2.8.0", "2.9.1", "2.10.0", "2.12.1",
    "2.13.0", "2.15.0",
)  # fmt: skip
LEDGER = known_failures([ledger_of_torch()]).entries


def test_the_ledger_tells_what_is_found_on_torch_2_13_0():
    told = {
        (entry.subject, entry.check): str(entry.trace)
        for entry in LEDGER
        if entry.covers(Version("2.13.0"))
    }
    assert told == {
        (name, check): trace
        for name, checks in FOUND_ON_2_13_0.items()
        for check, trace in checks.items()
    }


def test_the_ranges_of_the_ledger_are_of_releases_that_were_run():
    """Each begins where the main job found the failure first, and ends before it did not."""
    for entry in LEDGER:
        shown = [version for version in MATRIX if entry.covers(Version(version))]
        first = MATRIX.index(shown[0])
        assert shown == list(MATRIX[first : first + len(shown)]), entry.place
        after = MATRIX[first + len(shown) : first + len(shown) + 1]
        assert set(map(str, entry.torch)) == {f">={shown[0]}", *(f"<{v}" for v in after)}


@pytest.mark.slow
def test_the_ledger_is_true_of_this_torch():
    version = version_of(torch.__version__)
    about = [entry for entry in LEDGER if entry.covers(version)]
    for name in dict.fromkeys(entry.subject for entry in about):
        checks = [as_check(entry.check) for entry in about if entry.subject == name]
        for result in check_subject(BY_NAME[name], checks, ledger=Ledger(tuple(about))):
            assert result.verdict == "KNOWN", (name, result.check, result.reason)


def test_every_defect_says_where_it_is_tracked():
    """One line for each pair that is found on torch 2.13.0, and none for others."""
    found = {(name, check) for name, checks in FOUND_ON_2_13_0.items() for check in checks}
    found |= set(FOUND_WHERE_ASKED_FOR)
    of_torch = {pair for pair in found if pair[0] != "PublishedLinearAnnealingLR"}
    told = [pair for defect in DEFECTS for pair in defect.pairs]
    assert sorted(told) == sorted(of_torch)
    for defect in DEFECTS:
        number = re.fullmatch(r"(like )?pytorch/pytorch#\d+(, .*)?", defect.tracked)
        assert number or defect.tracked == NO_REPORT
        assert defect.wrong


@ON_2_13_0
@pytest.mark.slow
@pytest.mark.parametrize("name", BY_NAME)
def test_what_opt_in_checks_find_on_torch_2_13_0(name):
    checks = [check for check in CHECKS if not check.default and check.name not in NO_PROMISE]
    results = list(check_subject(BY_NAME[name], checks))
    broken = {(name, result.check) for result in results if result.verdict == "BROKEN"}
    assert broken == {pair for pair in FOUND_WHERE_ASKED_FOR if pair[0] == name}
    assert {result.verdict for result in results} <= {"HOLDS", "BROKEN", "DECLINED"}


@ON_2_13_0
@pytest.mark.slow
@pytest.mark.parametrize("name", BY_NAME)
def test_what_the_main_job_finds_on_torch_2_13_0(name):
    results = list(check_subject(BY_NAME[name], select_checks()))
    broken = {r.check: str(r.counterexample.trace) for r in results if r.verdict == "BROKEN"}
    assert broken == FOUND_ON_2_13_0.get(name, {})
    declined = {r.check for r in results if r.verdict == "DECLINED"}
    assert declined == ({"resume_by_last_epoch"} if name in DECLINES_LAST_EPOCH else set())
    assert {r.verdict for r in results} <= {"HOLDS", "BROKEN", "DECLINED"}
