import json
import sys
import textwrap

import pytest
import torch
from inline_snapshot import snapshot
from wrapped import wrapped

from harness import SubjectError, replay
from harness.core.references import is_package
from harness.subjects.discover import subjects_of
from harness.subjects.installed import SUBJECTS as GROUP
from harness.subjects.installed import shipped_selection
from harness.subjects.lookup import choose_subjects

SCHEDULES = """
    from typing import List, Literal, Optional, Union
    from torch.optim.lr_scheduler import ExponentialLR, ReduceLROnPlateau, StepLR
    from torch.optim.lr_scheduler import _LRScheduler as LRScheduler

    class Factor(LRScheduler):
        "No schedule of its own."

        def __init__(self, optimizer, last_epoch=-1):
            super().__init__(optimizer, last_epoch)

        def get_lr(self):
            factor = self.factor() ** max(self.last_epoch, 0)
            return [lr * factor for lr in self.base_lrs]

        def factor(self):
            raise NotImplementedError

    class Shrinks(Factor):
        def factor(self):
            return 0.5

    class OnlyALR(LRScheduler):
        "Nothing but what is inherited."

    class _Hidden(StepLR):
        pass

    class Hinted(Shrinks):
        def __init__(self, optimizer, every: int, by: float, how: Literal["a", "b"],
                     at: List[int], maybe: Optional[int], either: Union[int, float],
                     flag: bool, pair: "tuple[int, float]", last_epoch: int = -1):
            if every > 6:
                raise ValueError("too rarely")
            assert isinstance(every, int) and isinstance(by, float) and how in "ab"
            assert all(isinstance(one, int) for one in at) and isinstance(flag, bool)
            assert isinstance(pair[1], float) and len(pair) == 2
            self.given = [every, by, how, at, maybe, either, flag, pair]
            super().__init__(optimizer, last_epoch)

    class Plateau(ReduceLROnPlateau):
        pass

    class Unhinted(Shrinks):
        def __init__(self, optimizer, total, last_epoch=-1):
            super().__init__(optimizer, last_epoch)

    class OfAFunction(Shrinks):
        def __init__(self, optimizer, total: int, name: str, last_epoch=-1):
            super().__init__(optimizer, last_epoch)

    class Refuses(Shrinks):
        def __init__(self, optimizer, total: int):
            raise ValueError("total must be 100")

    class NeedsALoss(Shrinks):
        def step(self, loss=None, *, scale):
            super().step()
"""
BROKEN = """
    from torch.optim.lr_scheduler import _LRScheduler

    class StepLR(_LRScheduler):
        "Halves again when it is built."

        def __init__(self, optimizer, every: int, last_epoch=-1):
            self.every = every
            super().__init__(optimizer, last_epoch)

        def get_lr(self):
            factor = 0.5 if self.last_epoch and self.last_epoch % self.every == 0 else 1.0
            return [group["lr"] * factor for group in self.optimizer.param_groups]
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Writes modules of a package; it and they are forgotten at the end."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(name, **modules):
        folder = tmp_path / name
        folder.mkdir()
        for module, text in {"__init__": "", **modules}.items():
            (folder / f"{module}.py").write_text(textwrap.dedent(text))
        return folder

    yield write
    for name in [name for name in sys.modules if name.startswith("pkg_")]:
        del sys.modules[name]


def test_every_scheduler_of_a_package_is_found(package):
    inner = package("pkg_all", schedules=SCHEDULES, broken=BROKEN) / "inner"
    inner.mkdir()
    (inner / "__init__.py").write_text("")
    (inner / "deep.py").write_text(
        "from pkg_all.schedules import Hinted, Shrinks\nclass Deeper(Shrinks):\n    pass\n"
    )
    found = subjects_of("pkg_all", ["StepLR"])
    assert {subject.name: subject.reference for subject in found.subjects} == {
        "pkg_all.broken:StepLR": "pkg_all.broken:StepLR",  # another is listed
        "Shrinks": "pkg_all.schedules:Shrinks",
        "Hinted": "pkg_all.schedules:Hinted",
        "Plateau": "pkg_all.schedules:Plateau",
        "Deeper": "pkg_all.inner.deep:Deeper",
        "Unhinted": "pkg_all.schedules:Unhinted",  # its name says what 'total' is
    }
    missed = {one.what.partition(":")[2]: one for one in found.missed}
    assert {name: one.kwargs for name, one in missed.items()} == {
        "OfAFunction": "name=4", "Refuses": "", "NeedsALoss": "",
    }  # fmt: skip
    assert [note.partition(" ")[0] for note in found.notes] == [
        "pkg_all.schedules:Factor", "pkg_all.schedules:OnlyALR",
    ]  # fmt: skip


def test_the_wording_of_what_is_not_checked(package):
    package("pkg_words", schedules=SCHEDULES)
    found = subjects_of("pkg_words")
    lines = [*found.notes, *map(str, found.missed)]
    assert wrapped(lines) == snapshot("""\
