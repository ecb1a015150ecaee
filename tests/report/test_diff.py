import copy
import json
import math
import shlex
from dataclasses import replace

import pytest

from harness.checks.registry import CHECKS
from harness.core.errors import ResultsError
from harness.core.result import Counterexample, Promise, Result
from harness.core.trace import Trace
from harness.core.verdict import Verdict
from harness.report.diff import compare, text
from harness.report.result_file import SCHEMA, ResultFile, dump_results, read_results

STEP = "step_size=3 gamma=0.5 train:3 save:a resume:a"
PLAIN = "gamma=0.5 train:2"
FOUND = Counterexample(2, 0, {"lr": [0.05, 0.005]}, {"lr": [0.025, 0.0025]}, Trace.parse(STEP))
PROMISES = {check.name: check.promise for check in CHECKS}
OWN = Promise("It stays.")


def row(subject, check, verdict, reason="", actual=None, **more):
    found = FOUND if verdict == "BROKEN" else None
    if found and actual is not None:
        found = replace(found, actual=actual)
    given = {
        "counterexample": found, "promise": PROMISES.get(check, OWN),
        "references": (subject, check), **more,
    }  # fmt: skip
    return Result(subject, check, Verdict(verdict), reason, **given)


def results(*rows, torch="2.0.1", runs=None):
    """A file; without `runs`, every subject was run with the options of `STEP`."""
    if runs is None:
        runs = {said.subject: {"step_size=3 gamma=0.5 train:12": []} for said in rows}
    return ResultFile(SCHEMA, torch, "3.11.2", 0, 25, True, "1/1", tuple(rows), runs)


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
    assert "\nc: It stays. (was DECLINED: cannot)\n" in said
    assert "BROKEN IN BOTH: 2 pairs, 1 with another counterexample" in said


def test_what_is_newly_broken_has_its_evidence_and_command():
    old = results(row("StepLR", "resume_by_last_epoch", "HOLDS"))
    new = results(row("StepLR", "resume_by_last_epoch", "BROKEN"), torch="2.6.0")
    lines = text(compare(old, new)).splitlines()
    assert lines[0] == "torch 2.0.1 (OLD) -> torch 2.6.0 (NEW)"
    start = lines.index("NEWLY BROKEN: 1 pair. To replay, on torch 2.6.0:")
    assert lines[start + 1].startswith("resume_by_last_epoch: Load the optimizer's state, then")
    assert [line.strip() for line in lines if "replay Step" in line or "  lr [" in line] == [
        f'python -m harness replay StepLR resume_by_last_epoch "{STEP}"',
        "expected  lr [0.05, 0.005] in the uninterrupted run (train:3)",
        "got       lr [0.025, 0.0025] after resuming with resume_by_last_epoch",
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
        "expected lr [0.05, 0.005] in",
        "got lr [0.025, 0.0025] after",
        "these fail in the same",
        "expected lr [0.05, 0.005] in",
        "got raises KeyError: 'x' after",
    ]
    assert [line.split()[4] for line in lines if "harness replay" in line] == ["A", "C", "B"]


def test_what_the_other_file_was_not_checked_with_is_told_apart():
    old = results(*(row(name, "c", "HOLDS") for name in "AB"), runs={"A": {}})
    new = results(*(row(name, "c", "BROKEN") for name in "AB"), runs={"A": {}})
    for file in (old, new):
        file.runs["B"] = {"step_size=3 gamma=0.5 train:12": []}
    broken, fixed = text(compare(old, new)), text(compare(new, old))
    assert "NEWLY BROKEN: 1 pair. To replay, on NEW:\nc: It stays.\n" in broken
    assert [line.split()[4] for line in broken.splitlines() if "replay " in line[:30]] == ["B", "A"]
    assert (
        "PERHAPS NEWLY BROKEN, with options that OLD was not checked with: 1 pair. "
        "Replay on OLD to find out: c: It stays. python"
    ) in " ".join(broken.split())
    assert f"NEWLY FIXED: 1 pair, with the counterexample on OLD:\nc:\n  B  {STEP}\n" in fixed
    assert f"to find out:\nc:\n  A  {STEP}\n" in fixed
    assert compare(old, new).worse


def test_numbers_that_json_lacks_are_numbers_again(tmp_path):
    new = row("StepLR", "resume_by_last_epoch", "BROKEN", actual={"lr": [math.nan, -math.inf]})
    file = tmp_path / "new.json"
    file.write_text(dump_results(results(new, runs={"StepLR": {PLAIN: [[math.inf]]}})))
    again = read_results(file)
    assert again.runs == {"StepLR": {PLAIN: [[math.inf]]}}
    assert isinstance(again.results[0].verdict, Verdict)
    said = text(compare(results(row("StepLR", "resume_by_last_epoch", "HOLDS")), again))
    assert "got       lr [nan, -inf] after resuming" in said


