import functools
import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness import Term, Trace, metrics, write_script
from harness.core.errors import SubjectError
from harness.core.literals import format_value
from harness.core.operations import Operation
from harness.engine.one_run import Runner
from harness.subjects.drawn_options import draw_options
from harness.subjects.optimizers import group_count
from lr_schedules.callables import Decay, Fading, Swinging, decay_method
from lr_schedules.drawn import cyclic_takes_betas
from lr_schedules.subjects import SUBJECTS

# Subjects are run as the harness runs them: torch's warnings are of the order of steps.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

BY_NAME = {subject.name: subject for subject in SUBJECTS}
COMPOSED = ("SequentialLR", "ChainedScheduler", "TwoSchedulers")
SEED = 1
# By scope, the tests of one name come one after the other, so that few workers draw for it.
of_each_subject = pytest.mark.parametrize("name", BY_NAME, scope="module")
of_each_composition = pytest.mark.parametrize("name", COMPOSED, scope="module")
DRAWS = 60  # of which 25 differ on every torch
MANY = 250


@functools.cache
def drawn(name, seed=SEED, draws=DRAWS):
    return draw_options(BY_NAME[name].strategy, draws, seed)


def trace_of(name, values):
    return Trace((Operation("train", count=1),), BY_NAME[name].bind(values).literals)


def ever(name, holds):
    return any(holds({**BY_NAME[name].options, **values}) for values in drawn(name, draws=MANY))


def terms(value):
    """The terms in a value, with how many compositions are around each."""
    if isinstance(value, Term):
        yield 0, value
        inside = value.name in ("SequentialLR", "ChainedScheduler")
        yield from ((depth + inside, term) for depth, term in terms(dict(value.keywords)))
        yield from terms(list(value.arguments or ()))
    elif isinstance(value, dict):
        yield from terms(list(value.values()))
    elif isinstance(value, list):
        for item in value:
            yield from terms(item)


@of_each_subject
def test_few_draws_are_wasted_and_each_prints_and_parses_back(name):
    wasted = []
    for values in drawn(name):
        trace = trace_of(name, values)
        assert Trace.parse(str(trace)) == trace
        # Every option is in the trace, so that it says all of what was run.
        assert dict(trace.options) == {**BY_NAME[name].options, **values}
        assert_numbers_are_short(values)
        bound = BY_NAME[name].bind(values)
        try:
            if Runner(bound).uninterrupted("t").error:
                wasted.append(bound.literals)
        except SubjectError:
            wasted.append(bound.literals)
    assert len(drawn(name)) > 25
    assert len(wasted) <= len(drawn(name)) / 20, wasted


@of_each_subject
def test_a_strategy_is_healthy(name):
    @settings(max_examples=25, deadline=None, database=None, derandomize=True,
              suppress_health_check=[HealthCheck.too_slow])  # fmt: skip
    @given(BY_NAME[name].strategy)
    def draw(values):
        assert values

    draw()


@pytest.mark.slow
@of_each_subject
def test_most_draws_hold_an_optimizer_of_any_number_of_groups(name):
    draws = drawn(name, draws=MANY)
    optimizers = [values["optimizer"] for values in draws if "optimizer" in values]
    # Two of three are drawn with one; those without are more often equal, and kept once.
    assert len(draws) / 2 < len(optimizers) < len(draws)
    assert {group_count(term) for term in optimizers} == {1, 2, 3, 4}
    assert len({term.name for term in optimizers}) > 4


@pytest.mark.skipif(torch.__version__ < "2.6", reason="few optimizers took a tensor as LR")
@of_each_subject
def test_rates_that_are_tensors_are_drawn(name):
    kinds = {dict(v["optimizer"].keywords).get("lr") for v in drawn(name) if "optimizer" in v}
    assert kinds == {None, "tensor", "shared"}


