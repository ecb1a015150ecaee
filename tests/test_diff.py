import copy
import json
import shlex

import pytest
from harness.report.result_files import read_results

from harness.core.errors import ResultsError
from harness.report.diff import compare, text

STEP = "step_size=3 gamma=0.5 train:3 save:a resume:a"
PLAIN = "gamma=0.5 train:2"
BROKEN_ROW = {
    "verdict": "BROKEN",
    "trace": STEP,
    "operation": 2,
    "step": 0,
    "expected": {"lr": [0.05, 0.005]},
    "actual": {"lr": [0.025, 0.0025]},
}


def row(subject, check, verdict, reason="", **more):
    said = {"subject": subject, "check": check, "verdict": verdict, "reason": reason}
    return said | (BROKEN_ROW if verdict == "BROKEN" else {}) | more


def results(*rows, torch="2.0.1", runs=None):
    """A file; without `runs`, every subject was run with the options of `STEP`."""
    if runs is None:
        runs = {said["subject"]: {"step_size=3 gamma=0.5 train:12": []} for said in rows}
    return {
        "schema": 1,
        "torch": torch,
        "seed": 0,
        "max_examples": 25,
        "complete": True,
        "results": list(rows),
        "runs": runs,
    }


def rates(old, new, trace=PLAIN):
    """What is different between one plain run in two files."""
    files = [results(row("A", "c", "HOLDS"), runs={"A": {trace: some}}) for some in (old, new)]
    return compare(*files)


def pairs(changes):
    return [(change.subject, change.check) for change in changes]


def test_verdicts_are_sorted_by_what_became_of_them():
    old = results(
        row("A", "c", "HOLDS"),
        row("B", "c", "BROKEN"),
        row("C", "c", "BROKEN"),
        row("D", "c", "DECLINED", "cannot"),
        row("E", "c", "DECLINED", "cannot"),
        row("F", "c", "BROKEN"),
        row("G", "c", "HOLDS"),
        row("H", "c", "BROKEN"),
    )
    new = results(
        row("A", "c", "BROKEN"),
        row("B", "c", "HOLDS"),
        row("C", "c", "BROKEN"),
        row("D", "c", "BROKEN"),
        row("E", "c", "HOLDS"),
        row("F", "c", "UNKNOWN", "time"),
        row("G", "c", "HOLDS", "a note"),
        row("H", "c", "BROKEN", actual={"lr": [0.0, 0.0]}),
    )
    difference = compare(old, new)
    assert pairs(difference.broken) == [("A", "c"), ("D", "c")]
    assert pairs(difference.fixed) == [("B", "c")]
    assert pairs(difference.other) == [("E", "c"), ("F", "c")]
    assert pairs(difference.still) == [("C", "c"), ("H", "c")]
    assert pairs(difference.otherwise) == [("H", "c")]
    said = text(difference)
    assert "DECLINED -> HOLDS c (was: cannot): E\nBROKEN -> UNKNOWN c (time): F" in said
    assert "\nc: a check of one's own (was DECLINED: cannot)\n" in said
    assert "BROKEN IN BOTH: 2 pairs, 1 of them with another counterexample" in said


def test_what_is_newly_broken_has_its_evidence_and_command():
    old = results(row("StepLR", "resume_by_last_epoch", "HOLDS"))
    new = results(row("StepLR", "resume_by_last_epoch", "BROKEN"), torch="2.6.0")
    lines = text(compare(old, new)).splitlines()
    assert lines[0] == "torch 2.0.1 (OLD) -> torch 2.6.0 (NEW)"
    start = lines.index("NEWLY BROKEN: 1 pair. To replay, on torch 2.6.0:")
    assert lines[start + 1].startswith("resume_by_last_epoch: Load the optimizer's state, then")
    assert [line.strip() for line in lines if "replay Step" in line or "  lr [" in line] == [
        f'python -m harness replay StepLR resume_by_last_epoch "{STEP}"',
        "expected  lr [0.05, 0.005], because the uninterrupted run (train:3) has it there",
        "got       lr [0.025, 0.0025], however this run was resumed by resume_by_last_epoch",
    ]
    assert compare(old, new).worse
    assert not compare(new, old).worse
    back = text(compare(new, old))
    assert (
        "NEWLY FIXED: 1 pair, with the counterexample on torch 2.6.0:\n"
        f"resume_by_last_epoch:\n  StepLR  {STEP}\n"
    ) in back
    assert "NEWLY BROKEN: none" in back


def test_pairs_that_differ_alike_are_shown_once():
    check = "resume_by_last_epoch"
    raises = {"raises": "KeyError: 'x'"}
    new = results(
        row("A", check, "BROKEN"),
        row("B", check, "BROKEN", actual=raises),
        row("C", check, "BROKEN", actual={"lr": [0.0, 0.0]}),
    )
    lines = text(compare(results(*(row(name, check, "HOLDS") for name in "ABC")), new)).splitlines()
    lines = lines[lines.index("NEWLY BROKEN: 3 pairs. To replay, on NEW:") + 1 :]
    said = [" ".join(line.split()[:5]) for line in lines if line.startswith("   ")]
    assert said == [
        "expected lr [0.05, 0.005], because",
        "got lr [0.025, 0.0025], however",
        "likewise, each with its own",
        "expected lr [0.05, 0.005], because",
        "got raises KeyError: 'x', however",
    ]
    assert [line.split()[4] for line in lines if "harness replay" in line] == ["A", "C", "B"]


