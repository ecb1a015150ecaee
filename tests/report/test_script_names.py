"""No name in a script hides another, and no error of a script looks like the bug."""

import ast
import importlib
import re
import sys

import pytest
from inline_snapshot import snapshot
from torch.optim.lr_scheduler import LambdaLR, StepLR

from harness import ScriptError, Subject, Term, replay, write_script
from harness.subjects.source_text import renamed

BREAKS = "step_size=3 gamma=0.5 train:3 save:a resume:a"
BY_LAST_EPOCH = "resume_by_last_epoch"
IN_ORDER = "resume_optimizer_then_scheduler"
STEP_SCRIPT = write_script(StepLR, BY_LAST_EPOCH, BREAKS)
OURS = sorted(
    {node.name for node in ast.walk(ast.parse(STEP_SCRIPT)) if isinstance(node, ast.FunctionDef)}
    | {"build", "main", "examine", "make", "StepLR", "torch", "copy", "os", "exit_status"}
    | {"optimizer", "scheduler", "saved", "checkpoint", "interrupted", "i", "print", "zip"}
)
"""Every name that a script has, or another script could have."""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Makes a module of the user out of its source, and imports it."""
    monkeypatch.syspath_prepend(tmp_path)
    made = []

    def make(name, text):
        (tmp_path / f"{name}.py").write_text(text)
        importlib.invalidate_caches()
        made.append(name)
        return importlib.import_module(name)

    yield make
    for name in made:
        sys.modules.pop(name, None)


USER = '''
from torch.optim.lr_scheduler import _LRScheduler

COUNT = 0


class Decay(_LRScheduler):
    def __init__(self, optimizer, every, last_epoch=-1):
        self.every = every
        super().__init__(optimizer, last_epoch)

    def get_lr(self):
        """NAME(1) says what NAME means."""
        text = "NAME is 'NAME'"  # NAME
        assert text.encode().hex() == "HEX"
        return [NAME(rate, self.last_epoch // self.every) for rate in self.base_lrs]


def NAME(rate, depth):
    """NAME, by mutual recursion."""
    return rate if depth <= 0 else other(rate, depth - 1) * 0.5


def other(rate, depth):
    return NAME(rate, depth)
'''


def user_module(name):
    return USER.replace("HEX", f"{name} is '{name}'".encode().hex()).replace("NAME", name)


@pytest.mark.parametrize(
    ("name", "breaks"), [*((name, False) for name in OURS), ("same", True), ("observe", True)]
)
def test_a_users_function_may_be_called_as_anything_in_a_script(name, breaks, module, run_script):
    text = user_module(name)
    if breaks:  # the epoch is lost
        forgets = "def state_dict(self):\n        return {}\n\n    "
        forgets += "def load_state_dict(self, state):\n        pass\n\n    "
        text = text.replace("def get_lr", f"{forgets}def get_lr")
    users = module("users_schedule", text)
    subject = Subject("x", users.Decay, options={"every": 2}, standalone=True)
    trace = "train:3 save:a resume:a train:3"
    assert replay(subject, IN_ORDER, trace).verdict == ("BROKEN" if breaks else "HOLDS")
    script = write_script(subject, IN_ORDER, trace)
    assert f"\"{name} is '{name}'\"  # {name}" in script
    done = run_script(script)
    assert (done.returncode, done.stderr) == (int(breaks), "")


def test_the_builtin_names_of_a_user_are_the_users(module, run_script):
    """And the harness and other modules go on with the builtins."""
    users = module("users_builtins", user_module("zip"))
    more = module("users_more", "def pairs(epoch):\n    return dict(zip([epoch], [0.5]))[epoch]\n")
    assert users.zip(1.0, 2) == 0.25
    module("users_both", "from users_builtins import zip\nfrom users_more import pairs\n"
           "def factor(epoch):\n    return zip(pairs(epoch), epoch)\n")  # fmt: skip
    both = sys.modules["users_both"]
    subject = Subject("x", LambdaLR, options={"lr_lambda": both.factor}, standalone=True)
    done = run_script(write_script(subject, IN_ORDER, "train:3 save:a resume:a train:2"))
    assert (done.returncode, done.stderr) == (0, "")
    assert more.pairs(3) == 0.5
    assert "0.0125" in done.stdout  # 0.1 * 0.5 * 0.5 ** 2 after two steps is 0.0125


def test_functions_of_one_name_from_two_modules(module, run_script):
    first = module("users_first", 'SCALE = 0.5\n\ndef scale(epoch):\n    "scale SCALE"\n'
                   "    return SCALE ** epoch\n")  # fmt: skip
    module("users_second", "import users_first\nfrom users_first import scale as other\n"
           "SCALE = 0.25\n\ndef scale(epoch, scale=other):\n"
           "    inner = lambda SCALE: scale(SCALE)\n"
           '    return SCALE * inner(epoch), f"{SCALE} SCALE"\n'
           "\ndef both(epoch):\n    number, text = scale(epoch)\n"
           '    assert text == "0.25 SCALE"\n    return number + other(epoch)\n')  # fmt: skip
    second = sys.modules["users_second"]
    options = {"lr_lambda": [second.both, first.scale]}
    subject = Subject("x", LambdaLR, options=options, standalone=True)
    text = write_script(subject, IN_ORDER, "train:1 save:a resume:a train:2")
    assert '"scale SCALE"' in text
    done = run_script(text)
    assert (done.returncode, done.stderr) == (0, "")
    assert str([0.1 * (0.25 * 0.25 + 0.25), 0.01 * 0.25]) in done.stdout


@pytest.mark.parametrize("name", ["StepLR", "_LRScheduler", "Stateful"])
def test_a_users_class_is_called_like_one_of_torch(name, module, run_script):
    module("users_class", f"import torch.optim.lr_scheduler as t\n\nclass {name}(t.StepLR):\n"
           f"    def get_lr(self):\n        return t.StepLR.get_lr(self)\n\n"
           f"def build(optimizer, last_epoch=-1):\n"
           f"    return t.SequentialLR(optimizer, [{name}(optimizer, 2), "
           f"t.StepLR(optimizer, 3)], [4])\n")  # fmt: skip
    users = sys.modules["users_class"]
    subject = Subject("x", users.build, standalone=True)
    done = run_script(write_script(subject, IN_ORDER, "train:3 save:a resume:a train:3"))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("crash", ["raise ValueError('at import')", "import sys; sys.exit(1)",
                                   "import sys; sys.exit(0)", "import no_such_module"])  # fmt: skip
def test_a_crash_at_import_exits_125(crash, run_script):
    text = STEP_SCRIPT.replace("import functools\n", f"import functools\n{crash}\n")
    assert run_script(text).returncode == 125
    if "ValueError" in crash or "exit(0)" in crash:  # is it the same without the fork?
        assert run_script(text, forked=False).returncode == 125


@pytest.mark.parametrize(
    "old", ["def compare(", "rows.append", "def snapshot(", "exit_status = compare"]
)
def test_a_script_whose_own_part_is_broken_exits_125(old, run_script):
    assert old in STEP_SCRIPT
    new = f"{old}x, " if old.startswith("def") else f"no_such.{old}"
    done = run_script(STEP_SCRIPT.replace(old, new))
    assert done.returncode in ((125,) if "snapshot" not in old else (1,)), done.stdout
    if "snapshot" in old:  # what saves and resumes is on trial
        assert "TypeError" in done.stdout


def test_what_concerns_the_bug_is_in_the_first_40_lines():
    head, _, rest = STEP_SCRIPT.partition("\n\n# Helpers.\n")
    assert len(head.splitlines()) <= 40
    assert len(rest.splitlines()) <= 149
    for line in ("scheduler = build(optimizer, last_epoch=checkpoint[\"epoch\"] - 1)",
                 "optimizer.load_state_dict(checkpoint[\"optimizer\"])"):  # fmt: skip
        assert line in head


# ------------------------------------------------------------------------------- imports


def test_the_three_kinds_of_script(module, run_script, tmp_path, monkeypatch):
    site = tmp_path / "site-packages"
    site.mkdir()
    (site / "a_library.py").write_text(
        "from torch.optim.lr_scheduler import StepLR\n\nclass Decays(StepLR):\n    pass\n"
    )
    monkeypatch.syspath_prepend(site)
    glue = module("users_glue", "from a_library import Decays\n\nimport a_library\n\n"
                  "def build(optimizer, last_epoch=-1):\n"
                  "    return Decays(optimizer, 3, 0.5, last_epoch)\n")  # fmt: skip
    subject, trace = Subject("x", glue.build), "train:3 save:a resume:a"

    def written(imports):
        text = write_script(subject, BY_LAST_EPOCH, trace, imports=imports)
        heads.append(text.splitlines()[1])
        return text

    heads = []
    alone = written("torch")
    assert "class Decays(StepLR):" in alone
    done = run_script(alone)
    assert (done.returncode, done.stderr) == (1, "")
    library = written("library")
    assert "from a_library import Decays" in library
    assert "users_glue import" not in library
    everything = written("all")
    assert heads == snapshot(
        [
            "Needs only torch: everything else is in this file.",
            "Needs torch and an installed a_library; pasted into this file: users_glue.",
            "Needs torch and users_glue, either installed or in the folder of this file.",
        ]
    )
    assert "from users_glue import build" in everything
    assert (
        write_script(subject, BY_LAST_EPOCH, trace) == everything
    )  # it is not marked as standalone
    files = [site / "a_library.py", tmp_path / "users_glue.py"]
    assert run_script(library, beside=files[:1]).returncode == 1
    assert run_script(everything, beside=files).returncode == 1
    # a fix upstream: what is imported is what is tested
    fixed = "class Decays(StepLR):\n    def get_lr(self):\n        return self.base_lrs\n"
    (site / "a_library.py").write_text(f"from torch.optim.lr_scheduler import StepLR\n{fixed}")
    assert run_script(library, beside=files[:1]).returncode == 0


def test_the_command_writes_each_kind(command):
    for imports in ("torch", "library", "all"):
        status, printed, _ = command(
            "script", "torch.optim.lr_scheduler:StepLR", BY_LAST_EPOCH, BREAKS, "--imports", imports
        )
        assert status == 0
        assert "from torch.optim.lr_scheduler import StepLR" in printed
    assert (
        command(
            "script", "torch.optim.lr_scheduler:StepLR", BY_LAST_EPOCH, BREAKS, "--imports", "none"
        )[0]
        == 2
    )


# ------------------------------------------------------------------------------- lambdas

FACTOR = 0.5
half = lambda epoch: FACTOR**epoch  # noqa: E731


@pytest.mark.parametrize(
    "subject",
    [
        Subject("x", lambda optimizer, last_epoch=-1: StepLR(optimizer, 3, 0.5, last_epoch)),
        Subject("x", LambdaLR, options={"lr_lambda": half}, standalone=True),
        Subject("x", LambdaLR, options={"lr_lambda": [lambda epoch: FACTOR, lambda epoch: 1.0]}),
        # as proposed for a scheduler whose step takes an argument
        Subject("x", StepLR, options={"step_size": 3},
                step=lambda scheduler, epoch: scheduler.step()),
        Subject("x", LambdaLR, options={"lr_lambda": Term("half")}, words={"half": half}),
    ],
)  # fmt: skip
def test_a_lambda_is_pasted(subject, run_script):
    text = write_script(subject, IN_ORDER, "train:2 save:a resume:a train:2", imports="torch")
    assert "lambda" in text
    done = run_script(text)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_lambda_that_its_text_does_not_define_is_refused():
    factors = [lambda epoch, factor=factor: factor for factor in (FACTOR, 1.0)]

    def closed(factor):
        return lambda epoch: factor

    for function in (*factors, closed(0.5)):
        subject = Subject("x", LambdaLR, options={"lr_lambda": function})
        with pytest.raises(ScriptError, match="lambda"):
            write_script(subject, IN_ORDER, "train:1 save:a resume:a")


# ------------------------------------------------------------------------------- renames


def test_names_are_renamed_where_they_are_global():
    text = '''
class A:
    same = same
    other = same

    def f(self, same=same):
        """same"""
        return same, other, "same"  # same

    def g(self):
        return [same for same in same(same=1)], lambda y: same + y.same
'''
    new = renamed(text, {"same": "same_2", "other": "other_2"})
    assert (
        new
        == '''
class A:
    same = same_2
    other = same

    def f(self, same=same):
        """same"""
        return same, other_2, "same"  # same

    def g(self):
        return [same for same in same_2(same=1)], lambda y: same_2 + y.same
'''
    )


def test_names_in_f_strings_and_after_global_are_renamed():
    text = "def f():\n    global same\n    same = 3\n"
    text += "    return f'{same} same {{same}} {same!r:>{same}}'\n"
    assert renamed(text, {"same": "one"}) == ast.unparse(
        ast.parse(text.replace("{same", "{one").replace("{{one", "{{same")
                  .replace("global same", "global one").replace("    same =", "    one ="))
    )  # fmt: skip


def test_every_name_of_the_harness_was_tried():
    words = set(re.findall(r"^(?:def|class) (\w+)", STEP_SCRIPT, flags=re.MULTILINE))
    assert words <= set(OURS)
