"""Known failures: what is refused, how an entry is judged, and how a ledger is written anew."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet
from packaging.version import Version
from torch.optim.lr_scheduler import StepLR

from harness import Subject, check_subject
from harness.checks.registry import as_check
from harness.cli.main import cli
from harness.core.errors import HarnessError, LedgerError
from harness.core.ledger import KEYS, entry_text, overlap, read_ledger, version_of, without
from harness.report.ledger_update import updated
from lr_schedules.correct import Halving

LAST_EPOCH = "resume_by_last_epoch"
STEP = {
    "subject": "StepLR",
    "check": LAST_EPOCH,
    "torch": ">=1.13",
    "trace": "step_size=3 gamma=0.5 train:3 save:a resume:a",
    "shows": "lr",
    "kind": "bug",
    "tracked": "like pytorch/pytorch#102261",
    "reason": "It decays again.",
}
HERE = version_of(torch.__version__)
NAMES = ("StepLR", "MultiStepLR"), (LAST_EPOCH, "resume_from_file")


@pytest.fixture
def ledger(tmp_path):
    """Write a ledger of entries, each with changes to `STEP`, or of a text."""

    def write(*entries, text=""):
        path = tmp_path / "known.toml"
        tables = [entry_text({**STEP, **entry}) for entry in entries]
        path.write_text("\n".join(["# mine", *tables, text]))
        return path

    return write


def read(path):
    return read_ledger([path], *NAMES)


# ------------------------------------------------------------------------------- reading


def test_entries_come_back_as_they_were_written(ledger):
    trace = "optimizer=SGD(groups=1,lr='tensor') train:1 save:a resume:a"
    [one, two] = read(ledger({}, {"check": "resume_from_file", "trace": trace})).entries
    assert (one.subject, one.check, one.kind, one.shows) == ("StepLR", LAST_EPOCH, "bug", "lr")
    assert (str(one.trace), str(one.torch), one.reason) == (
        STEP["trace"],
        ">=1.13",
        "It decays again.",
    )
    assert str(two.trace) == trace
    assert [entry.place.rpartition(":")[2] for entry in (one, two)] == ["2", "11"]


@pytest.mark.parametrize(
    ("changes", "line", "said"),
    [
        ({"subject": "StepLr"}, 2, "no subject is called 'StepLr'"),
        ({"check": "resume"}, 2, "no check is called 'resume'"),
        ({"trace": "train"}, 6, "'train' in the trace is not an operation"),
        ({"trace": "resume:a"}, 6, "slot a"),
        ({"reason": " "}, 10, "'reason' must be a text, and not empty"),
        ({"tracked": "somewhere"}, 9, "'tracked' must say where"),
        ({"kind": "flaky"}, 8, "'kind' must be bug or by-design (got 'flaky')"),
        ({"torch": "2.13"}, 5, "'torch' must be a version specifier"),
        ({"torch": ">=2.13,<2"}, 5, "no version is in '>=2.13,<2'"),
        ({"shows": "lr!"}, 7, "'shows' must be as 'lr'"),
    ],
)
def test_what_is_not_as_it_must_be_is_refused_with_its_line(ledger, changes, line, said):
    path = ledger(changes)
    with pytest.raises(LedgerError) as error:
        read(path)
    assert str(error.value).startswith(f"{path}:{line}: ")
    assert said in str(error.value)


@pytest.mark.parametrize("key", KEYS)
def test_a_key_that_lacks_is_said(tmp_path, key):
    path = tmp_path / "known.toml"
    lines = [line for line in entry_text(STEP).splitlines() if not line.startswith(key)]
    path.write_text("\n".join(lines))
    with pytest.raises(LedgerError, match=f":1: the failure lacks '{key}'"):
        read(path)


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("why = 1\n", 11, "'why' is no key of a failure"),
        ("[[faliure]]\n", 11, "'faliure' is not known here"),
        ("reason = \n", 11, "it is no TOML"),
        ("subject = 'StepLR'\n", 11, "it is no TOML"),
    ],
)
def test_what_is_no_ledger_is_refused(ledger, text, line, said):
    with pytest.raises(LedgerError, match=rf":{line}: .*{said}"):
        read(ledger({}, text=text))


def test_a_file_that_is_not_there_or_not_utf_8(tmp_path):
    with pytest.raises(LedgerError, match=r"cannot read the ledger .*none\.toml: No such file"):
        read(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b"# one\n# \xe9\n")
    with pytest.raises(LedgerError, match=r"latin\.toml:2: it is not UTF-8"):
        read(tmp_path / "latin.toml")


def test_ranges_of_one_pair_must_not_overlap(ledger):
    assert len(read(ledger({"torch": "<2"}, {"torch": ">=2"})).entries) == 2
    with pytest.raises(LedgerError, match=r"known\.toml:11: torch 2\.1 is in '>=2\.1' and in"):
        read(ledger({"torch": "<2.2"}, {"torch": ">=2.1"}))


SPECIFIERS = st.builds(
    lambda parts: ",".join(f"{op}{version}" for op, version in parts),
    st.lists(
        st.tuples(st.sampled_from([">=", ">", "<", "<=", "==", "!="]),
                  st.sampled_from(["1.13", "2.0.1", "2.4", "2.13.0"])), max_size=3,
    ),
)  # fmt: skip
VERSIONS = [Version(f"{a}.{b}.{c}") for a in (1, 2) for b in range(15) for c in (0, 1, 9)]


@given(SPECIFIERS, SPECIFIERS)
def test_ranges_overlap_where_a_version_is_in_both(one, other):
    one, other = SpecifierSet(one), SpecifierSet(other)
    both = [v for v in VERSIONS if one.contains(v) and other.contains(v)]
    found = overlap(one, other)
    if both:
        assert found
    if found:
        assert one.contains(found, prereleases=True)
        assert other.contains(found, prereleases=True)


@given(SPECIFIERS, st.sampled_from(VERSIONS))
def test_a_capped_range_ends_before_the_version(text, version):
    versions = SpecifierSet(text)
    capped = without(versions, version)
    left = [v for v in VERSIONS if versions.contains(v) and v < version]
    if capped:
        assert [v for v in VERSIONS if SpecifierSet(capped).contains(v)] == left
    else:
        assert left == []


# ------------------------------------------------------------------------------- judging


def result(path, *, subject=None, check=LAST_EPOCH, **given):
    subject = subject or Subject("StepLR", StepLR, options={"step_size": 3, "gamma": 0.5})
    known = read_ledger([path], ["StepLR"], [LAST_EPOCH, "resume_from_file"])
    [found] = check_subject(subject, [as_check(check)], ledger=known, **given)
    return found


def test_a_trace_that_still_breaks_is_known_and_nothing_is_searched(ledger):
    found = result(ledger({}))
    assert found.verdict == "KNOWN"
    assert found.reason == "bug, like pytorch/pytorch#102261: It decays again."
    assert str(found.counterexample.trace) == STEP["trace"]
    assert found.tally.traces < 20


@pytest.mark.parametrize("versions", [f"<{HERE}", f">{HERE}"])
def test_an_entry_about_other_versions_that_breaks_here_has_too_short_a_range(ledger, versions):
    trace = "step_size=4 gamma=0.5 train:4 save:a resume:a"
    path = ledger({"torch": versions, "trace": trace})
    found = result(path)
    assert found.verdict == "BROKEN"
    assert str(found.counterexample.trace) == trace  # and not the simpler one that is searched
    assert found.note == f"{path}:2 has it, but of torch '{versions}': let an entry cover {HERE}"
    assert found.tally.traces < 20


def test_one_that_is_not_minimal_here_is_made_so(ledger):
    path = ledger({"torch": f"<{HERE}", "trace": STEP["trace"] + " train:1"})
    found = result(path)
    assert (found.verdict, str(found.counterexample.trace)) == ("BROKEN", STEP["trace"])


def test_an_entry_about_other_versions_that_holds_here_says_nothing(ledger):
    path = ledger({"torch": f"<{HERE}", "trace": "step_size=3 gamma=0.5 train:2 save:a resume:a"})
    found = result(path)
    assert (found.verdict, found.note, found.replays) == ("BROKEN", "", ())
    assert found.tally.traces > 0


def test_an_event_that_cannot_be_with_these_options_breaks_nothing(ledger):
    class OneGroup(Halving):
        def step(self):
            if len(self.optimizer.param_groups) > 2:
                raise ValueError("a group too much")
            super().step()

    trace = "add_group:1 save:a resume:a train:1"
    found = result(ledger({"trace": trace}), subject=Subject("StepLR", OneGroup))
    assert found.verdict == "STALE"
    assert (
        "add_group is not tried with its options: after a param group was added, the"
        in found.reason
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"trace": "step_size=3 gamma=0.5 train:2 save:a resume:a"}, "its trace holds: cap the"),
        ({"shows": "momentum"}, "it shows 'lr' and not 'momentum': write that"),
        ({"shows": "raises KeyError"}, "it shows 'lr' and not 'raises KeyError'"),
        (
            {"trace": STEP["trace"] + " train:1"},
            "it breaks sooner, its trace is too long: cap the entry at",
        ),
        ({"trace": "step=3 train:2 save:a resume:a"}, "its trace can't be run"),
    ],
)
def test_an_entry_that_is_not_true_is_stale(ledger, changes, said):
    path = ledger(changes)
    found = result(path)
    assert found.verdict == "STALE"
    assert found.reason.startswith(f"{path}:2: {said}")


def test_what_to_write_instead(ledger):
    holds = {"trace": "step_size=3 gamma=0.5 train:2 save:a resume:a"}
    assert result(ledger(holds)).reason.endswith(
        f"cap the entry at '<{HERE}' (torch = \">=1.13,<{HERE}\"); another trace breaks it"
    )
    assert result(ledger({**holds, "torch": f"=={HERE}"})).reason.endswith(
        "delete the entry, or let it begin at a later torch; another trace breaks it"
    )


def test_a_stale_entry_says_what_breaks_the_check_instead(ledger):
    found = result(ledger({"trace": "step_size=3 gamma=0.5 train:2 save:a resume:a"}))
    assert found.verdict == "STALE"
    assert found.reason.endswith("; another trace breaks it")
    assert str(found.counterexample.trace) == STEP["trace"]


def test_what_holds_now_has_no_counterexample(ledger):
    subject = Subject("StepLR", Halving)
    found = result(ledger({"trace": "train:1 save:a resume:a"}), subject=subject)
    assert (found.verdict, found.counterexample) == ("STALE", None)


def test_a_pair_that_is_declined_here_has_a_stale_entry(ledger):
    subject = Subject("StepLR", StepLR, options={"step_size": 3}, declines={LAST_EPOCH: "no"})
    found = result(ledger({}), subject=subject)
    assert (found.verdict, "it is declined here: no" in found.reason) == ("STALE", True)


def test_a_trace_that_breaks_at_its_start_is_minimal_with_one_step(ledger):
    class Late(StepLR):
        def get_last_lr(self):
            if not self.last_epoch:
                raise AttributeError("_last_lr")
            return super().get_last_lr()

    subject = Subject("StepLR", Late, options={"step_size": 3})
    entry = {"check": "last_lr_is_the_groups_lr", "shows": "raises AttributeError"}
    names = ["StepLR"], [entry["check"]]
    for trace, verdict in (("step_size=3 train:1", "KNOWN"), ("step_size=3 train:2", "UNKNOWN")):
        known = read_ledger([ledger({**entry, "trace": trace})], *names)
        [found] = check_subject(subject, [as_check(entry["check"])], ledger=known)
        assert (found.verdict, "not minimal" in found.reason) == (verdict, verdict != "KNOWN")


def test_a_trace_that_is_not_minimal_is_refused(ledger):
    trace = "step_size=1 gamma=0.5 train:2 save:a resume:a"
    path = ledger({"trace": trace})
    found = result(path)
    assert found.verdict == "UNKNOWN"
    assert f"{path}:2: its trace is not minimal: step_size=1 gamma=0.5 train:1" in found.reason


class TwoDefects(Halving):
    """Can't be resumed by last_epoch, and says another reason from epoch 6 on."""

    def __init__(self, optimizer, last_epoch=-1):
        super().__init__(optimizer, last_epoch)
        if self.epoch:
            raise ValueError("too soon" if self.epoch < 6 else "too late")