def test_a_pair_is_named_as_the_command_line_names_it_or_by_a_line_of_python():
    for references, said in [
        (("m:Mine", "m:my_check"), f'python -m harness replay m:Mine m:my_check "{STEP}"'),
        (("", ""), f"print(harness.replay(subject, check, {STEP!r}).verdict)"),
    ]:
        new = row("Mine", "my_check", "BROKEN", references=references)
        difference = compare(results(row("Mine", "my_check", "HOLDS")), results(new))
        assert f"\nmy_check: It stays.\n  {said}\n" in text(difference)


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ([[1.0], [0.5]], [[1.0], [0.5]], None),
        ([[math.nan]], [[math.nan]], None),
        ([[1.0], [0.5]], [[1.0], [0.25]], (1, [0.5], [0.25], False)),
        ([[1.0], [math.inf]], [[1.0], [0.25]], (1, [math.inf], [0.25], False)),
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
    assert "Compared: 3 plain runs without any resume (1 more only in OLD, 0 only in NEW" in said
    assert "No plain run in common for: B" in said
    assert "ROUNDING" not in said
    assert difference.worse


def test_rounding_is_said_and_is_no_change():
    difference = rates([[0.3]], [[0.30000000000000004]])
    assert not difference.worse
    assert (
        "CHANGED WITHOUT ANY RESUME: none\n\nCHANGED ONLY BY ROUNDING: 1 plain run\nA: 1 of 1"
        in (text(difference))
    )
    assert "OLD has lr [1], NEW has ended" in text(rates([[1]], []))


def test_what_one_file_alone_has_is_named():
    old = results(row("A", "c", "HOLDS"), row("A", "d", "HOLDS"), row("B", "c", "BROKEN"))
    new = results(row("A", "c", "HOLDS"), row("A", "e", "BROKEN"), row("A", "f", "HOLDS"))
    new = replace(new, complete=False, seed=7)
    said = text(compare(old, new))
    assert "Compared: 1 pair (1 subject, 1 check)\n" in said
    assert (
        "\nOnly in OLD, subjects: B\nOnly in OLD, checks: d\n  1 of these pairs is BROKEN\n" in said
    )
    assert "\nOnly in NEW, checks: e, f\n  1 of these pairs is BROKEN\n" in said
    assert "NEW is from a run that was stopped" in said
    assert "The seed was 0 in OLD and 7 in NEW" in said
    assert not compare(old, new).worse
    third = results(row("A", "c", "HOLDS"), row("B", "d", "HOLDS"))
    assert "\nOnly in OLD, pairs: A d, B c\n" in text(compare(old, third))


def test_nothing_in_common_cannot_be_compared():
    with pytest.raises(ResultsError, match="nothing to compare"):
        compare(results(row("A", "c", "HOLDS")), results(row("B", "c", "HOLDS")))
    with pytest.raises(ResultsError, match="nothing to compare"):
        compare(results(), results())


def test_what_no_plain_run_was_compared_for_is_said():
    old, new = results(row("A", "c", "HOLDS"), runs={}), results(row("A", "c", "HOLDS"))
    said = text(compare(old, new))
    assert ("Compared: 0 plain runs without any resume (0 more only in OLD, 1 only in NEW") in said
    assert not compare(old, new).drifts


GOOD = json.loads(dump_results(results(row("A", "c", "BROKEN"))))
BAD = {**GOOD["results"][0], "verdict": "HOLDS"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no json", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "has no results in it"),
        (b"{}", "has no results in it"),
        (b'{"schema": 2}', "has no results in it"),
        (b'{"schema": 1, "results": []}', f"has schema 1, but this version reads {SCHEMA}: write"),
        (b'{"schema": 2, "results": []}', "is not what check --json writes ('torch' is missing"),
        ({**GOOD, "results": {}}, "a dict is not of type list @ $.results)"),
        ({**GOOD, "results": [1]}, "is not what check --json writes"),
        ({**GOOD, "results": [{"subject": "A", "check": "c"}]}, "('verdict' is missing"),
        ({**GOOD, "results": [{**BAD, "verdict": "FINE"}]}, "'FINE' is not a valid Verdict"),
        ({**GOOD, "runs": {"A": 1}}, "is not what check --json writes"),
        ({**GOOD, "runs": {"A": {"t": "abc"}}}, "'abc' is not of type list @ $.runs['A']['t'])"),
        ({**GOOD, "runs": {"A": {"t": 1}}}, "is not what check --json writes"),
        (None, "No such file"),
    ],
)
def test_a_file_of_something_else_is_one_sentence(content, message, command, tmp_path):
    if content is not None:
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        (tmp_path / "a.json").write_bytes(content)
    (tmp_path / "b.json").write_text(dump_results(results(row("A", "c", "HOLDS"))))
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

    file = read_results(tmp_path / "old.json")
    rows = [replace(result, verdict=Verdict.HOLDS) for result in file.results]
    own = next(iter(file.runs["LinearAnnealingLR"].values()))
    own[4][0] *= 2
    (tmp_path / "old.json").write_text(dump_results(replace(file, results=tuple(rows))))
    status, printed, _ = command("diff", "old.json", "new.json")
    assert status == 1
    assert "LinearAnnealingLR: 1 of " in printed
    assert "  at epoch 4 OLD has lr [" in printed
    replay = next(line for line in printed.splitlines() if "harness replay StepLR" in line)
    status, again, _ = command(*shlex.split(replay)[3:])
    assert (status, again.splitlines()[0]) == (1, "still broken")
