"""What people type: paths, patterns, options of subjects, and the configuration of a project."""

import json
import re
import sys

import pytest
from torch.optim.lr_scheduler import ConstantLR

from harness import Term
from harness.core import references
from harness.core.project import SubjectSettings
from harness.report.result_file import read_results
from harness.subjects.lookup import as_subject

CHECKS = ("--max-examples", 0, "--check", "resume_by_last_epoch", "--check", "lr_is_finite")
MODULE = """
from torch.optim.lr_scheduler import StepLR


class Halves(StepLR):
    def __init__(self, optimizer, every: int = 3, last_epoch=-1):
        super().__init__(optimizer, every, 0.5, last_epoch)


class Falls(Halves):
    pass


def my_step(scheduler, epoch):
    scheduler.step()
"""
TRACE = "train:3 save:a resume:a"


@pytest.fixture
def user(command, tmp_path, monkeypatch):
    """The command line in a folder with a package in ``src``; modules are forgotten."""
    (tmp_path / "src" / "pkg_of_user").mkdir(parents=True)
    (tmp_path / "src" / "pkg_of_user" / "__init__.py").touch()
    (tmp_path / "src" / "pkg_of_user" / "sched.py").write_text(MODULE)
    (tmp_path / "src" / "train.py").write_text("raise RuntimeError('it was imported')\n")
    (tmp_path / "mine_of_user.py").write_text(MODULE)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(references, "_added", set())

    def run(*arguments):
        for name in [name for name in sys.modules if name.endswith("_of_user")]:
            del sys.modules[name]
        for name in [name for name in sys.modules if name.startswith("pkg_of_user.")]:
            del sys.modules[name]
        return command(*arguments)

    yield run
    for name in [name for name in sys.modules if "_of_user" in name]:
        del sys.modules[name]


def checked(tmp_path):
    """The references of the pairs in the JSON file."""
    return [result.references for result in read_results(tmp_path / "r.json").results]


BY_PATH = "src/pkg_of_user/sched.py"


@pytest.mark.parametrize(
    ("name", "references"),
    [
        ("mine_of_user.py", ["mine_of_user:Halves", "mine_of_user:Falls"]),
        ("mine_of_user.py:Halves", ["mine_of_user:Halves"]),
        ("mine_of_user.Falls", ["mine_of_user:Falls"]),
        ("src/pkg_of_user/", [f"{BY_PATH}:Halves", f"{BY_PATH}:Falls"]),
        ("src/pkg_of_user/sched.py", [f"{BY_PATH}:Halves", f"{BY_PATH}:Falls"]),
        ("src/", [f"{BY_PATH}:Halves", f"{BY_PATH}:Falls"]),
        ("torch.optim.lr_scheduler.ConstantLR", ["torch.optim.lr_scheduler:ConstantLR"]),
    ],
)
def test_a_path_names_what_is_in_it(user, name, references, tmp_path):
    """The references name the same scheduler in another process."""
    user("check", name, "--check", "lr_is_finite", "--max-examples", 0, "--json", "r.json")
    assert [subject for subject, _ in checked(tmp_path)] == references


def test_the_command_that_is_printed_for_a_path_works(user):
    _, printed, _ = user("check", f"{BY_PATH}:Halves", *CHECKS)
    assert f'replay {BY_PATH}:Halves resume_by_last_epoch "{TRACE}"' in printed
    status, printed, _ = user("replay", f"{BY_PATH}:Halves", "resume_by_last_epoch", TRACE)
    assert (status, printed.startswith("still broken\n")) == (1, True)


def test_pairs_are_selected_and_left_out(user, tmp_path):
    user("check", "mine_of_user.py", *CHECKS, "-k", "falls and not last", "--json", "r.json")
    assert checked(tmp_path) == [("mine_of_user:Falls", "lr_is_finite")]
    user("check", "mine_of_user", *CHECKS, "--exclude", "Fal*", "--json", "r.json")
    assert {subject for subject, _ in checked(tmp_path)} == {"mine_of_user:Halves"}
    user("check", "src/", *CHECKS, "--exclude", "pkg_of_user.sched.Falls", "--json", "r.json")
    assert {subject for subject, _ in checked(tmp_path)} == {f"{BY_PATH}:Halves"}


def test_the_first_failure_ends_the_run(user, tmp_path):
    status, printed, _ = user("check", "mine_of_user.py", *CHECKS, "-x", "--jobs", 0)
    assert status == 1
    assert "stopped after 1 of 4 pairs" in printed


def test_quiet_prints_what_fails_and_the_last_line(user):
    status, printed, errors = user("check", "mine_of_user.py:Halves", *CHECKS, "-q")
    assert (status, errors) == (1, "")
    assert printed.startswith("BROKEN Halves: resume_by_last_epoch")
    assert "looked at" not in printed
    assert "[[failure]]" not in printed
    assert printed.splitlines()[-1].startswith("torch ")


def test_a_trace_needs_no_quotes(user):
    status, printed, _ = user("replay", "mine_of_user:Halves", "resume_by_last_epoch",
                              *TRACE.split())  # fmt: skip
    assert (status, printed.startswith("still broken\n")) == (1, True)


