"""What the recorder sees inside a training script."""

import os
import signal
import sys
import textwrap

import pytest
import torch

from harness.training.injected import snapshots
from harness.training.processes import can_fork, make_run, run_new
from harness.training.recording import UnfinishedFile, read_run

PRELUDE = """
import os
import torch
from torch.optim import SGD, Adam
torch.manual_seed(0)
weight = torch.nn.Parameter(torch.ones(3))
def grad():
    weight.grad = weight.detach().clone()
"""


@pytest.fixture
def recorded(ready, tmp_path, monkeypatch):
    """Runs lines of Python in a fork that has torch: how it ended, and what was recorded."""
    monkeypatch.chdir(tmp_path)

    def record(lines, *, everything=False, stop_after=None):
        code = PRELUDE + textwrap.dedent(lines)
        run = tmp_path / f"run-{len(list(tmp_path.iterdir()))}"
        make_run(
            run, everything=everything, store=None, paths=[], stop_after=stop_after, modules=False
        )
        command = can_fork([sys.executable, "-c", code])
        ended = ready.run(command, run, 600.0)
        return ended, read_run(run)

    return record


def steps_of(recorded, lines, **options):
    ended, found = recorded(lines, **options)
    assert (ended.status, found.problems) == (0, ()), ended.output
    [recording] = found.recordings.values()
    return recording.steps


def values_of(recorded, lines):
    return [step.values for step in steps_of(recorded, lines)]


def test_what_a_step_used_is_recorded_for_each_group(recorded):
    other = "torch.nn.Parameter(torch.ones(2))"
    assert values_of(recorded, f"""
        groups = [dict(params=[weight]), dict(params=[{other}], lr=0.5, betas=(0.5, 0.6))]
        optimizer = Adam(groups, lr=0.1, weight_decay=0.01)
        optimizer.step()
        optimizer.param_groups[0]["lr"] = 0.25
        optimizer.step()
        """) == [
        {"lr": [lr, 0.5], "betas": [[0.9, 0.999], [0.5, 0.6]], "weight_decay": [0.01, 0.01]}
        for lr in (0.1, 0.25)
    ]  # fmt: skip


def test_an_lr_that_is_a_tensor_is_recorded_as_its_number(recorded):
    lines = """
        optimizer = SGD([weight], lr=0.1)
        optimizer.param_groups[0]["lr"] = torch.tensor(0.5)
        optimizer.step()
        """
    assert values_of(recorded, lines)[0]["lr"] == [0.5]


def test_steps_of_several_optimizers_are_numbered_by_their_first_step(recorded):
    lines = """
        one, other = SGD([weight], lr=0.1), Adam([weight], lr=0.2)
        for optimizer in (other, one, other):
            optimizer.step()
        """
    steps = steps_of(recorded, lines)
    assert [(s.optimizer, s.values["lr"]) for s in steps] == [(0, [0.2]), (1, [0.1]), (0, [0.2])]


NESTED = """
    class Twice(SGD):
        def step(self, closure=None):
            super().step()
            super().step()
    SGD([weight], lr=0.3)
    optimizer = Twice([weight], lr=0.1)
    for _ in range(3):
        grad()
        optimizer.step()
    """


def test_a_step_inside_a_step_is_counted_once(recorded):
    assert len(steps_of(recorded, NESTED)) == 3


def test_a_step_that_raises_hides_no_later_step(recorded):
    lines = """
        class Raises(SGD):
            def step(self, closure=None):
                super().step()
                raise ValueError
        optimizer, other = Raises([weight], lr=0.1), SGD([weight], lr=0.2)
        for each in (other, optimizer, other, optimizer, other):
            try:
                each.step()
            except ValueError:
                pass
        """
    lrs = [step.values["lr"][0] for step in steps_of(recorded, lines)]
    assert lrs == [0.2, 0.1, 0.2, 0.1, 0.2]


def test_a_closure_that_is_called_often_is_one_step(recorded):
    lines = """
        def closure():
            grad()
            return weight.sum()
        optimizer = torch.optim.LBFGS([weight], lr=0.1)
        optimizer.step(closure)
        optimizer.step(closure)
        """
    one, other = steps_of(recorded, lines)
    assert one.before.weights != other.before.weights
    assert (one.before.optimizer, bool(other.before.optimizer)) == ("", True)


@pytest.mark.skipif(not hasattr(torch, "compile"), reason="this torch has no torch.compile")
def test_a_compiled_step_is_recorded(recorded):
    lines = """
        optimizer = SGD([weight], lr=0.1)
        step = torch.compile(lambda: optimizer.step(), backend="eager")
        for _ in range(3):
            grad()
            step()
        """
    states = [step.before.weights for step in steps_of(recorded, lines)]
    assert len(set(states)) == 3


@pytest.mark.skipif(
    not hasattr(torch.amp, "GradScaler"), reason="the GradScaler of this torch needs a GPU"
)
def test_a_step_that_a_scaler_skips_is_no_step(recorded):
    lines = """
        scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
        optimizer = SGD([weight], lr=0.1)
        for number in range(3):
            optimizer.zero_grad()
            optimizer.param_groups[0]["lr"] = 0.5 ** number
            scaler.scale((weight * (float("inf") if number == 1 else 1.0)).sum()).backward()
            scaler.step(optimizer)
            scaler.update()
        """
    assert [step.values["lr"] for step in steps_of(recorded, lines)] == [[1.0], [0.25]]


