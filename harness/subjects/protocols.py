"""The kinds of schedulers: how each is recognised, built, stepped, saved and loaded.

Libraries agree on little: PyTorch's schedulers are stepped by ``step()``, timm's by ``step(epoch,
metric)``, ignite's are called with an engine, and speechbrain's are called with the optimizer and
write their state to a path. A row of `PROTOCOLS` describes one such kind. A scheduler belongs to
the first row that fits the signature of its methods; no base class is needed. The report says how a
scheduler was stepped, unless it was by ``step()``.

A package can add a kind for its own schedulers, which is tried before the rows here, with an entry
point that names a `Protocol`::

    [project.entry-points."lr_resume_harness.protocols"]
    mine = "my_package.subjects:PROTOCOL"

The functions that build, step, save and load are pasted into scripts, so each may use only torch,
the standard library and other functions of this file or of `harness.core.training_loop`. A
``metric`` falls, stays the same and rises in turn; an ``epoch`` counts from 1, because it is the
one that begins.
"""

from __future__ import annotations

import functools
import inspect
import pathlib
import tempfile
import types
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

import torch
from torch.optim import lr_scheduler

from harness.core.errors import SubjectError
from harness.core.training_loop import (
    LRScheduler,
    describe,
    metric_at,
    snapshot,
    step_scheduler,
    step_with_metric,
)
from harness.core.types import Step

GROUP = "lr_resume_harness.protocols"
"""The entry points of protocols."""

OPTIMIZER = frozenset({
    "optimizer", "optimizers", "opt", "optim", "optim_list", "wrapped_optimizer",
})  # fmt: skip
"""The names of parameters for an optimizer, or a list of them."""
EPOCH = frozenset({
    "batch_iteration", "cur_epoch", "cur_step", "current_epoch", "current_step", "epoch",
    "global_step", "it", "iteration", "n", "n_steps", "num_steps", "num_updates", "step",
    "step_num", "steps", "t",
})  # fmt: skip
"""The names of parameters for the number of an epoch or of an optimizer step."""
METRIC = frozenset({
    "current_loss", "eval_metric", "loss", "metric", "metric_value", "metrics", "score", "val_loss",
    "valid_loss", "value",
})  # fmt: skip
"""The names of parameters for a metric."""
KINDS = {
    "optimizer": OPTIMIZER, "epoch": EPOCH, "metric": METRIC,
    "engine": frozenset({"engine", "trainer"}), "increment": frozenset({"increment"}),
}  # fmt: skip
"""What a step can be given, and the names of the parameters for it."""
INDEX = ("last_epoch", "last_step", "last_batch_iteration", "last_iter")
"""The names of a constructor's parameter for the index to resume at, as `last_epoch` is."""


# ------------------------------------------------------------------------------------- building


def on_optimizer(value: Any, optimizer: torch.optim.Optimizer) -> Any:
    """An option, with each scheduler in it built on the optimizer."""
    if isinstance(value, list):
        return [on_optimizer(item, optimizer) for item in value]
    return value(optimizer) if isinstance(value, functools.partial) else value


def build_with(
    make: Callable[..., Any], optimizer_name: str, optimizer: torch.optim.Optimizer, **options: Any
) -> Any:
    """Build a scheduler that gets the optimizer by this name, or in other schedulers alone."""
    options = {name: on_optimizer(value, optimizer) for name, value in options.items()}
    if optimizer_name:
        options[optimizer_name] = optimizer
    return make(**options)


def build_from_index(
    make: Callable[..., Any], index_name: str, shift: int, optimizer: torch.optim.Optimizer,
    last_epoch: int = -1, **options: Any,
) -> Any:  # fmt: skip
    """Build a scheduler whose index has another name, or is ahead of last_epoch by `shift`."""
    if last_epoch >= 0:
        options[index_name] = last_epoch + shift
    return make(optimizer, **options)


