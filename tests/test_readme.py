"""The README: every block and every command in it is run, or checked for what it names."""

import configparser
import importlib
import os
import pydoc
import re
import shlex
import sys
import tomllib

import pytest
import torch
from fork_server import run_python
from helpers import ROOT
from packaging.requirements import Requirement
from torch.optim import lr_scheduler

from harness.cli import main as cli
from harness.core.ledger import version_of
from lr_resume_harness.help import HELP

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
TOX = (ROOT / "tox.ini").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SHOWN_ON = "2.13.0"
"""The torch that all outputs are of."""

KINDS = {"", "console", "python", "toml", "diff"}
"""``console`` is run and compared; without a kind are commands that are not run here."""

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")
PLACEHOLDER = re.compile(r"\b[A-Z]{3,}\b|\.\.\.|my_package")
HERE = version_of(torch.__version__) == version_of(SHOWN_ON)
BROKEN = ("\nBROKEN ", "The bug is there")


def blocks(text):
    """The kind and the text of each block."""
    return BLOCK.findall(text)


SECTIONS = {part.partition("\n")[0]: part for part in re.split(r"^## ", TEXT, flags=re.MULTILINE)}
RUN = [title for title, part in SECTIONS.items() if "console" in dict(blocks(part))]
SPANS = [" ".join(span.split()) for span in SPAN.findall(BLOCK.sub("", TEXT))]
PROGRAMS = re.compile(r"([A-Z_]+=\S+ )*(lr-resume-harness|python|pip|tox) ")


def commands():
    """Those that stand in the prose, or in a block of commands."""
    lines = [
        line
        for kind, text in blocks(TEXT)
        for line in text.replace("\\\n", " ").splitlines()
        if not kind
    ]
    found = [*lines, *(span for span in SPANS if PROGRAMS.match(span))]
    return [part.strip() for line in found for part in line.split("&&")]


def typed(text):
    """Each command of a console, with what it prints."""
    first, *rest = re.split(r"^\$ ", text, flags=re.MULTILINE)
    assert not first, "a console begins with a command"
    return [tuple(part.split("\n", 1)) for part in rest]


# ------------------------------------------------------------------------------ how it is run


class Reader:
    """Who types what the README shows, in an empty folder."""

    def __init__(self, folder, monkeypatch, capfd):
        self.folder, self.monkeypatch, self.capfd = folder, monkeypatch, capfd
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "path", list(sys.path))
        monkeypatch.setattr(sys, "dont_write_bytecode", True)  # a file is mended within a second
        monkeypatch.setattr("harness.subjects.adapt.BUILD_TIME_LIMIT", 600.0)

    def takes_over(self, kind, text):
        """What the README shows of a file: all of it by name, or what is mended."""
        if kind == "diff":
            lines = text.splitlines(keepends=True)
            old = "".join(line[1:] for line in lines if line[0] in " -")
            new = "".join(line[1:] for line in lines if line[0] in " +")
            [path] = [p for p in self.folder.glob("*.py") if p.read_text().count(old) == 1]
            path.write_text(path.read_text().replace(old, new))
            return
        named = re.match(r"# ([a-z_]+\.(?:py|toml))\n", text)
        assert named, f"the first line must name the file:\n{text}"
        if not hasattr(lr_scheduler, "LRScheduler"):  # torch before 2.0
            text = text.replace("import LRScheduler", "import _LRScheduler as LRScheduler")
        path = self.folder / named[1]
        path.write_text(text)
        if path.suffix == ".py":
            compile(text, path, "exec")

    def types(self, command):
        """Exit status and standard output of a command."""
        words = shlex.split(command)
        if words[0] == "lr-resume-harness":
            return self._harness(words[1:])
        if words[:3] == ["python", "-m", "pytest"] or (self.folder / words[1]).is_file():
            return self._python(words[1:])
        pytest.fail(f"the README has a command that this test can't run: {command}")

    def _harness(self, words):
        if words[0] == "check" and "--help" not in words:
            words = [*words, "--time-limit", "600"]  # the machine may be busy
        for name in [path.stem for path in self.folder.glob("*.py")]:
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        self.monkeypatch.setattr(sys, "argv", ["harness", *words])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        printed, errors = self.capfd.readouterr()
        assert "error:" not in errors
        return stop.value.code, printed

    def _python(self, words):
        environment = {
            "COLUMNS": "80",
            "PYTEST_ADDOPTS": "-p lr_resume_harness.pytest_plugin -p no:randomly "
            "--lr-time-limit 600",
        }
        done = run_python(*words, folder=self.folder, environment=environment)
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout


