"""The file of ``check --json``: what is written is read, and what is read is checked."""

import errno
import json
import math
import os
import re
from dataclasses import fields, replace

import faulty
import pytest
from drawn_traces import traces
from hypothesis import given
from hypothesis import strategies as st
from inline_snapshot import snapshot

from harness import Budget, Counterexample, Result, Subject, Trace, check_subject
from harness.checks.registry import CHECKS, select_checks
from harness.core.errors import ResultsError
from harness.core.result import Found, FoundBy, LostAttribute
from harness.core.run import Role, Run, Seen, Tally
from harness.core.verdict import Reason, Verdict
from harness.report.result_file import (
    SCHEMA,
    ResultFile,
    dump_results,
    read_results,
    results_of_run,
)

PLAIN = "resume_optimizer_then_scheduler"


def written_and_read(file, path):
    path.write_text(dump_results(file), encoding="utf-8")
    return read_results(path)


def everything(value):
    """A value with all it holds, each with its type; nan is nan, and no field is left out."""
    if isinstance(value, dict):
        return "dict", [(everything(key), everything(item)) for key, item in value.items()]
    if isinstance(value, (list, tuple)):
        return type(value).__name__, [everything(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return type(value).__name__, sorted(map(everything, value))
    if hasattr(value, "__dataclass_fields__"):
        names = [field.name for field in fields(value)]
        return type(value).__name__, [(name, everything(getattr(value, name))) for name in names]
    return type(value).__name__, repr(value)


# ------------------------------------------------------------------------------ round trips

numbers = st.one_of(
    st.integers(), st.floats(), st.sampled_from([math.nan, math.inf, -math.inf, -0.0, 1 << 80])
)
keys = st.one_of(st.text(), st.integers(), st.sampled_from(["$float", "$bytes", "$items"]))
observed = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, st.text(), st.binary()),
    lambda inside: st.one_of(
        st.lists(inside, max_size=3), st.dictionaries(keys, inside, max_size=3)
    ),
    max_leaves=6,
)
observations = st.dictionaries(st.text(), observed, max_size=3)
counts = st.integers(0, 1 << 40)
seconds = st.floats(allow_nan=False)
pairs_of_text = st.tuples(st.text(), st.text())
runs = st.builds(
    Run,
    st.sampled_from(Role),
    st.lists(st.builds(Seen, st.text(), counts, observations), max_size=3).map(tuple),
    st.text(),
    st.text(),
)
lost = st.builds(LostAttribute, st.text(), st.text(), st.text(), st.booleans())


@st.composite
def counterexamples(draw):
    trace = draw(traces())
    operation = draw(st.integers(0, len(trace.operations) - 1))
    return Counterexample(
        operation,
        draw(st.integers(0, trace.operations[operation].count)),
        draw(observations),
        draw(observations),
        trace,
        draw(st.none() | st.builds(Found, st.sampled_from(FoundBy), counts, seconds)),
        draw(st.none() | runs),
        draw(st.lists(runs, max_size=2).map(tuple)),
        draw(st.lists(lost, max_size=2).map(tuple)),
    )  # fmt: skip


results = st.builds(
    Result,
    subject=st.text(),
    check=st.text(),
    verdict=st.sampled_from(Verdict),
    reason=st.text(),
    counterexample=st.none() | counterexamples(),
    tally=st.builds(Tally, counts, counts, counts, counts),
    seconds=seconds,
    references=pairs_of_text,
    weights=st.booleans(),
    last_lr=st.booleans(),
    untried=st.lists(pairs_of_text, max_size=2).map(tuple),
    resume_python=st.text(),
    torch=st.text(),
    replays=st.lists(counterexamples(), max_size=1).map(tuple),
    place=st.text(),
    why=st.sampled_from(Reason),
    promise=st.sampled_from([check.promise for check in CHECKS]),
)
rates = st.lists(observed, max_size=3)
files = st.builds(
    ResultFile,
    schema=st.just(SCHEMA),
    torch=st.text(),
    python=st.text(),
    seed=st.integers(),
    max_examples=counts,
    complete=st.booleans(),
    shard=st.text(),
    results=st.lists(results, max_size=2).map(tuple),
    runs=st.dictionaries(st.text(), st.dictionaries(st.text(), rates, max_size=2), max_size=2),
    not_checked=st.dictionaries(st.text(), st.text(), max_size=2),
    planned=counts,
    positions=st.lists(counts, max_size=2).map(tuple),
)  # fmt: skip


