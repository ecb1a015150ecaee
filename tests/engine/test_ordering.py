"""The gate with a time budget, shards and their merging, and the explorer."""

import itertools
import json
import os
import re
import signal
from dataclasses import replace
from types import SimpleNamespace

import pytest
from fork_server import fork_harness, status_of
from hypothesis.database import DirectoryBasedExampleDatabase, InMemoryExampleDatabase
from torch.optim.lr_scheduler import StepLR

from harness import Budget, Subject, Trace
from harness.checks.registry import as_check, select_checks
from harness.core.errors import ResultsError
from harness.core.result import Result
from harness.core.run import Tally
from harness.core.verdict import Reason, Verdict
from harness.engine.examples import Examples
from harness.engine.ordering import Checker, WorkerSettings, explore, gate, shard_of
from harness.engine.plan import Selection, make_plan
from harness.engine.session import SubjectSession, check_subject
from harness.report.result_file import ResultFile, merged
from harness.report.text import summary
from lr_schedules.correct import Halving

LAST_EPOCH = "resume_by_last_epoch"
HALVING = "lr_schedules.correct:Halving"
ONE, TWO, STEP = "test_ordering:one", "test_ordering:two", "StepLR"
STEP_BUG = "step_size=3 gamma=0.5 train:3 save:a resume:a"
NAMES = ("resume_optimizer_then_scheduler", LAST_EPOCH, "saving_changes_nothing")


one, two = (Subject(name, Halving, length=5) for name in ("one", "two"))
short = Subject("short", StepLR, options={"step_size": 3}, length=5)
"""It is swept in a fifth of the time."""


def plan_of(*subjects, names=()):
    return make_plan(Selection(subjects, checks=names, ledgers=None))


def all_pairs(*subjects, names=NAMES):
    return shard_of(plan_of(*subjects, names=names), 1, 1)


# -------------------------------------------------------------------------------- the gate


class Clock:
    """A clock that goes on when something is checked, and the pairs that are checked by it."""

    def __init__(self, monkeypatch, **verdicts):
        self.now = 0.0
        self.done = []
        self.verdicts = verdicts
        monkeypatch.setattr("harness.engine.ordering.time.monotonic", lambda: self.now)
        monkeypatch.setattr("harness.engine.ordering.SubjectSession", self.session)

    def session(self, subject, *args, **kwargs):
        clock = self

        class Fake:
            def check(self, check, budget):
                kind = "sweep" if budget.sweep else "search"
                clock.done.append((subject.name, check.name, kind, budget.time_limit))
                clock.now += 10
                verdict = clock.verdicts.get(kind, "HOLDS")
                if clock.now > 100 * budget.time_limit:
                    verdict = "UNKNOWN"
                return Result(subject.name, check.name, verdict, kind, tally=Tally(traces=1))

        return Fake()


HERE = Checker(WorkerSettings(), jobs=0)
FEW = Budget(max_examples=5)


def last(checked):
    return {one.index: one.result for one in checked}


def test_all_pairs_are_swept_before_any_is_searched(monkeypatch):
    clock = Clock(monkeypatch)
    pairs = all_pairs(ONE, TWO)
    found = last(gate(HERE, pairs, Budget(), 1000))
    swept = [(subject.name, check.name) for subject, check in pairs.values()]
    assert [(name, check) for name, check, kind, _ in clock.done if kind == "sweep"] == swept
    assert [kind for _, _, kind, _ in clock.done] == ["sweep"] * 6 + ["search"] * 4
    assert [found[i].check for i in sorted(found)] == [check.name for _, check in pairs.values()]
    assert [found[i].tally.traces for i in sorted(found)] == [2, 2, 1, 2, 2, 1]


def test_every_pair_is_swept_before_any_is_searched():
    names = ("resume_optimizer_then_scheduler", "resume_by_pickle", LAST_EPOCH)
    pairs = all_pairs(STEP, names=names)
    order = [one.result for one in gate(HERE, pairs, Budget(max_examples=3))]
    assert [result.check for result in order] == [LAST_EPOCH, *names[:2]]
    subject = pairs[0][0].find({})
    alone = list(check_subject(subject, map(as_check, names), Budget(max_examples=3)))
    by_name = {result.check: replace(result, seconds=0) for result in order}
    assert [by_name[result.check] for result in alone] == [
        replace(result, seconds=0) for result in alone
    ]


