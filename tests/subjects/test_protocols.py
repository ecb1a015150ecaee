"""Schedulers of other kinds than PyTorch's: how they are found, built, stepped and saved."""

import sys
import textwrap

import pytest

from harness.checks.registry import as_check
from harness.core.errors import SubjectError
from harness.core.result import Budget
from harness.engine.session import check_subject
from harness.subjects import protocols
from harness.subjects.adapt import adapt
from harness.subjects.discover import subjects_of
from harness.subjects.lookup import choose_subjects
from harness.subjects.protocols import PROTOCOLS, Look, Protocol, protocols_of
from harness.subjects.subject import subject_from
from harness.subjects.type_hints import hints_of, numbers_by_name, texts_compared

KINDS = '''
    """Each scheduler halves the LR every second step, in the manner of some library."""

    from __future__ import annotations

    import enum
    import json
    from typing import TYPE_CHECKING, Callable, Optional, Union

    if TYPE_CHECKING:
        from nowhere import Elsewhere
        from torch.optim import Optimizer

    class Base:
        def __init__(self, optimizer: Optimizer, factor: float):
            self.optimizer, self.factor, self.count = optimizer, factor, 0

        def go_on(self):
            self.count += 1
            if self.count % 2 == 0:
                for group in self.optimizer.param_groups:
                    group["lr"] *= self.factor

        def state_dict(self):
            return {"count": self.count}

        def load_state_dict(self, state):
            self.count = state["count"]

    class PlainScheduler(Base):
        def step(self):
            self.go_on()

    class MetricScheduler(Base):
        def step(self, metrics, epoch=None):
            assert isinstance(metrics, float)
            self.go_on()

    class LossesScheduler(Base):
        def __init__(self, optimizer, factor, monitor="loss"):
            super().__init__(optimizer, factor)

        def step(self, metrics=None):
            assert isinstance(metrics["loss"], float)
            self.go_on()

    class EpochScheduler(Base):
        def step(self, epoch: int, metric: Optional[float] = None):
            assert epoch == self.count + 1 and isinstance(metric, float)
            self.go_on()

    class IncrementScheduler(Base):
        def step(self, increment):
            assert increment == 1
            self.go_on()

    class EngineScheduler(Base):
        def __call__(self, engine, name=None):
            assert engine.state.metrics
            self.go_on()

    class CalledScheduler:
        """Sets the LR of the optimizer that it is called with, and writes to a path."""

        def __init__(self, lr_initial):
            self.rate = lr_initial

        def __call__(self, opt):
            self.rate *= 0.5
            for group in opt.param_groups:
                group["lr"] = self.rate

        def save(self, path):
            with open(path, "w") as file:
                json.dump(self.rate, file)

        def load(self, path, end_of_epoch=False):
            with open(path) as file:
                self.rate = json.load(file)

    class ValueScheduler:
        """Returns the old LR and the new one; it has no state, and needs none."""

        def __call__(self, current_epoch):
            return 1.0, 1 / (1 + current_epoch)

    class Forgetful:
        """Has no state_dict."""

        def __init__(self, optimizer, warmup_steps):
            self.optimizer, self.count, self.total = optimizer, 0, warmup_steps

        def get_lr(self):
            return self.optimizer.param_groups[0]["lr"]

        def step(self):
            self.count += 1
            for group in self.optimizer.param_groups:
                group["lr"] = 1 / (self.total + self.count)

    class Indexed(Base):
        """Resumes with last_step=k after k steps."""

        def __init__(self, optimizer, factor, last_step=-1):
            super().__init__(optimizer, factor)
            self.count = max(last_step, 0)

        def step(self):
            self.go_on()

        def get_last_lr(self):
            return [group["lr"] for group in self.optimizer.param_groups]

    class Shape(enum.Enum):
        FALLING = "falling"
        FLAT = "flat"

    class Shaped(Base):
        """Its hints are read one by one, and one of them can't be read."""

        def __init__(self, optimizer: Optimizer, shape: Shape, fn: Callable[[int], float],
                     at: Elsewhere | None = None, mode="a", after_scheduler=None):
            assert isinstance(shape, Shape) and isinstance(fn(1), float) and mode in ("a", "b")
            super().__init__(optimizer, 0.5)
            self.after_scheduler = after_scheduler

        def get_lr(self):
            return 0.1

        def step(self):
            self.go_on()

    def get_plain_schedule(optimizer, num_warmup_steps: Optional[int] = None, min_lr=None):
        if num_warmup_steps is None:
            raise ValueError("num_warmup_steps must be given")
        return PlainScheduler(optimizer, 0.5)

    def get_scheduler(name: Union[str, Shape], optimizer):
        return PlainScheduler(optimizer, {"falling": 0.5, "flat": 0.9}[name])

    def get_scheduler_config(name):
        return {}

    class StrangeScheduler(Base):
        def step(self, model_output, timestep):
            self.go_on()

    class OpaqueScheduler(PlainScheduler):
        def __init__(self, optimizer, thing):
            super().__init__(optimizer, 0.5)
            self.thing = thing + 1
'''
STEPPED = {
    "MetricScheduler": "step(metric)",
    "LossesScheduler": "step({'loss': metric})",
    "EpochScheduler": "step(epoch, metric)",
    "IncrementScheduler": "step(1)",
    "EngineScheduler": "scheduler(engine)",
    "CalledScheduler": "scheduler(optimizer)",
    "ValueScheduler": "lr = scheduler(epoch)",
}


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kinds")
    (folder / "pkg_kinds.py").write_text(textwrap.dedent(KINDS))
    sys.path.insert(0, str(folder))
    yield subjects_of("pkg_kinds")
    sys.path.remove(str(folder))
    sys.modules.pop("pkg_kinds")


