"""What each check is for, with an example that keeps its promise and one that breaks it.

An example is the text of a module that defines ``Mine``, a scheduler class or a `Subject`.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from torch.optim import lr_scheduler

_NAME = "LRScheduler" if hasattr(lr_scheduler, "LRScheduler") else "_LRScheduler as LRScheduler"
_IMPORT = f"from torch.optim.lr_scheduler import {_NAME}\n\n\n"
_RATES = "        return [base * 0.5 ** (self.{} // 3) for base in self.base_lrs]\n"


def _mine(*methods: str, imports: str = "") -> str:
    """The text of an example with these methods."""
    return imports + _IMPORT + "class Mine(LRScheduler):\n" + "\n".join(methods)


KEEPS = _mine(
    """    def __init__(self, optimizer, every=3, last_epoch=-1):
        self.every = every
        super().__init__(optimizer, last_epoch)
""",
    """    def get_lr(self):
        return [base * 0.5 ** (self.last_epoch // self.every) for base in self.base_lrs]
""",
)
"""Halves the LR every few epochs, and keeps almost every promise."""
_GET_LR = "    def get_lr(self):\n" + _RATES.format("last_epoch")
_COUNT = """    def __init__(self, optimizer, last_epoch=-1):
        self.count = -1
        super().__init__(optimizer, last_epoch)

    def get_lr(self):
        self.count += 1
""" + _RATES.format("count")
_LAST_EPOCH_ALONE = """    def state_dict(self):
        return {"last_epoch": self.last_epoch}
"""
FORGETS = _mine(_COUNT, _LAST_EPOCH_ALONE)
"""Its state lacks an attribute that the LR depends on."""
_COPIES_BADLY = _mine(
    _COUNT,
    """    def __getstate__(self):  # what copy and pickle take
        return {**self.__dict__, "count": 0}
""",
)
_TAKES_APART = _mine(
    _GET_LR,
    """    def load_state_dict(self, state):
        self.last_epoch = state.pop("last_epoch")
""",
)
_OWN_CLASS = _mine(
    """    def __init__(self, optimizer, last_epoch=-1):
        self.factor = Fraction(1, 2)  # no plain number
        super().__init__(optimizer, last_epoch)

    def get_lr(self):
        return [base * float(self.factor) ** self.last_epoch for base in self.base_lrs]
""",
    imports="from fractions import Fraction\n",
)
_NUMBERS_AS_KEYS = _mine(
    """    def __init__(self, optimizer, last_epoch=-1):
        self.factors = {3: 0.5, 6: 0.25}  # the keys of JSON are strings
        super().__init__(optimizer, last_epoch)

    def get_lr(self):
        factor = self.factors.get(self.last_epoch // 3 * 3, 1.0)
        return [base * factor for base in self.base_lrs]
"""
)
_LOADS_ALL = "Save every attribute that get_lr reads, and load it: LRScheduler does so by itself."


_FROM_THE_LAST = """    def get_lr(self):
        factor = 0.5 if self.last_epoch > 0 and self.last_epoch % 3 == 0 else 1.0
        return [group["lr"] * factor for group in self.optimizer.param_groups]
"""
_WRITES = (
    KEEPS
    + """
    def load_state_dict(self, state):
        super().load_state_dict(state)
        for group, lr in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
            group["lr"] = lr
"""
)
_WRITE = "Write the LRs into the optimizer's groups when a state is loaded."


def _with_options(text: str, options: str) -> str:
    """An example with options that can change."""
    return (
        f"from harness import Subject\n{text}\n\nMine = Subject('Mine', Mine, options={options})\n"
    )


@dataclass(frozen=True)
class Explanation:
    """Who relies on a check, how to mend a failure, and an example of each verdict."""

    who: str
    mend: str
    fails: str
    holds: str = KEEPS


EXPLANATIONS = {
    "resume_optimizer_then_scheduler": Explanation(
        "Every training script: it is the order in PyTorch's documentation.", _LOADS_ALL, FORGETS
    ),
    "resume_scheduler_then_optimizer": Explanation(
        "Scripts and libraries that load the scheduler first; nothing forbids it.",
        "In load_state_dict, use the given state alone, and not the optimizer.",
        _mine(
            """    def get_lr(self):
        return [group["initial_lr"] * self.factor() for group in self.optimizer.param_groups]

    def factor(self):
        return 0.5 ** (self.last_epoch // 3) * getattr(self, "again", 1.0)
""",
            """    def load_state_dict(self, state):
        super().load_state_dict(state)
        lr = self.optimizer.param_groups[0]["lr"]  # the optimizer may not be loaded yet
        self.again = lr / self._last_lr[0]
""",
        ),
    ),
    "resume_from_file": Explanation(
        "Everybody who saves with torch.save: since torch 2.6, torch.load refuses other classes.",
        "Keep numbers, strings, lists, dicts and tensors in the state.",
        _OWN_CLASS,
    ),
    "resume_after_halve_lr": Explanation(
        "Whoever lowers the LR by hand when the loss stands still, and is preempted later.",
        "In load_state_dict, do not compute the LRs of the groups: the optimizer's state has them.",
        _mine(
            _FROM_THE_LAST,
            """    def load_state_dict(self, state):
        super().load_state_dict(state)
        for base, group in zip(self.base_lrs, self.optimizer.param_groups, strict=False):
            group["lr"] = base * 0.5 ** (self.last_epoch // 3)  # what was set by hand is lost
""",
        ),
        _mine(_FROM_THE_LAST),
    ),
    "resume_after_add_group": Explanation(
        "Fine-tuning that unfreezes layers with add_param_group, and is preempted later.",
        "Keep a value for each group, and restore those of the groups that were added.",
        _mine(
            _FROM_THE_LAST,
            """    def load_state_dict(self, state):
        super().load_state_dict(state)
        for group in self.optimizer.param_groups[2:]:
            group["lr"] = self.base_lrs[0]  # an added group starts again
""",
        ),
        _mine(_FROM_THE_LAST),
    ),
    "roll_back_in_place": Explanation(
        "Loops that go back to a good checkpoint after a loss spike, in the same process.",
        _LOADS_ALL,
        FORGETS,
    ),
    "resume_twice_from_one_dict": Explanation(
        "Sweeps and tests that start several runs from one checkpoint in memory.",
        "Do not change the dict that load_state_dict is given: copy it first.",
        _TAKES_APART,
    ),
    "resume_at_every_save": Explanation(
        "Jobs that are preempted again and again.", _LOADS_ALL, FORGETS
    ),
    "resume_by_deepcopy": Explanation(
        "Searches that branch a run in memory, and schedulers that are copied with a trainer.",
        "Keep the whole state in attributes, and leave __getstate__ as it is.",
        _COPIES_BADLY,
    ),
    "resume_by_pickle": Explanation(
        "Scripts that pickle the whole trainer, and libraries that send it to other processes.",
        "Keep no lambda or open file in an attribute, and leave __getstate__ as it is.",
        _COPIES_BADLY,
    ),
    "resume_by_last_epoch": Explanation(
        "Scripts that save the epoch and the optimizer alone, and pass last_epoch.",
        "Compute the LR from last_epoch and base_lrs, without a counter of your own.",
        _mine(_COUNT),
    ),
    "resume_built_on_loaded_optimizer": Explanation(
        "Scripts that load the optimizer before they build the scheduler.", _WRITE, KEEPS, _WRITES
    ),
    "resume_by_initial_lr": Explanation(
        "Scripts that build a new optimizer with initial_lr in its groups, as the error about a "
        "missing initial_lr suggests.",
        "Compute the LR from last_epoch and base_lrs, not from the LR of the last step.",
        _mine(_COUNT),
    ),
    "resume_scheduler_alone": Explanation(
        "Scripts that save the scheduler and the model, to save space.", _WRITE, KEEPS, _WRITES
    ),
    "resume_with_other_initial_lrs": Explanation(
        "Scripts whose configured LR was edited before the resume.",
        "Save base_lrs in the state, as LRScheduler does.",
        _mine(_GET_LR, _LAST_EPOCH_ALONE).replace("self.base_lrs", "self.starts").replace(
            "    def get_lr",
            """    def __init__(self, optimizer, last_epoch=-1):
        self.starts = [group["lr"] for group in optimizer.param_groups]
        super().__init__(optimizer, last_epoch)

    def get_lr""",
        ),
    ),
    "resume_in_another_process": Explanation(
        "Everybody: a real restart is a new process.",
        "Keep the whole state in the scheduler, and none in a module or a class.",
        FORGETS,
    ),
    "resume_from_another_process": Explanation(
        "Everybody: a real restart is a new process.",
        "Keep the whole state in the scheduler, and none in a module or a class.",
        FORGETS,
    ),
    "resume_with_changed_options": Explanation(
        "Scripts whose options were edited before the resume: it must be known which ones win.",
        "Save every option, or compute the LR from last_epoch alone; or raise if one differs.",
        _with_options(
            _mine(
                """    def __init__(self, optimizer, gamma=0.5, last_epoch=-1):
        self.first, self.second = gamma, gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self):
        factor = (self.first + self.second) / 2
        return [base * factor**self.last_epoch for base in self.base_lrs]
""",
                """    def state_dict(self):
        return {name: value for name, value in super().state_dict().items() if name != "first"}
""",
            ),
            "{'gamma': 0.5}",
        ),
        _with_options(KEEPS, "{'every': 3}"),
    ),
    "resume_from_legacy_file": Explanation(
        "Users of checkpoints that old versions of torch wrote.", _LOADS_ALL, FORGETS
    ),
    "resume_from_json": Explanation(
        "Trainers that keep their state in JSON beside the weights.",
        "Use strings as the keys of dicts in the state.",
        _NUMBERS_AS_KEYS,
    ),
    "resume_from_distributed_checkpoint": Explanation(
        "Users of FSDP and torch.distributed.checkpoint, which loads into existing keys alone.",
        "Use strings as the keys of dicts in the state, and have every key from the start.",
        _NUMBERS_AS_KEYS,
    ),
    "saving_changes_nothing": Explanation(
        "Everybody who saves: a run with checkpoints must be the run without.",
        "Do not change the scheduler in state_dict.",
        _mine(
            _GET_LR,
            """    def state_dict(self):
        self.last_epoch += 1  # one is counted too many
        return super().state_dict()
""",
        ),
    ),
    "other_schedulers_change_nothing": Explanation(
        "GANs and fine-tuning with two schedulers of one class in one process.",
        "Keep options in the instance, and none in the class or the module.",
        _with_options(
            _mine(
                """    def __init__(self, optimizer, every=3, last_epoch=-1):
        type(self).every = every  # in the class
        super().__init__(optimizer, last_epoch)
""",
                """    def get_lr(self):
        return [base * 0.5 ** (self.last_epoch // self.every) for base in self.base_lrs]
""",
            ),
            "{'every': 3}",
        ),
        _with_options(KEEPS, "{'every': 3}"),
    ),
    "saved_state_is_a_snapshot": Explanation(
        "Whoever keeps the best checkpoint in memory while training goes on.",
        "Return copies of lists, dicts and tensors from state_dict.",
        _mine(
            """    def __init__(self, optimizer, last_epoch=-1):
        self.seen = []
        super().__init__(optimizer, last_epoch)

    def get_lr(self):
        self.seen.append(self.last_epoch)  # every saved state has this list
"""
            + _RATES.format("last_epoch")
        ),
    ),
    "saving_again_gives_the_same_state": Explanation(
        "Loops that save twice, as last.pt and best.pt.",
        "Do not change the scheduler in state_dict.",
        _mine(
            _GET_LR,
            """    def state_dict(self):
        self.saves = getattr(self, "saves", 0) + 1
        return super().state_dict()
""",
        ),
    ),
    "saved_states_are_independent": Explanation(
        "Loops that change a saved state before they write it, and sweeps that keep several.",
        "Return a new dict from each call of state_dict.",
        _mine(
            """    def __init__(self, optimizer, last_epoch=-1):
        self.kept = {}
        super().__init__(optimizer, last_epoch)

"""
            + _GET_LR,
            """    def state_dict(self):
        self.kept["last_epoch"] = self.last_epoch
        return self.kept  # the same dict each time
""",
        ),
    ),
    "loading_leaves_its_argument_alone": Explanation(
        "Scripts that load one checkpoint into two schedulers, or use it after the load.",
        "Do not change the dict that load_state_dict is given: copy it first.",
        _TAKES_APART,
    ),
    "saving_after_loading_is_the_same": Explanation(
        "Chains of jobs, each of which resumes from the checkpoint of the one before.",
        "Load every key that state_dict saves.",
        _mine(
            _GET_LR,
            """    def load_state_dict(self, state):
        self.last_epoch = state["last_epoch"]  # and the other keys?
""",
        ),
    ),
    "public_numbers_go_on": Explanation(
        "Loops, loggers and libraries that read scheduler.last_epoch and numbers like it.",
        "Save every public number that steps count on from.",
        _mine(
            """    def __init__(self, optimizer, last_epoch=-1):
        self.updates = 0  # for a logger
        super().__init__(optimizer, last_epoch)

    def get_lr(self):
        self.updates += 1
"""
            + _RATES.format("last_epoch"),
            _LAST_EPOCH_ALONE,
        ),
    ),
    "state_loads_with_weights_only": Explanation(
        "Everybody who saves with torch.save: since torch 2.6, torch.load refuses other classes.",
        "Keep numbers, strings, lists, dicts and tensors in the state.",
        _OWN_CLASS,
    ),
    "last_lr_is_the_groups_lr": Explanation(
        "Loggers and progress bars, which print get_last_lr().",
        "Leave get_last_lr as it is, or return the LR of the groups.",
        _mine(
            _GET_LR,
            """    def get_last_lr(self):
        return self.base_lrs
""",
        ),
    ),
    "last_lr_goes_on": Explanation(
        "Loggers that print get_last_lr() before the first step of a resumed run.",
        "Save _last_lr, as LRScheduler does.",
        _mine(_GET_LR, _LAST_EPOCH_ALONE),
    ),
    "lr_is_finite": Explanation(
        "Everybody: one step with NaN destroys the weights.",
        "Limit what you divide by, and how far the schedule goes.",
        _mine(
            """    def get_lr(self):
        left = max(6 - self.last_epoch, 0)
        return [base / left if left else float("inf") for base in self.base_lrs]
"""
        ),
    ),
    "lr_is_never_negative": Explanation(
        "Runs that train longer than planned: below 0, the loss rises.",
        "Limit the progress: min(self.last_epoch, total).",
        _mine(
            """    def get_lr(self):
        return [base * (1 - self.last_epoch / 6) for base in self.base_lrs]
"""
        ),
    ),
    "optimizer_state_is_a_snapshot": Explanation(
        "Whoever keeps a checkpoint in memory. PyTorch's optimizers do not promise it.",
        "Save copy.deepcopy(optimizer.state_dict()).",
        KEEPS,
        "import torch\n"
        + KEEPS
        + """

def plain_sgd():  # without momentum it has no state
    return torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)


from harness import Subject

Mine = Subject("Mine", Mine, optimizer=plain_sgd)
""",
    ),
    "failed_load_changes_nothing": Explanation(
        "Scripts that try a checkpoint and fall back to another one.",
        "Read all keys before you set the first attribute.",
        _mine(
            _GET_LR,
            """    def load_state_dict(self, state):
        self.last_epoch = state["last_epoch"]
        self.base_lrs = state["base_lrs"]  # if it is missing, the epoch is already set
""",
        ),
    ),
    "states_of_others_are_refused": Explanation(
        "Whoever picks the wrong file. PyTorch's schedulers do not promise it.",
        "Compare the keys, and the number of LRs, with your own before you load.",
        KEEPS,
        KEEPS
        + """
    def load_state_dict(self, state):
        if set(state) != set(self.state_dict()) or len(state["base_lrs"]) != len(self.base_lrs):
            raise ValueError("this is the state of another scheduler")
        super().load_state_dict(state)
""",
    ),
    "resumes_mixed": Explanation(
        "Long runs, which are resumed in other ways after each change of their script.",
        "Keep one representation of the progress, and load all of it.",
        _mine(
            _GET_LR,
            """    def __setstate__(self, state):
        self.__dict__.update(state, copied=True)

    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.last_epoch -= getattr(self, "copied", False)  # only after a copy
""",
        ),
    ),
}  # fmt: skip
"""The explanation of each check, by its name."""


@functools.cache
def why_decline(name: str) -> str:
    """How to say that a scheduler does not promise a check."""
    return (
        f"declines={{{name!r}: 'why'}} in a Subject or in check_scheduler, --decline '{name}=why' "
        "on the command line, or declines in pyproject.toml. If it is to be mended later, "
        "expected_failures takes the same and fails when it is mended."
    )
