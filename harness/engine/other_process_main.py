"""The code that another interpreter runs; it is sent as text and needs only torch there.

`serve` is a worker that lives as long as the run that started it. If the system can fork, it
forks a child for every request. So whatever one resume leaves behind in a module, a class or a
closure, the next does not see it.
"""

from __future__ import annotations

import functools
import gc
import io
import os
import pickle
import select
import signal
import sys
import time
import types
import warnings
from collections.abc import Callable
from typing import Any, TypedDict

import torch

from harness.core.operations import optimizer_step, perform, with_groups
from harness.core.run import Observation
from harness.core.training_loop import describe, observe, restore_parameters
from harness.core.types import Build, Checkpoint, NewOptimizer, OptimizerAndScheduler, Save, Step


class Request(TypedDict):
    """See `run_segment`."""

    data: bytes
    index: int
    epoch: int
    groups: int
    todo: str


class Reply(TypedDict):
    """What was seen, the checkpoints that were saved, and the exception that ended it, if any."""

    seen: list[Observation]
    saved: list[bytes]
    raised: str


def pack(checkpoint: Checkpoint) -> bytes:
    """A checkpoint as the bytes that ``torch.save`` writes."""
    file = io.BytesIO()
    torch.save(checkpoint, file)
    return file.getvalue()


def unpack(data: bytes) -> Checkpoint:
    """The checkpoint in the bytes that `pack` wrote, with objects of any class."""
    checkpoint: Checkpoint = torch.load(io.BytesIO(data), weights_only=False)
    return checkpoint


def run_segment(
    request: Request, new_optimizer: NewOptimizer, build: Build, step: Step,
    resume: Callable[[NewOptimizer, Checkpoint], OptimizerAndScheduler], save: Save,
) -> Reply:  # fmt: skip
    """Start, or resume from a checkpoint, then step and save; the reply has what was seen.

    A request has ``data`` (a checkpoint, packed, or nothing), the ``index`` and ``epoch`` of
    the next steps, how many ``groups`` had been added, and ``todo``: a letter for each step
    (see `harness.core.operations.BY_LETTER`), and ``w`` for each save.
    """
    reply: Reply = {"seen": [], "saved": [], "raised": ""}
    try:
        if request["data"]:
            checkpoint = unpack(request["data"])
            make = functools.partial(with_groups, new_optimizer, request["groups"])
            optimizer, scheduler = resume(make, checkpoint)
            restore_parameters(optimizer, checkpoint)
        else:
            optimizer = new_optimizer()
            scheduler = build(optimizer)
        reply["seen"].append(observe(optimizer, scheduler))
        index, epoch = request["index"], request["epoch"]
        for letter in request["todo"]:
            if letter == "w":
                reply["saved"].append(pack(save(optimizer, scheduler, epoch)))
            else:
                index, epoch = perform(letter, optimizer, scheduler, index, epoch, step)
            reply["seen"].append(observe(optimizer, scheduler))
    except (Exception, SystemExit) as error:
        reply["raised"] = describe(error)
    return reply


def define(text: str, known: dict[str, types.ModuleType]) -> types.ModuleType:
    """The module with the source `text`; each text is run only once."""
    if text not in known:
        module = types.ModuleType("other_process")
        exec(compile(text, "other_process.py", "exec"), vars(module))
        known[text] = module
    return known[text]


def register_homes(module: types.ModuleType) -> None:
    """Let pickle find what was pasted into `module` under the names of its home modules."""
    sys.modules["other_process"] = module
    for name, home in module.HOMES.items():
        getattr(module, name).__module__ = home
        parts = home.split(".")
        for i in range(1, len(parts)):
            package = ".".join(parts[:i])
            sys.modules.setdefault(package, types.ModuleType(package))
        sys.modules[home] = module


def run_pickled(module: types.ModuleType, data: bytes) -> bytes:
    """Run one request and return the reply, both pickled."""
    register_homes(module)
    try:
        return pickle.dumps(getattr(module, module.ENTRY)(pickle.loads(data)), 2)
    except Exception as error:
        return pickle.dumps({"failed": describe(error)}, 2)


def answer(module: types.ModuleType, data: bytes, seconds: float) -> bytes:
    """The reply to one request, run in a child process that is killed after `seconds`."""
    if not hasattr(os, "fork"):
        return run_pickled(module, data)
    source, sink = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(source)
            with open(sink, "wb") as file:
                file.write(run_pickled(module, data))
        finally:
            os._exit(0)  # run none of the worker's own cleanup
    os.close(sink)
    parts = []
    end = time.monotonic() + seconds
    late = False
    while not late:
        late = not select.select([source], [], [], max(0.0, end - time.monotonic()))[0]
        part = b"" if late else os.read(source, 1 << 16)
        if not part:
            break
        parts.append(part)
    os.close(source)
    if late:
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    if late:
        return pickle.dumps({"late": True}, 2)
    return b"".join(parts) or pickle.dumps({"failed": "the process died"}, 2)


def serve(channel: Any) -> None:
    """Answer requests until the channel is closed.

    It first receives the folders to import modules from (or None: keep its own), and sends the
    versions of torch and Python. A request is its number, the text of a module whose ``ENTRY``
    names its function, the pickled argument of that function, and a time limit in seconds.
    """
    folders = channel.receive()
    if folders is not None:
        sys.path[:] = folders
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)  # a fork copies only the thread that forks
    first = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.9)
    optimizer_step(first, 0)  # imports the rest of torch once, not in every child
    first.load_state_dict(unpack(pack(first.state_dict())))
    gc.collect()
    gc.freeze()  # else a collection in a child would copy all memory pages
    channel.send((str(torch.__version__), sys.version.split()[0]))
    known: dict[str, types.ModuleType] = {}
    for number, text, data, seconds in channel:
        try:
            reply = answer(define(text, known), data, seconds)
        except Exception as error:
            reply = pickle.dumps({"failed": describe(error)}, 2)
        channel.send((number, reply))
    os._exit(0)  # the run is over; some torch releases complain at a normal exit
