import inspect
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner
from packaging.specifiers import SpecifierSet
from packaging.version import Version
from torch.optim import lr_scheduler, swa_utils
from torch.optim.lr_scheduler import StepLR

from harness import check_subject
from harness.checks.registry import CHECKS, as_check, select_checks
from harness.cli.main import cli
from harness.core.ledger import Ledger, read_ledger, version_of
from harness.engine.one_run import Runner
from harness.subjects.installed import shipped_ledgers
from harness.subjects.known_failures import shipped_failures
from lr_schedules import LinearAnnealingLR
from lr_schedules.subjects import SUBJECTS

BY_NAME = {subject.name: subject for subject in SUBJECTS}
BASE = getattr(lr_scheduler, "LRScheduler", None) or lr_scheduler._LRScheduler

MATRIX = (
    "1.13.1", "2.0.1", "2.2.2", "2.4.1", "2.6.0", "2.7.1", "2.8.0", "2.9.1", "2.10.0", "2.12.1",
    "2.13.0", "2.15.0",
)  # fmt: skip
LEDGER = shipped_failures()
HERE = version_of(torch.__version__)

DECLINES_LAST_EPOCH = (
    "ReduceLROnPlateau", "LambdaLR-stateful", "MultiplicativeLR-stateful", "CyclicLR-stateful",
)  # fmt: skip


def public_schedulers():
    """The schedulers that the installed torch shows, by what their modules hold."""
    found = set()
    for module in (lr_scheduler, swa_utils):
        for name, value in vars(module).items():
            if inspect.isclass(value) and not name.startswith("_") and value is not BASE:
                steps = issubclass(value, BASE) or name == "ReduceLROnPlateau"
                if steps and value.__module__.startswith("torch."):
                    found.add(value)
    return found


def test_every_public_scheduler_of_this_torch_has_a_subject():
    covered = {type(Runner(subject.bind({})).start()[1]) for subject in SUBJECTS}
    assert public_schedulers() - covered == set()
    assert LinearAnnealingLR in covered
    assert len(public_schedulers()) >= 16


def test_a_scheduler_that_torch_adds_is_seen(monkeypatch):
    new = type("NewLR", (BASE,), {"__module__": "torch.optim.lr_scheduler"})
    monkeypatch.setattr(lr_scheduler, "NewLR", new, raising=False)
    assert new in public_schedulers()


def test_names_are_unique():
    assert len(BY_NAME) == len(SUBJECTS)


@pytest.mark.parametrize("name", BY_NAME)
def test_something_happens_within_the_plain_run(name):
    subject = BY_NAME[name]
    plain = Runner(subject.bind({})).uninterrupted("t" * subject.length)
    rates = [tuple(map(str, seen["lr"])) for seen in plain.observations]
    assert len(set(rates)) > 2 or name in ("ConstantLR", "ReduceLROnPlateau")
    assert len(set(rates)) > 1


ON_2_13_0 = pytest.mark.skipif(
    not torch.__version__.startswith("2.13.0"), reason="what is broken differs between releases"
)


def known(name, checks):
    """The checks of a subject that the ledger has an entry on for this torch."""
    names = [check.name for check in checks]
    entries = (entry for check in names for entry in LEDGER.about([name], check))
    return {entry.check for entry in entries if entry.covers(HERE)}


def test_every_entry_names_its_subject_by_reference():
    [ledger] = [one for one in shipped_ledgers() if one.import_name == "lr_schedules"]
    named = {entry.subject for entry in read_ledger([ledger.path]).entries}
    assert named <= {f"lr_schedules.subjects:SUBJECTS.{name}" for name in BY_NAME}


def lose_what_json_changes(monkeypatch):
    """StepLR keeps gamma under an integer key, which JSON turns into a string."""
    original = StepLR.get_lr

    def get_lr(self):
        self.__dict__.setdefault("table", {1: self.gamma})
        self.gamma = self.table.get(1, 1.0)
        return original(self)

    monkeypatch.setattr(StepLR, "get_lr", get_lr)