def test_a_second_defect_behind_a_known_one_is_found_where_it_is_searched(ledger):
    path = ledger({"trace": "train:1 save:a resume:a", "shows": "raises ValueError"})
    subject = Subject("StepLR", TwoDefects)
    assert result(path, subject=subject).verdict == "KNOWN"
    found = result(path, subject=subject, search_known=True)
    assert found.verdict == "BROKEN"
    assert found.counterexample.actual == {"raises": "ValueError: too late"}
    assert f"beside what is known at {path}:2" in found.note


def test_what_the_entry_tells_is_all_there_is_to_find(ledger):
    found = result(ledger({}), search_known=True)
    assert found.verdict == "KNOWN"
    assert found.tally.traces > 20


# -------------------------------------------------------------------------- command line


def run(*arguments):
    from click.testing import CliRunner

    done = CliRunner().invoke(cli, list(map(str, arguments)), standalone_mode=False)
    if isinstance(done.exception, Exception):
        raise done.exception
    return done.return_value, done.output


ARGUMENTS = ("check", "StepLR", "--check", LAST_EPOCH, "--max-examples", 0)


@pytest.fixture
def no_ledger_of_torch(monkeypatch, tmp_path):
    (tmp_path / "empty.toml").write_text("")
    monkeypatch.setattr(
        "harness.subjects.registered.ledger_of_torch", lambda: tmp_path / "empty.toml"
    )


