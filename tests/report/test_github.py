"""What is said on GitHub: annotations, the job's summary, and where neither is wanted."""

import errno
import functools
import os
import re
import shutil

import own_schedule
import pytest
from helpers import ROOT
from torch.optim.lr_scheduler import StepLR

from harness import Trace
from harness.checks.registry import CHECKS, as_check
from harness.cli import main as cli
from harness.core.references import place_of
from harness.core.result import Counterexample, Result
from harness.core.verdict import Verdict
from harness.report import text as report
from harness.report.github import annotated, job_summary
from harness.report.result_file import read_results
from harness.report.text import failures, replay_command

LAST_EPOCH = "resume_by_last_epoch"
PICKLE = "resume_by_pickle"
TRACE = "every=3 train:3 save:a resume:a"
ONE_CHECK = ("check", "own_schedule:Halves", "--kwargs", "every=3", "--max-examples", 0,
             "--check")  # fmt: skip
FILE, LINE = "tests/own_schedule.py", 9


def broken(check=LAST_EPOCH, **changes):
    found = Counterexample(2, 0, {"lr": [0.05]}, {"lr": [0.025]}, trace=Trace.parse(TRACE))
    options = {
        "counterexample": found,
        "references": ("own_schedule:Halves", check),
        "torch": "2.13.0",
        "place": f"{ROOT / FILE}:{LINE}",
        "promise": as_check(check).promise,
    }
    return Result(changes.pop("subject", "Halves"), check, Verdict.BROKEN, **(options | changes))


def unknown(check, **changes):
    options = {"reason": "the time limit of 30 s ran out", "torch": "2.13.0"}
    return Result(changes.pop("subject", "Slow"), check, Verdict.UNKNOWN, **(options | changes))


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


# ------------------------------------------------------------------------- annotations


def test_an_annotation_has_the_place_the_values_and_the_command():
    [line] = annotated([broken()])
    properties, _, message = line.removeprefix("::error ").partition("::")
    assert properties.startswith("file=tests/own_schedule.py,line=9,title=BROKEN Halves%3A ")
    first, trace, command = message.split("%0A")
    assert first.index("[0.05]") < first.index("[0.025]")
    assert trace.endswith(TRACE)
    assert command.endswith(replay_command(broken(), TRACE))


def test_what_would_end_a_property_or_a_line_is_escaped(tmp_path, monkeypatch):
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path))
    path = tmp_path / "a,b%.py"
    path.touch()
    reason = "100%, a:\r\nb"
    result = unknown(PICKLE, reason=reason, place=f"{path}:7", subject="a,b:c")
    assert annotated([result]) == [
        "::error file=a%2Cb%25.py,line=7,"
        "title=UNKNOWN a%2Cb%3Ac%3A resume_by_pickle (torch 2.13.0)::100%25, a:%0Ab"
    ]


def test_what_is_as_it_must_be_has_no_annotation():
    verdicts = (Verdict.HOLDS, Verdict.KNOWN, Verdict.DECLINED)
    assert annotated([Result("a", PICKLE, verdict, "why") for verdict in verdicts]) == []


def test_a_note_is_said():
    [line] = annotated([broken(reason="weights")])
    assert line.rpartition("%0A")[2].endswith(" weights")


def test_the_same_reason_is_said_once_and_what_is_broken_first():
    unknowns = [unknown(check.name) for check in CHECKS[:5]]
    stale = Result("StepLR", PICKLE, Verdict.STALE, "known.toml:3: its trace holds", torch="2.13.0")
    lines = annotated([*unknowns, unknown(PICKLE, subject="b"), stale, broken()])
    assert [line.rpartition("title=")[2].partition("::")[0] for line in lines] == [
        "BROKEN Halves%3A resume_by_last_epoch (torch 2.13.0)",
        "STALE StepLR%3A resume_by_pickle (torch 2.13.0)",
        "UNKNOWN Slow%3A 5 checks (torch 2.13.0)",
        "UNKNOWN b%3A resume_by_pickle (torch 2.13.0)",
    ]


def test_more_than_github_shows_is_counted():
    lines = annotated([broken(subject=f"s{number}") for number in range(10)])
    assert all("title=BROKEN" in line for line in lines)
    lines = annotated([broken(subject=f"s{number}") for number in range(25)])
    assert len(lines) == 10
    assert re.findall(r"\d+", lines[-1]) == ["16"]


def properties(place):
    [line] = annotated([unknown(PICKLE, place=place)])
    return line.removeprefix("::error ").partition("title=")[0].rstrip(",")


def test_the_file_is_named_from_the_workspace_on(tmp_path, monkeypatch):
    assert properties(f"{FILE}:6") == "file=tests/own_schedule.py,line=6"
    assert properties(FILE) == "file=tests/own_schedule.py"
    monkeypatch.setenv("GITHUB_WORKSPACE", str(ROOT / "tests"))
    assert properties(f"{ROOT / FILE}:6") == "file=own_schedule.py,line=6"
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path))
    assert properties(f"{ROOT / FILE}:6") == ""
    assert properties("") == ""
    assert properties("no_such_file.py:6") == ""