def test_accumulated_gradients_are_one_step(recorded):
    lines = """
        optimizer = SGD([weight], lr=0.1)
        for number in range(6):
            weight.sum().backward()
            if number % 3 == 2:
                optimizer.step()
                optimizer.zero_grad()
        """
    assert len(steps_of(recorded, lines)) == 2


def test_the_state_tells_steps_apart_that_change_no_weight(recorded):
    lines = """
        optimizer = Adam([weight], lr=0.0)
        for _ in range(3):
            grad()
            optimizer.step()
        """
    states = [step.before for step in steps_of(recorded, lines)]
    assert len({state.weights for state in states}) == 1
    assert len(set(states)) == 3


def test_a_loaded_state_has_the_same_hash(recorded):
    lines = """
        import copy
        optimizer = Adam([weight], lr=0.1)
        for _ in range(2):
            grad()
            optimizer.step()
        saved = copy.deepcopy(optimizer.state_dict())
        optimizer.step()
        torch.save(saved, "state.pt")
        weights = weight.detach().clone()
        fresh = Adam([weight], lr=0.1)
        fresh.load_state_dict(torch.load("state.pt"))
        with torch.no_grad():
            weight.copy_(weights)
        fresh.step()
        """
    steps = steps_of(recorded, lines)
    assert steps[2].before.optimizer == steps[3].before.optimizer != ""


def test_without_everything_a_few_elements_stand_for_a_tensor(recorded):
    lines = """
        weight = torch.nn.Parameter(torch.zeros(100_000))
        optimizer = SGD([weight], lr=0.1)
        optimizer.step()
        with torch.no_grad():
            weight[{}] = 1.0
        optimizer.step()
        """
    one, other = steps_of(recorded, lines.format(1))
    assert one.before.weights == other.before.weights
    one, other = steps_of(recorded, lines.format(0))
    assert one.before.weights != other.before.weights
    one, other = steps_of(recorded, lines.format(1), everything=True)
    assert one.before.weights != other.before.weights


def test_gradients_are_recorded_if_everything_is_compared(recorded):
    lines = """
        optimizer = SGD([weight], lr=0.0)
        optimizer.step()
        grad()
        optimizer.step()
        """
    assert [s.gradients for s in steps_of(recorded, lines)] == ["", ""]
    none, some = (s.gradients for s in steps_of(recorded, lines, everything=True))
    assert (none, bool(some)) == ("", True)


def test_a_sigkill_loses_no_step(recorded):
    ended, found = recorded("""
        optimizer = SGD([weight], lr=0.1)
        for _ in range(5):
            optimizer.step()
        os.kill(os.getpid(), 9)
        """)
    assert (ended.status, found.steps, found.recordings[0].after) == (-signal.SIGKILL, 5, ())


def test_the_state_after_the_last_step_is_recorded(recorded):
    _, found = recorded("""
        optimizer = SGD([weight], lr=0.1)
        for _ in range(2):
            grad()
            optimizer.step()
        """)
    [recording] = found.recordings.values()
    states = [*(step.before for step in recording.steps), *recording.after]
    assert len(set(states)) == 3


def test_a_run_is_stopped_before_the_step_after_the_last(recorded):
    ended, found = recorded("""
        optimizer = SGD([weight], lr=0.1)
        for step in range(5):
            print(step)
            optimizer.step()
        """, stop_after=2)  # fmt: skip
    [recording] = found.recordings.values()
    assert (ended.status, ended.output.split()) == (0, ["0", "1", "2"])
    assert (len(recording.steps), recording.stopped) == (2, True)


def test_forks_of_the_script_record_nothing_of_their_own(recorded):
    steps = steps_of(recorded, """
        from torch.utils.data import DataLoader
        optimizer = SGD([weight], lr=0.1)
        optimizer.step()
        for _ in DataLoader(range(4), num_workers=2):
            optimizer.step()
        """)  # fmt: skip
    assert len(steps) == 5


def test_a_model_without_data_is_a_problem_and_no_crash(recorded):
    ended, found = recorded("""
        weight = torch.nn.Parameter(torch.ones(3, device="meta"))
        SGD([weight], lr=0.1).step()
        """)
    assert ended.status == 0
    assert "meta" in found.problems[0]


# ------------------------------------------------------------------ as the script sees it


def ends_as(recorded, lines):
    ended, _ = recorded(lines)
    return ended.status, ended.output.strip()


def test_a_fork_ends_as_a_process_does(recorded):
    assert ends_as(recorded, "import sys; sys.exit(7)") == (7, "")
    assert ends_as(recorded, "raise SystemExit('a reason')") == (1, "a reason")
    assert ends_as(recorded, "import atexit; atexit.register(print, 'bye'); print('hi')") == (
        0,
        "hi\nbye",
    )
    status, output = ends_as(recorded, "1 / 0")
    assert (status, output.splitlines()[0]) == (1, "Traceback (most recent call last):")
    assert "fork_server" not in output


