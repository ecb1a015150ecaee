"""Known failures: what is refused, how an entry is judged, and how a ledger is updated."""

import itertools
import json
import re
from dataclasses import replace

import click
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from inline_snapshot import snapshot
from packaging.specifiers import SpecifierSet
from packaging.version import Version
from torch.optim.lr_scheduler import StepLR
from wrapped import wrapped

import harness.core.ledger as ledger_module
from harness import Budget, Subject, Term, check_subject
from harness.checks.registry import as_check
from harness.cli.main import cli
from harness.core.errors import HarnessError, LedgerError
from harness.core.ledger import (
    EMPTY_LEDGER,
    MAX_BYTES,
    REQUIRED,
    Entry,
    KnownFailure,
    Ledger,
    entry_text,
    overlap,
    read_ledger,
    refuse_overlaps,
    version_of,
    without,
)
from harness.core.relations import shows_of
from harness.core.result import Counterexample, Result
from harness.core.run import same
from harness.core.trace import Trace
from harness.core.verdict import Reason, Verdict
from harness.report.ledger import broken_by_version, updated
from harness.report.result_file import ResultFile, dump_results, results_of_run
from harness.report.text import entries
from harness.subjects.installed import default_subjects, shipped_ledgers
from harness.subjects.known_failures import known_to, shipped_failures
from harness.subjects.lookup import as_subject
from lr_schedules.correct import Halving