@pytest.mark.parametrize("layout", ["my_package", "src/my_package"])
def test_an_installed_copy_stands_for_the_file_of_the_repository(tmp_path, monkeypatch, layout):
    """With the environment in the repository, as tox has it."""
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path))
    installed = tmp_path / ".tox/lr/lib/python3.11/site-packages/my_package/schedules.py"
    mine = tmp_path / layout / "schedules.py"
    for path in (installed, mine):
        path.parent.mkdir(parents=True)
        shutil.copy(own_schedule.__file__, path)
    assert properties(f"{installed}:6") == f"file={layout}/schedules.py,line=6"
    mine.write_text("# another version\n")
    assert properties(f"{installed}:6") == ""


# -------------------------------------------------------------------------- the place


def test_the_place_is_that_of_the_class_or_function():
    class Callable:
        def __call__(self, optimizer, last_epoch=-1):
            return own_schedule.Halves(optimizer, 3, last_epoch)

    assert place_of(own_schedule.Halves) == f"{FILE}:{LINE}"
    assert place_of(functools.partial(own_schedule.Halves, every=3)) == f"{FILE}:{LINE}"
    assert place_of(Callable()) == place_of(Callable)
    assert place_of(Callable).startswith("tests/report/test_github.py:")
    decorated = functools.wraps(own_schedule.Halves)(lambda *args: None)
    assert place_of(decorated) == f"{FILE}:{LINE}"
    assert place_of(StepLR).rpartition(":")[0].endswith("/torch/optim/lr_scheduler.py")


def test_where_there_is_no_source_there_is_no_place_or_no_line():
    made = type("Made", (own_schedule.Halves,), {"__module__": "own_schedule"})
    assert place_of(made) == FILE
    assert place_of(len) == ""
    assert place_of(eval("lambda: None")) == ""


