"""One cause turns one check red, and the message says what to do about it."""

import pytest
from torch.optim.lr_scheduler import LambdaLR

from harness import Budget, Subject, Term, check_subject, replay
from harness.checks.registry import as_check
from lr_schedules.correct import Halving, Multiplies
from lr_schedules.faults import FAULTS

ROUTES = ("resume_optimizer_then_scheduler", "roll_back_in_place", "resume_at_every_save")
BY_NAME = {fault.name: fault.subject for fault in FAULTS}


def results_of(subject, *names):
    checks = [as_check(name) for name in (*names, *ROUTES)]
    return {each.check: each for each in check_subject(subject, checks, Budget(max_examples=0))}


def verdicts(results):
    return {name: str(result.verdict) for name, result in results.items()}


@pytest.mark.parametrize(
    ("fault", "check", "left_out"),
    [
        ("StaleReport", "last_lr_goes_on", "get_last_lr() is not compared: last_lr_goes_on does"),
        ("UndoesWhatWasSetByHand", "resume_after_halve_lr", "what differs after halve_lr is left"),
        ("ForgetsAddedGroups", "resume_after_add_group", "what differs after add_group is left"),
    ],
)
def test_one_cause_breaks_one_check_and_the_others_say_what_they_leave_out(fault, check, left_out):
    results = results_of(BY_NAME[fault], check)
    assert verdicts(results) == {check: "BROKEN", **dict.fromkeys(ROUTES, "HOLDS")}
    assert left_out in results[ROUTES[0]].reason


class StaleAndForgetful(Halving):
    """Reports an old LR after a load, and forgets at the third step that it was loaded."""

    reported = ()
    loaded = False

    def step(self):
        super().step()
        if self.loaded:
            for group in self.optimizer.param_groups:
                group["lr"] *= 0.5
        self.reported = super().get_last_lr()

    def get_last_lr(self):
        return list(self.reported or self.base)

    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.loaded = self.epoch > 2


def test_a_stale_report_does_not_hide_a_wrong_lr():
    subject = Subject("both", StaleAndForgetful)
    result = results_of(subject, "last_lr_goes_on")[ROUTES[0]]
    assert result.verdict == "BROKEN"
    assert set(result.counterexample.actual) == {"lr"}
    again = replay(subject, ROUTES[0], result.counterexample.trace)
    assert again.counterexample == result.counterexample


def test_what_a_subject_declines_is_not_looked_at_elsewhere():
    fault = BY_NAME["StaleReport"]
    subject = Subject("x", fault.build, declines={"last_lr_goes_on": "it reports the last step"})
    results = results_of(subject, "last_lr_goes_on")
    assert verdicts(results) == {"last_lr_goes_on": "DECLINED", **dict.fromkeys(ROUTES, "HOLDS")}


class RefusesGroups(Multiplies):
    """Raises if a group was added."""

    def __init__(self, optimizer, last_epoch=-1):
        self.number = len(optimizer.param_groups)
        super().__init__(optimizer, last_epoch)

    def step(self):
        if len(self.optimizer.param_groups) != self.number:
            raise ValueError("another number of groups")
        super().step()


def test_a_scheduler_that_refuses_a_new_group_declines_one_check():
    results = results_of(Subject("x", RefusesGroups), "resume_after_add_group")
    assert verdicts(results) == {
        "resume_after_add_group": "DECLINED", **dict.fromkeys(ROUTES, "HOLDS")
    }  # fmt: skip
    assert "another number of groups" in results["resume_after_add_group"].reason


class HoldsALambda(Halving):
    """Holds a lambda."""

    def __init__(self, optimizer, last_epoch=-1):
        self.decay = lambda epoch: 0.5 ** (epoch // 3)
        super().__init__(optimizer, last_epoch)


def test_what_holds_a_lambda_declines_the_pickle_itself():
    result = results_of(Subject("x", HoldsALambda), "resume_by_pickle")["resume_by_pickle"]
    assert result.verdict == "DECLINED"
    assert "it holds what pickle refuses" in result.reason
    assert "lambda" in result.reason


class Fading:
    """A factor that falls with each call."""

    def __init__(self, by):
        self.by, self.factor = by, 1.0

    def __call__(self, epoch):
        self.factor *= self.by
        return self.factor


def test_an_option_that_steps_change_is_shared_by_all_runs_and_the_message_names_the_cure():
    shared = Subject("x", LambdaLR, options={"lr_lambda": Fading(0.5)})
    [result] = check_subject(shared, [as_check(ROUTES[0])], Budget(max_examples=0))
    assert result.verdict == "UNKNOWN"
    cure = "Subject(..., words={'Fading': Fading}, options={'lr_lambda': Term.of('Fading', ...)})"
    assert cure in result.reason
    own = Subject(
        "x", LambdaLR, words={"Fading": Fading}, options={"lr_lambda": Term.of("Fading", 0.5)}
    )
    [result] = check_subject(own, [as_check(ROUTES[0])], Budget(max_examples=0))
    assert result.verdict == "HOLDS"
