"""Groups of check names that many faults share."""

__all__ = [
    "AT_ANY_TIME",
    "EVERY_LOAD",
    "EVERY_LOAD_BUT_JSON",
    "INTO_A_NEW_SCHEDULER",
    "LOADED_AFTER_OPTIMIZER",
    "SWEPT",
]

INTO_A_NEW_SCHEDULER = (
    "resume_optimizer_then_scheduler",
    "resume_scheduler_then_optimizer",
    "resume_from_file",
    "resume_from_legacy_file",
    "resume_from_json",
    "resume_twice_from_one_dict",
    "resume_built_on_loaded_optimizer",
    "resume_scheduler_alone",
)
"""The checks that load any older state into a new scheduler."""

AT_ANY_TIME = (*INTO_A_NEW_SCHEDULER, "roll_back_in_place", "resume_at_every_save")
"""The checks that go on from a loaded state, and that are searched, so the moment may be rare."""

SWEPT = ("resume_from_distributed_checkpoint",)
"""The checks that load a state only at a few epochs, because they are slow."""

EVERY_LOAD = (*AT_ANY_TIME, *SWEPT)
"""The checks that go on from a loaded state."""

EVERY_LOAD_BUT_JSON = tuple(name for name in EVERY_LOAD if name != "resume_from_json")
"""The same, for a state that cannot be written as JSON."""

LOADED_AFTER_OPTIMIZER = (
    "resume_optimizer_then_scheduler",
    "resume_from_file",
    "resume_from_legacy_file",
    "resume_from_json",
    "resume_from_distributed_checkpoint",
    "roll_back_in_place",
    "resume_twice_from_one_dict",
    "resume_at_every_save",
)
"""The checks that load the optimizer's state before the scheduler's, and build neither between."""
