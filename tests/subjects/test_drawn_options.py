"""How drawn options are used: own ones first, shrunk ones in reports, refused ones left out."""

import pytest
import torch
from helpers import verdicts_of
from hypothesis import strategies as st
from torch.optim.lr_scheduler import StepLR

from harness import Budget, Subject, SubjectError, Term, check_scheduler, check_subject, replay
from harness.checks.registry import as_check, select_checks
from harness.core.verdict import Reason
from harness.engine.one_run import Runner
from harness.engine.option_sets import find_option_sets
from harness.engine.session import SubjectSession
from lr_schedules.correct import Halving
from lr_schedules.faults import FAULTS


class LosesItAbove(Halving):
    """Loses its position where `size` is above 5, and is built with a size up to 50 alone."""

    def __init__(self, optimizer, last_epoch=-1, *, size=1, other=0):
        if size > 50:
            raise ValueError("too large")
        self.size = size
        super().__init__(optimizer, last_epoch)

    def load_state_dict(self, state):
        super().load_state_dict(state if self.size <= 5 else {"epoch": 0})


SIZES = st.fixed_dictionaries({"size": st.integers(1, 99), "other": st.integers(0, 9)})
CHECK = "resume_optimizer_then_scheduler"


def result(subject, check=CHECK):
    [found] = check_subject(subject, [as_check(check)])
    return found


def test_options_are_shrunk(all_is_tried):
    subject = Subject("x", LosesItAbove, options={"size": 1}, drawn=SIZES)
    found = result(subject)
    assert str(found.counterexample.trace) == "size=6 other=0 train:3 save:a resume:a"


def test_own_options_come_before_drawn_ones():
    """Not the simplest that break, but those that the author chose, where they break as well.

    The search alone finds it, with whatever options are in turn.
    """

    [pending] = [fault for fault in FAULTS if fault.name == "PendingNotLoaded"]

    def build(optimizer, *, other=0):
        return pending.subject.build(optimizer)

    others = SIZES.map(lambda values: {"other": values["other"]})
    subject = Subject("x", build, options={"other": 7}, drawn=others)
    found = result(subject)
    assert found.counterexample.found.by == "search"
    assert dict(found.counterexample.trace.options) == {"other": 7}


def test_options_that_the_constructor_refuses_are_left_out():
    subject = Subject("x", LosesItAbove, drawn=SIZES)
    found, _ = find_option_sets(subject, 0, Runner)
    cases = [case for case in found if not case.variation]
    sizes = [case.bound.options.get("size", 1) for case in cases]
    assert 1 < len(sizes) <= 26
    assert max(sizes) <= 50
    assert len({repr(case.bound.options) for case in cases}) == len(cases)


def test_if_all_drawn_options_are_refused_the_verdict_is_unknown():
    subject = Subject("x", LosesItAbove, options={"size": st.integers(60, 99)})
    found = result(subject)
    assert (found.verdict, found.why) == ("UNKNOWN", Reason.NOT_RUNNABLE)
    assert "ValueError: too large" in found.reason


def test_refused_options_of_the_subject_itself_are_reported():
    subject = Subject("x", LosesItAbove, options={"size": 60}, drawn=SIZES)
    assert "too large" in result(subject).reason


def make_leaky():
    return LeakySGD([torch.nn.Parameter(torch.ones(1))], lr=0.5, momentum=0.9)


class LeakySGD(torch.optim.SGD):
    """An optimizer that raises when a state is loaded into it, with any scheduler."""

    def load_state_dict(self, state):
        raise KeyError("momentum_buffer")


def test_a_fault_of_a_drawn_optimizer_itself_is_excused():
    words = {"Leaky": make_leaky}
    drawn = st.just({"optimizer": Term.of("Leaky")})
    subject = Subject("x", Halving, words=words, drawn=drawn)
    checks = [check for check in select_checks() if not check.event]
    assert verdicts_of(check_subject(subject, checks, Budget(3))) <= {"HOLDS"}


def test_a_fault_that_needs_a_drawn_optimizer_is_found():
    class Loses(Halving):
        def load_state_dict(self, state):
            super().load_state_dict(
                {"epoch": 0} if len(self.optimizer.param_groups) == 1 else state
            )

    words = {"One": lambda: torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.5)}
    drawn = st.just({"optimizer": Term.of("One")})
    subject = Subject("x", Loses, words=words, drawn=drawn)
    found = result(subject)
    assert str(found.counterexample.trace) == "optimizer=One() train:3 save:a resume:a"
    assert replay(subject, CHECK, found.counterexample.trace).verdict == "BROKEN"


def test_drawn_options_and_open_ones_are_drawn_together():
    subject = Subject(
        "x", StepLR, options={"gamma": st.sampled_from([0.5, 0.25])},
        drawn=st.fixed_dictionaries({"step_size": st.integers(1, 3)}),
    )  # fmt: skip
    cases, _ = find_option_sets(subject, 0, Runner)
    assert {tuple(sorted(case.bound.options)) for case in cases} == {("gamma", "step_size")}
    assert len(cases) > 3


def test_a_term_can_be_the_step():
    steps = []

    def note(scheduler, epoch):
        steps.append(epoch)
        scheduler.step()

    subject = Subject("x", StepLR, options={"step_size": 2}, words={"note": note})
    assert replay(subject, CHECK, "step=note train:2 save:a resume:a train:1").verdict == "HOLDS"
    assert steps[:3] == [0, 1, 2]


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"drawn": {"step_size": 3}}, "'drawn'.*'step_size': 3"),
        ({"words": ["Adam"]}, "'words'.*'Adam'"),
    ],
)
def test_a_field_of_the_wrong_type_is_refused(fields, names):
    with pytest.raises(SubjectError, match=names):
        Subject("x", StepLR, **fields)


def test_a_new_callable_with_state_is_made_for_each_scheduler():
    """So nothing that one run leaves in it helps another."""

    class Counts:
        calls = 0

        def __call__(self, epoch):
            self.calls += 1
            return 1 / self.calls

    from torch.optim.lr_scheduler import LambdaLR

    results = check_scheduler(
        Subject("x", LambdaLR, options={"lr_lambda": Term.of("Counts")}, words={"Counts": Counts}),
        checks=[CHECK, "resume_at_every_save"],
    )
    assert {found.verdict for found in results} == {"HOLDS"}


def refuses_five(optimizer, last_epoch=-1, *, number):
    if number == 5:
        raise ValueError("not five")
    return StepLR(optimizer, number, last_epoch=last_epoch)


def test_plain_runs_use_the_sets_of_options_that_are_not_refused():
    drawn = st.fixed_dictionaries({"number": st.integers(4, 6)})
    subject = Subject("x", refuses_five, options={"number": 4}, drawn=drawn)
    rates = SubjectSession(subject).rates()
    assert set(rates) == {"number=4 train:12", "number=6 train:12"}
    assert [len(seen) for seen in rates.values()] == [13, 13]
    assert SubjectSession(Subject("x", refuses_five, options={"number": 5})).rates() == {}