@pytest.fixture
def reader(tmp_path, monkeypatch, capfd, all_is_tried):
    # the `python` of the README's commands is the one that runs this
    monkeypatch.setenv("PATH", os.path.dirname(sys.executable), prepend=os.pathsep)
    reader = Reader(tmp_path, monkeypatch, capfd)
    yield reader
    for name in [path.stem for path in tmp_path.glob("*.py")]:
        sys.modules.pop(name, None)


def plain(text):
    """Without what differs between machines: the build of torch, and times."""
    text = re.sub(r"torch \d[^ :)\n]*", "torch X", text)
    text = re.sub(r"\d+\.\d+ ?s\b( \(\d+:\d\d:\d\d\))?", "T s", text)
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())


def pattern(shown):
    """Matches what is shown, with any lines for a line of ``...``, and anything for one inside."""
    parts = []
    for line in plain(shown).splitlines():
        if line == "...":
            parts.append(r"(?:.*\n)*?")
        else:
            parts.append(".*".join(map(re.escape, line.split("..."))) + r"\n")
    return re.compile("".join(parts))


def compare(command, shown, status, printed):
    """Compare with what is shown; on another torch, of which none is shown, far less."""
    expected = 1 if any(said in f"\n{shown}" for said in BROKEN) else 0
    if HERE:
        assert status == expected, printed
        assert pattern(shown).fullmatch(plain(printed)), f"$ {command}\n{printed}"
    else:
        assert status in (expected, 1), printed  # older ones have bugs of their own
        assert bool(printed) == bool(shown)


# ------------------------------------------------------------------------- blocks that are run


def test_every_block_is_of_a_known_kind():
    assert {kind for kind, _ in blocks(TEXT)} <= KINDS
    assert TEXT.count("```") == 2 * len(blocks(TEXT))


@pytest.mark.parametrize("title", RUN)
def test_what_a_section_shows_is_what_happens(title, reader):
    for kind, text in blocks(SECTIONS[title]):
        if kind == "console":
            for command, shown in typed(text):
                compare(command, shown, *reader.types(command))
        elif kind:
            reader.takes_over(kind, text)


@pytest.mark.slow
@pytest.mark.skipif(not HERE, reason=f"an older torch has bugs of its own; shown is {SHOWN_ON}")
def test_the_schedule_that_was_mended_is_green(reader):
    for kind, text in blocks(SECTIONS["Tutorial: a schedule from a blog post"]):
        if kind in ("python", "diff"):
            reader.takes_over(kind, text)
    status, printed = reader.types("lr-resume-harness check annealing")
    assert (status, "21 checks: 21 HOLDS, 0 BROKEN" in printed) == (0, True)


def test_a_wrong_output_is_noticed():
    shown = "torch 2.13.0+cpu: 3 of 4 ...\n...\nlast, 0.5 s\n"
    right = pattern(shown)
    assert right.fullmatch(plain("torch 2.15.0: 3 of 4 things\nlast, 12.25 s\n"))
    assert right.fullmatch(plain("torch 2.13.0: 3 of 4 .\n\nmore\nlast, 0.0 s\n"))
    assert not right.fullmatch(plain("torch 2.13.0: 2 of 4 things\nlast, 0.5 s\n"))
    assert not right.fullmatch(plain("torch 2.13.0: 3 of 4 things\nlast, 0.5 s\nand more\n"))


# ------------------------------------------------------------------- commands in the prose

WHOLE = [c for c in dict.fromkeys(commands()) if not PLACEHOLDER.search(c)]
QUICK = [
    c for c in WHOLE
    if c.startswith(("lr-resume-harness list", "lr-resume-harness ledger"))
    or (c.startswith("lr-resume-harness") and c.endswith("--help"))
]  # fmt: skip
"""Those that are run; of others is checked that they name what there is."""


@pytest.mark.parametrize("command", QUICK)
def test_a_quick_command_of_the_prose_runs(command, reader):
    for part in SECTIONS.values():
        for kind, text in blocks(part):
            if kind == "toml" and "# pyproject.toml" not in text:
                reader.takes_over(kind, text)
    status, printed = reader.types(command)
    assert (status, bool(printed)) == (0, True)


@pytest.mark.parametrize("command", dict.fromkeys(commands()))
def test_a_command_names_what_there_is(command, tmp_path, monkeypatch):
    (tmp_path / "lr_schedules").mkdir()
    monkeypatch.chdir(tmp_path)  # the folder after --scripts is made as soon as it is read
    names_what_there_is(command)


def names_what_there_is(command):
    words = shlex.split(command)
    while "=" in words[0]:
        assert f"{{env:{words.pop(0).partition('=')[0]}:" in TOX
    if words[0] in ("lr-resume-harness", "pip", "tox"):
        words[:0] = ["python", "-m"]
    assert words[0] == "python"
    if words[1] == "-m":
        assert words[2] in NAMES, f"say in this test what {command!r} names"
        NAMES[words[2]](words[3:])
    else:
        assert (ROOT / words[1]).is_file()


