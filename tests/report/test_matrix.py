import copy
import errno
import itertools
import json
import os
import re
import shlex
from dataclasses import replace

import pytest
from pages import Page
from torch.optim.lr_scheduler import StepLR

from harness.checks.registry import as_check
from harness.core.result import Counterexample, Found, FoundBy, Promise, Result
from harness.core.run import Tally
from harness.core.trace import Trace
from harness.core.verdict import Verdict
from harness.report.html import matrix_page as page
from harness.report.matrix import COLOURS, LETTERS, markdown, matrix_of
from harness.report.result_file import SCHEMA, ResultFile, dump_results, read_versions

VERDICTS = {
    "B": "BROKEN", "S": "STALE", "K": "KNOWN", "U": "UNKNOWN", "D": "DECLINED", ".": "HOLDS"
}  # fmt: skip
REASONS = {"D": "it needs more", "U": "the time limit"}
BROKEN_AT = Counterexample(
    2, 0, {"lr": [0.05]}, {"lr": [0.025]}, Trace.parse("gamma=0.5 train:3 save:a resume:a"),
    Found(FoundBy.SWEEP, 12, 0.5),
)  # fmt: skip


def row(check, subject, letter, **more):
    given = {
        "reason": REASONS.get(letter, ""),
        "counterexample": BROKEN_AT if letter in "BK" else None,
        "tally": Tally(12, 100, 34, 0),
        "references": (subject, check),
        **more,
    }
    return Result(subject, check, Verdict(VERDICTS[letter]), **given)


def result(torch, rows, **more):
    file = ResultFile(SCHEMA, torch, "3.11.2", 0, 25, True, "1/1", tuple(rows))
    return json.loads(dump_results(replace(file, **more)))


@pytest.fixture
def write(tmp_path):
    def write(**files):
        paths = [tmp_path / f"{name}.json" for name in files]
        for path, data in zip(paths, files.values(), strict=True):
            path.write_text(data if isinstance(data, str) else json.dumps(data))
        return paths

    return write


@pytest.fixture
def merged(write):
    """The matrix of rows like ``{"check subject": "B. D"}``, a letter for each version."""

    def merged(cells, versions=("2.10.0+cpu", "2.9.1", "2.8.0", "1.13.1"), **more):
        results = {
            f"r{index}": result(version, [
                row(*pair.split(), letters[index], **more)
                for pair, letters in cells.items() if letters[index] != " "
            ])
            for index, version in enumerate(versions)
        }  # fmt: skip
        return matrix_of(read_versions(write(**results)))

    return merged


def test_versions_are_sorted_as_versions_and_pairs_are_grouped_by_check(merged):
    text = markdown(merged({
        "one First": ".B.B", "one Held": "....", "one Second": ".B.B", "one Third": "BB..",
        "two First": "UKS ", "two Declined": "D D ", "two Kept": "... ",
    }))  # fmt: skip
    *table, _, _ = text.splitlines()
    assert table == [
        "| check | subject | 1.13.1 | 2.8.0 | 2.9.1 | 2.10.0 |",
        "| --- | --- | :-: | :-: | :-: | :-: |",
        "| one | Third | . | . | B | B |",
        "|  | First, Second | B | . | B | . |",
        "| two | First |  | S | K | U |",
    ]


def test_one_version_is_a_matrix_and_nothing_to_show_is_said(merged):
    assert markdown(merged({"one First": "B"}, ["2.0.1"])).splitlines()[:-2] == [
        "| check | subject | 2.0.1 |", "| --- | --- | :-: |", "| one | First | B |",
    ]  # fmt: skip
    matrix = merged({"one First": "."}, ["2.0.1"])
    assert (matrix.shown, markdown(matrix)) == ([], f"{matrix.left_out}\n")


def test_builds_of_one_version_have_their_full_names(merged):
    versions = ("2.0.1+cu117", "2.0.1+cpu", "2.1.0+cpu")
    assert merged({"one First": "BBB"}, versions).versions == [
        "2.0.1+cpu", "2.0.1+cu117", "2.1.0"
    ]  # fmt: skip


def test_versions_that_were_not_searched_alike_are_told(command, write):
    rows = [row("one", "First", "B")]
    first, second, third = write(
        a=result("2.0.1", rows), b=result("2.1.0", rows), c=result("2.2.0", rows, max_examples=0)
    )
    assert command("matrix", first, second)[2] == ""
    status, printed, errors = command("matrix", first, second, third)
    matrix = matrix_of(read_versions([first, third, second]))
    assert "25 (seed 0) on 2.0.1, 2.1.0; 0 (seed 0) on 2.2.0." in matrix.uneven
    assert (status, errors) == (0, f"note: {matrix.uneven}\n")
    assert printed.endswith(f" {matrix.uneven}\n")
    assert matrix.uneven in page(matrix)