def test_what_was_not_got_to_is_said(monkeypatch):
    clock = Clock(monkeypatch)
    found = last(gate(HERE, all_pairs(ONE, TWO), Budget(), 35))
    assert len(clock.done) == 4
    verdicts = [(found[i].subject, found[i].verdict) for i in sorted(found)]
    assert verdicts == [("one", "HOLDS"), ("one", "HOLDS"), ("one", "HOLDS"),
                        ("two", "HOLDS"), ("two", "UNKNOWN"), ("two", "UNKNOWN")]  # fmt: skip
    assert found[5].reason == "the time budget of 35 s ran out before it was tried"
    assert found[5].why == Reason.OUT_OF_TIME
    assert found[0].reason == "the time budget of 35 s ran out before its search; sweep"
    assert "4 HOLDS, 0 BROKEN, 0 DECLINED, 2 UNKNOWN, 3 not searched" in summary([*found.values()])
    assert [limit for *_, limit in clock.done] == [30, 25, 15, 5]


def test_a_pair_that_is_cut_short_is_said(monkeypatch):
    clock = Clock(monkeypatch)
    pairs = all_pairs(ONE, names=NAMES[:1])
    clock.verdicts["search"] = "UNKNOWN"
    [_, found] = gate(HERE, pairs, Budget(), 15)
    assert (found.result.verdict, found.result.tally.traces) == ("HOLDS", 1)
    assert found.result.reason == "the time budget of 15 s ran out in its search; sweep"
    clock.verdicts["sweep"] = "UNKNOWN"
    [found] = gate(HERE, pairs, Budget(), 5)
    assert (found.result.verdict, found.result.reason) == (
        "UNKNOWN",
        "the time budget of 5 s ran out in its sweep",
    )


def test_what_is_broken_is_not_searched(monkeypatch):
    Clock(monkeypatch, sweep="BROKEN")
    assert len(list(gate(HERE, all_pairs(ONE), Budget(), 1000))) == 3
    Clock(monkeypatch)
    assert len(list(gate(HERE, all_pairs(ONE), Budget(max_examples=0), 1000))) == 3


def test_with_time_enough_it_is_the_same_as_without_a_budget():
    names = ("resume_optimizer_then_scheduler", LAST_EPOCH, "resumes_mixed")
    pairs = all_pairs("test_ordering:short", names=names)
    budget = Budget(max_examples=2)
    plain = last(gate(HERE, pairs, budget))
    for jobs in (0, 2):
        within = last(gate(Checker(WorkerSettings(), jobs), pairs, budget, 600))
        assert [untimed(plain[i]) for i in sorted(plain)] == [
            untimed(within[i]) for i in sorted(within)
        ]
    assert {plain[i].verdict for i in plain} == {"HOLDS", "BROKEN"}


def untimed(result):
    return (result.subject, result.check, result.verdict, result.counterexample)


# ------------------------------------------------------------------------ shards, merging


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_shards_part_the_pairs(count):
    plan = plan_of("StepLR", "SWALR", "LinearLR")
    shards = [shard_of(plan, number, count) for number in range(1, count + 1)]
    pairs = [pair for part in shards for pair in part.items()]
    assert sorted(index for index, _ in pairs) == list(range(3 * len(plan.checks)))
    assert dict(pairs) == shard_of(plan, 1, 1)
    for part in shards:
        checked = {(subject.name, check.name) for subject, check in part.values()}
        for subject, check in part.values():
            assert {(subject.name, name) for name in check.prerequisites} <= checked
    assert max(map(len, shards)) - min(map(len, shards)) <= len(plan.checks) // 2


def test_the_parts_of_a_run_have_whole_subjects():
    plan = plan_of("StepLR", "SWALR")
    parts = [shard_of(plan, number, 2) for number in (1, 2)]
    assert [{subject.name for subject, _ in part.values()} for part in parts] == [
        {"StepLR"}, {"SWALR"}
    ]  # fmt: skip


CHECKS = (LAST_EPOCH, "last_lr_is_the_groups_lr", "saving_changes_nothing")
ARGUMENTS = ("StepLR", "SWALR", "--max-examples", 0, *(f"--check={name}" for name in CHECKS))


def test_merged_shards_are_the_run_as_a_whole(command, tmp_path):
    assert command("check", *ARGUMENTS, "--json", "whole.json")[0] == 1
    shards = []
    for number in (2, 3, 1):
        name = f"{number}.json"
        assert command("check", *ARGUMENTS, "--shard", f"{number}/3", "--json", name)[0] in (0, 1)
        shards.append(name)
    status, printed, errors = command("merge", *shards, "--json", "merged.json")
    assert (status, errors) == (1, "")
    whole, merged = (json.loads((tmp_path / f).read_text()) for f in ("whole.json", "merged.json"))
    for data in (whole, merged):
        for row in data["results"]:
            assert row.pop("seconds") >= 0
            row.pop("untried")
            row.pop("tally")
            if row["counterexample"]:  # what was spent before it differs from shard to shard
                found = row["counterexample"]["found"]
                assert found.pop("seconds") >= 0
                assert found.pop("traces") >= 1
    assert merged == whole
    assert f'lr-resume-harness replay StepLR {LAST_EPOCH} "{STEP_BUG}"' in printed
    assert "2 subjects, 3 checks: 4 HOLDS, 2 BROKEN" in printed


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "1/0", "-1/2", "1/2/3", "a/b"])
def test_a_shard_that_is_none_is_said(command, shard):
    status, printed, errors = command("check", "StepLR", f"--shard={shard}")
    assert (status, printed) == (2, "")
    assert f"must look like 2/5 for the second of five (got '{shard}')" in errors