def test_a_file_that_is_left_open_is_written(recorded, tmp_path):
    recorded("file = open('left_open.txt', 'w'); file.write('all of it')")
    assert (tmp_path / "left_open.txt").read_text() == "all of it"


def test_the_sitecustomize_of_the_user_still_runs(tmp_path, monkeypatch):
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text("import builtins; builtins.mine = 'it ran'")
    monkeypatch.setenv("PYTHONPATH", str(site))
    run = tmp_path / "run"
    make_run(run, everything=False, store=None, paths=[], stop_after=None, modules=False)
    code = "import sys, sitecustomize; print(mine, sitecustomize.__file__, *sys.path)"
    ended = run_new([sys.executable, "-c", code], run, 600.0)
    assert ended.output.startswith(f"it ran {site / 'sitecustomize.py'}")
    assert f"training{os.sep}injected" not in ended.output
    assert read_run(run).loaded


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        (["python", "-c", "pass", "x"], ("-c", "pass", "x")),
        (["python3.11", "-u", "-X", "dev", "-m", "timeit", "x"], ("-m", "timeit", "x")),
        (["python", "-I", "-c", "pass"], None),
        (["python", "-m", "torch.distributed.run", "x.py"], None),
        (["python", "missing.py"], None),
        (["torchrun", "x.py"], None),
        (["python"], None),
    ],
)
def test_commands_that_a_fork_can_run(command, arguments):
    found = can_fork(command)
    assert (found.arguments if found else None) == arguments


def test_a_run_lasts_until_its_last_process_ends(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    make_run(tmp_path / "run")
    saves = f"{sys.executable} -I -c \"input(); open('saved', 'x')\" < pipe & echo > pipe"
    ended = run_new(["sh", "-c", saves], tmp_path / "run", 600.0, to_the_last=True)
    assert (ended.status, os.path.exists("saved")) == (0, True)


# ------------------------------------------------------------------ inside saves


def inside_saves(ready, tmp_path, lines):
    """The states inside saves: the sizes of the files, those being written, what was done last."""
    run, store, runs = (tmp_path / name for name in ("run", "store", "runs"))
    store.mkdir()
    runs.mkdir()
    make_run(run, store=store, paths=[runs], inside_saves=True)
    code = PRELUDE + "optimizer = SGD([weight], lr=0.1)\noptimizer.step()\n"
    code += textwrap.dedent(lines) + "optimizer.step()\n"
    ended = ready.run(can_fork([sys.executable, "-c", code]), run, 600.0)
    found = read_run(run)
    assert (ended.status, found.problems) == (0, ()), ended.output
    states = []
    for each in found.snapshots:
        if each.inside is not None:
            files = {
                name: os.path.getsize(store / content)
                for _, name, kind, _, _, content in snapshots.entries_of(str(store), each.name)
                if kind == "file"
            }
            states.append((each.kill_points, files, each.inside.files, each.inside.done))
    return states


def test_each_write_of_a_file_is_a_state_inside_the_save(ready, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert inside_saves(ready, tmp_path, """
        with open("runs/a", "w") as file:
            file.write("1")
            file.flush()
            file.write("2")
        open("runs/b", "wb").close()
        """) == [
        ((1,), {"a": 0}, (UnfinishedFile("runs/a", 0),), "runs/a is written"),
        ((1,), {"a": 1}, (UnfinishedFile("runs/a", 1),), "runs/a is written"),
        ((1,), {"a": 2}, (), "runs/a is written"),
    ]  # fmt: skip


SAFETENSORS = """
import os
def serialize_file(tensors, filename, metadata=None):
    number = os.open(filename + ".new", os.O_WRONLY | os.O_CREAT)
    for at in range(10):
        os.write(number, tensors["a"]["data"][at : at + 1])
    os.close(number)
    os.rename(filename + ".new", filename)
"""


def test_a_file_of_safetensors_is_killed_in_the_middle(ready, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "safetensors.py").write_text(SAFETENSORS)
    nothing, half, whole = inside_saves(
        ready,
        tmp_path,
        """
        import safetensors
        safetensors.serialize_file({"a": {"data": b"0123456789"}}, "runs/a")
        """,
    )
    assert nothing[1:3] == ({"a.new": 0}, (UnfinishedFile("runs/a.new", 0),))
    assert half[1:3] == ({"a.new": 5}, (UnfinishedFile("runs/a.new", 5),))
    assert whole[1:] == ({"a.new": 10}, (), "runs/a.new is written")


def test_a_file_that_is_renamed_when_it_is_whole_is_never_torn(ready, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    empty, whole = inside_saves(
        ready,
        tmp_path,
        """
        torch.save({}, "runs/tmp")
        os.replace("runs/tmp", "runs/last")
        """,
    )
    assert empty == ((1,), {"tmp": 0}, (UnfinishedFile("runs/tmp", 0),), "runs/tmp is written")
    assert (whole[2:], list(whole[1])) == (((), "runs/tmp is written"), ["tmp"])
