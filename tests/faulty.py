"""Schedulers with one defect each, and correct ones, for the tests."""

import functools
import math
import time

from harness import Subject


class Counter:
    """A correct scheduler that is no LRScheduler: halves each group's LR every 3 steps."""

    def __init__(self, optimizer, last_epoch=-1):
        self.optimizer = optimizer
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        self.base = [group["initial_lr"] for group in optimizer.param_groups]
        self.count = last_epoch + 1
        self.write()

    def write(self):
        for group, rate in zip(self.optimizer.param_groups, self.rates(), strict=True):
            group["lr"] = rate

    def rates(self):
        return [base * 0.5 ** (self.count // 3) for base in self.base]

    def step(self):
        self.count += 1
        self.write()

    def get_last_lr(self):
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]


class Falls(Counter):
    """Another LR at every epoch, written when the state is loaded; correct unless `wrong`."""

    def __init__(self, optimizer, last_epoch=-1, *, wrong=None, scale=1.0):
        self.wrong = wrong
        self.scale = scale
        super().__init__(optimizer, last_epoch)

    def rates(self):
        return [base * self.scale * (1 - 0.01 * self.count) for base in self.base]

    def load_state_dict(self, state):
        self.count = state["count"]
        if self.wrong == "raises" and self.count:
            raise ValueError(f"{self.count} epochs of 1e-3, -0.5 in group2 at 0x7f3a")
        self.count += {"earlier": -1, "later": 1}.get(self.wrong, 0)
        if self.wrong == "begins":
            self.count = 0
        if self.wrong == "other":
            self.base = [base * 0.7 for base in self.base]
        if self.wrong == "nan":
            self.base = [base * math.nan for base in self.base]
        if self.wrong == "first":
            self.base = [self.base[0]] * 2
        self.write()


class Forgets(Counter):
    """Does not save its position."""

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


class LateFault(Counter):
    """Loads one step too few, from the eighth on, where it was resumed before."""

    resumed = 0

    def state_dict(self):
        return {"count": self.count, "resumed": self.resumed}

    def load_state_dict(self, state):
        self.resumed = state["resumed"] + 1
        self.count = state["count"] - (self.resumed > 1 and state["count"] >= 8)


class NotOneToOne(Counter):
    """Takes the number of optimizer steps for its own when it is loaded."""

    def __init__(self, optimizer, last_epoch=-1):
        super().__init__(optimizer, last_epoch)
        self.seen = 0
        step = optimizer.step

        @functools.wraps(step)
        def counted(*arguments):
            self.seen += 1
            return step(*arguments)

        optimizer.step = counted

    def state_dict(self):
        return {"count": self.seen}

    def load_state_dict(self, state):
        self.count = self.seen = state["count"]


class RaisesOnLoad(Counter):
    """Can't load what it saved after the fourth step."""

    def load_state_dict(self, state):
        if state["count"] > 4:
            raise RuntimeError("lost the plot")
        super().load_state_dict(state)


class ExitsOnLoad(Counter):
    """Ends the process rather than load."""

    def load_state_dict(self, state):
        raise SystemExit("bye")


class Drains(Counter):
    """Takes the count out of the dict that it loads."""

    def load_state_dict(self, state):
        self.count = state.pop("count")


class Aliases(Counter):
    """Hands out a live list as its state."""

    def __init__(self, optimizer, last_epoch=-1):
        self.history = []
        super().__init__(optimizer, last_epoch)

    def write(self):
        super().write()
        self.history.append(self.count)

    def state_dict(self):
        return {"count": self.count, "history": self.history}

    def load_state_dict(self, state):
        self.count = state["count"]
        self.history = list(state["history"])


class SavingSteps(Counter):
    """Counts a save as a step."""

    def state_dict(self):
        self.count += 1
        return {"count": self.count - 1}


class SecondGroup(Counter):
    """Loses the base LR of the second group when it is loaded."""

    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.base[1] = self.base[0]


class StaleReport(Counter):
    """Reports the LR before the last step."""

    last = None

    def step(self):
        self.last = super().get_last_lr()
        super().step()

    def get_last_lr(self):
        return self.last or super().get_last_lr()


class Random(Counter):
    """Depends on the clock, not on the steps."""

    def rates(self):
        return [base * (1 + time.perf_counter_ns() % 1000) for base in self.base]


class Hangs(Counter):
    """Hangs at its third step, and swallows what it can."""

    def step(self):
        super().step()
        while self.count > 2:
            try:
                time.sleep(0.01)
            except Exception:
                self.count = 3


class NoStateDict:
    """Only steps."""

    def __init__(self, optimizer):
        self.optimizer = optimizer
        self.count = 0

    def step(self):
        self.count += 1
        for group in self.optimizer.param_groups:
            group["lr"] *= 0.5


def take_count(scheduler):
    """A state for `NoStateDict`."""
    return {"count": scheduler.count}


def give_count(scheduler, state):
    """The inverse of `take_count`."""
    scheduler.count = state["count"]


class Every(Counter):
    """Halves the LR every so many steps, and saves only the count."""

    def __init__(self, optimizer, last_epoch=-1, *, every=3):
        self.every = every
        super().__init__(optimizer, last_epoch)

    def rates(self):
        return [base * 0.5 ** (self.count // self.every) for base in self.base]


COUNTER = Subject("Counter", Counter)
WITH_FUNCTIONS = Subject(
    "WithFunctions", NoStateDict, state_dict=take_count, load_state_dict=give_count
)


def decay(optimizer, last_epoch=-1, *, every=3):
    """A factory with an option."""
    scheduler = Counter(optimizer, last_epoch)
    scheduler.rates = lambda: [base * 0.5 ** (scheduler.count // every) for base in scheduler.base]
    return scheduler


def returns_none(optimizer, last_epoch=-1):
    """No scheduler at all."""


def raises(optimizer, last_epoch=-1):
    """A build that fails."""
    raise ValueError("no such luck")


halve = lambda optimizer, last_epoch=-1: Counter(optimizer, last_epoch)  # noqa: E731
UNKNOWN_DECLINE = Subject("x", Counter, declines={"resume_by_last_epoc": "a slip"})
SUBJECTS = (COUNTER, WITH_FUNCTIONS)
NOT_ONE = 3


def decay_named(optimizer, last_epoch=-1, *, name=""):
    """A factory with an option that is text."""
    return Counter(optimizer, last_epoch)
