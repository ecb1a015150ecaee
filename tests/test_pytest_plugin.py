"""The plugin, on small files of tests that pytest runs in this process."""

import re
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest
import torch
from helpers import ROOT
from inline_snapshot import snapshot
from torch.optim.lr_scheduler import StepLR

import harness
from harness import SubjectError, check_scheduler, parametrize_with_checks, settings
from harness.core.ledger import entry_text
from harness.settings import Settings
from harness.subjects.known_failures import known_to, shipped_failures
from harness.subjects.lookup import as_subject

pytest_plugins = ["pytester"]

QUIET = ("-W", "ignore::pytest.PytestAssertRewriteWarning", "-p", "no:randomly")
PLUGIN = ("-p", "lr_resume_harness.pytest_plugin", *QUIET, "-p", "no:cacheprovider")
LAST = "resume_by_last_epoch"
ENTRY = {
    "subject": "Halves",
    "check": "resume_by_last_epoch",
    "torch": ">=1.13",
    "trace": "train:3 save:a resume:a",
    "shows": "lr is [0.025, 0.0025] and should be [0.05, 0.005]",
    "relation": "multiplied a second time by the factor of the last step",
    "kind": "bug",
    "tracked": "like pytorch/pytorch#102261",
    "reason": "It decays again.",
}
SCHEDULERS = """
from functools import partial

import pytest
from torch.optim.lr_scheduler import ExponentialLR, LambdaLR, StepLR

from harness import Subject, check_scheduler, parametrize_with_checks


class Falls(LambdaLR):
    def __init__(self, optimizer, base=0.5, last_epoch=-1):
        super().__init__(optimizer, lambda epoch: base**epoch, last_epoch)


class Halves(StepLR):
    def __init__(self, optimizer, last_epoch=-1):
        super().__init__(optimizer, 3, 0.5, last_epoch)


class Random(ExponentialLR):
    calls = 0

    def __init__(self, optimizer, last_epoch=-1):
        super().__init__(optimizer, 0.5, last_epoch)

    def get_lr(self):
        Random.calls += 1
        return [Random.calls for group in self.optimizer.param_groups]


OF_TORCH = partial(StepLR, step_size=3, gamma=0.5)
HOLDS = Subject("Holds", Falls, options={"base": 0.5})
DECLINES = Subject(
    "Declines",
    ExponentialLR,
    options={"gamma": 0.5},
    declines={"resume_by_last_epoch": "it knows no epoch"},
)
"""
PAIRS = """
@parametrize_with_checks(SUBJECTS, checks=["resume_by_last_epoch"], max_examples=0)
def test_survives(subject, check):
    check(subject)
"""
FIVE = "SUBJECTS = [Halves, HOLDS, DECLINES, OF_TORCH, Random]\n"
OUTCOMES = {"failed": 1, "passed": 1, "skipped": 1, "xfailed": 1, "errors": 1}


@pytest.fixture(scope="module", autouse=True)
def everything_is_imported():
    """Pytester forgets what is imported while it runs, which torch can't be twice."""
    check_scheduler(StepLR, step_size=13, checks=["resume_from_file"], max_examples=1)
    known_to(as_subject(StepLR), shipped_failures())


@pytest.fixture
def user(pytester):
    """Runs pytest with the plugin on a file of tests after `SCHEDULERS`; returns the result."""

    def run(tests, *arguments, run=pytester.runpytest_inprocess, plugin=PLUGIN):
        pytester.makepyfile(test_user=SCHEDULERS + tests)
        return run(*plugin, *arguments)

    yield run
    assert settings.current == Settings()


def place(text, tests):
    """Where a line of `tests` stands in the file that `user` makes."""
    lines = (SCHEDULERS + tests).strip().splitlines()
    return f"test_user.py:{lines.index(text) + 1}"


def outcomes(result):
    """The counts, without those of none."""
    return {name: count for name, count in result.parseoutcomes().items() if count}