@pytest.mark.usefixtures("no_ledger_of_torch")
def test_a_run_with_known_failures_alone_passes(ledger):
    status, printed = run(*ARGUMENTS, "--ledger", ledger({}))
    assert status == 0
    assert "KNOWN StepLR: resume_by_last_epoch\n  bug, like pytorch/pytorch#102261" in printed
    assert "StepLR  K" in printed
    assert "0 HOLDS, 0 BROKEN, 1 KNOWN, 0 DECLINED" in printed


@pytest.mark.usefixtures("no_ledger_of_torch")
def test_what_is_in_no_ledger_fails_and_prints_its_entry(tmp_path):
    status, printed = run(*ARGUMENTS)
    assert status == 1
    entry = printed[printed.index("[[failure]]") : printed.index("\n\nsubject")]
    (tmp_path / "new.toml").write_text(entry)
    assert run(*ARGUMENTS, "--ledger", tmp_path / "new.toml")[0] == 0


@pytest.mark.usefixtures("no_ledger_of_torch")
def test_a_stale_entry_fails_the_run(ledger):
    path = ledger({"trace": "step_size=3 gamma=0.5 train:2 save:a resume:a"})
    status, printed = run(*ARGUMENTS, "--ledger", path)
    assert status == 1
    assert f"STALE StepLR: resume_by_last_epoch\n  {path}:2: its trace holds" in printed
    status, printed = run("ledger", "verify", "--ledger", path)
    assert (status, "0 of 1 entries are true of it" in printed) == (1, True)


