"""Schedulers of other libraries: their ledger, their scripts, and the table of them."""

import re
import sys

import lr_schedules.libraries as of_libraries
from harness.core.ledger import read_ledger
from harness.core.result import Result
from harness.core.verdict import Verdict
from harness.report.result_file import ResultFile
from scripts import library_table

LIBRARY = library_table.Library("x", "packaging", "x.schedules", ("Falls", "Rises", "make_it"))


def entries():
    return read_ledger([library_table.LEDGER]).entries


def test_every_entry_names_the_versions_of_a_library_of_the_table():
    names = {each.distribution for each in library_table.libraries()}
    assert {re.split("[=<>]", entry.library)[0] for entry in entries()} <= names


def test_every_bug_has_a_script_that_its_maintainers_can_run():
    texts = [path.read_text() for path in library_table.DEFECTS.glob("*.py")]
    for entry in entries():
        if entry.kind == "bug":
            name = entry.subject.rpartition(":")[2].rpartition(".")[2]
            same = [text for text in texts if f'"""{name}: ' in text or f".{name}: " in text]
            assert same, f"no script for {entry.place}: {entry.subject}"


def test_no_library_is_imported_unless_it_is_asked_for():
    assert of_libraries.__doc__
    assert not {each.name for each in library_table.libraries()} & set(sys.modules)


def result(name, verdict, check="resume_from_file"):
    return Result(name, check, verdict, references=(f"x.schedules:{name}", check))


def file_of(*results, **not_checked):
    return ResultFile(2, "2.13.0", "3.11", 0, 0, True, "", results, not_checked=not_checked)


def test_a_row_says_what_was_found_checked_listed_and_overlooked():
    found = file_of(
        result("Falls", Verdict.HOLDS), result("Falls", Verdict.BROKEN, "resume_by_last_epoch"),
        **{"x.schedules:Rises": "it has no step"},
    )  # fmt: skip
    ledger = read_ledger([library_table.LEDGER])
    row = list(library_table.cells(LIBRARY, found, None, ledger))
    assert row[1:6] == ["`x.schedules`", "3", "2 (not make_it)", "1", "Rises"]
    assert row[6:] == ["1", "1", "0", "0", "1 not in the ledger", ""]
