"""Which option wins where a run is resumed with others."""

import pytest
import torch
from hypothesis import strategies as st
from torch.optim.lr_scheduler import (
    ExponentialLR,
    LambdaLR,
    LinearLR,
    OneCycleLR,
    SequentialLR,
    StepLR,
)

from harness import Budget, Subject, SubjectError, Trace, TraceError, check_subject, replay
from harness.checks.registry import as_check
from harness.cli import main as cli
from harness.core.literals import Term
from harness.core.verdict import Reason
from harness.engine.option_changes import changes, contracts_text
from harness.report.script import write_script
from lr_schedules import correct
from lr_schedules.correct import Fall, Halving
from lr_schedules.faults import FAULTS
from lr_schedules.subjects import SUBJECTS

NAME = "resume_with_changed_options"
BY_NAME = {subject.name: subject for subject in SUBJECTS}
FAULT = {fault.name: fault for fault in FAULTS}


def checked(subject, **budget):
    [result] = check_subject(subject, [as_check(NAME)], Budget(**budget))
    return result


class OldOptionWins(Halving):
    """Takes the option of the save, whatever the resumed run was given."""

    def __init__(self, optimizer, last_epoch=-1, *, scale=0.5):
        self.scale = scale
        super().__init__(optimizer, last_epoch)

    def factor(self):
        return super().factor() * self.scale

    def state_dict(self):
        return {"epoch": self.epoch, "scale": self.scale}

    def load_state_dict(self, state):
        self.scale = state["scale"]
        super().load_state_dict(state)


class NewOptionWins(OldOptionWins):
    """Takes the option of the resumed run."""

    def load_state_dict(self, state):
        super().load_state_dict({**state, "scale": self.scale})


class Refuses(OldOptionWins):
    """Loads no state that was saved with another option."""

    def load_state_dict(self, state):
        if state["scale"] != self.scale:
            raise ValueError("saved with another scale")
        super().load_state_dict(state)


class RefusesLate(NewOptionWins):
    """Raises, but three epochs after it was resumed with another option."""

    left = None

    def load_state_dict(self, state):
        self.left = 3 if state["scale"] != self.scale else None
        super().load_state_dict(state)

    def step(self):
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise ValueError("saved with another scale")
        super().step()


class Multiplies(StepLR):
    """Multiplies the LR that it finds by its own gamma, the one that it was built with."""

    def state_dict(self):
        return {"last_epoch": self.last_epoch, "base_lrs": self.base_lrs,
                "_last_lr": self._last_lr, "_step_count": self._step_count}  # fmt: skip


class Patient(Halving):
    """Halves the LR where a count of bad epochs, which is saved, exceeds its patience."""

    def __init__(self, optimizer, last_epoch=-1, *, patience=1):
        self.patience, self.bad, self.halved = patience, 0, 0
        super().__init__(optimizer, last_epoch)

    def factor(self):
        return 0.5**self.halved

    def step(self):
        self.bad += 1
        if self.bad > self.patience:
            self.bad, self.halved = 0, self.halved + 1
        super().step()

    def state_dict(self):
        return {"epoch": self.epoch, "bad": self.bad, "halved": self.halved}

    def load_state_dict(self, state):
        self.bad, self.halved = state["bad"], state["halved"]
        super().load_state_dict(state)


@pytest.mark.parametrize(
    ("build", "options", "said"),
    [
        (OldOptionWins, {"scale": 0.25}, "the saved option wins: scale"),
        (NewOptionWins, {"scale": 0.25}, "the new option wins, as if from the start: scale"),
        (Refuses, {"scale": 0.25}, "it raises: scale"),
        (Patient, {"patience": 2}, "the new option wins, from the resume on: patience"),
        (
            Multiplies,
            {"step_size": 3, "gamma": 0.5},
            "the new option wins, from the resume on: step_size, gamma",
        ),
        (StepLR, {"step_size": 3, "gamma": 0.5}, "the saved option wins: step_size, gamma"),
    ],
)
def test_each_contract_is_told_by_its_option(build, options, said):
    result = checked(Subject("x", build, options=options))
    assert (result.verdict, result.note) == ("HOLDS", said)


@pytest.mark.parametrize("contract", ["saved", "new", "raises"])
def test_a_contract_can_be_demanded(contract):
    for build, own in ((OldOptionWins, "saved"), (NewOptionWins, "new"), (Refuses, "raises")):
        result = checked(Subject("x", build, options={"scale": 0.25}, contract=contract))
        assert result.verdict == ("HOLDS" if contract == own else "BROKEN")


