import collections
import functools
import inspect
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from hypothesis import strategies as st
from torch.optim.lr_scheduler import StepLR

from harness import Subject, check_scheduler, replay, write_script
from harness.checks.registry import select_checks
from harness.core.errors import SubjectError, TraceError
from harness.core.literals import parse_value, resolve
from harness.core.operations import optimizer_step
from harness.core.result import Budget
from harness.core.training_loop import observe
from harness.core.verdict import Verdict
from harness.engine.one_run import Runner
from harness.engine.option_sets import what_torch_lacks
from harness.engine.pair_tester import do_nothing
from harness.engine.session import check_subject
from harness.subjects.drawn_options import draw_options
from harness.subjects.optimizers import (
    OWN_OPTIONS,
    WORDS,
    group_count,
    has_momentum,
    optimizers,
    works,
)  # fmt: skip
from lr_schedules.correct import Halving

FEW = Budget(max_examples=2, time_limit=120.0)


def promised():
    """The default checks, without those that need what this torch can't load: a float."""
    return [check for check in select_checks() if not any(map(what_torch_lacks, check.needs))]


def made(text):
    return resolve(parse_value(text), WORDS)


@functools.cache
def drawn(count=600, **options):
    strategy = st.fixed_dictionaries({"optimizer": optimizers(**options)})
    return [values["optimizer"] for values in draw_options(strategy, count, 7)]


def does_nothing(term):
    return replace(do_nothing(functools.partial(resolve, term, WORDS)), length=2)


def accepted(name, groups=None, **options):
    """Whether torch itself takes the options for a parameter, and can step with them."""
    parameter = torch.nn.Parameter(torch.ones(2, dtype=torch.float64))
    parameter.grad = torch.ones(2, dtype=torch.float64)
    try:
        getattr(torch.optim, name)(groups or [parameter], lr=0.1, **options).step()
    except (RuntimeError, TypeError, ValueError):
        return False
    return True


def options_of(term):
    return {"groups": group_count(term), **dict(term.keywords)}


def test_every_optimizer_of_torch_has_a_word():
    base = torch.optim.Optimizer
    found = {
        name
        for name, value in vars(torch.optim).items()
        if inspect.isclass(value) and issubclass(value, base) and value is not base
    }
    assert set(WORDS) == found
    assert next(iter(WORDS)) == "SGD"


@pytest.mark.parametrize("name", WORDS)
def test_a_word_makes_an_optimizer_that_steps(name):
    optimizer = WORDS[name](groups=1)
    assert isinstance(optimizer, getattr(torch.optim, name))
    before = observe(optimizer, None)["weights"]
    for index in range(3):
        optimizer_step(optimizer, index)
    after = observe(optimizer, None)["weights"]
    assert before in ([[1.0, -2.0]], [[[1.0, -2.0]]])
    assert after != before
    assert all(torch.isfinite(torch.tensor(weight)).all() for weight in after)


OF_OPTIMIZERS = ("resume_optimizer_then_scheduler", "resume_from_file", "roll_back_in_place")
"""Checks that restore an optimizer, each in another way."""


@pytest.mark.parametrize("name", WORDS)
@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_every_optimizer_resumes(name, every):
    """With the most options that are drawn for it together; the slow test has every check."""
    terms = [term for term in drawn() if term.name == name]
    term = max(terms, key=lambda term: len(term.keywords))
    checks = [check for check in promised() if every or check.name in OF_OPTIMIZERS]
    for result in check_subject(does_nothing(term), checks, FEW):
        assert result.verdict in (Verdict.HOLDS, Verdict.DECLINED), (str(term), result)
        assert result.weights, str(term)


def test_every_drawn_optimizer_can_be_made_and_trained():
    for term in drawn():
        optimizer = resolve(term, WORDS)
        for index in range(2):
            optimizer_step(optimizer, index)
        assert len(optimizer.param_groups) == group_count(term)
        rates = [group["lr"] for group in optimizer.param_groups]
        kind = options_of(term).get("lr", "float")
        assert all(isinstance(rate, torch.Tensor) is (kind != "float") for rate in rates)
        if kind == "shared":
            assert all(rate is rates[0] for rate in rates)


def test_drawn_optimizers_print_and_parse_back():
    assert all(parse_value(str(term)) == term for term in drawn())


