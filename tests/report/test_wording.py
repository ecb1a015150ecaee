"""The wording of every report, each pinned once, from results that no torch has made.

When a sentence changes on purpose: ``pytest tests/report/test_wording.py --inline-snapshot=fix``.
"""

import json
import re
from dataclasses import replace
from pathlib import Path

import click
import pytest
from inline_snapshot import snapshot
from packaging.specifiers import SpecifierSet
from packaging.version import Version
from pages import Page
from running import run_in_process

from harness.checks.registry import as_check
from harness.cli.main import cli
from harness.cli.outputs import print_table
from harness.cli.show import show_results
from harness.core.errors import HarnessError
from harness.core.ledger import Entry
from harness.core.result import Budget, Counterexample, Found, FoundBy, LostAttribute, Result
from harness.core.run import Looked, Role, Run, Seen, Tally
from harness.core.trace import Trace
from harness.core.verdict import Reason, Verdict
from harness.engine.selftest import Trial
from harness.report import diff, github, html, ledger, matrix, selftest
from harness.report import text as report
from harness.report.picture import trajectory
from harness.report.result_file import ResultFile, VersionFile, dump_results, results_of_run
from harness.report.script import script_of
from harness.subjects.lookup import as_subject

TORCH = "2.13.0"
LOOKED = Looked(frozenset({0, 1, 2, 3, 49, 50}), frozenset({("SGD", 2), ("AdamW", 3)}))
BY_LAST_EPOCH = as_check("resume_by_last_epoch")
FROM_FILE = as_check("resume_from_file")
TRACE = Trace.parse("step_size=3 gamma=0.5 train:3 save:a resume:a")
BEFORE = tuple(Seen(f"train:{epoch}", epoch, {"lr": [0.1]}) for epoch in range(3))
RUNS = (
    Run(Role.UNINTERRUPTED, (*BEFORE, Seen("", 3, {"lr": [0.05]})), "uninterrupted", ""),
    Run(Role.RESUMED, (Seen("", 3, {"lr": [0.025]}),), "resumed", ""),
)
FOUND = Counterexample(
    2, 0, {"lr": [0.05]}, {"lr": [0.025]}, TRACE, Found(FoundBy.SWEEP, 2, 0.25), RUNS[0], RUNS
)  # fmt: skip
LOST = replace(FOUND, lost=(LostAttribute("count", "0", "3", saved=False),))
RAISES = replace(FOUND, actual={"raises": "KeyError: 'count'"})


def a_result(subject, check, verdict, reason="", **more):
    options = {
        "tally": Tally(12, 100, 34, 2, LOOKED),
        "torch": TORCH,
        "references": (subject, check),
    }
    promise = {c.name: c.promise for c in (BY_LAST_EPOCH, FROM_FILE)}.get(check)
    options |= {"promise": promise} if promise else {}
    return Result(subject, check, Verdict(verdict), reason, **{**options, **more})


LAST, FILE = BY_LAST_EPOCH.name, FROM_FILE.name
RESULTS = [
    a_result("StepLR", LAST, "BROKEN", "the weights were not compared", counterexample=FOUND),
    a_result("StepLR", FILE, "HOLDS"),
    a_result("Counter", LAST, "BROKEN", counterexample=LOST, references=("", "")),
    a_result("Counter", FILE, "BROKEN", counterexample=LOST, references=("", "")),
    a_result("Raises", FILE, "BROKEN", counterexample=RAISES, resume_python="/old/python"),
    a_result("Raises", LAST, "DECLINED", "its build takes no last_epoch"),
    a_result("Known", LAST, "KNOWN", "bug: it decays again", counterexample=FOUND),
    a_result("Known", FILE, "STALE", "known.toml:3: its trace holds", place="known.toml:3"),
    a_result("Slow", LAST, "UNKNOWN", "the time limit of 30 s ran out",
             untried=(("optimizer", "it has one optimizer"),)),
    a_result("Slow", FILE, "HOLDS", "not searched", why=Reason.OUT_OF_TIME),
]  # fmt: skip


def lines_of(text):
    """The lines of a text, without spaces at their ends."""
    return [line.rstrip() for line in text.splitlines()]


def words_on(page):
    """What a page shows, in order."""
    texts = (" ".join(text.split()) for text in Page(page).texts)
    style = re.compile(r"body \{|document\.")
    return [text for text in texts if text and not style.search(text)]


