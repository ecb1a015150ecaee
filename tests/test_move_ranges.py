"""That ``scripts/move_ranges.py`` says which moves of a range a run would see."""

import importlib

import pytest
from click.testing import CliRunner
from conftest import ROOT

from harness.core.result import Counterexample, Result
from harness.core.trace import Trace
from harness.core.verdict import Verdict
from harness.report.result_file import SCHEMA, ResultFile, dump_results

TRACE = "step_size=3 gamma=0.5 train:3 save:a resume:a"
ENTRY = """
[[failure]]
subject = "StepLR"
check = "{check}"
torch = "{torch}"
trace = "{trace}"
shows = "lr"
kind = "by-design"
tracked = "no report found"
reason = "It decays again."
"""
BREAK = Counterexample(2, 0, {"lr": [0.1]}, {"lr": [0.2]}, Trace.parse(TRACE))


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs the script on a ledger and what breaks on each release; returns status and output."""

    def run(broken, *ranges, check="resume_by_last_epoch"):
        ledger = tmp_path / "known.toml"
        entries = [ENTRY.format(torch=torch, trace=TRACE, check=check) for torch in ranges]
        ledger.write_text("".join(entries))
        files = []
        for torch, breaks in broken.items():
            result = Result(
                "StepLR", "resume_by_last_epoch", Verdict.HOLDS, replays=(BREAK,) if breaks else ()
            )
            files.append(tmp_path / f"{torch}.json")
            file = ResultFile(SCHEMA, f"{torch}+cpu", "3.11.2", 0, 25, True, "1/1", (result,))
            files[-1].write_text(dump_results(file))
        monkeypatch.syspath_prepend(ROOT / "scripts")
        script = importlib.import_module("move_ranges")
        done = CliRunner().invoke(script.main, ["--ledger", *map(str, [ledger, *files])])
        assert done.exception is None or isinstance(done.exception, SystemExit)
        return done.exit_code, done.output.splitlines()

    return run


def test_a_tight_range_cannot_be_moved_unseen(run):
    broken = {"2.10.0": True, "2.2.0": True, "2.1.0": False, "2.13.0": False}
    assert run(broken, ">=2.2.0,<2.13.0") == (
        0,
        ["1 entries, 4 releases, 3 moves: 2 BROKEN, 1 STALE"],
    )


def test_a_range_that_is_too_short_or_too_long_is_named(run):
    broken = {"2.1.0": True, "2.2.0": True, "2.3.0": False, "2.4.0": False}
    status, lines = run(broken, "<2.2.0")
    assert status == 1
    assert lines[0] == "StepLR resume_by_last_epoch: <2.2.0 may as well be <2.3.0"
    assert lines[1] == "1 entries, 4 releases, 2 moves: 1 refused: it covers no version, 1 NOT RED"


def test_overlaps_are_refused_and_what_no_run_tells_is_counted(run):
    broken = {"2.1.0": True, "2.2.0": False, "2.3.0": True}
    status, lines = run(broken, "<2.2.0", ">=2.3.0")
    assert (status, lines) == (
        0,
        ["2 entries, 3 releases, 3 moves: 2 STALE, 1 refused: it covers no version"],
    )
    status, lines = run({"2.1.0": True, "2.2.0": True, "2.3.0": True}, "<2.2.0", ">=2.2.0")
    assert (status, lines) == (
        0,
        ["2 entries, 3 releases, 4 moves: 2 refused: it overlaps another one, "
         "1 refused: it covers no version, 1 BROKEN"],
    )  # fmt: skip
    status, lines = run(broken, ">=2.2.0", check="resume_by_pickle")
    assert (status, lines) == (0, ["1 entries, 3 releases, 2 moves: 2 no result"])


def test_a_release_where_a_range_ends_must_be_there(run):
    status, lines = run({"2.1.0": True}, "<2.2.0,>=2.0")
    assert status == 2
    assert lines == [
        "error: no RESULT is of torch 2.0, 2.2.0, where a range of the ledger ends: "
        "give one of each"
    ]