def properties(file):
    """What junit's file says of each test."""
    return {
        case.get("name"): {p.get("name"): p.get("value") for p in case.iter("property")}
        for case in ET.parse(file).iter("testcase")
    }


def test_each_verdict_has_its_outcome(user, pytester):
    result = user(FIVE + PAIRS, "-rsxEf", "--junitxml=out.xml")
    assert outcomes(result) == OUTCOMES
    assert result.ret == 1
    here = place("    check(subject)", FIVE + PAIRS)
    result.stdout.fnmatch_lines(
        [
            "collected 5 items",
            f"lr-resume-harness: {harness.__version__}, torch {torch.__version__}, seed 0, "
            "ledger PyTorch's (* entries)",
            "test_user.py F.sxE *",
            "*ERROR at call of test_survives[[]Random-resume_by_last_epoch[]]*",
            "UNKNOWN Random: resume_by_last_epoch",
            "  two uninterrupted runs differ: *",
            f"{here}: UNKNOWN Random: resume_by_last_epoch",
            "*test_survives[[]Halves-resume_by_last_epoch[]]*",
            "BROKEN Halves: resume_by_last_epoch (torch *)",
            "  promise         Load the optimizer's state, then build with last_epoch=k-1 *",
            "  counterexample  train:3 save:a resume:a",
            '    lr-resume-harness replay test_user:Halves resume_by_last_epoch "train:3 *"',
            f"{here}: BROKEN Halves: resume_by_last_epoch (torch *)",
            f"SKIPPED [[]1[]] {here}: it knows no epoch",
            "XFAIL *StepLR-resume_by_last_epoch[]] - *bug, *#102261: The constructor makes a step*",
        ]
    )
    for ours in ("parametrize.py", "pytest_plugin.py", "Traceback", "raise ", "hypothesis/"):
        result.stdout.no_fnmatch_line(f"*{ours}*")
    said = properties(pytester.path / "out.xml")
    assert [case["verdict"] for case in said.values()] == [
        "BROKEN", "HOLDS", "DECLINED", "KNOWN", "UNKNOWN",
    ]  # fmt: skip
    broken = said["test_survives[Halves-resume_by_last_epoch]"]
    assert (broken["subject"], broken["check"]) == ("Halves", "resume_by_last_epoch")
    assert broken["trace"] == "train:3 save:a resume:a"
    assert broken["replay"].startswith("lr-resume-harness replay test_user:Halves ")
    holds = said["test_survives[Holds-resume_by_last_epoch]"]
    assert set(holds) == {"subject", "check", "verdict", "tried", "looked_at"}
    assert holds["tried"].startswith("1 HOLDS (")
    assert holds["looked_at"].startswith("epochs 1-12, ")


TWO_LOOKS = """
@parametrize_with_checks([HOLDS, OF_TORCH, DECLINES], checks=["resume_by_last_epoch"],
                         max_examples=0)
def test_pair(subject, check):
    check(subject)

def test_call():
    check_scheduler(HOLDS, checks=["lr_is_finite", "resume_from_file"], max_examples=0)
"""
LOOKED = r"epochs [0-9, -]+; \w[\w, ]+; [0-9, -]+ groups"


@pytest.mark.parametrize(
    ("option", "pairs"),
    [
        ("-q", None),
        ("--color=no", []),
        ("-v", [f"Holds: {LAST}", "Holds: lr_is_finite", "Holds: resume_from_file"]),
    ],
)
def test_a_run_that_passes_says_where_it_looked(user, option, pairs):
    result = user(TWO_LOOKS, option)
    assert outcomes(result) == {"passed": 2, "xfailed": 1, "skipped": 1}
    found = [line for line in result.outlines if "looked at" in line or "some pairs" in line]
    if pairs is None:
        assert found == []
        return
    expected = [rf"{pair}: looked at: {LOOKED}" for pair in pairs]
    ours = "lr-resume-harness: "
    expected += [f"{ours}looked at in each pair: {LOOKED}", f"{ours}in some pairs: {LOOKED}"]
    for pattern, line in zip(expected, found, strict=True):
        assert re.fullmatch(pattern, line)