LAST_EPOCH = "resume_by_last_epoch"
STEP = {
    "subject": "StepLR",
    "check": LAST_EPOCH,
    "torch": ">=1.13",
    "trace": "step_size=3 gamma=0.5 train:3 save:a resume:a",
    "shows": "lr is [0.025, 0.0025] and should be [0.05, 0.005]",
    "relation": "multiplied a second time by the factor of the last step",
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
    assert (one.subject, one.check, one.kind) == ("StepLR", LAST_EPOCH, "bug")
    assert (one.shows, one.relation) == (STEP["shows"], STEP["relation"])
    assert (str(one.trace), str(one.torch), one.reason) == (
        STEP["trace"],
        ">=1.13",
        "It decays again.",
    )
    assert str(two.trace) == trace
    assert [entry.place.rpartition(":")[2] for entry in (one, two)] == ["2", "12"]


REFUSED = [
    ({"subject": "StepLr"}, 2, "'StepLr'"),
    ({"check": "resume"}, 2, "'resume'"),
    ({"trace": "train"}, 6, "'train'"),
    ({"trace": "resume:a"}, 6, "'resume:a'"),
    ({"reason": " "}, 11, "'reason'"),
    ({"tracked": "somewhere"}, 10, "'somewhere'"),
    ({"kind": "flaky"}, 9, "'flaky'"),
    ({"torch": "2.13"}, 5, "'2.13'"),
    ({"torch": ">=2.13,<2"}, 5, "'>=2.13,<2'"),
    ({"torch": "===2.13"}, 5, "'===2.13'"),
]


@pytest.mark.parametrize(("changes", "line", "names"), REFUSED)
def test_a_wrong_value_is_refused_with_its_line(ledger, changes, line, names):
    path = ledger(changes)
    with pytest.raises(LedgerError) as error:
        read(path)
    assert str(error.value).startswith(f"{path}:{line}: ")
    assert names in str(error.value)


@pytest.mark.parametrize("key", REQUIRED)
def test_a_missing_key_is_refused_with_the_line_of_its_entry(tmp_path, key):
    path = tmp_path / "known.toml"
    lines = [line for line in entry_text(STEP).splitlines() if not line.startswith(key)]
    path.write_text("\n".join(lines))
    with pytest.raises(LedgerError, match=f":1: .*'{key}'"):
        read(path)


NOT_A_LEDGER = ["why = 1\n", "[[faliure]]\n", "reason = \n", "subject = 'StepLR'\n"]


@pytest.mark.parametrize("text", NOT_A_LEDGER)
def test_a_file_that_is_not_a_ledger_is_refused_with_a_line(ledger, text):
    path = ledger({}, text=text)
    with pytest.raises(LedgerError) as error:
        read(path)
    assert str(error.value).startswith(f"{path}:12: ")


def test_a_file_that_is_missing_or_not_utf_8_is_refused(tmp_path):
    with pytest.raises(LedgerError, match=r"none\.toml"):
        read(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b"# one\n# \xe9\n")
    with pytest.raises(LedgerError, match=r"latin\.toml:2: "):
        read(tmp_path / "latin.toml")


def test_the_wording_of_each_refusal(ledger, tmp_path):
    def refusal(path):
        with pytest.raises(LedgerError) as error:
            read(path)
        return str(error.value).replace(f"{tmp_path}/", "")

    lines = [refusal(ledger(changes)) for changes, _, _ in REFUSED]
    lines += [refusal(ledger({}, text=text)) for text in NOT_A_LEDGER]
    lines.append(refusal(ledger({"torch": "<2.2"}, {"torch": ">=2.1"})))
    lines.append(refusal(tmp_path / "none.toml"))
    path = tmp_path / "known.toml"
    path.write_bytes(b"# one\n# \xe9\n")
    lines.append(refusal(path))
    path.write_text(entry_text(STEP).partition("\nreason")[0])
    lines.append(refusal(path))
    assert wrapped(lines) == snapshot("""\
known.toml:2: no subject is called 'StepLr': did you mean StepLR? Name your own as MODULE:NAME
known.toml:2: no check is called 'resume': lr-resume-harness list shows the names. Name your own
    as MODULE:NAME
known.toml:6: 'train' in the trace is not an operation: write one of train:N, optimizer:N,
    scheduler:N, skip:N, zero_grad_step:N, epoch:N, halve_lr:N, add_group:N, save:SLOT,
    resume:SLOT, load:SLOT; or name=value for an option
known.toml:6: 'resume:a' in the trace goes back to slot a, which was not saved before: put
    save:a earlier
known.toml:11: 'reason' must be a string that is not empty (got ' ')
known.toml:10: 'tracked' must be an issue, such as 'pytorch/pytorch#102261', a URL, or 'no
    report found' (got 'somewhere')
known.toml:9: 'kind' must be bug, by-design or rounding (got 'flaky')
known.toml:5: 'torch' must be a version specifier, as in '>=2.0,<2.7' (got '2.13')
known.toml:5: 'torch' contains no version (got '>=2.13,<2')
known.toml:5: 'torch' must be a version specifier, as in '>=2.0,<2.7' (got '===2.13'): write ==
    instead of ===
known.toml:12: 'why' is not a key of a failure: the keys are subject, check, torch, library,
    trace, shows, relation, part, kind, ulps, tracked, reason
known.toml:12: 'faliure' is not a table [[failure]]: a ledger holds nothing else, and no text
    that looks like one
known.toml:12: this is not valid TOML: Invalid value (at line 12, column 10)
known.toml:12: this is not valid TOML: Cannot overwrite a value (at line 12, column 19)
known.toml:12: torch 2.1 is in '>=2.1' and in '<2.2' at known.toml:2, about the same subject,
    check and trace: change the ranges so that they do not overlap
cannot read the ledger 'none.toml': No such file or directory
known.toml:2: the text is not UTF-8: save the file as UTF-8
known.toml:1: the failure has no 'reason'\
""")


def test_ranges_of_one_trace_must_not_overlap(ledger):
    assert len(read(ledger({"torch": "<2"}, {"torch": ">=2"})).entries) == 2
    with pytest.raises(LedgerError, match=r"known\.toml:12: torch 2\.1 .*known\.toml:2"):
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


OTHERS = [
    {"shows": "momentum"},
    {"shows": "raises KeyError"},
    {"shows": "lr is [0.0125, 0.00125] and should be [0.05, 0.005]"},
]


@pytest.mark.parametrize("changes", OTHERS)
def test_an_entry_whose_trace_shows_something_else_is_broken(ledger, changes):
    path = ledger(changes)
    found = result(path)
    assert (found.verdict, found.why) == ("BROKEN", Reason.MORE_THAN_LEDGER)
    assert str(found.counterexample.trace) == STEP["trace"]
    assert f"{path}:2 is about another failure" in found.note


def test_a_trace_that_still_breaks_is_known_and_searched(ledger):
    found = result(ledger({}))
    assert found.verdict == "KNOWN"
    assert found.why == Reason.LEDGER_ENTRY
    assert all(STEP[key] in found.reason for key in ("kind", "tracked", "reason"))
    assert str(found.counterexample.trace) == STEP["trace"]
    assert found.tally.traces > 20


@pytest.mark.parametrize("versions", [f"<{HERE}", f">{HERE}"])
def test_an_entry_about_other_versions_that_breaks_here_has_too_short_a_range(ledger, versions):
    trace = "step_size=4 gamma=0.5 train:4 save:a resume:a"
    path = ledger({"torch": versions, "trace": trace})
    found = result(path)
    assert found.verdict == "BROKEN"
    assert str(found.counterexample.trace) == trace  # and not the simpler one that is searched
    assert found.why == Reason.ENTRY_RANGE_TOO_SHORT
    assert all(text in found.note for text in (f"{path}:2 ", f"'{versions}'", str(HERE)))
    assert found.tally.traces < 20


@pytest.mark.parametrize(
    ("library", "verdict"),
    [("packaging>=1", "KNOWN"), ("packaging<1", "BROKEN"), ("not-installed-here", "BROKEN")],
)
def test_an_entry_about_a_library_covers_only_its_installed_versions(ledger, library, verdict):
    found = result(ledger({"library": library}))
    assert found.verdict == verdict
    if verdict == "BROKEN":
        assert f"only for torch '>=1.13' with {library}: let an entry cover" in found.reason


def test_a_counterexample_that_is_not_minimal_here_is_minimised(ledger):
    path = ledger({"torch": f"<{HERE}", "trace": STEP["trace"] + " train:1"})
    found = result(path)
    assert (found.verdict, str(found.counterexample.trace)) == ("BROKEN", STEP["trace"])


def test_an_entry_about_other_versions_that_holds_here_says_nothing(ledger):
    path = ledger({"torch": f"<{HERE}", "trace": "step_size=3 gamma=0.5 train:2 save:a resume:a"})
    found = result(path)
    assert (found.verdict, found.note, found.replays) == ("BROKEN", "", ())
    assert found.tally.traces > 0


def test_an_event_that_cannot_happen_with_these_options_breaks_nothing(ledger):
    class OneGroup(Halving):
        def step(self):
            if len(self.optimizer.param_groups) > 2:
                raise ValueError("a group too much")
            super().step()

    trace = "add_group:1 save:a resume:a train:1"
    found = result(ledger({"trace": trace}), subject=Subject("StepLR", OneGroup))
    assert (found.verdict, found.why) == ("STALE", Reason.ENTRY_NOT_TRUE)
    assert "add_group is not tried" in found.reason


HOLDS = {"trace": "step_size=3 gamma=0.5 train:2 save:a resume:a"}
NOT_TRUE = [
    HOLDS,
    {**HOLDS, "torch": f"=={HERE}"},
    {"relation": "negative"},
    {"trace": STEP["trace"] + " train:1"},
    {"trace": "step=3 train:2 save:a resume:a"},
]


@pytest.mark.parametrize("changes", NOT_TRUE)
def test_an_entry_that_is_not_true_is_stale(ledger, changes):
    path = ledger(changes)
    found = result(path)
    assert (found.verdict, found.why) == ("STALE", Reason.ENTRY_NOT_TRUE)
    assert found.reason.startswith(f"{path}:2: ")
    assert found.place == f"{path}:2"


def test_the_wording_of_what_is_not_true(ledger, tmp_path):
    lines = [result(ledger(changes)).reason for changes in NOT_TRUE]
    lines = [line.replace(f"{tmp_path}/", "").replace(str(HERE), "HERE") for line in lines]
    lines = [re.sub(r"signature is .*: cap", "signature is ...: cap", line) for line in lines]
    assert wrapped(lines) == snapshot("""\
known.toml:2: its trace holds: cap the entry at '<HERE' (torch = ">=1.13,<HERE"); another trace
    breaks it
known.toml:2: its trace holds: delete the entry, or let it begin at a later torch; another trace
    breaks it
known.toml:2: 'relation' is not true of its values: write 'multiplied a second time by the
    factor of the last step'
known.toml:2: it breaks sooner, its trace is too long: cap the entry at '<HERE' (torch =
    ">=1.13,<HERE"); another trace breaks it
known.toml:2: its trace can't be run: SubjectError: subject StepLR: build cannot be called with
    the options ['gamma', 'step', 'step_size']: it takes no 'step' (did you mean step_size?);
    its signature is ...: cap the entry at '<HERE' (torch = ">=1.13,<HERE"); another trace
    breaks it\
""")


def test_a_stale_entry_says_what_breaks_the_check_instead(ledger):
    found = result(ledger(HOLDS))
    assert found.verdict == "STALE"
    assert str(found.counterexample.trace) == STEP["trace"]


def test_a_pair_that_holds_now_has_no_counterexample(ledger):
    subject = Subject("StepLR", Halving)
    found = result(ledger({"trace": "train:1 save:a resume:a"}), subject=subject)
    assert (found.verdict, found.counterexample) == ("STALE", None)


def test_a_pair_that_is_declined_here_has_a_stale_entry(ledger):
    subject = Subject("StepLR", StepLR, options={"step_size": 3}, declines={LAST_EPOCH: "no"})
    found = result(ledger({}), subject=subject)
    assert (found.verdict, found.why) == ("STALE", Reason.ENTRY_NOT_TRUE)


def test_a_trace_that_breaks_at_its_start_is_minimal_with_one_step(ledger):
    class Late(StepLR):
        def get_last_lr(self):
            if not self.last_epoch:
                raise AttributeError("_last_lr")
            return super().get_last_lr()

    subject = Subject("StepLR", Late, options={"step_size": 3})
    entry = {"check": "last_lr_is_the_groups_lr", "shows": "raises AttributeError", "relation": ""}
    names = ["StepLR"], [entry["check"]]
    for trace, verdict in (("step_size=3 train:1", "KNOWN"), ("step_size=3 train:2", "UNKNOWN")):
        known = read_ledger([ledger({**entry, "trace": trace})], *names)
        [found] = check_subject(subject, [as_check(entry["check"])], ledger=known)
        assert found.verdict == verdict


def test_a_trace_that_is_not_minimal_is_refused(ledger):
    trace = "step_size=1 gamma=0.5 train:2 save:a resume:a"
    shows = "lr is [0.0125, 0.00125] and should be [0.025, 0.0025]"
    path = ledger({"trace": trace, "shows": shows})
    found = result(path)
    assert found.verdict == "UNKNOWN"
    assert f"{path}:2: " in found.reason
    assert "step_size=1 gamma=0.5 train:1 save:a resume:a" in found.reason


def test_a_known_failure_stays_known_with_every_seed(ledger):
    subject = as_subject(StepLR, options={"step_size": 3, "gamma": 0.5})
    results = [result(ledger({}), subject=subject, budget=Budget(seed=seed)) for seed in (0, 7)]
    assert [found.verdict for found in results] == ["KNOWN", "KNOWN"]


class TwoDefects(Halving):
    """Can't be resumed by last_epoch, and says another reason from epoch 6 on."""

    def __init__(self, optimizer, last_epoch=-1):
        super().__init__(optimizer, last_epoch)
        if self.epoch:
            raise ValueError("too soon" if self.epoch < 6 else "too late")


def test_a_second_defect_behind_a_known_one_is_found(ledger):
    shows = "raises ValueError: too soon"
    path = ledger({"trace": "train:1 save:a resume:a", "shows": shows, "relation": ""})
    found = result(path, subject=Subject("StepLR", TwoDefects))
    assert (found.verdict, found.why) == ("BROKEN", Reason.MORE_THAN_LEDGER)
    assert found.counterexample.actual == {"raises": "ValueError: too late"}
    assert f"{path}:2" in found.note


class FailsWithAdam(StepLR):
    """Can't be resumed by last_epoch with Adam; with other optimizers it fails as StepLR does."""

    def __init__(self, optimizer, step_size, gamma=0.1, last_epoch=-1):
        super().__init__(optimizer, step_size, gamma, last_epoch)
        if last_epoch >= 0 and "betas" in optimizer.param_groups[0]:
            raise ValueError("not with Adam")


class FailsWithOneStep(StepLR):
    """Can't be resumed by last_epoch with step_size=1; otherwise it fails as StepLR does."""

    def __init__(self, optimizer, step_size, gamma=0.1, last_epoch=-1):
        super().__init__(optimizer, step_size, gamma, last_epoch)
        if last_epoch >= 0 and step_size == 1:
            raise ValueError("not with one step")


@pytest.mark.parametrize(
    ("scheduler", "drawn", "text"),
    [
        (FailsWithAdam, None, "not with Adam"),
        (FailsWithOneStep, st.just({"step_size": 1, "gamma": 0.5}), "not with one step"),
    ],
)
def test_a_failure_with_other_options_or_optimizers_behind_a_known_one_is_found(
    ledger, scheduler, drawn, text, all_is_tried
):
    options = {"step_size": 3, "gamma": 0.5}
    plain = Subject("StepLR", StepLR, options=options, drawn=drawn)
    assert result(ledger({}), subject=plain).verdict == "KNOWN"
    subject = Subject("StepLR", scheduler, options=options, drawn=drawn)
    found = result(ledger({}), subject=subject)
    assert (found.verdict, found.why) == ("BROKEN", Reason.MORE_THAN_LEDGER)
    assert found.counterexample.actual == {"raises": f"ValueError: {text}"}


def test_rounding_with_other_options_must_be_rounding():
    trace = Trace.parse("train:1 save:a resume:a")
    entry = Entry(
        "StepLR", LAST_EPOCH, SpecifierSet(">=1"), trace, "lr is [0.3] and should be [0.1]",
        "rounding", "no report found", "why", "known.toml:1", ulps=1,
    )  # fmt: skip

    def known(expected, actual, *, own):
        shown = Counterexample(2, 0, {"lr": [0.1]}, {"lr": [0.1 + 2**-56]}, trace=trace)
        found = Counterexample(2, 0, {"lr": [expected]}, {"lr": [actual]}, trace=trace)
        return KnownFailure(entry, shown).explains(as_check(LAST_EPOCH).promise, found, own=own)

    five_ulps = 0.3 + 5 * 2**-54
    assert not known(0.3, five_ulps, own=True)
    assert known(0.3, five_ulps, own=False)
    assert not known(0.3, 0.2, own=False)


# -------------------------------------------------------------------------- command line


def run(*arguments):
    from click.testing import CliRunner

    done = CliRunner().invoke(cli, list(map(str, arguments)), standalone_mode=False)
    if isinstance(done.exception, Exception):
        raise done.exception
    return done.return_value, done.output


ARGUMENTS = ("check", "StepLR", "--check", LAST_EPOCH, "--max-examples", 0)


@pytest.fixture
def no_ledger_of_torch(monkeypatch):
    monkeypatch.setattr("harness.subjects.known_failures.shipped_ledgers", list)


@pytest.mark.usefixtures("no_ledger_of_torch")
def test_a_run_with_known_failures_alone_passes(ledger):
    status, printed = run(*ARGUMENTS, "--ledger", ledger({}))
    assert status == 0
    assert "KNOWN StepLR: resume_by_last_epoch\n" in printed
    assert "1 KNOWN" in printed


@pytest.mark.usefixtures("no_ledger_of_torch")
def test_a_failure_without_an_entry_fails_and_prints_its_entry(tmp_path):
    status, printed = run(*ARGUMENTS)
    assert status == 1
    entry = printed[printed.index("[[failure]]") : printed.index("\n\ntorch ")]
    (tmp_path / "new.toml").write_text(entry)
    assert run(*ARGUMENTS, "--ledger", tmp_path / "new.toml")[0] == 0


@pytest.mark.usefixtures("no_ledger_of_torch")
def test_a_stale_entry_fails_the_run(ledger):
    path = ledger({"trace": "step_size=3 gamma=0.5 train:2 save:a resume:a"})
    status, printed = run(*ARGUMENTS, "--ledger", path)
    assert status == 1
    assert f"STALE StepLR: resume_by_last_epoch\n  {path}:2: " in printed
    status, printed = run("ledger", "verify", "--ledger", path)
    assert (status, "0 of 1 " in printed) == (1, True)


def test_a_wrong_entry_decides_the_status_even_if_another_is_unknown(ledger):
    unknown = {"subject": "faulty:Random", "trace": "train:2 save:a resume:a"}
    assert run("ledger", "verify", "--ledger", ledger(unknown))[0] == 2
    wrong = {"trace": "step_size=3 gamma=0.5 train:2 save:a resume:a"}
    status, printed = run("ledger", "verify", "--ledger", ledger(wrong, unknown))
    assert status == 1
    assert "UNKNOWN faulty:Random: resume_by_last_epoch" in printed


def test_without_a_ledger_nothing_is_known():
    status, printed = run(*ARGUMENTS, "--no-ledger")
    assert (status, " KNOWN" in printed, "[[failure]]" in printed) == (1, False, False)


def test_a_wrong_entry_is_an_error_of_one_line(ledger, command):
    status, printed, errors = command("ledger", "verify", "--ledger", ledger({"kind": "?"}))
    assert (status, printed) == (2, "")
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1


# ------------------------------------------------------------------------------- update


def counterexample(trace):
    """What `STEP` shows, on any trace."""
    expected, actual = {"lr": [0.05, 0.005]}, {"lr": [0.025, 0.0025]}
    return Counterexample(2, 0, expected, actual, trace=Trace.parse(trace))


def rows(version, *traces, check=LAST_EPOCH):
    """The results of a run in which StepLR broke by one trace, or held."""
    found = counterexample(traces[0]) if traces else None
    verdict = Verdict.BROKEN if traces else Verdict.HOLDS
    result = Result("StepLR", check, verdict, counterexample=found, torch=version)
    file = results_of_run([result], Budget(), complete=True)
    return replace(file, torch=version)


def test_the_counterexample_of_the_pair_comes_first_and_no_trace_twice():
    own, other = (
        counterexample(ONE),
        counterexample("step_size=2 gamma=0.5 train:2 save:a resume:a"),
    )
    file = with_results(rows("2.4.1", ONE), replays=(other, own))
    [by_version] = broken_by_version([file]).values()
    assert [one.trace for one in by_version[Version("2.4.1")]] == [own.trace, other.trace]


def with_results(file, **changes):
    """The same run, with other fields in its results."""
    return replace(file, results=tuple(replace(one, **changes) for one in file.results))


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
        # An entry is made true for these versions, and stays the same for all others.
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


def in_ledger(file, *traces):
    """The same run, in which these traces of the ledger break the pair as well."""
    return with_results(file, replays=tuple(map(counterexample, traces)))


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
def test_ranges_get_longer_by_what_other_traces_of_the_ledger_show(ledger, before, runs, after):
    path = ledger(*({"trace": trace, "torch": versions} for trace, versions in before))
    data = [in_ledger(rows(*run[:2]), *run[2:]) for run in runs]
    path.write_text(updated(path.read_text(), read(path).entries, data))
    found = [(str(entry.trace), str(entry.torch)) for entry in read(path).entries]
    assert found == [(trace, str(SpecifierSet(versions))) for trace, versions in after]


@pytest.mark.usefixtures("no_ledger_of_torch")
def test_update_reads_what_a_run_writes_about_the_ledger(ledger, tmp_path):
    longer = {"trace": "step_size=1 gamma=0.5 train:1 save:a resume:a", "torch": f"<{HERE}"}
    path = ledger({"torch": f">{HERE}"}, longer)
    written = tmp_path / "results.json"
    assert run(*ARGUMENTS, "--ledger", path, "--json", written)[0] == 1
    [row] = json.loads(written.read_text())["results"]
    assert {known["trace"] for known in row["replays"]} == {STEP["trace"], longer["trace"]}
    assert run("ledger", "update", written, "--ledger", path, "--write")[0] == 0
    assert run(*ARGUMENTS, "--ledger", path)[0] == 0
    assert run("ledger", "verify", "--ledger", path)[0] == 0


def test_comments_and_reasons_stay(ledger):
    path = ledger({}, {"subject": "MultiStepLR"}, text="# the end")
    shows = f'shows = "{STEP["shows"]}"'
    text = path.read_text().replace(shows, f"{shows} # seen", 1)
    path.write_text(text)
    new = updated(text, read(path).entries, [rows("2.4.1", ONE), rows("2.6.0")])
    assert new == text.replace('">=1.13"', '">=1.13,<2.6.0"', 1) + "\n"


def files_of(tmp_path, *runs):
    paths = [tmp_path / f"{number}.json" for number in range(len(runs))]
    for path, data in zip(paths, runs, strict=True):
        path.write_text(dump_results(data) if isinstance(data, ResultFile) else json.dumps(data))
    return paths


def test_update_writes_only_to_the_named_file(ledger, tmp_path):
    path = ledger({})
    before = path.read_text()
    results = files_of(tmp_path, rows("2.4.1", ONE), rows("2.6.0"))
    status, printed = run("ledger", "update", *results, "--ledger", path)
    assert (status, path.read_text()) == (0, before)
    assert '">=1.13,<2.6.0"' in printed
    assert run("ledger", "update", *results, "--ledger", path, "--write")[1] == f"wrote {path}\n"
    assert path.read_text() == printed
    run("ledger", "update", *results, "--ledger", path, "--write")
    assert path.read_text() == printed


UNUSABLE = [
    [],
    replace(rows("2.4.1"), schema=99),
    replace(rows("2.4.1"), complete=False),
    rows("2.0.1"),
    with_results(rows("2.4.1"), verdict=Verdict.UNKNOWN, reason="the time ran out"),
]


@pytest.mark.parametrize("data", UNUSABLE)
def test_results_that_cannot_be_used_are_refused(ledger, tmp_path, data):
    path = ledger({})
    before = path.read_text()
    files = files_of(tmp_path, rows("2.0.1"), data)
    with pytest.raises(HarnessError):
        run("ledger", "update", *files, "--ledger", path, "--write")
    assert path.read_text() == before


def test_the_wording_of_results_that_cannot_be_used(ledger, tmp_path):
    lines = []
    for data in UNUSABLE:
        with pytest.raises(HarnessError) as error:
            run("ledger", "update", *files_of(tmp_path, rows("2.0.1"), data), "--ledger", ledger())
        lines.append(str(error.value).replace(f"{tmp_path}/", ""))
    assert wrapped(lines) == snapshot("""\
1.json has no results in it: give a file that check --json wrote
1.json has schema 99, but this version reads 2: write it again with this version of check --json
1.json is from a run that was stopped: run it again to the end
0.json and 1.json are both from torch 2.0.1: give one file for each version
torch 2.4.1: StepLR resume_by_last_epoch is UNKNOWN (the time ran out): run it again until it is
    decided\
""")


# ------------------------------------------------------------------------- what is printed

TEXTS = st.text(st.characters(codec=None), max_size=12)
LITERALS = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=4,
)
SUBJECT_NAMES = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=12)
"""Printable, and without spaces."""
REFERENCES = SUBJECT_NAMES.map(lambda name: f"{name}:{name}")
ERRORS = st.builds(lambda name, text: f"{name}: {text}", TEXTS.filter(bool), TEXTS)
VALUES = st.dictionaries(TEXTS, LITERALS, min_size=1, max_size=3)