def test_what_the_other_file_was_not_checked_with_is_told_apart():
    old = results(*(row(name, "c", "HOLDS") for name in "AB"), runs={"A": {}})
    new = results(*(row(name, "c", "BROKEN") for name in "AB"), runs={"A": {}})
    for data in (old, new):
        data["runs"]["B"] = {"step_size=3 gamma=0.5 train:12": []}
    broken, fixed = text(compare(old, new)), text(compare(new, old))
    assert "NEWLY BROKEN: 1 pair. To replay, on NEW:\nc: a check of one's own\n" in broken
    assert [line.split()[4] for line in broken.splitlines() if "replay " in line[:30]] == ["B", "A"]
    assert (
        "NEWLY BROKEN, or seen only with options that OLD was not checked with: 1 pair. "
        "A replay on OLD tells which: c: a check"
    ) in " ".join(broken.split())
    assert f"NEWLY FIXED: 1 pair, with the counterexample on OLD:\nc:\n  B  {STEP}\n" in fixed
    assert f"which:\nc:\n  A  {STEP}\n" in fixed
    assert compare(old, new).worse


def test_numbers_that_json_lacks_are_numbers_again():
    new = row("StepLR", "resume_by_last_epoch", "BROKEN", actual={"lr": ["nan", "-inf"]})
    said = text(compare(results(row("StepLR", "resume_by_last_epoch", "HOLDS")), results(new)))
    assert "got       lr [nan, -inf], however" in said


def test_the_command_of_the_file_comes_first_and_a_check_of_ones_own_has_no_promise():
    new = row("Mine", "my_check", "BROKEN", replay="python -m harness replay m:Mine m:my_check x")
    said = text(compare(results(row("Mine", "my_check", "HOLDS")), results(new)))
    assert "\n  python -m harness replay m:Mine m:my_check x\n" in said
    assert "    got       {'lr': [0.025, 0.0025]}\n" in said


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ([[1.0], [0.5]], [[1.0], [0.5]], None),
        ([["nan"]], [["nan"]], None),
        ([[1.0], [0.5]], [[1.0], [0.25]], (1, [0.5], [0.25], False)),
        ([[1.0], ["inf"]], [[1.0], [0.25]], (1, [float("inf")], [0.25], False)),
        ([[1.0], [0.5]], [[1.0]], (1, [0.5], None, False)),
        ([[1.0]], [[1.0], [0.5]], (1, None, [0.5], False)),
        ([[1.0, 2.0]], [[1.0]], (0, [1.0, 2.0], [1.0], False)),
        ([[0.3]], [[0.30000000000000004]], (0, [0.3], [0.30000000000000004], True)),
        ([[0.3], [0.1]], [[0.30000000000000004], [0.2]], (0, [0.3], [0.30000000000000004], False)),
        ([[1.0]], [[1.0 + 2e-12]], (0, [1.0], [1.0 + 2e-12], False)),
    ],
)
def test_where_plain_runs_part(old, new, found):
    drifts = rates(old, new).drifts
    assert [(d.epoch, d.old, d.new, d.rounding) for d in drifts] == ([found] if found else [])


@pytest.mark.parametrize(
    ("dtype", "value", "rounding"),
    [
        ("torch.float32", 0.1 + 1e-8, True),
        ("torch.float64", 0.1 + 1e-8, False),
        ("torch.float32", 0.2, False),
    ],
)
def test_what_is_rounding_depends_on_the_type(dtype, value, rounding):
    old, new = ([[{"tensor": lr, "dtype": dtype}]] for lr in (0.1, value))
    assert [drift.rounding for drift in rates(old, new).drifts] == [rounding]
    assert not rates(old, [[0.1]]).drifts[0].rounding


def test_trajectories_are_shown_by_the_subjects_own_options():
    drawn = f"optimizer=SGD() {PLAIN}"
    runs = {"A": {drawn: [[1.0]], PLAIN: [[1.0], [0.5]], "x=1 train:1": [[1.0]]}, "B": {PLAIN: []}}
    new = copy.deepcopy(runs)
    new["A"] |= {drawn: [[2.0]], PLAIN: [[1.0], [0.25]]}
    new["B"] = {}
    pair = row("A", "c", "HOLDS")
    difference = compare(results(pair, runs=runs), results(pair, runs=new))
    said = text(difference)
    assert (
        "CHANGED WITHOUT ANY RESUME: 2 plain runs\n"
        f"A: 2 of 3, such as {PLAIN}\n"
        "  at epoch 1 OLD has lr [0.5], NEW has lr [0.25]"
    ) in said
    assert "Compared: 3 plain runs without any resume (1 more in OLD alone, 0 in NEW alone" in said
    assert "No plain run in both of: B" in said
    assert "ROUNDING" not in said
    assert difference.worse


