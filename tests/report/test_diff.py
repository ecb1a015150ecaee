import copy
import errno
import json
import math
import os
import shlex
from dataclasses import replace

import pytest
from inline_snapshot import snapshot

from harness.checks.registry import CHECKS
from harness.core.errors import ResultsError
from harness.core.result import Counterexample, Promise, Result
from harness.core.trace import Trace
from harness.core.verdict import Verdict
from harness.report.diff import Kind, by_options, compare, text
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
    """What is different between one uninterrupted run in two files."""
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
    assert {kind: pairs(difference.of(kind)) for kind in Kind} == {
        Kind.NEWLY_BROKEN: [("A", "c"), ("D", "c")],
        Kind.FIXED: [("B", "c")],
        Kind.STILL_BROKEN: [("C", "c"), ("H", "c")],
        Kind.OTHER: [("E", "c"), ("F", "c")],
        Kind.SAME: [("G", "c")],
    }
    assert pairs(difference.broken_otherwise) == [("H", "c")]
    assert [change.verdicts for change in difference.of(Kind.OTHER)] == [
        ("DECLINED", "HOLDS"), ("BROKEN", "UNKNOWN")
    ]  # fmt: skip


def test_what_is_newly_broken_has_its_evidence_and_command():
    old = results(row("StepLR", "resume_by_last_epoch", "HOLDS"))
    new = results(row("StepLR", "resume_by_last_epoch", "BROKEN"), torch="2.6.0")
    lines = [line.strip() for line in text(compare(old, new)).splitlines()]
    place = lines.index(f'lr-resume-harness replay StepLR resume_by_last_epoch "{STEP}"')
    for line, values in zip(lines[place + 1 :], ([0.05, 0.005], [0.025, 0.0025]), strict=False):
        assert str(values) in line
    assert compare(old, new).worse
    back = compare(new, old)
    assert not back.worse
    assert pairs(back.of(Kind.FIXED)) == [("StepLR", "resume_by_last_epoch")]
    assert not back.of(Kind.NEWLY_BROKEN)
    assert f"  StepLR  {STEP}" in text(back).splitlines()


def test_pairs_that_differ_alike_are_shown_once():
    check = "resume_by_last_epoch"
    raises = {"raises": "KeyError: 'x'"}
    new = results(
        row("A", check, "BROKEN"),
        row("B", check, "BROKEN", actual=raises),
        row("C", check, "BROKEN", actual={"lr": [0.0, 0.0]}),
    )
    lines = text(compare(results(*(row(name, check, "HOLDS") for name in "ABC")), new)).splitlines()
    shown = ["[0.05, 0.005]", "[0.025, 0.0025]", "[0.0, 0.0]", "KeyError: 'x'"]
    said = [one for line in lines for one in shown if one in line]
    assert said == [*shown[:2], shown[0], shown[3]]  # C fails as A does: it has only a command
    assert [line.split()[2] for line in lines if "harness replay" in line] == ["A", "C", "B"]


def test_what_the_other_file_was_not_checked_with_is_told_apart():
    old = results(*(row(name, "c", "HOLDS") for name in "AB"), runs={"A": {}})
    new = results(*(row(name, "c", "BROKEN") for name in "AB"), runs={"A": {}})
    for file in (old, new):
        file.runs["B"] = {"step_size=3 gamma=0.5 train:12": []}
    broken, fixed = compare(old, new), compare(new, old)
    for changes in (broken.of(Kind.NEWLY_BROKEN), fixed.of(Kind.FIXED)):
        known, unlike = by_options(changes, old)
        assert (pairs(known), pairs(unlike)) == ([("B", "c")], [("A", "c")])
    lines = text(broken).splitlines()
    assert [line.split()[2] for line in lines if "replay " in line[:30]] == ["B", "A"]
    fixed_lines = [line.split()[0] for line in text(fixed).splitlines() if line.endswith(STEP)]
    assert fixed_lines == ["B", "A"]
    assert broken.worse


def test_numbers_that_json_lacks_are_numbers_again(tmp_path):
    new = row("StepLR", "resume_by_last_epoch", "BROKEN", actual={"lr": [math.nan, -math.inf]})
    file = tmp_path / "new.json"
    file.write_text(dump_results(results(new, runs={"StepLR": {PLAIN: [[math.inf]]}})))
    again = read_results(file)
    assert again.runs == {"StepLR": {PLAIN: [[math.inf]]}}
    assert isinstance(again.results[0].verdict, Verdict)
    said = text(compare(results(row("StepLR", "resume_by_last_epoch", "HOLDS")), again))
    assert "lr [nan, -inf] " in said


def test_a_pair_is_named_as_the_command_line_names_it_or_by_a_line_of_python():
    for references, said in [
        (("m:Mine", "m:my_check"), f'lr-resume-harness replay m:Mine m:my_check "{STEP}"'),
        (("", ""), f"print(harness.replay(subject, check, {STEP!r}).verdict)"),
    ]:
        new = row("Mine", "my_check", "BROKEN", references=references)
        difference = compare(results(row("Mine", "my_check", "HOLDS")), results(new))
        assert f"  {said}" in text(difference).splitlines()


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
    assert [(drift.trace, drift.rounding) for drift in difference.drifts] == [
        (drawn, False), (PLAIN, False)
    ]  # fmt: skip
    assert difference.runs == {"A": 3, "B": 0}
    said = text(difference)
    assert (PLAIN in said, drawn in said) == (True, False)
    assert difference.worse