def test_the_report_of_check(capsys):
    show_results(RESULTS, ledger=True)
    assert lines_of(capsys.readouterr().out) == snapshot(
        [
            "BROKEN StepLR: resume_by_last_epoch (torch 2.13.0)",
            "  promise         Load the optimizer's state, then build with last_epoch=k-1 after k scheduler steps.",
            "  topic           what last_epoch means",
            "  counterexample  step_size=3 gamma=0.5 train:3 save:a resume:a",
            "  at              resume:a (operation 3 of 3), epoch 3",
            "  expected        lr [0.05] in the uninterrupted run (train:3)",
            "  got             lr [0.025] after resuming with resume_by_last_epoch",
            "  which is        multiplied a second time by the factor of the last step",
            "  note            the weights were not compared",
            "  Reproduce with:",
            '    lr-resume-harness replay StepLR resume_by_last_epoch "step_size=3 gamma=0.5 train:3 save:a resume:a"',
            '    lr-resume-harness script StepLR resume_by_last_epoch "step_size=3 gamma=0.5 train:3 save:a resume:a"',
            "",
            "BROKEN Counter: count is not in the state_dict (torch 2.13.0)",
            "  checks          resume_by_last_epoch, resume_from_file",
            "  promise         resume_by_last_epoch: Load the optimizer's state, then build with last_epoch=k-1 after k scheduler steps.",
            "  topic           what last_epoch means",
            "  counterexample  step_size=3 gamma=0.5 train:3 save:a resume:a",
            "  at              resume:a (operation 3 of 3), epoch 3",
            "  expected        lr [0.05] in the uninterrupted run (train:3)",
            "  got             lr [0.025] after resuming with resume_by_last_epoch",
            "  which is        multiplied a second time by the factor of the last step",
            "  state           count is 0, and 3 in the uninterrupted run (it is not in the state_dict)",
            "  Reproduce with:",
            "    print(harness.replay(subject, check, 'step_size=3 gamma=0.5 train:3 save:a resume:a').verdict)",
            "    print(harness.write_script(subject, check, 'step_size=3 gamma=0.5 train:3 save:a resume:a'))",
            "",
            "BROKEN Raises: resume_from_file (torch 2.13.0)",
            "  promise         Build both, load with torch.load(weights_only=True) the states that torch.save wrote.",
            "  topic           the scheduler's state",
            "  counterexample  step_size=3 gamma=0.5 train:3 save:a resume:a",
            "  at              resume:a (operation 3 of 3), epoch 3",
            "  expected        lr [0.05] in the uninterrupted run (train:3)",
            "  got             raises KeyError: 'count' after resuming with resume_from_file",
            "  Reproduce with:",
            '    lr-resume-harness replay Raises resume_from_file "step_size=3 gamma=0.5 train:3 save:a resume:a" --resume-python /old/python',
            '    lr-resume-harness script Raises resume_from_file "step_size=3 gamma=0.5 train:3 save:a resume:a" --resume-python /old/python',
            "",
            "KNOWN Known: resume_by_last_epoch",
            "  bug: it decays again",
            "  no other failure found; looked at: epochs 0-3, 49-50; AdamW, SGD; 2-3 groups",
            "STALE Known: resume_from_file",
            "  known.toml:3: its trace holds",
            "",
            "NOTE StepLR: resume_by_last_epoch",
            "  the weights were not compared",
            "NOTE Slow: resume_from_file",
            "  not searched",
            "",
            "DECLINED Raises: resume_by_last_epoch",
            "  its build takes no last_epoch",
            "",
            "UNKNOWN Slow: resume_by_last_epoch",
            "  the time limit of 30 s ran out",
            "",
            "NOT TRIED: optimizer (-v says why)",
            "",
            "4 failures are not in any ledger. To print entries for them from a file that check --json wrote:",
            "  lr-resume-harness ledger update FILE",
            "",
            "subject a b",
            "StepLR  B H",
            "Counter B B",
            "Raises  D B",
            "Known   K S",
            "Slow    U H",
            "",
            "H holds, B broken, D declined, U unknown, K known, S stale",
            "a resume_by_last_epoch",
            "b resume_from_file",
            "",
            "looked at: epochs 0-3, 49-50; AdamW, SGD; 2-3 groups",
            "torch 2.13.0: 5 subjects, 2 checks: 2 HOLDS, 4 BROKEN, 1 KNOWN, 1 STALE, 1 DECLINED, 1 UNKNOWN, 1 not searched (out of time) (120 traces, 1000 steps, 340 resumes, 20 state comparisons, 0.0 s)",
        ]
    )


def test_the_ledger_entries_of_a_few_failures(capsys):
    show_results(RESULTS[:1], ledger=True)
    printed = lines_of(capsys.readouterr().out)
    assert printed[printed.index("[[failure]]") - 2 :][:12] == snapshot(
        [
            "Not in any ledger. To accept these failures, add this to one:",
            "",
            "[[failure]]",
            'subject = "StepLR"',
            'check = "resume_by_last_epoch"',
            'torch = ">=2.13.0"',
            'trace = "step_size=3 gamma=0.5 train:3 save:a resume:a"',
            'shows = "lr is [0.025] and should be [0.05]"',
            'relation = "multiplied a second time by the factor of the last step"',
            'kind = "bug"',
            'tracked = "no report found"',
            'reason = "Expected lr [0.05], got lr [0.025]."',
        ]
    )


def test_the_line_of_a_subject():
    assert report.tried_text(RESULTS[:2]) == snapshot(
        "1 HOLDS, 1 BROKEN (24 traces, 200 steps, 68 resumes, 4 state comparisons, 0.0 s)"
    )


