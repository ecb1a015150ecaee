"""What installed packages ship, and that the harness knows none of them by name."""

import pytest
from helpers import ROOT

from harness.core.errors import LedgerError, SubjectError
from harness.engine.selftest import Budget, all_jobs
from harness.subjects import installed
from harness.subjects.installed import default_subjects, shipped_ledgers
from harness.subjects.lookup import choose_subjects
from lr_schedules.controls import CONTROLS
from lr_schedules.faults import FAULTS
from lr_schedules.subjects import SUBJECTS


def test_the_harness_does_not_name_the_package_of_schedules():
    named = [
        str(path.relative_to(ROOT))
        for path in (ROOT / "harness").rglob("*")
        if path.is_file() and path.suffix != ".pyc" and b"lr_schedules" in path.read_bytes()
    ]
    assert named == []


def test_ours_arrive_by_entry_points():
    assert [subject.name for subject in default_subjects()] == [s.name for s in SUBJECTS]
    [ledger] = shipped_ledgers()
    assert (ledger.name, ledger.package) == ("PyTorch", "lr-resume-harness")
    assert ledger.path.samefile(ROOT / "lr_schedules" / "known_failures.toml")
    jobs = all_jobs([Budget()], quick=True, aside=())
    assert [job.is_fault for job in jobs] == [False] * len(CONTROLS) + [True] * len(FAULTS)


SHIPS = """
from torch.optim.lr_scheduler import ExponentialLR
from harness import Subject
MINE = Subject("mine", ExponentialLR, options={"gamma": 0.5})
SAME = Subject("StepLR", ExponentialLR, options={"gamma": 0.5})
"""


def test_another_package_can_ship_default_subjects(installed_package):
    points = {"default_subjects": {"more": "ships_more:MINE"}}
    installed_package("ships_more", points, **{"__init__.py": SHIPS})
    names = [subject.name for subject in choose_subjects((), {}).subjects]
    assert names == [*(subject.name for subject in SUBJECTS), "mine"]
    assert choose_subjects(["mine"], {}).subjects[0].reference == "mine"


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("ships_bad:SAME", "'StepLR'.*'ships_bad'"),
        ("ships_bad:NONE", "'ships_bad': ships_bad:NONE"),
    ],
)
def test_default_subjects_that_cannot_be_used_are_refused(installed_package, value, names):
    installed_package("ships_bad", {"default_subjects": {"bad": value}}, **{"__init__.py": SHIPS})
    with pytest.raises(SubjectError, match=names):
        default_subjects()


@pytest.mark.parametrize("value", ["no_such_package:known.toml", "ships_none"])
def test_a_ledger_that_cannot_be_found_is_refused(installed_package, value):
    installed_package("ships_none", {"ledgers": {"bad": value}}, **{"__init__.py": ""})
    with pytest.raises(LedgerError, match=repr(value)):
        shipped_ledgers()


def test_without_any_package_there_is_nothing_to_check(monkeypatch):
    monkeypatch.setattr(installed, "entry_points", lambda group: ())
    with pytest.raises(SubjectError, match="SUBJECT"):
        choose_subjects((), {})
    with pytest.raises(SubjectError, match="planted"):
        all_jobs([Budget()], quick=True, aside=())