@given(
    subject=SUBJECT_NAMES,
    references=st.tuples(st.just("") | REFERENCES, st.just("") | REFERENCES),
    option=LITERALS,
    expected=VALUES,
    actual=VALUES | ERRORS.map(lambda text: {"raises": text}),
    torch=st.sampled_from(["2.13.0", "2.13.0+cpu", "2.15.0.dev20260101", "1.14.0a0+git12"]),
)
def test_every_entry_that_is_printed_is_accepted(
    tmp_path_factory, subject, references, option, expected, actual, torch
):
    trace = Trace.parse("train:1 save:a resume:a")
    trace = replace(trace, options=(("option", option),))
    assume(not same(expected, actual))
    found = Counterexample(2, 0, expected, actual, trace=trace)
    result = Result(
        subject, LAST_EPOCH, Verdict.BROKEN, counterexample=found, references=references,
        torch=torch,
    )  # fmt: skip
    [text] = entries([result])
    path = tmp_path_factory.getbasetemp() / "printed.toml"
    path.write_text(text, "utf-8")
    [entry] = read_ledger([path], [subject], [LAST_EPOCH]).entries
    assert entry.subject == (references[0] or subject)
    assert entry.check == (references[1] or LAST_EPOCH)
    assert str(entry.trace) == str(trace)
    assert entry.shows == shows_of(found)
    assert entry.covers(version_of(torch))