PLAIN = """
def test_broken():
    check_scheduler(Halves, checks=['resume_by_last_epoch'])

def test_undecided():
    check_scheduler(Random, checks=['resume_by_last_epoch'])

def test_wrong():
    check_scheduler(ExponentialLR, gama=0.5)

def test_assertion_of_the_users_own():
    assert Halves is StepLR
"""


def test_check_scheduler_shows_the_report_and_its_place(user):
    result = user(PLAIN)
    assert outcomes(result) == {"failed": 2, "errors": 2}
    calls = [
        place(f"    check_scheduler({arguments})", PLAIN)
        for arguments in (
            f"Halves, checks=[{LAST!r}]",
            f"Random, checks=[{LAST!r}]",
            "ExponentialLR, gama=0.5",
        )
    ]
    result.stdout.fnmatch_lines(
        [
            f"{calls[1]}: UNKNOWN Random: resume_by_last_epoch",
            f"{calls[2]}: subject ExponentialLR: build cannot be called with *'gama'*",
            "BROKEN Halves: resume_by_last_epoch (torch *)",
            f"{calls[0]}: BROKEN Halves: resume_by_last_epoch (torch *)",
            ">       assert Halves is StepLR",
        ]
    )
    result.stdout.no_fnmatch_line("*api.py*")


@pytest.mark.parametrize("option", ["--full-trace", "--tb=native"])
def test_a_traceback_is_there_where_it_is_asked_for(user, option):
    result = user(PLAIN, option)
    assert outcomes(result) == {"failed": 2, "errors": 2}
    result.stdout.fnmatch_lines(["*api.py*"])


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ("parametrize_with_checks([])", "'subjects' is empty*"),
        ("parametrize_with_checks(HOLDS)", "'subjects' must be a list of subjects (got Subject(*"),
        ("parametrize_with_checks([HOLDS, HOLDS])", "2 subjects are called 'Holds': give each *"),
        ("parametrize_with_checks([lambda optimizer, table: 0])", "subject <lambda>: *'table': *"),
        ("parametrize_with_checks([Halves], checks=['resume'])", "no check is called 'resume': *"),
        ("Subject('two words', StepLR)", "a subject's name must be a word without spaces *"),
    ],
)
def test_a_mistake_in_the_module_is_one_line(user, mistake, message):
    result = user(f"wrong = {mistake}\n")
    here = place(f"wrong = {mistake}", f"wrong = {mistake}")
    assert outcomes(result) == {"errors": 1}
    result.stdout.fnmatch_lines(["*ERROR collecting test_user.py*", f"{here}: {message}"])
    lines = [line for line in result.outlines if line]
    [start] = [i for i, line in enumerate(lines) if "ERROR collecting" in line]
    assert len(lines[start:]) == 6


def test_known_failures_of_ones_own(user, pytester):
    (pytester.path / "known.toml").write_text(entry_text(ENTRY))
    tests = f"SUBJECTS = [Halves, OF_TORCH]\n{PAIRS}"
    result = user(tests, "--lr-ledger", "known.toml", "-rx")
    assert outcomes(result) == {"xfailed": 2}
    result.stdout.fnmatch_lines(
        [
            f"*ledger PyTorch's (* entries), {pytester.path / 'known.toml'} (1 entry)",
            "XFAIL *Halves-* - *bug, like pytorch/pytorch#102261: It decays again. "
            "(no other failure found; looked at: epochs *; *SGD*; *groups)",
        ]
    )
    assert outcomes(user(tests, "--lr-ledger=known.toml", "--runxfail")) == {"failed": 2}
    assert outcomes(user(tests, "--lr-no-ledger")) == {"failed": 2}
    pytester.makeini("[pytest]\nlr_ledger = known.toml\n")
    assert outcomes(user(tests)) == {"xfailed": 2}
    assert outcomes(user(tests, "--lr-no-ledger")) == {"failed": 2}
    pytester.makeini("[pytest]\n")
    stale = {**ENTRY, "trace": "train:4 save:a resume:a"}
    (pytester.path / "stale.toml").write_text(entry_text(stale))
    result = user(tests, "--lr-ledger", "stale.toml", "-k", "Halves")
    assert outcomes(result) == {"failed": 1, "deselected": 1}
    result.stdout.fnmatch_lines([f"STALE Halves: {LAST}", "  *stale.toml:1: its trace holds*"])
    other = {**ENTRY, "subject": "OfAnotherFile", "check": "a_check_of_ones_own"}
    (pytester.path / "other.toml").write_text(entry_text(other))
    result = user(tests, "--lr-ledger", "other.toml")
    assert outcomes(result) == {"failed": 1, "xfailed": 1}
    result.stdout.fnmatch_lines(
        ["  Not in any ledger:", "", "[[][[]failure]]", "subject = *:Halves*"]
    )


