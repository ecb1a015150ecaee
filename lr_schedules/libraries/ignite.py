"""ignite's scheduler of a value in the engine's state, with a function."""

from __future__ import annotations

import functools

from ignite.handlers.state_param_scheduler import LambdaStateScheduler

from harness.subjects.protocols import (
    build_held,
    call_with_engine_held,
    load_inner_state,
    save_inner_state,
)
from harness.subjects.subject import Subject


def fall(event_index: int) -> float:
    """An LR that falls with each event."""
    return 0.1 * 0.5**event_index


SUBJECTS = [
    Subject(
        "LambdaStateScheduler", functools.partial(build_held, LambdaStateScheduler),
        options={"lambda_obj": fall, "param_name": "lr", "create_new": True},
        step=call_with_engine_held, state_dict=save_inner_state, load_state_dict=load_inner_state,
    )
]  # fmt: skip