def test_what_a_demanded_contract_must_be_is_in_the_counterexample():
    subject = Subject("x", NewOptionWins, options={"scale": 0.25}, contract="saved")
    found = checked(subject).counterexample
    assert str(found.trace) == "changed={'scale':0.125} scale=0.25 save:a resume:a"
    assert found.expected == {"lr if the saved option wins": [0.025, 0.0025]}
    assert found.actual == {"lr": [0.0125, 0.00125]}


def test_an_exception_later_than_the_first_step_is_no_contract():
    result = checked(Subject("x", RefusesLate, options={"scale": 0.25}))
    assert result.verdict == "BROKEN"
    assert result.counterexample.actual["raises"] == "ValueError: saved with another scale"
    assert str(result.counterexample.trace).endswith("save:a resume:a train:4")


def test_an_unknown_contract_is_refused():
    with pytest.raises(SubjectError, match="'contract' must be one of saved, new, raises"):
        Subject("x", Halving, contract="old")


@pytest.mark.parametrize("name", ["SlopeOfTheNew", "FirstResumeOnly"])
def test_a_mixture_is_broken_by_this_check_alone(name):
    fault = FAULT[name]
    assert fault.caught_by == (NAME,)
    result = checked(fault.subject)
    assert result.verdict == "BROKEN"
    assert result.counterexample.trace == fault.trace
    assert result.note == {
        "SlopeOfTheNew": "the new option wins, as if from the start: floor; "
        "none is followed: total",
        "FirstResumeOnly": "none is followed: total, floor",
    }[name]  # fmt: skip


def test_one_contract_at_one_save_and_another_at_the_next_is_broken_though_each_alone_holds():
    both = FAULT["FirstResumeOnly"]
    options = "changed={'total':5} total=4 floor=0.25 "
    behaviours = {
        "save:a resume:a train:6": "the new option wins, as if from the start: total",
        "train:1 save:a resume:a train:6": "the saved option wins: total",
    }
    for operations, said in behaviours.items():
        result = replay(both.subject, NAME, options + operations)
        assert (result.verdict, result.note) == ("HOLDS", said)
    broken = replay(both.subject, NAME, both.trace).counterexample
    assert broken.operation == 6
    assert broken.actual["until then"] == "the new option wins"


class HalfInTheOptimizer(Halving):
    """Keeps one half of its option in the groups, and the other, which it does not save, itself."""

    def __init__(self, optimizer, last_epoch=-1, *, scale=0.5):
        self.scale = scale
        for group in optimizer.param_groups:
            group["scale"] = scale
        super().__init__(optimizer, last_epoch)

    def rates(self):
        groups = self.optimizer.param_groups
        pairs = zip(self.base, groups, strict=True)
        return [base * self.factor() * self.scale * group["scale"] ** 0.5 for base, group in pairs]


def test_an_option_that_is_half_in_the_optimizer_is_a_mixture():
    assert checked(Subject("x", HalfInTheOptimizer, options={"scale": 0.25})).verdict == "BROKEN"


# ------------------------------------------------------------------------ what changes, and how


def test_near_values_keep_their_shape():
    bound = Subject(
        "x", lambda optimizer, **options: None,
        options={"n": 3, "b": True, "s": "cos", "l": [2, 0.5], "f": Halving,
                 "t": Term.of("Slope", 0.5, k=1)},
        words={"Slope": dict},
    ).bind({})  # fmt: skip
    found = [(name, str(value)) for change in changes(bound, []) for name, value in change.items()]
    assert found == [
        ("n", "4"), ("n", "5"), ("b", "False"), ("l", "[3, 0.25]"), ("l", "[4, 0.75]"),
        ("t", "Slope(0.25,k=2)"), ("t", "Slope(0.75,k=3)"),
    ]  # fmt: skip


def test_options_that_a_strategy_draws_come_first():
    subject = Subject("x", StepLR, options={"step_size": 3, "gamma": st.sampled_from([0.5, 0.1])})
    one, other = (subject.bind({"gamma": gamma}) for gamma in (0.5, 0.1))
    assert next(iter(changes(one, [one, other]))) == {"step_size": 4}
    assert [c["gamma"] for c in changes(one, [one, other]) if "gamma" in c] == [0.1, 0.25, 0.75]
    assert checked(subject).note == "the saved option wins: step_size, gamma"


class Slope:
    """A factor that falls; an object, whose attributes LambdaLR saves."""

    def __init__(self, slope):
        self.slope = slope

    def __call__(self, epoch):
        return 1 / (1 + self.slope * epoch)