def test_the_keys_of_json():
    def keys(value):
        if isinstance(value, dict):
            return {key: keys(item) for key, item in value.items()}
        return [keys(value[0])] if isinstance(value, list) and value else type(value).__name__

    file = results_of_run(
        [replace(RESULTS[2], untried=(("skip", "no"),))], Budget(),
        complete=True, runs={"StepLR": {"train:1": [[0.1]]}},
    )  # fmt: skip
    data = json.loads(dump_results(replace(file, not_checked={"x": "no"})))
    assert keys(data) == snapshot(
        {
            "schema": "int",
            "torch": "str",
            "python": "str",
            "seed": "int",
            "max_examples": "int",
            "complete": "bool",
            "shard": "str",
            "results": [
                {
                    "subject": "str",
                    "check": "str",
                    "verdict": "str",
                    "reason": "str",
                    "counterexample": {
                        "operation": "int",
                        "step": "int",
                        "expected": {"lr": ["float"]},
                        "actual": {"lr": ["float"]},
                        "trace": "str",
                        "found": {"by": "str", "traces": "int", "seconds": "float"},
                        "uninterrupted": {
                            "role": "str",
                            "seen": [
                                {"operation": "str", "epoch": "int", "values": {"lr": ["float"]}}
                            ],
                            "raises": "str",
                            "name": "str",
                        },
                        "runs": [
                            {
                                "role": "str",
                                "seen": [
                                    {
                                        "operation": "str",
                                        "epoch": "int",
                                        "values": {"lr": ["float"]},
                                    }
                                ],
                                "raises": "str",
                                "name": "str",
                            }
                        ],
                        "lost": [
                            {"name": "str", "actual": "str", "expected": "str", "saved": "bool"}
                        ],
                    },
                    "tally": {
                        "traces": "int",
                        "steps": "int",
                        "resumes": "int",
                        "comparisons": "int",
                        "looked": {"epochs": "str", "optimizers": ["str"]},
                    },
                    "seconds": "float",
                    "references": ["str"],
                    "weights": "bool",
                    "last_lr": "bool",
                    "untried": [["str"]],
                    "resume_python": "str",
                    "torch": "str",
                    "replays": "list",
                    "place": "str",
                    "why": "str",
                    "promise": {
                        "text": "str",
                        "about": "str",
                        "kind": "str",
                        "at": "str",
                        "compares": "str",
                        "changes_options": "bool",
                    },
                }
            ],
            "runs": {"StepLR": {"train:1": [["float"]]}},
            "not_checked": {"x": "str"},
            "planned": "int",
            "positions": ["int"],
        }
    )


@pytest.fixture
def without_blocks(monkeypatch):
    """Reports in which the block of a failure, which `show_results` pins, is left out."""
    monkeypatch.setattr(report, "broken_text", lambda failure: "(the block)")
    monkeypatch.setattr(html, "broken_rows", lambda failure: [("promise", "(the block)")])
    monkeypatch.setattr(html, "picture_or_why", lambda result: b"")


def test_annotations_on_github():
    assert github.annotated([RESULTS[0], *RESULTS[7:9]]) == snapshot(
        [
            '::error title=BROKEN StepLR%3A resume_by_last_epoch (torch 2.13.0)::expected lr [0.05] in the uninterrupted run (train:3); got lr [0.025] after resuming with resume_by_last_epoch; at resume:a (operation 3 of 3), epoch 3%0Acounterexample: step_size=3 gamma=0.5 train:3 save:a resume:a%0Areproduce with: lr-resume-harness replay StepLR resume_by_last_epoch "step_size=3 gamma=0.5 train:3 save:a resume:a"%0Anote: the weights were not compared',
            "::error title=STALE Known%3A resume_from_file (torch 2.13.0)::known.toml:3: its trace holds",
            "::error title=UNKNOWN Slow%3A resume_by_last_epoch (torch 2.13.0)::the time limit of 30 s ran out",
        ]
    )


