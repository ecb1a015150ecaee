"""Schedulers that are right, and hostile to whatever else runs in the process."""

import os
import random
import subprocess
import sys
import tempfile
import warnings

import numpy
import torch
from torch.optim.lr_scheduler import ExponentialLR

from harness import Subject


class Hostile(ExponentialLR):
    """Does something bad when it is built, at every step, and when it is saved or loaded."""

    def __init__(self, optimizer, gamma=0.9, last_epoch=-1):
        super().__init__(optimizer, gamma, last_epoch)
        self.harm()

    def harm(self):
        raise NotImplementedError

    def step(self):
        self.harm()
        super().step()

    def state_dict(self):
        self.harm()
        return super().state_dict()

    def load_state_dict(self, state_dict):
        self.harm()
        super().load_state_dict(state_dict)


class Prints(Hostile):
    def harm(self):
        print("a line of a scheduler")
        print("one more {")


class PrintsBelowPython(Hostile):
    done = False

    def harm(self):
        os.write(1, b"written to the file descriptor\n")
        if not PrintsBelowPython.done:
            PrintsBelowPython.done = True
            subprocess.run([sys.executable, "-c", "print('printed by a child')"], check=True)


class Warns(Hostile):
    def harm(self):
        warnings.simplefilter("error")
        warnings.simplefilter("always")
        warnings.warn("a warning of a scheduler", stacklevel=1)


class Seeds(Hostile):
    def harm(self):
        random.seed(1)
        numpy.random.seed(1)
        torch.manual_seed(1)


class UsesUpRandomNumbers(Hostile):
    def harm(self):
        random.random()
        numpy.random.rand()
        torch.rand(1)


class ChangesDtype(Hostile):
    def harm(self):
        torch.set_default_dtype(torch.float16)


class ChangesDevice(Hostile):
    def harm(self):
        if hasattr(torch, "set_default_device"):
            torch.set_default_device("meta")


class ChangesFolder(Hostile):
    moved = False

    def harm(self):
        if not ChangesFolder.moved:
            ChangesFolder.moved = True
            with tempfile.TemporaryDirectory() as folder:  # it is gone, too
                os.chdir(folder)
        else:
            os.chdir("/")


class ChangesEnvironment(Hostile):
    def harm(self):
        os.environ.pop("PATH", None)
        os.environ["LEFT_BY_A_SUBJECT"] = "1"


class ChangesThreads(Hostile):
    def harm(self):
        torch.set_num_threads(3)
        torch.set_grad_enabled(False)


class Forks(Hostile):
    calls = 0

    def harm(self):
        Forks.calls += 1
        if Forks.calls % 100 == 1:  # a fork takes a while
            self.fork()

    def fork(self):
        os.fork()


class ForksAndExits(Forks):
    def fork(self):
        if os.fork() == 0:
            sys.exit(3)


class ExitsWhenBuilt(Hostile):
    def harm(self):
        sys.exit(0)


class ExitsAtAStep(ExponentialLR):
    def step(self):
        if self.last_epoch >= 3:
            sys.exit(0)
        super().step()


class ExitsWhenSaved(ExponentialLR):
    def state_dict(self):
        sys.exit(0)


class ExitsWhenLoaded(ExponentialLR):
    def load_state_dict(self, state_dict):
        sys.exit(0)


class ExitsWhenCopied(ExponentialLR):
    def __reduce_ex__(self, protocol):
        sys.exit(0)


class ExitsWhenAsked(ExponentialLR):
    def get_last_lr(self):
        sys.exit(0)


class ExitsWithLastEpoch(ExponentialLR):
    def __init__(self, optimizer, gamma, **last_epoch):
        if last_epoch:
            sys.exit(0)
        super().__init__(optimizer, gamma)


class ExitsOnOtherOptions(ExponentialLR):
    def __init__(self, optimizer, gamma, last_epoch=-1):
        if gamma != 0.9:
            sys.exit(0)
        super().__init__(optimizer, gamma, last_epoch)


SUBJECTS = {
    cls.__name__: Subject(cls.__name__, cls, options={"gamma": 0.9})
    for cls in list(globals().values())
    if isinstance(cls, type) and issubclass(cls, ExponentialLR)
    if cls not in (ExponentialLR, Hostile)
}
ALL = list(SUBJECTS.values())