class Odd(Halving):
    """Breaks by last_epoch, and is called otherwise."""

    def __init__(self, optimizer, last_epoch=-1):
        if last_epoch >= 0:
            raise type("Nö\x00!'\"", (ValueError,), {})("line\x1b\n\u2028 end")
        super().__init__(optimizer, last_epoch)


@pytest.mark.parametrize("name", ["Odd", "StepLR", "a'b\"c\\d", "[[failure]]", "no=1#", "π:é"])
def test_a_printed_entry_explains_the_failure_that_it_was_printed_for(tmp_path, name):
    subject = Subject(name, Odd)
    [broken] = check_subject(subject, [as_check(LAST_EPOCH)], Budget(0))
    assert broken.verdict == "BROKEN"
    path = tmp_path / "known.toml"
    path.write_text(entries([broken])[0], "utf-8")
    known = read_ledger([path], [name], [LAST_EPOCH])
    [found] = check_subject(subject, [as_check(LAST_EPOCH)], ledger=known)
    assert found.verdict == "KNOWN"


# ---------------------------------------------------------------- which subject is meant


class StepLRs:
    class StepLR(StepLR):
        """A user's class with the name of PyTorch's."""


def verdicts_of(subject, ledger):
    return [result.verdict for result in check_subject(subject, [as_check(LAST_EPOCH)], Budget(0),
                                                       ledger=ledger)]  # fmt: skip


