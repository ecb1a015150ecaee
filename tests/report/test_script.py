import ast
import functools
import math
import re
import sys
import types
from pathlib import Path

import faulty
import own_schedule
import pytest
from drawn_traces import traces
from hypothesis import given, settings
from hypothesis import strategies as st
from running import resume_from_the_start, run_in_process
from torch.optim.lr_scheduler import ConstantLR, ExponentialLR, LambdaLR, StepLR

from harness import (
    CHECKS,
    Budget,
    ScriptError,
    Subject,
    Trace,
    check_subject,
    replay,
    write_script,
)
from harness.checks.registry import IN_THIS_PROCESS
from harness.engine.option_sets import what_torch_lacks
from harness.report.script import script_of
from lr_schedules.subjects import SUBJECTS

STEP_BUG = "step_size=3 gamma=0.5 train:3 save:a resume:a"


def modules_of(text):
    """The top-level modules that a script imports."""
    names = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            names.add(node.module)
    return {name.partition(".")[0] for name in names}


def trace_in(text):
    """The trace that the head of a script names."""
    [trace] = re.findall(r"^[A-Z][a-z ]*: (.*train:\d.*)$", text.split('"""')[1], re.MULTILINE)
    return str(Trace.parse(trace))


LACKS_FLOATS = bool(what_torch_lacks("weights_only"))


@pytest.mark.slow
@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda subject: subject.name)
def test_every_broken_pair_has_a_script_that_shows_it(subject, run_script):
    """With torch alone, and with the numbers of the report."""
    results = check_subject(subject, IN_THIS_PROCESS, Budget(max_examples=0))
    for result in [result for result in results if result.verdict == "BROKEN"]:
        check = next(check for check in CHECKS if check.name == result.check)
        text = script_of(subject, check, result, result.counterexample.trace)
        if check.default:
            done = run_script(text)
            assert (done.returncode, done.stderr) == (1, "")
            printed = done.stdout
        else:  # a new process each would take minutes
            status, lines = run_in_process(text)
            assert status == 1
            printed = "\n".join(lines)
        assert f"torch {result.torch}" in printed
        assert modules_of(text) <= {*sys.stdlib_module_names, "torch"}
        expected, actual = result.counterexample.expected, result.counterexample.actual
        for name, value in actual.items():
            assert str(value) in printed
            if name == "raises":
                continue
            if name in expected:
                assert str(expected[name]) in printed
            else:  # which of two contracts it follows, and it is neither
                assert all(str(other) in printed for other in expected.values())


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_what_a_check_calls_can_be_pasted(check):
    """It does not go through a module of the harness, which a script would have to import."""
    for function in filter(None, (check.function, check.save, check.load)):
        used = [function.__globals__.get(name) for name in function.__code__.co_names]
        modules = [value.__name__ for value in used if isinstance(value, types.ModuleType)]
        assert not [name for name in modules if name.startswith("harness")]


def test_a_script_shows_both_runs_side_by_side(run_script):
    done = run_script(write_script(StepLR, "resume_by_last_epoch", STEP_BUG))
    rows = [line.split(maxsplit=1) for line in done.stdout.splitlines()]
    assert [row[1] for row in rows if row and row[0].isdigit()] == [
        "[0.1, 0.01]        [0.1, 0.01]",
        "[0.1, 0.01]        [0.1, 0.01]",
        "[0.1, 0.01]        [0.1, 0.01]",
        "[0.05, 0.005]      [0.025, 0.0025]  <- differs",
    ]


def test_repeated_steps_are_loops():
    text = write_script(StepLR, "resume_by_last_epoch", "step_size=30 train:200 save:a resume:a")
    assert text.count("range(200)") == 1
    assert text.count("optimizer_step(optimizer, i)") == 1


def test_a_script_of_a_repaired_scheduler_exits_0(run_script):
    text = write_script(StepLR, "resume_by_last_epoch", STEP_BUG)
    repaired = text.replace("import StepLR", "import LambdaLR").replace(
        "functools.partial(StepLR, step_size=3, gamma=0.5)",
        "functools.partial(LambdaLR, lr_lambda=float)",
    )
    done = run_script(repaired)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_script_that_this_torch_cannot_run_exits_125(run_script):
    text = write_script(StepLR, "resume_by_last_epoch", STEP_BUG)
    done = run_script(text.replace("import StepLR", "import NoSuchLR"))
    assert (done.returncode, done.stdout) == (125, "")
    assert "'NoSuchLR'" in done.stderr
    done = run_script(text.replace("gamma=0.5)", "gama=0.5)"))
    assert (done.returncode, done.stderr) == (125, "")
    assert "TypeError" in done.stdout


