"""Whatever ends a run, and when: a file is there whole, as it was before, or not at all."""

import ast
import contextlib
import importlib
import json
import os
import random
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from click.testing import CliRunner
from fork_server import fork_harness, heed_ctrl_c, status_of
from helpers import ROOT

from harness.checks.registry import as_check
from harness.cli import main as cli
from harness.core import output
from harness.core.ledger import read_ledger

STEP = ("StepLR", "--check", "resume_by_last_epoch", "--max-examples", "0", "--no-ledger")
TRACE = ("StepLR", "resume_by_last_epoch", "step_size=3 gamma=0.5 train:3 save:a resume:a")
LEDGER = """\
# Ours.
[[failure]]
subject = "StepLR"
check = "resume_by_last_epoch"
torch = "<1"
trace = "step_size=3 gamma=0.5 train:3 save:a resume:a"
shows = "lr"
kind = "bug"
tracked = "like pytorch/pytorch#102261"
reason = "The constructor makes a step, which decays once more."
"""
WRITERS = {
    "check --json": ("out", "check", *STEP, "--json", "out"),
    "check --html": ("out", "check", *STEP, "--html", "out"),
    "check --scripts": ("d/StepLR-resume_by_last_epoch.py", "check", *STEP, "--scripts", "d"),
    "check --plots": ("d/StepLR-resume_by_last_epoch.svg", "check", *STEP, "--plots", "d"),
    "script": ("out", "script", *TRACE, "-o", "out"),
    "plot": ("out.svg", "plot", "StepLR", "-o", "out.svg"),
    "merge --json": ("out", "merge", "result.json", "--json", "out"),
    "matrix --markdown": ("out", "matrix", "result.json", "--markdown", "out"),
    "matrix --html": ("out", "matrix", "result.json", "--html", "out"),
    "selftest --json": ("out", "selftest", "--quick", "--jobs", "1", "--json", "out",
                        "--faults", "few_faults:RIGHT", "--controls", "few_faults:CONTROLS"),
    "ledger update --write": (
        "ledger.toml", "ledger", "update", "--ledger", "ledger.toml", "--write", "result.json",
    ),
}  # fmt: skip
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGKILL]
STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}


class HalfWritten:
    """A file whose writer gets a signal when half is written."""

    def __init__(self, file, number):
        self.file, self.number = file, number

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()

    def write(self, content):
        self.file.write(content[: len(content) // 2])
        self.file.flush()
        os.kill(os.getpid(), self.number)


def killed_while_it_writes(arguments, number):
    """The exit status of the command line, in a fork of this process."""
    child = os.fork()
    if not child:
        opened = os.fdopen
        output.os = type("os", (), {**vars(os), "fdopen": staticmethod(
            lambda *given: HalfWritten(opened(*given), number))})  # fmt: skip
        status = 99
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            sys.argv = ["harness", *arguments]
            cli.main()
        except SystemExit as stop:
            status = stop.code
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """What `merge` and its like read; and all is imported, before it is forked."""
    file = tmp_path_factory.mktemp("result") / "result.json"
    arguments = ["check", *STEP, "--shard", "1/1", "--json", str(file)]
    with contextlib.suppress(ImportError):
        importlib.import_module("matplotlib.backends.backend_svg")
    done = CliRunner().invoke(cli.cli, arguments, standalone_mode=False)
    assert done.return_value == 1
    return file.read_bytes()


@pytest.mark.parametrize(
    ("command", "number"),
    [
        pytest.param(
            command,
            number,
            id=f"{command}-{number.name}",
            marks=[] if number == signal.SIGTERM or command == "script" else [pytest.mark.slow],
        )
        for command in WRITERS
        for number in SIGNALS
    ],
)
def test_half_a_file_takes_no_name(command, number, tmp_path, monkeypatch, result):
    name, *arguments = WRITERS[command]
    if name.endswith(".svg"):
        pytest.importorskip("matplotlib.backends.backend_svg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "harness.engine.selftest.IN_THIS_PROCESS", [as_check("lr_is_never_negative")]
    )
    (tmp_path / "d").mkdir()
    before = {name: b"as it was\n", "result.json": result, "ledger.toml": LEDGER.encode()}
    for file, content in before.items():
        (tmp_path / file).write_bytes(content)
    assert killed_while_it_writes(arguments, number) == STATUS[number]
    files = {
        str(path.relative_to(tmp_path)): path.read_bytes()
        for path in tmp_path.rglob("*")
        if path.is_file() and (number != signal.SIGKILL or not path.name.startswith("."))
    }
    assert files == before


ENDS = """
import os

def build(optimizer, last_epoch=-1):
    try:
        {text}
    except BaseException:
        pass  # this subject swallows what should end it: that is what is tested
    while True:
        pass
"""
TEXT = """
def build(optimizer, last_epoch=-1):
    exec('import os; os.kill(os.getpid(), {number:d}); sum(range(100))')
"""
"""After which Python would end by SIGINT, whatever the status."""


CHECK = ("check", "ends:build", "--time-limit", "1000", "--jobs")


def ended(folder, module, text):
    """How Python ends, with the check of a schedule that interrupts its own process."""
    (folder / module).write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "lr_resume_harness", *CHECK, "0"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [folder, *sys.path]))},
        capture_output=True, text=True, check=False, timeout=600, preexec_fn=heed_ctrl_c,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    return done.returncode


