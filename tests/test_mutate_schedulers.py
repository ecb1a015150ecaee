"""That mutants are made, tried and counted; the script tries all of them, which takes an hour."""

import sys
from dataclasses import replace

import pytest
from click.testing import CliRunner
from helpers import ROOT
from torch.optim.lr_scheduler import LRScheduler, StepLR

sys.path.insert(0, str(ROOT / "scripts"))
import mutate_schedulers
import scheduler_mutants
from mutate_schedulers import Fate, Outcome
from scheduler_mutants import CLASSES, Mutant

sys.path.remove(str(ROOT / "scripts"))


def class_called(name):
    (found,) = (each for each in CLASSES if each.owner.endswith(f":{name}"))
    return found


def mutant_called(name):
    classes = [class_called(name.partition(":")[0])]
    made = (*scheduler_mutants.written(classes), *scheduler_mutants.edited(classes))
    (found,) = (mutant for mutant in made if mutant.name == name)
    return found


def tried(mutant):
    """What becomes of a mutant in a process of its own."""
    task, message = next(mutate_schedulers.run(mutate_schedulers.tasks_of([mutant]), 1))
    return mutate_schedulers.outcome_of(task, message)


@pytest.fixture(autouse=True, scope="module")
def few_subjects():
    """The subjects of the mutants here, so that few are built."""
    names = ("StepLR", "SWALR", "restarts", "fall", "logs", "ramp")
    every = mutate_schedulers.all_subjects()
    few = {key: subject for key, subject in every.items() if subject.name in names}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mutate_schedulers, "all_subjects", lambda: few)
        yield
    mutate_schedulers.plan.cache_clear()
    mutate_schedulers.users.cache_clear()


@pytest.fixture
def one_check(monkeypatch):
    """The run has one check, so that one that finds nothing is quick."""
    plan = mutate_schedulers.plan()
    monkeypatch.setattr(mutate_schedulers, "plan", lambda: replace(plan, checks=plan.checks[:1]))


@pytest.mark.parametrize(
    "name",
    [
        "Restarts: does not load: at",
        "SWALR: loads one more than saved: _step_count",
        "Fall: leaves out: load_state_dict: super().load_state_dict(state)",
        "Logs: does not copy: state_dict: list(self.log)",
    ],
)
def test_a_mutant_that_resumes_wrongly_is_killed(name):
    outcome = tried(mutant_called(name))
    assert outcome.fate == Fate.KILLED
    assert outcome.verdict == "BROKEN"
    assert outcome.trace


def test_a_mutant_stays_in_its_process():
    tried(mutant_called("StepLR: does not load: last_epoch"))
    assert StepLR.load_state_dict is LRScheduler.load_state_dict


def test_a_mutant_that_changes_the_plain_run_is_discarded():
    outcome = tried(mutant_called("StepLR: leaves out: __init__: self.gamma = gamma"))
    assert (outcome.fate, outcome.by) == (Fate.DISCARDED, "the plain run of StepLR")


def test_a_mutant_that_changes_the_lr_of_the_first_epoch_alone_is_discarded():
    source = (
        "def __init__(self, optimizer, last_epoch=-1):\n"
        "    original.__init__(self, optimizer, last_epoch)\n"
        "    optimizer.param_groups[0]['lr'] = 2.0"
    )
    outcome = tried(Mutant("lr_schedules.correct:Ramp", "begins higher", "", source))
    assert outcome.fate == Fate.DISCARDED


def test_only_the_pairs_of_the_default_run_are_checked():
    def checks_of(reference):
        return {check.name for _, check in mutate_schedulers.pairs_of(reference).values()}

    assert checks_of("StepLR") == checks_of("lr_schedules.controls:RAMP") | {
        "resume_with_changed_options"  # StepLR has a contract about options
    }


def test_a_mutant_that_no_check_notices_has_survived_unless_an_argument_makes_it_equivalent(
    one_check,
):
    outcome = tried(Mutant("lr_schedules.correct:Ramp", "the same", "", "def count(self): pass"))
    assert outcome == Outcome("Ramp: the same", Fate.SURVIVED, seconds=outcome.seconds)
    assert mutate_schedulers.judged(outcome, {}) == outcome
    for fate in (Fate.EQUIVALENT, Fate.SURVIVED):
        reason = {outcome.name: (fate, "nobody calls it")}
        explained = mutate_schedulers.judged(outcome, reason)
        assert (explained.fate, explained.by) == (fate, "nobody calls it")
    equivalent = replace(outcome, fate=Fate.EQUIVALENT, by="nobody calls it")
    assert mutate_schedulers.judged(equivalent, {}) == outcome


