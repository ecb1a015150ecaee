"""speechbrain's scheduler by intervals."""

from __future__ import annotations

import functools

from speechbrain.nnet.schedulers import IntervalScheduler

from harness.subjects.protocols import (
    build_held,
    call_with_optimizer,
    load_from_path,
    save_to_path,
)
from harness.subjects.subject import Subject

SUBJECTS = [
    Subject(
        "IntervalScheduler", functools.partial(build_held, IntervalScheduler),
        options={"intervals": [{"steps": 2, "lr": 0.01}, {"steps": 5, "lr": 0.005}]},
        step=call_with_optimizer, state_dict=save_to_path, load_state_dict=load_from_path,
    )
]  # fmt: skip
