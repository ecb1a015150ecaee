from harness import Budget, Subject, check_subject, replay
from harness.checks.registry import as_check
from lr_schedules.correct import Fall
from lr_schedules.faults import FAULTS

SIDE_BY_SIDE = as_check("other_schedulers_change_nothing")
[SHARED] = [fault.subject for fault in FAULTS if fault.subject.name == "KeepsAnOptionInTheClass"]


class RefusesOthers(Fall):
    """Can only be built with its default options."""

    def __init__(self, optimizer, last_epoch=-1, *, total=4):
        if total != 4:
            raise ValueError("only 4")
        super().__init__(optimizer, last_epoch, total=total)


def verdict_of(subject):
    [result] = check_subject(subject, [SIDE_BY_SIDE], Budget(max_examples=0))
    return result


def test_an_option_in_the_class_is_found_with_another_value_of_it():
    result = verdict_of(SHARED)
    assert result.verdict == "BROKEN"
    assert dict(result.counterexample.trace.options)["changed"] == {"total": 5}


def test_with_the_same_options_it_shows_nothing():
    trace = result_trace = verdict_of(SHARED).counterexample.trace
    same = type(trace)(result_trace.operations, tuple(
        (name, value) for name, value in trace.options if name != "changed"))  # fmt: skip
    assert replay(SHARED, SIDE_BY_SIDE, same).verdict == "HOLDS"


def test_options_that_are_refused_prove_nothing():
    assert verdict_of(Subject("refuses", RefusesOthers, options={"total": 4})).verdict == "HOLDS"


def test_the_script_shows_it(run_script):
    from harness.report.script import script_of

    result = verdict_of(SHARED)
    text = script_of(SHARED, SIDE_BY_SIDE, result, result.counterexample.trace)
    done = run_script(text)
    assert (done.returncode, "The bug is there." in done.stdout) == (1, True)
