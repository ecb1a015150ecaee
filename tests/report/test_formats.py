"""Results in the formats of other tools."""

import json
import xml.etree.ElementTree as ET

import pytest

from harness.core.result import Promise, Result
from harness.report.formats import FORMATS, gitlab, junit, sarif

TWO = "&<'\"\x00é"
RESULTS = [
    Result("A", "one", "HOLDS", promise=Promise("One holds.")),
    Result("A", "two", "STALE", "its trace holds", place="known.toml:7", seconds=0.5),
    Result("B", "one", "UNKNOWN", f"it died {TWO}", place="src/b.py:12"),
    Result("B", "two", "DECLINED", "not promised"),
    Result("C", "two", "KNOWN", "as the ledger says"),
    Result("C", "one", "UNKNOWN", "no place"),
]


def test_junit_counts_and_escapes():
    root = ET.fromstring(junit(RESULTS).encode())
    counts = [
        (suite.get("name"), *(int(suite.get(name)) for name in
                              ("tests", "failures", "errors", "skipped")))
        for suite in root
    ]  # fmt: skip
    assert counts == [("A", 2, 1, 0, 0), ("B", 2, 0, 1, 1), ("C", 2, 0, 1, 1)]
    cases = {
        (case.get("classname"), case.get("name")): [
            (each.tag, each.get("message")) for each in case
        ]
        for case in root.iter("testcase")
    }
    assert cases["A", "one"] == []
    assert cases["A", "two"] == [("failure", "its trace holds")]
    assert cases["B", "one"] == [("error", "it died &<'\"?é")]
    assert cases["B", "two"] == [("skipped", "DECLINED: not promised")]
    assert cases["C", "two"] == [("skipped", "KNOWN: as the ledger says")]
    for suite in root:
        for case in suite:
            assert {"classname", "name", "time"} == set(case.attrib)


def test_gitlab_has_what_its_reports_need():
    issues = json.loads(gitlab(RESULTS))
    assert [set(issue) for issue in issues] == [
        {"description", "check_name", "fingerprint", "severity", "location"}
    ] * 3
    assert [issue["location"] for issue in issues] == [
        {"path": "known.toml", "lines": {"begin": 7}},
        {"path": "src/b.py", "lines": {"begin": 12}},
        {"path": "C", "lines": {"begin": 1}},
    ]
    assert len({issue["fingerprint"] for issue in issues}) == 3
    assert {issue["severity"] for issue in issues} == {"info", "major"}
    assert json.loads(gitlab(RESULTS[:1])) == []


def test_sarif_has_what_its_schema_demands():
    whole = json.loads(sarif(RESULTS))
    assert whole["version"] == "2.1.0"
    [run] = whole["runs"]
    rules = run["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == ["one", "two"]
    assert all(rule["shortDescription"]["text"] for rule in rules)
    assert len(run["results"]) == 3
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["level"] in ("none", "note", "warning", "error")
        assert result["message"]["text"]
        [place] = result["locations"]
        assert place["physicalLocation"]["artifactLocation"]["uri"]
        assert place["physicalLocation"]["region"]["startLine"] >= 1


@pytest.mark.parametrize("name", ["json", "github", *FORMATS])
def test_check_prints_nothing_else(command, name):
    arguments = ("--check", "resume_by_last_epoch", "--max-examples", 0, "--jobs", 0)
    status, printed, _ = command("check", "StepLR", *arguments, "--output-format", name)
    assert status == 1
    command("check", "StepLR", *arguments, "--json", "r.json")
    assert command("merge", "r.json", "--output-format", name)[0] == 1
    if name == "junit":
        [failure] = ET.fromstring(printed.encode()).iter("failure")
        assert failure.text.startswith("BROKEN StepLR: resume_by_last_epoch")
    elif name == "github":
        assert printed.startswith("::error ")
        assert len(printed.splitlines()) == 1
    else:
        data = json.loads(printed)
        found = {"json": lambda: data["results"], "gitlab": lambda: data,
                 "sarif": lambda: data["runs"][0]["results"]}[name]()  # fmt: skip
        assert len(found) == 1
