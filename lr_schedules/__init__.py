"""Learning-rate schedules: our own, and PyTorch's as subjects of the harness."""

from lr_schedules.linear_annealing import LinearAnnealingLR

__all__ = ["LinearAnnealingLR"]
