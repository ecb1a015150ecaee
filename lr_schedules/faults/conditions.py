"""Faults that show only late in a run, or only with some optimizers, metrics or options."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.optim import Optimizer

from harness.engine.selftest import planted
from lr_schedules.controls import (
    CALLER,
    CYCLES,
    FIRST_MOMENT,
    GRANDCHILD,
    HALVING,
    LAZY_TABLE,
    MEMOISED,
    PER_GROUP,
    PLATEAU,
    SAVED_FALL,
    TENFOLD,
)
from lr_schedules.correct import Fall, Halving, PerGroup, Plateau
from lr_schedules.faults.check_groups import AT_ANY_TIME, EVERY_LOAD, LOADED_AFTER_OPTIMIZER, SWEPT
from lr_schedules.tricky import Caller, Cycles, FirstMoment, Grandchild, LazyTable, Memoised

# ------------------------------------------------------------------------------------- late


@planted(
    CYCLES,
    "first=50 times=2 train:51 save:a resume:a",
    caught_by=[*AT_ANY_TIME, "public_numbers_go_on"],
)
class LosesTheLength(Cycles):
    """Does not save the length of the cycle, which first changes at a restart at epoch 50."""

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        del state["length"]
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict({**state, "length": self.length})


@planted(
    TENFOLD,
    "first=1 times=10 train:111 save:a resume:a",
    caught_by=[*AT_ANY_TIME, "saving_after_loading_is_the_same", "public_numbers_go_on"],
)
class CycleByLogarithm(Cycles):
    """Computes the cycle with a logarithm when it is loaded, which is rounded down at epoch 111."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        cycle = int(math.log(state["epoch"] * (self.times - 1) + 1, self.times))
        length = self.times**cycle
        began = (length - 1) // (self.times - 1)
        super().load_state_dict({**state, "length": length, "at": state["epoch"] - began})


@planted(HALVING, "train:100 save:a resume:a", caught_by=[*AT_ANY_TIME, "public_numbers_go_on"])
class CountsTwoDigits(Halving):
    """Saves its position in two digits, so it starts again if it is resumed after epoch 99."""

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch % 100}


# ------------------------------------------------------------------------ with an optimizer


@planted(
    FIRST_MOMENT,
    "optimizer=AdamW(groups=3) train:3 save:a resume:a",
    caught_by=[name for name in LOADED_AFTER_OPTIMIZER if name not in SWEPT],
)
class BetasFromTheGroups(FirstMoment):
    """Takes betas that are lowered already as the initial ones when it is loaded."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for number, group in enumerate(self.optimizer.param_groups):
            if "betas" in group:
                self.moments[number] = group["betas"][0]
        super().load_state_dict(state)


@planted(
    HALVING,
    "optimizer=AdamW(groups=3) train:3 save:a resume:a",
    caught_by=AT_ANY_TIME,
)
class SavesTwoCounts(Halving):
    """Counts for each group, and saves the counts of the first two groups."""

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        self.counts = [last_epoch + 1] * len(optimizer.param_groups)
        super().__init__(optimizer, last_epoch)

    def rates(self) -> list[Any]:
        pairs = zip(self.base, self.counts, strict=True)
        return [base * 0.5 ** (count // 3) for base, count in pairs]

    def step(self) -> None:
        self.counts = [count + 1 for count in self.counts]
        super().step()

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "counts": self.counts[:2]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        saved = state["counts"]
        super().load_state_dict(state)
        self.counts[: len(saved)] = saved
        self.write()


@planted(
    PER_GROUP,
    "optimizer=Adam(rates=[1.2345678e-05]) save:a resume:a",
    caught_by=[*AT_ANY_TIME, "resume_with_other_initial_lrs"],
)
class SavesSixDecimals(PerGroup):
    """Saves the base LRs with six decimals, which are too few for small LRs."""

    def state_dict(self) -> dict[str, Any]:
        base = [round(base, 6) if isinstance(base, float) else base for base in self.base]
        return {**super().state_dict(), "base": base}


# ---------------------------------------------------------------------------- with metrics


@planted(
    PLATEAU,
    "step=metrics([0.3,0.1,0.1,0.1,0.2,0.2],kind='numpy') train:2 save:a resume:a train:2",
    caught_by=AT_ANY_TIME,
)
class BestInSinglePrecision(Plateau):
    """Saves the best metric in single precision, so that an equal one looks better."""

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "best": torch.tensor(self.best).item()}


@planted(
    PLATEAU,
    "step=metrics([0.3,0.1,0.1,0.1,0.2,0.2],kind='tensor') train:1 save:a resume:a train:2",
    caught_by=[
        *(name for name in AT_ANY_TIME if name != "resume_from_json"),
        "resume_by_deepcopy",
        "resume_by_pickle",
        "saved_state_is_a_snapshot",
    ],
)
class KeepsTheMetric(Plateau):
    """Keeps the tensor that it is given as the best metric, and the training loop fills it."""

    def step(self, metric: Any) -> None:  # type: ignore[override]
        before = self.best
        super().step(metric)
        if self.best != before and isinstance(metric, torch.Tensor):
            self.best = metric  # type: ignore[assignment]


# ---------------------------------------------------------------------------- with options


@planted(
    CALLER,
    "fall=Fading(0.75) train:1 save:a resume:a train:1",
    caught_by=EVERY_LOAD,
)
class ForgetsTheCallable(Caller):
    """Saves nothing of the object that it calls, although calls change it."""

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "fall": {}}


@planted(CALLER, "fall=Fading(0.75) save:a train:1", caught_by=["saved_state_is_a_snapshot"])
class SharesTheCallable(Caller):
    """Returns the live attributes of the object that it calls as part of its state."""

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "fall": vars(self.fall)}


@planted(
    SAVED_FALL,
    "changed={'floor':0.125} total=4 floor=0.25 save:a resume:a train:1",
    caught_by=["resume_with_changed_options"],
)
class KeepsTheNewOption(Fall):
    """Does not load one of its saved options."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict({**state, "floor": self.floor})