pkg_words.schedules:Factor is not checked: it is there to inherit from
pkg_words.schedules:OnlyALR is not checked: it has no get_lr and no step
NOT CHECKED pkg_words.schedules:OfAFunction: its required 'name' has the type str, for which no
    values are known
  Check it with: lr-resume-harness check pkg_words.schedules:OfAFunction --kwargs name=4
  or add to a module, and check it as MODULE:SUBJECT:
    from harness.subjects.subject import subject_from
    from pkg_words.schedules import OfAFunction
    SUBJECT = subject_from(OfAFunction, options={'name': 4})
NOT CHECKED pkg_words.schedules:Refuses: ValueError: total must be 100
NOT CHECKED pkg_words.schedules:NeedsALoss: its step needs 'scale': write a 'step' that gives it\
""")


def test_the_lines_for_what_cannot_be_built_build_it(package):
    package("pkg_lines", schedules=SCHEDULES)
    missed = {one.what: one for one in subjects_of("pkg_lines").missed}
    need = "lr-resume-harness check pkg_lines.schedules:OfAFunction --kwargs name=4\n  or add to"
    assert need in str(missed["pkg_lines.schedules:OfAFunction"])
    names = {}
    exec("\n".join(missed["pkg_lines.schedules:OfAFunction"].lines), names)
    assert names["SUBJECT"].bind({"total": 1}).options == {"total": 1, "name": 4}


def test_modules_that_cannot_be_imported_are_noted_and_the_others_checked(package, command):
    package(
        "pkg_partly",
        good="from torch.optim.lr_scheduler import ExponentialLR\n"
        "class Good(ExponentialLR):\n"
        "    def __init__(self, optimizer, last_epoch=-1):\n"
        "        super().__init__(optimizer, 0.5, last_epoch)\n",
        bad="import nothing_of_this_name",
        raises="raise RuntimeError('at import')",
        exits="print('hello'); import sys; sys.exit(0)",
        __main__="raise RuntimeError('it was run')",
    )
    status, printed, errors = command(
        "check", "pkg_partly", "--check", "resume_optimizer_then_scheduler", "--max-examples", 0
    )
    assert (status, " 1 HOLDS, 0 BROKEN" in printed) == (0, True)
    *notes, left_out = subjects_of("pkg_partly").notes
    assert "pkg_partly.__main__" in left_out
    assert [note.split()[0] for note in notes] == [
        f"pkg_partly.{name}" for name in ("bad", "exits", "raises")
    ]
    for note, error in zip(
        notes, ("ModuleNotFoundError", "SystemExit", "RuntimeError"), strict=True
    ):
        assert error in note
        assert f"note: {note}\n" in errors
    [heard] = [line for line in errors.splitlines() if "hello" in line]
    assert heard.startswith("pkg_partly.exits: its output is not shown")
    assert "hello" not in printed
    assert "it was run" not in printed + errors


def test_a_class_that_cannot_be_looked_at_is_noted_once(package):
    hostile = (
        "class Meta(type):\n    def __getattr__(cls, name): raise RuntimeError('hands off')\n"
        "class HostileLR(metaclass=Meta):\n    def step(self): pass\n"
    )
    package("pkg_hostile", hostile=hostile, again="from .hostile import HostileLR", broken=BROKEN)
    found = subjects_of("pkg_hostile")
    assert [each.name for each in found.subjects] == ["StepLR"]
    assert found.notes == (
        "pkg_hostile.hostile:HostileLR is not checked: looking at it raises "
        "RuntimeError: hands off",
    )


def test_a_package_with_a_broken_scheduler_is_red(package, command):
    package("pkg_red", broken=BROKEN)
    status, printed, _ = command("check", "pkg_red", "--check", "resume_by_last_epoch")
    assert status == 1
    assert "BROKEN pkg_red.broken:StepLR: resume_by_last_epoch" in printed
    trace = "every=1 train:1 save:a resume:a"
    assert f'replay pkg_red.broken:StepLR resume_by_last_epoch "{trace}"' in printed
    assert replay("pkg_red.broken:StepLR", "resume_by_last_epoch", trace).verdict == "BROKEN"


def test_a_class_that_cannot_be_built_is_not_a_pass(package, command, tmp_path):
    package("pkg_missed", schedules=SCHEDULES)
    file = tmp_path / "out.json"
    status, printed, _ = command(
        "check",
        "pkg_missed",
        "--check",
        "resume_optimizer_then_scheduler",
        "--max-examples",
        0,
        "--json",
        file,
    )
    assert status == 2
    assert "NOT CHECKED pkg_missed.schedules:Refuses: ValueError: " in printed
    assert "    from pkg_missed.schedules import OfAFunction\n" in printed
    assert "4 HOLDS, 0 BROKEN" in printed
    assert "pkg_missed.schedules:OfAFunction" in json.loads(file.read_text())["not_checked"]
    status, printed, _ = command("list", "pkg_missed.schedules")
    assert status == 0
    assert "  Hinted    pkg_missed.schedules.Hinted every=... by=..." in printed
    assert "NOT CHECKED pkg_missed.schedules:OfAFunction" in printed


def test_a_package_in_which_nothing_can_be_built_is_not_a_pass(package, command):
    package(
        "pkg_none",
        only="from torch.optim.lr_scheduler import StepLR\n"
        "class Only(StepLR):\n    def __init__(self, optimizer, thing): raise KeyError\n",
    )
    status, printed, _ = command("check", "pkg_none")
    assert status == 2
    [missed] = subjects_of("pkg_none").missed
    assert (missed.what, missed.kwargs) == ("pkg_none.only:Only", "")
    assert f"{missed}\n" in printed
    status, printed, _ = command("check", "pkg_none", "--ci", "github")
    assert status == 2
    assert f"::error title=NOT CHECKED pkg_none.only%3AOnly::{missed.why}\n" in printed


def test_mistakes_are_refused(package, command):
    package("pkg_empty", module="from torch.optim.lr_scheduler import StepLR")
    package("pkg_raises", __init__="raise RuntimeError('no')")
    messages = []
    for arguments in (
        ("pkg_empty",),
        ("pkg_raises",),
        ("pkg_raises.inner",),
        ("pkg_empty", "--kwargs", "a=1"),
        ("StepLr",),
    ):
        status, printed, errors = command("check", *arguments)
        assert (status, printed) == (2, "")
        messages.append(errors)
    assert wrapped(messages) == snapshot("""\