def root(epoch):
    return (1 + epoch) ** -0.5


def inverse(epoch):
    return 1 / (1 + epoch)


WORDS = {"Slope": Slope, "root": root, "inverse": inverse}


def test_functions_are_new_objects_are_saved_and_a_list_of_both_is_a_mixture():
    subject = Subject("LambdaLR", LambdaLR, options={"lr_lambda": Term("root")}, words=WORDS)

    def note(old, new):
        trace = f"changed={{'lr_lambda':{new}}} lr_lambda={old} train:2 save:a resume:a train:3"
        result = replay(subject, NAME, trace)
        return result.note if result.verdict == "HOLDS" else result.verdict

    assert note("root", "inverse") == "the new option wins, as if from the start: lr_lambda"
    assert note("Slope(0.5)", "Slope(0.25)") == "the saved option wins: lr_lambda"
    assert note("[root,Slope(0.5)]", "[inverse,Slope(0.25)]") == "BROKEN"


def test_a_factor_that_multiplies_goes_on_from_the_saved_rate():
    class MultipliesBy(correct.Multiplies):
        def __init__(self, optimizer, last_epoch=-1, *, factor):
            self.factor_at = factor
            super().__init__(optimizer, last_epoch)

        def step(self):
            self.epoch += 1
            for group in self.optimizer.param_groups:
                group["lr"] *= self.factor_at(self.epoch)

    subject = Subject("x", MultipliesBy, words=WORDS, options={"factor": Term("root")},
                      drawn=st.sampled_from([{"factor": Term("inverse")}]))  # fmt: skip
    assert checked(subject).note == "the new option wins, from the resume on: factor"


def sequence(optimizer, last_epoch=-1, *, milestone=3, gamma=0.5):
    """A warm-up, then a decay."""
    first = LinearLR(optimizer, 0.25, total_iters=3)
    return SequentialLR(
        optimizer, [first, ExponentialLR(optimizer, gamma)], [milestone], last_epoch
    )


def test_the_parts_of_a_sequence_are_all_saved():
    subject = Subject("x", sequence, options={"milestone": 3, "gamma": 0.5})
    assert checked(subject).note == "the saved option wins: milestone, gamma"


def test_a_longer_one_cycle_ends_where_the_saved_one_does():
    trace = "changed={'total_steps':12} train:4 save:a resume:a train:8"
    result = replay(BY_NAME["OneCycleLR"], NAME, trace)
    assert (result.verdict, result.note) == ("HOLDS", "the saved option wins: total_steps")


# ------------------------------------------------------------------- what can't be told, or said


def test_what_has_no_options_to_change_declines():
    result = checked(Subject("x", Halving))
    assert (result.verdict, result.why) == ("DECLINED", Reason.LACKS_SOMETHING)
    result = checked(Subject("x", LambdaLR, options={"lr_lambda": Slope(0.5)}))
    assert result.verdict == "DECLINED"
    assert "give the Subject a 'drawn' strategy" in result.reason


class NoPosition(OldOptionWins):
    """Saves no position."""

    def load_state_dict(self, state):
        super().load_state_dict({**state, "epoch": 0})


def test_what_is_not_resumed_with_the_same_options_declines():
    result = checked(Subject("x", NoPosition, options={"scale": 0.25}))
    assert result.verdict == "DECLINED"
    assert result.why == Reason.NEEDS_ANOTHER_CHECK


class NoUse(Halving):
    def __init__(self, optimizer, last_epoch=-1, *, width=3):
        super().__init__(optimizer, last_epoch)


def test_options_that_change_nothing_prove_nothing():
    result = checked(Subject("x", NoUse, options={"width": 3}))
    assert result.verdict == "UNKNOWN"
    assert result.why == Reason.NOTHING_TRIED


def test_changes_that_the_constructor_refuses_are_skipped():
    def build(optimizer, last_epoch=-1, *, total=4):
        if total > 5:
            raise ValueError("too long")
        return Fall(optimizer, last_epoch, total=total)

    subject = Subject("x", build, options={"total": 4})
    assert checked(subject).note == "the saved option wins: total"
    with pytest.raises(TraceError, match="build raised ValueError: too long"):
        replay(subject, NAME, "changed={'total':6} save:a resume:a train:1")


def lossy():
    """An optimizer that loses its LR when it is loaded."""

    class Lossy(torch.optim.SGD):
        def load_state_dict(self, state):
            super().load_state_dict(state)
            self.param_groups[0]["lr"] = 7.0

    return Lossy([torch.nn.Parameter(torch.ones(1))], lr=0.5)


