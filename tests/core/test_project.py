"""The configuration of a project, and what it refuses."""

from pathlib import Path

import pytest

from harness.core.errors import ProjectError
from harness.core.project import NO_PROJECT, SubjectSettings, read_project


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Reads a configuration from a folder below the one that it is in."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()

    def read(text, head="[tool.lr-resume-harness]\n"):
        (tmp_path / "pyproject.toml").write_text(head + text)
        return read_project(tmp_path / "sub")

    return read


def test_everything_that_can_be_said(project, tmp_path):
    (tmp_path / "src").mkdir()
    found = project(
        """
        paths = ["src", "my_package", "lib/mine.py:MyLR"]
        exclude = "old*"
        checks = ["resume_from_file"]
        ledger = ["known.toml"]
        jobs = 2
        max-examples = 0
        seed = -3
        time_limit = 2.5
        all-checks = true
        [tool.lr-resume-harness.subjects."a.b:C"]
        options = {warmup = 3}
        length = 20
        optimizer = "AdamW()"
        step = "metric"
        declines = {resume_by_pickle = "a lambda"}
        expected-failures = {resume_by_last_epoch = "later"}
        contract = "saved"
        constant = true
        """
    )
    assert found.file == tmp_path / "pyproject.toml"
    assert found.paths == ("src/", "my_package", "lib/mine.py:MyLR")
    assert (found.exclude, found.checks) == (("old*",), ("resume_from_file",))
    assert found.ledgers == (tmp_path / "known.toml",)
    numbers = (found.jobs, found.max_examples, found.seed, found.time_limit, found.all_checks)
    assert numbers == (2, 0, -3, 2.5, True)
    settings = SubjectSettings(
        {"warmup": 3}, 20, "AdamW()", "metric", {"resume_by_pickle": "a lambda"},
        {"resume_by_last_epoch": "later"}, "saved", True,
    )  # fmt: skip
    assert found.settings_of("C", "a.b:C") == settings
    assert found.settings_of("C") == SubjectSettings()


def test_what_is_said_later_comes_first():
    some = SubjectSettings({"a": 1, "b": 1}, 3, "SGD()", declines={"x": "1"})
    both = some.plus(SubjectSettings({"b": 2}, step="metric", declines={"y": "2"}))
    assert both == SubjectSettings({"a": 1, "b": 2}, 3, "SGD()", "metric", {"x": "1", "y": "2"}, {})


@pytest.mark.parametrize("head", ["[tool.other]\n", "# lr-resume-harness.\n[x]\n", "[[broken"])
def test_files_that_do_not_speak_of_it_are_not_read(project, head):
    assert project("paths = 3\n" if "[" in head else "", head) == NO_PROJECT


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path = 'x'", r"\[tool.lr-resume-harness\] has no key 'path': did you mean paths\?"),
        ("nonsense = 1", "has no key 'nonsense': the keys are paths, exclude, checks, ledger"),
        ("paths = 3", r"paths in .* must be a string or a list of strings \(got 3\)"),
        ("paths = [1]", r"must be a string or a list of strings \(got \[1\]\)"),
        ("jobs = -1", r"jobs in .* must be a whole number, 0 or more \(got -1\)"),
        ("jobs = true", "must be a whole number"),
        ("max-examples = 'many'", r"max-examples in .* must be a whole number, 0 or more"),
        ("seed = 1.5", "seed in .* must be a whole number"),
        ("time-limit = 0", "time-limit in .* must be a number of seconds, more than 0"),
        ("all-checks = 'yes'", "must be true or false"),
        ("subjects = 3", "subjects in .* must be a table"),
        ("subjects = {A = 3}", r"\[tool.lr-resume-harness.subjects.A\] must be a table"),
        ("subjects.A.lenght = 3", r"\.A\] has no key 'lenght': did you mean length\?"),
        ("subjects.'m:A'.length = 0", r'subjects."m:A"\] must be a whole number of epochs'),
        ("subjects.A.optimizer = ''", r'must be a text such as "AdamW\(groups=2\)"'),
        ("subjects.A.step = 3", "step in .* must be"),
        ("subjects.A.declines = {x = ''}", "declines in .* must be a table of reasons, such as"),
        ("subjects.A.expected-failures = ['x']", "expected-failures in .* must be a table of reas"),
        ("subjects.A.contract = 'old'", "must be saved, new or raises"),
        ("subjects.A.options = 'a=1'", "options in .* must be a table"),
        ("paths = ['x'", "this is not valid TOML"),
    ],
)
def test_a_mistake_is_a_sentence(project, text, message):
    with pytest.raises(ProjectError, match=message) as error:
        project(text)
    assert str(error.value).startswith("pyproject.toml: ")
    assert "\n" not in str(error.value)


def test_its_documentation_is_a_configuration(project):
    import textwrap

    from harness.core import project as module

    example = module.__doc__.split("::\n", 1)[1].split("\n\nThe command")[0]
    found = project(textwrap.dedent(example), head="")
    assert found.paths == ("my_package",)
    assert found.settings_of("Warmup").options == {"warmup": 3, "total": 10}
    assert found.ledgers == (Path.cwd() / "known.toml",)
