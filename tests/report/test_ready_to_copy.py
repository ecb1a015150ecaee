"""The files to copy, and our own workflow: they parse, name what there is, and do what they say."""

import configparser
import re
import shlex
import sys
import tomllib
from pathlib import Path

import own_schedule
import pytest
import yaml
from helpers import ROOT

import harness
from harness.cli.init import PLACES

EXAMPLES = ROOT / "harness/cli/templates"
TRAINING = ROOT / ".ci/examples/training.yml"
PROGRAM = "lr-resume-harness"
SMALL = ("--check", "resume_by_last_epoch", "--max-examples", "0")
"""So much of a check is made here."""

ACTIONS = {
    "actions/checkout", "actions/setup-python", "actions/upload-artifact",
    "actions/download-artifact",
}  # fmt: skip


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def ini(path):
    config = configparser.ConfigParser(interpolation=None)
    config.read(path)
    return config


def steps(path):
    """The first job of a workflow, and the steps of all its jobs."""
    jobs = list(yaml.safe_load(path.read_text())["jobs"].values())
    return jobs[0], [step for job in jobs for step in job["steps"]]


def commands(path):
    """The commands of a file, as they are typed."""
    if path.suffix == ".ini":
        config = ini(path)
        return [
            line
            for section in config.values()
            for line in section.get("commands", "").strip().splitlines()
        ]
    if path.suffix == ".yml":
        return [step["run"] for step in steps(path)[1] if "run" in step]
    [ours] = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    [repository] = yaml.safe_load(path.read_text())["repos"]
    [hook] = repository["hooks"]
    assert hook["id"] == ours["id"]
    return [shlex.join([*shlex.split(ours["entry"]), *hook["args"]])]


def ours(path):
    """The one command of a file that is the harness's, without the program."""
    words, *_ = [w for w in map(shlex.split, commands(path)) if w[0] == PROGRAM]
    return words[1:]


@pytest.fixture
def user(monkeypatch, tmp_path):
    """The folder of a user's package with one scheduler, which is wrong."""
    package = tmp_path / "my_package"
    package.mkdir()
    (package / "__init__.py").touch()
    text = Path(own_schedule.__file__).read_text()
    text = text.replace("class Halves", "class MySchedule").replace("every,", "every=3,")
    (package / "schedules.py").write_text(text)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    forget()
    yield package / "schedules.py"
    forget()


def forget():
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_package"]:
        del sys.modules[name]


# ------------------------------------------------------------------ a user's: they work

FILES = [EXAMPLES / "pre-commit-config.yaml", EXAMPLES / "tox.ini"]
WORKFLOW = EXAMPLES / "workflow.yml"


def test_there_are_these():
    names = sorted(path.name for path in EXAMPLES.iterdir())
    assert names == sorted(PLACES)


def run_workflow(command):
    """The status of each command of ours in the workflow, in both jobs of its matrix."""
    statuses = []
    for line in commands(WORKFLOW):
        if not line.startswith(PROGRAM):
            continue
        shards = ("1", "2") if "matrix.shard" in line else ("1",)
        for shard in shards:
            words = shlex.split(line.replace("${{ matrix.shard }}", shard))[1:]
            more = (*SMALL, "--check", "lr_is_finite") if words[0] == "check" else ()
            statuses.append(command(*words, *more)[0])
    return statuses


def test_the_workflow_is_red_and_then_green(command, user):
    """Its shards are merged, and the merged run has the status."""
    assert run_workflow(command) in ([1, 0, 1], [0, 1, 1])
    mend(user)
    assert run_workflow(command) == [0, 0, 0]


def test_init_writes_them_for_a_package_and_overwrites_nothing(command, user, tmp_path):
    (tmp_path / "tox.ini").write_text("[tox]\n")
    status, printed, _ = command("init")
    assert status == 0
    assert [line for line in printed.splitlines() if line.startswith("wrote ")] == [
        f"wrote {place}" for place in PLACES.values() if place != "tox.ini"
    ]
    assert (tmp_path / "tox.ini").read_text() == "[tox]\n"
    assert "tox.ini is there already, and stays as it is. To add to it:" in printed
    test = (tmp_path / "tests/test_schedules.py").read_text()
    assert '    "my_package.schedules:MySchedule",' in test
    compile(test, "test_schedules.py", "exec")
    before = {place: (tmp_path / place).read_bytes() for place in PLACES.values()}
    assert "wrote " not in command("init", "my_package")[1]
    assert before == {place: (tmp_path / place).read_bytes() for place in PLACES.values()}