def test_more_shards_than_pairs_are_said(command):
    status, _, errors = command("check", "StepLR", "--check", LAST_EPOCH, "--shard", "2/2")
    assert status == 2
    assert "more parts than pairs" in errors


def shard(part, placed):
    results = tuple(Result(*pair, Verdict.HOLDS) for pair in placed.values())
    return ResultFile(2, "2.13.0", "3.11", 0, 25, True, part, results, positions=tuple(placed))


FIRST = shard("1/2", {0: ("a", "x"), 2: ("b", "x")})
SECOND = shard("2/2", {1: ("a", "y")})


def test_merged_pairs_come_in_their_order(tmp_path):
    file = merged([(tmp_path / "2", SECOND), (tmp_path / "1", FIRST)])
    assert file.positions == (0, 1, 2)
    pairs = [(result.subject, result.check) for result in file.results]
    assert pairs == [("a", "x"), ("a", "y"), ("b", "x")]
    assert file.shard == "1/1"


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([FIRST], "some shards are missing: also give 2/2"),
        ([FIRST, FIRST], "are both shard 1/2: give one of them"),
        ([FIRST, replace(SECOND, torch="2.4.1")], "has torch '2.4.1', but .*0 has '2.13.0'"),
        ([FIRST, replace(SECOND, seed=1)], "has seed 1, but .*0 has 0: give the shards of one run"),
        ([FIRST, replace(SECOND, shard="2/3")], "is shard 2/3, but .* is one of 2"),
        ([FIRST, replace(SECOND, complete=False)], "is from a run that was stopped"),
        ([FIRST, replace(SECOND, shard="")], "does not say which shard it is"),
        ([FIRST, replace(SECOND, positions=())], "is from an older version: run that shard again"),
        ([FIRST, shard("2/2", {0: ("a", "x")})], "two of the files contain the same pair"),
        ([FIRST, shard("2/2", {1: ("a", "x")})], "two of the files contain the same pair"),
    ],
)
def test_what_is_no_whole_run_is_refused(tmp_path, files, said):
    with pytest.raises(ResultsError, match=said):
        merged([(tmp_path / str(number), data) for number, data in enumerate(files)])


# ---------------------------------------------------------------------------- the explorer


def some(explorer, count):
    return [next(explorer) for _ in range(count)]


@pytest.fixture
def examples(monkeypatch):
    """The database of an explorer, in memory."""
    kept = Examples(InMemoryExampleDatabase())
    monkeypatch.setattr("harness.engine.ordering.Examples.here", lambda: kept)
    return kept


EXPLORER = Checker(WorkerSettings(examples=True), jobs=0)


def test_rounds_draw_with_the_next_seed_and_end_where_all_is_broken(examples, monkeypatch):
    seeds = []

    def session(subject, names, budget, **settings):
        seeds.append(budget.seed)
        return SubjectSession(subject, names, budget, **settings)

    monkeypatch.setattr("harness.engine.ordering.SubjectSession", session)
    pairs = all_pairs(STEP, names=(NAMES[0], LAST_EPOCH))
    found = some(explore(EXPLORER, pairs, Budget(max_examples=2, seed=40)), 4)
    assert seeds == [40, 41, 42]
    assert [(one.index, one.result.verdict) for one in found] == [
        (1, "BROKEN"), (0, "HOLDS"), (0, "HOLDS"), (0, "HOLDS"),
    ]  # fmt: skip
    traces = [one.result.tally.traces for one in found if one.index == 0]
    assert traces[0] < traces[1] < traces[2]
    only_broken = explore(EXPLORER, {1: pairs[1]}, Budget(max_examples=2))
    assert [one.result.verdict for one in only_broken] == ["BROKEN"]


