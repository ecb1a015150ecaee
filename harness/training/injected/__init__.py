"""Modules that run inside the user's training process, or alone; they import nothing of harness.

``sitecustomize`` is found because this folder is first on ``PYTHONPATH``. All of them must run on
every Python and torch that a training script may use: CPython 3.8 and torch 1.13.1 or later.
"""
