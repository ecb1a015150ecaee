import functools
import json
import re

import click.testing
import pytest
import torch
from helpers import served

from harness import CHECKS, Budget, CheckError, Subject, SubjectError, TraceError, replay
from harness.checks.registry import select_checks
from harness.cli import main as cli
from harness.engine import selftest
from harness.engine.selftest import find_faults, planted
from lr_schedules.controls import CONTROLS, HALVING
from lr_schedules.correct import Halving
from lr_schedules.faults import FAULTS, SUBJECTS
from lr_schedules.faults.check_groups import INTO_A_NEW_SCHEDULER

BY_NAME = {fault.name: fault for fault in FAULTS}
DEFAULT = {check.name for check in select_checks()}
HELD_BY = {check.name: check for check in CHECKS}

# ------------------------------------------------------------------------------ the records


def test_there_are_enough_faults_and_controls_of_every_kind():
    assert len(FAULTS) >= 95
    assert len(BY_NAME) == len(FAULTS) == len(SUBJECTS)
    assert len({control.name for control in CONTROLS}) == len(CONTROLS) >= 36
    assert [control.name for control in CONTROLS if control.strategy is not None] == ["table"]
    assert sum(bool(fault.real) for fault in FAULTS) >= 25


@pytest.mark.parametrize("name", BY_NAME)
def test_a_fault_is_its_control_with_one_thing_wrong(name):
    fault = BY_NAME[name]
    assert issubclass(fault.subject.build, fault.control.build)
    assert fault.subject.build is not fault.control.build
    assert fault.wrong.endswith(".")
    assert re.fullmatch(r"([\w.-]+/[\w.-]+#\d+)?", fault.real)
    assert not set(fault.caught_by) & set(fault.control.declines)
    order = [check.name for check in CHECKS]
    assert list(fault.caught_by) == sorted(fault.caught_by, key=order.index)


@pytest.mark.parametrize("name", BY_NAME)
def test_the_trace_of_a_record_breaks_its_check_and_not_the_repair(name):
    fault = BY_NAME[name]
    verdict = "BROKEN" if served(fault.caught_by[:1]) else "DECLINED"
    assert replay(fault.subject, fault.caught_by[0], fault.trace).verdict == verdict
    assert replay(fault.control, fault.caught_by[0], fault.trace).verdict != "BROKEN"


# What another process saves breaks alone only between two torches: see test_other_process.
# A trace that breaks saving_changes_nothing has no resume, and every resume check that saves with
# state_dict() does the same along it: see the next test.
NOT_ALONE = ("resume_from_another_process", "saving_changes_nothing")


@pytest.mark.parametrize("check", [check.name for check in CHECKS if check.name not in NOT_ALONE])
def test_without_any_check_some_fault_is_missed(check):
    """A default check is compared with the other default checks, an opt-in check with all."""
    if check == "resume_from_legacy_file" and "SavesEightBits" not in BY_NAME:
        pytest.skip("this torch has no float8")
    others = (DEFAULT if check in DEFAULT else set(HELD_BY)) - {check}
    assert [fault.name for fault in FAULTS
            if check in fault.caught_by and not others & set(fault.caught_by)]  # fmt: skip


SAVE_CHANGES_IT = [f.name for f in FAULTS if "saving_changes_nothing" in f.caught_by]