def test_rounding_is_said_and_is_no_change():
    difference = rates([[0.3]], [[0.30000000000000004]])
    assert not difference.worse
    assert "CHANGED WITHOUT ANY RESUME: none\n\nEQUAL BUT FOR ROUNDING: 1 plain run\nA: 1 of 1" in (
        text(difference)
    )
    assert "OLD has lr [1], NEW has ended" in text(rates([[1]], []))


def test_what_one_file_alone_has_is_named():
    old = results(row("A", "c", "HOLDS"), row("A", "d", "HOLDS"), row("B", "c", "BROKEN"))
    new = results(row("A", "c", "HOLDS"), row("A", "e", "BROKEN"), row("A", "f", "HOLDS"))
    new["complete"] = False
    new["seed"] = 7
    said = text(compare(old, new))
    assert "Compared: 1 pair (1 subject, 1 check)\n" in said
    assert (
        "\nIn OLD alone, subjects: B\nIn OLD alone, checks: d\n  1 of these pairs is BROKEN\n"
        in said
    )
    assert "\nIn NEW alone, checks: e, f\n  1 of these pairs is BROKEN\n" in said
    assert "NEW is not complete, its run was stopped" in said
    assert "The seed was 0 in OLD, 7 in NEW" in said
    assert not compare(old, new).worse
    third = results(row("A", "c", "HOLDS"), row("B", "d", "HOLDS"))
    assert "\nIn OLD alone, pairs: A d, B c\n" in text(compare(old, third))


def test_nothing_in_common_cannot_be_compared():
    with pytest.raises(ResultsError, match="nothing to compare"):
        compare(results(row("A", "c", "HOLDS")), results(row("B", "c", "HOLDS")))
    with pytest.raises(ResultsError, match="nothing to compare"):
        compare(results(), results())


def test_an_older_file_has_no_trajectories():
    old, new = results(row("A", "c", "HOLDS")), results(row("A", "c", "HOLDS"))
    del old["runs"]
    said = text(compare(old, new))
    assert "Trajectories can't be compared: OLD has no 'runs'" in said
    assert "WITHOUT ANY RESUME" not in said


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no json", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "has no results of check"),
        (b"{}", "has no results of check"),
        (b'{"schema": 1, "results": {}}', "has no results of check"),
        (b'{"schema": 1, "results": [1]}', "has no results of check"),
        (b'{"schema": 1, "results": [{"subject": "A", "check": "c"}]}', "has no results of check"),
        (
            b'{"schema": 1, "results": [{"subject": "A", "check": "c", "verdict": "BROKEN"}]}',
            "has no results of check",
        ),
        (b'{"schema": 1, "results": [], "runs": {"A": {"t": 1}}}', "has no results of check"),
        (b'{"schema": 2, "results": []}', "has schema 2, and this harness reads 1"),
        (None, "No such file"),
    ],
)
def test_a_file_of_something_else_is_one_sentence(content, message, command, tmp_path):
    if content is not None:
        (tmp_path / "a.json").write_bytes(content)
    (tmp_path / "b.json").write_text(json.dumps(results(row("A", "c", "HOLDS"))))
    for files in (("a.json", "b.json"), ("b.json", "a.json")):
        status, printed, errors = command("diff", *files)
        assert (status, printed) == (2, "")
        assert errors.startswith("error: ")
        assert "a.json" in errors
        assert message in errors
        assert errors.count("\n") == 1


def test_two_real_files(command, tmp_path):
    for name in ("old.json", "new.json"):
        status, _, _ = command(
            "check", "StepLR", "LinearAnnealingLR", "--json", name, "--max-examples", 0,
            "--check", "resume_by_last_epoch", "--check", "resume_by_pickle",
        )  # fmt: skip
        assert status == 1
    status, printed, errors = command("diff", "old.json", "new.json")
    assert (status, errors) == (0, "")
    assert "Compared: 4 pairs (2 subjects, 2 checks)" in printed
    assert "alone" not in printed
    assert "NEWLY BROKEN: none\n\nNEWLY FIXED: none\n\nBROKEN IN BOTH: 1 pair\n" in printed
    assert printed.endswith("CHANGED WITHOUT ANY RESUME: none\n")
    assert command("diff", "old.json", "old.json")[:2] == (0, printed)

    data = read_results(tmp_path / "old.json")
    broken = next(row for row in data["results"] if row["verdict"] == "BROKEN")
    broken["verdict"] = "HOLDS"
    own = next(iter(data["runs"]["LinearAnnealingLR"].values()))
    own[4][0] *= 2
    (tmp_path / "old.json").write_text(json.dumps(data))
    status, printed, _ = command("diff", "old.json", "new.json")
    assert status == 1
    assert "LinearAnnealingLR: 1 of " in printed
    assert "  at epoch 4 OLD has lr [" in printed
    replay = next(line for line in printed.splitlines() if "harness replay StepLR" in line)
    status, again, _ = command(*shlex.split(replay)[3:])
    assert (status, again.splitlines()[0]) == (1, "still broken")
