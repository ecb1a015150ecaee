import functools
import os
import subprocess
import sys

import hypothesis
import less
import pytest
from fork_server import TIME_LIMIT, run_harness, run_script_in

from harness.cli import main as cli

# Timing on a busy machine says nothing about the code, so it fails no test.
hypothesis.settings.register_profile(
    "unhurried",
    deadline=None,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("unhurried")

# What the tests find broken is no failure of the job that they run in.
for name in [name for name in os.environ if name.startswith("GITHUB_")]:
    del os.environ[name]


@pytest.fixture
def all_is_tried(monkeypatch):
    """Checks try what those of a user try, and not less: see `less`."""
    for (module, name), value in less.ALL.items():
        monkeypatch.setattr(module, name, value)


@pytest.fixture(autouse=True)
def slow_tests_try_all(request):
    """A slow test is a proof, so it tries what a user's run does."""
    if request.node.get_closest_marker("slow"):
        request.getfixturevalue("all_is_tried")


@pytest.fixture
def command(monkeypatch, capfd, tmp_path):
    """Runs the command line in this process; returns status, output and errors.

    ``check`` without a ledger: what is known to be broken is broken here.
    """
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        if arguments[:1] == ("check",):
            arguments = ("check", "--no-ledger", *arguments[1:])
        monkeypatch.setattr(sys, "argv", ["harness", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        printed, errors = capfd.readouterr()
        return stop.value.code, printed, errors

    return run


@pytest.fixture
def harness_command(tmp_path):
    """Runs ``lr-resume-harness`` in an empty folder; returns the completed process."""
    return functools.partial(run_harness, folder=tmp_path)


@pytest.fixture
def run_script(tmp_path):
    """Runs the text of a script as ``python -I`` does, in an empty folder.

    With files that are ``beside`` it, it finds them, as with ``python``. ``forked=False`` starts
    Python, which takes longer.
    """

    def run(text, *, forked=True, beside=()):
        folder = tmp_path / "empty"
        folder.mkdir(exist_ok=True)
        for file in beside:
            (folder / file.name).write_text(file.read_text())
        (folder / "script.py").write_text(text)
        if forked:
            return run_script_in(folder, *([folder] if beside else []))
        return subprocess.run(
            [sys.executable, "script.py"], cwd=folder, capture_output=True, text=True,
            timeout=TIME_LIMIT, check=False,
        )  # fmt: skip

    return run


@pytest.fixture
def installed_package(monkeypatch, tmp_path):
    """Installs a package of these files with entry points; imported modules are forgotten."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)

    def install(name, points, **files):
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = []
        for group, values in points.items():
            lines.append(f"[lr_resume_harness.{group}]")
            lines += [f"{point} = {value}" for point, value in values.items()]
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
        for file, text in files.items():
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    yield install
    for name in set(sys.modules) - before:
        del sys.modules[name]
