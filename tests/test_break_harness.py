"""That the edits of ``scripts/harness_edits.py`` can be made; the script tries what they do."""

import os
import subprocess
import sys

import pytest
from helpers import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
import break_harness
from harness_edits import EDITS, Edit

sys.path.remove(str(ROOT / "scripts"))


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.name)
def test_an_edit_replaces_a_function_and_names_a_test(edit):
    assert break_harness.why_impossible(edit) == ""


def test_every_edit_has_a_name_of_its_own():
    assert len({edit.name for edit in EDITS}) == len(EDITS)


def test_an_edit_that_lacks_an_argument_of_its_function_is_a_problem():
    def takes_no_drawn(original, check, holding, number, option_sets):
        return original(check, holding, number, option_sets)

    edit = Edit(takes_no_drawn, "harness.engine.search:swept_traces", "test_options_are_shrunk")
    assert break_harness.why_impossible(edit).startswith(
        "the edit can't be called like harness.engine.search:swept_traces: "
    )


def harmless(original, *args):
    return original(*args)


def test_a_function_that_is_gone_is_a_problem():
    edit = Edit(harmless, "harness.core.trace:gone", "tests/engine/test_sweep.py")
    assert break_harness.why_impossible(edit) == "harness.core.trace:gone is not in the harness"


TRY = """
from dataclasses import replace
import break_harness
from break_harness import EDITS

def leave_it_as_it_is(original, *args):
    return original(*args)

def raise_an_error_of_its_own(original, *args):
    return replace(args[0])

def raise_it_later(original, *args):
    for operations in original(*args):
        yield operations.gone

name = "mix each way only with itself"
(edit,) = (edit for edit in EDITS if edit.name == name)
more = [leave_it_as_it_is, raise_an_error_of_its_own, raise_it_later]
EDITS += [replace(edit, function=function) for function in more]
if __name__ == "__main__":
    break_harness.main([name, *(function.__name__.replace("_", " ") for function in more)])
"""


def test_an_edit_is_noticed_and_one_that_does_nothing_survives(tmp_path):
    (tmp_path / "try.py").write_text(TRY)
    done = subprocess.run(
        [sys.executable, "try.py"], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'scripts'}{os.pathsep}{ROOT}"},
    )  # fmt: skip
    assert done.stdout.splitlines() == [
        "noticed  mix each way only with itself",
        "PROBLEM  leave it as it is",
        "PROBLEM  raise an error of its own",
        "PROBLEM  raise it later",
        "4 edits, 3 problems",
    ]
    assert "leave it as it is: it survives test_every_way_follows_every_other" in done.stderr
    errors = done.stderr.partition("raise an error of its own: ")[2].split("raise it later: ")
    for text, error in zip(errors, ("TypeError", "AttributeError"), strict=True):
        assert text.startswith("the edit's own code raises:\nTraceback")
        assert f"\n{error}: " in text
    assert done.returncode == 1
