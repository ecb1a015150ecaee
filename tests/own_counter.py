"""Schedulers that keep their own count and save other things."""

from lr_schedules.linear_annealing import LRScheduler


class OwnCounter(LRScheduler):
    """Counts its steps by itself, and saves other things."""

    def __init__(self, optimizer, last_epoch=-1):
        self.count, self.unread, self.lists = 0, 0, [0]
        super().__init__(optimizer, last_epoch)

    @property
    def factor(self):
        return max(half * 0.5**self.count for half in (1, 0.5))

    def get_lr(self):
        self.count += 1
        setattr(self, "unread", self.count)  # noqa: B010 (no method names it)
        self.lists = [self.count]
        return [base * self.factor for base in self.base_lrs]

    def state_dict(self):
        return {"last_epoch": self.last_epoch, "lists": self.lists}

    def load_state_dict(self, state):
        self.last_epoch = state["last_epoch"]


class ForgetsOnLoad(OwnCounter):
    def state_dict(self):
        return {**super().state_dict(), "count": self.count}


class RaisesOnLoad(OwnCounter):
    def load_state_dict(self, state):
        raise ValueError("no")