def subject(kinds, name):
    return next(each for each in kinds.subjects if each.name == name)


def test_every_kind_is_found_and_stepped_as_its_signature_demands(kinds):
    found = {each.name: each.notes for each in kinds.subjects}
    assert set(found) == {
        *STEPPED, "PlainScheduler", "Forgetful", "Indexed", "Shaped", "get_plain_schedule",
        "get_scheduler",
    }  # fmt: skip
    for name, stepped in STEPPED.items():
        assert f"stepped as {stepped}" in found[name]
    assert not any("stepped" in note for note in found["PlainScheduler"])


@pytest.mark.parametrize("name", [*STEPPED, "PlainScheduler", "get_plain_schedule"])
def test_a_correct_scheduler_of_each_kind_holds(kinds, name):
    checks = [as_check(each) for each in ("resume_optimizer_then_scheduler", "resume_by_pickle")]
    results = list(check_subject(subject(kinds, name), checks, budget=Budget(0)))
    assert [each.verdict for each in results] == ["HOLDS", "HOLDS"]


def test_what_is_not_checked_is_listed_with_the_reason(kinds):
    missed = {one.what.partition(":")[2]: one.why for one in kinds.missed}
    assert missed == {
        "StrangeScheduler": "its step needs 'model_output': write a 'step' that gives it",
        "OpaqueScheduler": "its required 'thing' has no type hint",
    }


def test_the_printed_lines_work_as_they_stand(kinds):
    [opaque] = [one for one in kinds.missed if one.what.endswith(":OpaqueScheduler")]
    names = {}
    exec("\n".join(opaque.lines), names)
    [result] = check_subject(
        names["SUBJECT"], [as_check("resume_optimizer_then_scheduler")], budget=Budget(0)
    )
    assert result.verdict == "HOLDS"
    assert opaque.kwargs == "thing=4"
    assert f"check {opaque.what} --kwargs thing=4" in str(opaque)
    assert all(one.lines == () for one in kinds.missed if one is not opaque)


def test_a_scheduler_without_a_state_is_one_failure(kinds):
    checks = [as_check(each) for each in ("resume_optimizer_then_scheduler", "resume_from_file")]
    forgetful = subject(kinds, "Forgetful")
    results = list(check_subject(forgetful, checks, budget=Budget(0)))
    assert [each.verdict for each in results] == ["BROKEN", "DECLINED"]
    assert "it has no state_dict" in results[1].reason
    assert "has no state_dict, so nothing of it is in a checkpoint" in forgetful.notes