def test_check_scheduler_takes_the_ledger_of_the_run(user, pytester):
    (pytester.path / "known.toml").write_text(entry_text(ENTRY))
    tests = f"""
def test_by_the_run():
    results = check_scheduler(Halves, checks=[{LAST!r}])
    assert [result.verdict for result in results] == ["KNOWN"]

def test_by_its_argument():
    with pytest.raises(AssertionError, match="BROKEN"):
        check_scheduler(Halves, checks=[{LAST!r}], ledger=())
"""
    assert outcomes(user(tests, "--lr-ledger=known.toml")) == {"passed": 2}
    assert outcomes(user(tests)) == {"failed": 1, "passed": 1}


def test_a_name_of_pytorchs_is_no_entry_of_pytorchs(user):
    tests = f"""SUBJECTS = [Subject("StepLR", Halves)]\n{PAIRS}"""
    result = user(tests)
    assert outcomes(result) == {"failed": 1}
    result.stdout.fnmatch_lines([f"BROKEN StepLR: {LAST} *"])


SETTINGS = """
def test_settings():
    from harness import settings

    said = settings.current
    assert {expected!r} == (said.seed, said.max_examples, said.time_limit, said.all_checks)
"""


@pytest.mark.parametrize(
    ("ini", "arguments", "expected"),
    [
        ("", [], (0, 25, 30.0, False)),
        ("", ["--lr-seed", "-3", "--lr-max-examples=0", "--lr-all-checks"], (-3, 0, 30.0, True)),
        ("lr_seed = 5\nlr_all_checks = true", [], (5, 25, 30.0, True)),
        ("lr_seed = 5\nlr_time_limit = 2.5", ["--lr-seed=0"], (0, 25, 2.5, False)),
        ("lr_seed = 5", ["-o", "lr_seed=6"], (6, 25, 30.0, False)),
    ],
)
def test_options_come_before_ini_keys(user, pytester, ini, arguments, expected):
    pytester.makeini(f"[pytest]\n{ini}\n")
    assert outcomes(user(SETTINGS.format(expected=expected), *arguments)) == {"passed": 1}


def test_the_configuration_of_the_project_comes_last(user, pytester):
    table = "[tool.lr-resume-harness]\nseed = 4\nmax-examples = 2\n"
    halves = f"[tool.lr-resume-harness.subjects.Halves]\nexpected-failures = {{{LAST} = 'later'}}\n"
    (pytester.path / "pyproject.toml").write_text(table + halves)
    tests = f"SUBJECTS = [Halves]\n{PAIRS}" + SETTINGS.format(expected=(5, 2, 30.0, False))
    assert outcomes(user(tests, "--lr-seed=5")) == {"passed": 1, "xfailed": 1}
    (pytester.path / "pyproject.toml").write_text(table.replace("seed", "sead"))
    result = user(tests)
    assert result.ret == 4
    result.stderr.fnmatch_lines(["ERROR: pyproject.toml: * has no key 'sead': did you mean seed?"])