@pytest.mark.parametrize("package", ["", "lr-resume-harness"])
def test_a_listed_name_is_the_listed_subject_and_not_a_class_of_the_same_name(ledger, package):
    known = read_ledger([ledger({})], package=package)
    options = {"step_size": 3, "gamma": 0.5}
    assert verdicts_of(as_subject(StepLR, options=options), known) == ["KNOWN"]
    own = as_subject(StepLRs.StepLR, options=options)
    assert (own.name, verdicts_of(own, known)) == ("StepLR", ["BROKEN"])
    named = read_ledger([ledger({"subject": own.reference})])
    assert verdicts_of(own, named) == ["KNOWN"]
    assert verdicts_of(as_subject(StepLR, options=options), named) == ["BROKEN"]


def test_the_reference_of_a_listed_subject_means_the_listed_subject(ledger):
    reference = "lr_schedules.subjects:SUBJECTS.StepLR"
    options = {"step_size": 3, "gamma": 0.5}
    for package in ("", "lr-resume-harness"):
        known = read_ledger([ledger({"subject": reference})], package=package)
        assert verdicts_of(as_subject(StepLR, options=options), known) == ["KNOWN"]
        own = as_subject(StepLRs.StepLR, options=options)
        assert (own.name, verdicts_of(own, known)) == ("StepLR", ["BROKEN"])
    path = ledger({"subject": reference})
    with pytest.raises(LedgerError, match="overlap"):  # it is in the shipped ledger too
        run(*ARGUMENTS, "--ledger", path)
    assert run("ledger", "verify", "--ledger", path)[0] == 0


