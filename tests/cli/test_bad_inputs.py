"""Bad input: one sentence that says what is wrong and what to do, and exit status 2."""

import pytest

from harness import CheckError, HarnessError, Subject, check_scheduler
from harness.checks.registry import select_checks

STEP = "step_size=3 gamma=0.5 train:3 save:a resume:a"
SCHEDULERS = """
import torch
from torch.optim.lr_scheduler import LRScheduler, StepLR

ONE = StepLR(torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1), 3)
NUMBER = 3


def takes_nothing():
    return ONE


def returns_none(optimizer, last_epoch=-1):
    StepLR(optimizer, 3)


def returns_optimizer(optimizer, last_epoch=-1):
    return optimizer


def returns_class(optimizer, last_epoch=-1):
    return StepLR


class NoGetLR(LRScheduler):
    pass


class OneValue(LRScheduler):
    def get_lr(self):
        return [0.1 * 0.5**self.last_epoch]


class Number(LRScheduler):
    def get_lr(self):
        return 0.1


class Nothing(LRScheduler):
    def get_lr(self):
        [base for base in self.base_lrs]


class Strings(LRScheduler):
    def get_lr(self):
        return ["0.1" for base in self.base_lrs]


class NoSuper(LRScheduler):
    def __init__(self, optimizer, last_epoch=-1):
        self.optimizer = optimizer

    def get_lr(self):
        return [0.1, 0.1]


class StepOfThree(LRScheduler):
    def get_lr(self):
        return [base for base in self.base_lrs]

    def step(self, one=None, *, two, three):
        pass


def not_a_check(optimizer):
    pass
"""


@pytest.fixture
def wrong(command, tmp_path, monkeypatch):
    """The command line in a folder with files that have mistakes in them."""
    (tmp_path / "wrong_of_user.py").write_text(SCHEDULERS)
    (tmp_path / "no_python.py").write_text("def (:\n")
    (tmp_path / "exits.py").write_text("raise SystemExit(0)\n")
    (tmp_path / "nothing_there.py").write_text("X = 1\n")
    (tmp_path / "empty_folder").mkdir()
    (tmp_path / "old.json").write_text("{}")
    (tmp_path / "no_json.json").write_text("{")
    (tmp_path / "no.toml").write_text("[failure")
    (tmp_path / "key.toml").write_text("[[failure]]\nsubjekt = 'StepLR'\n")
    (tmp_path / "other.toml").write_text("[other]\n")
    entry = """[[failure]]
subject = "{}"
check = "{}"
torch = "{}"
trace = "{}"
shows = "lr is [1.0] and should be [2.0]"
kind = "{}"
tracked = "{}"
reason = "r"
"""
    right = ["StepLR", "resume_by_last_epoch", ">=2.0", STEP, "bug", "no report found"]
    for number, value in enumerate(["StepLr", "resume_by_last_epok", "2", "train", "bgu", "x"]):
        values = [*right[:number], value, *right[number + 1 :]]
        (tmp_path / f"entry{number}.toml").write_text(entry.format(*values))
    monkeypatch.syspath_prepend(tmp_path)
    return command


