"""The checks of what a state travels through, and of what has no form there."""

import importlib
import io
import json
import sys

import pytest
import torch
from hypothesis import strategies as st
from running import run_in_process
from torch.optim.lr_scheduler import ExponentialLR, MultiStepLR

from harness import Budget, Subject, Trace, check_subject, replay, write_script
from harness.checks.registry import CHECKS, as_check
from harness.checks.transports import raise_the_cause, save_distributed, save_json
from harness.core.check import resume_check
from harness.core.operations import optimizer_step
from harness.core.training_loop import StateRefused, new_sgd
from harness.core.verdict import Reason
from harness.engine.option_sets import what_torch_lacks
from harness.engine.pair_tester import do_nothing
from harness.engine.sweep import sweep
from lr_schedules.controls import CONTROLS, HALVING, LOGS
from lr_schedules.correct import Halving
from lr_schedules.faults import FAULTS

LEGACY = "resume_from_legacy_file"
JSON = "resume_from_json"
DISTRIBUTED = "resume_from_distributed_checkpoint"
BY_NAME = {fault.name: fault for fault in FAULTS}
OWN = {JSON: "NeedsItsTuples", LEGACY: "SavesEightBits", DISTRIBUTED: "StateGrows"}

needs_distributed = pytest.mark.skipif(
    bool(what_torch_lacks("distributed_checkpoint")),
    reason=what_torch_lacks("distributed_checkpoint") or "none",
)
each_transport = pytest.mark.parametrize(
    "check", [LEGACY, JSON, pytest.param(DISTRIBUTED, marks=needs_distributed)]
)


def result_of(subject, check, **budget):
    [result] = check_subject(subject, [as_check(check)], Budget(**budget))
    return result


def own_fault(check):
    """The fault that this check alone catches."""
    if OWN[check] not in BY_NAME:
        pytest.skip("this torch has no float8")
    return BY_NAME[OWN[check]]


def new_sgd_alone():
    """SGD without momentum: an optimizer that has no state."""
    return torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.1)


def new_adam():
    return torch.optim.Adam([torch.nn.Parameter(torch.ones(2))], lr=0.1)


def new_adamw_with_tensors():
    groups = [{"params": [torch.nn.Parameter(torch.ones(1))], "lr": torch.tensor(0.1)}
              for _ in range(2)]  # fmt: skip
    return torch.optim.AdamW(groups, lr=torch.tensor(0.5), weight_decay=0.1, amsgrad=True)


# ---------------------------------------------------------------------------- save and load


