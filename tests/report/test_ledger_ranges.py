"""That ``ledger ranges`` says which moves of a range a run would see."""

from dataclasses import replace

import pytest
from click.testing import CliRunner

from harness.cli.main import cli
from harness.core.errors import LedgerError
from harness.core.result import Budget, Counterexample, Result
from harness.core.trace import Trace
from harness.core.verdict import Verdict
from harness.report.result_file import dump_results, results_of_run

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
BREAK = Counterexample(2, 0, {"lr": [0.1]}, {"lr": [0.2]}, trace=Trace.parse(TRACE))


@pytest.fixture
def run(tmp_path):
    """Runs the command on a ledger and what breaks on each release; returns status and output."""

    def run(broken, *ranges, check="resume_by_last_epoch"):
        ledger = tmp_path / "known.toml"
        entries = [ENTRY.format(torch=torch, trace=TRACE, check=check) for torch in ranges]
        ledger.write_text("".join(entries))
        files = []
        for torch, breaks in broken.items():
            replays = (BREAK,) if breaks else ()
            row = Result("StepLR", "resume_by_last_epoch", Verdict.HOLDS, replays=replays)
            files.append(tmp_path / f"{torch}.json")
            data = results_of_run([row], Budget(), complete=True)
            files[-1].write_text(dump_results(replace(data, torch=f"{torch}+cpu")))
        arguments = ["ledger", "ranges", "--ledger", *map(str, [ledger, *files])]
        done = CliRunner().invoke(cli, arguments, standalone_mode=False)
        if done.exception is not None:
            raise done.exception
        return done.return_value, done.output.splitlines()

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
    assert lines[0] == ("StepLR resume_by_last_epoch: no run shows whether <2.2.0 should be <2.3.0")
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
        ["2 entries, 3 releases, 4 moves: 2 refused: it overlaps another range, "
         "1 refused: it covers no version, 1 BROKEN"],
    )  # fmt: skip
    status, lines = run(broken, ">=2.2.0", check="resume_by_pickle")
    assert (status, lines) == (0, ["1 entries, 3 releases, 2 moves: 2 no result"])


def test_a_release_where_a_range_ends_must_be_there(run):
    with pytest.raises(LedgerError, match=r"torch 2\.0, 2\.2\.0, but there is no RESULT for it"):
        run({"2.1.0": True}, "<2.2.0,>=2.0")
