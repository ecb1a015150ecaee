"""That ``scripts/run_matrix.py`` keeps one environment at a time, and says what came of each."""

import importlib.util
import json
import signal
import subprocess
import sys
import time

import pytest
from fork_server import heed_ctrl_c
from helpers import ROOT

SCRIPT = ROOT / "scripts/run_matrix.py"

# It makes an environment and fills the cache, as tox would; torch2.0.1 is red.
FAKE_TOX = """
import json, os, pathlib, sys, time
work = pathlib.Path(__file__).parent / ".tox"
if sys.argv[1] == "list":
    print("torch1.13.1\\ntorch2.0.1\\ntorch2.2.2")
    sys.exit()
env = sys.argv[-1]
others = [path.name for path in work.glob("torch*")]
(work / env).mkdir()
(work / env / "big").write_bytes(b"x" * 3_000_000)
cache = pathlib.Path(os.environ["UV_CACHE_DIR"])
os.link(work / env / "big", cache / "big")
with open(work / "seen", "a") as file:
    print(env, cache, *others, file=file)
if "hang" in os.environ.get("FAKE", ""):
    time.sleep(1000)
rows = [{"verdict": verdict} for verdict in ("HOLDS", "KNOWN", "HOLDS")]
(work / "results" / f"{env}.json").write_text(json.dumps({"results": rows}))
red = env == "torch2.0.1"
print("=====", "1 failed, 2 passed" if red else "3 passed", "in 1.00s =====")
sys.exit(red)
"""

DRIVER = """
import importlib.util, pathlib, sys
spec = importlib.util.spec_from_file_location("run_matrix", {script!r})
module = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = module
spec.loader.exec_module(module)
module.ROOT = pathlib.Path({root!r})
module.WORK = module.ROOT / ".tox"
module.RESULTS = module.WORK / "results"
module.TOX = (sys.executable, *{tox!r})
module.main()
"""


@pytest.fixture
def started(tmp_path):
    """Start the script, with a tox that is no real one."""
    (tmp_path / "tox.py").write_text(FAKE_TOX)

    def start(*envs, tox=(str(tmp_path / "tox.py"),), **environ):
        code = DRIVER.format(script=str(SCRIPT), root=str(tmp_path), tox=tox)
        return subprocess.Popen(
            [sys.executable, "-c", code, *envs],
            env={"TMPDIR": str(tmp_path), **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=heed_ctrl_c,
        )

    return start


def seen(tmp_path):
    lines = (tmp_path / ".tox/seen").read_text().splitlines()
    return {line.split()[0]: line.split()[1:] for line in lines}


def test_one_environment_after_the_other_and_nothing_stays_but_the_results(started, tmp_path):
    script = started()
    printed, errors = script.communicate()
    assert (script.returncode, errors) == (1, "")
    made = seen(tmp_path)
    assert list(made) == ["torch1.13.1", "torch2.0.1", "torch2.2.2"]
    assert all(len(rest) == 1 for rest in made.values())  # its cache, and no other environment
    assert len({cache for [cache] in made.values()}) == 3
    left = {path.name for path in (tmp_path / ".tox").iterdir()}
    assert left == {"results", "seen"}
    assert {path.name for path in tmp_path.iterdir()} == {".tox", "tox.py"}
    rows = [line.split(maxsplit=2) for line in printed.splitlines() if line.startswith("torch")]
    assert [row[:2] for row in rows[3:]] == [
        ["torch1.13.1", "green"],
        ["torch2.0.1", "RED"],
        ["torch2.2.2", "green"],
    ]
    assert [row[2].split("  ")[0] for row in rows[3:]] == ["2 HOLDS, 1 KNOWN"] * 3
    assert "1 failed, 2 passed" in rows[4][2]
    data = json.loads((tmp_path / ".tox/results/torch2.2.2.json").read_text())
    assert len(data["results"]) == 3
    assert "3 passed" in (tmp_path / ".tox/results/torch2.2.2.log").read_text()


def test_those_that_are_named_alone(started, tmp_path):
    script = started("torch2.2.2")
    script.communicate()
    assert (script.returncode, list(seen(tmp_path))) == (0, ["torch2.2.2"])


@pytest.mark.parametrize(
    ("envs", "tox", "said"),
    [
        (["torch9"], None, "error: 'torch9' is not one of torch1.13.1, torch2.0.1, torch2.2.2\n"),
        ([], ("-c", "import sys; sys.exit('No module named tox')"),
         "error: tox can't be run, is it installed? No module named tox\n"),
    ],
)  # fmt: skip
def test_what_cannot_be_run_is_said(started, tmp_path, envs, tox, said):
    script = started(*envs, **({"tox": tox} if tox else {}))
    printed, errors = script.communicate()
    assert (script.returncode, printed, errors) == (2, "", said)
    assert not (tmp_path / ".tox").exists()


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "SIGTERM"]
)
def test_stopped_it_leaves_nothing_behind(started, tmp_path, number, status):
    script = started(FAKE="hang")
    end = time.monotonic() + 600
    while not (tmp_path / ".tox/seen").exists() and time.monotonic() < end:
        time.sleep(0.02)
    script.send_signal(number)
    script.communicate()
    assert script.returncode == status
    assert {path.name for path in (tmp_path / ".tox").iterdir()} == {"results", "seen"}
    assert {path.name for path in tmp_path.iterdir()} == {".tox", "tox.py"}


def test_the_label_is_what_the_file_says():
    spec = importlib.util.spec_from_file_location("run_matrix", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    import configparser

    config = configparser.ConfigParser(interpolation=None)
    config.read(ROOT / "tox.ini")
    labels = dict(
        map(str.strip, line.split("=", 1)) for line in config["tox"]["labels"].strip().splitlines()
    )
    full, quick = (labels[name].split(", ") for name in ("full", "quick"))
    assert set(quick) <= set(full)
    assert config["tox"]["env_list"] in quick
    pins = config[f"testenv:torch{{,{','.join(env[5:] for env in full)}}}"]["deps"]
    assert all(f"{env}: torch=={env[5:]}\n" in pins + "\n" for env in full)
    assert module.tests("=== 12 passed, 1 error in 3.21s (0:00:03) ===") == "12 passed, 1 error"