def test_a_fault_of_the_optimizer_is_not_charged_to_the_scheduler():
    subject = Subject("x", StepLR, options={"step_size": 3}, optimizer=lossy)
    result = replay(subject, NAME, "changed={'step_size':4} train:3 save:a resume:a train:1")
    assert result.verdict == "UNKNOWN"
    assert result.why == Reason.OPTIMIZER


@pytest.mark.parametrize(
    ("check", "trace", "said"),
    [
        (NAME, "train:3 save:a resume:a", "the trace must begin with the options that change"),
        (NAME, "changed=3 save:a resume:a", "'changed' must be a dict of options by their names"),
        (NAME, "changed={'gamma':0.1} save:a load:a", "not done by load"),
        ("resume_by_pickle", "changed={'gamma':0.1} save:a resume:a", "leave it out"),
    ],
)
def test_traces_that_say_no_change_are_refused(check, trace, said):
    with pytest.raises(TraceError, match=said):
        replay(BY_NAME["StepLR"], check, trace)


def test_unknown_options_and_a_changed_optimizer_are_refused():
    with pytest.raises(SubjectError, match="build cannot be called with the options"):
        replay(BY_NAME["StepLR"], NAME, "changed={'gama':0.1} save:a resume:a train:1")
    with pytest.raises(TraceError, match="only options of the scheduler can change"):
        replay(
            Subject("x", StepLR, options={"step_size": 3}, words={"Other": lossy}), NAME,
            "changed={'optimizer':Other()} save:a resume:a train:1",
        )  # fmt: skip
    with pytest.raises(SubjectError, match="'changed' is not an option, a trace sets it"):
        Subject("x", StepLR, options={"changed": {"gamma": 1}})


def test_a_trace_that_resumes_nothing_tells_nothing():
    result = replay(BY_NAME["StepLR"], NAME, "changed={'gamma':0.1} train:3 save:a")
    assert (result.verdict, result.reason) == ("UNKNOWN", "the trace resumes nothing")


def test_a_second_resume_goes_on_with_the_new_option_from_the_first_on():
    subject = Subject("x", Multiplies, options={"step_size": 3, "gamma": 0.5})
    trace = "changed={'gamma':0.25} train:4 save:a resume:a train:3 save:b resume:b train:5"
    assert replay(subject, NAME, trace).note == "the new option wins, from the resume on: gamma"


def test_options_that_follow_different_contracts_by_value_are_said_with_it():
    said = contracts_text(
        {"f": {"f=1": "saved", "f=2": "start"}, "g": {"g=1": "saved", "g=3": "saved"}}
    )
    assert said == "the saved option wins: f=1, g; the new option wins, as if from the start: f=2"


def test_changes_print_and_parse_back():
    text = "changed={'lr_lambda':[root,Slope(0.5)]} lr_lambda=root save:a resume:a"
    assert str(Trace.parse(text)) == text


# -------------------------------------------------------------------------------------- scripts


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SlopeOfTheNew", "FirstResumeOnly"])
def test_the_script_shows_both_runs_beside_the_resumed_one(name, run_script):
    fault = FAULT[name]
    text = write_script(fault.subject, NAME, fault.trace)
    done = run_script(text)
    assert (done.returncode, done.stderr) == (1, "")
    assert "old options" in done.stdout
    assert "<- follows neither" in done.stdout
    repaired = run_script(text.replace(f"functools.partial({name},", "functools.partial(Fall,"))
    assert repaired.returncode == 0, repaired.stdout
    assert "the saved option wins" in repaired.stdout


def test_the_script_of_terms_and_of_state_functions(run_script):
    import faulty

    subject = Subject("LambdaLR", LambdaLR, options={"lr_lambda": Term("root")}, words=WORDS,
                      standalone=True)  # fmt: skip
    trace = (
        "changed={'lr_lambda':[inverse,Slope(0.25)]} lr_lambda=[root,Slope(0.5)] "
        "train:2 save:a resume:a train:1"
    )
    done = run_script(write_script(subject, NAME, trace))
    assert (done.returncode, done.stderr) == (1, "")
    held = trace.replace("inverse", "root")
    assert run_script(write_script(subject, NAME, held)).returncode == 0
    decays = Subject("x", faulty.Every, options={"every": 3}, standalone=True,
                     state_dict=faulty.take_count, load_state_dict=faulty.give_count)  # fmt: skip
    assert checked(decays).note == "the new option wins, as if from the start: every"
    done = run_script(write_script(decays, NAME, "changed={'every':2} save:a resume:a train:6"))
    assert done.returncode == 0, done.stdout
    assert "the new option wins" in done.stdout