def test_the_summary_of_a_job(without_blocks):
    assert lines_of(github.job_summary(RESULTS, complete=False)) == snapshot(
        [
            "## lr-resume-harness, torch 2.13.0: 4 BROKEN, 1 STALE, 1 UNKNOWN",
            "",
            "torch 2.13.0: 5 subjects, 2 checks: 2 HOLDS, 4 BROKEN, 1 KNOWN, 1 STALE, 1 DECLINED, 1 UNKNOWN, 1 not searched (out of time) (120 traces, 1000 steps, 340 resumes, 20 state comparisons, 0.0 s)",
            "",
            "looked at: epochs 0-3, 49-50; AdamW, SGD; 2-3 groups",
            "",
            "The run was stopped: these are the results so far.",
            "",
            "| subject | HOLDS | BROKEN | KNOWN | STALE | DECLINED | UNKNOWN |",
            "| --- | --: | --: | --: | --: | --: | --: |",
            "| StepLR | 1 | 1 |  |  |  |  |",
            "| Counter |  | 2 |  |  |  |  |",
            "| Raises |  | 1 |  |  | 1 |  |",
            "| Known |  |  | 1 | 1 |  |  |",
            "| Slow | 1 |  |  |  |  | 1 |",
            "",
            "<details open><summary>BROKEN StepLR: resume_by_last_epoch: expected lr [0.05] in the uninterrupted run (train:3); got lr [0.025] after resuming with resume_by_last_epoch; at resume:a (operation 3 of 3), epoch 3</summary>",
            "",
            "```text",
            "(the block)",
            "```",
            "",
            "</details>",
            "",
            "<details open><summary>BROKEN Counter: count is not in the state_dict: expected lr [0.05] in the uninterrupted run (train:3); got lr [0.025] after resuming with resume_by_last_epoch; at resume:a (operation 3 of 3), epoch 3</summary>",
            "",
            "```text",
            "(the block)",
            "```",
            "",
            "</details>",
            "",
            "<details open><summary>BROKEN Raises: resume_from_file: expected lr [0.05] in the uninterrupted run (train:3); got raises KeyError: 'count' after resuming with resume_from_file; at resume:a (operation 3 of 3), epoch 3</summary>",
            "",
            "```text",
            "(the block)",
            "```",
            "",
            "</details>",
            "",
            "<details open><summary>Stale and known</summary>",
            "",
            "```text",
            "KNOWN Known: resume_by_last_epoch",
            "  bug: it decays again",
            "  no other failure found; looked at: epochs 0-3, 49-50; AdamW, SGD; 2-3 groups",
            "STALE Known: resume_from_file",
            "  known.toml:3: its trace holds",
            "```",
            "",
            "</details>",
            "",
            "<details open><summary>Unknown</summary>",
            "",
            "```text",
            "UNKNOWN Slow: resume_by_last_epoch",
            "  the time limit of 30 s ran out",
            "```",
            "",
            "</details>",
            "",
            "<details><summary>Notes</summary>",
            "",
            "```text",
            "NOTE StepLR: resume_by_last_epoch",
            "  the weights were not compared",
            "NOTE Slow: resume_from_file",
            "  not searched",
            "```",
            "",
            "</details>",
            "",
            "<details><summary>Declined</summary>",
            "",
            "```text",
            "DECLINED Raises: resume_by_last_epoch",
            "  its build takes no last_epoch",
            "```",
            "",
            "</details>",
            "",
            "<details><summary>Not tried</summary>",
            "",
            "```text",
            "NOT TRIED optimizer: Slow",
            "  it has one optimizer",
            "```",
            "",
            "</details>",
            "",
        ]
    )


def test_the_end_of_a_summary_that_is_too_long():
    assert lines_of(github.job_summary(RESULTS, room=400))[-2:] == snapshot(
        ["10 more did not fit here: see the log.", ""]
    )