@pytest.mark.parametrize("number", SIGNALS[:2], ids=lambda number: number.name)
def test_a_worker_that_swallows_everything_does_not_delay_an_interrupt(
    number, tmp_path, monkeypatch
):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "ends.py").write_text(ENDS.format(text=f"os.kill(os.getppid(), {number:d})"))
    with (tmp_path / "errors").open("w") as file:
        output = file.fileno()
        pid = fork_harness(*CHECK, 1, folder=tmp_path, stdout=output, stderr=output)
    assert status_of(pid) == STATUS[number]
    assert "Traceback" not in (tmp_path / "errors").read_text()


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_the_status_of_an_interrupt_is_that_of_the_command(number, tmp_path):
    assert ended(tmp_path, "ends.py", TEXT.format(number=number)) == STATUS[number]


@pytest.mark.parametrize("number", SIGNALS[:2], ids=lambda number: number.name)
def test_a_signal_ends_the_import_of_torch_at_once(number, tmp_path):
    text = ENDS.format(text=f"os.kill(os.getpid(), {number:d}); sum(range(100))")
    assert ended(tmp_path, "torch.py", text + "build(None)\n") == -number


def read(path):
    """Read a file by its kind, which fails if a part is missing."""
    text = path.read_text()
    if path.suffix == ".json":
        json.loads(text)
    elif path.suffix == ".py":
        ast.parse(text)
        assert text.endswith("sys.exit(main())\n") or "__main__" in text
    elif path.suffix == ".svg":
        ElementTree.fromstring(text)
    elif path.suffix == ".toml":
        read_ledger([path])
    else:
        assert text.rstrip().endswith("</html>")


def left_in(folder):
    """The processes that still work in this folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if Path(os.readlink(process / "cwd")) == folder:
                found.append(process.name)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
@pytest.mark.parametrize("seed", range(20))
def test_a_run_that_is_killed_leaves_whole_files_and_no_process(number, seed, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "lr_resume_harness", "check", "StepLR", "MultiStepLR", "CyclicLR",
         "--no-ledger", "--json", "x.json", "--html", "x.html", "--scripts", "d", "--plots", "d"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True, preexec_fn=heed_ctrl_c,
    )  # fmt: skip
    time.sleep(random.Random(seed).uniform(0.2, 12))
    ended = process.poll()
    process.send_signal(number)
    _, errors = process.communicate(timeout=600)
    assert process.returncode in ([STATUS[number], -number] if ended is None else [1])
    assert "Traceback" not in errors
    for path in tmp_path.rglob("*"):
        if path.is_file() and not path.name.startswith("."):
            read(path)
    if (tmp_path / "x.json").exists():
        data = json.loads((tmp_path / "x.json").read_text())
        assert not data["complete"] or len(data["results"]) == data["planned"]
    for _ in range(600):
        if not left_in(tmp_path):
            return
        time.sleep(0.1)
    assert left_in(tmp_path) == []
