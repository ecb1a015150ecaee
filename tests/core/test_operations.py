"""That every row of the table of operations is understood wherever traces are run or written."""

import subprocess
import sys
import warnings
from unittest import mock

import pytest
from torch.optim.lr_scheduler import ExponentialLR

from harness import Subject, Trace, TraceError, replay, write_script
from harness.checks.registry import as_check
from harness.core import operations
from harness.core.operations import (
    BY_LETTER,
    EVENTS,
    KINDS,
    LETTER,
    PLAIN,
    SLOT_KINDS,
    STEPS,
    branches,
    epochs,
    gradients,
    groups_added,
    perform,
)
from harness.core.run import same
from harness.core.training_loop import new_sgd, observe, step_scheduler
from harness.engine.machine import DrawPlan, draw_operations
from harness.engine.minimise import minimise
from harness.engine.one_run import Runner
from harness.engine.option_sets import find_untried
from harness.engine.runs import run_to_the_end
from harness.engine.sweep import sweep_events

# Of the order of steps and of step(epoch), which is deprecated: the harness ignores them, too.
pytestmark = pytest.mark.filterwarnings("ignore")

PLAIN_CHECK = "resume_optimizer_then_scheduler"
SUBJECT = Subject("Decays", ExponentialLR, options={"gamma": 0.5})
each = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.word)


def trace_of(kind):
    """A trace with the operation before a save, right after a resume, and later."""
    return Trace.parse(
        f"train:1 {kind.word}:2 optimizer:1 save:a train:1 resume:a {kind.word}:1 train:1"
    )


def performed(path):
    """The observations of a run in which the functions of the table are called."""
    optimizer = new_sgd()
    scheduler = ExponentialLR(optimizer, gamma=0.5)
    seen, index, epoch = [observe(optimizer, scheduler)], 0, 0
    for letter in path:
        index, epoch = perform(letter, optimizer, scheduler, index, epoch, step_scheduler)
        seen.append(observe(optimizer, scheduler))
    assert (index, epoch) == (gradients(path), epochs(path))
    assert len(optimizer.param_groups) == 2 + groups_added(path)
    return seen


def test_words_and_letters_are_told_apart():
    words = [*STEPS, *(kind.word for kind in SLOT_KINDS)]
    assert len(set(words)) == len(words)
    letters = [*BY_LETTER, "w"]  # for a save, in another process
    assert len(set(letters)) == len(KINDS) + 1
    assert {len(letter) for letter in letters} == {1}
    assert (*PLAIN, *EVENTS) == STEPS


@each
def test_a_row_says_what_its_function_does(kind):
    seen = []

    class Watched(ExponentialLR):
        def step(self, epoch=None):
            seen.append("scheduler")
            super().step(epoch)

    optimizer = new_sgd()
    scheduler = Watched(optimizer, gamma=0.5)
    seen.clear()
    kind.perform(optimizer, scheduler, 0, 0, step_scheduler)
    assert seen == ["scheduler"] * kind.steps_scheduler
    assert len(optimizer.param_groups) == 2 + kind.adds_group
    assert kind.doc.endswith(".")


@each
def test_a_run_performs_it(kind):
    path = branches(trace_of(kind).operations)[-1]
    assert path.count(kind.letter) >= 3
    assert same(Runner(SUBJECT.bind({})).uninterrupted(path).observations, performed(path))


@each
def test_a_resumed_run_goes_on_with_it_in_this_process_and_in_another(kind):
    trace = trace_of(kind)
    here, there = PLAIN_CHECK, "resume_in_another_process"
    assert replay(SUBJECT, here, trace).verdict == replay(SUBJECT, there, trace).verdict == "HOLDS"
    runs = [
        [
            segment.seen
            for segment in run_to_the_end(Runner(SUBJECT.bind({})), as_check(name), trace)
        ]
        for name in (here, there)
    ]
    assert runs[0] == runs[1]
    assert len(runs[0]) == 2


def execute(text):
    """What a script defines, by name; it may not end this process."""
    made = {}
    with mock.patch("atexit.register"), warnings.catch_warnings():
        exec(text, made)
    return made


@each
def test_a_script_performs_it(kind):
    trace = trace_of(kind)
    path = branches(trace.operations)[-1]
    made = execute(write_script(SUBJECT, PLAIN_CHECK, trace))
    for run in runs_of(made):
        assert same(made["observed"](run)[0], performed(path))
    assert made["exit_status"] == 0