def assert_numbers_are_short(values):
    for word in format_value(values).replace("0.3333333333333333", "third").split(","):
        digits = sum(letter.isdigit() for letter in word.rpartition("=")[2])
        assert digits <= 8, word


def numbers_of(options):
    return options["step"].arguments[0] if "step" in options else []


EDGES = {
    "StepLR": [
        lambda o: o["step_size"] == 1,
        lambda o: o["gamma"] == 1.0,
        lambda o: o["gamma"] == 0.001,
        lambda o: o["gamma"] > 1,
    ],
    "MultiStepLR": [
        lambda o: o["milestones"] == [],
        lambda o: 0 in o["milestones"],
        lambda o: 1 in o["milestones"],
        lambda o: len(set(o["milestones"])) < len(o["milestones"]),
        lambda o: o["milestones"] != sorted(o["milestones"]),
        lambda o: o["gamma"] > 1,
    ],
    "ConstantLR": [
        lambda o: o["total_iters"] == 0,
        lambda o: o["total_iters"] == 1,
        lambda o: o["factor"] == 1.0,
        lambda o: o["factor"] == 1 / 3,
    ],
    "LinearLR": [
        lambda o: o["total_iters"] == 0,
        lambda o: o["total_iters"] == 1,
        lambda o: o.get("end_factor") == 0.0,
        lambda o: o["start_factor"] > o.get("end_factor", 1.0),
    ],
    "ExponentialLR": [lambda o: o["gamma"] == 1.0, lambda o: o["gamma"] > 1],
    "PolynomialLR": [
        lambda o: o["total_iters"] == 0,
        lambda o: o["total_iters"] == 1,
        lambda o: o["power"] == 0.0,
        lambda o: o["power"] == 0.5,
    ],
    "CosineAnnealingLR": [lambda o: o["T_max"] == 1, lambda o: o["eta_min"] == 1.0],
    "CosineAnnealingWarmRestarts": [
        lambda o: o["T_0"] == 1,
        lambda o: o["T_mult"] == 1,
        lambda o: o["T_mult"] == 3,
        lambda o: o["eta_min"] == 1.0,
    ],
    "CyclicLR": [
        lambda o: o["mode"] == "triangular",
        lambda o: o["mode"] == "triangular2",
        lambda o: o["mode"] == "exp_range" and o.get("gamma", 1.0) < 1,
        lambda o: o["step_size_down"] is None,
        lambda o: o["step_size_down"] == 0,
        lambda o: o["cycle_momentum"] and isinstance(o.get("base_momentum"), list),
        lambda o: not o["cycle_momentum"],
        lambda o: isinstance(o["base_lr"], list) and isinstance(o["max_lr"], list),
        lambda o: o["base_lr"] == 1e-5,
    ],
    "CyclicLR-stateful": [
        lambda o: o["scale_fn"].name == "Fading",
        lambda o: o["scale_fn"].name == "Swinging",
        lambda o: o["mode"] == "triangular2",
    ],
    "CyclicLR-scale_fn": [
        lambda o: o["scale_fn"] == Term("fall_with_cycle"),
        lambda o: o.get("scale_mode") == "iterations",
        lambda o: o["scale_fn"].name == "Decay",
        lambda o: o["scale_fn"].name == "decay_method",
    ],
    "ReduceLROnPlateau": [
        lambda o: o.get("mode") == "max",
        lambda o: o.get("threshold_mode") == "abs",
        lambda o: o.get("threshold") == 0.0,
        lambda o: o["patience"] == 0,
        lambda o: o["cooldown"] == 2,
        lambda o: isinstance(o["min_lr"], list),
        lambda o: o.get("eps") == 0.05,
        lambda o: math.nan in numbers_of(o),
        lambda o: math.inf in numbers_of(o),
        lambda o: -math.inf in numbers_of(o),
    ],
    "SWALR": [
        lambda o: o["anneal_epochs"] == 0,
        lambda o: o["anneal_epochs"] == 1,
        lambda o: o.get("anneal_strategy") == "linear",
        lambda o: isinstance(o["swa_lr"], list),
    ],
    "LinearAnnealingLR": [
        lambda o: o["num_annealing_steps"] == 1,
        lambda o: o["num_total_steps"] == o["num_annealing_steps"] + 1,
    ],
    **{
        name: [
            lambda o: isinstance(o["lr_lambda"], list),
            lambda o: o["lr_lambda"] == Term("root_decay"),
            lambda o: getattr(o["lr_lambda"], "name", "") == "Decay",
            lambda o: getattr(o["lr_lambda"], "name", "") == "decay_method",
        ]
        for name in ("LambdaLR", "MultiplicativeLR")
    },
    **{
        name: [
            lambda o: isinstance(o["lr_lambda"], list),
            lambda o: getattr(o["lr_lambda"], "name", "") == "Fading",
            lambda o: getattr(o["lr_lambda"], "name", "") == "Swinging",
        ]
        for name in ("LambdaLR-stateful", "MultiplicativeLR-stateful")
    },
    **{
        name: [
            lambda o: o["total_steps"] is None and o["epochs"] * o["steps_per_epoch"] > 0,
            lambda o: o["total_steps"] is not None,
            lambda o: o["three_phase"],
            lambda o: not o["three_phase"],
            lambda o: o["anneal_strategy"] == "linear",
            lambda o: o["anneal_strategy"] == "cos",
            lambda o: o["cycle_momentum"] and isinstance(o.get("max_momentum"), list),
            lambda o: not o["cycle_momentum"],
            lambda o: isinstance(o["max_lr"], list),
            lambda o: o.get("pct_start") == 0.0,
            lambda o: o.get("pct_start") == 1.0,
            lambda o: o.get("div_factor") == 0.5,
            lambda o: o.get("final_div_factor") == 100.0,
        ]
        for name in ("OneCycleLR", "OneCycleLR-three_phase")
    },
    "SequentialLR": [
        lambda o: 0 in o["milestones"],
        lambda o: 1 in o["milestones"],
        lambda o: len(set(o["milestones"])) < len(o["milestones"]),
        lambda o: o["milestones"] == [],
    ],
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", EDGES)
def test_every_edge_is_drawn(name):
    missing = [number for number, edge in enumerate(EDGES[name]) if not ever(name, edge)]
    assert missing == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["CyclicLR", "OneCycleLR"])
