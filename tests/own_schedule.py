"""A scheduler in a module of its own, as a user has it."""

try:
    from torch.optim.lr_scheduler import LRScheduler
except ImportError:  # torch before 2.0
    from torch.optim.lr_scheduler import _LRScheduler as LRScheduler


class Halves(LRScheduler):
    """Halves the LR every `every` epochs, and again when it is resumed there."""

    def __init__(self, optimizer, every, last_epoch=-1):
        self.every = every
        super().__init__(optimizer, last_epoch)

    def get_lr(self):
        factor = 0.5 if self.last_epoch and self.last_epoch % self.every == 0 else 1.0
        return [group["lr"] * factor for group in self.optimizer.param_groups]