def test_init_needs_to_know_the_package(command, tmp_path):
    status, _, errors = command("init")
    assert (status, "name it, as in lr-resume-harness init my_package" in errors) == (2, True)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    status, _, errors = command("init")
    assert (status, "name one of one, two" in errors) == (2, True)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_wrong_scheduler_is_red_and_a_right_one_green(command, user, path, monkeypatch):
    """In a job, with the scripts where the file has them."""
    summary = user.parent.parent / "summary.md"
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    words = [word.replace("{work_dir}", ".tox").replace("{/}", "/") for word in ours(path)]
    status, printed, _ = command(*words, *SMALL)
    assert status == 1
    assert "\n::error file=my_package/schedules.py,line=9,title=BROKEN MySchedule%3A" in printed
    assert "BROKEN MySchedule: resume_by_last_epoch" in summary.read_text()
    if "--scripts" in words:
        folder = Path(words[words.index("--scripts") + 1])
        assert [file.name for file in folder.iterdir()] == ["MySchedule-resume_by_last_epoch.py"]
    mend(user)
    status, printed, _ = command(*words, *SMALL)
    assert (status, "1 HOLDS, 0 BROKEN" in printed) == (0, True)


def mend(path):
    path.write_text(
        "from torch.optim.lr_scheduler import LambdaLR\n\n\n"
        "class MySchedule(LambdaLR):\n"
        "    def __init__(self, optimizer, last_epoch=-1):\n"
        "        super().__init__(optimizer, lambda epoch: 0.5 ** (epoch // 3), last_epoch)\n"
    )
    forget()


@pytest.mark.parametrize("path", [*FILES, WORKFLOW], ids=lambda path: path.name)
def test_it_keeps_to_a_budget(path):
    words = ours(path)
    assert int(words[words.index("--time-budget") + 1]) <= 60


def test_the_snippet_of_tox():
    config = ini(EXAMPLES / "tox.ini")
    assert config.sections() == ["testenv:lr"]
    section = config["testenv:lr"]
    assert section["deps"] == PROGRAM == project()["name"]
    assert section["pass_env"] == "GITHUB_*"
    assert "tox run -e lr" in (EXAMPLES / "tox.ini").read_text()


def test_the_snippet_of_a_workflow_uploads_the_scripts():
    words = ours(WORKFLOW)
    [upload] = [s for s in steps(WORKFLOW)[1] if s.get("uses", "").startswith("actions/upload")]
    assert upload["if"] == "${{ !cancelled() }}"
    assert words[words.index("--scripts") + 1] in upload["with"]["path"].split()


def test_the_nightly_job_checks_a_script_and_uploads_what_it_wrote(command, tmp_path):
    words = ours(TRAINING)
    upload = steps(TRAINING)[1][-1]
    assert upload["if"] == "failure()"
    assert upload["with"]["path"].split() == [
        words[words.index(option) + 1] for option in ("--html", "--scripts")
    ]
    Path("train.py").write_text("print('nothing yet')")
    assert words[-3:] == ["--", "python", "train.py"]
    status, printed, _ = command(*words[:-2], sys.executable, "train.py")
    assert (status, "never imports torch.optim" in printed) == (2, True)
    assert (tmp_path / "report.html").read_text().startswith("<!DOCTYPE html>")


def test_the_hook_is_of_this_version_and_has_this_program():
    [repository] = yaml.safe_load((EXAMPLES / "pre-commit-config.yaml").read_text())["repos"]
    assert repository["rev"] == f"v{harness.__version__}"
    [hook] = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    assert hook["language"] == "python"
    assert hook["pass_filenames"] is False
    assert project()["scripts"] == {PROGRAM: "lr_resume_harness:main"}


# ------------------------------------------------------------------------ our own CI

OURS = ROOT / ".github/workflows/ci.yml"
NIGHTLY = ROOT / ".github/workflows/nightly.yml"


