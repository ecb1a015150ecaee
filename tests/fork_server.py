"""Runs programs in processes that are forked from one that has imported torch.

Importing torch takes longer than most programs.
"""

import atexit
import functools
import io
import json
import os
import signal
import subprocess
import sys
import traceback
from pathlib import Path

from harness.cli.main import main

TESTS = Path(__file__).parent
INHERITED = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
PLACES = os.pathsep.join(map(str, [TESTS.parent, TESTS, *INHERITED]))
"""The PYTHONPATH of a process that finds the harness and the modules of the tests."""

SERVER = """
import atexit, gc, importlib, importlib.util, json, os, runpy, signal, sys, traceback
for name in sys.argv[1:]:
    if importlib.util.find_spec(name.partition(".")[0]) and importlib.util.find_spec(name):
        importlib.import_module(name)
gc.freeze()
for line in sys.stdin:
    child = os.fork()
    if not child:
        break
    print(os.waitpid(child, 0)[1], flush=True)
else:
    sys.exit()
job = json.loads(line)
signal.alarm(job["time_limit"])
os.environ.update(job["environment"])
os.chdir(job["folder"])
for number, name in enumerate((os.devnull, job["stdout"], job["stderr"])):
    reader, end = os.pipe()
    os.close(reader)
    if name:
        end = os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    os.dup2(end, number)
sys.argv = [job["program"], *job["arguments"]]
sys.path[:0] = job["places"]
run = runpy.run_path if job["program"].endswith(".py") else runpy.run_module
status = 1
try:
    run(job["program"], run_name="__main__")
    status = 0
except SystemExit as stop:
    if stop.code is None or isinstance(stop.code, int):
        status = stop.code or 0
    else:
        print(stop.code, file=sys.stderr)
except BaseException:
    traceback.print_exc()
atexit._run_exitfuncs()
try:
    sys.stdout.flush()
    sys.stderr.flush()
finally:
    os._exit(status)  # to take torch down, as Python does at its end, would last longest
"""
TIME_LIMIT = 600
"""Seconds after which a program is killed: a long time even on a busy machine."""
CLOSED = ""
"""In place of a file: a pipe that nobody reads."""

TORCH = ("torch", "torch._dynamo")
"""What is imported for a script; optimizers import the second at their first step."""
HARNESS = (
    *TORCH, "matplotlib.figure", "matplotlib.backends.backend_svg", "harness.checks.registry",
    "harness.cli.main", "harness.cli.show", "harness.engine.ordering", "harness.report.html",
    "harness.subjects.lookup", "less",
)  # fmt: skip


def heed_ctrl_c():
    """For a child to be interrupted: a shell starts what runs in the background with it ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@functools.cache
def _server(modules, isolated):
    """A process that has imported these modules, and forks one for each program."""
    inherited = {name: v for name, v in os.environ.items() if not name.startswith("PYTEST_")}
    process = subprocess.Popen(
        [sys.executable, *(["-I"] if isolated else []), "-c", SERVER, *modules],
        env={**inherited, "PYTHONPATH": PLACES},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=heed_ctrl_c,
    )  # fmt: skip

    def end():
        process.stdin.close()
        process.wait()
        process.stdout.close()

    atexit.register(end)
    return process


def _run(
    server, program, arguments, folder, *, stdout=None, stderr=None, places=(), environment=None
):  # fmt: skip
    """Run a program; output goes to files, or `CLOSED`, and is in the result if none is given."""
    files = [folder / ".stdout", folder / ".stderr"]
    given = zip(files, (stdout, stderr), strict=True)
    out, err = (str(file) if path is None else path for file, path in given)
    job = {
        "program": program, "arguments": list(map(str, arguments)), "folder": str(folder),
        "environment": environment or {}, "places": list(map(str, places)),
        "stdout": out, "stderr": err, "time_limit": TIME_LIMIT,
    }  # fmt: skip
    print(json.dumps(job), file=server.stdin, flush=True)
    status = os.waitstatus_to_exitcode(int(server.stdout.readline()))
    output = [file.read_text() if file.exists() else "" for file in files]
    for file in files:
        file.unlink(missing_ok=True)
    return subprocess.CompletedProcess([program, *arguments], status, *output)


def run_harness(*arguments, folder, stdout=None, stderr=None):
    """``lr-resume-harness`` in a folder, which tries less: see `less`."""
    return _run(
        _server(HARNESS, False),
        "lr_resume_harness",
        arguments,
        folder,
        stdout=stdout,
        stderr=stderr,
    )


def fork_harness(*arguments, folder, stdout, stderr):
    """Start ``lr-resume-harness`` in a fork of this process, which writes to two descriptors.

    Returns its process ID.
    """
    pid = os.fork()
    if pid:
        return pid
    status = 70
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.chdir(folder)
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)
        sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False))
        sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), line_buffering=True)
        sys.argv = ["harness", *map(str, arguments)]
        main()
    except SystemExit as stop:
        status = stop.code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


def status_of(pid):
    """The exit status of a process that was forked, when it has ended."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def run_script_in(folder, *places):
    """``python -I script.py`` in a folder, where modules are also found in `places`."""
    return _run(_server(TORCH, True), "script.py", (), folder, places=places)


def run_python(*arguments, folder, environment):
    """``python FILE`` or ``python -m MODULE ARGUMENT ...`` in a folder, which finds the harness."""
    if arguments[0] == "-m":
        arguments = arguments[1:]
    program, *rest = arguments
    return _run(_server(TORCH, False), program, rest, folder, environment=environment)
