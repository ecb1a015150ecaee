"""The names of checks that many faults have in common."""

__all__ = ["EVERY_LOAD", "IN_A_NEW_PROCESS"]

IN_A_NEW_PROCESS = (
    "resume_optimizer_then_scheduler",
    "resume_scheduler_then_optimizer",
    "resume_from_file",
    "resume_twice_from_one_dict",
    "resume_built_on_loaded_optimizer",
    "resume_scheduler_alone",
)
"""The checks that load any older state into a scheduler that was built anew."""

EVERY_LOAD = (*IN_A_NEW_PROCESS, "roll_back_in_place", "resume_at_every_save")
"""The checks that go on from a state that was loaded."""