def test_the_convention_of_an_index_is_found(kinds):
    indexed = subject(kinds, "Indexed")
    assert "resumes with last_step=k after k steps" in indexed.notes
    [result] = check_subject(indexed, [as_check("resume_by_last_epoch")], budget=Budget(0))
    assert result.verdict == "HOLDS"


class CountsItself:
    """Halves the LR at each step; its last_epoch is the number of steps that were made."""

    def __init__(self, optimizer, last_epoch=-1):
        self.optimizer, self.count = optimizer, max(last_epoch, 0)

    def step(self):
        self.count += 1
        for group in self.optimizer.param_groups:
            group["lr"] = (0.1 if self.count < 3 else 0.05) * 0.5**self.count

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]


class ForgetsTheCount(CountsItself):
    """Ignores last_epoch."""

    def __init__(self, optimizer, last_epoch=-1):
        super().__init__(optimizer)


@pytest.mark.parametrize(
    ("made", "note", "verdict"),
    [
        (CountsItself, ["resumes with last_epoch=k after k steps"], "HOLDS"),
        (ForgetsTheCount, [], "BROKEN"),
    ],
)
def test_the_convention_of_last_epoch_is_found_too(made, note, verdict):
    subject = subject_from(made)
    assert [text for text in subject.notes if "resumes with" in text] == note
    [result] = check_subject(subject, [as_check("resume_by_last_epoch")], budget=Budget(0))
    assert result.verdict == verdict


def test_where_no_index_can_be_tried_the_convention_is_called_a_guess():
    class Ends:
        """Raises at the third step, and is no scheduler of torch's."""

        def __init__(self, optimizer, last_step=-1):
            self.optimizer, self.count = optimizer, last_step

        def step(self):
            self.count += 1
            if self.count == 2:
                raise RuntimeError("it is over")
            for group in self.optimizer.param_groups:
                group["lr"] /= 2

        def state_dict(self):
            return {"count": self.count}

        def load_state_dict(self, state):
            self.count = state["count"]

    guess = "a guess: an uninterrupted run of 12 epochs raises RuntimeError: it is over"
    assert f"resumes with last_step=k-1 after k steps, {guess}" in adapt(Ends, {}).notes


def test_a_hint_that_cannot_be_read_loses_only_itself(kinds):
    shaped = subject(kinds, "Shaped")
    assert {"shape", "fn", "after_scheduler"} == set(shaped.options)
    hints = hints_of(sys.modules["pkg_kinds"].Shaped)
    assert hints["at"].text == "Elsewhere | None"
    assert hints["optimizer"].__name__ == "Optimizer"
    assert texts_compared(sys.modules["pkg_kinds"].Shaped, "mode") == ["a", "b"]


def test_what_an_exception_asks_for_is_drawn(kinds):
    assert set(subject(kinds, "get_plain_schedule").options) == {"num_warmup_steps"}
    assert set(subject(kinds, "get_scheduler").options) == {"name"}


@pytest.mark.parametrize(
    "name", ["total_steps", "num_warmup_steps", "T_max", "gamma", "factor", "power", "min_lr"]
)
def test_numbers_are_drawn_by_their_names(name):
    assert numbers_by_name(name).guessed


def test_names_that_say_nothing_are_not_guessed():
    assert numbers_by_name("thing") is None


def test_options_for_a_package_are_for_those_that_take_them(kinds):
    found = choose_subjects(["pkg_kinds"], {"factor": 0.25}).subjects
    given = {each.name for each in found if each.options.get("factor") == 0.25}
    assert given == {*list(STEPPED)[:5], "PlainScheduler", "Indexed"}
    with pytest.raises(SubjectError, match="takes the option 'nothing'"):
        choose_subjects(["pkg_kinds"], {"nothing": 1})