def test_the_script_cannot_tell_where_nothing_differs(run_script):
    done = run_script(
        write_script(BY_NAME["StepLR"], NAME, "changed={'gamma':0.1} save:a resume:a")
    )
    assert done.returncode == 125
    assert "makes no difference" in done.stdout


def test_replay_says_which_contract(capsys):
    trace = "changed={'gamma':0.25} step_size=3 gamma=0.5 train:3 save:a resume:a train:3"
    with pytest.raises(SystemExit) as exit_:
        cli.cli(["replay", "StepLR", NAME, trace])
    assert exit_.value.code in (0, None)
    assert "the saved option wins: gamma" in capsys.readouterr().out


def test_one_cycle_keeps_its_rates_in_the_optimizer_which_is_loaded():
    subject = Subject("x", OneCycleLR, options={"max_lr": 0.1, "total_steps": 10,
                      "div_factor": 10.0, "base_momentum": 0.8, "three_phase": False})  # fmt: skip
    said = "the saved option wins: max_lr, total_steps, div_factor, base_momentum, three_phase"
    assert checked(subject).note == said


class Modes(Halving):
    """Uses its gamma in one of two modes, loads its mode, and keeps the gamma it was built with."""

    def __init__(self, optimizer, last_epoch=-1, *, mode="halve", gamma=0.5):
        self.mode, self.gamma = mode, gamma
        super().__init__(optimizer, last_epoch)

    def factor(self):
        return self.gamma**self.epoch if self.mode == "power" else super().factor()

    def state_dict(self):
        return {**super().state_dict(), "mode": self.mode, "gamma": self.gamma}

    def load_state_dict(self, state):
        self.mode = state["mode"]
        super().load_state_dict(state)


def test_an_option_that_matters_only_with_others_is_changed_where_it_does():
    modes = st.sampled_from(["halve", "power"])
    options = {"mode": "halve", "gamma": 0.5}
    drawn = st.fixed_dictionaries({"mode": modes, "gamma": st.sampled_from([0.5, 0.25, 0.75])})
    subject = Subject("modes", Modes, options=options, drawn=drawn, contract="saved")
    result = checked(subject)
    assert result.verdict == "BROKEN"
    options = dict(result.counterexample.trace.options)
    assert (options["mode"], list(options["changed"])) == ("power", ["gamma"])


def test_a_run_that_was_resumed_with_another_option_is_resumed_again():
    result = checked(FAULT["SavesTheNewOption"].subject)
    assert result.verdict == "BROKEN"
    assert result.counterexample.trace.resumes == 2


class Jumps(OldOptionWins):
    """Uses its scale only if it is stepped by step(epoch), and does not load it."""

    jumped = False

    def factor(self):
        return super().factor() if self.jumped else Halving.factor(self)

    def step(self, epoch=None):
        self.jumped = epoch is not None
        self.epoch = self.epoch if epoch is None else epoch - 1
        super().step()

    def state_dict(self):
        return {**super().state_dict(), "jumped": self.jumped}

    def load_state_dict(self, state):
        self.jumped = state["jumped"]
        super().load_state_dict({**state, "scale": self.scale})


def test_an_option_that_only_a_step_with_an_epoch_uses_is_changed_too():
    result = checked(Subject("jumps", Jumps, options={"scale": 0.25}, contract="saved"))
    assert result.verdict == "BROKEN"
    assert [each.kind for each in result.counterexample.trace.operations][-1] == "epoch"


class LoadsTwoGroups(Halving):
    """Loads the scales of its first two groups."""

    def __init__(self, optimizer, last_epoch=-1, *, scale=0.5):
        self.scales = [scale] * len(optimizer.param_groups)
        super().__init__(optimizer, last_epoch)

    def rates(self):
        return [rate * own for rate, own in zip(super().rates(), self.scales, strict=True)]

    def state_dict(self):
        return {**super().state_dict(), "scales": list(self.scales)}

    def load_state_dict(self, state):
        self.scales[:2] = state["scales"][:2]
        super().load_state_dict(state)


def test_options_are_changed_on_three_groups_too():
    result = checked(Subject("two", LoadsTwoGroups, options={"scale": 0.25}, contract="saved"))
    assert result.verdict == "BROKEN"
    assert "groups=3" in str(result.counterexample.trace)