def test_a_composition_does_not_inherit_the_entries_of_its_parts(ledger):
    """LinearLR alone falls below 0, and so does a ChainedScheduler of it."""
    listed = {subject.name: subject for subject in default_subjects()}
    check = "lr_is_never_negative"
    entries_ = [e for e in shipped_failures().about(["LinearLR"], check) if e.covers(HERE)]
    assert len(entries_) == 1
    known = Ledger(tuple(entries_))
    assert known_to(listed["LinearLR"], known).entries == known.entries
    assert known_to(listed["ChainedScheduler"], known) == EMPTY_LEDGER
    part = {"schedulers": [Term.of("LinearLR", end_factor=0.0, total_iters=4)]}
    chain = replace(listed["ChainedScheduler"].with_options(part), drawn=None)
    [found] = check_subject(chain, [as_check(check)], Budget(0), ledger=known)
    assert found.verdict == "BROKEN"
    [found] = check_subject(chain, [as_check(check)], Budget(0), ledger=shipped_failures())
    assert found.verdict == "KNOWN"


def test_a_users_subject_is_named_by_its_name_in_the_users_file_only(ledger):
    own = Subject("mine", StepLR, options={"step_size": 3, "gamma": 0.5}, reference="my:MINE.mine")
    path = ledger({"subject": "mine"})
    assert verdicts_of(own, read_ledger([path])) == ["KNOWN"]
    assert verdicts_of(own, read_ledger([path], package="lr-resume-harness")) == ["BROKEN"]


def test_entries_of_two_files_about_one_subject_must_not_overlap(ledger):
    own = Subject("mine", StepLR, options={"step_size": 3}, reference="my:MINE")
    known = read_ledger([ledger({"subject": "mine"}, {"subject": "my:MINE", "torch": ">=2"})])
    with pytest.raises(LedgerError, match=r"known\.toml:12: torch 2 .*known\.toml:2"):
        known_to(own, known)


SHIPS = """
from torch.optim.lr_scheduler import StepLR
from harness import Subject
SUBJECTS = [Subject("fast", StepLR, options={"step_size": 3, "gamma": 0.5})]
"""