@planted(
    LAZY_TABLE,
    "changed={'total':7} total=6 save:a resume:a train:1",
    caught_by=["resume_with_changed_options"],
)
class KeepsTheOldTable(LazyTable):
    """Goes on with the table of the option it was built with, after another one is loaded."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        table = self.table
        super().load_state_dict(state)
        vars(self)["table"] = table

    def factor(self) -> float:
        return self.table[min(self.epoch, len(self.table) - 1)]


@planted(
    SAVED_FALL,
    "changed={'floor':0.125} total=4 floor=0.25 save:a resume:a save:a resume:a train:1",
    caught_by=["resume_with_changed_options"],
)
class SavesTheNewOption(Fall):
    """Goes on with the option that it loads, and saves the one that it was built with."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        own = self.floor
        super().load_state_dict(state)
        self.floor = own


# ----------------------------------------------------------------------- several schedulers


@planted(
    MEMOISED,
    "changed={'decay':0.375} decay=0.75 save:a train:1",
    caught_by=["other_schedulers_change_nothing"],
)
class OneTableForAll(Memoised):
    """Remembers factors for all schedulers of its class, whatever their decay is."""

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1, *, decay: float = 0.75) -> None:
        self.factors.clear()
        super().__init__(optimizer, last_epoch, decay=decay)

    def factor(self) -> float:
        return self.factors.setdefault((0.0, self.epoch), self.decay**self.epoch)


@planted(
    GRANDCHILD,
    "changed={'start':4} start=3 floor=0.25 save:a resume:a epoch:1",
    caught_by=["other_schedulers_change_nothing", "resume_with_changed_options"],
)
class SharesItsClosedForm(Grandchild):
    """Keeps in the class what only step(epoch) uses, where another scheduler overwrites it."""

    shared = 0

    def __init__(
        self, optimizer: Optimizer, last_epoch: int = -1, *, start: int = 3, floor: float = 0.25
    ) -> None:
        type(self).shared = start
        super().__init__(optimizer, last_epoch, start=start, floor=floor)

    def _get_closed_form_lr(self) -> list[Any]:
        shift = (1 + self.last_epoch / self.shared) ** -0.5
        return [base * max(shift, self.floor) for base in self.base_lrs]