def test_arguments_come_before_options(user):
    tests = """
marked = parametrize_with_checks([HOLDS], checks=["resume_from_file"], max_examples=3, seed=4)

@marked
def test_said(subject, check):
    assert (check.wanted.max_examples, check.wanted.seed, check.wanted.time_limit) == (3, 4, 9.0)

@parametrize_with_checks([HOLDS])
def test_all(subject, check):
    assert check.wanted.seed == 8

def test_of_check_scheduler():
    said = {"checks": ["resume_from_file"], "max_examples": 0}
    assert len(check_scheduler(HOLDS, **said)) == 1
    with pytest.raises(Exception, match="'max_examples' must be 0 or more"):
        check_scheduler(HOLDS, max_examples=-1)
"""
    result = user(tests, "--lr-seed=8", "--lr-time-limit=9", "--lr-all-checks")
    every = len(harness.CHECKS)
    assert outcomes(result) == {"passed": 2 + every}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--lr-max-examples", "x"],
            "--lr-max-examples must be a whole number, 0 or more (got 'x')",
        ),
        (
            ["--lr-max-examples=-1"],
            "--lr-max-examples must be a whole number, 0 or more (got '-1')",
        ),
        (
            ["--lr-time-limit", "nan"],
            "--lr-time-limit must be a number of seconds, more than 0 and * (got 'nan')",
        ),
        (["--lr-seed", "1.5"], "--lr-seed must be a whole number (got '1.5')"),
        (["--lr-ledger", "none.toml"], "cannot read the ledger *none.toml: no such file"),
        (
            ["--lr-no-ledger", "--lr-ledger", "known.toml"],
            "--lr-no-ledger can't be combined with *",
        ),
        (["--lr-ledger", "wrong.toml"], "*wrong.toml:1: this is not valid TOML: *"),
        (["-o", "lr_seed=x"], "the ini key lr_seed must be a whole number *"),
        (["-o", "lr_all_checks=2?"], "the ini key lr_all_checks: invalid truth *"),
    ],
)
def test_wrong_options_are_refused_in_a_sentence(user, pytester, arguments, message):
    (pytester.path / "wrong.toml").write_text("[failure")
    result = user(f"SUBJECTS = [HOLDS]\n{PAIRS}", *arguments)
    assert result.ret == 4
    result.stderr.fnmatch_lines([f"ERROR: {message}"])
    assert len([line for line in result.errlines if line]) == 1


def test_options_of_other_plugins_keep_their_names(user, pytester):
    pytester.makeconftest(
        "def pytest_addoption(parser):\n"
        "    for name in ('--seed', '--lr', '--ledger', '--max-examples'):\n"
        "        parser.addoption(name, type=int)\n"
        "    parser.addini('seed', 'theirs')\n"
    )
    tests = """
def test_own(request):
    from harness import settings

    assert [request.config.getoption(name) for name in ("--seed", "--lr", "--ledger")] == [2, 3, 4]
    assert (settings.current.seed, settings.current.max_examples) == (9, 1)
"""
    options = ("--seed", "2", "--lr=3", "--ledger=4", "-o", "lr_seed=9", "--lr-max-examples=1")
    assert outcomes(user(tests, *options)) == {"passed": 1}


def test_the_value_of_an_option_is_no_path_of_tests(user, pytester):
    pytester.makeini("[pytest]\ntestpaths = sub\n")
    sub = pytester.mkdir("sub")
    (sub / "conftest.py").write_text(
        'def pytest_addoption(parser):\n    parser.addoption("--theirs", default=1)\n'
    )
    (sub / "test_sub.py").write_text("def test(): pass\n")
    assert outcomes(user("", "--lr-seed", "3", "--theirs=4")) == {"passed": 1}


TWO_CHECKS = PAIRS.replace(
    "]", ', "resume_scheduler_then_optimizer", "loading_leaves_its_argument_alone"]'
)
SHUFFLED = """
import random

def pytest_collection_modifyitems(items):
    random.Random({seed}).shuffle(items)
"""