def test_a_mutant_that_ends_its_process_has_survived():
    mutant = Mutant(
        "lr_schedules.correct:Ramp", "ends", "", "def step(self): __import__('os')._exit(3)"
    )
    assert tried(mutant).by == "its process ended with status 3"


def test_every_mutant_of_a_template_has_a_name_and_a_source_of_its_own():
    mutants = list(scheduler_mutants.written())
    assert len({mutant.name for mutant in mutants}) == len(mutants)
    assert len({(mutant.owner, mutant.source) for mutant in mutants}) == len(mutants)


def test_a_template_replaces_a_method_and_calls_the_one_that_was_there():
    mutant = mutant_called("Halving: saves one more than counted: epoch")
    assert mutant.source.splitlines() == [
        "def state_dict(self):",
        "    state = original.state_dict(self)",
        '    state["epoch"] += 1',
        "    return state",
    ]


def edits_of(name, kind):
    found = scheduler_mutants.edited([class_called(name)])
    return {mutant.where for mutant in found if mutant.kind == kind}


def test_edits_leave_out_statements_swap_them_and_make_no_copies():
    assert edits_of("Logs", "does not copy") == {
        "state_dict: list(self.log)",
        "state_dict: self.sum.clone()",
        "load_state_dict: list(state['log'])",
        "load_state_dict: state['sum'].clone()",
    }
    assert "load_state_dict: self.write()" in edits_of("Logs", "leaves out")
    assert edits_of("Handover", "swaps") == {
        "__init__: self.decay: Callable[[int], fl... / super().__init__(optimizer, la...",
        "load_state_dict: self.decay = state.pop('decay') / super().load_state_dict(state)",
    }


def test_statements_that_only_refuse_arguments_are_left_alone():
    assert not any("raise" in what for what in edits_of("CyclicLR", "leaves out"))


def test_cosmic_ray_changes_operators():
    pytest.importorskip("cosmic_ray")
    names = [mutant.name for mutant in scheduler_mutants.mechanical([class_called("Halving")])]
    plus = "Halving: ReplaceBinaryOperator_Add_Sub: __init__: self.epoch = last_epoch - 1"
    assert plus in names


@pytest.mark.parametrize("table", ["equivalent", "survivor"])
def test_a_reason_for_something_else_is_an_error(monkeypatch, tmp_path, table):
    file = tmp_path / "reasons.toml"
    file.write_text(f'[[{table}]]\nbecause = "it is not there"\nmutants = ["StepLR: gone"]\n')
    monkeypatch.setattr(mutate_schedulers, "REASONS", file)
    with pytest.raises(mutate_schedulers.click.UsageError, match="'StepLR: gone', which is not a"):
        mutate_schedulers.reasons(["StepLR: here"])


def test_the_script_prints_writes_and_judges(monkeypatch, tmp_path):
    mutants = [
        mutant_called("Restarts: does not load: at"),
        mutant_called("StepLR: leaves out: __init__: self.gamma = gamma"),
    ]
    monkeypatch.setattr(scheduler_mutants, "all_mutants", lambda: mutants)
    monkeypatch.setattr(mutate_schedulers, "reasons", lambda names: {})
    file, page = tmp_path / "outcomes.json", tmp_path / "page.md"
    options = ["--jobs", "1", "--json", str(file)]
    done = CliRunner().invoke(mutate_schedulers.main, options)
    assert done.exit_code == 0, done.output
    assert "1 killed, 0 equivalent, 0 survived, 1 discarded; 100.0% killed" in done.output
    survived = [replace(each, fate=Fate.SURVIVED) for each in mutate_schedulers.loaded(file)]
    file.write_text(mutate_schedulers.dumped(survived[:1]))
    again = CliRunner().invoke(
        mutate_schedulers.main, ["--from", str(file), "--markdown", str(page)]
    )
    assert again.exit_code == 1, again.output
    assert "| Restarts | 0 | 0 | 1 |" in page.read_text().splitlines()
    assert "- `Restarts: does not load: at`" in page.read_text()
    options = ["--from", str(file), "--again", "--jobs", "1", "--markdown", str(page)]
    tried = CliRunner().invoke(mutate_schedulers.main, options)
    assert tried.exit_code == 0, tried.output
    assert "1 killed, 0 equivalent, 0 survived" in tried.output
    assert "1 of them were tried again (`--again`)" in page.read_text()
    listed = CliRunner().invoke(mutate_schedulers.main, ["--list", "--only", "Restarts"])
    assert listed.output.splitlines()[:2] == [
        "Restarts: does not load: at",
        "    def load_state_dict(self, state_dict):",
    ]