@given(files)
def test_what_is_written_is_read(tmp_path_factory, file):
    path = tmp_path_factory.getbasetemp() / "results.json"
    assert everything(written_and_read(file, path)) == everything(file)


def test_the_strategies_leave_no_field_out():
    """A field that is new has to be drawn above, too."""
    assert {field.name for field in fields(Result)} == {
        "subject", "check", "verdict", "reason", "counterexample", "tally", "seconds", "references",
        "weights", "last_lr", "untried", "resume_python", "torch", "replays", "place", "why", "promise",
    }  # fmt: skip
    assert [field.name for field in fields(Counterexample)] == [
        "operation", "step", "expected", "actual", "trace", "found", "uninterrupted", "runs",
        "lost",
    ]  # fmt: skip
    assert {field.name for field in fields(ResultFile)} == {
        "schema", "torch", "python", "seed", "max_examples", "complete", "shard", "results", "runs",
        "not_checked", "planned", "positions",
    }  # fmt: skip


def test_what_a_run_finds_is_read_as_it_was(tmp_path):
    checks = select_checks((PLAIN, "roll_back_in_place", "saved_state_is_a_snapshot"))
    found = [
        result
        for subject in (faulty.COUNTER, Subject("x", faulty.Forgets), Subject("y", faulty.Random))
        for result in check_subject(subject, checks, Budget(max_examples=2))
    ]
    assert {result.verdict for result in found} == {"HOLDS", "BROKEN", "UNKNOWN"}
    rates = {"x": {"train:2": [[0.1, 0.01], [math.nan, math.inf], [{"tensor": 0.1}, 1]]}}
    file = results_of_run(found, Budget(seed=3), complete=False, runs=rates, shard="2/5")
    again = written_and_read(file, tmp_path / "x.json")
    assert everything(again) == everything(file)
    assert (again.seed, again.complete, again.shard, again.schema) == (3, False, "2/5", SCHEMA)
    assert again.torch == found[0].torch


def test_keys_that_are_not_known_are_passed_over(tmp_path):
    """A later version may write more of them without another schema."""
    data = json.loads(dump_results(FILE))
    data["more"] = data["results"][0]["more"] = {"$float": "nan"}
    assert everything(read(data, tmp_path)) == everything(FILE)


def test_what_has_a_default_may_be_missing(tmp_path):
    data = json.loads(dump_results(replace(FILE, results=())))
    data["results"] = [{"subject": "x", "check": "y", "verdict": "HOLDS"}]
    assert read(data, tmp_path).results == (Result("x", "y", Verdict.HOLDS),)


# ----------------------------------------------------------------------------- hostile files

TRACE = Trace.parse("train:3 save:a resume:a")
FOUND = Counterexample(
    2, 0, {"lr": [0.1]}, {"lr": [0.2]}, TRACE, Found(FoundBy.SWEEP, 2, 0.5),
    Run(Role.UNINTERRUPTED, (Seen("", 0, {"lr": [0.1]}),)),
    (Run(Role.RESUMED, ()),), (LostAttribute("count", "1", "2", saved=False),),
)  # fmt: skip
FILE = ResultFile(
    SCHEMA, "2.13.0", "3.11.7", 0, 25, True, "1/1",
    (Result("x", PLAIN, Verdict.BROKEN, counterexample=FOUND, untried=(("skip", "no"),)),),
    {"x": {"train:3": [[0.1]]}}, {"z": "it can't be built"},
)  # fmt: skip


def read(data, folder):
    path = folder / "x.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data), encoding="utf-8")
    return read_results(path)


def refusal(data, folder):
    """What is said of a file; one sentence, of one line, that says which file it is."""
    with pytest.raises(ResultsError) as caught:
        read(data, folder)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{folder / 'x.json'} ")
    assert len(message) < 500 + len(str(folder))
    return message.removeprefix(f"{folder / 'x.json'} ")


def changed(*place, to):
    """The file with another value at a place; without it if that is `...`."""
    data = json.loads(dump_results(FILE))
    inside = data
    for key in place[:-1]:
        inside = inside[key]
    if to is ...:
        del inside[place[-1]]
    else:
        inside[place[-1]] = to
    return data


RESULT = ("results", 0)
SHOWN = (*RESULT, "counterexample")


