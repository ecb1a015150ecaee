import math
import re

import pytest
from drawn_traces import traces
from hypothesis import given

from harness import Trace, TraceError
from harness.core.literals import format_value
from harness.core.operations import MAX_STEPS
from harness.core.trace import parse_options


@given(traces())
def test_printing_and_parsing_are_inverse(trace):
    text = str(trace)
    parsed = Trace.parse(text)
    assert parsed.operations == trace.operations
    assert repr(parsed.options) == repr(trace.options)  # repr: nan is not itself
    assert str(parsed) == text
    assert "\n" not in text


def test_options_come_first_without_spaces():
    trace = Trace.parse("milestones=[2,5] mode='a\\x20b' train:3")
    assert dict(trace.options) == {"milestones": [2, 5], "mode": "a b"}
    assert str(trace) == "milestones=[2,5] mode='a\\x20b' train:3"


def test_numbers_without_a_literal_have_names():
    assert parse_options("x=-inf y=[nan]")["x"] == -math.inf
    assert format_value([math.inf, -math.inf]) == "[inf,-inf]"


@pytest.mark.parametrize(
    ("text", "token"),
    [
        ("train:0", "'train:0'"),
        ("train:-3", "'train:-3'"),
        ("train:3.5", "'train:3.5'"),
        ("train", "'train'"),
        ("jump:3", "'jump:3'"),
        ("train:1 save:A", "'save:A'"),
        ("save:a save:a@resume", "'save:a@resume'"),
        ("save:a resume:a@", "'resume:a@'"),
        ("save:a train:1 resume:b", "'resume:b'"),
        ("load:a", "'load:a'"),
        ("gamma=[1 train:1", "'gamma=[1'"),
        ("gamma=os.sep+1 train:1", "'gamma=os.sep+1'"),
        ("train:1 gamma=2", "'gamma=2'"),
        ("gamma=1 gamma=2 train:1", "'gamma=2'"),
    ],
)
def test_the_token_that_does_not_parse_is_named(text, token):
    with pytest.raises(TraceError) as caught:
        Trace.parse(text)
    assert token in str(caught.value)


@pytest.mark.parametrize("text", ["", "gamma=2", "   "])
def test_a_trace_without_operations_is_refused(text):
    with pytest.raises(TraceError, match=re.escape(repr(text))):
        Trace.parse(text)


def test_the_limit_is_on_all_steps_together():
    half = MAX_STEPS // 2
    assert Trace.parse(f"train:{half} save:a resume:a optimizer:{half}").steps == MAX_STEPS
    with pytest.raises(TraceError, match=str(MAX_STEPS)):
        Trace.parse(f"train:{half} save:a resume:a optimizer:{half + 1}")


@pytest.mark.parametrize("value", [object(), len, {1, 2}, 1j])
def test_a_value_without_a_literal_is_refused(value):
    with pytest.raises(TraceError, match=re.escape(repr(value))):
        format_value(value)


def test_until_cuts_inside_an_operation():
    trace = Trace.parse("gamma=2 train:3 save:a train:4 resume:a")
    assert str(trace.until(2, 2)) == "gamma=2 train:3 save:a train:2"
    assert str(trace.until(1, 0)) == "gamma=2 train:3 save:a"
