"""Correct schedulers that keep or compute their position in unusual ways.

Each is harder to look at than those of `lr_schedules.correct`: it has slots, builds caches when
they are needed, runs a generator, keeps its position in the optimizer, or takes a callable that
remembers. No check may fail on them. They are meant to be checked (as `lr_schedules.controls`),
not to be used for training.
"""

from __future__ import annotations

import collections
import copy
import enum
import functools
import math
import threading
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import numpy
from torch.optim import Optimizer

from lr_schedules.correct import ClosedForm, Halving, Plateau


class Slots:
    """Has slots and no ``__dict__``; decays by a quarter with each epoch."""

    __slots__ = ("_base", "epoch", "optimizer")

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        self.optimizer = optimizer
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        self._base = tuple(group["initial_lr"] for group in optimizer.param_groups)
        self.epoch = last_epoch + 1
        self.write()

    def write(self) -> None:
        for group, base in zip(self.optimizer.param_groups, self._base, strict=True):
            group["lr"] = base * 0.75**self.epoch

    def step(self) -> None:
        self.epoch += 1
        self.write()

    def get_last_lr(self) -> list[float]:
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch = state["epoch"]
        self.write()


class LazyTable(Halving):
    """Computes the table of its factors when it first needs it, and again after a load."""

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1, *, total: int = 6) -> None:
        self.total = total
        super().__init__(optimizer, last_epoch)

    @functools.cached_property
    def table(self) -> tuple[float, ...]:
        """The factor of each epoch."""
        return tuple(1 - epoch / (self.total + 1) for epoch in range(self.total + 1))

    def factor(self) -> float:
        return self.table[min(self.epoch, self.total)]

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "total": self.total}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.total = state["total"]
        vars(self).pop("table", None)
        super().load_state_dict(state)


class Memoised(Halving):
    """Computes each factor once for all schedulers of its class, and remembers it for its decay."""

    factors: ClassVar[dict[tuple[float, int], float]] = {}

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1, *, decay: float = 0.75) -> None:
        self.decay = decay
        super().__init__(optimizer, last_epoch)

    def factor(self) -> float:
        key = self.decay, self.epoch
        if key not in self.factors:
            self.factors[key] = self.decay**self.epoch
        return self.factors[key]

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "decay": self.decay}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.decay = state["decay"]
        super().load_state_dict(state)


def waves() -> Iterator[float]:
    """Factors that fall within four epochs and start again a little lower."""
    height = 1.0
    while True:
        for part in range(4):
            yield height * (1 - part / 8)
        height *= 0.875


class Generated(Halving):
    """Takes its factors from a generator, which a load starts again and winds forward.

    A generator can be neither copied nor pickled, so a copy winds one of its own.
    """

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        self.wind(last_epoch + 1)
        super().__init__(optimizer, last_epoch)

    def wind(self, epoch: int) -> None:
        """Start the generator, and take the factors up to this epoch."""
        self.waves = waves()
        for _ in range(epoch + 1):
            self.now = next(self.waves)

    def factor(self) -> float:
        return self.now

    def step(self) -> None:
        self.now = next(self.waves)
        super().step()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.wind(state["epoch"])
        super().load_state_dict(state)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "waves"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.wind(self.epoch)


class Locked(Halving):
    """Steps under a lock, which a copy replaces by one of its own."""

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        self.lock = threading.Lock()
        super().__init__(optimizer, last_epoch)

    def step(self) -> None:
        with self.lock:
            super().step()

    def __getstate__(self) -> tuple[Any, ...]:
        return self.optimizer, self.base, self.epoch

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.optimizer, self.base, self.epoch = state
        self.lock = threading.Lock()


class ThroughProperties(Halving):
    """Keeps its epoch as text in a dict; a property reads it and another computes the factor."""

    @property
    def epoch(self) -> int:
        """The number of scheduler steps."""
        return int(self._record["epoch"])

    @epoch.setter
    def epoch(self, value: int) -> None:
        self._record = {"epoch": str(value)}

    @property
    def height(self) -> float:
        """The factor by which the initial LR is multiplied."""
        return 1 / (1 + self.epoch)

    def factor(self) -> float:
        return self.height


class InTheGroups(Halving):
    """Keeps its position in the optimizer's first group, and nothing in its own state."""

    KIND = "in-the-groups"

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        self.optimizer = optimizer
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        if last_epoch >= 0 or "epoch" not in optimizer.param_groups[0]:
            optimizer.param_groups[0]["epoch"] = last_epoch + 1
        self.write()

    def write(self) -> None:
        factor = 0.5 ** (self.optimizer.param_groups[0]["epoch"] // 3)
        for group in self.optimizer.param_groups:
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor

    def step(self) -> None:
        self.optimizer.param_groups[0]["epoch"] += 1
        self.write()

    def state_dict(self) -> dict[str, Any]:
        return {"kind": self.KIND}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["kind"] != self.KIND:
            raise ValueError(f"a state of kind {state['kind']!r} can't be loaded")


class Child(ClosedForm):
    """The inverse of the square root from a start that is saved."""

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1, *, start: int = 3) -> None:
        self.start = start
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[Any]:
        shift = (1 + self.last_epoch / self.start) ** -0.5
        return [base * shift for base in self.base_lrs]


