"""Whatever stands in a subject's messages and options, every report can be printed and written."""

import dataclasses
import html
import json
import re
import sys

import pytest
from pages import Page
from torch.optim.lr_scheduler import StepLR

from harness import Subject
from harness.checks.registry import as_check
from harness.core.ledger import read_ledger
from harness.core.output import one_line, printable
from harness.core.result import Budget, LostAttribute, Result
from harness.core.verdict import Verdict
from harness.engine.session import check_subject
from harness.report import text as report
from harness.report.github import annotated, job_summary
from harness.report.html import matrix_page, run_page
from harness.report.matrix import markdown, matrix_of
from harness.report.result_file import (
    dump_results,
    read_results,
    read_versions,
    results_of_run,
)
from harness.report.script import script_of
from harness.report.text import failures

EVIL = "nul \x00 red \x1b]0;t\x07 lone \ud800\r\n</script><b>bold</b> `tick` a|b \u202eback"
SHOWN = (r"nul \x00", r"\x1b]0;t\x07", r"lone \ud800", r"\u202eback")


class Raises(StepLR):
    """Raises a hostile message after a resume."""

    def load_state_dict(self, state_dict):
        raise ValueError(EVIL)


SUBJECT = Subject("Raises", Raises, options={"step_size": 3}, reference="test_safe_text:Raises")
CHECK = as_check("resume_scheduler_alone")


@pytest.fixture(scope="module")
def broken():
    [result] = check_subject(SUBJECT, [CHECK], Budget(max_examples=0))
    assert result.verdict == Verdict.BROKEN
    return result


@pytest.fixture(scope="module")
def results(broken):
    """What the engine made of it, and results with hostile text wherever a result has text."""
    found = dataclasses.replace(
        broken.counterexample, expected={EVIL: EVIL, "lr": [EVIL]}, actual={EVIL: 1, "lr": EVIL},
        lost=(LostAttribute(EVIL, EVIL, EVIL, False),),
    )  # fmt: skip
    return [
        broken,
        dataclasses.replace(broken, check="other", subject=EVIL, reason=EVIL, counterexample=found,
                            references=(EVIL, EVIL), torch="2.1.0", place=EVIL),
        dataclasses.replace(broken, check="stale", verdict=Verdict.STALE, reason=EVIL),
        Result(EVIL, "known", Verdict.KNOWN, EVIL, found),
        Result("b", "unknown", Verdict.UNKNOWN, EVIL, untried=((EVIL, EVIL),)),
        Result("c", "declined", Verdict.DECLINED, EVIL),
        Result("d", "holds", Verdict.HOLDS, EVIL),
    ]  # fmt: skip


def is_safe(text):
    """Whether every character prints, or ends a line; and UTF-8 has it."""
    text.encode("utf-8")
    return all(letter.isprintable() or letter == "\n" for letter in text)


@pytest.mark.parametrize(
    ("text", "lines", "line"),
    [
        ("a\x00\x1b\x7f\x9b", r"a\x00\x1b\x7f\x9b", r"a\x00\x1b\x7f\x9b"),
        ("\ud800\udfff\u202e", r"\ud800\udfff\u202e", r"\ud800\udfff\u202e"),
        ("a\tb\nc\r", "a\tb\nc\\r", r"a\tb\nc\r"),
        ("é 漢 🙂 \\ \"'", "é 漢 🙂 \\ \"'", "é 漢 🙂 \\ \"'"),
    ],
)
def test_what_does_not_print_is_an_escape(text, lines, line):
    assert (printable(text), one_line(text)) == (lines, line)
    assert printable(lines) == lines
    assert one_line(line) == line


def test_an_exception_is_safe_as_soon_as_it_is_a_result(broken):
    raised = broken.counterexample.actual["raises"]
    assert is_safe(raised)
    assert all(part in raised for part in SHOWN)
    assert "</script><b>bold</b> `tick` a|b" in raised
    assert is_safe(report.broken_text(failures([broken])[0]))