@pytest.mark.parametrize(
    ("broken", "left_out", "said"),
    [
        ({}, {}, ["all 6"]),
        ({"one G": "BB"}, {}, ["G", "the 6 others"]),
        ({"one G": "BB"}, {"one H": ".."}, ["G", "A, B, C, D, E, F"]),
    ],
)
def test_many_that_are_alike_are_the_others_if_none_is_left_out(merged, broken, left_out, said):
    cells = {f"one {name}": ".D" for name in "ABCDEF"} | broken | left_out
    assert [line.subjects for line in merged(cells, ("2.0.1", "1.13.1")).lines] == said


def test_checks_with_the_same_lines_share_them(merged):
    matrix = merged(
        {"one A": "B", "two A": "B", "three A": "B", "one B": ".", "two B": "D", "three B": "U"},
        ["2.0.1"],
    )
    assert [(line.checks, line.subjects) for line in matrix.lines] == [
        ("one, two", "A"), ("three", "A"), ("three", "B")
    ]  # fmt: skip


def test_what_is_broken_is_always_named(merged):
    matrix = merged({f"one {name}": ".B" for name in "ABCDEF"}, ("2.0.1", "1.13.1"))
    assert [line.subjects for line in matrix.lines] == ["A, B, C, D, E, F"]


def test_markdown_prints_names_as_they_are(write):
    rows = [row("a|b", "_x_ *y* `z` a_b <i>", "B")]
    text = markdown(matrix_of(read_versions(write(a=result("2.0.1", rows)))))
    assert text.splitlines()[2] == r"| a\|b | \_x\_ \*y\* \`z\` a_b \<i\> | B |"


GOOD = result("2.0.1", [row("one", "First", "B")])


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("{", "JSON"),
        ({**GOOD, "schema": 7}, f"{SCHEMA}:"),
        ({**GOOD, "complete": False}, ""),
        ({**GOOD, "torch": "new"}, ""),
        ({**GOOD, "results": 5}, "@ $.results)"),
        ({**GOOD, "results": GOOD["results"] * 2}, " First: one"),
    ],
)  # how other files are refused: test_result_file.py
def test_a_file_that_is_no_result_is_refused_in_one_sentence(command, write, content, part):
    (path,) = write(r=content)
    status, printed, errors = command("matrix", path, "--markdown", "out.md")
    assert (status, printed) == (2, "")
    assert errors.startswith(f"error: {path} ")
    assert part in errors
    assert errors.count("\n") == 1
    assert not (path.parent / "out.md").exists()


def test_a_file_that_is_not_text_or_not_there_is_refused(command, tmp_path):
    (tmp_path / "r.json").write_bytes(b"\xff\xfe")
    for name, part in [
        ("r.json", "JSON"), ("no.json", os.strerror(errno.ENOENT)), (".", os.strerror(errno.EISDIR))
    ]:  # fmt: skip
        status, _, errors = command("matrix", name)
        assert status == 2
        assert errors.startswith("error: ")
        assert name in errors
        assert part in errors


def test_two_files_of_one_version_are_refused(command, write):
    first, other, second = write(a=GOOD, b={**GOOD, "torch": "2.1.0"}, c=copy.deepcopy(GOOD))
    status, printed, errors = command("matrix", first, other, second)
    assert (status, printed) == (2, "")
    assert all(part in errors for part in (str(first), str(second), "2.0.1"))
    assert str(other) not in errors


def test_without_a_result_it_says_how_it_is_used(command):
    status, printed, errors = command("matrix")
    assert (status, printed) == (2, "")
    assert "'RESULT...'" in errors


def test_the_command_writes_what_is_asked_for_or_prints_markdown(command, write, tmp_path):
    (path,) = write(a=GOOD)
    status, printed, errors = command("matrix", path)
    assert (status, printed, errors) == (0, markdown(matrix_of(read_versions([path]))), "")
    status, said, errors = command("matrix", path, "--markdown", "m.md", "--html", "m.html")
    assert (status, said, errors) == (0, "wrote m.md\nwrote m.html\n", "")
    assert (tmp_path / "m.md").read_text() == printed
    assert (tmp_path / "m.html").read_text() == page(matrix_of(read_versions([path])))