class Grandchild(Child):
    """Adds a floor, and a version that its state holds under another name than its attribute."""

    def __init__(
        self, optimizer: Optimizer, last_epoch: int = -1, *, start: int = 3, floor: float = 0.25
    ) -> None:
        self.floor, self._version = floor, 2
        super().__init__(optimizer, last_epoch, start=start)

    def get_lr(self) -> list[Any]:
        pairs = zip(super().get_lr(), self.base_lrs, strict=True)
        return [max(rate, base * self.floor) for rate, base in pairs]

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = super().state_dict()
        return {**state, "format": state.pop("_version")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        rest = {name: value for name, value in state.items() if name != "format"}
        super().load_state_dict({**rest, "_version": state["format"]})


class Window(Plateau):
    """Compares the mean of the last three metrics, which it keeps in a deque."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.recent: collections.deque[float] = collections.deque(maxlen=3)
        super().__init__(optimizer)

    def step(self, metric: float) -> None:  # type: ignore[override]
        self.recent.append(float(metric))
        super().step(math.fsum(self.recent) / len(self.recent))

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "recent": list(self.recent)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        recent = collections.deque(state["recent"], maxlen=3)
        super().load_state_dict({**state, "recent": recent})


class Numbers(Halving):
    """Counts and computes with scalars of numpy, and saves and writes plain numbers."""

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        self.height = numpy.float64(1.0)
        for _ in range(last_epoch + 1):
            self.height *= 0.875
        super().__init__(optimizer, last_epoch)
        self.epoch = numpy.int64(self.epoch)  # type: ignore[assignment]

    def factor(self) -> float:
        return float(self.height)

    def step(self) -> None:
        self.height *= 0.875
        super().step()

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": int(self.epoch), "height": float(self.height)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.height = numpy.float64(state["height"])
        super().load_state_dict({"epoch": numpy.int64(state["epoch"])})


class Phase(enum.Enum):
    """Where a `Phases` is; the value is the number of epochs that the phase lasts."""

    WARM_UP = 2
    HIGH = 4
    FALL = 3
    LOW = math.inf


class Phases(Halving):
    """Goes through the phases of an enum, and saves the name of the present one."""

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        self.phase, self.since = Phase.WARM_UP, 0
        for _ in range(last_epoch + 1):
            self.advance()
        super().__init__(optimizer, last_epoch)

    def advance(self) -> None:
        self.since += 1
        if self.since == self.phase.value:
            phases = list(Phase)
            self.phase, self.since = phases[phases.index(self.phase) + 1], 0

    def factor(self) -> float:
        if self.phase is Phase.WARM_UP:
            return (1 + self.since) / 4
        if self.phase is Phase.FALL:
            return 0.75 - self.since / 8
        return 1.0 if self.phase is Phase.HIGH else 0.25

    def step(self) -> None:
        self.advance()
        super().step()

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "phase": self.phase.name, "since": self.since}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.phase, self.since = Phase[state["phase"]], state["since"]
        super().load_state_dict(state)


class Cycles(Halving):
    """Decays in cycles, the first of `first` epochs, each `times` as long as the one before."""

    def __init__(
        self, optimizer: Optimizer, last_epoch: int = -1, *, first: int = 50, times: int = 2
    ) -> None:
        self.times = times
        self.length, self.at = first, 0
        for _ in range(last_epoch + 1):
            self.advance()
        super().__init__(optimizer, last_epoch)

    def advance(self) -> None:
        self.at += 1
        if self.at == self.length:
            self.length, self.at = self.length * self.times, 0

    def factor(self) -> float:
        return 1 - self.at / self.length

    def step(self) -> None:
        self.advance()
        super().step()

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "length": self.length, "at": self.at}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.length, self.at = state["length"], state["at"]
        super().load_state_dict(state)


class Caller(Halving):
    """Multiplies by an object given to it, called once for each step; saves what is in it."""

    def __init__(
        self, optimizer: Optimizer, last_epoch: int = -1, *, fall: Callable[[float], float]
    ) -> None:
        self.fall = fall
        self.now = 1.0
        for epoch in range(last_epoch + 1):
            self.now = fall(epoch)
        super().__init__(optimizer, last_epoch)

    def factor(self) -> float:
        return self.now

    def step(self) -> None:
        self.now = self.fall(self.epoch)
        super().step()

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "now": self.now, "fall": copy.deepcopy(vars(self.fall))}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.now = state["now"]
        vars(self.fall).update(copy.deepcopy(state["fall"]))
        super().load_state_dict(state)


class FirstMoment(Halving):
    """Lowers the momentum, or the first beta of an optimizer that has betas, as the LR falls."""

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        for group in optimizer.param_groups:
            own = group["betas"][0] if "betas" in group else group["momentum"]
            group.setdefault("initial_moment", own)
        self.moments = [group["initial_moment"] for group in optimizer.param_groups]
        super().__init__(optimizer, last_epoch)

    def write(self) -> None:
        super().write()
        for group, own in zip(self.optimizer.param_groups, self.moments, strict=True):
            moment = own * (0.5 + self.factor() / 2)
            if "betas" in group:
                group["betas"] = (moment, *group["betas"][1:])
            else:
                group["momentum"] = moment
