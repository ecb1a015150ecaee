"""Each check has an explanation, whose examples do what it says."""

import sys

import pytest
from helpers import served

from harness import CHECKS, Budget, check_subject
from harness.checks.explanations import EXPLANATIONS
from harness.checks.registry import as_check
from harness.subjects.lookup import as_subject


def test_every_check_has_one():
    assert set(EXPLANATIONS) == {check.name for check in CHECKS}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(check.name, marks=[pytest.mark.slow] if check.other_process else [])
        for check in CHECKS
    ],
)
def test_its_examples_hold_and_fail(name, tmp_path, monkeypatch):
    if name not in served([name]):
        pytest.skip("this torch lacks what the check needs")
    monkeypatch.syspath_prepend(tmp_path)
    found = {}
    known = EXPLANATIONS[name]
    for verdict, text in (("HOLDS", known.holds), ("BROKEN", known.fails)):
        module = f"example_{name}_{verdict.lower()}"
        (tmp_path / f"{module}.py").write_text(text)
        subject = as_subject(f"{module}:Mine")
        [result] = check_subject(subject, [as_check(name)], Budget(3, time_limit=600.0))
        found[verdict] = result.verdict
        del sys.modules[module]
    assert found == {"HOLDS": "HOLDS", "BROKEN": "BROKEN"}
    assert max(len(text.splitlines()) for text in (known.fails, known.holds)) <= 24