def test_momentum_is_cycled_in_optimizers_with_betas_and_with_momentum(name):
    names = {
        values["optimizer"].name
        for values in drawn(name, draws=MANY)
        if values["cycle_momentum"] and "optimizer" in values
    }
    assert {"SGD", "RMSprop"} <= names
    assert ("Adam" in names) == (name == "OneCycleLR" or cyclic_takes_betas())
    assert "Adagrad" not in names


def test_the_plainest_draws_are_the_plainest_options():
    @settings(max_examples=1, database=None, deadline=None)
    @given(BY_NAME["OneCycleLR"].strategy)
    def simplest(values):
        seen.append(values)

    seen = []
    simplest()
    assert format_value(seen[0]) == (
        "{'max_lr':0.1,'three_phase':False,'anneal_strategy':'cos','cycle_momentum':False,"
        "'total_steps':3}"
    )


# ---------------------------------------------------------------------------- compositions


@pytest.mark.slow
@of_each_composition
def test_compositions_are_nested_to_depth_3(name):
    depths = set()
    for seed in range(SEED, SEED + 8):
        depths |= {
            max((depth for depth, _ in terms(values["schedulers"])), default=0)
            for values in drawn(name, seed, MANY)
        }
        if depths == {0, 1, 2}:  # inside the subject, which is a composition itself
            return
    assert depths == {0, 1, 2}


