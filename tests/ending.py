"""A schedule with a planned end, and one that forgets it; in a module, so that scripts paste it."""

from harness import Subject
from lr_schedules.correct import Halving


class Ends(Halving):
    """Refuses to go on after five epochs."""

    last = 5

    def step(self):
        if self.epoch >= self.last:
            raise ValueError(f"the schedule ends after {self.last} epochs")
        super().step()


class ForgetsItsEnd(Ends):
    """Goes on for ever once its state was loaded."""

    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.last = 1000


class EndsSooner(Ends):
    """Ends an epoch too soon once its state was loaded."""

    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.last = 4


class SaysAnotherEnd(Ends):
    """Refuses in time, with another reason."""

    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.step = self.refuse

    def refuse(self):
        if self.epoch >= self.last:
            raise KeyError("end")
        Halving.step(self)


SUBJECTS = [
    Subject(cls.__name__, cls, standalone=True)
    for cls in (Ends, ForgetsItsEnd, EndsSooner, SaysAnotherEnd)
]