def test_everything_that_this_torch_has_is_drawn():
    terms = drawn()
    seen = collections.Counter(
        f"{name}={value}" for term in terms for name, value in options_of(term).items()
    )
    rates = [options_of(term)["rates"] for term in terms if "rates" in options_of(term)]
    assert len(terms) > 200
    assert str(terms[0]) == "SGD(groups=1)"
    assert {term.name for term in terms} == set(WORDS)
    assert {group_count(term) for term in terms} == {1, 2, 3, 4}
    assert min(collections.Counter(term.name for term in terms).values()) >= 5
    for what in ("foreach=True", "maximize=True", "weight_decay=0.01", "amsgrad=True",
                 "centered=True", "momentum=0.9", "nesterov=True"):  # fmt: skip
        assert seen[what] >= 3, what
    assert any(None in some and any(some) for some in rates)
    assert any(len(set(some)) > 2 for some in rates)
    pairs = [("w", torch.nn.Parameter(torch.ones(1)))]
    pairs[0][1].grad = torch.ones(1)
    tensors = "Tensor" in str(inspect.signature(torch.optim.Adam).parameters["lr"].annotation)
    for what, there in {
        "fused=True": accepted("Adam", fused=True),
        "named=True": accepted("SGD", pairs),
        "lr=tensor": tensors,
        "lr=shared": tensors,
    }.items():
        assert (seen[what] >= 3) is there, what
        assert there or seen[what] == 0, what


def test_what_torch_refuses_is_not_drawn():
    assert not works("SGD", {"amsgrad": True})
    assert not works("SGD", {"nesterov": True})
    assert not works("LBFGS", {"groups": 2})
    assert not works("Adam", {"foreach": True, "lr": "tensor"})
    assert not works("Adam", {"foreach": True, "fused": True})
    assert works("Adam", {"foreach": True, "amsgrad": True})


def test_momentum_means_a_momentum_in_every_group():
    terms = drawn(150, momentum=True)
    for term in terms:
        for group in resolve(term, WORDS).param_groups:
            assert "momentum" in group or "betas" in group
    names = {term.name for term in terms}
    assert {"SGD", "Adam", "AdamW", "RMSprop", "NAdam"} <= names
    assert "Adagrad" not in names
    assert not has_momentum("LBFGS")
    names = {term.name for term in drawn(150, momentum=True, betas=False)}
    assert {"SGD", "RMSprop"} <= names
    assert not any(name.startswith("Adam") for name in names)


@pytest.mark.parametrize(
    ("text", "rates"),
    [
        ("SGD()", [0.125]),
        ("SGD(groups=4)", [0.125, 0.0625, 0.03125, 0.015625]),
        ("SGD(rates=[None,0.5,None])", [0.125, 0.5, 0.125]),
        ("SGD(rates=(0.5,),groups=1)", [0.5]),
    ],
)
def test_the_rates_of_the_groups(text, rates):
    optimizer = made(text)
    assert [group["lr"] for group in optimizer.param_groups] == rates
    assert group_count(parse_value(text)) == len(rates)
    first = [group["params"][0][0].item() for group in optimizer.param_groups]
    assert len(set(first)) == len(first)


def test_tensor_rates():
    rates = [group["lr"] for group in made("SGD(groups=3,lr='tensor')").param_groups]
    assert [rate.item() for rate in rates] == [0.125, 0.0625, 0.03125]
    assert len({rate.data_ptr() for rate in rates}) == 3
    rates = [group["lr"] for group in made("SGD(groups=3,lr='shared')").param_groups]
    assert all(isinstance(rate, torch.Tensor) and rate is rates[0] for rate in rates)


def test_named_parameters():
    if not works("SGD", {"named": True}):
        pytest.skip("this torch has no named parameters")
    optimizer = made("SGD(groups=2,named=True)")
    assert [group["param_names"] for group in optimizer.param_groups] == [["w0"], ["w1"]]


def test_a_term_makes_equal_optimizers_that_share_nothing():
    for term in drawn():
        one, other = resolve(term, WORDS), resolve(term, WORDS)
        before = observe(other, None)
        assert observe(one, None) == before
        for index in range(2):
            optimizer_step(one, index)
        for group in one.param_groups:
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(7.0)
        assert observe(other, None) == before != observe(one, None), str(term)


TRACE = "optimizer={} step_size=3 gamma=0.5 train:3 save:a resume:a"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("SGD(groups=5)", "groups.* 5"),
        ("SGD(groups=2,rates=[0.1])", r"rates.*\[0\.1\]"),
        ("SGD(rates=[])", r"rates.*\[\]"),
        ("SGD(rates=[0.1],lr='shared')", "rates"),
        ("SGD(lr=0.1)", "lr.* 0.1.*rates"),
        ("SGD(momentun=0.9)", "'momentun'"),
        ("LBFGS(groups=2)", "LBFGS"),
    ],
)
def test_a_wrong_argument_is_one_sentence(text, names):
    bound = Subject("x", StepLR).bind({"optimizer": parse_value(text), "step_size": 3})
    with pytest.raises(SubjectError, match=f"subject x: optimizer .*{names}") as caught:
        Runner(bound).start()
    assert "\n" not in str(caught.value)


