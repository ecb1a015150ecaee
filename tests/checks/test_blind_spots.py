"""What the harness cannot see, so that nobody takes its silence for more than it is.

Each of these is wrong or can't be judged, and passes, or is UNKNOWN. Where one of
these tests fails, the harness sees more than it did: the list in `harness` is to be mended.
"""

import itertools
import math
import time

import torch

from harness import CHECKS, Budget, Subject, check_subject
from harness.checks.registry import IN_THIS_PROCESS, as_check, select_checks
from harness.core.verdict import Reason
from lr_schedules.correct import Halving

PLAIN = "resume_optimizer_then_scheduler"
OF_ITS_OPTIMIZER = ("optimizer_state_is_a_snapshot", "resume_with_other_initial_lrs")
"""Opt-in checks that a correct `Halving` does not keep either."""


def verdicts(subject, checks=None):
    results = check_subject(subject, checks or select_checks(), Budget(max_examples=5))
    return {result.check: result for result in results}


def assert_unseen(subject, checks=IN_THIS_PROCESS):
    checks = [check for check in checks if check.name not in OF_ITS_OPTIMIZER]
    found = verdicts(subject, checks)
    assert {result.verdict for result in found.values()} <= {"HOLDS", "DECLINED"}


class WallClock(Halving):
    """Decays by the hour of the day: a run resumed tomorrow goes on with another LR."""

    def factor(self):
        return 0.5 if time.time() % 86400 < 43200 else 0.25


class Ticking(Halving):
    """Decays by a clock that ticks while it runs."""

    ticks = itertools.count()

    def factor(self):
        return 1 / (1 + next(self.ticks))


class FollowsGradients(Halving):
    """Lowers the LR once a gradient was large, and does not save that it was.

    Those of the harness are at most 1, or infinite where they overflow.
    """

    def __init__(self, optimizer, last_epoch=-1):
        self.large = False
        super().__init__(optimizer, last_epoch)

    def factor(self):
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None and 10 < parameter.grad.abs().max() < math.inf:
                    self.large = True
        return super().factor() * (0.1 if self.large else 1.0)


RANKS = {"0": 0.5, "1": 0.25}


class OfAnotherMachine(Halving):
    """Keeps half of its state where only the machine that ran it has it."""

    def factor(self):
        return super().factor() * RANKS["0"]


class GlobalOnce(Halving):
    """Leaves in a module global, and not in its state, what a new process would lack."""

    def factor(self):
        return super().factor() * LEFT_BEHIND.setdefault("scale", 0.5)


LEFT_BEHIND = {}


class LateFault(Halving):
    """Is wrong when it is resumed at one late epoch at which nothing else happens."""

    def load_state_dict(self, state):
        super().load_state_dict({"epoch": state["epoch"] - (state["epoch"] == 42)})


class FourthGroup(Halving):
    """Loses the base LR of the fourth group."""

    def load_state_dict(self, state):
        self.base[3:] = [1.0 for _ in self.base[3:]]
        super().load_state_dict(state)


class Dampening(Halving):
    """Schedules a hyperparameter that is not compared, and loses it."""

    _wet = 0

    def step(self):
        self._wet += 1
        for group in self.optimizer.param_groups:
            group["eps"] = self._wet / 10
        super().step()


class ReplacesTheTensor(Halving):
    """Puts a new tensor where a captured optimizer would go on reading the old one."""

    def write(self):
        for group, rate in zip(self.optimizer.param_groups, self.rates(), strict=True):
            group["lr"] = torch.as_tensor(rate).clone()


def test_cannot_see_what_depends_on_the_wall_clock():
    """The run and its oracle read it within the same second."""
    assert_unseen(Subject("WallClock", WallClock, length=3))


def test_cannot_see_through_a_schedule_that_is_not_the_same_twice():
    """It is UNKNOWN with the reason, not HOLDS."""
    found = verdicts(Subject("Ticking", Ticking))
    assert {result.verdict for result in found.values()} == {"UNKNOWN"}
    assert found[PLAIN].why == Reason.NOT_REPEATABLE


def test_cannot_see_what_depends_on_the_gradients_of_a_real_model():
    """No gradient of the harness is ever large, so what is lost with that is never set."""
    assert_unseen(Subject("FollowsGradients", FollowsGradients, length=3))


def test_cannot_see_state_on_another_machine_or_rank():
    """There is one process, with all that it knows."""
    assert_unseen(Subject("OfAnotherMachine", OfAnotherMachine, length=3))


def test_cannot_see_what_a_module_global_keeps_from_run_to_run():
    """All runs share a process, but for those of a check that goes to another one."""
    LEFT_BEHIND.update(scale=0.125)
    subject = Subject("GlobalOnce", GlobalOnce, length=3)
    assert_unseen(subject)
    other_process = [check for check in CHECKS if check.other_process]
    found = [result.verdict for result in verdicts(subject, other_process).values()]
    assert found == ["BROKEN", "UNKNOWN"]  # there, a run without any resume differs, too


def test_cannot_see_faults_between_the_late_save_points():
    """Every epoch up to the length is one; the length is a field of the subject."""
    assert_unseen(Subject("LateFault", LateFault, length=4))
    found = verdicts(Subject("LateFault", LateFault, length=36), [as_check("roll_back_in_place")])
    assert found["roll_back_in_place"].verdict == "BROKEN"


def four_groups():
    parameters = [torch.nn.Parameter(torch.ones(1)) for _ in range(4)]
    return torch.optim.SGD([{"params": [p]} for p in parameters], lr=0.5)


def test_cannot_see_groups_that_the_optimizer_does_not_have():
    """The default optimizers have up to three; the subject can bring its own."""
    assert_unseen(Subject("FourthGroup", FourthGroup, length=3))
    found = verdicts(Subject("FourthGroup", FourthGroup, optimizer=four_groups, length=3))
    assert found[PLAIN].verdict == "BROKEN"


def test_cannot_see_hyperparameters_other_than_lr_momentum_betas_and_weight_decay():
    assert_unseen(Subject("Dampening", Dampening, length=3))


def test_cannot_see_which_tensor_holds_the_rate():
    """Values and dtypes are compared, not identities; a captured graph would read the old one."""
    optimizer = four_groups()
    scheduler = ReplacesTheTensor(optimizer)
    before = optimizer.param_groups[0]["lr"]
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] is not before
    assert_unseen(Subject("ReplacesTheTensor", ReplacesTheTensor, length=3))


def test_cannot_see_faults_of_options_that_were_not_given():
    def build(optimizer, last_epoch=-1, *, broken=False):
        return (LateFromStart if broken else Halving)(optimizer, last_epoch)

    class LateFromStart(Halving):
        def load_state_dict(self, state):
            super().load_state_dict({"epoch": 0})

    checks = [as_check(PLAIN)]
    assert verdicts(Subject("x", build), checks)[PLAIN].verdict == "HOLDS"
    given = Subject("x", build, options={"broken": True})
    assert verdicts(given, checks)[PLAIN].verdict == "BROKEN"


def test_cannot_see_with_an_optimizer_whose_step_needs_a_closure():
    """Every run raises, so it is UNKNOWN, not HOLDS."""

    def lbfgs():
        return torch.optim.LBFGS([torch.nn.Parameter(torch.ones(1))], lr=0.5)

    found = verdicts(Subject("x", Halving, optimizer=lbfgs), [as_check(PLAIN)])
    assert found[PLAIN].verdict == "UNKNOWN"
    assert "closure" in found[PLAIN].reason
