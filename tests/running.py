"""Runs scripts in this process, and commands in a process that is forked from a ready one."""

import atexit
import functools
import json
import os
import subprocess
import sys
import traceback
import types
import warnings
from unittest import mock

from conftest import INHERITED, ROOT, heed_ctrl_c

from harness import resume_check
from harness.core.training_loop import new_sgd


@resume_check
def resume_from_the_start(new_optimizer, build):
    """Start again."""
    optimizer = new_optimizer()
    return optimizer, build(optimizer)


def run_in_process(text):
    """The status and the output of a script, without a new process."""
    new_sgd()  # imports the rest of torch, which registers functions with atexit
    printed = []
    module = types.ModuleType("a_script")
    module.print = lambda *words: printed.append(" ".join(map(str, words)))
    sys.modules["a_script"] = module  # where pickle looks for its classes
    with mock.patch("atexit.register"), warnings.catch_warnings():
        try:
            exec(compile(text, "a_script.py", "exec"), vars(module))
        except (Exception, SystemExit):
            traceback.print_exc()
        finally:
            del sys.modules["a_script"]  # and nothing else: torch can't be imported twice
    return getattr(module, "exit_status", 125), printed


# Importing torch and the harness takes longer than most commands.
SERVER = """
import gc, importlib.util, json, os, runpy, signal, sys, traceback
import torch
for name in ("torch._dynamo", "matplotlib.figure", "matplotlib.backends.backend_svg"):
    if importlib.util.find_spec(name.partition(".")[0]) and importlib.util.find_spec(name):
        importlib.import_module(name)
import harness.checks.registry, harness.cli.main, harness.cli.show, harness.engine.ordering
import harness.report.html, harness.subjects.lookup
gc.freeze()
for line in sys.stdin:
    child = os.fork()
    if not child:
        break
    print(os.waitpid(child, 0)[1], flush=True)
else:
    sys.exit()
signal.alarm(120)
job = json.loads(line)
os.chdir(job["folder"])
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
for number, name in ((1, job["stdout"]), (2, job["stderr"])):
    reader, writer = os.pipe()
    os.close(reader)
    if name:
        writer = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(writer, number)
sys.argv = ["harness", *job["arguments"]]
status = 1
try:
    runpy.run_module("harness", run_name="__main__")
except SystemExit as stop:
    status = stop.code
except BaseException:
    traceback.print_exc()
try:
    sys.stdout.flush()
    sys.stderr.flush()
finally:
    os._exit(status)
"""
CLOSED = ""
"""In place of a file: a pipe that nobody reads."""


@functools.cache
def _server():
    """A process that has imported torch and the harness, and forks one for each command."""
    places = os.pathsep.join(map(str, [ROOT, ROOT / "tests", *INHERITED]))
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER], env={**os.environ, "PYTHONPATH": places},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=heed_ctrl_c,
    )  # fmt: skip

    def end():
        process.stdin.close()
        process.wait()
        process.stdout.close()

    atexit.register(end)
    return process


def run_harness(*arguments, folder, stdout=None, stderr=None):
    """``python -m harness`` in a folder, in a forked process; output goes to files, or `CLOSED`."""
    files = [folder / ".stdout", folder / ".stderr"]
    given = [
        str(file) if path is None else path
        for file, path in zip(files, (stdout, stderr), strict=True)
    ]
    job = {"folder": str(folder), "arguments": list(map(str, arguments)),
           "stdout": given[0], "stderr": given[1]}  # fmt: skip
    server = _server()
    print(json.dumps(job), file=server.stdin, flush=True)
    status = os.waitstatus_to_exitcode(int(server.stdout.readline()))
    output = [file.read_text() if file.exists() else "" for file in files]
    for file in files:
        file.unlink(missing_ok=True)
    return subprocess.CompletedProcess(["harness", *arguments], status, *output)
