"""Schedulers that keep what they need where only this process has it, and one that does not."""

from lr_schedules.correct import Halving

CURVE = [1.0]


def of_curve(epoch):
    """The factor of an epoch, from a table that grows by one a step."""
    if epoch >= len(CURVE):
        CURVE.append(CURVE[-1] / 2)
    return CURVE[min(epoch, len(CURVE) - 1)]


def growing():
    """The same, with the table in a closure."""
    table = [1.0]

    def factor(epoch):
        if epoch >= len(table):
            table.append(table[-1] / 2)
        return table[min(epoch, len(table) - 1)]

    return factor


of_closure = growing()


class InAGlobal(Halving):
    """Its table is in the module."""

    def factor(self):
        return of_curve(self.epoch)


class InTheClass(Halving):
    """Its table is in the class."""

    table = (1.0,)

    def factor(self):
        if self.epoch >= len(self.table):
            type(self).table = (*self.table, self.table[-1] / 2)
        return self.table[min(self.epoch, len(self.table) - 1)]


class InAClosure(Halving):
    """Its table is in a function."""

    def factor(self):
        return of_closure(self.epoch)