def test_the_page_of_a_run(without_blocks, monkeypatch):
    monkeypatch.setattr("platform.python_version", lambda: "3.11.7")
    scripts = {("StepLR", LAST): "import torch", ("Raises", FILE): HarnessError("it is a lambda")}
    page = html.run_page(RESULTS, scripts, Budget(), complete=False, shard="1/2")
    assert words_on(page) == snapshot(
        [
            "Schedules and checkpoints, torch 2.13.0",
            "Schedules and checkpoints, torch 2.13.0",
            "Does a learning-rate schedule go on after a checkpoint as if nothing had happened? Each row is a scheduler; each column is a check, which is a way of resuming or a promise about the checkpoint. Click a cell to see its details.",
            "2 HOLDS, 4 BROKEN, 1 KNOWN, 1 STALE, 1 DECLINED, 1 UNKNOWN",
            "120 traces, 1000 steps, 340 resumes, 20 state comparisons",
            "looked at: epochs 0-3, 49-50; AdamW, SGD; 2-3 groups",
            "torch 2.13.0, Python 3.11.7, lr-resume-harness 0.1.0, seed 0, 25 random traces for each pair, part 1/2 of the pairs",
            "The run was stopped",
            ": some pairs were not checked.",
            "B",
            "broken: there is a counterexample",
            "S",
            "stale: a ledger entry is not true here",
            "K",
            "known: fails as the ledger says",
            "U",
            "unknown: could not be decided",
            "D",
            "declined: the check does not apply",
            ".",
            "holds: no failure was found",
            "StepLR",
            "B",
            "resume_by_last_epoch",
            "1 holds",
            "Counter",
            "B",
            "resume_by_last_epoch",
            "B",
            "resume_from_file",
            "Raises",
            "D",
            "resume_by_last_epoch",
            "B",
            "resume_from_file",
            "Known",
            "K",
            "resume_by_last_epoch",
            "S",
            "resume_from_file",
            "Slow",
            "U",
            "resume_by_last_epoch",
            "1 holds",
            "subject",
            "resume_by_last_epoch",
            "resume_from_file",
            "StepLR",
            "B",
            ".",
            "Counter",
            "B",
            "B",
            "Raises",
            "D",
            "B",
            "Known",
            "K",
            "S",
            "Slow",
            "U",
            ".",
            "Broken: there is a counterexample (4 from 3 causes)",
            "B",
            "StepLR: resume_by_last_epoch",
            "promise",
            "(the block)",
            "reproduce with",
            'lr-resume-harness replay StepLR resume_by_last_epoch "step_size=3 gamma=0.5 train:3 save:a resume:a"',
            "copy",
            "Script that reproduces this failure",
            "copy",
            "import torch",
            "B",
            "Counter: count is not in the state_dict",
            "promise",
            "(the block)",
            "reproduce with",
            "print(harness.replay(subject, check, 'step_size=3 gamma=0.5 train:3 save:a resume:a').verdict)",
            "copy",
            "B",
            "Raises: resume_from_file",
            "promise",
            "(the block)",
            "reproduce with",
            'lr-resume-harness replay Raises resume_from_file "step_size=3 gamma=0.5 train:3 save:a resume:a" --resume-python /old/python',
            "copy",
            "No script: it is a lambda",
            "Stale: a ledger entry is not true here (1)",
            "Known",
            "resume_from_file",
            "known.toml:3: its trace holds",
            "Unknown: could not be decided (1)",
            "Slow",
            "resume_by_last_epoch",
            "the time limit of 30 s ran out",
            "Known: fails as the ledger says (1)",
            "K",
            "Known: resume_by_last_epoch",
            "bug: it decays again",
            "no other failure found; looked at: epochs 0-3, 49-50; AdamW, SGD; 2-3 groups",
            "promise",
            "(the block)",
            "reproduce with",
            'lr-resume-harness replay Known resume_by_last_epoch "step_size=3 gamma=0.5 train:3 save:a resume:a"',
            "copy",
            "Declined: the check does not apply (1)",
            "Raises",
            "resume_by_last_epoch",
            "its build takes no last_epoch",
            "Holds: no failure was found (2)",
            "StepLR",
            "resume_from_file",
            "(12 traces, 100 steps, 34 resumes, 2 state comparisons)",
            "looked at: epochs 0-3, 49-50; AdamW, SGD; 2-3 groups",
            "Slow",
            "resume_from_file",
            "(12 traces, 100 steps, 34 resumes, 2 state comparisons)",
            "not searched",
            "looked at: epochs 0-3, 49-50; AdamW, SGD; 2-3 groups",
            "Operations that were not tried",
            "optimizer",
            "Slow",
            "it has one optimizer",
        ]
    )
    [first, *_] = Page(page).all("img")
    assert first["alt"] == snapshot(
        "The uninterrupted and the resumed run of StepLR by epoch; at: resume:a (operation 3 of 3), epoch 3; expected: lr [0.05] in the uninterrupted run (train:3); got: lr [0.025] after resuming with resume_by_last_epoch"
    )


def sources():
    older = [
        replace(result, torch="2.6.0", verdict=Verdict.HOLDS, counterexample=None)
        for result in RESULTS[:2]
    ]
    return [
        VersionFile(
            Path(f"{version}.json"), Version(version),
            results_of_run(results, Budget(examples), complete=True),
        )
        for version, examples, results in (("2.6.0", 10, older), (TORCH, 25, RESULTS))
    ]  # fmt: skip


def test_the_matrix():
    assert lines_of(matrix.markdown(matrix.matrix_of(sources()))) == snapshot(
        [
            "| check | subject | 2.6.0 | 2.13.0 |",
            "| --- | --- | :-: | :-: |",
            "| resume_by_last_epoch | StepLR | . | B |",
            "|  | Counter |  | B |",
            "|  | Known |  | K |",
            "|  | Slow |  | U |",
            "| resume_from_file | Counter, Raises |  | B |",
            "|  | Known |  | S |",
            "",
            "`B` broken: there is a counterexample, `S` stale: a ledger entry is not true here, `K` known: fails as the ledger says, `U` unknown: could not be decided, `.` holds: no failure was found, empty not run. Not shown: pairs that hold on every version (2) or are declined on every version (1). The search was not the same on all versions. Random traces for each pair: 10 (seed 0) on 2.6.0; 25 (seed 0) on 2.13.0. On versions with fewer, a defect can be missing.",
        ]
    )