def test_what_was_found_is_tried_first_the_next_time_and_forgotten_when_it_holds(examples):
    pairs = all_pairs(STEP, names=(LAST_EPOCH,))
    [first] = explore(EXPLORER, pairs, Budget(max_examples=2))
    found = first.result.counterexample
    assert found.found.by == "sweep"
    assert list(map(str, examples.of("StepLR", LAST_EPOCH))) == [STEP_BUG]
    [again] = explore(EXPLORER, pairs, Budget(max_examples=0))
    assert again.result.counterexample.found.by == "example"
    assert again.result.counterexample == found
    examples.save("one", LAST_EPOCH, Trace.parse("train:3 save:a resume:a"))
    [mended] = some(
        explore(EXPLORER, all_pairs(ONE, names=(LAST_EPOCH,)), Budget(max_examples=0)), 1
    )
    assert mended.result.verdict == "HOLDS"
    assert examples.of("one", LAST_EPOCH) == []


def test_examples_that_are_no_traces_are_forgotten():
    examples = Examples(InMemoryExampleDatabase())
    examples.save("a", "b", Trace.parse("train:2 save:a"))
    examples.save("a", "b", Trace.parse("save:a"))
    for wrong in (b"\xff", b"dance:1"):
        examples.database.save(b"lr-resume-harness a b", wrong)
    assert list(map(str, examples.of("a", "b"))) == ["save:a", "train:2 save:a"]
    assert len(set(examples.database.fetch(b"lr-resume-harness a b"))) == 2
    assert examples.of("a", "c") == []


def test_a_gate_does_not_look_at_them(command, tmp_path, monkeypatch):
    monkeypatch.setenv("HYPOTHESIS_STORAGE_DIRECTORY", str(tmp_path / "kept"))
    arguments = ("check", "StepLR", "--check", LAST_EPOCH, "--max-examples", 0)
    found, said = {}, []
    for profile in ("explore", "explore", "gate"):
        name = f"{profile}{len(found)}.json"
        status, _, errors = command(*arguments, "--profile", profile, "--json", name)
        assert status == 1
        said += re.findall(r"(?m)^seed .*", errors)
        [row] = json.loads((tmp_path / name).read_text())["results"]
        found[name] = row["counterexample"]["found"]["by"]
        holds = Trace.parse("step_size=3 gamma=0.5 train:2 save:a resume:a")
        Examples.here().save("StepLR", LAST_EPOCH, holds)
    assert list(found.values()) == ["sweep", "example", "sweep"]
    place = f"kept in {tmp_path / 'kept/examples'}"
    assert [re.sub(r"^seed \d+", "seed", line) for line in said] == [
        f"seed; Ctrl-C to stop; 0 counterexamples {place}",
        f"seed; 1 counterexample {place}: 1 new, 0 removed",
        f"seed; Ctrl-C to stop; 2 counterexamples {place}",
        f"seed; 1 counterexample {place}: 0 new, 1 removed",
    ]


def test_an_explorer_that_is_killed_has_kept_what_it_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HYPOTHESIS_STORAGE_DIRECTORY", str(tmp_path / "kept"))
    reader, stderr = os.pipe()
    explorer = fork_harness(
        "check", "StepLR", "LambdaLR", "--check", LAST_EPOCH, "--no-ledger", "--profile",
        "explore", folder=tmp_path, stdout=stderr, stderr=stderr,
    )  # fmt: skip
    os.close(stderr)
    with open(reader) as errors:
        assert any(line.startswith("StepLR: ") for line in errors)
        os.kill(explorer, signal.SIGKILL)
    assert status_of(explorer) == -signal.SIGKILL
    kept = Examples(DirectoryBasedExampleDatabase(tmp_path / "kept/examples"))
    assert [str(trace) for trace in kept.of("StepLR", LAST_EPOCH)] == [STEP_BUG]


def test_an_explorer_ends_with_its_time_and_reports(tmp_path, command, monkeypatch):
    """Its clock goes on by a second whenever it is read, which is once a result or more often."""
    arguments = ("check", HALVING, "--check", NAMES[0], "--profile", "explore", "--jobs", 0)
    traces = []
    for seconds in (1, 20):
        clock = SimpleNamespace(monotonic=itertools.count().__next__)
        monkeypatch.setattr("harness.cli.check.time", clock)
        status, _, errors = command(
            *arguments, "--time-budget", seconds, "--max-examples", 3, "--json", "x.json"
        )
        assert status == 0
        data = json.loads((tmp_path / "x.json").read_text())
        assert data["complete"] is True
        assert f"seed {data['seed']};" in errors
        traces.append(data["results"][0]["tally"]["traces"])
    one_round, several = traces
    assert several >= 3 * one_round


def test_results_do_not_depend_on_the_order_of_the_pairs():
    checks = select_checks((*NAMES, "resumes_mixed"))
    plain = {result.check: untimed(result) for result in check_subject(short, checks, FEW)}
    pairs = SubjectSession(short, budget=FEW)
    for check in reversed(checks):
        assert untimed(pairs.check(check)) == plain[check.name]
