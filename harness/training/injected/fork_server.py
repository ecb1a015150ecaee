"""Runs a Python command many times, each in a fork of this process, which has imported torch.

Reads one request a line from standard input, ``{"run", "arguments", "output", "folder"}``, and
answers each with ``{"pid"}`` when the fork runs and ``{"status", "cpu"}`` when it has ended.
"""

from __future__ import annotations

import atexit
import builtins
import gc
import importlib
import json
import os
import random
import runpy
import sys
import threading
import types
import weakref
from typing import Any, TextIO


def main() -> None:
    """Answer requests until standard input ends."""
    requests, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(2, 1)
    with open(sys.argv[1], encoding="utf-8") as file:
        _import_all(json.load(file))
    for finalizer in list(weakref.finalize._registry):  # type: ignore[attr-defined]
        finalizer.atexit = False  # of modules, for which a fork must not clean up
    gc.collect()
    gc.freeze()  # so that forks share the memory of what was imported
    _say(answers, {"threads": threading.active_count()})
    for line in requests:
        request = json.loads(line)
        pid = os.fork()
        if not pid:
            requests.close()
            answers.close()
            _become(request)
        _say(answers, {"pid": pid})
        _, status, used = os.wait4(pid, 0)
        code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        _say(answers, {"status": code, "cpu": used.ru_utime + used.ru_stime})
    os._exit(0)


def _say(answers: TextIO, values: dict[str, object]) -> None:
    answers.write(json.dumps(values) + "\n")
    answers.flush()


def _import_all(names: list[str]) -> None:
    """Import what the recorded run had imported; the script itself imports what fails here."""
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:
            print(f"not preloaded: {name} ({error})", file=sys.stderr)


def _become(request: dict[str, Any]) -> None:
    """Be a new process of the command, as far as a script can see; does not return."""
    os.setsid()
    os.chdir(request["folder"])
    output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    os.environ["LR_RESUME_HARNESS_RUN"] = request["run"]
    with open(os.path.join(request["run"], "group"), "w", encoding="utf-8") as file:
        file.write(f"{os.getpid()}\n")
    sys.modules["_lr_resume_harness_recorder"].begin(request["run"])
    random.seed()
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()
    main_module = types.ModuleType("__main__")
    main_module.__dict__["__builtins__"] = builtins
    sys.modules["__main__"] = main_module
    status = _status(request["arguments"], main_module)
    threading._shutdown()  # type: ignore[attr-defined]  # as a process does: waits for threads
    atexit._run_exitfuncs()
    main_module.__dict__.clear()  # closes the files that the script left open
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    os._exit(status)  # taking apart the modules of torch would cost a second


def _status(arguments: list[str], main_module: types.ModuleType) -> int:
    """Run the command; its exit status."""
    try:
        _run(arguments, main_module)
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            return (error.code or 0) & 0xFF
        print(error.code, file=sys.stderr)
        return 1
    except BaseException as error:
        frames = error.__traceback__
        while frames is not None and frames.tb_frame.f_code.co_filename == __file__:
            frames = frames.tb_next
        sys.excepthook(type(error), error.with_traceback(frames), frames)
        return 130 if isinstance(error, KeyboardInterrupt) else 1
    return 0


def _run(arguments: list[str], main_module: types.ModuleType) -> None:
    first = arguments[0]
    if first == "-c":
        sys.argv = ["-c", *arguments[2:]]
        sys.path[0] = ""
        exec(compile(arguments[1], "<string>", "exec"), main_module.__dict__)
        return
    if first == "-m":
        sys.argv = arguments[1:]
        sys.path[0] = os.getcwd()
        runpy._run_module_as_main(arguments[1])  # type: ignore[attr-defined]
        return
    sys.argv = list(arguments)
    sys.path[0] = os.path.dirname(os.path.realpath(first))
    main_module.__dict__.update(__file__=first, __cached__=None)
    with open(first, "rb") as file:
        code = compile(file.read(), first, "exec")
    exec(code, main_module.__dict__)


if __name__ == "__main__":
    main()
