"""Mutants of PyTorch's schedulers whose pair has a ledger entry for another failure."""

import pytest
from torch.optim.lr_scheduler import CyclicLR, MultiStepLR, StepLR
from torch.optim.swa_utils import SWALR

from harness.checks.registry import as_check
from harness.cli.main import cli
from harness.core.result import Budget
from harness.core.verdict import Reason, Verdict
from harness.engine.session import check_subject
from harness.subjects.known_failures import shipped_failures
from harness.subjects.lookup import subject_called

LAST_EPOCH = "resume_by_last_epoch"


def decay_three_times(monkeypatch):
    """When resumed at a decay, StepLR decays three times instead of twice."""
    original = StepLR.get_lr

    def get_lr(self):
        rates = original(self)
        again = self._is_initial and self.last_epoch and self.last_epoch % self.step_size == 0
        return [rate * self.gamma for rate in rates] if again else rates

    monkeypatch.setattr(StepLR, "get_lr", get_lr)


def count_one_epoch_more(monkeypatch):
    """A MultiStepLR that is built with last_epoch reaches its milestones one epoch early."""
    original = MultiStepLR.__init__

    def init(self, optimizer, milestones, gamma=0.1, last_epoch=-1):
        original(self, optimizer, milestones, gamma, last_epoch)
        if last_epoch >= 0:
            self.last_epoch += 1

    monkeypatch.setattr(MultiStepLR, "__init__", init)


def pop_another_key(monkeypatch):
    """CyclicLR's load_state_dict also removes the mode from the given dict."""
    original = CyclicLR.load_state_dict

    def load_state_dict(self, state_dict):
        original(self, state_dict)
        state_dict.pop("mode", None)

    monkeypatch.setattr(CyclicLR, "load_state_dict", load_state_dict)


def halve_when_resumed(monkeypatch):
    """SWALR halves the LR in its constructor if it is built with last_epoch."""
    original = SWALR.__init__

    def init(self, optimizer, *args, last_epoch=-1, **options):
        original(self, optimizer, *args, last_epoch=last_epoch, **options)
        if last_epoch >= 0:
            for group in optimizer.param_groups:
                group["lr"] = group["lr"] * 0.5

    monkeypatch.setattr(SWALR, "__init__", init)


MUTANTS = [
    (decay_three_times, "StepLR", LAST_EPOCH),
    (count_one_epoch_more, "MultiStepLR", LAST_EPOCH),
    (pop_another_key, "CyclicLR", "loading_leaves_its_argument_alone"),
    (halve_when_resumed, "SWALR", LAST_EPOCH),
]


def verdict(subject, check):
    [result] = check_subject(
        subject_called(subject),
        [as_check(check)],
        Budget(max_examples=0),
        ledger=shipped_failures(),
    )
    return result


@pytest.mark.parametrize(("mutate", "subject", "check"), MUTANTS)
def test_a_mutant_behind_an_entry_for_another_failure_is_broken(
    monkeypatch, mutate, subject, check
):
    assert verdict(subject, check).verdict == Verdict.KNOWN
    mutate(monkeypatch)
    found = verdict(subject, check)
    assert (found.verdict, found.why) == (Verdict.BROKEN, Reason.MORE_THAN_LEDGER)
    assert found.counterexample is not None


def test_a_mutant_behind_an_entry_fails_the_run(monkeypatch):
    from click.testing import CliRunner

    def status():
        arguments = ["check", "StepLR", "--check", LAST_EPOCH, "--max-examples", "0", "--jobs", "0"]
        return CliRunner().invoke(cli, arguments, standalone_mode=False).return_value

    assert status() == 0
    decay_three_times(monkeypatch)
    assert status() == 1