@pytest.mark.parametrize("name", SAVE_CHANGES_IT)
@pytest.mark.parametrize("check", ["saving_changes_nothing", *INTO_A_NEW_SCHEDULER])
def test_what_a_save_changes_is_seen_by_every_check_that_saves_and_loads(name, check):
    trace = BY_NAME[name].trace
    assert not trace.resumes
    if check in served([check]):
        assert replay(BY_NAME[name].subject, check, trace).verdict == "BROKEN"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"caught_by": ["resume_by_pickel"]},
            CheckError,
            "fault Fault: no check .* did you mean resume_by_pickle",
        ),
        ({"caught_by": "resume_by_pickle"}, CheckError, "must be a list of the checks"),
        ({"caught_by": []}, CheckError, "must be a list of the checks"),
        ({"trace": "train"}, TraceError, "fault Fault: 'train' in the trace"),
    ],
)
def test_a_wrong_record_is_refused(arguments, error, message):
    record = {"trace": "train:1", "caught_by": ["resume_by_pickle"], **arguments}
    with pytest.raises(error, match=message):
        planted(HALVING, **record)(type("Fault", (Halving,), {"__doc__": "Is wrong."}))


def test_a_fault_says_what_is_wrong_with_it():
    with pytest.raises(SubjectError, match="fault Fault needs a docstring"):
        planted(HALVING, "train:1", caught_by=["resume_by_pickle"])(type("Fault", (Halving,), {}))


def test_a_fault_is_derived_from_its_control():
    with pytest.raises(SubjectError, match="derived from the class of its control, halving"):
        planted(HALVING, "train:1", caught_by=["resume_by_pickle"])(
            type("Fault", (), {"__doc__": "Is wrong."})
        )


def test_a_trace_of_a_record_must_be_minimal_and_run(run):
    _, text, _ = run("NOT_MINIMAL", "CONTROLS", "--quick")
    assert "the counterexample of its record is not minimal: train:" in text
    _, text, _ = run("NOT_RUN", "CONTROLS", "--quick")
    assert "its record can't be tried: " in text


def test_what_holds_no_faults_is_refused():
    with pytest.raises(SubjectError, match="sequence of"):
        find_faults("few_faults:NO_FAULTS")


# -------------------------------------------------------------------------------- the trials