@pytest.mark.slow
@of_each_composition
def test_every_scheduler_that_can_be_inside_another_is_drawn(name):
    draws = drawn(name, draws=MANY)
    words = {term.name for values in draws for _, term in terms(values["schedulers"])}
    schedulers = {word for word in BY_NAME[name].words if word[0].isupper()} - {"Decay"}
    assert schedulers <= words


def test_a_composition_in_a_trace_reads_as_it_is_written():
    trace = Trace.parse(
        "schedulers=[SequentialLR(schedulers=[ConstantLR(total_iters=2),ExponentialLR(gamma=0.5)],"
        "milestones=[2]),LinearLR(start_factor=0.25)] milestones=[3] train:4"
    )
    bound = BY_NAME["SequentialLR"].bind(dict(trace.options))
    rates = [seen["lr"][0] for seen in Runner(bound).uninterrupted("tttt").observations]
    assert len(rates) == 5
    assert rates[3] == 0.025


def test_two_schedulers_are_stepped_saved_and_loaded_both():
    bound = BY_NAME["TwoSchedulers"].bind({})
    _, scheduler = Runner(bound).start()
    scheduler.step()
    states = scheduler.state_dict()["schedulers"]
    assert [state["last_epoch"] for state in states] == [1, 1]
    _, other = Runner(bound).start()
    other.load_state_dict(scheduler.state_dict())
    assert [inner.last_epoch for inner in other.schedulers] == [1, 1]


SCRIPTS = {
    "SequentialLR": "schedulers=[ChainedScheduler(schedulers=[LambdaLR(lr_lambda=Decay(0.5)),"
    "SequentialLR(schedulers=[LinearLR(total_iters=2),StepLR(step_size=1)],milestones=[2])]),"
    "ExponentialLR(gamma=0.5)] milestones=[4]",
    "ChainedScheduler": "schedulers=[CyclicLR(base_lr=0.1,max_lr=1.0,cycle_momentum=False)]",
    "TwoSchedulers": "schedulers=[SWALR(swa_lr=0.1),MultiplicativeLR(lr_lambda=root_decay)]",
    "LambdaLR": "optimizer=AdamW(groups=2) lr_lambda=[zigzag,decay_method(0.5)]",
    "MultiplicativeLR-stateful": "lr_lambda=[Fading(0.5),Swinging([0.5,1.0])]",
    "ReduceLROnPlateau": "step=metrics([4.0,nan,-inf]) patience=0",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_the_script_of_a_drawn_trace_runs_with_torch_alone(name, run_script):
    trace = f"{SCRIPTS[name]} train:2 save:a resume:a train:2"
    text = write_script(BY_NAME[name], "resume_optimizer_then_scheduler", trace)
    done = run_script(text)
    broken = "\nWith torch " in text  # the head of a script of what breaks says what was seen
    assert done.returncode == (1 if broken else 0), done.stdout + done.stderr
    assert "import harness" not in text
    assert "lr_schedules" not in text


# ------------------------------------------------------------------------------- callables


def test_callables():
    assert [Decay(0.5)(epoch) for epoch in range(3)] == [1.0, 0.5, 0.25]
    assert decay_method(0.5)(2) == 0.25
    fading, swinging = Fading(0.5), Swinging([0.5, 0.25])
    assert [fading(0) for _ in range(3)] == [0.5, 0.25, 0.125]
    assert [swinging(0) for _ in range(3)] == [0.5, 0.25, 0.5]


def test_metrics_are_passed_in_a_cycle():
    class Scheduler(list):
        step = list.append

    scheduler, step = Scheduler(), metrics([4.0, math.inf])
    for epoch in range(3):
        step(scheduler, epoch)
    assert scheduler == [4.0, math.inf, 4.0]


@given(st.lists(st.sampled_from((1.0, math.nan, math.inf)), min_size=1, max_size=3))
def test_metrics_in_a_trace(values):
    trace = Trace.parse(f"step=metrics({format_value(values)}) train:1")
    assert format_value(dict(trace.options)["step"]) == f"metrics({format_value(values)})"