def test_a_file_of_results_comes_back_as_it_was(results, tmp_path):
    text = dump_results(results_of_run(results, Budget(), complete=True))
    assert text.isascii()
    assert is_safe(text)
    json.loads(text)
    (tmp_path / "r.json").write_text(text)
    assert read_results(tmp_path / "r.json").results == tuple(results)


def test_pages_show_it(results, tmp_path):
    (tmp_path / "r.json").write_text(
        dump_results(results_of_run([results[0], *results[4:]], Budget(), complete=True))
    )
    made = {(result.subject, result.check): EVIL for result in results}
    for page, most in (
        (run_page(results, made, Budget(), complete=True, shard=EVIL), 1),
        (matrix_page(matrix_of(read_versions([tmp_path / "r.json"]))), 0),
    ):
        assert is_safe(page)
        parsed = Page(page)
        assert len(parsed.all("script")) == most
        assert "bold" not in {text.strip() for text in parsed.texts}
        everything = "".join(parsed.texts)
        assert all(part in everything for part in SHOWN)


def test_markdown_shows_it(results, tmp_path):
    (tmp_path / "r.json").write_text(
        dump_results(
            results_of_run([dataclasses.replace(results[0], subject=EVIL)], Budget(), complete=True)
        )
    )
    text = markdown(matrix_of(read_versions([tmp_path / "r.json"])))
    assert is_safe(text)
    assert r"nul \\x00" in text  # a backslash of Markdown
    assert r"a\|b" in text


def test_github_shows_it(results):
    lines = annotated(results)
    assert len(lines) == 4
    for line in lines:
        assert is_safe(line)
        assert "\n" not in line
        assert r"nul \x00" in line
    summary = job_summary(results)
    assert is_safe(summary)
    outside = re.sub(r"(?ms)^(`{3,})text\n.*?^\1$", "", summary)
    assert "<b>" not in outside
    assert html.escape("</script><b>bold</b>", quote=False) in outside
    assert all(part in summary for part in SHOWN)


def test_a_script_shows_it_and_runs(broken, tmp_path):
    text = script_of(SUBJECT, CHECK, broken, broken.counterexample.trace)
    assert r"nul \x00" in text.partition('"""\n')[0].replace("\\\\", "\\")
    text.encode("utf-8")
    compile(text, "script.py", "exec")


def test_a_ledger_entry_shows_it_and_is_one(broken, tmp_path):
    [entry] = report.entries([broken])
    assert is_safe(entry)
    (tmp_path / "ledger.toml").write_text(entry, encoding="utf-8")
    [known] = read_ledger([tmp_path / "ledger.toml"]).entries
    assert all(part in known.reason for part in SHOWN)


def test_the_command_prints_and_writes_it(command, tmp_path, monkeypatch):
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    status, printed, errors = command(
        "check", "test_safe_text:Raises", "--kwargs", "step_size=3", "--check", CHECK.name,
        "--max-examples", 0, "--ci", "github", "--json", "r.json", "--html", "r.html",
        "--scripts", "d", "--plots", "d",
    )  # fmt: skip
    assert status == 1
    assert "Traceback" not in errors
    assert is_safe(printed)
    assert all(part in printed for part in SHOWN)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "d", "r.html", "r.json", "summary.md"
    ]  # fmt: skip
    assert len(list((tmp_path / "d").iterdir())) == 2
    for path in tmp_path.rglob("*.*"):
        assert r"\x00" in path.read_text(encoding="utf-8")


def test_standard_output_of_another_encoding_gets_escapes(monkeypatch, capsysbinary):
    from harness.cli.outputs import print_error, print_out

    for name in ("stdout", "stderr"):
        getattr(sys, name).reconfigure(encoding="ascii")
    print_out("é \x1b")
    print_error("漢 \ud800")
    assert capsysbinary.readouterr() == (b"\\xe9 \\x1b\n", b"\\u6f22 \\ud800\n")