CHECK = ("check", "--jobs", "0")
ONE = ("check", "StepLR", "--jobs", "0", "--check", "lr_is_finite")
HERE = [*CHECK, "--check", "lr_is_finite"]
REPLAY = ("replay", "StepLR", "resume_by_last_epoch")
INPUTS = [
    # commands and options
    (["nonsense"], "there is no command 'nonsense'"),
    (["chekc"], "did you mean check?"),
    (["StepLR"], "to check a subject, write lr-resume-harness check StepLR"),
    (["m.py:MyLR"], "write lr-resume-harness check m.py:MyLR"),
    (["ledger", "verfy"], "did you mean verify?"),
    (["--nonsense"], "there is no option --nonsense"),
    ([*ONE, "--xyzzy"], "check --help shows"),
    ([*ONE, "--max-exampels", "3"], "did you mean --max-examples?"),
    ([*ONE, "--max-examples", "-1"], "-1 "),
    ([*ONE, "--max-examples", "many"], "'many'"),
    ([*ONE, "--max-examples"], "requires an argument"),
    ([*ONE, "--seed", "1.5"], "'1.5'"),
    ([*ONE, "--time-limit", "0"], "0.0 "),
    ([*ONE, "--time-limit", "nan"], "--time-limit"),
    ([*ONE, "--time-limit", "inf"], "'--time-limit'"),
    ([*ONE, "--time-budget", "-2"], "-2"),
    ([*ONE, "--jobs", "-1"], "-1 "),
    ([*ONE, "--profile", "explor"], "'explor'"),
    ([*ONE, "--output-format", "xml"], "'xml'"),
    ([*ONE, "--ci", "gitlab"], "'gitlab'"),
    ([*ONE, "--shard", "3/2"], "must look like 2/5"),
    ([*ONE, "--shard", "2"], "must look like 2/5"),
    ([*ONE, "--length", "0"], "0 "),
    ([*ONE, "-q", "-v"], "-q can't be combined with -v"),
    ([*ONE, "--decline", "lr_is_finite"], "must look like 'resume_by_pickle=it holds a lambda'"),
    ([*ONE, "--decline", "lr_is_fine=no"], "did you mean lr_is_finite?"),
    ([*ONE, "--optimizer", "AdamX"], "'AdamX' is not a word of this subject"),
    ([*ONE, "--optimizer", "3"], "'optimizer' must be written as AdamW(groups=2) (got '3')"),
    ([*ONE, "--optimizer", "AdamW(groups=9)"], "groups must be 1 to 4 (got 9)"),
    ([*ONE, "--step", "wrong_of_user.no_step"], "no attribute 'no_step'"),
    ([*ONE, "--step", "wrong_of_user.NUMBER"], "must name a function or a class (got 3)"),
    ([*ONE, "--step", "3 +"], "'step' must be written as metric"),
    ([*CHECK, "--kwargs", "gamma=1"], "--kwargs needs a SUBJECT"),
    ([*CHECK, "--optimizer", "AdamW"], "--optimizer needs a SUBJECT"),
    ([*ONE, "-k", "("], "a word is missing"),
    ([*ONE, "-k", "a b"], "'b' is not expected"),
    ([*ONE, "-k", "(lr"], "a parenthesis is not closed"),
    ([*ONE, "-k", "nothing"], "selects nothing: its words must be parts of texts such as StepLR-"),
    ([*ONE, "--exclude", "Step*"], "every subject is excluded by Step*"),
    ([*ONE, "--json", "no/such/folder/x.json"], "no/such/folder"),
    ([*ONE, "--json", "."], " .: "),
    ([*ONE, "--scripts", "/dev/null/x"], " /dev/null/x: "),
    ([*ONE, "--html", "no/x.html"], " no: "),
    ([*ONE, "--resume-python", "/no/python"], "'/no/python'"),
    ([*ONE, "--installed"], "no installed package ships subjects"),
    # subjects
    ([*CHECK, "NoSuchLR"], "'NoSuchLR'"),
    ([*CHECK, "StepLr"], "did you mean StepLR?"),
    ([*CHECK, "steplr"], "did you mean StepLR?"),
    ([*CHECK, "no_such_module:x"], "'no_such_module'"),
    ([*CHECK, "math:no_such_name"], "'no_such_name'"),
    ([*CHECK, "torch.optim.lr_scheduler:StepLRs"], "did you mean StepLR?"),
    ([*CHECK, "wrong_of_usr"], "did you mean wrong_of_user?"),
    ([*CHECK, "wrong_of_usr.py"], "did you mean wrong_of_user.py?"),
    ([*CHECK, "wrong_of_usr.py:NoGetLR"], "did you mean wrong_of_user.py?"),
    ([*CHECK, "wrong_of_user.py:NoGetLRs"], "did you mean NoGetLR?"),
    ([*CHECK, "empty_folder/"], "no package or module in the folder 'empty_folder' defines"),
    ([*CHECK, "no_folder/"], "there is no file or folder 'no_folder'"),
    ([*CHECK, "nothing_there.py"], "'nothing_there' defines no scheduler"),
    ([*CHECK, "nothing_there"], "'nothing_there' defines no scheduler"),
    ([*CHECK, "no_python.py"], "SyntaxError"),
    ([*CHECK, "exits:x"], "SystemExit"),
    ([*CHECK, "harness.core.nothing"], "no attribute 'nothing'"),
    ([*CHECK, "old.json"], "'old.json'"),
    ([*CHECK, ":x"], "':x'"),
    ([*CHECK, ""], "''"),
    ([*CHECK, "wrong_of_user:NUMBER"], "must be a Subject, a scheduler class or a function"),
    # what builds them
    ([*HERE, "wrong_of_user:ONE"], "is a StepLR that is already built: name the class StepLR"),
    ([*HERE, "wrong_of_user:takes_nothing"], "let it take the optimizer, as in def takes_nothing("),
    ([*HERE, "wrong_of_user:returns_none"], "returns None: let it end with return scheduler"),
    ([*HERE, "wrong_of_user:returns_optimizer"], "returns the optimizer: return the scheduler"),
    ([*HERE, "wrong_of_user:returns_class"], "call it, as in return StepLR(optimizer, ...)"),
    ([*HERE, "wrong_of_user:NoGetLR"], "it has no get_lr: add def get_lr(self): return [... for"),
    ([*HERE, "wrong_of_user:OneValue"], "get_lr must return one LR for each param group"),
    ([*HERE, "wrong_of_user:Number"], "get_lr returns a float: return one LR for each param"),
    ([*HERE, "wrong_of_user:Nothing"], "get_lr returns None: return one LR for each param group"),
    ([*HERE, "wrong_of_user:Strings"], "it sets lr to '0.1', a str: let get_lr return numbers"),
    ([*HERE, "wrong_of_user:NoSuper"], "must call super().__init__(optimizer, last_epoch)"),
    ([*HERE, "wrong_of_user:StepOfThree"], "give step=function, with function(scheduler, epoch)"),
    # their options
    ([*ONE, "--kwargs", "step_size"], "'step_size'"),
    ([*ONE, "--kwargs", "step_size=1+x"], "1+x"),
    ([*ONE, "--kwargs", "step_size=x"], "'x'"),
    ([*ONE, "--kwargs", "step_size=3,gamma=0.5"], "use spaces: step_size=3 gamma=0.5"),
    ([*ONE, "--kwargs", "step_size=3 step_size=4"], "a second time"),
    ([*ONE, "--kwargs", "last_epoch=3"], "'last_epoch'"),
    ([*ONE, "--kwargs", "stepsize=3"], "did you mean step_size?"),
    ([*ONE, "--kwargs", "gamma= 3"], "'gamma='"),
    ([*ONE, "--kwargs", "step_size=no_module.x"], "cannot import 'no_module'"),
    # checks
    (["check", "StepLR", "--check", "resume_from_fil"], "did you mean resume_from_file?"),
    (["check", "StepLR", "--check", "RESUME-FROM-FILE"], "did you mean resume_from_file?"),
    (["check", "StepLR", "--check", "nonsense"], "lr-resume-harness list shows them"),
    (
        ["check", "StepLR", "--check", "wrong_of_user:not_a_check"],
        "decorate it with harness.",
    ),
    (["check", "StepLR", "--check", "no_such_module:x"], "'no_such_module'"),
    (["explain", "resume_from_fil"], "did you mean resume_from_file?"),
    (["explain"], "missing argument 'CHECK'"),
    # traces
    ([*REPLAY], "missing argument 'TRACE...'"),
    ([*REPLAY, "train:3 jump:a"], "'jump:a'"),
    ([*REPLAY, "train"], "'train'"),
    ([*REPLAY, "train:0"], "'train:0'"),
    ([*REPLAY, "resume:a"], "put save:a earlier"),
    ([*REPLAY, "train:20000"], " 10000 "),
    ([*REPLAY, "gamma=0.5"], "has no operations"),
    ([*REPLAY, "train:3 gamma=0.5"], "put it before 'train:3'"),
    ([*REPLAY, "step_size=3,gamma=0.5", "train:3", "save:a", "resume:a"], "use spaces"),
    ([*REPLAY, "gama=1 train:1"], "did you mean gamma?"),
    ([*REPLAY, "optimizer=AdamW train:1"], "write AdamW()"),
    (["replay", "StepLR", "no_such_check", "train:1"], "'no_such_check'"),
    (["replay", "StepLr", "resume_from_file", "train:1"], "did you mean StepLR?"),
    (["replay", "StepLR"], "missing argument 'CHECK'"),
    (["script", "StepLR", "resume_from_file", "save:a resume:a", "-o", "no/x.py"], " no: "),
    (["script", "StepLR", "resume_from_file", STEP, "--imports", "none"], "'none'"),
    (["plot", "StepLR", "-o", "x.gif"], "gif"),
    (["plot", "StepLR", "--epochs", "0"], "0 "),
    (["plot"], "missing argument 'SUBJECT...'"),
    # files
    (["ledger", "verify", "--ledger", "none.toml"], "none.toml"),
    (["ledger", "verify", "--ledger", "no.toml"], "no.toml:1: this is not valid TOML"),
    (["ledger", "verify", "--ledger", "other.toml"], "'other' is not a table [[failure]]"),
    (
        ["ledger", "verify", "--ledger", "key.toml"],
        "is not a key of a failure: did you mean subject?",
    ),
    (["ledger", "verify", "--ledger", "entry0.toml"], "did you mean StepLR?"),
    (["ledger", "verify", "--ledger", "entry1.toml"], "did you mean resume_by_last_epoch?"),
    (["ledger", "verify", "--ledger", "entry2.toml"], "entry2.toml:4: "),
    (["ledger", "verify", "--ledger", "entry3.toml"], "entry3.toml:5: "),
    (["ledger", "verify", "--ledger", "entry4.toml"], "'kind' must be bug, by-design or rounding"),
    (["ledger", "verify", "--ledger", "entry5.toml"], "entry5.toml:8: "),
    (["merge", "none.json"], "none.json"),
    (["merge", "no_json.json"], "no_json.json"),
    (["merge", "old.json"], "old.json"),
    (["merge"], "missing argument 'RESULT...'"),
    (["matrix", "old.json"], "old.json"),
    (["diff", "old.json"], "missing argument 'NEW'"),
    (["diff", "none.json", "old.json"], "none.json"),
    (["ledger", "update", "old.json", "--write"], "--write needs --ledger FILE"),
    (["ledger", "ranges", "old.json"], "old.json"),
    (["selftest", "--seeds", "0"], "0 "),
    (["selftest", "--faults", "no_such_module:X"], "'no_such_module'"),
    (["init"], "name it, as in lr-resume-harness init my_package"),
    (["train", "--checkpoints", "runs"], "missing argument"),
]