def test_without_a_ledger_nothing_is_known():
    status, printed = run(*ARGUMENTS, "--no-ledger")
    assert (status, " KNOWN" in printed, "[[failure]]" in printed) == (1, False, False)


def test_a_wrong_entry_is_an_error_of_one_line(ledger, harness_command):
    done = harness_command("check", "StepLR", "--ledger", ledger({"kind": "?"}))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


# ------------------------------------------------------------------------------- update


def rows(version, *traces, check=LAST_EPOCH):
    """The data of a run in which StepLR broke by one trace, or held."""
    row = {"subject": "StepLR", "check": check, "verdict": "HOLDS"}
    if traces:
        row |= {
            "verdict": "BROKEN",
            "trace": traces[0],
            "operation": 2,
            "step": 0,
            "expected": {"lr": [0.1]},
            "actual": {"lr": [0.2]},
        }
    return {"schema": 1, "torch": version, "complete": True, "results": [row]}


ONE = STEP["trace"]
OTHER = "step_size=1 gamma=0.5 train:1 save:a resume:a"


@pytest.mark.parametrize(
    ("before", "runs", "after"),
    [
        # What is new gets the range that it was seen in.
        ([], [("2.0.1", ONE), ("2.4.1", ONE)], [(ONE, ">=2.0.1")]),
        ([], [("2.0.1", ONE), ("2.4.1",)], [(ONE, "<2.4.1,>=2.0.1")]),
        ([], [("2.0.1",), ("2.4.1", ONE)], [(ONE, ">=2.4.1")]),
        ([], [("2.0.1", ONE), ("2.4.1",), ("2.6.0", ONE)],
         [(ONE, "<2.4.1,>=2.0.1"), (ONE, ">=2.6.0")]),
        ([], [("2.0.1", ONE), ("2.4.1", OTHER)], [(ONE, "<2.4.1,>=2.0.1"), (OTHER, ">=2.4.1")]),
        # What is there is made true, and says of other versions what it said.
        ([(ONE, ">=1.13")], [("2.0.1", ONE), ("2.4.1", ONE)], [(ONE, ">=1.13")]),
        ([(ONE, ">=1.13")], [("2.0.1", ONE), ("2.4.1",)], [(ONE, "<2.4.1,>=1.13")]),
        ([(ONE, ">=1.13,<3")], [("2.0.1", ONE)], [(ONE, "<3,>=1.13")]),
        ([(ONE, ">=2.4.1")], [("2.0.1", ONE), ("2.4.1", ONE)], [(ONE, ">=2.0.1")]),
        ([(ONE, "<1.14")], [("2.0.1",)], [(ONE, "<1.14")]),
        ([(ONE, ">=1.13")], [("2.4.1",)], [(ONE, "<2.4.1,>=1.13")]),
        ([(ONE, ">=2.0.1")], [("2.0.1",), ("2.4.1",)], []),
        ([(ONE, ">=2.0.1")], [("2.0.1", OTHER)], [(OTHER, ">=2.0.1")]),
    ],
)  # fmt: skip
def test_a_ledger_becomes_true_of_the_results(ledger, before, runs, after):
    path = ledger(*({"trace": trace, "torch": versions} for trace, versions in before))
    new = updated(path.read_text(), read(path).entries, [rows(*run) for run in runs])
    path.write_text(new)
    found = read(path).entries
    assert [(str(entry.trace), str(entry.torch)) for entry in found] == after
    assert new.startswith("# mine\n")
    assert updated(new, found, [rows(*run) for run in runs]) == new


