"""That the edits of ``scripts/harness_edits.py`` can be made; the script tries what they do."""

import sys
from dataclasses import replace

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
import break_harness
from harness_edits import EDITS, Edit

sys.path.remove(str(ROOT / "scripts"))


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.name)
def test_an_edit_replaces_a_function_and_names_a_test(edit):
    assert break_harness.problem(edit) == ""


def test_every_edit_has_a_name_of_its_own():
    assert len({edit.name for edit in EDITS}) == len(EDITS)


def harmless(original, *args):
    return original(*args)


def test_a_function_that_is_gone_is_a_problem():
    edit = Edit(harmless, "harness.core.trace:gone", "tests/engine/test_sweep.py")
    assert break_harness.problem(edit) == "harness.core.trace:gone is not in the harness"


def test_an_edit_is_noticed():
    (edit,) = (edit for edit in EDITS if edit.name == "mix each way only with itself")
    assert break_harness.survives(edit) == ""


def test_an_edit_that_no_test_notices_survives():
    (edit,) = (edit for edit in EDITS if edit.name == "mix each way only with itself")
    survivor = replace(edit, test="test_every_edit_has_a_name_of_its_own")
    EDITS.append(survivor)
    try:
        assert break_harness.survives(survivor) == f"it survives {survivor.test}"
    finally:
        EDITS.pop()
