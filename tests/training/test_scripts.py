"""Each classic mistake is found at the kill points that show it, and at no others."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness.report.training_script import training_script
from harness.training.check import Request, check_command
from harness.training.compare import Field
from harness.training.processes import CommandError, can_fork, make_run
from harness.training.recording import InsideSave, UnfinishedFile, read_run
from harness.training.result import Chain, Signal, Verdict, findings

SCRIPTS = Path(__file__).parent / "scripts"
BROKEN = {
    "scheduler_not_saved": (Field.LR, range(3, 9), ""),
    "scheduler_not_loaded": (Field.LR, range(3, 12), "the schedule starts again at the checkpoint"),
    "optimizer_not_saved": (Field.LR, range(3, 12), "wrong for one step"),
    "momentum_lost": (Field.STATE, range(3, 12), "momentum lost"),
    "scheduler_built_after_load": (Field.LR, range(3, 12), "wrong for one step"),
    "last_epoch_of_epochs": (Field.LR, range(4, 12), ""),
    "saved_before_scheduler_step": (Field.LR, range(3, 12), "one step behind to the end"),
    "step_counter_restarted": (Field.STEPS, range(3, 13), "runs past the end"),
    "epoch_repeated": (Field.STEPS, range(3, 12), "runs past the end"),
    "loaded_on_rank_0": (Field.LR, range(3, 9), "the schedule starts again at the checkpoint"),
    "files_of_two_moments": (Field.LR, range(3, 12), ""),
    "plateau_not_restored": (Field.LR, range(3, 9), ""),
    "warm_up_per_process": (Field.LR, range(3, 12), "the schedule starts again at the checkpoint"),
    "smoothed_loss_lost": (Field.LR, range(3, 12), ""),
}
"""The field, the kill points and the relation of all resumed runs."""

HOLDS = {
    "correct": 12,
    "warm_up_from_zero": 12,
    "same_lr_before_and_after": 12,
    "two_optimizers": 12,
    "early_finish": 11,
    "data_order_lost": 12,
    "gradients_lost": 12,
    "torn_in_place": 12,
    "counts_its_own_steps": 12,
}
"""The number of steps."""


@pytest.mark.parametrize("name", BROKEN)
def test_a_classic_mistake_is_found_where_it_shows(name, checked):
    result = checked(name)
    [finding] = findings(result.outcomes)
    relation = finding.relations[0] if finding.relations else ""
    field, points, expected = BROKEN[name]
    difference = finding.first.difference
    assert (result.verdict, difference.field) == (Verdict.BROKEN, field)
    assert finding.kill_points == tuple(points)
    assert relation == expected


@pytest.mark.parametrize("name", HOLDS)
def test_a_correct_schedule_holds(name, checked):
    result = checked(name)
    assert (result.verdict, result.steps, findings(result.outcomes)) == ("HOLDS", HOLDS[name], [])
    points = [k for outcome in result.outcomes for k in outcome.kill_points]
    assert sorted([*result.before, *points]) == list(range(HOLDS[name] + 1))


def test_every_rank_holds_if_every_rank_loads(checked):
    result = checked("loaded_on_rank_0", "everywhere")
    assert (result.verdict, sorted(result.recordings)) == ("HOLDS", [0, 1])
    assert [dict(outcome.starts) for outcome in result.outcomes] == [{0: 3, 1: 3}, {0: 6, 1: 6}]


def test_only_another_rank_shows_what_rank_0_alone_loads(checked):
    result = checked("loaded_on_rank_0")
    assert {outcome.difference.rank for outcome in result.outcomes} == {1}


@pytest.mark.parametrize(
    ("name", "field", "step"),
    [("data_order_lost", Field.WEIGHTS, 5), ("gradients_lost", Field.WEIGHTS, 4)],
)
def test_data_and_random_state_count_only_if_everything_is_compared(name, field, step, checked):
    by_default, by_request = checked(name), checked(name, everything=True)
    assert by_default.verdict == Verdict.HOLDS
    assert by_request.verdict == Verdict.BROKEN
    data, difference = by_default.outcomes[0].data, by_request.outcomes[0].difference
    assert (data.field, data.step) == (difference.field, difference.step) == (field, step)


def test_correct_in_everything(checked):
    assert checked("correct", everything=True).verdict == Verdict.HOLDS


def test_a_checkpoint_that_is_never_loaded_is_an_error(checked):
    with pytest.raises(CommandError, match=r"has all 12 steps: the checkpoint was not used"):
        checked("no_resume")


def test_a_long_script_is_stopped_after_enough_steps(checked):
    result = checked("scheduler_not_loaded", stop_after=7)
    [finding] = findings(result.outcomes)
    assert (result.verdict, result.steps) == (Verdict.BROKEN, 7)
    assert finding.kill_points == tuple(range(3, 6))
    result = checked("correct", stop_after=7)
    assert (result.verdict, len(result.outcomes)) == (Verdict.HOLDS, 2)


@pytest.mark.parametrize(
    ("name", "points"),
    [("raises_on_load", range(3, 13)), ("rotation_deletes_newest", (10, 11, 12))],
)
def test_a_resume_that_raises_is_loud(name, points, checked):
    result = checked(name, time_limit=600.0)
    [finding] = findings(result.outcomes)
    assert result.verdict == Verdict.CANNOT_RESUME
    assert finding.kill_points == tuple(points)
    assert finding.first.reason.startswith(("KeyError", "FileNotFoundError"))


# ------------------------------------------------------------------ other ways of stopping

INSIDE_SAVES = {
    "torn_in_place": {("CANNOT RESUME", None): (3, 6, 9, 12)},
    "torn_file_ignored": {("BROKEN", Field.LR): (3, 6)},
    "four_files": {("BROKEN", Field.LR): (6,), ("BROKEN", Field.STEPS): (6,)},
    "rotation_deletes_first": {("CANNOT RESUME", None): (6,)},
    "correct": {},
    "folder_renamed": {},
}
"""The verdict and the field of each finding, with its kill points."""


def kinds(result):
    """The kill points of each finding, by its verdict and its field."""
    return {
        (finding.first.verdict, getattr(finding.first.difference, "field", None)):
        finding.kill_points
        for finding in findings(result.outcomes)
    }  # fmt: skip


@pytest.mark.parametrize("name", INSIDE_SAVES)
def test_what_a_kill_inside_a_save_shows(name, checked):
    result = checked(name, inside_saves=True, time_limit=600.0)
    inside = [outcome for outcome in result.outcomes if isinstance(outcome.stop, InsideSave)]
    assert kinds(result) == INSIDE_SAVES[name]
    assert {outcome.verdict for outcome in result.outcomes if outcome not in inside} == {"HOLDS"}
    assert {3, 6} <= {k for outcome in inside for k in outcome.kill_points}


def test_a_torn_file_is_named_with_its_size(checked):
    [finding] = findings(checked("torn_in_place", inside_saves=True, time_limit=600.0).outcomes)
    [outcome] = finding.outcomes
    torn = UnfinishedFile("runs/last.pt", 0)
    assert outcome.stop == InsideSave((torn,), "runs/last.pt is written")
    assert [(f.name, f.kind, f.content) for f in outcome.saved] == [
        ("runs", "folder", b""),
        ("runs/last.pt", "file", b""),
    ]


def test_no_checkpoint_is_left_if_the_old_one_is_removed_first(checked):
    text = (
        (SCRIPTS / "torn_in_place.py").read_text().replace("STEPS, EVERY = 12", "STEPS, EVERY = 8")
    )
    save = '        torch.save(state, "runs/last.pt")\n'
    remove = '        if start or step > EVERY:\n            os.remove("runs/last.pt")\n'
    result = checked("train", text=text.replace(save, remove + save), inside_saves=True)
    scratch = [outcome for outcome in result.outcomes if outcome.from_scratch]
    assert [outcome.kill_points for outcome in scratch] == [(3, 6)]


@pytest.mark.parametrize(
    ("name", "after", "stopped", "verdict"),
    [
        ("saves_when_told", 3, 4, "HOLDS"),
        ("saves_when_told", 11, 12, "HOLDS"),
        ("saves_too_early_when_told", 3, 4, "BROKEN"),
        ("saves_too_early_when_told", 11, 12, "HOLDS"),
        ("correct", 5, 5, "HOLDS"),
        ("ignores_sigterm", 3, 12, "UNKNOWN"),
        ("ignores_sigterm", 11, 12, "HOLDS"),
    ],
)
def test_what_a_signal_shows(name, after, stopped, verdict, checked):
    result = checked(name, signal="TERM", at=(after,))
    outcome = result.outcomes[-1]
    assert (outcome.stop, outcome.kill_points) == (Signal("SIGTERM", after), (stopped,))
    assert outcome.verdict == result.verdict == verdict
    if verdict == "BROKEN":
        assert outcome.difference.relations == ("one step behind to the end",)
    if verdict == "UNKNOWN":
        assert outcome.reason == "was not stopped: it went on and made all 12 steps"


@pytest.mark.parametrize(
    ("name", "every", "stop_after", "points", "field"),
    [
        ("correct", 4, None, (4, 7, 10), None),
        ("correct", 4, 10, (4, 7), None),
        ("correct", 2, None, (2,), Field.STEPS),
        ("two_optimizers", 5, None, (5, 9), None),
        ("counts_its_own_steps", 4, None, (4, 7), Field.LR),
        ("data_order_lost", 4, None, (4, 7, 10), None),
    ],
)
def test_what_a_chain_of_attempts_shows(name, every, stop_after, points, field, checked):
    result = checked(name, chain=every, stop_after=stop_after)
    *others, chain = result.outcomes
    assert {outcome.verdict for outcome in others} == {"HOLDS"}
    number = 2 if field == Field.STEPS else len(points) + 1
    assert (chain.stop, chain.kill_points) == (Chain(every, number), points)
    assert getattr(chain.difference, "field", None) == field
    assert chain.verdict == ("BROKEN" if field else "HOLDS")
    if field == Field.STEPS:
        assert chain.difference.relations == ("makes no progress",)


def test_every_rank_is_in_the_chain(checked):
    result = checked("loaded_on_rank_0", "everywhere", chain=4)
    chain = result.outcomes[-1]
    assert (result.verdict, chain.stop, sorted(chain.resumed)) == ("HOLDS", Chain(4, 3), [0, 1])


def test_a_resumed_run_stops_where_the_recorded_run_did(checked):
    result = checked("correct", stop_after=7)
    lengths = [len(outcome.resumed[0].steps) for outcome in result.outcomes]
    assert lengths == [4, 1]


def test_a_real_sigkill_after_each_step_gives_the_same_resumed_run(checked, ready, tmp_path):
    text = (SCRIPTS / "files_of_two_moments.py").read_text()
    kill = "    if os.sys.argv[1:] == [str(step)]:\n        os.kill(os.getpid(), 9)\n"
    text = text.replace("    optimizer.step()", kill + "    optimizer.step()")
    outcomes = checked("train", text=text).outcomes
    for outcome in outcomes:
        for point in set(outcome.kill_points) - {12}:  # step 13 would be the next
            shutil.rmtree(tmp_path / "runs", ignore_errors=True)
            killed, _ = run_of(ready, tmp_path / f"killed-{point}", str(point))
            assert killed.status == -9
            _, resumed = run_of(ready, tmp_path / f"resumed-{point}")
            assert resumed.recordings == outcome.resumed


def run_of(ready, folder, *arguments):
    make_run(folder, everything=False, store=None, paths=[], stop_after=None, modules=False)
    command = can_fork([sys.executable, "train.py", *arguments])
    return ready.run(command, folder, 600.0), read_run(folder)


@pytest.mark.slow
def test_new_processes_and_forks_agree(checked):
    command = [sys.executable, "scheduler_not_loaded.py"]
    in_forks = checked("scheduler_not_loaded", stop_after=7)
    in_new = checked("scheduler_not_loaded", stop_after=7, new_processes=True)
    assert list(in_forks.command) == command
    assert in_new.outcomes == in_forks.outcomes
    assert in_new.recordings == in_forks.recordings


RANKS = (SCRIPTS / "loaded_on_rank_0.py").read_text()
BY_TORCHRUN = RANKS.partition("if __name__")[0].replace(
    '"gloo", f"file://{rendezvous}", rank=rank, world_size=2', '"gloo"'
)
LAUNCHED = {
    "torchrun": (
        ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "train.py"],
        BY_TORCHRUN + 'train(int(os.environ["RANK"]), None)\n',
    ),
    "spawn": (["train.py"], RANKS.replace('start_method="fork"', 'start_method="spawn"')),
}
"""Arguments of Python, and the script."""


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHED)
def test_every_rank_of_a_launcher_is_compared(launcher, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments, text = LAUNCHED[launcher]
    text = text.replace("STEPS, EVERY = 8, 3", "STEPS, EVERY = 5, 3")
    Path("train.py").write_text(text)
    result = check_command(Request([sys.executable, *arguments], [Path("runs")], time_limit=600.0))
    [finding] = findings(result.outcomes)
    assert (result.verdict, sorted(result.recordings)) == (Verdict.BROKEN, [0, 1])
    assert (finding.first.difference.rank, finding.kill_points) == (1, (3, 4, 5))
    script = training_script(result, finding)
    (tmp_path / "again.sh").write_text(script)
    done = subprocess.run(["sh", "again.sh"], capture_output=True, text=True, check=False)
    assert (done.returncode, "lr of each step on rank 1" in done.stdout) == (1, True)