def in_ledger(data, *traces):
    """The same data, in which these traces of the ledger break the pair as well."""
    [row] = data["results"]
    row["in_ledger"] = [{**row, "trace": trace} for trace in traces]
    return data


@pytest.mark.parametrize(
    ("before", "runs", "after"),
    [
        # One trace for all of them, though each run had found its own.
        ([], [("2.0.1", ONE, OTHER), ("2.4.1", OTHER)], [(OTHER, ">=2.0.1")]),
        ([], [("2.0.1", ONE), ("2.4.1", OTHER, ONE), ("2.6.0", OTHER)],
         [(ONE, "<2.6.0,>=2.0.1"), (OTHER, ">=2.6.0")]),
        ([], [("2.0.1", OTHER, ONE), ("2.4.1", ONE, OTHER)], [(OTHER, ">=2.0.1")]),
        # What is there and true stays, though another trace would do for more.
        ([(ONE, ">=2.0.1,<2.4.1")], [("2.0.1", ONE, OTHER), ("2.4.1", OTHER)],
         [(ONE, ">=2.0.1,<2.4.1"), (OTHER, ">=2.4.1")]),
        ([(ONE, ">=2.4.1")], [("2.0.1", OTHER), ("2.4.1", ONE, OTHER), ("2.6.0", ONE)],
         [(ONE, ">=2.4.1"), (OTHER, "<2.4.1,>=2.0.1")]),
        ([(ONE, ">=2.4.1")], [("2.0.1", OTHER, ONE), ("2.4.1", ONE, OTHER)], [(ONE, ">=2.0.1")]),
    ],
)  # fmt: skip
def test_what_the_ledgers_other_traces_show_makes_ranges_longer(ledger, before, runs, after):
    path = ledger(*({"trace": trace, "torch": versions} for trace, versions in before))
    data = [in_ledger(rows(*run[:2]), *run[2:]) for run in runs]
    path.write_text(updated(path.read_text(), read(path).entries, data))
    found = [(str(entry.trace), str(entry.torch)) for entry in read(path).entries]
    assert found == [(trace, str(SpecifierSet(versions))) for trace, versions in after]