@pytest.mark.parametrize(
    "place",
    [
        ("torch",), ("python",), ("seed",), ("max_examples",), ("complete",), ("shard",),
        (*RESULT, "subject"), (*RESULT, "check"), (*RESULT, "verdict"),
        (*SHOWN, "operation"), (*SHOWN, "step"), (*SHOWN, "expected"), (*SHOWN, "actual"),
        (*SHOWN, "trace"), (*SHOWN, "found", "by"), (*SHOWN, "lost", 0, "saved"),
        (*SHOWN, "uninterrupted", "role"), (*SHOWN, "uninterrupted", "seen", 0, "epoch"),
    ],
)  # fmt: skip
def test_a_key_that_is_missing_is_named(place, tmp_path):
    assert f"'{place[-1]}'" in refusal(changed(*place, to=...), tmp_path)


@pytest.mark.parametrize(
    ("place", "wrong"),
    [
        (("torch",), 2.13), (("torch",), None), (("seed",), "0"), (("seed",), 0.5),
        (("seed",), True), (("complete",), 1), (("complete",), "yes"), (("shard",), [1, 5]),
        (("results",), {}), (("results",), ""), (("results",), "abc"), (("results",), None),
        (("results",), [1]), (("results",), [[]]), (("results",), ["x"]),
        (("runs",), []), (("runs",), {"x": []}), (("runs",), {"x": {"train:1": "abc"}}),
        (("runs",), {"$items": [[1, {}]]}), (("not_checked",), {"z": 1}),
        (("not_checked",), [["z", "no"]]),
        ((*RESULT, "verdict"), "FINE"), ((*RESULT, "verdict"), 1), ((*RESULT, "verdict"), {}),
        ((*RESULT, "why"), "because"), ((*RESULT, "seconds"), "1"), ((*RESULT, "seconds"), True),
        ((*RESULT, "seconds"), 10**400), ((*RESULT, "references"), ["one"]),
        ((*RESULT, "references"), "ab"), ((*RESULT, "references"), ["a", "b", "c"]),
        ((*RESULT, "weights"), 0), ((*RESULT, "untried"), ["ab"]),
        ((*RESULT, "untried"), {"skip": "no"}), ((*RESULT, "tally"), 7),
        ((*RESULT, "tally"), {"traces": "many"}), ((*RESULT, "promise"), "resume"),
        ((*RESULT, "replays"), [None]), (SHOWN, "train:3"), (SHOWN, []),
        ((*SHOWN, "trace"), "train:3 dance:1"), ((*SHOWN, "trace"), ""), ((*SHOWN, "trace"), 3),
        ((*SHOWN, "trace"), "train:3 resume:a"), ((*SHOWN, "operation"), 3),
        ((*SHOWN, "operation"), -1), ((*SHOWN, "step"), 1), ((*SHOWN, "step"), -1),
        ((*SHOWN, "operation"), False), ((*SHOWN, "expected"), []),
        ((*SHOWN, "expected"), {"$items": [[1, 2]]}), ((*SHOWN, "actual"), {"$float": "lots"}),
        ((*SHOWN, "actual"), {"lr": {"$float": []}}), ((*SHOWN, "actual"), {"lr": {"$bytes": 1}}),
        ((*SHOWN, "actual"), {"lr": {"$bytes": "\u20ac"}}),
        ((*SHOWN, "actual"), {"lr": {"$items": [[[], 1]]}}),
        ((*SHOWN, "actual"), {"lr": {"$items": 1}}), ((*SHOWN, "actual"), {"lr": {"$items": [1]}}),
        ((*SHOWN, "actual"), {"lr": {"$float": 10**400}}),
        ((*SHOWN, "found"), {"by": "luck", "traces": 1, "seconds": 1}), ((*SHOWN, "lost"), "count"),
        ((*SHOWN, "runs"), [{"role": "other", "seen": []}]),
        ((*SHOWN, "uninterrupted", "seen"), "abc"),
        ((*SHOWN, "uninterrupted", "seen", 0, "values"), [0.1]),
    ],
)  # fmt: skip
def test_a_value_of_another_type_or_that_cannot_be_is_refused(place, wrong, tmp_path):
    refusal(changed(*place, to=wrong), tmp_path)


