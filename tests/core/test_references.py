"""What a reference may look like, and what a subject may be called."""

import re
import sys

import pytest
from torch.optim.lr_scheduler import StepLR

from harness import Subject, check_scheduler, replay
from harness.core.errors import SubjectError
from harness.core.references import full_reference, import_attribute
from harness.subjects.installed import default_subjects
from harness.subjects.lookup import as_subject, find_subject, subject_called

CHECK = "resume_by_last_epoch"
TRACE = "step_size=3 gamma=0.5 train:3 save:a resume:a"
SCHEDULE = """
from torch.optim.lr_scheduler import StepLR

class MyLR(StepLR):
    def __init__(self, optimizer, last_epoch=-1):
        super().__init__(optimizer, 3, 0.5, last_epoch)

class Outer:
    class InnerLR(MyLR):
        pass
"""


@pytest.fixture
def files(monkeypatch, tmp_path):
    """Schedules in the current folder, in a folder below it, and in a package."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    for path in ("here_lr.py", "sub/below_lr.py", "pkg_lr/sub/inside_lr.py", "sub/json.py"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(SCHEDULE)
    for folder in ("pkg_lr", "pkg_lr/sub"):
        (tmp_path / folder / "__init__.py").write_text("")
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_a_dotted_name_is_a_reference():
    assert full_reference("torch.optim.lr_scheduler.StepLR") == "torch.optim.lr_scheduler:StepLR"
    assert full_reference("torch.optim.lr_scheduler:StepLR") == "torch.optim.lr_scheduler:StepLR"
    for name in ("StepLR", "torch", "torch.optim", "no_such_package.x", "", ".", "a b.c", "-"):
        assert full_reference(name) == ""
    subject = find_subject("torch.optim.lr_scheduler.StepLR")
    assert (subject.build, subject.reference) == (StepLR, "torch.optim.lr_scheduler:StepLR")
    with pytest.raises(SubjectError, match=r"'StpLR'.* StepLR\?"):
        find_subject("torch.optim.lr_scheduler.StpLR")


@pytest.mark.parametrize(
    ("name", "reference", "module"),
    [
        ("here_lr.py:MyLR", "here_lr:MyLR", "here_lr"),
        ("./here_lr.py:Outer.InnerLR", "here_lr:Outer.InnerLR", "here_lr"),
        ("sub/below_lr.py:MyLR", "sub/below_lr.py:MyLR", "below_lr"),
        ("pkg_lr/sub/inside_lr.py:MyLR", "pkg_lr.sub.inside_lr:MyLR", "pkg_lr.sub.inside_lr"),
        ("here_lr.Outer.InnerLR", "here_lr:Outer.InnerLR", "here_lr"),
    ],
)
def test_a_file_and_a_dotted_name_are_references(files, name, reference, module):
    subject = find_subject(name)
    assert subject.reference == reference
    assert subject.build.__module__ == module
    assert find_subject(reference).build is subject.build
    assert as_subject(name).build is subject_called(name).build is subject.build
    results = check_scheduler(name, checks=["resume_by_pickle"], max_examples=1)
    assert [result.verdict for result in results] == ["HOLDS"]
    assert replay(name, CHECK, "train:3 save:a resume:a").verdict == "BROKEN"


def test_a_reference_to_a_string_is_refused(files):
    files.joinpath("names_itself.py").write_text('NAME = "names_itself:NAME"')
    with pytest.raises(SubjectError, match="names_itself:NAME must be a Subject"):
        find_subject("names_itself:NAME")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none_lr.py:MyLR", "'none_lr'.*'none_lr:MyLR'"),
        ("sub/none_lr.py:MyLR", "sub/none_lr.py"),
        ("sub/json.py:MyLR", "json"),
        ("here_lr.py:NoLR", "'NoLR'"),
    ],
)
def test_a_file_that_cannot_be_imported_is_refused(files, name, message):
    with pytest.raises(SubjectError, match=message):
        import_attribute(name)


def test_the_command_line_takes_them(files, command):
    options = ("--check", CHECK, "--max-examples", 0)
    for name in ("here_lr.py:MyLR", "sub/below_lr.py:MyLR", "here_lr.MyLR"):
        status, printed, _ = command("check", name, *options)
        assert (status, "BROKEN MyLR: resume_by_last_epoch" in printed) == (1, True)
    status, printed, _ = command(
        "replay", "torch.optim.lr_scheduler.StepLR", CHECK, "step_size=3 train:3 save:a resume:a"
    )
    assert (status, printed.startswith("still broken\n")) == (1, True)


def test_every_name_that_list_shows_is_accepted(command):
    status, printed, _ = command("list")
    assert status == 0
    subjects = printed.partition("Subjects:\n")[2].partition("\n\nChecks")[0].splitlines()
    shown = [line.split()[:2] for line in subjects]
    assert len(shown) == len(default_subjects())
    for name, build in shown:
        assert subject_called(name).name == name
        assert callable(find_subject(build).build)
        assert Subject(name, StepLR).name == name


def test_installed_subjects_are_named_as_list_shows_them(installed_package, command):
    text = f"""{SCHEDULE}
from harness import Subject
SUBJECTS = [Subject("a's", MyLR), Subject("twice", MyLR)]
OTHERS = [Subject("twice", MyLR)]
made = lambda: Subject("made", MyLR)
"""
    points = {name: f"ships_named:{name}" for name in ("SUBJECTS", "OTHERS", "made")}
    installed_package("ships_named", {"subjects": points}, **{"__init__.py": text})
    for name, reference in (("a's", "ships_named:SUBJECTS.a's"), ("made", "")):
        assert subject_called(name).reference == reference
        status, printed, _ = command("check", name, "--check", CHECK, "--max-examples", 0)
        assert (status, f"BROKEN {name}: {CHECK}" in printed) == (1, True)
    with pytest.raises(
        SubjectError, match=r"ships_named:OTHERS\.twice, ships_named:SUBJECTS\.twice"
    ):
        subject_called("twice")


@pytest.mark.parametrize("name", ["", " ", "two words", "tab\t", "NUL\0", "esc\x1b", "\ud800", 5])
def test_a_name_with_spaces_or_control_characters_is_refused(name):
    with pytest.raises(SubjectError, match=re.escape(repr(name))):
        Subject(name, StepLR)


@pytest.mark.parametrize("reason", ["", "  ", None, True])
def test_declining_without_a_reason_is_refused(reason):
    with pytest.raises(SubjectError, match=f"'declines'.*'x'.*{reason!r}"):
        Subject("mine", StepLR, declines={"x": reason})
