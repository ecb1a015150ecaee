"""Schedulers that are correct by construction, each short and of a different kind.

Most write the groups' LR when they are built, stepped and loaded, using only their
own state and ``initial_lr``, so they can be resumed in every way. They are meant to
be checked (as `lr_schedules.controls`), not to be used for training.
"""

from __future__ import annotations

import copy
import functools
import random
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.optim import Optimizer

from lr_schedules.linear_annealing import LRScheduler


class Halving:
    """Halves each group's LR every 3 epochs; saves a counter, and is not an LRScheduler."""

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        self.optimizer = optimizer
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        self.base = [group["initial_lr"] for group in optimizer.param_groups]
        self.epoch = last_epoch + 1
        self.write()

    def factor(self) -> float:
        return 0.5 ** (self.epoch // 3)

    def rates(self) -> list[Any]:
        return [base * self.factor() for base in self.base]

    def write(self) -> None:
        for group, rate in zip(self.optimizer.param_groups, self.rates(), strict=True):
            group["lr"] = rate

    def step(self) -> None:
        self.epoch += 1
        self.write()

    def get_last_lr(self) -> list[Any]:
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch = state["epoch"]
        self.write()


class ClosedForm(LRScheduler):
    """The inverse of the square root, in closed form, on torch's own base class."""

    def get_lr(self) -> list[Any]:
        return [base * (1 + self.last_epoch) ** -0.5 for base in self.base_lrs]

    def state_dict(self) -> dict[str, Any]:
        # torch 2.4 to 2.9 saves the groups' own tensors (pytorch/pytorch#163103)
        state: dict[str, Any] = copy.deepcopy(super().state_dict())
        return state


class PerGroup(Halving):
    """Decays each group by its own factor, from a list that is saved."""

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        self.decays = [0.5, 0.75, 0.875][: len(optimizer.param_groups)]
        super().__init__(optimizer, last_epoch)

    def rates(self) -> list[Any]:
        pairs = zip(self.base, self.decays, strict=True)
        return [base * decay**self.epoch for base, decay in pairs]

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "base": list(self.base), "decays": list(self.decays)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.base = list(state["base"])
        self.decays = list(state["decays"])
        super().load_state_dict(state)


class Cooling:
    """A callable with its own state: each call cools it."""

    def __init__(self) -> None:
        self.heat = 1.0

    def __call__(self) -> float:
        self.heat *= 0.75
        return self.heat


class FromCallable(Halving):
    """Takes its factor from a callable that is called once per step and whose state is saved."""

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        self.cooling = Cooling()
        for _ in range(last_epoch + 1):
            self.cooling()
        super().__init__(optimizer, last_epoch)

    def factor(self) -> float:
        return self.cooling.heat

    def step(self) -> None:
        self.cooling()
        super().step()

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "cooling": dict(vars(self.cooling))}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        vars(self.cooling).update(state["cooling"])
        super().load_state_dict(state)


