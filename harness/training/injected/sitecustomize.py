"""Starts the recorder in every Python process of the command, then the user's sitecustomize."""

from __future__ import annotations

import importlib.util
import os
import sys
from importlib.machinery import PathFinder

HERE = os.path.dirname(os.path.abspath(__file__))
RECORDER = "_lr_resume_harness_recorder"


def start_recorder() -> None:
    """Load the recorder by its path, so that the user's ``sys.path`` stays as it was."""
    folder = os.environ.get("LR_RESUME_HARNESS_RUN")
    sys.path[:] = [path for path in sys.path if os.path.abspath(path) != HERE]
    if not folder:
        return
    spec = importlib.util.spec_from_file_location(RECORDER, os.path.join(HERE, "recorder.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[RECORDER] = module
    spec.loader.exec_module(module)
    module.start(folder)


def run_the_shadowed_one() -> None:
    """Run the user's own ``sitecustomize``, which this one hides."""
    spec = PathFinder.find_spec("sitecustomize", sys.path)
    if spec is None or spec.loader is None:
        return
    module = importlib.util.module_from_spec(spec)
    sys.modules["sitecustomize"] = module
    spec.loader.exec_module(module)


if __name__ == "sitecustomize":
    start_recorder()
    run_the_shadowed_one()