def test_nothing_is_written_if_something_cannot_be(command, write, tmp_path):
    (path,) = write(a=GOOD)
    status, printed, errors = command("matrix", path, "--markdown", "m.md", "--html", "no/m.html")
    assert (status, printed) == (2, "")
    assert errors.startswith("error: ")
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_the_page_has_all_cells_and_needs_nothing_else(merged):
    text = page(merged({
        "one First": ".B.B", "one Held": "....", "two First": "UKS ", "two Declined": "DDDD",
        "two Second": ".D..",
    }))  # fmt: skip
    parsed = Page(text)
    classes = [attributes.get("class") for tag, attributes in parsed.tags if tag == "td"]
    assert classes == ["B", "H", "B", "H", None, "S", "K", "U", "H", "H", "D", "H"]
    assert not re.search(r"https?:|src=|href|<script|<link|@import|url\(", text)
    headings = [text for text in parsed.texts if re.fullmatch(r"\d+\.\d+\.\d+", text)]
    assert headings[:4] == ["1.13.1", "2.8.0", "2.9.1", "2.10.0"]
    everything = " ".join(parsed.texts)
    for said in [
        'lr-resume-harness replay First one "gamma=0.5 train:3 save:a resume:a"',
        "lr [0.05]", "lr [0.025]", "sweep", *REASONS.values(), "r3.json",
        "First, one, torch 2.9.1: BROKEN", "torch 2.10.0+cpu, Python 3.11.2",
    ]:  # fmt: skip
        assert said in everything


def test_the_page_says_what_a_check_promises(write):
    promise = as_check("resume_by_last_epoch").promise
    rows = [row("resume_by_last_epoch", "StepLR", "B", promise=promise)]
    parsed = Page(page(matrix_of(read_versions(write(a=result("2.0.1", rows))))))
    place = parsed.texts.index("resume_by_last_epoch")
    assert promise.text in parsed.texts[place + 1]


def test_the_page_says_on_which_versions_a_counterexample_is_the_same(write):
    other = {"counterexample": replace(BROKEN_AT, actual={"lr": [0.0125]})}
    results = {
        f"r{minor}": result(f"2.{minor}.0", [row("one", "First", "B", **more)])
        for minor, more in enumerate([{}, other, {}, {}])
    }
    parsed = Page(page(matrix_of(read_versions(write(**results)))))
    texts = [text for text in parsed.texts if text.strip()]
    after = [then for said, then in itertools.pairwise(texts) if said == "also on"]
    assert after == ["2.2.0, 2.3.0", "2.0.0, 2.3.0", "2.0.0, 2.2.0"]


class Own(StepLR):
    """A subject that a command names as module:attribute."""


@pytest.mark.parametrize("subject", ["StepLR", "test_matrix:Own"])
def test_the_command_on_the_page_replays_the_counterexample(command, tmp_path, subject):
    check = ("--check", "resume_by_last_epoch", "--max-examples", "0")
    options = () if subject == "StepLR" else ("--kwargs", "step_size=3 gamma=0.5")
    assert command("check", subject, *options, *check, "--json", "r.json")[0] == 1
    assert command("matrix", "r.json", "--html", "m.html")[0] == 0
    texts = Page((tmp_path / "m.html").read_text()).texts
    (said,) = (text for text in texts if text.startswith("lr-resume-harness replay"))
    words = shlex.split(said)
    assert words[1:3] == ["replay", subject]
    status, printed, _ = command(*words[1:])
    assert (status, "\nBROKEN " in printed) == (1, True)


def test_the_command_on_the_page_names_the_python_that_resumed(write):
    rows = [row("one", "First", "B", resume_python="/opt/old python/bin/python")]
    texts = Page(page(matrix_of(read_versions(write(a=result("2.0.1", rows)))))).texts
    (said,) = (text for text in texts if text.startswith("lr-resume-harness replay"))
    assert shlex.split(said)[-2:] == ["--resume-python", "/opt/old python/bin/python"]


def test_the_page_shows_hostile_text_as_text(write):
    evil = '<script>alert("&amp;")</script>'
    found = Counterexample(
        2,
        0,
        {evil: evil},
        {"raises": evil},
        Trace.parse("fn='</style><b>' train:3 save:a resume:a"),
    )
    rows = [
        row(evil, evil, "B", reason=evil, counterexample=found, promise=Promise(evil, evil)),
        row("c", evil, "D", reason=evil), row("c", "x", "B"), row("d", evil, "."),
    ]  # fmt: skip
    data = result("2.0.1", rows, python=evil)
    other = result("2.1.0", [row("c", evil, ".")])
    text = page(matrix_of(read_versions(write(a=data, b=other))))
    parsed = Page(text)
    assert "script" not in {tag for tag, _ in parsed.tags}
    assert "<b>" not in text.replace("<p><b>", "").replace("<b><code>", "")
    assert "<script" not in text
    assert parsed.texts.count(evil) >= 5


def test_colours_differ_in_lightness():
    def lightness(colour):
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] + 0.05

    assert list(COLOURS) == list(LETTERS)
    cells = sorted(lightness(colour) for colour, _ in COLOURS.values())
    assert all(light / dark > 1.25 for dark, light in itertools.pairwise(cells))
    for colour, ink in COLOURS.values():
        dark, light = sorted([lightness(colour), lightness(ink)])
        assert light / dark > 4.5