def test_the_page_of_the_matrix():
    assert words_on(html.matrix_page(matrix.matrix_of(sources()))) == snapshot(
        [
            "Schedules and checkpoints, torch 2.6.0 to 2.13.0",
            "Schedules and checkpoints, torch 2.6.0 to 2.13.0",
            "Does a learning-rate schedule go on after a checkpoint as if nothing had happened? Each row is a scheduler, under the check it was tested with; each column is a version of torch. Click a cell to see its details; click again to close them.",
            "B",
            "broken: there is a counterexample",
            "S",
            "stale: a ledger entry is not true here",
            "K",
            "known: fails as the ledger says",
            "U",
            "unknown: could not be decided",
            ".",
            "holds: no failure was found",
            "empty: not run",
            "The search was not the same on all versions. Random traces for each pair: 10 (seed 0) on 2.6.0; 25 (seed 0) on 2.13.0. On versions with fewer, a defect can be missing.",
            "torch",
            "2.6.0",
            "2.13.0",
            "resume_by_last_epoch",
            "Load the optimizer's state, then build with last_epoch=k-1 after k scheduler steps.",
            "StepLR",
            ".",
            "B",
            "StepLR, resume_by_last_epoch, torch 2.13.0: BROKEN",
            "counterexample",
            "step_size=3 gamma=0.5 train:3 save:a resume:a",
            "expected",
            "lr [0.05]",
            "got",
            "lr [0.025]",
            "found by",
            "sweep",
            "reproduce with",
            'lr-resume-harness replay StepLR resume_by_last_epoch "step_size=3 gamma=0.5 train:3 save:a resume:a"',
            "note",
            "the weights were not compared",
            "Counter",
            "B",
            "Counter, resume_by_last_epoch, torch 2.13.0: BROKEN",
            "counterexample",
            "step_size=3 gamma=0.5 train:3 save:a resume:a",
            "expected",
            "lr [0.05]",
            "got",
            "lr [0.025]",
            "found by",
            "sweep",
            "reproduce with",
            "print(harness.replay(subject, check, 'step_size=3 gamma=0.5 train:3 save:a resume:a').verdict)",
            "Known",
            "K",
            "Known, resume_by_last_epoch, torch 2.13.0: KNOWN",
            "counterexample",
            "step_size=3 gamma=0.5 train:3 save:a resume:a",
            "expected",
            "lr [0.05]",
            "got",
            "lr [0.025]",
            "found by",
            "sweep",
            "reproduce with",
            'lr-resume-harness replay Known resume_by_last_epoch "step_size=3 gamma=0.5 train:3 save:a resume:a"',
            "note",
            "bug: it decays again",
            "Slow",
            "U",
            "Slow, resume_by_last_epoch, torch 2.13.0: UNKNOWN",
            "reason",
            "the time limit of 30 s ran out",
            "resume_from_file",
            "Build both, load with torch.load(weights_only=True) the states that torch.save wrote.",
            "Counter",
            "B",
            "Counter, resume_from_file, torch 2.13.0: BROKEN",
            "counterexample",
            "step_size=3 gamma=0.5 train:3 save:a resume:a",
            "expected",
            "lr [0.05]",
            "got",
            "lr [0.025]",
            "found by",
            "sweep",
            "reproduce with",
            "print(harness.replay(subject, check, 'step_size=3 gamma=0.5 train:3 save:a resume:a').verdict)",
            "Raises",
            "B",
            "Raises, resume_from_file, torch 2.13.0: BROKEN",
            "counterexample",
            "step_size=3 gamma=0.5 train:3 save:a resume:a",
            "expected",
            "lr [0.05]",
            "got",
            "raises KeyError: 'count'",
            "found by",
            "sweep",
            "reproduce with",
            'lr-resume-harness replay Raises resume_from_file "step_size=3 gamma=0.5 train:3 save:a resume:a" --resume-python /old/python',
            "Known",
            "S",
            "Known, resume_from_file, torch 2.13.0: STALE",
            "reason",
            "known.toml:3: its trace holds",
            "Not shown: pairs that hold on every version (2)",
            "resume_from_file",
            ": StepLR, Slow",
            "Not shown: pairs that are declined on every version (1)",
            "resume_by_last_epoch",
            ": Raises",
            "Made by",
            "lr-resume-harness matrix",
            "from these results:",
            "torch 2.6.0, Python 3.11.7, seed 0, 10 random traces for each pair: 2.6.0.json",
            "torch 2.13.0, Python 3.11.7, seed 0, 25 random traces for each pair: 2.13.0.json",
        ]
    )


def a_file(torch, results, runs):
    return ResultFile(2, torch, "3.11.7", 0, 25, True, "1/1", tuple(results), runs)


