"""Patterns that select pairs."""

import pytest

from harness.core.errors import SelectionError
from harness.core.pattern import selector

TEXTS = ["StepLR-resume_from_file", "StepLR-resume_by_pickle", "CyclicLR-resume_from_file"]


@pytest.mark.parametrize(
    ("pattern", "selected"),
    [
        ("", [0, 1, 2]),
        ("steplr", [0, 1]),
        ("file", [0, 2]),
        ("StepLR and file", [0]),
        ("not file", [1]),
        ("pickle or cyclic", [1, 2]),
        ("not (pickle or cyclic)", [0]),
        ("step and not pickle or cyclic", [0, 2]),
        ("not not file", [0, 2]),
        ("StepLR-resume_by_pickle", [1]),
    ],
)
def test_what_it_selects(pattern, selected):
    selects = selector(pattern)
    assert [index for index, text in enumerate(TEXTS) if selects(text)] == selected


@pytest.mark.parametrize(
    "pattern", ["(", "and", "a and", "a or or b", "a b", "(a", "a)", "not", "()"]
)
def test_what_is_not_a_pattern_is_refused(pattern):
    with pytest.raises(SelectionError, match="write words with and, or, not"):
        selector(pattern)
