"""anyschedule's scheduler, which takes a dict of schedules."""

from __future__ import annotations

from anyschedule import AnySchedule

from harness.subjects.subject import Subject

SUBJECTS = [
    Subject(
        f"AnySchedule-{mode}", AnySchedule,
        options={"config": {"lr": {"mode": mode, "end": 9, "min_value": 0.01, "warmup": 2}}},
    )
    for mode in ("cosine", "polynomial")
]  # fmt: skip