def test_results_do_not_depend_on_the_order(user, pytester):
    user(FIVE + TWO_CHECKS, "--junitxml=0.xml")
    first = verdicts(pytester.path / "0.xml")
    assert len(first) == 15
    for seed in (1,):
        pytester.makeconftest(SHUFFLED.format(seed=seed))
        user(FIVE + TWO_CHECKS, f"--junitxml={seed}.xml")
        shuffled = verdicts(pytester.path / f"{seed}.xml")
        assert shuffled == first
        assert list(shuffled) != list(first)


def verdicts(file, without=("tried",)):
    """The properties of each test, without those that may differ, such as the time that it took."""
    said = properties(file)
    return {
        name: {key: text for key, text in of.items() if key not in without}
        for name, of in said.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["-n", "2"], ["-n", "2", "--dist=worksteal"], ["randomly"]])
def test_results_do_not_depend_on_workers(user, pytester, arguments):
    plugin = list(PLUGIN)
    if arguments == ["randomly"]:
        pytest.importorskip("pytest_randomly")
        at = plugin.index("no:randomly")
        del plugin[at - 1 : at + 1]
        arguments = ["-p", "no:xdist"]
    else:
        pytest.importorskip("xdist")
    user(FIVE + TWO_CHECKS, "--junitxml=0.xml")
    result = user(
        FIVE + TWO_CHECKS, "--junitxml=1.xml", *arguments,
        run=pytester.runpytest_subprocess, plugin=plugin,
    )  # fmt: skip
    assert outcomes(result) == {"failed": 1, "passed": 9, "skipped": 1, "xfailed": 1, "errors": 3}
    without = "tried", "looked_at"  # a process of its own looks farther than these tests do
    second, first = (verdicts(pytester.path / f"{number}.xml", without) for number in (1, 0))
    assert second == first
    result.stdout.fnmatch_lines(
        [
            "lr-resume-harness: *, seed 0, ledger PyTorch's (* entries)",
            "lr-resume-harness: looked at in each pair: epochs *",
        ]
    )


def test_a_subject_is_prepared_once(user):
    tests = f"""
SUBJECTS = [HOLDS]
{TWO_CHECKS}

def test_cache():
    from harness import parametrize

    assert len(parametrize._sessions) == 1
"""
    assert outcomes(user(tests)) == {"passed": 4}
    from harness import parametrize

    assert not parametrize._sessions


def test_what_failed_last_is_run_first_and_alone(user):
    cached = PLUGIN[:-2]
    assert outcomes(user(FIVE + PAIRS, plugin=cached)) == OUTCOMES
    result = user(FIVE + PAIRS, "--lf", plugin=cached)
    assert outcomes(result) == {"failed": 1, "errors": 1, **deselected(result)}
    assert outcomes(user(FIVE + PAIRS, "-x")) == {"failed": 1}
    assert outcomes(user(FIVE + PAIRS, "-x", "-k", "Random or Declines")) == {
        "skipped": 1,
        "errors": 1,
        "deselected": 3,
    }


def deselected(result):
    """How many were left out, which versions of pytest count or don't."""
    return {key: n for key, n in outcomes(result).items() if key == "deselected"}


ALONE = [f"-pno:{name}" for name in ("hypothesispytest", "inline_snapshot", "pytest_cov", "xdist")]


def test_where_it_is_not_used_it_costs_nothing(pytester):
    pytester.makepyfile(
        """
        import sys

        def test_nothing_of_ours_is_there():
            ours = {name for name in sys.modules if "harness" in name and name[:2] != "__"}
            door = "lr_resume_harness"
            assert ours == {door, f"{door}.help", f"{door}.pytest_plugin"}
            assert not {"torch", "numpy", "rich", "click"} & set(sys.modules)
        """
    )
    result = pytester.runpytest_subprocess(*PLUGIN, *ALONE)
    assert outcomes(result) == {"passed": 1}
    result.stdout.no_fnmatch_line("lr-resume-harness:*")


OWN = {
    "harness/__init__.py": "OURS = False\n",
    "harness/settings.py": "current = 'theirs'\n",
    "test_it.py": "from harness import OURS, settings\n\n"
    "def test_it():\n    assert (OURS, settings.current) == (False, 'theirs')\n",
}