def test_a_shipped_ledger_applies_to_the_subjects_of_its_package(installed_package, ledger):
    text = ledger({"subject": "fast"}, {"subject": "StepLR"}, {"subject": "ships_own.more:Slow"})
    installed_package(
        "ships_own",
        {
            "subjects": {"own": "ships_own:SUBJECTS"},
            "ledgers": {"own": "ships_own:data/known.toml"},
        },
        **{"__init__.py": SHIPS, "data/known.toml": text.read_text()},
    )
    from ships_own import SUBJECTS

    known = Ledger(tuple(e for e in shipped_failures().entries if e.package == "ships_own"))
    assert len(known.entries) == 3
    [fast] = SUBJECTS
    assert verdicts_of(fast, known) == ["KNOWN"]
    assert known_to(as_subject(StepLR), known) == EMPTY_LEDGER  # another package's
    assert known_to(Subject("fast", Halving), known) == EMPTY_LEDGER
    slow = Subject("Slow", StepLR, reference="ships_own.more:Slow")
    assert [e.subject for e in known_to(slow, known).entries] == ["ships_own.more:Slow"]
    # The command line finds the subject by its name, and knows its failure.
    assert run("check", "fast", *ARGUMENTS[2:])[0] == 0
    assert run("check", "fast", *ARGUMENTS[2:], "--no-ledger")[0] == 1


# ------------------------------------------------------------------------------ hostile

DEEP = "x = " + "[" * 100_000 + "]" * 100_000
HOSTILE = {
    "a number": "failure = 5",
    "a table": "[failure]\nsubject = 'StepLR'",
    "tables in a list": "failure = [{subject = 'StepLR'}]",
    "numbers in a list": "failure = [1, 2]",
    "a list for a text": entry_text(STEP).replace('"StepLR"', "['StepLR']"),
    "a table for a text": entry_text(STEP).replace('"StepLR"', "{a = {b = 1}}"),
    "a date for a text": entry_text(STEP).replace('"StepLR"', "1979-05-27"),
    "depth": DEEP,
    "deep tables": "[" + ".".join("a" * 20_000) + "]",
    "a number of 5,000 digits": "failure = " + "9" * 5000,
    "a version of 5,000 digits": entry_text({**STEP, "torch": ">=" + "9" * 5000}),
    "a version of 190 digits": entry_text({**STEP, "torch": ">=" + "9" * 190 + ",<1"}),
    "a count of 5,000 digits": entry_text({**STEP, "trace": "train:" + "9" * 5000}),
    "an option of 5,000 digits": entry_text({**STEP, "trace": f"a={'9' * 5000} train:1"}),
    "a deep option": entry_text({**STEP, "trace": f"a={'[' * 9999}{']' * 9999} train:1"}),
    "NUL": "\0",
    "NUL in a text": entry_text(STEP).replace("StepLR", "Step\\u0000LR"),
    "NUL in a reason": entry_text(STEP).replace("decays", "de\\u0000cays"),
    "an unknown operator": entry_text({**STEP, "torch": "===foo"}),
    "an invalid version": entry_text({**STEP, "torch": ">=x"}),
    "no end": '[[failure]]\nsubject = """',
    "a heading in a text": f'{entry_text(STEP)}\n[[failure]]\nreason = """\n[[failure]]\n"""',
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_ledger_is_one_sentence(tmp_path, what):
    path = tmp_path / "hostile.toml"
    path.write_text(HOSTILE[what], "utf-8")
    assert_refused(path)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"# \xed\xa0\x80", b"\x80" * 9000])
def test_a_ledger_that_is_not_utf_8_is_one_sentence(tmp_path, content):
    (tmp_path / "hostile.toml").write_bytes(content)
    assert_refused(tmp_path / "hostile.toml")


def test_what_cannot_be_read_is_one_sentence(tmp_path):
    assert_refused(tmp_path)  # a folder
    assert_refused(tmp_path / "no\0file")
    assert_refused(tmp_path / ("long" * 100))
    (tmp_path / "huge.toml").write_bytes(b"#" * (MAX_BYTES + 1))
    assert_refused(tmp_path / "huge.toml")


def assert_refused(path):
    with pytest.raises(LedgerError) as error:
        read(path)
    message = str(error.value)
    assert message.startswith((str(path), f"cannot read the ledger {str(path)!r}: "))
    assert message.isprintable()
    assert len(message) < 600 + len(str(path))


@pytest.mark.parametrize(
    "arguments",
    [("check", "StepLR", "--ledger"), ("ledger", "verify", "--ledger"),
     ("ledger", "update", "result.json", "--ledger"),
     ("ledger", "ranges", "result.json", "--ledger")],
)  # fmt: skip
def test_every_command_refuses_a_hostile_ledger(tmp_path, arguments):
    (tmp_path / "hostile.toml").write_text(DEEP)
    (tmp_path / "result.json").write_text(dump_results(rows("2.13.0")))
    arguments = [str(tmp_path / a) if a.endswith(".json") else a for a in arguments]
    with pytest.raises(LedgerError) as error:
        run(*arguments, tmp_path / "hostile.toml")
    assert "\n" not in str(error.value)


# ---------------------------------------------------------------------------- overlaps


def apart(count):
    """Ranges that do not overlap, of one release each."""
    return [{"torch": f">=2.{n},<2.{n + 1}"} for n in range(count)]


def compared(ledger, monkeypatch, entries):
    """How many pairs of ranges are compared when these are read."""
    calls = []
    monkeypatch.setattr(ledger_module, "overlap", lambda *both: calls.append(both) or "")
    contains = SpecifierSet.contains

    def counted(*arguments, **options):
        calls.append(arguments)
        return contains(*arguments, **options)

    monkeypatch.setattr(SpecifierSet, "contains", counted)
    read(ledger(*entries))
    monkeypatch.undo()
    return len(calls)


def test_checking_overlaps_grows_with_the_entries_and_not_with_their_square(ledger, monkeypatch):
    small, large = (compared(ledger, monkeypatch, apart(count)) for count in (100, 400))
    assert 0 < large <= 4.2 * small
    assert large < 400 * 20


