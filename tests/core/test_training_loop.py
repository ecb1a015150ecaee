import functools
import itertools
import math
import threading
from collections import Counter, OrderedDict

import pytest
import torch

from harness.core.operations import optimizer_step
from harness.core.run import same
from harness.core.training_loop import (
    Stateful,
    differences,
    new_sgd,
    numbers,
    observe,
    plain,
    snapshot,
    step_with_metric,
)


def test_the_default_optimizer_has_two_groups_with_different_rates():
    groups = new_sgd().param_groups
    assert [group["lr"] for group in groups] == [0.1, 0.01]
    assert all(group["momentum"] and group["weight_decay"] for group in groups)


def test_gradients_depend_on_the_index_alone():
    runs = []
    for _ in range(2):
        optimizer = new_sgd()
        for index in range(4):
            optimizer_step(optimizer, index)
        runs.append([p.tolist() for g in optimizer.param_groups for p in g["params"]])
    assert runs[0] == runs[1]
    different = new_sgd()
    for index in range(1, 5):
        optimizer_step(different, index)
    assert [p.tolist() for g in different.param_groups for p in g["params"]] != runs[0]


def test_an_observation_holds_what_the_optimizer_will_use():
    optimizer = torch.optim.AdamW(
        [torch.nn.Parameter(torch.ones(2))], lr=torch.tensor(0.5), betas=(0.8, 0.9)
    )
    seen = observe(optimizer, object())
    assert seen == {
        "lr": [{"tensor": 0.5, "dtype": "torch.float32"}],
        "betas": [[0.8, 0.9]],
        "weight_decay": [0.01],
        "weights": [[1.0, 1.0]],
    }


def test_an_observation_holds_every_group():
    seen = observe(new_sgd(), object())
    assert seen == {
        "lr": [0.1, 0.01],
        "momentum": [0.9, 0.9],
        "weight_decay": [0.001, 0.001],
        "weights": [[1.0, -2.0], [0.5]],
    }


def test_a_report_that_fails_is_an_observation_too():
    class Early:
        def get_last_lr(self):
            raise AttributeError("_last_lr")

    assert observe(new_sgd(), Early())["get_last_lr"] == "raises AttributeError"


@pytest.mark.parametrize(
    ("expected", "actual", "equal"),
    [
        (math.nan, math.nan, True),
        ([1.0, math.nan], [1.0, math.nan], True),
        ({"a": [math.nan]}, {"a": [math.nan]}, True),
        (1, 1.0, True),
        (0.1, 0.1 + 1e-18, True),
        (0.1, math.nextafter(0.1, 1), False),
        ([1.0], [1.0, 2.0], False),
        ({"a": 1}, {"a": 1, "b": None}, False),
        (numbers(torch.tensor(0.5)), 0.5, False),
        (numbers(torch.tensor(0.5)), numbers(torch.tensor(0.5, dtype=torch.float64)), False),
        (None, 0, False),
    ],
)
def test_equality_is_exact(expected, actual, equal):
    assert same(expected, actual) is equal


class _Thing:
    def __init__(self, value):
        self.value = value
        self.me = self


@pytest.mark.parametrize(
    "value",
    [
        Counter({3: 1}),
        OrderedDict(a=(1, 2)),
        {1, 2},
        functools.partial(max, 1, key=len),
        _Thing(3),
        _Thing(3).__init__,
        math.cos,
        _Thing,
        torch.ones(2, 2),
        {(1, 2): _Thing},
    ],
)
def test_copies_of_a_state_are_equal(value):
    assert same(plain(value), plain(snapshot(value)))


def test_states_of_objects_are_looked_into():
    assert not same(plain(_Thing(3)), plain(_Thing(4)))


def test_a_snapshot_shares_nothing_that_can_be_copied():
    lock = threading.Lock()
    state = {"list": [1], "tensor": torch.ones(1), "lock": lock}
    copy = snapshot(state)
    state["list"].append(2)
    state["tensor"].add_(1)
    assert copy == {"list": [1], "tensor": torch.ones(1), "lock": lock}


def test_differences_are_listed_by_key():
    left, right = differences(
        {"lr": 1, "weights": 2, "same": 3}, {"lr": 0, "weights": 1, "same": 3}
    )
    assert (left, right) == ({"lr": 1}, {"lr": 0})
    assert differences({"a": 1}, {"b": 2}) == (
        {"a": 1, "b": "(missing)"},
        {"a": "(missing)", "b": 2},
    )
    assert differences([1], [1]) == ({}, {})
    told = {"lr": [1], "get_last_lr": [1]}
    assert differences(told, {"lr": [2], "get_last_lr": [2]}) == ({"lr": [1]}, {"lr": [2]})
    assert differences(told, {"lr": [2], "get_last_lr": [3]})[1] == {"lr": [2], "get_last_lr": [3]}
    assert differences([1], [2]) == ({"value": [1]}, {"value": [2]})


def test_the_ready_made_metric_falls_and_stands_still():
    seen = []

    class Scheduler:
        def step(self, metric):
            seen.append(metric)

    for epoch in range(16):
        step_with_metric(Scheduler(), epoch)
    assert any(b < a for a, b in itertools.pairwise(seen))
    assert any(b == a for a, b in itertools.pairwise(seen))
    assert any(b > a for a, b in itertools.pairwise(seen))


def test_stateful_uses_its_functions_and_otherwise_the_scheduler():
    class Scheduler:
        count = 3

    scheduler = Scheduler()
    both = Stateful(
        scheduler, lambda s: {"count": s.count}, lambda s, state: s.__dict__.update(state)
    )
    assert both.state_dict() == {"count": 3}
    both.load_state_dict({"count": 5})
    assert both.count == 5
    assert not hasattr(both, "get_last_lr")
    copy = snapshot(Stateful(scheduler, len, len))
    assert copy.scheduler is not scheduler
