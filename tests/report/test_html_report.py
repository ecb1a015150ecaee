import base64
import hashlib
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import ROOT
from packaging.version import Version
from pages import Browser, Page, chromium

from harness import __version__
from harness.checks.registry import as_check
from harness.cli.show import script_for
from harness.core.errors import ScriptError
from harness.core.result import Budget, Result
from harness.core.run import Looked, Tally
from harness.core.trace import Trace
from harness.core.verdict import Verdict
from harness.engine.session import SubjectSession
from harness.report.html import matrix_page, run_page
from harness.report.matrix import COLOURS, matrix_of
from harness.report.picture import picture_or_why
from harness.report.result_file import VersionFile, results_of_run
from harness.report.script import script_of
from harness.report.text import broken_rows, failures, values_text
from harness.subjects.lookup import subject_called

BY_LAST_EPOCH = as_check("resume_by_last_epoch")
SUBJECTS = {name: subject_called(name) for name in ("StepLR", "ConstantLR")}
EVIL = """<script>alert("&amp;'")</script>\x00\ud800"""


def report(results, **more):
    scripts = {
        (result.subject, result.check): script
        for result in results
        if (script := script_for(SUBJECTS.get(result.subject), BY_LAST_EPOCH, result))
    }
    return run_page(results, scripts, Budget(), **{"complete": True, **more})