class Plateau(Halving):
    """Halves the LR after two bad metrics, then cools down; it depends only on the metric."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.best = float("inf")
        self.bad = self.cooldown = self.halvings = 0
        super().__init__(optimizer)

    def factor(self) -> float:
        return 0.5**self.halvings

    def step(self, metric: float) -> None:  # type: ignore[override]
        metric = float(metric)  # a tensor may change later
        better = metric < self.best
        self.best = min(metric, self.best)
        self.bad = 0 if better or self.cooldown else self.bad + 1
        self.cooldown = max(self.cooldown - 1, 0)
        if self.bad == 2:
            self.halvings += 1
            self.bad, self.cooldown = 0, 2
        super().step()

    def state_dict(self) -> dict[str, Any]:
        names = ("epoch", "best", "bad", "cooldown", "halvings")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.write()


class TensorRate(Halving):
    """Writes LRs that are tensors, in place, which a captured optimizer requires."""

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"].clone())
        super().__init__(optimizer, last_epoch)

    def write(self) -> None:
        for group, rate in zip(self.optimizer.param_groups, self.rates(), strict=True):
            group["lr"].copy_(rate)

    def get_last_lr(self) -> list[Any]:
        return [group["lr"].clone() for group in self.optimizer.param_groups]


class Momentum(Halving):
    """Raises the momentum as the LR falls."""

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        for group in optimizer.param_groups:
            group.setdefault("initial_momentum", group["momentum"])
        self.momentum = [group["initial_momentum"] for group in optimizer.param_groups]
        super().__init__(optimizer, last_epoch)

    def write(self) -> None:
        super().write()
        for group, base in zip(self.optimizer.param_groups, self.momentum, strict=True):
            group["momentum"] = base * (1 - self.factor() / 2)


class DecaysWeights(Momentum):
    """Schedules LR, momentum and weight decay."""

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        for group in optimizer.param_groups:
            group.setdefault("initial_decay", group["weight_decay"])
        self.decay = [group["initial_decay"] for group in optimizer.param_groups]
        super().__init__(optimizer, last_epoch)

    def write(self) -> None:
        super().write()
        for group, base in zip(self.optimizer.param_groups, self.decay, strict=True):
            group["weight_decay"] = base * (1 + self.epoch)


class Table(Halving):
    """Reads its factor from a table, and keeps the last one after its end."""

    def __init__(
        self, optimizer: Optimizer, last_epoch: int = -1, *, table: Sequence[float] = (1.0, 0.5)
    ) -> None:
        self.table = list(table)
        super().__init__(optimizer, last_epoch)

    def factor(self) -> float:
        return self.table[min(self.epoch, len(self.table) - 1)]


class Fall(Halving):
    """Falls linearly to a floor; its options are saved, and its slope is computed from them."""

    def __init__(
        self, optimizer: Optimizer, last_epoch: int = -1, *, total: int = 4, floor: float = 0.25
    ) -> None:
        self.total = total
        self.floor = floor
        self.slope = (1 - floor) / total
        super().__init__(optimizer, last_epoch)

    def factor(self) -> float:
        return 1 - self.slope * min(self.epoch, self.total)

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "total": self.total, "floor": self.floor}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.total = state["total"]
        self.floor = state["floor"]
        self.slope = (1 - self.floor) / self.total
        super().load_state_dict(state)


class Noise(Halving):
    """Draws its factor from its own random generator, whose state is saved."""

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        self.random = random.Random(7)
        self.drawn = 1.0
        for _ in range(last_epoch + 1):
            self.drawn = self.random.random()
        super().__init__(optimizer, last_epoch)

    def factor(self) -> float:
        return self.drawn

    def step(self) -> None:
        self.drawn = self.random.random()
        super().step()

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "drawn": self.drawn, "random": self.random.getstate()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.drawn = state["drawn"]
        version, numbers, rest = state["random"]
        self.random.setstate((version, tuple(numbers), rest))  # JSON turns tuples into lists
        super().load_state_dict(state)


class Milestones(Halving):
    """Removes milestones from a list when it passes them; the rest of the list is saved."""

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        self.left = [milestone for milestone in (2, 5, 8) if milestone > last_epoch + 1]
        super().__init__(optimizer, last_epoch)

    def factor(self) -> float:
        return 0.5 ** (3 - len(self.left))

    def step(self) -> None:
        if self.left and self.epoch + 1 == self.left[0]:
            del self.left[0]
        super().step()

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "left": list(self.left)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.left = list(state["left"])
        super().load_state_dict(state)


class Restarts(Halving):
    """Decays in cycles, each two epochs longer than the one before."""

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        self.length, self.at = 2, 0
        for _ in range(last_epoch + 1):
            self.advance()
        super().__init__(optimizer, last_epoch)

    def advance(self) -> None:
        self.at += 1
        if self.at == self.length:
            self.length, self.at = self.length + 2, 0

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


class Ramp(Halving):
    """Falls linearly to 0 within 9 epochs, and stays there."""

    def factor(self) -> float:
        return max(1 - self.epoch / 9, 0.0)


class Nested(Halving):
    """A wrapper: waits for 2 epochs, then steps another scheduler, which writes the LR."""

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        self.optimizer = optimizer
        self.epoch = last_epoch + 1
        self.child = Halving(optimizer, max(last_epoch - 2, -1))

    def write(self) -> None:
        self.child.write()

    def step(self) -> None:
        self.epoch += 1
        if self.epoch > 2:
            self.child.step()

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "child": self.child.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch = state["epoch"]
        self.child.load_state_dict(state["child"])


class Logs(Halving):
    """Keeps its factors in a list, whose length is its position, and their sum; saves copies."""

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        self.log = [halved(epoch) for epoch in range(last_epoch + 1)]
        self.sum = torch.tensor(float(sum(self.log)))
        super().__init__(optimizer, last_epoch)

    def factor(self) -> float:
        return halved(len(self.log))

    def step(self) -> None:
        self.sum.add_(self.factor())
        self.log.append(self.factor())
        self.write()

    def state_dict(self) -> dict[str, Any]:
        return {"log": list(self.log), "sum": self.sum.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.log, self.sum = list(state["log"]), state["sum"].clone()
        self.write()


class Updates(Halving):
    """Follows the optimizer: its own step counts only after an optimizer step."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.pending = self.steps = 0
        super().__init__(optimizer)
        self.watch()

    def watch(self) -> None:
        step = self.optimizer.step

        @functools.wraps(step)
        def counted(*arguments: Any, **keywords: Any) -> Any:
            self.pending += 1
            return step(*arguments, **keywords)

        self.optimizer.step = counted  # type: ignore[method-assign]

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.watch()  # a copy of the optimizer is not watched yet

    def step(self) -> None:
        self.steps += 1
        self.epoch += self.pending > 0
        self.pending = 0
        self.write()

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "pending": self.pending, "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.pending, self.steps = state["pending"], state["steps"]
        super().load_state_dict(state)


class Multiplies(Halving):
    """Multiplies the LR in the groups, so the optimizer's state holds its position."""

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        self.optimizer = optimizer
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        self.epoch = last_epoch + 1

    def step(self) -> None:
        self.epoch += 1
        for group in self.optimizer.param_groups:
            group["lr"] *= 0.5 if self.epoch % 3 == 0 else 0.875

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch = state["epoch"]


class Handover(Halving):
    """Saves a function in its state, and takes it out of the dict that it loads."""

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        self.decay: Callable[[int], float] = halved
        super().__init__(optimizer, last_epoch)

    def factor(self) -> float:
        return self.decay(self.epoch)

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "decay": self.decay}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.decay = state.pop("decay")
        super().load_state_dict(state)


class Bare:
    """Has only a ``step``; two functions of the subject read and set its state."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self.base = [group["lr"] for group in optimizer.param_groups]
        self.count = 0

    def step(self) -> None:
        self.count += 1
        for group, base in zip(self.optimizer.param_groups, self.base, strict=True):
            group["lr"] = base / (1 + self.count)


def halved(epoch: int) -> float:
    """1, halved at every third epoch."""
    return float(0.5 ** (epoch // 3))


def take_count(scheduler: Any) -> dict[str, Any]:
    """The state of a `Bare`."""
    return {"count": scheduler.count, "base": list(scheduler.base)}


def give_count(scheduler: Any, state: dict[str, Any]) -> None:
    """The inverse of `take_count`."""
    scheduler.count, scheduler.base = state["count"], list(state["base"])