def test_the_report_of_diff():
    old = [
        replace(RESULTS[0], verdict=Verdict.HOLDS, reason="", counterexample=None),
        RESULTS[4],
        a_result("Counter", LAST, "DECLINED", "it did not promise it"),
        RESULTS[5],
        RESULTS[6],
    ]
    new = [
        RESULTS[0],
        replace(RESULTS[4], verdict=Verdict.HOLDS, counterexample=None),
        RESULTS[2],
        replace(RESULTS[5], verdict=Verdict.HOLDS, reason=""),
        RESULTS[9],
    ]
    runs = {"StepLR": {"step_size=3 gamma=0.5 train:2": [[0.1], [0.1]], "train:1": [[0.3]]},
            "Counter": {"train:1": [[1.0]]}}  # fmt: skip
    changed = {"StepLR": {"step_size=3 gamma=0.5 train:2": [[0.1], [0.2]],
                          "train:1": [[0.1 + 0.2]]}}  # fmt: skip
    stopped = replace(a_file(TORCH, new, changed), complete=False, seed=7)
    compared = diff.compare(a_file("2.6.0", old, runs), stopped)
    assert lines_of(diff.text(compared)) == snapshot(
        [
            "torch 2.6.0 (OLD) -> torch 2.13.0 (NEW)",
            "Compared: 4 pairs (3 subjects, 2 checks)",
            "Compared: 2 uninterrupted runs (1 more only in OLD, 0 only in NEW, with other options)",
            "No uninterrupted run in common for: Counter",
            "NEW is from a run that was stopped: the pairs it lacks are not compared",
            "The seed was 0 in OLD and 7 in NEW: this alone can change a verdict",
            "Only in OLD, subjects: Known",
            "Only in NEW, subjects: Slow",
            "",
            "NEWLY BROKEN: 1 pair. To replay, on torch 2.13.0:",
            "resume_by_last_epoch: Load the optimizer's state, then build with last_epoch=k-1 after k scheduler",
            "  steps.",
            '  lr-resume-harness replay StepLR resume_by_last_epoch "step_size=3 gamma=0.5 train:3 save:a resume:a"',
            "    expected  lr [0.05] in the uninterrupted run (train:3)",
            "    got       lr [0.025] after resuming with resume_by_last_epoch",
            "",
            "PERHAPS NEWLY BROKEN, with options that OLD was not checked with: 1 pair. Replay on torch 2.6.0 to",
            "  find out:",
            "resume_by_last_epoch: Load the optimizer's state, then build with last_epoch=k-1 after k scheduler",
            "  steps. (was DECLINED: it did not promise it)",
            "  print(harness.replay(subject, check, 'step_size=3 gamma=0.5 train:3 save:a resume:a').verdict)",
            "    expected  lr [0.05] in the uninterrupted run (train:3)",
            "    got       lr [0.025] after resuming with resume_by_last_epoch",
            "    state     count is 0, and 3 in the uninterrupted run (it is not in the state_dict)",
            "",
            "NEWLY FIXED: none",
            "",
            "PERHAPS NEWLY FIXED, with options that NEW was not checked with: 1 pair. Replay on torch 2.13.0 to",
            "  find out:",
            "resume_from_file:",
            "  Raises  step_size=3 gamma=0.5 train:3 save:a resume:a",
            "",
            "OTHER VERDICTS: 1 pair",
            "DECLINED -> HOLDS resume_by_last_epoch (was: its build takes no last_epoch): Raises",
            "",
            "CHANGED WITHOUT ANY RESUME: 1 uninterrupted run",
            "StepLR: 1 of 2, such as step_size=3 gamma=0.5 train:2",
            "  at epoch 1 torch 2.6.0 has lr [0.1], torch 2.13.0 has lr [0.2]",
            "",
            "CHANGED ONLY BY ROUNDING: 1 uninterrupted run",
            "StepLR: 1 of 2, such as train:1",
            "  at epoch 0 torch 2.6.0 has lr [0.3], torch 2.13.0 has lr [0.30000000000000004]",
        ]
    )


def an_entry(torch, **more):
    values = {"subject": "StepLR", "check": LAST, "trace": TRACE, "kind": "bug",
              "shows": "lr is [0.025] and should be [0.05]", "tracked": "no report found",
              "reason": "It decays again.", "place": "x.toml:1"}  # fmt: skip
    return Entry(**{**values, **more}, torch=SpecifierSet(torch))


def test_the_ledger_that_update_writes():
    text = ledger.updated("", (), [a_file(TORCH, RESULTS[:1], {})])
    assert lines_of(text) == snapshot(
        [
            "[[failure]]",
            'subject = "StepLR"',
            'check = "resume_by_last_epoch"',
            'torch = ">=2.13.0"',
            'trace = "step_size=3 gamma=0.5 train:3 save:a resume:a"',
            'shows = "lr is [0.025] and should be [0.05]"',
            'relation = "multiplied a second time by the factor of the last step"',
            'kind = "bug"',
            'tracked = "no report found"',
            'reason = "Expected lr [0.05], got lr [0.025]."',
        ]
    )


def test_the_report_of_ledger_ranges():
    broken = replace(RESULTS[1], replays=(FOUND,), check=LAST, references=("StepLR", LAST))
    held = replace(broken, replays=())
    files = [a_file(version, [result], {}) for version, result in
             (("2.1.0", broken), ("2.2.0", broken), ("2.3.0", held), ("2.4.0", held))]  # fmt: skip
    entries = [an_entry("<2.2.0")]
    moves = ledger.move_ranges(entries, ledger.releases_in(files))
    assert lines_of(ledger.moves_text(entries, moves)) == snapshot(
        [
            "StepLR resume_by_last_epoch: no run shows whether <2.2.0 should be <2.3.0",
            "1 entries, 4 releases, 2 moves: 1 refused: it covers no version, 1 not noticed",
        ]
    )


