"""The optimizers that a trace can name, and a strategy that draws them.

>>> from harness.core.literals import parse_value, resolve
>>> optimizer = resolve(parse_value("AdamW(groups=2,lr='shared',amsgrad=True)"), WORDS)
>>> optimizer.param_groups[0]["lr"] is optimizer.param_groups[1]["lr"]
True
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from harness.core.literals import Term, parse_value, resolve
from harness.core.types import Options

if TYPE_CHECKING:
    from hypothesis.strategies import DrawFn, SearchStrategy


class SteadyLBFGS(torch.optim.LBFGS):
    """LBFGS that steps without a closure, with the present gradients."""

    def __setstate__(self, state: dict[str, object]) -> None:
        super().__setstate__(state)
        self._params = self.param_groups[0]["params"]  # torch does not copy these two
        self._numel_cache = None

    def step(self, closure: object = None) -> Any:
        """Make one step; the loss seems to stay the same, which ends it after one iteration."""
        return super().step(lambda: 0.0)  # type: ignore[no-untyped-call]


class SparseAdam(torch.optim.SparseAdam):
    """SparseAdam that makes the gradients of matrices sparse by rows."""

    def step(self, closure: object = None) -> Any:
        """Make one step."""
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = parameter.grad.to_sparse(1)
        return super().step(closure)  # type: ignore[no-untyped-call]


def make_optimizer(
    kind: Callable[..., torch.optim.Optimizer],
    *,
    groups: int | None = None,
    rates: Sequence[float | None] | None = None,
    lr: str = "float",
    named: bool = False,
    device: str = "cpu",
    **options: object,
) -> torch.optim.Optimizer:
    """A new optimizer of the class `kind` over new parameters, always with the same values.

    It has 1 to 4 `groups`, each with one parameter. The groups' LRs are 0.125, 0.0625,
    0.03125 and 0.015625, or those in `rates`; a group with None has the constructor's
    LR, 0.125. With ``lr="tensor"`` each of these LRs is a tensor; with ``lr="shared"``
    all groups share the constructor's LR, one tensor. `named` gives the parameters names.
    """
    if lr not in ("float", "tensor", "shared"):
        raise ValueError(
            f"lr must be 'float', 'tensor' or 'shared' (got {lr!r}): give numbers as rates=[...]"
        )
    if rates is None:
        if groups not in (None, 1, 2, 3, 4):
            raise ValueError(f"groups must be 1 to 4 (got {groups!r})")
        rates = [None if lr == "shared" else 0.125 / 2**index for index in range(groups or 1)]
    elif groups not in (None, len(rates)) or not 1 <= len(rates) <= 4:
        raise ValueError(f"rates must hold an LR or None for each of 1 to 4 groups (got {rates!r})")
    elif lr == "shared" and any(rate is not None for rate in rates):
        raise ValueError(
            "lr='shared' gives all groups one LR, so rates must be None or a list of None "
            f"(got {rates!r})"
        )

    def as_rate(rate: float) -> float | torch.Tensor:
        return rate if lr == "float" else torch.tensor(rate, device=device)

    made = []
    for index, rate in enumerate(rates):
        values = [1.0 - 0.25 * index, -2.0 + 0.5 * index]
        # NAdam keeps a float32 scalar, which load_state_dict gives the parameter's dtype.
        dtype = torch.float32 if kind.__name__ == "NAdam" else torch.float64
        value = torch.tensor(values, dtype=dtype, device=device)
        if kind.__name__ in ("Muon", "SparseAdam"):  # they need matrices
            value = value.reshape(1, 2)
        parameter = torch.nn.Parameter(value)
        group: dict[str, object] = {"params": [(f"w{index}", parameter) if named else parameter]}
        if rate is not None:
            group["lr"] = as_rate(rate)
        made.append(group)
    return kind(made, lr=as_rate(0.125), **options)


OWN_OPTIONS: Mapping[str, tuple[dict[str, object], ...]] = {
    "SGD": (
        {},
        {"momentum": 0.9},
        {"momentum": 0.9, "nesterov": True},
        {"momentum": 0.5, "dampening": 0.25},
    ),
    "Adam": ({}, {"amsgrad": True}, {"betas": (0.8, 0.95)}, {"decoupled_weight_decay": True}),
    "AdamW": ({}, {"amsgrad": True}, {"betas": (0.8, 0.95)}),
    "RMSprop": ({}, {"momentum": 0.9}, {"centered": True}, {"momentum": 0.5, "centered": True}),
    "Adamax": ({},),
    "NAdam": ({}, {"momentum_decay": 0.5}, {"decoupled_weight_decay": True}),
    "RAdam": ({}, {"decoupled_weight_decay": True}),
    "Adagrad": ({}, {"lr_decay": 0.5}, {"initial_accumulator_value": 0.5}),
    "Adadelta": ({}, {"rho": 0.5}),
    "ASGD": ({}, {"t0": 2.0}),
    "Rprop": ({},),
    "Adafactor": ({},),
    "Muon": ({}, {"nesterov": False}),
    "SparseAdam": ({},),
    "LBFGS": ({}, {"history_size": 2}),
}
"""The optimizers, the simplest first, each with its own options."""
ADAPTED: Mapping[str, type[torch.optim.Optimizer]] = {
    "LBFGS": SteadyLBFGS,
    "SparseAdam": SparseAdam,
}
"""The optimizers that a training loop can't step as they are, each with a subclass that it can."""
WORDS: Mapping[str, Callable[..., torch.optim.Optimizer]] = {
    name: functools.partial(make_optimizer, ADAPTED.get(name) or getattr(torch.optim, name))
    for name in OWN_OPTIONS
    if hasattr(torch.optim, name)
}
"""The words that a trace can have after ``optimizer=``, each with the function that it calls.

They are the optimizers that the installed torch has, and take the keyword
arguments of `make_optimizer`.
"""


