"""Drawn options are tried with optimizer steps that compute nothing; the verdicts are the same."""

from dataclasses import replace

import pytest
import torch
from hypothesis import strategies as st
from torch.optim.lr_scheduler import ExponentialLR, _LRScheduler

from harness import Subject, resume_check
from harness.checks.registry import as_check, select_checks
from harness.core.training_loop import new_sgd
from harness.engine.session import SubjectSession

PLAIN = as_check("resume_optimizer_then_scheduler")
GAMMAS = st.fixed_dictionaries({"gamma": st.sampled_from([0.5, 0.25, 0.125])})


class Counting(torch.optim.SGD):
    """SGD that counts the steps it computes."""

    computed = 0

    def step(self, closure=None):
        Counting.computed += 1
        return super().step(closure)


def counting():
    first = torch.nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    return Counting([first], lr=0.1, momentum=0.9)


def session_of(build, **fields):
    options = {"gamma": 0.9}
    session = SubjectSession(Subject("drawn", build, options=options, drawn=GAMMAS, **fields))
    assert session.refusal is None
    return session


def computed(session):
    sets = [each for each in session.prepared.option_sets if not each.variation]
    return [each.own or each.computed for each in sets]


def all_computed(build, **fields):
    session = session_of(build, **fields)
    sets = tuple(replace(each, computed=True) for each in session.prepared.option_sets)
    session.prepared = replace(session.prepared, option_sets=sets)
    return session


def seen_by(session, check):
    result = session.check(check)
    found = result.counterexample and replace(result.counterexample, found=None)
    return result.verdict, result.reason, found, result.tally


def test_only_the_steps_of_the_own_options_are_computed(all_is_tried):
    session = session_of(ExponentialLR, optimizer=counting)
    assert computed(session) == [True, False, False, False]
    Counting.computed = 0
    tally = session.check(PLAIN).tally
    assert 0 < Counting.computed < tally.steps / 2


def test_the_own_options_are_computed_even_if_they_are_drawn_too():
    drawn = st.just({"gamma": 0.9})
    session = SubjectSession(
        Subject("own", ExponentialLR, options={"gamma": 0.9}, drawn=drawn, optimizer=counting)
    )
    Counting.computed = 0
    tally = session.check(PLAIN).tally
    assert tally.steps * 0.9 < Counting.computed


def test_the_results_are_the_same_as_with_computed_steps():
    some, every = session_of(ExponentialLR, length=4), all_computed(ExponentialLR, length=4)
    for check in select_checks():
        assert seen_by(some, check) == seen_by(every, check)


class ReadsTheState(ExponentialLR):
    """Decays in proportion to what the optimizer holds."""

    def get_lr(self):
        held = len(self.optimizer.state)
        return [lr * self.gamma ** (held > 0) for lr in super().get_lr()]


def test_a_schedule_that_depends_on_computed_steps_gets_them():
    assert computed(session_of(ReadsTheState)) == [True] * 4


needs_hooks = pytest.mark.skipif(
    not hasattr(torch.optim.Optimizer, "register_step_post_hook"), reason="this torch has no hooks"
)


class CountsSteps(_LRScheduler):
    """Decays with each optimizer step, which it counts by a hook."""

    def __init__(self, optimizer, gamma, last_epoch=-1):
        self.gamma, self.steps = gamma, 0
        optimizer.register_step_post_hook(self.count)
        super().__init__(optimizer, last_epoch)

    def count(self, *_):
        self.steps += 1

    def get_lr(self):
        return [lr * self.gamma**self.steps for lr in self.base_lrs]

    def state_dict(self):
        kept = ("last_epoch", "_last_lr", "base_lrs", "steps")
        return {name: vars(self)[name] for name in kept}


class ForgetsSteps(CountsSteps):
    def load_state_dict(self, state):
        super().load_state_dict({**state, "steps": 0})


class NeedsTheState(CountsSteps):
    """Refuses to save if the optimizer has stepped and holds nothing."""

    def state_dict(self):
        if self.steps and not self.optimizer.state:
            raise RuntimeError("the optimizer holds nothing")
        return super().state_dict()


@needs_hooks
@pytest.mark.parametrize(("build", "verdict"), [(CountsSteps, "HOLDS"), (ForgetsSteps, "BROKEN")])
def test_the_hooks_of_an_optimizer_are_called(build, verdict):
    session = session_of(build)
    assert computed(session) == [True, False, False, False]
    assert session.check(PLAIN).verdict == verdict


@needs_hooks
def test_what_breaks_only_without_computed_steps_is_not_reported():
    declines = {"zero_grad_step": "the optimizer holds nothing after it"}
    some, every = (make(NeedsTheState, declines=declines) for make in (session_of, all_computed))
    assert computed(some) == [True, False, False, False]
    result = some.check(PLAIN)
    assert result.verdict == "HOLDS"
    assert result.tally == every.check(PLAIN).tally


class ForgetsForSome(ExponentialLR):
    """Keeps its promise for the own options only."""

    def load_state_dict(self, state):
        super().load_state_dict(state)
        if self.gamma == 0.25:
            self.gamma = 0.5


def test_a_counterexample_is_run_with_computed_steps():
    session = session_of(ForgetsForSome)
    found = session.check(PLAIN).counterexample
    assert dict(found.trace.options)["gamma"] == 0.25
    weights = [str(seen.values["weights"]) for seen in found.runs[0].seen]
    assert len(set(weights)) == len(weights)


def test_a_check_of_a_user_gets_computed_steps():
    @resume_check
    def resume_with_both(new_optimizer, build, checkpoint):
        """Build both, load both."""
        return PLAIN.function(new_optimizer, build, checkpoint)

    session = session_of(ExponentialLR, optimizer=counting)
    Counting.computed = 0
    assert session.check(as_check(resume_with_both)).verdict == "HOLDS"
    of_a_user = Counting.computed
    Counting.computed = 0
    assert session.check(PLAIN).verdict == "HOLDS"
    assert of_a_user > 2 * Counting.computed > 0


def test_a_new_optimizer_is_the_same_but_for_its_steps():
    session = session_of(ExponentialLR, optimizer=new_sgd)
    bound = session.prepared.option_sets[1].bound
    runner = session.runners.new(bound, float("inf"), compute=False)
    optimizer = runner.new_optimizer()
    before = str(optimizer.state_dict())
    assert type(optimizer) is torch.optim.SGD
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert str(optimizer.state_dict()) == before