def test_rounding_is_said_and_is_no_change():
    difference = rates([[0.3]], [[0.30000000000000004]])
    assert not difference.worse
    assert [drift.rounding for drift in difference.drifts] == [True]
    assert "0.30000000000000004" in text(difference)


def test_what_one_file_alone_has_is_named():
    old = results(row("A", "c", "HOLDS"), row("A", "d", "HOLDS"), row("B", "c", "BROKEN"))
    new = results(row("A", "c", "HOLDS"), row("A", "e", "BROKEN"), row("A", "f", "HOLDS"))
    new = replace(new, complete=False, seed=7)
    difference = compare(old, new)
    assert [(pair.subject, pair.check) for pair in difference.pairs] == [("A", "c")]
    assert text(difference).split("\n\n")[0] == snapshot("""\
torch 2.0.1 (OLD) -> torch 2.0.1 (NEW)
Compared: 1 pair (1 subject, 1 check)
Compared: 1 uninterrupted run (1 more only in OLD, 0 only in NEW, with other options)
No uninterrupted run in common for: B
NEW is from a run that was stopped: the pairs it lacks are not compared
The seed was 0 in OLD and 7 in NEW: this alone can change a verdict
Only in OLD, subjects: B
Only in OLD, checks: d
  1 of these pairs is BROKEN
Only in NEW, checks: e, f
  1 of these pairs is BROKEN\
""")
    assert not difference.worse
    third = results(row("A", "c", "HOLDS"), row("B", "d", "HOLDS"))
    assert text(compare(old, third)).split("\n\n")[0].splitlines()[-2:] == snapshot(
        ["  1 of these pairs is BROKEN", "Only in NEW, pairs: B d"]
    )


def test_nothing_in_common_cannot_be_compared():
    with pytest.raises(ResultsError, match="in common"):
        compare(results(row("A", "c", "HOLDS")), results(row("B", "c", "HOLDS")))
    with pytest.raises(ResultsError, match="in common"):
        compare(results(), results())


def test_what_no_plain_run_was_compared_for_is_said():
    old, new = results(row("A", "c", "HOLDS"), runs={}), results(row("A", "c", "HOLDS"))
    difference = compare(old, new)
    assert (difference.runs, difference.drifts) == ({}, ())
    assert "0 more only in OLD, 1 only in NEW" in text(difference)


GOOD = json.loads(dump_results(results(row("A", "c", "BROKEN"))))
BAD = {**GOOD["results"][0], "verdict": "HOLDS"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no json", "JSON"),
        (b"[]", "results"),
        ({**GOOD, "results": [{**BAD, "verdict": "FINE"}]}, "'FINE'"),
        (None, os.strerror(errno.ENOENT)),
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
    difference = compare(*(read_results(tmp_path / name) for name in ("old.json", "new.json")))
    assert printed == text(difference) + "\n"
    assert len(difference.pairs) == 4
    assert {change.kind for change in difference.pairs} <= {Kind.STILL_BROKEN, Kind.SAME}
    assert difference.drifts == ()
    assert pairs(difference.of(Kind.STILL_BROKEN)) == [("StepLR", "resume_by_last_epoch")]
    assert command("diff", "old.json", "old.json")[:2] == (0, printed)

    file = read_results(tmp_path / "old.json")
    mended = tuple(replace(result, verdict=Verdict.HOLDS) for result in file.results)
    (tmp_path / "mended.json").write_text(dump_results(replace(file, results=mended)))
    assert command("diff", "old.json", "mended.json")[0] == 0
    status, printed, _ = command("diff", "old.json", "mended.json", "--replay")
    assert status == 1
    assert printed.endswith(f"  StepLR: resume_by_last_epoch: {STEP}: still broken\n")
    (tmp_path / "other.json").write_text(dump_results(replace(file, torch="1.0", results=mended)))
    status, _, errors = command("diff", "old.json", "other.json", "--replay")
    assert (status, "--replay needs torch 1.0, which NEW was checked" in errors) == (2, True)
    rows = [replace(result, verdict=Verdict.HOLDS) for result in file.results]
    own = next(iter(file.runs["LinearAnnealingLR"].values()))
    own[4][0] *= 2
    (tmp_path / "old.json").write_text(dump_results(replace(file, results=tuple(rows))))
    status, printed, _ = command("diff", "old.json", "new.json")
    assert status == 1
    [drift] = compare(*(read_results(tmp_path / f"{name}.json") for name in ("old", "new"))).drifts
    assert (drift.subject, drift.epoch) == ("LinearAnnealingLR", 4)
    replay = next(line for line in printed.splitlines() if "harness replay StepLR" in line)
    status, again, _ = command(*shlex.split(replay)[1:])
    assert (status, STEP in again) == (1, True)
