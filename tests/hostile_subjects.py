"""Schedulers that end, stop or change the process that checks them, at their third step."""

import asyncio
import contextlib
import ctypes
import os
import resource
import signal
import sys
import threading
import time
from pathlib import Path

import torch
from time_is_up import ring_soon
from torch.optim.lr_scheduler import ExponentialLR


class Hostile(ExponentialLR):
    """Halves the LR, and at the third step of a run does what subclasses say."""

    def __init__(self, optimizer, last_epoch=-1):
        super().__init__(optimizer, gamma=0.5, last_epoch=last_epoch)

    def step(self, *args):
        super().step(*args)
        if self.last_epoch == 3:
            self.attack()

    def attack(self):
        """Do nothing: this class itself is a good one."""


Good = Hostile


class Also(Hostile):
    """Another good one."""


class ExitsWith0(Hostile):
    def attack(self):
        os._exit(0)


class ExitsWith7(Hostile):
    def attack(self):
        os._exit(7)


class Segfaults(Hostile):
    def attack(self):
        ctypes.string_at(0)


class KillsItself(Hostile):
    def attack(self):
        os.kill(os.getpid(), signal.SIGKILL)


class RunsOutOfMemory(Hostile):
    def attack(self):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + 2**27
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
        self.filled = [bytearray(2**25) for _ in range(64)]


class Raises(Hostile):
    error = BaseException

    def attack(self):
        raise self.error


class ExitsAGenerator(Raises):
    error = GeneratorExit


class IsCancelled(Raises):
    error = asyncio.CancelledError


class Interrupts(Raises):
    error = KeyboardInterrupt


class Unprintable(Exception):
    def __str__(self):
        raise ValueError


class RaisesUnprintable(Raises):
    error = Unprintable


class Recurses(Hostile):
    def attack(self):
        sys.setrecursionlimit(60)


class Loops(Hostile):
    def attack(self):
        Path("loops").touch()
        while True:
            with contextlib.suppress(BaseException):  # no limit in the process itself can stop it
                time.sleep(1000)


class HangsInC(Hostile):
    def attack(self):
        ring_soon()
        ctypes.CDLL(None).sleep(1000)


class LeavesAThread(Hostile):
    def attack(self):
        threading.Thread(target=time.sleep, args=(1000,)).start()


class Forks(Hostile):
    def attack(self):
        if not os.fork():
            time.sleep(0.01)


class PatchesTorch(Hostile):
    def attack(self):
        torch.optim.Optimizer.load_state_dict = lambda self, state: None


class ReplacesStdout(Hostile):
    def attack(self):
        sys.stdout = sys.stderr = None


class DeletesModules(Hostile):
    def attack(self):
        for name in [name for name in sys.modules if name.startswith(("torch", "harness"))]:
            del sys.modules[name]


class WritesALot(Hostile):
    def attack(self):
        for _ in range(100):
            os.write(1, b"x" * 10**6)


class ClosesEverything(Hostile):
    def attack(self):
        os.closerange(0, 1000)


class ExitsAtAPickle(Hostile):
    def __reduce_ex__(self, protocol):
        os._exit(3)