def test_replay_says_what_a_ledger_knows(user):
    trace = "step_size=3 gamma=0.5 train:3 save:a resume:a"
    status, printed, _ = user("replay", "StepLR", "resume_by_last_epoch", trace)
    assert (status, re.search(r"\n  known  .*known_failures.toml:\d+: bug, ", printed) is None) == (
        1, False,
    )  # fmt: skip
    status, printed, _ = user("replay", "StepLR", "resume_by_last_epoch", trace, "--no-ledger")
    assert (status, "  known  " in printed) == (1, False)


def test_options_of_every_subject_are_in_the_trace(user, tmp_path):
    """So that the command that replays it needs no options."""
    status, printed, _ = user(
        "check", "mine_of_user:Halves", *CHECKS, "--optimizer", "AdamW", "--step",
        "mine_of_user.my_step", "--length", 5, "--decline", "lr_is_finite=not now",
    )  # fmt: skip
    assert status == 1
    trace = f"optimizer=AdamW() step=mine_of_user.my_step {TRACE}"
    assert f"  counterexample  {trace}\n" in printed
    assert "DECLINED Halves: lr_is_finite\n  not now\n" in printed
    assert user("replay", "mine_of_user:Halves", "resume_by_last_epoch", trace)[0] == 1
    status, text, _ = user("script", "mine_of_user:Halves", "resume_by_last_epoch", trace)
    assert (status, "my_step" in text) == (0, True)


def test_a_trace_that_names_no_optimizer_has_the_subjects_own():
    """So that the entries of a ledger mean the same, whatever is said about the subject."""
    said = SubjectSettings(optimizer="AdamW", step="metric")
    subject = as_subject(ConstantLR, settings_of=lambda *names: said)
    assert set(subject.bind({}).fields) == {"optimizer", "step"}
    assert subject.bind_trace({}).fields == {}
    [adam] = subject.bind_trace({"optimizer": Term.of("Adam")}).fields.values()
    assert str(adam) == "Adam()"


# ------------------------------------------------------------------------- the configuration

CONFIGURATION = """
[tool.lr-resume-harness]
paths = ["src"]
exclude = ["Falls"]
checks = ["resume_by_last_epoch", "lr_is_finite"]
max-examples = 0
jobs = 1

[tool.lr-resume-harness.subjects.Halves]
options = {every = 2}
optimizer = "SGD(groups=1)"
declines = {lr_is_finite = "not now"}
"""


def test_a_project_says_what_to_check_and_how(user, tmp_path):
    (tmp_path / "pyproject.toml").write_text(CONFIGURATION)
    status, printed, _ = user("check", "--json", "r.json")
    assert status == 1
    assert checked(tmp_path) == [
        (f"{BY_PATH}:Halves", name) for name in ("resume_by_last_epoch", "lr_is_finite")
    ]
    assert json.loads((tmp_path / "r.json").read_text())["max_examples"] == 0
    trace = "every=2 optimizer=SGD(groups=1) train:2 save:a resume:a"
    shown = re.search("  counterexample  (.*)", printed)[1]
    assert sorted(shown.split()) == sorted(trace.split())
    assert "DECLINED Halves: lr_is_finite\n  not now\n" in printed
    status, printed, _ = user("list")
    assert (status, "  Halves " in printed, "  Falls " in printed) == (0, True, False)
    # the arguments come first
    user("check", "mine_of_user.py:Halves", "--check", "lr_is_finite", "--json", "r.json")
    assert checked(tmp_path) == [("mine_of_user:Halves", "lr_is_finite")]


def test_expected_failures_fail_when_they_start_to_hold(user, tmp_path):
    text = CONFIGURATION.partition("declines")[0]
    known = 'expected-failures = {resume_by_last_epoch = "issue 7"}\n'
    (tmp_path / "pyproject.toml").write_text(text + known)
    status, printed, _ = user("check")
    assert status == 0
    assert "KNOWN Halves: resume_by_last_epoch\n  expected to fail: issue 7\n" in printed
    (tmp_path / "pyproject.toml").write_text(
        text + known.replace("resume_by_last_epoch", "lr_is_finite")
    )
    status, printed, _ = user("check", "-k", "finite")
    assert status == 1
    assert "STALE Halves: lr_is_finite\n  it holds: remove it from 'expected_failures', " in printed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path = 'x'", "[tool.lr-resume-harness] has no key 'path': did you mean paths?"),
        (
            "paths = ['src']\nsubjects.Halfes.length = 3",
            "'Halfes' to speak of: did you mean Halves?",
        ),
        ("paths = ['scr']", "no subject, package or module is called 'scr'"),
        ("paths = ['src']\nchecks = ['lr_is_finit']", "did you mean lr_is_finite?"),
        ("subjects.StepLR.optimizer = 'AdamX'", "'AdamX' is not a word of this subject"),
        ("subjects.StepLR.declines = {lr_is_fine = 'x'}", "did you mean lr_is_finite?"),
        ("subjects.StepLR.expected-failures = {lr_is_fine = 'x'}", "did you mean lr_is_finite?"),
    ],
)
def test_a_mistake_in_it_is_a_sentence(user, tmp_path, text, message):
    (tmp_path / "pyproject.toml").write_text(f"[tool.lr-resume-harness]\n{text}\n")
    names = [] if "paths" in text else ["StepLR"]
    checks = [] if "checks" in text else ["--check", "lr_is_finite"]
    status, printed, errors = user("check", *names, *checks)
    assert (status, printed) == (2, "")
    assert message in errors
    assert len([line for line in errors.splitlines() if line.startswith("error: ")]) == 1