TRIED = [
    HELD_BY[name]
    for name in (
        "resume_from_file", "resume_at_every_save", "last_lr_is_the_groups_lr",
        "lr_is_never_negative", "state_loads_with_weights_only",
    )
]  # fmt: skip
"""The checks of a trial here, so that it takes a tenth of the time."""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs the command on the faults and controls of `few_faults`, in this process.

    The sweep finds all that they break, so the search is short.
    """
    monkeypatch.setattr(selftest, "IN_THIS_PROCESS", TRIED)
    monkeypatch.setattr("harness.core.result.Budget", functools.partial(Budget, max_examples=2))

    def run(faults="RIGHT", controls="CONTROLS", *arguments):
        file = tmp_path / "trials.json"
        lists = ["--faults", f"few_faults:{faults}", "--controls", f"few_faults:{controls}"]
        done = click.testing.CliRunner().invoke(
            cli.cli, ["selftest", *lists, "--jobs", "1", "--json", str(file), *arguments],
            standalone_mode=False,
        )  # fmt: skip
        assert done.exception is None
        return done.return_value, done.stdout, json.loads(file.read_text())

    return run


def test_all_as_it_must_be(run):
    status, text, data = run()
    assert status == 0
    assert "1 of 1 faults caught by exactly the checks in their records, 1 by the sweep" in text
    assert "1 of 1 controls without an alarm" in text
    [control, fault] = data["trials"]
    assert (control["name"], control["caught_by"]) == ("halving", [])
    assert fault["caught_by"] == fault["expected"] == ["lr_is_never_negative"]
    assert fault["counterexamples"] == {"lr_is_never_negative": "train:3"}
    assert fault["found"]["by"] == "sweep"
    assert fault["complaints"] == []


def test_a_fault_that_is_missed_is_said(run):
    status, text, data = run("MISSED")
    assert status == 1
    assert "Missed (seed 0): not caught by lr_is_never_negative" in text
    assert "the counterexample of its record does not break lr_is_never_negative: train:3" in text
    assert "0 of 1 faults caught" in text
    assert data["trials"][1]["found"] is None


def test_a_false_alarm_is_said(run):
    status, text, _ = run("ALARMS")
    assert status == 1
    assert "Alarms (seed 0): not in its record, but caught by lr_is_never_negative: " in text
    assert re.search("^Alarms .* 0/1$", text, re.MULTILINE)
    status, text, _ = run("RIGHT", "WRONG_CONTROLS", "--quick")
    assert status == 1
    assert "wrong (seed 0): false alarm of last_lr_is_the_groups_lr" in text
    assert "0 of 1 controls without an alarm" in text


def test_a_control_that_is_unknown_is_no_pass(run):
    status, text, _ = run("RIGHT", "UNKNOWN_CONTROLS", "--quick")
    assert status == 2
    assert "raises (seed 0): resume_at_every_save is UNKNOWN: " in text


def test_quick_tries_the_first_of_the_checks_and_says_so(run):
    status, text, data = run("ALARMS", "CONTROLS", "--quick")
    assert status == 0
    assert "quick: other checks were not tried" in text
    assert data["trials"][1]["caught_by"] == ["last_lr_is_the_groups_lr"]


def test_with_several_seeds_19_of_20_are_required(run):
    status, text, data = run("MISSED", "CONTROLS", "--seeds", "3", "--quick")
    assert status == 1
    assert len(data["trials"]) == 6
    assert "Missed: as expected with 0 of 3 seeds, needed 95% and no false alarm" in text
    trial = selftest.Trial("x", True, 0, ("a",), ())
    caught = selftest.Trial("x", True, 0, (), ())
    assert selftest.enough([caught] * 19 + [trial])
    assert not selftest.enough([caught] * 18 + [trial] * 2)


def test_what_this_torch_cannot_do_is_set_aside_and_said(run, monkeypatch):
    load = torch.load
    lacking_without_it = set(HELD_BY) - served(HELD_BY)

    def refuses(file, *, weights_only=False, **options):
        if weights_only:
            raise RuntimeError("this torch loads nothing")
        return load(file, weights_only=False, **options)

    monkeypatch.setattr(torch, "load", refuses)
    loads_tensors = HELD_BY["resume_from_distributed_checkpoint"]
    monkeypatch.setattr(selftest, "IN_THIS_PROCESS", [*TRIED, loads_tensors])
    status, text, data = run("FOR_A_FILE", "CONTROLS")
    assert status == 0
    assert "0 of 0 faults" in text
    assert "not tried, because their checks are left out: NumPyRate" in text
    assert set(data["set_aside"]) == {
        "resume_from_file",
        "resume_from_distributed_checkpoint",  # it loads its tensors so
        "state_loads_with_weights_only",
        *lacking_without_it,
    }
    assert "this torch can't run it: resume_from_file: " in text


def test_the_trials_are_the_same_in_other_processes():
    jobs = selftest.all_jobs([Budget(max_examples=5, seed=3)], quick=True, aside=())
    chosen = [job for job in jobs if job.is_fault][28:30]
    here = [trial_data(trial) for trial in selftest.run_jobs(chosen, 1)]
    there = [trial_data(trial) for trial in selftest.run_jobs(chosen, 2)]
    assert here == there
    assert len({name for name, *_ in here}) == 2


def trial_data(trial):
    return trial.name, [(r.check, r.verdict, r.counterexample, r.tally) for r in trial.results]


def test_a_fault_is_a_subject_of_the_command_line(command):
    subject = "lr_schedules.faults:SUBJECTS.NegativePastTheEnd"
    status, printed, _ = command(
        "check", subject, "--check", "lr_is_never_negative", "--max-examples", 0
    )
    assert status == 1
    assert "counterexample  train:10" in printed


def test_a_subject_that_does_nothing_sets_nothing_aside_here():
    lacked = {check.name for check in CHECKS if check.name not in served([check.name])}
    assert selftest.set_aside().keys() == lacked


def test_a_control_stays_a_plain_subject():
    assert all(isinstance(control, Subject) for control in CONTROLS)