def names_of_harness(words):
    """Parse them as the command line does, but run nothing."""
    command, context = cli.cli, None
    while hasattr(command, "commands"):
        assert words, "a group does nothing"
        context = command.make_context("harness", words[:1], context)
        name, *words = words
        command = command.commands[name]
    if words != ["--help"]:
        command.make_context(name, words, context)


def names_of_pip(words):
    assert words.pop(0) == "install"
    for word in words:
        extra = re.fullmatch(r"\.(?:\[(\w+)\])?", word)
        if extra:
            assert extra[1] is None or extra[1] in PROJECT["optional-dependencies"]
        else:
            assert Requirement(word).name in ("torch", "tox")
            assert word in ("tox", f"torch=={SHOWN_ON}")


def names_of_tox(words):
    config = configparser.ConfigParser(interpolation=None)
    config.read_string(TOX)
    labels = dict(re.findall(r"^(\w+) = (.*)$", config["tox"]["labels"], re.MULTILINE))
    envs = {s.removeprefix("testenv:").partition("{")[0] for s in config.sections()}
    envs |= set(labels["full"].split(", "))
    assert words[:1] in ([], ["run"])
    for option, value in zip(words[1::2], words[2::2], strict=True):
        known = {"-e": envs, "-m": set(labels)}[option]
        assert set(value.split(",")) <= known


def names_of_pytest(words):
    assert words == ["--help"]


def names_of_pydoc(words):
    [name] = words
    assert len(pydoc.getdoc(importlib.import_module(name))) > 500


NAMES = {
    "lr-resume-harness": names_of_harness,
    "pip": names_of_pip,
    "tox": names_of_tox,
    "pydoc": names_of_pydoc,
    "pytest": names_of_pytest,
}
"""What says of each program whether there is what its arguments name."""


@pytest.mark.parametrize(
    "wrong",
    ["lr-resume-harness check --sweeps 3", "lr-resume-harness look", "python -m tox run -e torch9",
     "python -m pip install '.[plot]'", "python -m unittest", "python scripts/none.py"],
)  # fmt: skip
def test_a_command_that_names_what_there_is_not_is_noticed(wrong):
    with pytest.raises((AssertionError, KeyError, cli.click.ClickException)):
        names_what_there_is(wrong)


# ----------------------------------------------------------------------- what else it names


def test_the_test_command_is_where_our_gate_looks_for_it():
    [(kind, text), *_] = blocks(SECTIONS["Test it"])
    assert (kind, text) == ("", "python -m pip install tox && python -m tox\n")


def test_links_lead_somewhere():
    anchors = {"#" + title.lower().replace(",", "").replace(" ", "-") for title in SECTIONS}
    for target in re.findall(r"\]\(([^)]+)\)", TEXT):
        assert target in anchors or (ROOT / target).is_file(), target


def test_files_and_options_that_are_named_are_there():
    shown = set(re.findall(r"^# (\w+\.\w+)$", TEXT, re.MULTILINE)) | {"tox.ini"}
    folders = [ROOT, *(ROOT / name for name in ("harness", "scripts", "tests"))]
    for span in SPANS:
        if re.fullmatch(r"[\w/]+\.(py|toml|md|ini)", span) and span not in shown:
            assert any((folder / span).is_file() for folder in folders), span
    options = {
        name
        for command in cli.cli.commands.values()
        for parameter in command.params
        for name in parameter.opts
    }
    options |= {f"--lr-{name.replace('_', '-')}" for name in HELP} | {"--lr-"}
    assert {span.split()[0] for span in SPANS if span.startswith("--")} <= options


def test_the_settings_of_uv_are_those_of_tox():
    named = {span.partition("=")[0] for span in SPANS if re.match(r"(UV|PIP)_", span)}
    assert named == set(re.findall(r"\b(?:UV|PIP)_[A-Z_]+", TOX)) - {"UV_PYTHON_DOWNLOADS"}


def test_the_map_is_a_part_of_the_whole():
    whole = (ROOT / "lr_schedules/torch_versions.md").read_text().splitlines()
    rows = [line for line in SECTIONS["Several versions of torch"].splitlines() if line[:1] == "|"]
    assert len(rows) > 4
    assert set(rows) <= set(whole)


@pytest.mark.skipif(not hasattr(torch, "float8_e5m2"), reason="a fault needs float8")
def test_the_numbers_of_the_selftest_are_right():
    from lr_schedules.controls import CONTROLS
    from lr_schedules.faults import FAULTS

    text = " ".join(TEXT.split())
    assert f"{len(FAULTS)} planted faults must be caught" in text
    assert f"may fail on any of {len(CONTROLS)} correct schedulers" in text