def environments():
    """The names of tox's environments."""
    found = set()
    for section in ini(ROOT / "tox.ini").sections():
        kind, _, name = section.partition(":")
        if kind == "testenv" and name:
            stem, _, endings = name.rstrip("}").partition("{")
            found |= {stem + ending for ending in endings.split(",")}
    return found


def test_the_matrix_is_the_label_full_and_lint():
    [full] = re.findall(r"^full = (.*)$", ini(ROOT / "tox.ini")["tox"]["labels"], re.MULTILINE)
    job, _ = steps(OURS)
    assert job["strategy"]["matrix"]["env"] == ["lint", *full.split(", ")]
    assert set(job["strategy"]["matrix"]["env"]) <= environments()
    assert job["strategy"]["fail-fast"] is False
    assert job["env"] == {"UV_TORCH_BACKEND": "cpu"}


def test_the_python_is_that_of_the_environments():
    [setup] = [s["with"] for s in steps(OURS)[1] if s.get("uses", "").startswith("actions/setup")]
    pythons = {s["base_python"] for s in ini(ROOT / "tox.ini").values() if "base_python" in s}
    assert pythons == {f"python{setup['python-version']}"}


def test_the_jobs_run_tox_and_keep_what_it_leaves():
    assert commands(OURS) == [
        "python -m pip install tox", "python -m tox run -e ${{ matrix.env }}"
    ]  # fmt: skip
    upload = steps(OURS)[1][-1]["with"]
    assert upload["include-hidden-files"] is True
    main_job = commands(ROOT / "tox.ini")[0]
    for option in ("--json", "--scripts"):
        [path] = re.findall(rf"{option} (\S+)", main_job)
        assert path.replace("{work_dir}", ".tox").replace("{/}", "/").startswith(upload["path"])


def test_the_nightly_jobs_are_environments_and_do_the_same():
    job, its_steps = steps(NIGHTLY)
    assert job["strategy"]["matrix"]["env"] == ["proof", "break", "mutation", "mutants"]
    assert set(job["strategy"]["matrix"]["env"]) <= environments()
    assert its_steps == steps(OURS)[1]
    assert job["env"] == steps(OURS)[0]["env"]


def test_the_main_job_of_tox_writes_results_and_scripts(command, tmp_path):
    """Its command, with one subject."""
    line = commands(ROOT / "tox.ini")[0]
    for name, value in (("{work_dir}", str(tmp_path)), ("{/}", "/"), ("{env_name}", "torch9")):
        line = line.replace(name, value)
    (tmp_path / "results").mkdir()
    program, *words = shlex.split(line)
    assert program == PROGRAM
    assert command(*words, "own_schedule:Halves", "--kwargs", "every=3", *SMALL)[0] == 1
    assert (tmp_path / "results/torch9.json").is_file()
    assert len(list((tmp_path / "results/torch9").iterdir())) == 1


def test_tox_has_what_the_tests_import():
    config = ini(ROOT / "tox.ini")
    assert all("pyyaml" in s["deps"] for s in config.values() if "pytest>=" in s.get("deps", ""))


@pytest.mark.parametrize("path", [OURS, WORKFLOW], ids=lambda path: path.name)
def test_actions_have_a_major_version_and_the_job_no_rights(path):
    job, all_steps = steps(path)
    used = [step["uses"] for step in all_steps if "uses" in step]
    assert {action.partition("@")[0] for action in used} <= ACTIONS
    assert all(re.fullmatch(r"[\w/-]+@v\d+", action) for action in used)
    assert yaml.safe_load(path.read_text())["permissions"] == {"contents": "read"}
    assert job["runs-on"] == "ubuntu-latest"


@pytest.mark.parametrize("path", [OURS, *FILES, WORKFLOW], ids=lambda path: path.name)
def test_what_is_installed_is_what_there_is(path):
    """Packages by their names, with extras that they have."""
    installs = [
        [word for word in shlex.split(line.partition("pip install ")[2]) if word[:1] != "-"]
        for line in commands(path)
        if "pip install " in line
    ]
    for word in [word for words in installs for word in words]:
        name, _, extras = word.rstrip("]").partition("[")
        assert name in (PROGRAM, "tox", "uv", ".")
        assert {*filter(None, extras.split(","))} <= {*project()["optional-dependencies"]}
