"""The wording of what is refused in traces, subjects, references and runs, each pinned once."""

import pytest
from faulty import COUNTER, Counter, raises, returns_none
from inline_snapshot import snapshot
from torch.optim.lr_scheduler import StepLR
from wrapped import wrapped

from harness import Subject, Trace
from harness.checks.registry import as_check
from harness.core.errors import HarnessError
from harness.core.literals import format_value
from harness.core.operations import MAX_STEPS
from harness.engine.one_run import Runner
from harness.engine.runs import run_trace
from harness.subjects.lookup import find_subject


def messages(function, *arguments):
    """What `function` says about each of the arguments, all of which it refuses."""
    lines = []
    for argument in arguments:
        with pytest.raises(HarnessError) as error:
            function(argument)
        lines.append(str(error.value))
    return wrapped(lines)


def test_traces():
    texts = (
        "", "train:0", "jump:3", "train:1 save:A", "save:a save:a@resume", "load:a",
        "gamma=[1 train:1", "train:1 gamma=2", "gamma=1 gamma=2 train:1", f"train:{MAX_STEPS + 1}",
    )  # fmt: skip
    assert messages(Trace.parse, *texts) == snapshot("""\
the trace '' has no operations: write for example train:3
'train:0' in the trace needs a whole number of steps, from 1 to 10000, after the colon
'jump:3' in the trace is not an operation: write one of train:N, optimizer:N, scheduler:N,
    skip:N, zero_grad_step:N, epoch:N, halve_lr:N, add_group:N, save:SLOT, resume:SLOT,
    load:SLOT; or name=value for an option
'save:A' in the trace needs the name of a slot, such as a, after the colon
'save:a@resume' in the trace: @ is followed by the name of a check, and only in
    resume:SLOT@CHECK and load:SLOT@CHECK
'load:a' in the trace goes back to slot a, which was not saved before: put save:a earlier
'gamma=[1': the value must be a Python literal or a term, without spaces, such as 3, 0.5, [1,2],
    'text' or Word(3,gamma=0.5) (got '[1')
'gamma=2' in the trace is an option: put it before 'train:1'
'gamma=2' gives option 'gamma' a second time: keep one of them
the trace has 10001 steps; at most 10000 are allowed: shorten it\
""")
    assert messages(format_value, {1, 2}) == snapshot("""\
{1, 2} cannot be written in a trace: use numbers, strings, None, lists, tuples and dicts of
    them, and terms\
""")


def test_subjects():
    def make(fields):
        Subject(**{"name": "x", "build": StepLR, **fields}).bind({})

    wrong = (
        {"name": "two words"}, {"build": 3}, {"state_dict": len}, {"length": 0},
        {"words": ["Adam"]},
        {"declines": {"x": ""}}, {"drawn": 3}, {"options": {"last_epoch": 1}}, {"contract": "old"},
        {"build": lambda optimizer, step_size: None, "options": {"step_sise": 1}},
    )  # fmt: skip
    assert messages(make, *wrong) == snapshot("""\
a subject's name must be a word without spaces or control characters (got 'two words')
subject x: 'build' must be callable (got 3)
subject x: give both state_dict and load_state_dict, or neither
subject x: 'length' must be a whole number of epochs from 1 to 1000 (got 0)
subject x: 'words' must be a dict (got ['Adam'])
subject x: 'declines' must give a reason for 'x', a string that is not empty (got '')
subject x: 'drawn' must be a Hypothesis strategy (got 3)
subject x: 'last_epoch' is not an option, the checks set it: leave it out
subject x: 'contract' must be one of saved, new, raises, or empty (got 'old')
subject x: build cannot be called with the options ['step_sise']: it takes no 'step_sise' (did
    you mean step_size?), and it needs 'step_size': give step_size=..., on the command line
    --kwargs 'step_size=...'; its signature is (optimizer, step_size)\
""")


def test_references():
    names = "torch.optim.lr_scheduler.StpLR", "no_such_module:X", "none_lr.py:X"
    assert messages(find_subject, *names) == snapshot("""\
'torch.optim.lr_scheduler:StpLR': module 'torch.optim.lr_scheduler' has no attribute 'StpLR':
    did you mean StepLR?
cannot import 'no_such_module' for 'no_such_module:X' (ModuleNotFoundError: No module named
    'no_such_module'): check the name, and that the module is installed or in the current folder
there is no file 'none_lr.py': check the name\
""")


def test_what_a_run_refuses():
    def run(case):
        subject, check, trace = case
        run_trace(Runner(subject.bind({})), as_check(check), Trace.parse(trace))

    cases = [
        (COUNTER, "resume_by_last_epoch", "save:a resume:a"),
        (COUNTER, "roll_back_in_place", "save:a resume:a"),
        (COUNTER, "resume_at_every_save", "save:a resume:a"),
        (COUNTER, "last_lr_is_the_groups_lr", "save:a resume:a"),
        (COUNTER, "resume_from_file", "save:a resume:a@resume_by_pickle"),
        (COUNTER, "resumes_mixed", "save:a resume:a"),
        (COUNTER, "resumes_mixed", "save:a resume:a@resumes_mixed"),
        (COUNTER, "resumes_mixed", "save:a resume:a@resume_by_pickel"),
        *(
            (subject, "resume_from_file", "save:a resume:a")
            for subject in (
                Subject("x", raises),
                Subject("x", returns_none),
                Subject("x", Counter, optimizer=dict),
                Subject("x", Counter, optimizer=lambda: 1 / 0),
            )
        ),
    ]
    assert messages(run, *cases) == snapshot("""\
'resume:a' in the trace goes back to epoch 0, and resume_by_last_epoch resumes from epoch 1 on:
    put train:1 before the save
'resume:a' in the trace: roll_back_in_place is not done by resume, but by load:a
'resume:a' in the trace: resume_at_every_save is not done by resume, but at every save
'resume:a' in the trace: last_lr_is_the_groups_lr is not done by resume, but after every step
'resume:a@resume_by_pickle' in the trace: only resumes_mixed mixes checks; leave out
    @resume_by_pickle
'resume:a' in the trace: resumes_mixed must know which check to use: write resume:a@CHECK
'resume:a@resumes_mixed' in the trace: resumes_mixed is not done by resume, but by resume:a
no check is called 'resume_by_pickel': did you mean resume_by_pickle? Name your own check as
    MODULE:NAME
subject x: build raised ValueError: no such luck
subject x: returns_none returns None: let it end with return scheduler
subject x: optimizer() must return a torch optimizer (got {})
subject x: optimizer raised ZeroDivisionError: division by zero\
""")
