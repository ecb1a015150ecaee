"""That ``ledger ranges`` says which moves of a range a run would see."""

from dataclasses import replace

import pytest
from click.testing import CliRunner

from harness.cli.main import cli
from harness.core.errors import LedgerError
from harness.core.ledger import read_ledger
from harness.core.result import Budget, Counterexample, Result
from harness.core.trace import Trace
from harness.core.verdict import Verdict
from harness.report.ledger import MoveOutcome, move_ranges, releases_in
from harness.report.result_file import dump_results, read_results, results_of_run

TRACE = "step_size=3 gamma=0.5 train:3 save:a resume:a"
ENTRY = """
[[failure]]
subject = "StepLR"
check = "{check}"
torch = "{torch}"
trace = "{trace}"
shows = "lr is [0.2] and should be [0.1]"
kind = "by-design"
tracked = "no report found"
reason = "It decays again."
"""
BREAK = Counterexample(2, 0, {"lr": [0.1]}, {"lr": [0.2]}, trace=Trace.parse(TRACE))


@pytest.fixture
def write(tmp_path):
    """Writes a ledger with these ranges, and what breaks on each release; returns the paths."""

    def write(broken, *ranges, check="resume_by_last_epoch"):
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
        return ledger, files

    return write


@pytest.fixture
def outcomes(write):
    """The outcomes of the moves, counted, and the moves that no run would notice."""

    def outcomes(broken, *ranges, **more):
        ledger, files = write(broken, *ranges, **more)
        moves = move_ranges(read_ledger([ledger]).entries, releases_in(map(read_results, files)))
        assert moves.releases == len(broken)
        return dict(moves.counts), [(str(entry.torch), str(new)) for entry, new in moves.unseen]

    return outcomes


def test_a_tight_range_cannot_be_moved_unseen(outcomes):
    broken = {"2.10.0": True, "2.2.0": True, "2.1.0": False, "2.13.0": False}
    counts = {MoveOutcome.BROKEN: 2, MoveOutcome.STALE: 1}
    assert outcomes(broken, ">=2.2.0,<2.13.0") == (counts, [])


def test_a_range_that_is_too_short_or_too_long_is_named(outcomes):
    broken = {"2.1.0": True, "2.2.0": True, "2.3.0": False, "2.4.0": False}
    counts = {MoveOutcome.NO_VERSION: 1, MoveOutcome.UNSEEN: 1}
    assert outcomes(broken, "<2.2.0") == (counts, [("<2.2.0", "<2.3.0")])


def test_overlaps_are_refused_and_what_no_run_tells_is_counted(outcomes):
    broken = {"2.1.0": True, "2.2.0": False, "2.3.0": True}
    counts = {MoveOutcome.STALE: 2, MoveOutcome.NO_VERSION: 1}
    assert outcomes(broken, "<2.2.0", ">=2.3.0") == (counts, [])
    counts = {MoveOutcome.OVERLAP: 2, MoveOutcome.NO_VERSION: 1, MoveOutcome.BROKEN: 1}
    everywhere = {"2.1.0": True, "2.2.0": True, "2.3.0": True}
    assert outcomes(everywhere, "<2.2.0", ">=2.2.0") == (counts, [])
    counts = {MoveOutcome.NO_RESULT: 2}
    assert outcomes(broken, ">=2.2.0", check="resume_by_pickle") == (counts, [])


@pytest.mark.parametrize(("torch", "status"), [(">=2.2.0,<2.3.0", 0), ("<2.2.0", 1)])
def test_the_status_of_the_command(write, torch, status):
    broken = {"2.1.0": torch[0] == "<", "2.2.0": True, "2.3.0": False, "2.4.0": False}
    ledger, files = write(broken, torch)
    arguments = ["ledger", "ranges", "--ledger", *map(str, [ledger, *files])]
    done = CliRunner().invoke(cli, arguments, standalone_mode=False)
    assert (done.exception, done.return_value) == (None, status)
    assert done.output.strip()


def test_a_release_where_a_range_ends_must_be_there(outcomes):
    with pytest.raises(LedgerError, match=r"2\.0, 2\.2\.0"):
        outcomes({"2.1.0": True}, "<2.2.0,>=2.0")