def save_bytes(optimizer, scheduler, epoch):
    """Writes the states as bytes."""
    states = {"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}
    file = io.BytesIO()
    torch.save(states, file)
    return {"bytes": file.getvalue()}


def load_bytes(checkpoint):
    """Reads them again."""
    return torch.load(io.BytesIO(checkpoint["bytes"]), weights_only=False)


def cannot_load(checkpoint):
    raise OSError("no disk")


@pytest.mark.parametrize("other_process", ["", "resume", "save"])
@pytest.mark.parametrize(
    ("load", "raises"),
    [(load_bytes, ""), (None, "KeyError: 'optimizer'"), (cannot_load, "OSError: no disk")],
)
def test_a_route_resumes_from_what_load_returns(other_process, load, raises):
    own = as_check("resume_optimizer_then_scheduler").variant(
        "own",
        "Read the bytes.",
        save=save_bytes,
        load=load,
        weights=False,
        other_process=other_process,
    )
    result = replay(HALVING, own, "train:2 save:a resume:a train:1")
    assert result.tally.resumes
    if raises:  # with any scheduler
        assert (result.verdict, result.why) == ("UNKNOWN", Reason.OPTIMIZER)
        assert raises in result.reason
    else:
        assert (result.verdict, result.counterexample) == ("HOLDS", None)


def test_a_decorated_function_takes_a_transport():
    @resume_check(save=save_bytes, load=load_bytes, weights=False)
    def resume_from_bytes(new_optimizer, build, checkpoint):
        """Load both from bytes."""
        optimizer = new_optimizer()
        scheduler = build(optimizer)
        optimizer.load_state_dict(checkpoint["optimizer"])
        scheduler.load_state_dict(checkpoint["scheduler"])
        return optimizer, scheduler

    text = write_script(HALVING, resume_from_bytes, "train:2 save:a resume:a train:1")
    assert run_in_process(text)[0] == 0
    assert result_of(HALVING, resume_from_bytes, max_examples=0).verdict == "HOLDS"


# ------------------------------------------------------------------------------------- verdicts


@each_transport
def test_a_transport_is_asked_for_by_name(check):
    assert not as_check(check).default
    assert as_check(check) in CHECKS


@each_transport
@pytest.mark.parametrize("subject", [HALVING, do_nothing(new_sgd)], ids=lambda s: s.name)
def test_a_correct_scheduler_holds(subject, check):
    result = result_of(subject, check)
    assert result.verdict == "HOLDS"
    assert result.reason == ""
    assert result.weights
    assert result.tally.resumes >= 12


@each_transport
@pytest.mark.parametrize("optimizer", [new_adam, new_adamw_with_tensors])
def test_other_optimizers_are_no_obstacle(optimizer, check):
    result = result_of(do_nothing(optimizer), check, max_examples=5)
    assert (result.verdict, result.weights) == ("HOLDS", True)


@needs_distributed
def test_an_optimizer_without_a_state_holds_or_is_said_to_be_the_optimizers_matter():
    """As torch 2.4 refuses to save it once it has gradients."""
    result = result_of(do_nothing(new_sgd_alone), DISTRIBUTED)
    assert result.verdict in ("HOLDS", "UNKNOWN")
    if result.verdict == "UNKNOWN":
        assert result.why == Reason.OPTIMIZER


@each_transport
def test_what_only_it_sees(check):
    fault = own_fault(check)
    assert fault.caught_by == (check,)
    assert result_of(fault.subject, check).verdict == "BROKEN"
    assert result_of(fault.control, check).verdict == "HOLDS"


@needs_distributed
def test_the_keys_that_a_new_scheduler_lacks_are_not_loaded():
    result = replay(BY_NAME["StateGrows"].subject, DISTRIBUTED, "train:7 save:a resume:a")
    assert result.counterexample.expected["lr"] == [0.025, 0.0025]
    assert result.counterexample.actual["lr"] == [0.1, 0.01]


@needs_distributed
def test_milestones_of_torch_lose_their_type_and_then_cannot_be_saved():
    """In JSON their keys become strings; a distributed checkpoint adds strings to them."""
    subject = Subject("MultiStepLR", MultiStepLR, options={"milestones": [2]})
    found = {check: result_of(subject, check) for check in (LEGACY, JSON, DISTRIBUTED)}
    assert found[LEGACY].verdict == "HOLDS"
    assert str(found[JSON].counterexample.trace) == "milestones=[2] save:a resume:a train:2"
    assert found[JSON].counterexample.actual["lr"] == [0.1, 0.01]
    again = "milestones=[2] train:1 save:a resume:a save:a"
    assert str(found[DISTRIBUTED].counterexample.trace) == again
    raised = found[DISTRIBUTED].counterexample.actual["raises"]
    assert raised == "ValueError: duplicated flatten key scheduler.milestones.2"


@each_transport
def test_its_script_needs_torch_alone_and_tells_the_truth(check, run_script):
    fault = own_fault(check)
    result = replay(fault.subject, check, fault.trace)
    text = write_script(fault.subject, check, fault.trace)
    done = run_script(text)
    assert (done.returncode, done.stderr) == (1, "")
    for value in result.counterexample.actual.values():
        assert str(value) in done.stdout
    repaired = text.replace(f"build = {fault.name}", f"build = {fault.control.build.__name__}")
    assert repaired != text
    assert run_in_process(repaired)[0] == 0


# --------------------------------------------------------------------------- what JSON refuses


def test_a_state_that_does_not_go_into_json_declines():
    result = result_of(LOGS, JSON)
    assert result.verdict == "DECLINED"
    assert result.reason == (
        "its state cannot be written as JSON: Object of type Tensor is not JSON serializable"
    )


class Circular(Halving):
    def state_dict(self):
        state = {"epoch": self.epoch}
        return state | {"all": [state, state]} if self.epoch < 2 else state | {"self": vars(self)}


class TensorAtLast(Halving):
    """Its state is numbers, and a tensor from epoch 7 on."""

    def state_dict(self):
        return {"epoch": self.epoch if self.epoch < 7 else torch.tensor(self.epoch)}

    def load_state_dict(self, state):
        super().load_state_dict({"epoch": int(state["epoch"])})


class OfAKind(Halving):
    """Its state is a number or a tensor, as its option says; `wrong` forgets it."""

    def __init__(self, optimizer, last_epoch=-1, *, kind=float, wrong=False):
        self.kind, self.wrong = kind, wrong
        super().__init__(optimizer, last_epoch)

    def state_dict(self):
        return {"epoch": torch.tensor(self.epoch) if self.kind == "tensor" else self.epoch}

    def load_state_dict(self, state):
        super().load_state_dict({"epoch": 0 if self.wrong else int(state["epoch"])})


def test_what_json_refuses_after_some_steps_only_declines_too():
    result = result_of(Subject("circular", Circular), JSON)
    assert result.verdict == "DECLINED"
    assert result.reason.startswith("its state cannot be written as JSON: ")


def test_traces_whose_state_is_refused_break_nothing_and_are_told_of():
    result = result_of(Subject("late", TensorAtLast), JSON)
    assert result.verdict == "HOLDS"
    assert result.reason == (
        "left out of some traces: its state cannot be written as JSON: "
        "Object of type Tensor is not JSON serializable"
    )
    result = replay(Subject("late", TensorAtLast), JSON, "train:8 save:a resume:a")
    assert result.verdict == "UNKNOWN"
    assert result.reason.startswith("its state cannot be written as JSON: ")


@pytest.mark.parametrize("wrong", [False, True])
def test_drawn_options_whose_state_is_refused_break_nothing(wrong):
    kinds = st.sampled_from(["number", "tensor"])
    subject = Subject("kinds", OfAKind, options={"kind": kinds, "wrong": wrong})
    result = result_of(subject, JSON)
    if wrong:
        assert str(result.counterexample.trace).startswith("kind='number'")
    else:
        assert result.verdict == "HOLDS"
        assert "Object of type Tensor" in result.reason


def test_the_refusal_of_one_check_is_no_note_of_the_next():
    results = check_subject(Subject("late", TensorAtLast), [as_check(JSON), as_check(LEGACY)])
    assert [result.reason for result in results][1] == ""


def test_an_error_of_state_dict_itself_is_the_subjects():
    class Raises(Halving):
        def state_dict(self):
            raise TypeError("not now")

    result = result_of(Subject("raises", Raises), JSON)
    assert result.counterexample.actual == {"raises": "TypeError: not now"}


def test_saving_as_json_refuses_and_otherwise_holds_text():
    optimizer = new_sgd()
    scheduler = ExponentialLR(optimizer, 0.5)
    saved = save_json(optimizer, scheduler, 0)
    assert json.loads(saved["json"])["gamma"] == 0.5
    scheduler.gamma = torch.tensor(0.5)
    with pytest.raises(StateRefused, match="cannot be written as JSON: Object of type Tensor"):
        save_json(optimizer, scheduler, 0)


# ------------------------------------------------------------------- a distributed checkpoint


def test_a_torch_without_distributed_checkpoints_declines(monkeypatch):
    import_module = importlib.import_module

    def without(name, *package):
        if name.startswith("torch.distributed"):
            raise ImportError("built without distributed")
        return import_module(name, *package)

    monkeypatch.setattr(importlib, "import_module", without)
    result = result_of(HALVING, DISTRIBUTED)
    assert result.verdict == "DECLINED"
    assert result.reason == "this torch has no torch.distributed.checkpoint.state_dict"
    assert result_of(HALVING, LEGACY, max_examples=0).verdict == "HOLDS"


@needs_distributed
def test_a_distributed_checkpoint_is_kept_as_bytes_and_leaves_no_files(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    optimizer = new_sgd()
    scheduler = ExponentialLR(optimizer, 0.5)
    optimizer_step(optimizer, 0)
    before = str(optimizer.state_dict())
    with pytest.warns(UserWarning, match="single process"):
        saved = save_distributed(optimizer, scheduler, 1)
    assert ".metadata" in saved["files"]
    assert all(isinstance(content, bytes) for content in saved["files"].values())
    assert list(tmp_path.iterdir()) == []
    assert str(optimizer.state_dict()) == before


class _CheckpointException(BaseException):
    """As torch's is: no `Exception`, with what each rank raised."""

    def __init__(self, failures):
        self.failures = failures


@pytest.mark.parametrize("cause", [ValueError("a key twice"), KeyboardInterrupt()])
def test_what_went_wrong_in_a_rank_comes_out_as_it_was(cause):
    with pytest.raises(type(cause)) as caught, raise_the_cause():
        raise _CheckpointException({0: (cause, [])})
    assert caught.value is cause


def test_what_is_raised_without_ranks_stays_as_it_is():
    with pytest.raises(SystemExit), raise_the_cause():
        sys.exit(1)


# ------------------------------------------------------------------------- swept, not searched


def test_a_slow_check_is_swept_at_a_few_epochs():
    traces = [str(Trace(operations)) for operations in sweep(as_check(DISTRIBUTED), 12)]
    first = [trace.split()[0] for trace in traces]
    assert first == ["train:1", "train:2", "train:6", "train:12", "train:1", "train:6"]
    assert traces[4].startswith("train:1 save:a save:b resume:b")
    assert traces[2] == "train:6 save:a resume:a save:b resume:b train:6 resume:a train:6"
    assert len(list(sweep(as_check(DISTRIBUTED), 1))) == 2  # with one save, and with two


@needs_distributed
def test_a_slow_check_is_not_searched():
    fault = BY_NAME["PendingNotLoaded"]  # needs optimizer steps alone, which no sweep has
    assert result_of(fault.subject, JSON).counterexample.found.by == "search"
    assert result_of(fault.subject, DISTRIBUTED).verdict == "HOLDS"
    assert 4 < result_of(HALVING, DISTRIBUTED).tally.traces <= 10


@pytest.mark.slow
@each_transport
def test_no_control_alarms(check):
    verdicts = {c.name: result_of(c, check, max_examples=0).verdict for c in CONTROLS}
    assert set(verdicts.values()) <= {"HOLDS", "DECLINED"}
    assert list(verdicts.values()).count("HOLDS") >= len(CONTROLS) - 2