@pytest.mark.usefixtures("no_ledger_of_torch")
def test_what_a_run_writes_of_the_ledger_is_what_update_reads(ledger, tmp_path):
    longer = {"trace": "step_size=1 gamma=0.5 train:1 save:a resume:a", "torch": f"<{HERE}"}
    path = ledger({"torch": f">{HERE}"}, longer)
    written = tmp_path / "results.json"
    assert run(*ARGUMENTS, "--ledger", path, "--json", written)[0] == 1
    [row] = json.loads(written.read_text())["results"]
    assert {known["trace"] for known in row["in_ledger"]} == {STEP["trace"], longer["trace"]}
    assert run("ledger", "update", written, "--ledger", path, "--write")[0] == 0
    assert run(*ARGUMENTS, "--ledger", path)[0] == 0
    assert run("ledger", "verify", "--ledger", path)[0] == 0


def test_comments_and_reasons_stay(ledger):
    path = ledger({}, {"subject": "MultiStepLR"}, text="# the end")
    text = path.read_text().replace('shows = "lr"', 'shows = "lr" # seen', 1)
    path.write_text(text)
    new = updated(text, read(path).entries, [rows("2.4.1", ONE), rows("2.6.0")])
    assert new == text.replace('">=1.13"', '">=1.13,<2.6.0"', 1) + "\n"


def files_of(tmp_path, *runs):
    paths = [tmp_path / f"{number}.json" for number in range(len(runs))]
    for path, data in zip(paths, runs, strict=True):
        path.write_text(json.dumps(data))
    return paths


def test_update_prints_and_writes_only_where_it_is_told(ledger, tmp_path):
    path = ledger({})
    before = path.read_text()
    results = files_of(tmp_path, rows("2.4.1", ONE), rows("2.6.0"))
    status, printed = run("ledger", "update", *results, "--ledger", path)
    assert (status, path.read_text()) == (0, before)
    assert '">=1.13,<2.6.0"' in printed
    assert run("ledger", "update", *results, "--ledger", path, "--write")[1] == f"wrote {path}\n"
    assert path.read_text() == printed
    assert "is true of these" in run("ledger", "update", *results, "--ledger", path, "--write")[1]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([], "has no results of check in it"),
        ({**rows("2.4.1"), "schema": 99}, "has schema 99, and this harness reads 1"),
        ({**rows("2.4.1"), "complete": False}, "is of a run that was stopped"),
        (rows("2.0.1"), "is the second file of torch 2.0.1"),
    ],
)
def test_results_that_cannot_be_used_are_said(ledger, tmp_path, data, said):
    with pytest.raises(HarnessError, match=said):
        run("ledger", "update", *files_of(tmp_path, rows("2.0.1"), data), "--ledger", ledger({}))


def test_a_pair_that_could_not_be_decided_is_no_result(ledger, tmp_path):
    data = rows("2.4.1")
    data["results"][0] |= {"verdict": "UNKNOWN", "reason": "the time limit of 30 s ran out"}
    said = r"torch 2\.4\.1: StepLR resume_by_last_epoch is UNKNOWN \(the time limit of 30 s ran out"
    with pytest.raises(LedgerError, match=said):
        run("ledger", "update", *files_of(tmp_path, data), "--ledger", ledger({}))