def test_a_broken_pair_and_an_unknown_one_have_the_subjects_place(command, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    written = tmp_path / "results.json"
    command(*ONE_CHECK, LAST_EPOCH, "--check", PICKLE, "--json", written)
    results = read_results(written).results
    assert [(result.verdict, result.place) for result in results] == [
        (Verdict.BROKEN, f"{FILE}:{LINE}"),
        (Verdict.HOLDS, ""),
    ]
    command(*ONE_CHECK, PICKLE, "--time-budget", "1e-9", "--json", written)
    [result] = read_results(written).results
    assert (result.verdict, result.place) == (Verdict.UNKNOWN, f"{FILE}:{LINE}")


# ------------------------------------------------------------------------- the summary


def test_a_summary_has_the_table_and_the_blocks_of_the_report():
    results = [
        Result("Halves", PICKLE, Verdict.HOLDS, torch="2.13.0"),
        broken(),
        Result("other_one", PICKLE, Verdict.DECLINED, "lambda", torch="2.13.0"),
        unknown(LAST_EPOCH, subject="other_one", reason="hangs"),
    ]
    text = job_summary(results)
    table = "| Halves | 1 | 1 |  |  |\n| other_one |  |  | 1 | 1 |\n"
    blocks = [
        report.summary(results), table, report.broken_text(failures(results)[0]),
        report.reasons_text(results, Verdict.UNKNOWN),
        report.reasons_text(results, Verdict.DECLINED),
    ]  # fmt: skip
    assert sorted(blocks, key=text.index) == blocks


def test_a_run_that_passes_has_a_short_summary():
    text = job_summary([Result("a", PICKLE, Verdict.HOLDS, torch="2.13.0")])
    assert "<details" not in text
    assert text.endswith("| subject | HOLDS |\n| --- | --: |\n| a | 1 |\n\n")


def test_a_stopped_run_says_so():
    whole, stopped = (
        job_summary([Result("a", PICKLE, Verdict.HOLDS)], complete=complete)
        for complete in (True, False)
    )
    assert len(stopped.splitlines()) > len(whole.splitlines())


def test_many_broken_pairs_are_folded():
    assert job_summary([broken(subject=f"s{n}") for n in range(3)]).count("s open>") == 3
    folded = job_summary([broken(subject=f"s{n}") for n in range(4)])
    assert (folded.count("<details>"), folded.count("s open>")) == (4, 0)


def test_nothing_of_a_subject_is_taken_for_markdown_or_html():
    reason = "```\n</details> <b> & so on"
    names = [Result("a|*b*|<i>", PICKLE, Verdict.UNKNOWN, reason), broken(subject="<c&d>")]
    text = job_summary(names)
    assert r"| a\|\*b\*\|\<i\> |" in text
    assert "<summary>BROKEN &lt;c&amp;d&gt;: resume_by_last_epoch" in text
    assert f"\n\n````text\nUNKNOWN a|*b*|<i>: {PICKLE}\n  {reason}\n````\n\n" in text


def test_a_summary_keeps_to_its_room():
    results = [broken(subject=f"s{number}") for number in range(100)]
    text = job_summary(results, room=20_000)
    shown = text.count("<summary>BROKEN")
    assert 0 < shown < 100
    assert len(text.encode()) <= 20_000
    assert text.splitlines()[-2].startswith(f"{100 - shown} ")
    assert len(job_summary(results).encode()) > 20_000


# --------------------------------------------------------------------- the command line


@pytest.fixture
def on_github(monkeypatch, tmp_path):
    """The environment of a job; returns the file of the summary, which has something in it."""
    summary = tmp_path / "summary.md"
    summary.write_text("# Before\n\n")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    monkeypatch.setenv("GITHUB_WORKSPACE", str(ROOT))
    return summary


def test_in_a_job_it_is_on_by_itself_and_the_summary_is_appended(command, on_github):
    status, printed, errors = command(*ONE_CHECK, LAST_EPOCH)
    assert status == 1
    assert "::error" not in errors
    said = [line for line in printed.splitlines() if line.startswith("::error ")]
    assert [line.partition(",title=")[0] for line in said] == [f"::error file={FILE},line={LINE}"]
    once = on_github.read_text()
    assert once.startswith("# Before\n\n## lr-resume-harness, torch ")
    assert once.count("\n## ") == 1
    command(*ONE_CHECK, PICKLE)
    twice = on_github.read_text()
    assert twice.startswith(once)
    assert twice.count("\n## ") == 2


def test_pytorchs_own_are_in_no_repository(command, on_github):
    printed = command("check", "StepLR", "--max-examples", 0, "--check", LAST_EPOCH)[1]
    assert "\n::error title=BROKEN StepLR%3A resume_by_last_epoch (torch " in printed


@pytest.mark.parametrize(
    ("actions", "options", "says"),
    [
        (None, [], False),
        ("false", [], False),
        ("true", ["--ci", "none"], False),
        (None, ["--ci", "github"], True),
    ],
)
def test_outside_a_job_or_by_option(command, on_github, monkeypatch, actions, options, says):
    monkeypatch.delenv("GITHUB_ACTIONS")
    if actions is not None:
        monkeypatch.setenv("GITHUB_ACTIONS", actions)
    printed = command(*ONE_CHECK, LAST_EPOCH, *options)[1]
    assert ("\n::error " in printed) is says
    assert (on_github.read_text() != "# Before\n\n") is says


def test_without_a_file_for_the_summary_there_are_annotations(command, on_github, monkeypatch):
    monkeypatch.delenv("GITHUB_STEP_SUMMARY")
    _, printed, errors = command(*ONE_CHECK, LAST_EPOCH)
    assert "\n::error " in printed
    assert "warning" not in errors


def test_a_summary_that_cant_be_written_changes_no_verdict(command, on_github, tmp_path):
    on_github.unlink()
    on_github.mkdir()
    for check, expected in ((LAST_EPOCH, 1), (PICKLE, 0)):
        status, printed, errors = command(*ONE_CHECK, check)
        assert (status, "\n::error " in printed) == (expected, bool(expected))
        [warning] = [line for line in errors.splitlines() if line.startswith("warning: ")]
        assert warning.endswith(f"{on_github}: {os.strerror(errno.EISDIR)}")


def test_a_stale_entry_is_annotated_in_the_ledger(on_github, monkeypatch, capfd):
    (on_github.parent / "known.toml").write_text(
        "# Mine\n\n[[failure]]\n"
        f'subject = "own_schedule:Halves"\ncheck = "{PICKLE}"\ntorch = ">=1.13.1"\n'
        f'trace = "{TRACE}"\nshows = "lr is [0.025] and should be [0.05]"\nkind = "bug"\ntracked = "no report found"\n'
        'reason = "None."\n'
    )
    monkeypatch.setenv("GITHUB_WORKSPACE", str(on_github.parent))
    monkeypatch.chdir(on_github.parent)
    arguments = [*map(str, ONE_CHECK), PICKLE, "--ledger", "known.toml"]
    monkeypatch.setattr("sys.argv", ["harness", *arguments])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 1
    said = "file=known.toml,line=3,title=STALE Halves%3A resume_by_pickle (torch "
    assert f"\n::error {said}" in capfd.readouterr().out
    text = on_github.read_text()
    assert "\n```text\nSTALE Halves: resume_by_pickle\n  known.toml:3: " in text


def test_merge_says_the_same(command, on_github, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    parts = []
    for number in (1, 2):
        parts.append(tmp_path / f"{number}.json")
        command(*ONE_CHECK, LAST_EPOCH, "--check", PICKLE, "--shard", f"{number}/2",
                "--json", parts[-1], "--ci", "none")  # fmt: skip
    assert on_github.read_text() == "# Before\n\n"
    status, printed, _ = command("merge", *parts)
    assert status == 1
    [line] = [line for line in printed.splitlines() if line.startswith("::")]
    assert line.startswith(f"::error file={FILE},line={LINE},title=BROKEN Halves%3A {LAST_EPOCH} ")
    assert "| Halves | 1 | 1 |" in on_github.read_text()
    assert "::error" not in command("merge", *parts, "--ci", "none")[1]


def test_the_tests_themselves_are_in_no_job():
    assert not [name for name in os.environ if name.startswith("GITHUB_")]