def test_a_new_break_in_an_opt_in_check_is_seen(monkeypatch):
    arguments = ["check", "StepLR", "--check", "resume_from_json", "--max-examples", "0"]

    def status():
        done = CliRunner().invoke(cli, [*arguments, "--jobs", "0"], standalone_mode=False)
        return done.return_value

    assert status() == 0
    lose_what_json_changes(monkeypatch)
    assert status() == 1


def test_what_the_documentation_does_not_promise_is_declined_with_the_reason():
    """Each of these opt-in checks leaves out a part of the state."""
    for name, subject in BY_NAME.items():
        assert "resume_scheduler_alone" in subject.declines, name
        assert all(len(reason) > 20 for reason in subject.declines.values())


def test_the_ranges_of_the_ledger_are_of_releases_that_were_run():
    """Each begins where `check` found the failure first, and ends before it did not."""
    for entry in LEDGER.entries:
        shown = [version for version in MATRIX if entry.covers(Version(version))]
        first = MATRIX.index(shown[0])
        assert shown == list(MATRIX[first : first + len(shown)]), entry.place
        after = MATRIX[first + len(shown) : first + len(shown) + 1]
        assert set(map(str, entry.torch)) == {f">={shown[0]}", *(f"<{v}" for v in after)}


@pytest.mark.parametrize("name", dict.fromkeys(entry.subject for entry in LEDGER.entries))
def test_the_ledger_is_true_of_this_torch_and_no_range_is_too_short(name):
    checks = {
        entry.check: as_check(entry.check)
        for entry in LEDGER.entries
        if entry.subject == name and entry.covers(HERE)
    }
    subject = replace(BY_NAME[name], drawn=None)  # the traces have their own options
    results = check_subject(subject, checks.values(), ledger=LEDGER, replay_alone=True)
    found = {result.check for result in results if result.verdict == "KNOWN"}
    assert found == known(name, checks.values())


@pytest.mark.skipif(str(HERE) not in MATRIX, reason="the ledger was not made on this release")
def test_entries_moved_by_one_release_are_not_true(monkeypatch):
    """The schedule has several traces; either end of each range is moved."""
    subject = BY_NAME["CosineAnnealingWarmRestarts"]
    checks = [as_check("resume_by_last_epoch")]
    entries = [
        entry
        for entry in LEDGER.entries
        if (entry.subject, entry.check) == (subject.name, checks[0].name)
    ]
    for entry in entries:
        low, high = (replace(entry, torch=SpecifierSet(text)) for text in (f"=={HERE}", "<0.1"))
        moved = high if entry.covers(HERE) else low
        others = tuple(other for other in entries if other is not entry and not other.covers(HERE))
        [result] = check_subject(subject, checks, ledger=Ledger((moved, *others)))
        not_minimal = "its trace is not minimal" in result.reason  # it is on other releases
        assert result.verdict in ("BROKEN", "STALE") or not_minimal, str(entry.torch)


@ON_2_13_0
@pytest.mark.slow
@pytest.mark.parametrize("name", BY_NAME)
def test_what_opt_in_checks_find_on_torch_2_13_0(name):
    checks = [check for check in CHECKS if not check.default]
    results = list(check_subject(BY_NAME[name], checks))
    broken = {result.check for result in results if result.verdict == "BROKEN"}
    assert broken == known(name, checks)
    assert {result.verdict for result in results} <= {"HOLDS", "BROKEN", "DECLINED"}


@ON_2_13_0
@pytest.mark.slow
@pytest.mark.parametrize("name", BY_NAME)
def test_what_check_finds_on_torch_2_13_0(name):
    results = list(check_subject(BY_NAME[name], select_checks()))
    broken = {r.check for r in results if r.verdict == "BROKEN"}
    assert broken == known(name, select_checks())
    declined = {r.check for r in results if r.verdict == "DECLINED"}
    assert declined == ({"resume_by_last_epoch"} if name in DECLINES_LAST_EPOCH else set())
    assert {r.verdict for r in results} <= {"HOLDS", "BROKEN", "DECLINED"}