def runs_of(made):
    if "run" in made:
        return [made["run"](False), made["run"](True)]
    return [made["uninterrupted"](), made["interrupted"]()]


@each
def test_a_script_with_another_process_performs_it_and_has_no_other_operation(kind, capsys):
    trace = trace_of(kind)
    path = branches(trace.operations)[-1]
    text = write_script(SUBJECT, "resume_in_another_process", trace)
    made = execute(text.rpartition("\nexit_status = ")[0])
    assert set(made["BY_LETTER"]) == set("".join(branches(trace.operations)))
    request = {"data": b"", "index": 0, "epoch": 0, "groups": 0, "todo": path}
    assert same(made["there"](request)["seen"], performed(path))


@each
def test_it_may_happen_where_options_change_on_resume(kind, capsys):
    trace = f"changed={{'gamma':0.25}} train:1 {kind.word}:1 save:a resume:a {kind.word}:1 train:2"
    result = replay(SUBJECT, "resume_with_changed_options", trace)
    assert (result.verdict, "gamma" in result.note) == ("HOLDS", True)
    made = execute(write_script(SUBJECT, "resume_with_changed_options", trace))
    assert made["exit_status"] == 0


@each
def test_a_trace_that_needs_it_is_made_minimal(kind):
    def needs_it(trace):
        return any(operation.kind == kind.word for operation in trace.operations)

    def needs_a_step(trace):
        return trace.steps > 0

    start = Trace.parse(f"train:2 {kind.word}:2 save:a resume:a {kind.word}:1")
    assert str(minimise(start, needs_it)) == f"{kind.word}:1"
    plainest = minimise(Trace.parse(f"{kind.word}:3"), needs_a_step)
    assert str(plainest) == "train:1"


def test_two_steps_that_are_a_third_one_are_merged():
    [whole] = [kind for kind in KINDS if kind.parts]
    path = "".join(LETTER[part] for part in whole.parts)
    assert same(performed(path)[-1], performed(whole.letter)[-1])
    start = Trace.parse(" ".join(f"{part}:2" for part in whole.parts))
    merged = minimise(start, lambda trace: epochs(branches(trace.operations)[-1]) >= 2)
    assert str(merged) == f"{whole.word}:2"
    needs_both = minimise(
        start,
        lambda trace: all(
            count(branches(trace.operations)[-1]) >= 2 for count in (epochs, gradients)
        ),
    )
    assert str(needs_both) == f"{whole.word}:2"


def test_the_search_draws_every_operation():
    plan = DrawPlan((("resume", "", 0),), 12, 6, EVENTS)
    drawn = draw_operations(plan, 60, 0)
    assert {op.kind for operations in drawn for op in operations if op.count} == set(STEPS)


@pytest.mark.parametrize("check", [PLAIN_CHECK, "roll_back_in_place", "saving_changes_nothing"])
def test_the_sweep_tries_every_event_before_a_save(check):
    check = as_check(check)
    swept = list(sweep_events(check, EVENTS))
    for event in set(EVENTS) - set(check.without):
        traces = [Trace(operations) for operations in swept]
        assert any(LETTER[event] in path_saved(trace) for trace in traces), event


def path_saved(trace):
    """The longest path to a save."""
    walked = operations.walk(trace.operations)
    return max((path for operation, _, path in walked if operation.kind == "save"), key=len)


def test_a_scheduler_that_keeps_what_it_finds_can_do_every_event():
    bound = SUBJECT.bind({})
    assert find_untried(bound, Runner(bound)) == {}


def test_the_table_is_in_the_documentation_and_in_the_message_about_a_word_that_is_not_in_it():
    with pytest.raises(TraceError, match="'trian:3'") as raised:
        Trace.parse("trian:3")
    for kind in KINDS:
        assert f"``{kind.word}:n``" in operations.__doc__
        assert kind.doc in operations.__doc__
        assert f"{kind.word}:N" in str(raised.value)
    for kind in SLOT_KINDS:
        assert f"``{kind.word}:a``" in operations.__doc__
        assert f"{kind.word}:SLOT" in str(raised.value)


def test_who_reads_traces_does_not_wait_for_torch():
    program = "import sys, harness.core.trace; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