@pytest.mark.parametrize(
    ("arguments", "warned"),
    [((), True), (("-Werror",), False), (("--lr-seed=3",), True), (("--version",), None)],
)
def test_a_project_with_a_package_called_harness_keeps_it(pytester, arguments, warned):
    """Its folder comes before ours with ``python -m pytest``."""
    for name, text in OWN.items():
        (pytester.path / name).parent.mkdir(exist_ok=True)
        (pytester.path / name).write_text(text)
    result = pytester.runpytest_subprocess(*PLUGIN, *ALONE, *arguments)
    assert result.ret == 0
    if warned is None:
        return
    text = f"*lr-resume-harness is not used here, because {pytester.path / 'harness'} comes first*"
    (result.stdout if warned else result.stderr).fnmatch_lines([text])
    assert outcomes(result) == {"passed": 1, **({"warnings": 1} if warned else {})}


def test_a_package_called_harness_that_is_found_later_is_kept(pytester):
    """As with ``pytest``: a file of tests, or a conftest.py, adds its folder to the path."""
    sub = pytester.mkdir("sub")
    for name, text in OWN.items():
        (sub / name).parent.mkdir(exist_ok=True)
        (sub / name).write_text(text)
    result = pytester.runpytest_subprocess(*PLUGIN, *ALONE, "sub")
    assert outcomes(result) == {"passed": 1}


def test_the_command_is_ours_where_a_folder_is_called_harness(tmp_path):
    for name, text in OWN.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    code = f"import sys; sys.path[:1] = ['', {str(ROOT)!r}]; from lr_resume_harness import main; "
    done = subprocess.run(
        [sys.executable, "-c", code + "sys.argv[1:] = ['--version']; main()"], cwd=tmp_path,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout.split()[-1]) == (0, harness.__version__)


def test_without_the_plugin_the_tests_say_the_same(user):
    result = user(FIVE + PAIRS, plugin=("-p", "no:lr_resume_harness.pytest_plugin", *QUIET))
    assert outcomes(result) == {"failed": 2, "passed": 1, "skipped": 1, "xfailed": 1}


def test_parametrize_with_checks_is_refused_what_is_no_subject():
    with pytest.raises(SubjectError, match="must be a Subject"):
        parametrize_with_checks([3])
    mark = parametrize_with_checks([halves], checks=["resume_from_file"])
    assert [parameter.id for parameter in mark.args[1]] == ["halves-resume_from_file"]


def halves(optimizer, last_epoch=-1):
    return StepLR(optimizer, 3, 0.5, last_epoch)


# ------------------------------------------------------------------------------------ wording

FAILS = """
from harness import BrokenSchedule, UndecidedError

def test_broken():
    raise BrokenSchedule("BROKEN StepLR: resume_by_last_epoch\\n  (the block)", [])

def test_undecided():
    raise UndecidedError("the time limit of 30 s ran out")
"""


def test_the_wording_of_a_failure(pytester):
    pytester.makepyfile(test_user=FAILS)
    lines = pytester.runpytest_inprocess(*PLUGIN).stdout.str().splitlines()
    start = next(i for i, line in enumerate(lines) if "= FAILURES =" in line or "= ERRORS" in line)
    assert [line.strip("=_ ") for line in lines[start:-1]] == snapshot(
        [
            "ERRORS",
            "ERROR at call of test_undecided",
            "test_user.py:7: the time limit of 30 s ran out",
            "FAILURES",
            "test_broken",
            "BROKEN StepLR: resume_by_last_epoch",
            "(the block)",
            "pytest test_user.py::test_broken",
            "",
            "test_user.py:4: BROKEN StepLR: resume_by_last_epoch",
            "short test summary info",
            "FAILED test_user.py::test_broken - BROKEN StepLR: resume_by_last_epoch",
            "ERROR test_user.py::test_undecided - the time limit of 30 s ran out",
        ]
    )