def group_count(term: Term) -> int:
    """How many groups the optimizer of a term has; the term's word is one of `WORDS`."""
    keywords: dict[str, Any] = dict(term.keywords)
    rates = keywords.get("rates")
    return int(keywords.get("groups") or 1) if rates is None else len(rates)


def optimizers(*, momentum: bool = False, betas: bool = True) -> SearchStrategy[Term]:
    """Draws terms that make an optimizer of `WORDS`; the simplest is ``SGD(groups=1)``.

    Optimizers, options and devices that the installed torch does not have are not drawn.
    With `momentum` every group of the optimizer holds ``momentum`` or ``betas``; without
    `betas` it holds ``momentum``.
    """
    from hypothesis import strategies as st

    names = [name for name in WORDS if not momentum or has_momentum(name, betas=betas)]

    @st.composite
    def terms(draw: DrawFn) -> Term:
        name = draw(st.sampled_from(names))
        chosen: dict[str, object] = {}

        def pick(choices: Sequence[Options]) -> None:
            """Draw and add one of the choices that work with those made before."""
            working = [choice for choice in choices if works(name, {**chosen, **choice})]
            # One number for every word: Hypothesis regards fewer draws as simpler, and would
            # shrink to the word with the fewest options. 12 is divisible by 1, 2, 3 and 4.
            chosen.update(working[draw(st.integers(0, 11)) % len(working)])

        if draw(st.booleans()) and works(name, {"groups": 2}):
            groups = draw(st.integers(2, 4))
        else:
            groups = 1
        if torch.cuda.is_available():
            pick([{}, {"device": "cuda"}, {"device": "cuda", "capturable": True}])
        pick(list(OWN_OPTIONS[name]))
        pick([{}, {"weight_decay": 0.01}])
        pick([{}, {"maximize": True}])
        pick([{}, {"foreach": True}, {"fused": True}, {"foreach": False}])
        pick([{}, {"lr": "tensor"}, *([{"lr": "shared"}] if groups > 1 else [])])
        pick([{}, {"named": True}])
        if chosen.get("lr") == "shared" or not draw(st.booleans()):
            return Term.of(name, groups=groups, **chosen)
        rate = st.sampled_from([None, 0.125, 0.03125, 1.0])
        rates = draw(st.lists(rate, min_size=groups, max_size=groups))
        return Term.of(name, rates=rates, **chosen)

    return terms()


def works(name: str, chosen: Options) -> bool:
    """Whether the installed torch can make and step the optimizer, and supports its kind of LR."""
    return _works(str(Term.of(name, **chosen)))  # as text, which can be cached


@functools.cache
def _works(text: str) -> bool:
    term = parse_value(text)
    assert isinstance(term, Term)
    if "lr" in dict(term.keywords) and not _takes_tensor_rate(term.name):
        return False
    try:
        optimizer = resolve(term, WORDS)
        for _ in range(2):
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.grad = torch.ones_like(parameter)
            optimizer.step()
    except Exception:  # for any reason: it can't be used for training
        return False
    return True


def _takes_tensor_rate(name: str) -> bool:
    """Whether an optimizer's signature says that its LR can be a tensor.

    Before torch 2.6 some optimizers accepted a tensor that they did not support.
    """
    word = WORDS[name]
    assert isinstance(word, functools.partial)
    return "Tensor" in str(inspect.signature(word.args[0]).parameters["lr"].annotation)


@functools.cache
def has_momentum(name: str, *, betas: bool = True) -> bool:
    """Whether the groups of an optimizer hold ``momentum`` or, if `betas` is true, ``betas``."""
    group = WORDS[name]().param_groups[0]
    return "momentum" in group or (betas and "betas" in group)