def test_the_last_two_of_many_are_found_to_overlap(ledger):
    with pytest.raises(LedgerError, match=r"known\.toml:3002: torch 2\.299 "):
        read(ledger(*apart(300), {"torch": ">=2.299,<2.300"}))


ENTRY = Entry(
    "StepLR", LAST_EPOCH, SpecifierSet(), Trace.parse("train:1"), "lr", "bug", "a/b#1", "", ""
)


def two_overlap(ranges):
    """Whether entries with these ranges are refused."""
    try:
        refuse_overlaps([replace(ENTRY, torch=versions) for versions in ranges])
    except LedgerError:
        return True
    return False


@given(st.lists(SPECIFIERS, max_size=4))
def test_overlaps_are_found_as_if_every_two_ranges_were_compared(texts):
    ranges = [SpecifierSet(text) for text in texts]
    pairs = itertools.combinations(ranges, 2)
    assert two_overlap(ranges) == any(overlap(one, other) for one, other in pairs)


ODD = [
    "2.0rc2",
    "2.0rc1.dev4",
    "2.0.post2",
    "2.0.post1.dev1",
    "1.9.post1",
    "2.0rc1",
    "2.0.post1",
    "2.0.dev3",
    "2.0",
    "2.0.1",
    "2",
    "1!1.0",
    "2.0+cpu",
    "2.0rc1.post2",
]


@given(
    st.sampled_from(ODD),
    st.sampled_from(
        [
            "==2.*",
            "==2.0.*",
            "~=2.0",
            ">2.0",
            "<2.0.1",
            ">2.0rc1",
            "<=2.0.post1",
            ">2.0.post0",
            "!=2.0",
            "<2.0.post1",
            "<2.0rc1",
            ">2.0rc1.dev1",
            ">=2.0.dev0",
            "<=2.0",
        ]
    ),
)
def test_overlaps_with_pre_and_post_releases_are_found(version, text):
    one, other = SpecifierSet(f"=={version}"), SpecifierSet(text)
    assert two_overlap([one, other]) == other.contains(version, prereleases=True)


# --------------------------------------------------------------- update, then verify

OWN = """
from torch.optim.lr_scheduler import StepLR
from harness import resume_check, Subject

class Fast(StepLR):
    def __init__(self, optimizer, last_epoch=-1):
        super().__init__(optimizer, 3, 0.5, last_epoch)

SUBJECTS = [Subject("o'fast", Fast), Subject("StepLR", Fast)]

@resume_check(needs=("last_epoch",))
def by_hand(new_optimizer, build, checkpoint):
    \"\"\"Resumed by last_epoch.\"\"\"
    optimizer = new_optimizer()
    optimizer.load_state_dict(checkpoint["optimizer"])
    return optimizer, build(optimizer, last_epoch=checkpoint["epoch"] - 1)
"""


@pytest.mark.parametrize(
    "name",
    [
        "own_fast:Fast",
        "own_fast.py:Fast",
        "own_fast.Fast",
        "sub/own_fast_2.py:Fast",
        "own_fast:SUBJECTS",
        "StepLR",
    ],
)
def test_verify_passes_for_what_update_has_written(tmp_path, command, name):
    (tmp_path / "sub").mkdir()
    for path in ("own_fast.py", "sub/own_fast_2.py"):
        (tmp_path / path).write_text(OWN)
    checks = ("--check", LAST_EPOCH, "--check", "own_fast:by_hand", "--max-examples", 0)
    status, _, errors = command("check", name, *checks, "--json", "result.json")
    assert (status, errors) == (1, errors)
    status, text, _ = command("ledger", "update", "result.json", "--ledger", "new.toml", "--write")
    assert (status, text) == (0, "wrote new.toml\n")
    count = 4 if name.endswith("SUBJECTS") else 2
    status, text, _ = command("ledger", "verify", "--ledger", "new.toml")
    assert status == 0
    assert f"{count} of {count} " in text
    command("check", name, *checks, "--json", "again.json")
    before = (tmp_path / "new.toml").read_text()
    status, _, _ = command("ledger", "update", "again.json", "--ledger", "new.toml", "--write")
    assert (status, (tmp_path / "new.toml").read_text()) == (0, before)


def test_update_never_writes_to_an_installed_package(tmp_path):
    [shipped] = shipped_ledgers()
    before = shipped.path.read_bytes()
    results = files_of(tmp_path, rows("2.4.1"))
    with pytest.raises(click.UsageError, match="--ledger"):
        run("ledger", "update", *results, "--write")
    status, printed = run("ledger", "update", *results)
    assert status == 0
    assert printed.startswith(before.decode().partition("\n")[0])
    assert printed != before.decode()
    assert shipped.path.read_bytes() == before


def test_several_installed_ledgers_are_not_updated_at_once(tmp_path, installed_package):
    files = {"__init__.py": "", "known.toml": ""}
    installed_package("ships_two", {"ledgers": {"two": "ships_two:known.toml"}}, **files)
    with pytest.raises(click.UsageError, match="--ledger"):
        run("ledger", "update", *files_of(tmp_path, rows("2.4.1")))


def test_comments_stay_where_entries_are_deleted(ledger):
    since = {"torch": ">=1.13.1"}
    path = ledger(since, {**since, "check": "resume_from_file"}, text="# the end\n")
    text = path.read_text().replace("\n[[", "\n# before\n\n[[")
    path.write_text(text)
    both = rows("1.13.1")
    both = replace(both, results=both.results + rows("1.13.1", check="resume_from_file").results)
    assert updated(text, read(path).entries, [both]) == (
        "# mine\n# before\n\n# before\n\n# the end\n"
    )
    assert updated(text, read(path).entries, [rows("1.13.1")]).startswith(
        '# mine\n# before\n\n# before\n\n[[failure]]\nsubject = "StepLR"\ncheck = "resume_from_f'
    )