class Held:
    """A scheduler that does not know its optimizer, and that optimizer."""

    def __init__(self, scheduler: Any, optimizer: torch.optim.Optimizer) -> None:
        self.scheduler = scheduler
        self.optimizer = optimizer


def build_held(make: Callable[..., Any], optimizer: torch.optim.Optimizer, **options: Any) -> Held:
    """Build a scheduler without the optimizer, which it gets, or changes, at each step."""
    return Held(make(**options), optimizer)


class Dampened:
    """A warm-up that dampens the LRs of another scheduler, and that scheduler."""

    def __init__(self, scheduler: Any, warmup: Any) -> None:
        self.scheduler = scheduler
        self.warmup = warmup

    def step(self) -> None:
        """Step the scheduler, as the warm-up demands it."""
        with self.warmup.dampening():
            self.scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        """The states of both."""
        return {"scheduler": self.scheduler.state_dict(), "warmup": self.warmup.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the states of both."""
        self.scheduler.load_state_dict(state["scheduler"])
        self.warmup.load_state_dict(state["warmup"])


def build_dampened(
    make: Callable[..., Any], optimizer: torch.optim.Optimizer, **options: Any
) -> Dampened:
    """Build a scheduler, and the warm-up after it."""
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    return Dampened(scheduler, make(optimizer, **options))


# ------------------------------------------------------------------------------------- stepping


def step_to_epoch(scheduler: Any, epoch: int) -> None:
    """Step a scheduler that is given the epoch."""
    scheduler.step(epoch + 1)


def step_to_epoch_with_metric(scheduler: Any, epoch: int) -> None:
    """Step a scheduler that is given the epoch and a metric."""
    scheduler.step(epoch + 1, metric_at(epoch))


def step_with_metric_to_epoch(scheduler: Any, epoch: int) -> None:
    """Step a scheduler that is given a metric and the epoch."""
    scheduler.step(metric_at(epoch), epoch + 1)


def step_update_and_epoch(scheduler: Any, epoch: int) -> None:
    """Step a scheduler that counts optimizer steps, epochs or both, with one step an epoch."""
    scheduler.step_update(epoch + 1)
    scheduler.step(epoch + 1, metric_at(epoch))


def step_with_losses(scheduler: Any, epoch: int) -> None:
    """Step a scheduler that is given metrics by their names."""
    scheduler.step({"loss": metric_at(epoch)})


def step_by_increment(scheduler: Any, epoch: int) -> None:
    """Step a scheduler that is told how far to go on."""
    scheduler.step(1)


def engine_at(epoch: int) -> Any:
    """What a handler reads of an engine at an epoch."""
    state = types.SimpleNamespace(epoch=epoch, iteration=epoch, metrics={"loss": metric_at(epoch)})
    return types.SimpleNamespace(state=state)


def call_with_engine(scheduler: Any, epoch: int) -> None:
    """Call a handler with an engine."""
    scheduler(engine_at(epoch))


def call_with_engine_held(held: Held, epoch: int) -> None:
    """Call a handler that sets a value in the engine's state; give it to the optimizer."""
    engine = engine_at(epoch)
    held.scheduler(engine)
    for group in held.optimizer.param_groups:
        group["lr"] = engine.state.lr


def use_value(held: Held, before: list[Any], value: Any) -> None:
    """Give the optimizer the LR that a scheduler returned, unless it set the LRs itself.

    A pair holds the old LR and the new one.
    """
    value = value[-1] if isinstance(value, tuple) else value
    if value is not None and before == [group["lr"] for group in held.optimizer.param_groups]:
        for group in held.optimizer.param_groups:
            group["lr"] = value


def rates_of(held: Held) -> list[Any]:
    """The LR of each group."""
    return [group["lr"] for group in held.optimizer.param_groups]


def call_with_optimizer(held: Held, epoch: int) -> None:
    """Call a scheduler with the optimizer."""
    use_value(held, rates_of(held), held.scheduler(held.optimizer))


def call_with_optimizer_and_epoch(held: Held, epoch: int) -> None:
    """Call a scheduler with the optimizer and the epoch."""
    use_value(held, rates_of(held), held.scheduler(held.optimizer, epoch + 1))


def call_with_optimizers_epoch_and_metric(held: Held, epoch: int) -> None:
    """Call a scheduler with a list of optimizers, the epoch and a metric."""
    value = held.scheduler([held.optimizer], epoch + 1, metric_at(epoch))
    use_value(held, rates_of(held), value)


def call_with_epoch(held: Held, epoch: int) -> None:
    """Call a scheduler with the epoch, and use the LR that it returns."""
    use_value(held, rates_of(held), held.scheduler(epoch + 1))


def call_with_metric(held: Held, epoch: int) -> None:
    """Call a scheduler with a metric, and use the LR that it returns."""
    use_value(held, rates_of(held), held.scheduler(metric_at(epoch)))


# ----------------------------------------------------------------------------- saving and loading


def scheduler_in(scheduler: Any) -> Any:
    """The scheduler itself, or the one in a `Held`."""
    return scheduler.scheduler if isinstance(scheduler, Held) else scheduler


def save_inner_state(scheduler: Any) -> Any:
    """The state of the scheduler in a `Held`."""
    return scheduler_in(scheduler).state_dict()


def load_inner_state(scheduler: Any, state: Any) -> None:
    """Load the state of the scheduler in a `Held`."""
    scheduler_in(scheduler).load_state_dict(state)


def save_to_path(scheduler: Any) -> Any:
    """What a scheduler with ``save(path)`` writes, as text that every file format can hold."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "scheduler")
        scheduler_in(scheduler).save(str(path))
        return {"file": path.read_bytes().decode("latin-1")}


def load_from_path(scheduler: Any, state: Any) -> None:
    """Load a scheduler with ``load(path)`` from what it wrote."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "scheduler")
        path.write_bytes(state["file"].encode("latin-1"))
        scheduler_in(scheduler).load(str(path))


def save_nothing(scheduler: Any) -> Any:
    """A checkpoint holds nothing of a scheduler without a ``state_dict``."""
    return {}


def load_nothing(scheduler: Any, state: Any) -> None:
    """There is nothing to load into a scheduler without a ``load_state_dict``."""


STATELESS = "it has no state_dict; resume_optimizer_then_scheduler looks at what is lost by that"


# ------------------------------------------------------------------------------------ recognising


@dataclass(frozen=True)
class Look:
    """What can be seen of a scheduler before it is used.

    `made` is its class, or the object that a function returned; `options` are the parameters that
    it is built with.
    """

    made: Any
    options: frozenset[str] = frozenset()

    def has(self, method: str) -> bool:
        """Whether it has this method, and not from ``object`` or ``type``."""
        kind = self.made if isinstance(self.made, type) else type(self.made)
        return callable(getattr(kind, method, None)) and any(
            method in vars(parent) for parent in kind.__mro__ if parent is not object
        )

    def takes(self, method: str) -> tuple[str, ...] | None:
        """What a method must be given, by `KINDS`; None if it lacks the method or for another.

        A metric is counted also if it is optional, and it comes first or after what is required.
        """
        if not self.has(method):
            return None
        found: list[str] = []
        for place, parameter in enumerate(self._parameters(method)):
            required = parameter.default is parameter.empty
            kind = next((kind for kind in KINDS if parameter.name in KINDS[kind]), None)
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                continue
            if kind == "metric" and (required or len(found) == place):
                found.append(kind)
            elif required and (kind is None or parameter.kind is parameter.KEYWORD_ONLY):
                return None
            elif required and kind is not None:
                found.append(kind)
        return tuple(found)

    def needs(self, method: str) -> str:
        """The first parameter that a method must be given and for which nothing is known."""
        names = {name for names in KINDS.values() for name in names}
        return next(
            (
                parameter.name
                for parameter in self._parameters(method)
                if parameter.default is parameter.empty
                and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
                and (parameter.name not in names or parameter.kind is parameter.KEYWORD_ONLY)
            ),
            "",
        )

    def _parameters(self, method: str) -> list[inspect.Parameter]:
        function = getattr(self.made, method)
        if method == "__call__" and not isinstance(self.made, type):
            function = getattr(type(self.made), method)
        try:
            found = list(inspect.signature(function).parameters.values())
        except (TypeError, ValueError):  # some builtins have none
            return []
        bound = inspect.ismethod(function)
        return found if bound else found[1:]

    @property
    def optimizer_name(self) -> str:
        """The name of the parameter for the optimizer; empty if there is none."""
        return next((name for name in self.options if name in OPTIMIZER), "")


@dataclass(frozen=True)
class Protocol:
    """A kind of scheduler.

    Parameters
    ----------
    stepped : str
        How it is stepped, for the report.
    step : callable
        ``step(scheduler, epoch)`` steps what `build` made; `epoch` counts its steps from 0.
    fits : callable
        Whether a scheduler is of this kind, from a `Look` at it.
    build : callable, optional
        ``build(make, optimizer, **options)`` builds one with ``make(optimizer, **options)``, or
        without the optimizer, if the kind needs more than that.
    save, load : callable, optional
        ``save(scheduler)`` and ``load(scheduler, state)``. By default those that fit what it has:
        ``state_dict``, ``save(path)`` or nothing.
    """

    stepped: str
    step: Callable[[Any, int], None]
    fits: Callable[[Look], bool]
    build: Callable[..., Any] | None = None
    save: Callable[[Any], Any] | None = None
    load: Callable[[Any, Any], None] | None = None


def stepped_with(*kinds: str) -> Callable[[Look], bool]:
    """Whether its ``step`` takes these things."""
    return lambda look: look.takes("step") == kinds


def called_with(*kinds: str, holds: bool = True) -> Callable[[Look], bool]:
    """Whether it is called with these things; `holds`: and is built without the optimizer."""
    return lambda look: (
        not look.has("step")
        and look.takes("__call__") == kinds
        and (not look.optimizer_name or not holds)
    )


def _takes_losses(look: Look) -> bool:
    torchs = is_torch(look.made)  # Lightning's has a monitor as well
    return "monitor" in look.options and look.takes("step") == ("metric",) and not torchs


def _takes_updates(look: Look) -> bool:
    return look.takes("step_update") is not None and look.takes("step") == ("epoch", "metric")


def _knows_its_optimizer(look: Look) -> bool:
    """Whether a handler changes an optimizer, its own or that of the schedulers inside."""
    inside = any("scheduler" in name for name in look.options)
    return called_with("engine", holds=False)(look) and bool(look.optimizer_name or inside)


PROTOCOLS = (
    Protocol("step({'loss': metric})", step_with_losses, _takes_losses),
    Protocol("with dampening(): lr_scheduler.step()", step_scheduler,
             lambda look: look.has("dampening"), build_dampened),
    Protocol("step()", step_scheduler, stepped_with()),
    Protocol("step(metric)", step_with_metric,
             lambda look: stepped_with("metric")(look) and not _takes_losses(look)),
    Protocol("step_update(epoch), step(epoch, metric)", step_update_and_epoch, _takes_updates),
    Protocol("step(epoch, metric)", step_to_epoch_with_metric,
             lambda look: stepped_with("epoch", "metric")(look) and not _takes_updates(look)),
    Protocol("step(metric, epoch)", step_with_metric_to_epoch, stepped_with("metric", "epoch")),
    Protocol("step(epoch)", step_to_epoch, stepped_with("epoch")),
    Protocol("step(1)", step_by_increment, stepped_with("increment")),
    Protocol("scheduler(engine)", call_with_engine, _knows_its_optimizer),
    Protocol("scheduler(engine), lr = engine.state.lr", call_with_engine_held,
             lambda look: called_with("engine")(look) and not _knows_its_optimizer(look),
             build_held),
    Protocol("scheduler(optimizer)", call_with_optimizer, called_with("optimizer"), build_held),
    Protocol("scheduler(optimizer, epoch)", call_with_optimizer_and_epoch,
             called_with("optimizer", "epoch"), build_held),
    Protocol("scheduler([optimizer], epoch, metric)", call_with_optimizers_epoch_and_metric,
             called_with("optimizer", "epoch", "metric"), build_held),
    Protocol("lr = scheduler(epoch)", call_with_epoch, called_with("epoch"), build_held),
    Protocol("lr = scheduler(metric)", call_with_metric, called_with("metric"), build_held),
)  # fmt: skip
"""Every kind of scheduler that is known; the first that fits is taken."""


@functools.cache
def known_protocols() -> tuple[Protocol, ...]:
    """The protocols of installed packages, then `PROTOCOLS`.

    Raises `SubjectError` if the protocol of a package can't be loaded.
    """
    found = []
    for point in entry_points(group=GROUP):
        try:
            value = point.load()
        except (Exception, SystemExit) as error:
            value = describe(error)
        if not isinstance(value, Protocol):
            raise SubjectError(
                f"the entry point {point.name!r} of the group {GROUP!r} must name a "
                f"harness.subjects.protocols.Protocol (got {value!r:.120}): mend or uninstall its "
                "package"
            )
        found.append(value)
    return (*found, *PROTOCOLS)


def protocols_of(look: Look) -> Iterator[Protocol]:
    """Every protocol that fits, in the order of the table."""
    return (protocol for protocol in known_protocols() if protocol.fits(look))


def saving_of(
    protocol: Protocol, look: Look
) -> tuple[Callable[[Any], Any] | None, Callable[[Any, Any], None] | None, bool]:
    """The functions that save and load, and whether a checkpoint holds anything at all.

    The functions are None if the scheduler has the methods itself.
    """
    if protocol.save is not None and protocol.load is not None:
        return protocol.save, protocol.load, True
    if look.has("state_dict") and look.has("load_state_dict"):
        held = protocol.build is build_held
        return (save_inner_state, load_inner_state, True) if held else (None, None, True)
    if look.has("dampening"):
        return None, None, True
    if look.has("save") and look.has("load"):
        return save_to_path, load_from_path, True
    return save_nothing, load_nothing, False


def convention_of(
    builds: Mapping[int, Callable[..., Any]], new_optimizer: Callable[[], Any], step: Step,
    length: int,
) -> Counter[int]:  # fmt: skip
    """At how many epochs each convention for an index goes on exactly.

    `builds` has for each convention the function that builds with it. At each epoch the optimizer's
    state is loaded, the scheduler is built with ``last_epoch``, and both are stepped to the end.
    """
    optimizer = new_optimizer()
    scheduler = builds[0](optimizer)
    rates, saves = [_rates(optimizer)], []
    for epoch in range(length):
        step(scheduler, epoch)
        rates.append(_rates(optimizer))
        saves.append(snapshot(optimizer.state_dict()))
    fits = Counter[int]()
    for convention, build in builds.items():
        for epoch, saved in enumerate(saves, 1):
            optimizer = new_optimizer()
            optimizer.load_state_dict(snapshot(saved))
            try:
                scheduler = build(optimizer, last_epoch=epoch - 1)
                seen = [_rates(optimizer)]
                for later in range(epoch, length):
                    step(scheduler, later)
                    seen.append(_rates(optimizer))
            except Exception:  # with a wrong index: it does not go on exactly from here
                continue
            fits[convention] += seen == rates[epoch:]
    return fits


def _rates(optimizer: Any) -> list[Any]:
    names = ("lr", "momentum", "betas", "weight_decay")
    return [[group.get(name) for name in names] for group in optimizer.param_groups]


def is_torch(made: object) -> bool:
    """Whether a class is one of PyTorch's schedulers or inherits from one."""
    bases = (LRScheduler, lr_scheduler.ReduceLROnPlateau)  # the second only since torch 2.2
    return isinstance(made, type) and issubclass(made, bases)