def test_the_place_of_what_is_wrong_is_told(tmp_path):
    data = changed(*RESULT, "verdict", to="FINE")
    message = refusal(data, tmp_path)
    assert "'FINE'" in message
    assert "@ $.results[0].verdict" in message
    data["results"].insert(0, json.loads(dump_results(FILE))["results"][0])
    assert "@ $.results[1].verdict" in refusal(data, tmp_path)
    message = refusal(changed(*SHOWN, "lost", 0, "saved", to="no"), tmp_path)
    assert re.search(r"'no' .* bool @ \$\.results\[0\]\.counterexample\.lost\[0\]\.saved", message)


@pytest.mark.parametrize(
    ("schema", "said"),
    [(1, "1"), (3, "3"), ("2", "'2'"), (None, "None"), ([], "a list"), ({}, "a dict"),
     ([[[]]], "a list"), (1.5, "1.5"), (10**60, f"1{'0' * 39}")],
)  # fmt: skip
def test_another_schema_is_refused_with_its_version(schema, said, tmp_path):
    message = refusal(changed("schema", to=schema), tmp_path)
    assert re.search(rf"schema {re.escape(said)},.* {SCHEMA}:", message)


@pytest.mark.parametrize("schema", ["2.0", "true"])
def test_a_schema_that_only_looks_the_same_is_refused(schema, tmp_path):
    refusal(f'{{"schema": {schema}, "results": []}}', tmp_path)


@pytest.mark.parametrize(
    "text", ["[]", "null", "3", '"results"', "{}", '{"schema": 2}', '{"results": []}']
)
def test_json_without_results_is_refused(text, tmp_path):
    refusal(text, tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\x00", b'{"schema": 2, "results": []', b"{'schema': 2}", b"\xff\xfe{}",
        b'{"schema": 2, "results": "\xff"}', b'{"schema": 2}\x00', b'{"a": "\x00"}',
        b"\xef\xbb\xbf{}", b"[" * 100_000, b'{"a":' * 100_000, b"1" * 5000,
    ],
    ids=["empty", "nul", "cut", "python", "utf-16", "latin", "nul at the end", "nul inside",
         "byte order mark", "deep list", "deep dict", "long number"],
)  # fmt: skip
def test_what_is_not_json_is_refused(content, tmp_path):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(ResultsError) as caught:
        read_results(tmp_path / "x.json")
    assert str(caught.value).startswith(f"{tmp_path / 'x.json'} ")
    assert "\n" not in str(caught.value)


def deep_file(place, depth):
    return json.dumps(changed(*place, to="DEEP")).replace('"DEEP"', "[" * depth + "]" * depth)


@pytest.mark.parametrize("depth", [300, 900, 5_000, 100_000])
@pytest.mark.parametrize("place", [("schema",), ("results",)])
def test_a_deep_file_is_refused(place, depth, tmp_path):
    refusal(deep_file(place, depth), tmp_path)


def test_a_deep_value_is_read_or_refused(tmp_path):
    place = (*SHOWN, "actual", "lr")
    shallow = read(deep_file(place, 50), tmp_path).results[0].counterexample.actual["lr"]
    assert repr(shallow) == "[" * 50 + "]" * 50
    refusal(deep_file(place, 20_000), tmp_path)


def test_what_cannot_be_opened_is_told(tmp_path):
    for path, number in ((tmp_path / "none.json", errno.ENOENT), (tmp_path, errno.EISDIR)):
        with pytest.raises(ResultsError) as caught:
            read_results(path)
        assert str(path) in str(caught.value)
        assert str(caught.value).endswith(os.strerror(number))


def test_the_wording_of_refusals(tmp_path):
    """The one place where it is pinned; other tests ask for the value and its place."""
    changes = [
        "not json", "[]", changed("schema", to=7), changed("torch", to=...),
        changed(*RESULT, "verdict", to="FINE"), changed("seed", to="0"),
        changed(*SHOWN, "operation", to=3),
    ]  # fmt: skip
    assert [refusal(data, tmp_path) for data in changes] == snapshot(
        [
            "is not JSON (Expecting value: line 1 column 1 (char 0)): give a file that check --json wrote",
            "has no results in it: give a file that check --json wrote",
            "has schema 7, but this version reads 2: write it again with this version of check --json",
            "is not what check --json writes ('torch' is missing @ $.torch): write it again",
            "is not what check --json writes ('FINE' is not a valid Verdict @ $.results[0].verdict): write it again",
            "is not what check --json writes ('0' is not of type int @ $.seed): write it again",
            "is not what check --json writes (its trace train:3 save:a resume:a has no step 0 of operation 3): write it again",
        ]
    )