def trials():
    caught = a_result("Fault", LAST, "BROKEN", counterexample=FOUND)
    yield Trial("Caught", True, 0, (LAST,), (caught,))
    yield Trial("Missed", True, 0, (LAST,), (a_result("Missed", LAST, "HOLDS"),))
    yield Trial("Silent", False, 0, (), (a_result("Silent", LAST, "HOLDS"),))
    yield Trial("Alarms", False, 0, (), (caught,))
    yield Trial("Unknown", False, 0, (), (RESULTS[8],))


def test_the_report_of_selftest(monkeypatch, capsys):
    monkeypatch.setattr("torch.__version__", TORCH)
    print_table(selftest.table([*trials()]))
    print(selftest.text([*trials()], {"NeedsMore": "it needs float8"}, quick=True))
    printed = lines_of(capsys.readouterr().out)
    columns = [line for line in printed if not re.fullmatch(r"[a-zA-Z] \w+", line)]
    assert columns == snapshot(
        [
            "fault  caught by found by    traces    s  size  exact",
            "Caught k         sweep            2 0.25   3/3    1/1",
            "Missed           not caught                       0/1",
            "",
            "traces, s: traces tried and CPU seconds used, for all checks, until the first counterexample",
            "size: operations / steps of the counterexample",
            "",
            "left out, because this torch can't run it: NeedsMore: it needs float8",
            "Missed (seed 0): not caught by resume_by_last_epoch",
            "Alarms (seed 0): false alarm of resume_by_last_epoch: step_size=3 gamma=0.5 train:3 save:a resume:a",
            "Unknown (seed 0): resume_by_last_epoch is UNKNOWN: the time limit of 30 s ran out",
            "torch 2.13.0: 1 of 2 faults caught by the first of their checks, 1 by the sweep and 0 by the search",
            "median until caught: 0.25 s of CPU",
            "1 of 3 controls without an alarm (36 traces, 102 resumes)",
            "quick: other checks were not tried, so they may raise a false alarm",
        ]
    )
    assert [selftest.line(trial) for trial in trials()] == snapshot(
        [
            "Caught: caught by 1 of 1 checks tried",
            "Missed (seed 0): not caught by resume_by_last_epoch",
            "Silent: no alarm",
            "Alarms (seed 0): false alarm of resume_by_last_epoch: step_size=3 gamma=0.5 train:3 save:a resume:a",
            "Unknown (seed 0): resume_by_last_epoch is UNKNOWN: the time limit of 30 s ran out",
        ]
    )


def test_the_head_of_a_script_and_what_it_prints():
    text = script_of(as_subject("torch.optim.lr_scheduler:StepLR"), BY_LAST_EPOCH, RESULTS[0],
                     TRACE)  # fmt: skip
    assert lines_of(text.split('"""')[1]) == snapshot(
        [
            "StepLR: resume_by_last_epoch",
            "Needs only torch: everything else is in this file.",
            "The promise: Load the optimizer's state, then build with last_epoch=k-1 after k scheduler steps.",
            "The trace: step_size=3 gamma=0.5 train:3 save:a resume:a",
            "With torch 2.13.0: expected lr [0.05], got [0.025]",
            "Exit status, for `git bisect run`: 1 the bug is there, 0 it is gone, 125 can't tell.",
        ]
    )
    status, printed = run_in_process(text)
    assert (status, printed[1:]) == snapshot(
        (
            1,
            [
                "lr of every group after each step:\n",
                "step  uninterrupted run  interrupted run",
                "   0  [0.1, 0.01]        [0.1, 0.01]",
                "   1  [0.1, 0.01]        [0.1, 0.01]",
                "   2  [0.1, 0.01]        [0.1, 0.01]",
                "   3  [0.05, 0.005]      [0.025, 0.0025]  <- differs",
                "",
                "expected lr [0.05, 0.005], got [0.025, 0.0025]",
                "The bug is there.",
            ],
        )
    )


def test_the_picture():
    shown = trajectory(RESULTS[0])
    assert (shown.title, shown.marks, shown.labels) == snapshot(
        (
            "StepLR: resume_by_last_epoch (torch 2.13.0)",
            {3: "save:a resume:a"},
            {0: "epoch 3: expected 0.05, got 0.025"},
        )
    )


def helps(command, names=()):
    """Every command with its help, as on a terminal 80 columns wide."""
    context = click.Context(command, info_name=" ".join(["harness", *names]), terminal_width=80,
                            max_content_width=80)  # fmt: skip
    yield " ".join(names), lines_of(command.get_help(context))
    if isinstance(command, click.Group):
        for name, each in command.commands.items():
            yield from helps(each, (*names, name))


@pytest.mark.parametrize("command", sorted(name for name, _ in helps(cli)))
def test_every_command_has_a_help(command):
    text = dict(helps(cli))[command]
    assert text[0].startswith("Usage: harness")
    assert any(line.endswith(".") for line in text[2:])