@pytest.mark.parametrize(
    ("arguments", "part"),
    INPUTS,
    ids=[f"{n} {' '.join(a)}"[:60] for n, (a, _) in enumerate(INPUTS)],
)
def test_it_is_one_sentence_and_status_2(arguments, part, wrong, tmp_path):
    before = set(tmp_path.iterdir())
    status, printed, errors = wrong(*arguments)
    assert status == 2, printed + errors
    assert part in errors
    assert "Traceback" not in errors + printed
    assert printed == ""
    lines = [line for line in errors.splitlines() if not line.endswith((" UNKNOWN (0.0 s)", " s)"))]
    assert [line[:7] for line in lines if not line.startswith("note: ")] == ["error: "]
    assert {path for path in tmp_path.iterdir() if path.name != "__pycache__"} == before


def test_there_are_enough():
    assert len(INPUTS) >= 120


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"checks": "resume_from_file"}, r"'checks' must be a list: write checks=\['resume_from_f"),
        ({"checks": 3}, r"'checks' must be a list of checks \(got 3\)"),
        ({"checks": ["resume_from_fil"]}, "did you mean resume_from_file"),
        ({"length": 0}, "'length' must be a whole number of epochs from 1"),
        ({"optimizer": "AdamX"}, "'AdamX' is not a word"),
        ({"optimizer": 3}, "'optimizer' must be callable"),
        ({"step": "met ric"}, "'step' must be written as metric"),
        ({"declines": {"lr_is_finite": ""}}, "'declines' must give a reason for 'lr_is_finite'"),
        ({"declines": {"lr_is_fine": "x"}}, "did you mean lr_is_finite"),
        ({"expected_failures": {"lr_is_fine": "x"}}, "did you mean lr_is_finite"),
        ({"expected_failures": {"lr_is_finite": 3}}, "'expected_failures' must give a reason"),
        ({"max_examples": -1}, "'max_examples' must be 0 or more"),
        ({"gama": 0.5}, "did you mean gamma"),
    ],
)
def test_an_argument_of_check_scheduler(arguments, message):
    from torch.optim.lr_scheduler import ExponentialLR

    given = {"gamma": 0.5, "checks": ["lr_is_finite"], "max_examples": 0, **arguments}
    with pytest.raises(HarnessError, match=message):
        check_scheduler(ExponentialLR, **given)


def test_a_check_is_declined_or_expected_to_fail_but_not_both():
    both = {"lr_is_finite": "x"}
    with pytest.raises(HarnessError, match="keep one of them"):
        Subject("both", lambda optimizer: None, declines=both, expected_failures=both)
    with pytest.raises(CheckError, match="no check is called"):
        select_checks(["nonsense"])
