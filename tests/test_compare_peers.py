"""That the patterns of other projects, written again, do what theirs do."""

import importlib.util
import sys

import pytest
from helpers import ROOT

from lr_schedules.controls import CONTROLS, HALVING
from lr_schedules.faults import FAULTS

spec = importlib.util.spec_from_file_location("compare_peers", ROOT / "scripts/compare_peers.py")
compare_peers = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = compare_peers
spec.loader.exec_module(compare_peers)

BY_NAME = {fault.name: fault.subject for fault in FAULTS}
OTHERS = {
    name: peer for name, peer in compare_peers.PEERS.items() if not name.startswith("this harness")
}


@pytest.mark.parametrize(
    ("peer", "catches", "misses"),
    [
        # __dict__ equality sees what is not loaded, and not what is loaded and used wrongly.
        ("of_pytorch", "SavesNoPosition", "WrongAtAMilestone"),
        # One step, then last_epoch=0.
        ("of_pytorch_last_epoch", "AppliesAgain", "SavesNoPosition"),
        # The same object is loaded, so what it does not save it still has.
        ("of_transformers", "LoadsADelta", "SavesNoPosition"),
        # State equality sees what is saved and not loaded, and not what is not saved.
        ("of_timm", "LoadsNothing", "SavesNoPosition"),
        # Rewinding sees what does not go back in time.
        ("of_ignite", "OnlyForward", "SecondResumeWrong"),
        # The end sees what lasts, if it was resumed in the middle.
        ("of_composer", "SavesNoPosition", "WrongFromTheEighth"),
        ("of_pytest_torch", "SavesNoPosition", "WrongFromTheEighth"),
        # The first group's LR, and no other's.
        ("of_bionemo", "SavesNoPosition", "FirstGroupForAll"),
        # Every save point, resumed once.
        ("plain_sweep", "WrongFromTheEighth", "SecondResumeWrong"),
    ],
)
def test_a_pattern_catches_and_misses_what_its_original_would(peer, catches, misses):
    pattern = getattr(compare_peers, peer)
    assert pattern in OTHERS.values()
    assert compare_peers.passes(pattern, HALVING)
    assert not compare_peers.passes(pattern, BY_NAME[catches])
    assert compare_peers.passes(pattern, BY_NAME[misses])


def test_the_false_alarms_are_those_of_the_readme():
    alarms = {
        (name, control.name)
        for name, pattern in OTHERS.items()
        for control in CONTROLS
        if not compare_peers.passes(pattern, control)
    }
    assert alarms == {
        ("timm, `state_dict()` after load", "handover"),
        ("pytest-torch, resume in the middle", "handover"),
        ("ignite, rewind to the start", "multiplies"),
        ("ignite, rewind to the start", "in-the-groups"),
        ("PyTorch, `__dict__` after load", "slots"),
    }
