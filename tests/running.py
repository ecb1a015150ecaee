"""Runs scripts in this process."""

import sys
import traceback
import types
import warnings
from unittest import mock

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
