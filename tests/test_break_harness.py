"""That the edits of ``scripts/break_harness.py`` still apply; what they do is tried by that."""

import ast
import importlib.util
import sys

import pytest
from conftest import ROOT

spec = importlib.util.spec_from_file_location("break_harness", ROOT / "scripts/break_harness.py")
break_harness = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = break_harness
spec.loader.exec_module(break_harness)


@pytest.mark.parametrize("edit", break_harness.EDITS, ids=lambda edit: edit.what)
def test_an_edit_applies_and_names_a_test(edit):
    assert edit.problem() == ""
    source = (ROOT / "harness" / edit.file).read_text()
    ast.parse(source.replace(edit.old, edit.new))
    file, _, name = edit.test.partition("::")
    assert f"def {name.partition('[')[0]}(" in (ROOT / file).read_text()


def test_there_are_enough_of_them():
    assert len({edit.what for edit in break_harness.EDITS}) == len(break_harness.EDITS) >= 30


def test_an_edit_that_is_not_noticed_is_a_problem():
    edit = break_harness.Edit(
        "change what is not there",
        "core/training_loop.py",
        "no such text",
        "",
        "tests/test_sweep.py",
    )
    assert (
        edit.problem() == "its text occurs 0 times in harness/core/training_loop.py instead of once"
    )
    harmless = break_harness.Edit(
        "change a message", "core/operations.py", "LR is halved by hand.", "LR is halved.",
        "tests/test_sweep.py::test_every_way_follows_every_other",
    )  # fmt: skip
    assert harmless.problem() == ""
    assert break_harness.survives(harmless).startswith("it survives tests/test_sweep.py")
