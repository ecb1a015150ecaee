"""Checks of a distributed checkpoint across the ranks of a gloo group.

Every rank is a process with all parameters, as under ``DistributedDataParallel``, and the run on
each must be the uninterrupted one. The number of ranks may change when training is resumed:
saved by one and resumed by two, by two and one, by two and two. A schedule that depends on the
number of ranks without any resume is UNKNOWN.
"""

from __future__ import annotations

import datetime
import os
import pathlib
import pickle
import select
import shutil
import sys
import tempfile
import threading
import time
from typing import Any

import torch

from harness.decorators import resume_check
from harness.loop import describe, same
from harness.transports import load_distributed, save_distributed

__all__ = ["agreed", "be_rank", "end_with", "gather", "on_ranks", "start_rank"]


def end_with(parent: int) -> None:
    """End this process when the other end of the pipe `parent` is closed, by whatever cause."""
    os.read(parent, 1)
    os._exit(0)


def be_rank(rank: int, ranks: int, folder: str, segment: Any, request: Any) -> dict[str, Any]:
    """Join a gloo group of `ranks`, which meets in `folder`, and do a request."""
    loopback = {"linux": "lo", "darwin": "lo0"}.get(sys.platform)
    if loopback:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)
    try:
        torch.distributed.init_process_group(
            "gloo",
            init_method=pathlib.Path(folder, "store").as_uri(),
            rank=rank,
            world_size=ranks,
            timeout=datetime.timedelta(days=1),  # who waits for them ends them sooner
        )
        reply: dict[str, Any] = segment(request)
    except Exception as error:
        return {"failed": describe(error)}
    return reply


def start_rank(
    rank: int, ranks: int, folder: str, segment: Any, request: Any, life: tuple[int, int]
) -> tuple[int, int]:
    """Fork a rank; its process, and the pipe that its reply comes through.

    It lives until the second end of the pipe `life` is closed here, so that no rank sees
    another go.
    """
    source, sink = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(life[1])
            threading.Thread(target=end_with, args=(life[0],), daemon=True).start()
            reply = pickle.dumps(be_rank(rank, ranks, folder, segment, request), 2)
            with open(sink, "wb") as file:
                file.write(reply)
            threading.Event().wait()
        finally:
            os._exit(1)  # nothing of this process's own is run twice
    os.close(sink)
    return pid, source


def gather(sources: list[int]) -> list[dict[str, Any]]:
    """What comes through pipes, one for each rank, in the order of the ranks.

    When one has raised, the others may wait for it in vain: they have two seconds to
    end, then they are left out. Raises `RuntimeError` for a rank that dies.
    """
    replies: dict[int, dict[str, Any]] = {}
    end = None
    while len(replies) < len(sources):
        waiting = [source for source in sources if source not in replies]
        rest = None if end is None else max(0.0, end - time.monotonic())
        ready = select.select(waiting, [], [], rest)[0]
        if not ready:
            break
        for source in ready:
            with open(source, "rb", closefd=False) as file:
                data = file.read()
            reply = replies[source] = pickle.loads(data) if data else {"failed": "it died"}
            if "failed" in reply:
                raise RuntimeError(f"rank {sources.index(source)}: {reply['failed']}")
            if reply["raised"] and end is None:
                end = time.monotonic() + 2.0
    return [replies[source] for source in sources if source in replies]


def on_ranks(segment: Any, ranks: int, request: Any) -> dict[str, Any]:
    """Have a request done on `ranks` forks of this process, in one gloo group; one reply.

    See `harness.elsewhere.run_segment`. Raises `RuntimeError` for a rank that dies.
    """
    folder = tempfile.mkdtemp()
    life = os.pipe()
    started: list[tuple[int, int]] = []
    try:
        started.extend(
            start_rank(rank, ranks, folder, segment, request, life) for rank in range(ranks)
        )
        return agreed(gather([source for _, source in started]))
    finally:
        for pipe in (*life, *(source for _, source in started)):
            os.close(pipe)
        for pid, _ in started:
            os.waitpid(pid, 0)
        shutil.rmtree(folder, ignore_errors=True)


def agreed(replies: list[dict[str, Any]]) -> dict[str, Any]:
    """One reply of all ranks', up to the first step that one raises at.

    Where they saw different values, each is there with its rank. What is saved is the first's.
    """
    count = min(len(reply["seen"]) for reply in replies)
    last = next(reply for reply in replies if len(reply["seen"]) == count)
    seen = []
    for sides in zip(*(reply["seen"][:count] for reply in replies)):  # noqa: B905 (Python 3.8)
        one = dict(sides[0])
        for key in one:
            values = [side.get(key, "nothing") for side in sides]
            if not all(same(values[0], value) for value in values):
                one[key] = ", ".join(f"{value} on rank {i}" for i, value in enumerate(values))
        seen.append(one)
    return {"seen": seen, "saved": replies[0]["saved"], "raised": last["raised"]}


@resume_check(
    default=False, save=save_distributed, needs=("distributed_checkpoint", "gloo"), from_epoch=1,
    without=("add_group",), elsewhere="resume", ranks=2,
)  # fmt: skip
def resume_on_two_ranks(new_optimizer: Any, build: Any, checkpoint: Any) -> Any:
    """Load on two gloo ranks what torch.distributed.checkpoint saved in one process."""
    optimizer = new_optimizer()
    scheduler = build(optimizer)
    load_distributed(optimizer, scheduler, checkpoint)
    return optimizer, scheduler


@resume_check(
    default=False, save=save_distributed, needs=("distributed_checkpoint", "gloo"), from_epoch=1,
    without=("add_group",), elsewhere="save", ranks=2,
)  # fmt: skip
def resume_from_two_ranks(new_optimizer: Any, build: Any, checkpoint: Any) -> Any:
    """Load in one process what torch.distributed.checkpoint saved across two gloo ranks."""
    optimizer = new_optimizer()
    scheduler = build(optimizer)
    load_distributed(optimizer, scheduler, checkpoint)
    return optimizer, scheduler


@resume_check(
    default=False, save=save_distributed, needs=("distributed_checkpoint", "gloo"), from_epoch=1,
    without=("add_group",), elsewhere="all", ranks=2,
)  # fmt: skip
def resume_across_two_ranks(new_optimizer: Any, build: Any, checkpoint: Any) -> Any:
    """Load on two gloo ranks what torch.distributed.checkpoint saved across two."""
    optimizer = new_optimizer()
    scheduler = build(optimizer)
    load_distributed(optimizer, scheduler, checkpoint)
    return optimizer, scheduler