error: 'pkg_empty' defines no scheduler: nothing in it is built on an optimizer and has a way to
    step that is known. Name a scheduler of another kind as MODULE:NAME
error: cannot import 'pkg_raises' (RuntimeError: no)
error: cannot import 'pkg_raises' for 'pkg_raises:inner' (RuntimeError: no)
error: 'pkg_empty' defines no scheduler: nothing in it is built on an optimizer and has a way to
    step that is known. Name a scheduler of another kind as MODULE:NAME
error: no subject, package or module is called 'StepLr': did you mean StepLR? Name your own
    scheduler as MODULE:NAME or FILE.py:NAME\
""")


def test_a_listed_name_is_preferred_to_a_package(package):
    package("StepLR", module=SCHEDULES)
    assert is_package("StepLR")
    [subject] = choose_subjects(["StepLR"], {}).subjects
    assert subject.build is torch.optim.lr_scheduler.StepLR


# ----------------------------------------------------------------------- installed subjects


@pytest.fixture
def installed(package, tmp_path):
    """Installs a package: its modules and its entry points."""

    def install(name, points, **modules):
        package(name, **modules)
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = "".join(f"{point} = {value}\n" for point, value in points.items())
        (info / "entry_points.txt").write_text(f"[{GROUP}]\n{lines}")

    return install


SHIPPED = """
    from torch.optim.lr_scheduler import ExponentialLR
    from harness import Subject

    class Decays(ExponentialLR):
        def __init__(self, optimizer, last_epoch=-1):
            super().__init__(optimizer, 0.5, last_epoch)

    ONE = Subject("one", Decays)
    MANY = [Subject("first", Decays), Subject("second", Decays)]

    def made():
        return [Subject("made", Decays)]

    def fails():
        raise KeyError("no such file")

    NUMBER = 5