def test_a_package_can_add_a_protocol(monkeypatch, kinds):
    class Point:
        name = "strange"

        def load(self):
            return self.value

    def step(scheduler, epoch):
        scheduler.step(None, epoch)

    point = Point()
    monkeypatch.setattr(protocols, "entry_points", lambda group: [point])
    point.value = Protocol("step(None, epoch)", step, lambda look: look.needs("step") != "")
    protocols.known_protocols.cache_clear()
    try:
        strange = subject_from(sys.modules["pkg_kinds"].StrangeScheduler)
        assert (strange.step, strange.notes) == (step, ("stepped as step(None, epoch)",))
        point.value = 5
        protocols.known_protocols.cache_clear()
        with pytest.raises(SubjectError, match=r"'strange' .* must name a .*Protocol \(got 5\)"):
            subject_from(sys.modules["pkg_kinds"].StrangeScheduler)
    finally:
        protocols.known_protocols.cache_clear()


def test_a_scheduler_that_two_protocols_fit_says_which_was_taken(monkeypatch, kinds):
    another = Protocol("as ever", print, lambda look: look.has("step"))
    monkeypatch.setattr(protocols, "known_protocols", lambda: (*PROTOCOLS, another))
    [note] = subject_from(sys.modules["pkg_kinds"].MetricScheduler).notes
    assert note == (
        "stepped as step(metric) (as ever would fit as well: give a Subject a 'step' to choose)"
    )


def test_no_two_protocols_of_ours_fit_one_scheduler(kinds):
    module = sys.modules["pkg_kinds"]
    for name in (*STEPPED, "PlainScheduler", "Forgetful", "Indexed", "Shaped"):
        cls = getattr(module, name)
        options = frozenset(cls.__init__.__code__.co_varnames if name != "ValueScheduler" else ())
        assert len(list(protocols_of(Look(cls, options)))) == 1, name


# ------------------------------------------------------------------------------ what is imported


def test_only_modules_that_may_hold_schedulers_are_imported(tmp_path, monkeypatch):
    folder = tmp_path / "pkg_modules"
    (folder / "tests").mkdir(parents=True)
    plain = (
        "class PlainScheduler:\n    def __init__(self, optimizer): pass\n    def step(self): pass"
    )
    texts = {
        "__init__": "", "good": f"import sys\nprint('x', file=sys.stderr)\n{plain}",
        "setup": "raise SystemExit", "test_it": "raise SystemExit", "tests/__init__": "1 / 0",
        "latin": "# coding: utf-8\nx = '\xff'", "circle": "import pkg_modules.circle_2",
        "circle_2": "from pkg_modules.circle import nothing",
    }  # fmt: skip
    for name, text in texts.items():
        (folder / f"{name}.py").write_bytes(text.encode("latin-1"))
    monkeypatch.syspath_prepend(tmp_path)
    tried = []
    found = subjects_of("pkg_modules", trying=tried.append)
    assert [each.name for each in found.subjects] == ["PlainScheduler"]
    assert "pkg_modules.good" in tried
    assert not any("test" in name or "setup" in name for name in tried)
    said = "\n".join(found.notes)
    for name, why in (("latin", "SyntaxError"), ("circle", "ImportError")):
        assert f"pkg_modules.{name} cannot be imported ({why}" in said
    assert "there to be run: pkg_modules.setup, pkg_modules.test_it, pkg_modules.tests" in said
    skipped = subjects_of("pkg_modules", skip={"pkg_modules.circle": "it dies"})
    assert "pkg_modules.circle is not imported: it dies" in skipped.notes


def test_a_module_that_only_offers_what_others_define_is_followed(tmp_path, monkeypatch, kinds):
    (tmp_path / "pkg_offers.py").write_text(
        "from pkg_kinds import PlainScheduler, MetricScheduler\n__all__ = ['PlainScheduler']\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert [each.name for each in subjects_of("pkg_offers").subjects] == ["PlainScheduler"]


def test_subjects_in_a_module_are_found(tmp_path, monkeypatch):
    (tmp_path / "pkg_given.py").write_text(
        "from torch.optim.lr_scheduler import ExponentialLR\nfrom harness import Subject\n"
        "ONE = Subject('one', ExponentialLR, options={'gamma': 0.5})\nMANY = [ONE]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    [found] = subjects_of("pkg_given").subjects
    assert (found.name, found.reference) == ("one", "pkg_given:ONE")