@pytest.mark.parametrize(
    ("subject", "check", "trace"),
    [
        (ExponentialLR, "resume_from_file", "gamma=0.9 train:2 save:a train:1 resume:a train:3"),
        (ExponentialLR, "saving_after_loading_is_the_same", "gamma=0.9 train:2 save:a"),
        (ExponentialLR, "last_lr_is_the_groups_lr", "gamma=0.9 train:2 scheduler:2"),
        (
            ExponentialLR,
            "resumes_mixed",
            "gamma=0.9 optimizer:2 save:a train:2 resume:a@resume_by_pickle train:1 save:b "
            "scheduler:2 load:b@roll_back_in_place train:2 resume:a@resume_twice_from_one_dict "
            "optimizer:1 resume:b@resume_from_file scheduler:2 train:1",
        ),
        (
            ExponentialLR,
            "resume_from_file",
            "gamma=0.9 save:a train:2 save:b resume:a resume:b train:1",
        ),
    ],
)
def test_a_script_of_what_holds_exits_0_and_125_where_torch_lacks_what_it_needs(
    subject, check, trace, run_script
):
    text = write_script(subject, check, trace)
    for_a_file = "resume_from_file" in check + trace
    lacks = for_a_file and LACKS_FLOATS
    done = run_script(text)
    assert (done.returncode, bool(done.stderr)) == (125 if lacks else 0, lacks)
    if for_a_file:
        done = run_script(text.replace("torch.save(0.5, file)", "raise OSError('no floats')"))
        assert (done.returncode, done.stdout) == (125, "")
        assert done.stderr.endswith("OSError: no floats\n")


@given(
    traces(counts=st.integers(1, 8)),
    st.sampled_from(["resume_from_file", "resume_by_last_epoch"]),
    st.sampled_from([(ExponentialLR, "gamma=0.9"), (ConstantLR, "factor=0.5 total_iters=3")]),
)
@settings(max_examples=25)
def test_scripts_and_replays_agree_on_any_trace(trace, check, subject_and_options):
    """For a correct scheduler and for a broken one."""
    subject, options = subject_and_options
    operations = [str(op).partition("@")[0] for op in trace.operations if op.kind != "load"]
    text = " ".join([options, "train:1", *operations])  # no resume at epoch 0
    result = replay(subject, check, text)
    status, printed = run_in_process(write_script(subject, check, text))
    lacks = check == "resume_from_file" and LACKS_FLOATS
    assert status == (125 if lacks else result.verdict == "BROKEN"), printed


def test_a_subject_that_is_not_an_lr_scheduler_has_a_script(run_script):
    subject = Subject(
        "x", faulty.Drains, standalone=True
    )  # fmt: skip
    done = run_script(
        write_script(subject, "resume_twice_from_one_dict", "save:a resume:a resume:a")
    )
    assert done.returncode == 1
    assert "KeyError: 'count'" in done.stdout
    subject = Subject(
        "x", faulty.NoStateDict, standalone=True,
        state_dict=faulty.take_count, load_state_dict=faulty.give_count,
    )  # fmt: skip
    done = run_script(write_script(subject, "resume_by_pickle", "train:2 save:a resume:a train:1"))
    assert (done.returncode, done.stderr) == (0, "")


def test_a_users_module_is_imported_and_named_first(run_script, tmp_path):
    text = write_script(
        own_schedule.Halves, "resume_by_last_epoch", "every=2 train:2 save:a resume:a"
    )
    assert "own_schedule" in "\n".join(text.splitlines()[:3])
    assert "from own_schedule import Halves" in text
    beside = [Path(own_schedule.__file__)]
    done = run_script(text, beside=beside)
    assert (done.returncode, done.stderr) == (1, "")
    (tmp_path / "empty" / "own_schedule.py").unlink()
    done = run_script(text)
    assert (done.returncode, done.stdout) == (125, "")
    assert "ModuleNotFoundError" in done.stderr


def test_functions_among_the_options_are_brought_along(run_script):
    subject = Subject(
        "x",
        LambdaLR,
        options={"lr_lambda": [math.cos, functools.partial(pow, 0.5)]},
        standalone=True,
    )
    text = write_script(subject, "resume_scheduler_alone", "train:1 save:a resume:a")
    assert "functools.partial(pow, 0.5)" in text
    assert run_script(text).returncode == 1


def test_a_users_own_check_is_pasted(run_script):
    text = write_script(ExponentialLR, resume_from_the_start, "gamma=0.5 train:1 save:a resume:a")
    assert resume_from_the_start.__doc__ in text
    assert "resume_check" not in text
    assert run_script(text).returncode == 1


def test_a_local_function_is_refused():
    def build(optimizer, last_epoch=-1):
        return ExponentialLR(optimizer, 0.9)

    with pytest.raises(ScriptError, match=r"build"):
        write_script(build, "resume_from_file", "train:1 save:a resume:a")


def test_the_trace_in_the_head_parses_back():
    text = write_script(StepLR, "resume_by_last_epoch", STEP_BUG)
    assert trace_in(text) == STEP_BUG


def test_quotes_and_backslashes_do_not_break_the_head(run_script):
    subject = Subject("x", faulty.decay_named, standalone=True)
    text = write_script(
        subject, "resume_optimizer_then_scheduler", 'name=\'"""\\\\n\\x20\' train:1 save:a resume:a'
    )
    assert run_script(text).returncode == 0


def test_a_trace_that_breaks_by_saving_for_what_comes_later_is_refused():
    subject = Subject("x", faulty.SavingSteps, standalone=True)
    trace = (
        "train:6 save:a optimizer:2 scheduler:2 load:a@roll_back_in_place scheduler:1 train:2 "
        "resume:a@resume_by_last_epoch train:6"
    )
    assert replay(subject, "resumes_mixed", trace).verdict == "BROKEN"
    with pytest.raises(ScriptError, match="saving_changes_nothing"):
        write_script(subject, "resumes_mixed", trace)


def test_a_trace_is_cut_where_it_breaks():
    text = write_script(StepLR, "resume_by_last_epoch", f"{STEP_BUG} train:4 save:b resume:b")
    assert trace_in(text) == STEP_BUG