@pytest.fixture(scope="module")
def results():
    """One result of every verdict, and one on another subject."""
    broken, other = (
        SubjectSession(subject, {BY_LAST_EPOCH.name}, Budget(max_examples=0)).check(BY_LAST_EPOCH)
        for subject in SUBJECTS.values()
    )
    return [
        broken,
        replace(
            broken, check="resume_from_file", verdict=Verdict.KNOWN, reason="it is in the ledger"
        ),
        Result("StepLR", "lr_is_never_negative", Verdict.STALE, "it holds here"),
        Result("StepLR", "resume_by_pickle", Verdict.DECLINED, "it holds a lambda"),
        Result("StepLR", "resumes_mixed", Verdict.UNKNOWN, "the time limit of 30 s ran out",
               untried=(("epoch", "it takes no epoch"),)),
        replace(other, verdict=Verdict.STALE, reason="it breaks otherwise"),
        Result("ConstantLR", "resume_from_file", Verdict.HOLDS, "but for the weights"),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def text(results):
    return report(results)


def test_every_pair_has_a_cell_that_leads_to_its_part(results, text):
    parsed = Page(text)
    cells = [cell.get("class") for cell in parsed.all("td")]
    assert cells == [*"BKSDUSH", None, None, None]
    links = [link["href"] for link in parsed.all("a")]
    assert sorted(set(links)) == [f"#p{index}" for index in range(len(results))]
    assert len(links) == len(results) + 6  # a phone shows a list of those that do not hold
    assert len(parsed.ids) == len(set(parsed.ids))
    for index, result in enumerate(results):
        assert result.check in parsed.inside[f"p{index}"]


def test_a_broken_pair_has_its_parts(results, text):
    parsed = Page(text)
    result = results[0]
    found = result.counterexample
    part = parsed.inside["p0"]
    assert [text for _, text in broken_rows(failures([result])[0]) if text not in part] == []
    assert parsed.inside["r0"] == (
        'lr-resume-harness replay StepLR resume_by_last_epoch "step_size=3 gamma=0.5 '
        'train:3 save:a resume:a"'
    )
    script = script_of(SUBJECTS["StepLR"], BY_LAST_EPOCH, result, found.trace)
    assert parsed.inside["s0"] == script
    image = parsed.all("img")[0]
    assert "StepLR" in image["alt"]
    assert values_text(found.actual) in image["alt"]
    kind, _, data = image["src"].partition(",")
    assert kind == "data:image/svg+xml;base64"
    assert base64.b64decode(data) == picture_or_why(result)


def test_what_is_stale_has_a_script_if_it_is_broken_and_what_is_known_has_none(results, text):
    parsed = Page(text)
    assert [name for name in parsed.ids if name.startswith("s")] == ["s0", "s5"]
    assert len(parsed.all("img")) == 2
    for index in (1, 5):
        assert results[index].reason in parsed.inside[f"p{index}"]
        assert str(results[index].counterexample.trace) in parsed.inside[f"p{index}"]


def test_every_reason_is_there_and_what_was_not_tried(results, text):
    everything = " ".join(Page(text).texts)
    for result in results:
        assert result.reason in everything
    for said in (*results[4].untried[0], "seed 0", f"lr-resume-harness {__version__}", "1 BROKEN",
                 f"torch {results[0].torch}"):  # fmt: skip
        assert said in everything


def test_what_fails_by_one_cause_is_one_section_that_all_its_cells_lead_to(results):
    again = replace(results[0], check="resume_from_file")
    assert len(failures([results[0], again])) == 1
    text = run_page([results[0], again, results[3]], {}, Budget(), complete=True)
    parsed = Page(text)
    assert [link["href"] for link in parsed.all("a")] == ["#p0", "#p0", "#p2"] * 2
    assert [section["id"] for section in parsed.all("section")] == ["p0"]
    assert "resume_by_last_epoch, resume_from_file" in parsed.inside["p0"]


def test_one_cause_of_several_subjects_is_one_section(results):
    broken = results[0]
    others = [replace(broken, subject=name, references=(name, "")) for name in ("A", "B")]
    known = [replace(each, verdict=Verdict.KNOWN, reason="it decays") for each in (broken, *others)]
    more = [replace(each, subject=f"known-{each.subject}") for each in known]
    for every in ([broken, *others], more):
        parsed = Page(run_page(every, {}, Budget(), complete=True))
        assert [section["id"] for section in parsed.all("section")] == ["p0"]
        assert [part["id"] for part in parsed.all("div") if part.get("class") == "other"] == [
            "p1", "p2"
        ]  # fmt: skip
        assert every[2].subject in parsed.inside["p2"]
        assert str(broken.counterexample.trace) in parsed.inside["r2"]
        assert sorted(set(parsed.ids)) == sorted(parsed.ids)
        assert any("(3 from one cause)" in text for text in parsed.texts)
    other = replace(broken, subject="C", check="resume_from_file")
    parsed = Page(run_page([broken, other], {}, Budget(), complete=True))
    assert len(parsed.all("section")) == 2


def test_the_reason_stands_where_the_script_is_missing(results):
    made = {("StepLR", "resume_by_last_epoch"): ScriptError("it is a <lambda>")}
    parsed = Page(run_page(results[:1], made, Budget(), complete=True))
    assert "it is a <lambda>" in parsed.inside["p0"]
    assert not any(name.startswith("s") for name in parsed.ids)


def test_pages_are_made_without_torch():
    code = "import harness.report.html, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_it_needs_nothing_else(text):
    parsed = Page(text)
    for _, attributes in parsed.tags:
        for name in ("src", "href", "srcset", "action", "data", "style", "onclick"):
            assert re.match(r"data:|#p\d+$", attributes.get(name, "#p0"))
    assert not {"link", "iframe", "object", "base"} & {tag for tag, _ in parsed.tags}
    assert not re.search(r"@import|url\(", re.search(r"(?s)<style>(.*?)</style>", text)[1])
    policy = next(a["content"] for a in parsed.all("meta") if "http-equiv" in a)
    allowed = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert allowed["default-src"] == "'none'"
    for tag in ("style", "script"):
        (inside,) = re.findall(rf"(?s)<{tag}>(.*?)</{tag}>", text)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert allowed[f"{tag}-src"] == f"'sha256-{digest}'"


def test_the_same_results_make_the_same_page(results, text):
    slower = [replace(result, seconds=result.seconds + 1) for result in results]
    assert report(slower) == text


def test_it_shows_hostile_text_as_text(results):
    found = replace(
        results[0].counterexample, expected={EVIL: EVIL}, actual={"raises": EVIL},
        trace=Trace.parse("fn='</style><b>' train:3 save:a resume:a"),
    )  # fmt: skip
    evil = [
        replace(results[1], subject=EVIL, reason=EVIL, references=(EVIL, EVIL), torch=EVIL,
                counterexample=found),
        Result(EVIL, EVIL, Verdict.HOLDS, EVIL, untried=((EVIL, EVIL),)),
        Result(EVIL, "c", Verdict.UNKNOWN, EVIL), Result(EVIL, "d", Verdict.DECLINED, EVIL),
    ]  # fmt: skip
    text = report(evil, shard=EVIL)
    text.encode()
    parsed = Page(text)
    assert len(parsed.all("script")) == len(parsed.all("style")) == 1
    assert not parsed.all("b")[1:]
    assert parsed.texts.count(EVIL.replace("\x00\ud800", r"\x00\ud800")) >= 5
    assert "\x00" not in text


def test_without_matplotlib_it_says_how_to_have_pictures(results, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    parsed = Page(report(results))
    assert not parsed.all("img")
    assert "pip install matplotlib" in parsed.inside["p0"]


def test_it_says_that_the_run_was_stopped(results):
    for found in (results, []):
        whole, stopped = (
            Page(report(found, complete=complete, shard="2/5")).texts for complete in (True, False)
        )
        assert len(set(stopped) - set(whole)) == 2
        assert any(" 2/5 " in text for text in stopped)


CHECK = ("check", "StepLR", "--check", "resume_by_last_epoch", "--max-examples", 0)


def test_the_command_writes_it(command, tmp_path):
    status, _, errors = command(*CHECK, "--html", "report.html")
    assert (status, errors.count("error")) == (1, 0)
    parsed = Page((tmp_path / "report.html").read_text())
    assert len(parsed.all("img")) == 1
    assert "resume:a" in parsed.inside["r0"]


def test_a_file_that_cannot_be_written_is_refused_before_the_run(command, tmp_path):
    status, printed, errors = command(*CHECK, "--html", "no/report.html")
    assert (status, printed) == (2, "")
    assert re.match("error: .* no: ", errors)
    assert not list(tmp_path.iterdir())


def test_where_it_is_stopped_no_part_of_it_is_written(command, tmp_path, monkeypatch):
    def stopped(*arguments, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr("harness.report.html.run_page", stopped)
    (tmp_path / "report.html").write_text("the last one")
    status, _, _ = command(*CHECK, "--html", "report.html")
    assert status == 130
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [
        ("report.html", "the last one")
    ]


# ---------------------------------------------------------------------------- in a browser

TOO_WIDE = '<!DOCTYPE html><div style="width:50rem"><img src="http://elsewhere.test/x.png">'


@pytest.fixture(scope="module")
def many(results):
    """A report with 20 checks, of long names, and a map of 14 versions of it."""
    names = [check.name for check in map(as_check, ["resume_from_file", "resume_by_pickle"])]
    names += [f"a_check_that_has_a_long_name_{number}" for number in range(18)]
    tally = Tally(
        looked=Looked(frozenset(range(0, 300, 3)), frozenset({("AnOptimizerWithALongName" * 3, 4)}))
    )
    found = [
        Result(
            subject,
            name,
            verdict,
            "" if verdict == "HOLDS" else "a_reason_without_a_space" * 9,
            tally=tally,
        )
        for subject in ("StepLR", "my_package.of_schedules.with_a_long_name:MySchedule")
        for name, verdict in zip(names, [*Verdict, *[Verdict.HOLDS] * 14], strict=True)
    ]
    sources = [
        VersionFile(
            Path(f"r{minor}.json"),
            Version(f"2.{minor}.0"),
            results_of_run(found, Budget(), complete=True),
        )
        for minor in range(14)
    ]
    return report([results[0], *found[1:]]), matrix_page(matrix_of(sources))


@pytest.mark.slow
def test_on_a_phone_nothing_is_cut_off_and_nothing_is_asked_for(text, many):
    chromium()
    wide, matrix = many
    browser = Browser({"one": text, "many": wide, "map": matrix, "too_wide": TOO_WIDE})
    seen = browser.measure(["one", "many", "map", "too_wide"], 390)
    assert seen["too_wide"]["needs"] > seen["too_wide"]["has"] == 390  # it would be noticed
    assert seen["too_wide"]["asked"] == ["http://elsewhere.test/x.png"]
    for name in ("one", "many", "map"):
        assert seen[name]["needs"] == seen[name]["has"] == 390
        assert seen[name]["cut"] == []  # nothing has to be scrolled sideways
        assert not seen[name]["asked"]
        assert seen[name]["narrowest"] > 90  # not a letter a line
    assert [seen[name]["pictures"] for name in ("one", "many")] == [2, 1]
    parsed = Page(text)
    assert seen["one"]["buttons"] == len(parsed.all("button")) > 3
    assert seen["one"]["selected"].strip() == parsed.inside["s0"].strip()


@pytest.mark.slow
@pytest.mark.parametrize("size", [(390, 844), (1280, 900)])
def test_a_screenshot_shows_the_verdicts(text, tmp_path, size):
    chromium()
    image = pytest.importorskip("matplotlib.image")
    browser = Browser({"one": text})
    browser.screenshot("one", *size, tmp_path / "one.png")
    pixels = (image.imread(tmp_path / "one.png")[..., :3] * 255).round().astype(int)
    assert pixels.shape == (size[1], size[0], 3)
    for letter in "BKSDU":
        red, green, blue = (int(COLOURS[letter][0][i : i + 2], 16) for i in (1, 3, 5))
        assert (pixels == [red, green, blue]).all(axis=-1).sum() > 100