"""


def test_what_packages_ship_is_checked(installed, command):
    points = {name: f"pkg_ships.subjects:{name}" for name in ("ONE", "MANY", "made", "Decays")}
    installed("pkg_ships", points, subjects=SHIPPED)
    found = shipped_selection()
    assert [(subject.name, subject.reference) for subject in found.subjects] == [
        ("Decays", "pkg_ships.subjects:Decays"),
        ("first", "pkg_ships.subjects:MANY.first"),
        ("second", "pkg_ships.subjects:MANY.second"),
        ("one", "pkg_ships.subjects:ONE"),
        ("made", ""),
    ]
    assert found.missed == ()
    status, printed, _ = command(
        "check", "--installed", "--check", "resume_optimizer_then_scheduler", "--max-examples", 0
    )
    assert status == 0
    assert "5 subjects, 1 check: 5 HOLDS" in printed
    status, printed, _ = command("list", "--installed")
    assert (status, "  second  pkg_ships.subjects.Decays\n" in printed) == (0, True)


def test_an_entry_point_that_cannot_be_loaded_names_its_package(installed, command):
    installed("pkg_good", {"good": "pkg_good.subjects:ONE"}, subjects=SHIPPED)
    installed(
        "pkg_bad",
        {"gone": "pkg_bad.subjects:GONE", "fails": "pkg_bad.subjects:fails",
         "number": "pkg_bad.subjects:NUMBER", "missing": "pkg_missing:X"},
        subjects=SHIPPED,
    )  # fmt: skip
    status, printed, _ = command(
        "check", "--installed", "--check", "resume_optimizer_then_scheduler", "--max-examples", 0
    )
    assert status == 2
    assert "1 subject, 1 check: 1 HOLDS" in printed
    expected = {
        "fails": ("pkg_bad.subjects:fails", "KeyError"),
        "gone": ("pkg_bad.subjects:GONE", "AttributeError"),
        "missing": ("pkg_missing:X", "ModuleNotFoundError"),
        "number": ("pkg_bad.subjects:NUMBER", "SubjectError"),
    }
    for one, (point, names) in zip(shipped_selection().missed, expected.items(), strict=True):
        assert all(name in one.what for name in (f"'{point}'", "'pkg_bad'"))
        assert all(name in one.why for name in names)
        assert f"{one}\n" in printed


def test_without_installed_subjects_there_is_nothing_to_check(command):
    with pytest.raises(SubjectError, match=GROUP):
        shipped_selection()
    status, printed, errors = command("check", "--installed")
    assert (status, printed) == (2, "")
    assert GROUP in errors