def test_a_word_that_is_not_called_does_not_make_an_optimizer():
    with pytest.raises(TraceError, match=r" SGD\(\)"):
        replay(StepLR, "resume_by_pickle", TRACE.format("SGD"))
    with pytest.raises(TraceError, match="AdamW"):
        replay(StepLR, "resume_by_pickle", TRACE.format("AdamWW()"))


@pytest.mark.parametrize(
    "text", ["AdamW(groups=3,lr='shared')", "SparseAdam(rates=[None,0.5])", "LBFGS()"]
)
def test_a_script_makes_the_optimizer_with_torch_alone(text, run_script):
    if not works(text.partition("(")[0], dict(parse_value(text).keywords)):
        pytest.skip("this torch has no LR that is a tensor")
    trace = TRACE.format(text)
    broken = replay(StepLR, "resume_by_last_epoch", trace).counterexample is not None
    script = write_script(StepLR, "resume_by_last_epoch", trace)
    assert "harness" not in script
    assert run_script(script).returncode == int(broken)


def test_a_strategy_as_the_optimizer_is_drawn():
    subject = Subject("halves", Halving, optimizer=optimizers())
    assert list(subject.drawn_fields) == ["optimizer"]
    some = ["resume_optimizer_then_scheduler", "resume_by_pickle", "resume_by_deepcopy"]
    for result in check_subject(subject, select_checks(some), FEW):
        assert result.verdict == Verdict.HOLDS, result
    result = replay(subject, some[0], "optimizer=Adam(groups=2) train:2 save:a resume:a")
    assert result.verdict == Verdict.HOLDS
    with pytest.raises(SubjectError, match="optimizer=VALUE"):
        replay(subject, some[0], "train:2 save:a resume:a")
    with pytest.raises(SubjectError, match=r"optimizer .*3"):
        replay(subject, some[0], "optimizer=3 train:2 save:a resume:a")
    with pytest.raises(SubjectError, match=r"'optimizer'.*3"):
        Subject("x", StepLR, optimizer=3)


def forgets_other_groups(optimizer, last_epoch=-1):
    """A scheduler whose resume goes wrong from the second group on."""
    return ForgetsOtherGroups(optimizer)


class ForgetsOtherGroups:
    def __init__(self, optimizer):
        self.optimizer = optimizer
        self.base = [group["lr"] for group in optimizer.param_groups]
        self.count = 0

    def step(self):
        self.count += 1
        for group, base in zip(self.optimizer.param_groups, self.base, strict=True):
            group["lr"] = base * 0.5**self.count

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"] if len(self.base) == 1 else 0


def test_a_bug_that_needs_two_groups_is_found_by_drawn_optimizers(all_is_tried):
    subject = Subject("forgets", forgets_other_groups, optimizer=optimizers())
    check = select_checks(["resume_optimizer_then_scheduler"])
    result = next(iter(check_subject(subject, check, Budget(25))))
    assert result.counterexample is not None
    assert str(result.counterexample.trace) == (
        "optimizer=SGD(groups=2) train:1 save:a resume:a train:1"
    )


def test_options_are_checked_before_any_optimizer_is_drawn():
    results = check_scheduler(
        Subject("halves", Halving, optimizer=optimizers()),
        checks=["resume_optimizer_then_scheduler"],
        max_examples=0,
    )
    assert results[0].verdict == Verdict.HOLDS


def test_the_words_do_not_need_hypothesis():
    code = "import sys, harness.subjects.optimizers; sys.exit('hypothesis' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_each_word_has_its_options():
    assert set(WORDS) <= set(OWN_OPTIONS)
    assert all(options[0] == {} for options in OWN_OPTIONS.values())


def test_where_there_is_a_gpu_optimizers_on_it_are_drawn(monkeypatch):
    """Without a GPU only the terms can be checked: no optimizer is made."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("harness.subjects.optimizers.works", lambda name, chosen: True)
    found = [dict(term.keywords) for term in drawn.__wrapped__()]
    on_it = [options for options in found if options.get("device") == "cuda"]
    assert 100 < len(on_it) < len(found)
    assert {"device", "capturable", "fused", "lr"} <= {
        word for options in on_it for word in options
    }
    assert not any(options.get("capturable") for options in found if "device" not in options)
