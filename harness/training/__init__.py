"""Real training scripts: record an unmodified command, resume it from every checkpoint, compare.

A SIGKILL after an optimizer step leaves on disk what the last save left. So one run is recorded
with a snapshot of the checkpoints after every step, and resumed once from each distinct snapshot.
"""
