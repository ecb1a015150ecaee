"""Results in the formats of other tools: JUnit, GitLab's code quality, SARIF.

JUnit is the file that pytest, GitLab and Jenkins read; SARIF 2.1.0 is what GitHub's code scanning
reads. A pair that is BROKEN, STALE or UNKNOWN is a failure or an error there.
"""

from __future__ import annotations

import hashlib
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence

import harness
from harness.core.result import Result, grouped
from harness.core.verdict import FAILING, Verdict
from harness.report import text as report
from harness.report.text import failures

SARIF_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_NOT_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(results: Sequence[Result]) -> str:
    """A test suite for each subject, and a test case for each pair."""
    root = ET.Element("testsuites", name="lr-resume-harness")
    for subject, group in grouped(results, lambda result: result.subject).items():
        counts = {
            "tests": len(group),
            "failures": sum(r.verdict in (Verdict.BROKEN, Verdict.STALE) for r in group),
            "errors": sum(r.verdict == Verdict.UNKNOWN for r in group),
            "skipped": sum(r.verdict in (Verdict.DECLINED, Verdict.KNOWN) for r in group),
        }
        seconds = f"{sum(result.seconds for result in group):.3f}"
        suite = ET.SubElement(
            root, "testsuite", {"name": _xml(subject), "time": seconds,
                                **{name: str(count) for name, count in counts.items()}},
        )  # fmt: skip
        for result in group:
            case = ET.SubElement(
                suite, "testcase", classname=_xml(subject), name=_xml(result.check),
                time=f"{result.seconds:.3f}",
            )  # fmt: skip
            message = _xml(sentence(result))
            if result.verdict in (Verdict.BROKEN, Verdict.STALE):
                ET.SubElement(case, "failure", message=message, type=result.verdict).text = _xml(
                    details(result)
                )
            elif result.verdict == Verdict.UNKNOWN:
                ET.SubElement(case, "error", message=message, type=result.verdict)
            elif result.verdict in (Verdict.DECLINED, Verdict.KNOWN):
                ET.SubElement(case, "skipped", message=f"{result.verdict}: {message}")
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def gitlab(results: Sequence[Result]) -> str:
    """A list of issues, as GitLab's code quality reports have it."""
    issues = []
    for result in _wrong(results):
        path, line = _place(result)
        issues.append(
            {
                "description": f"{result.verdict} {result.subject}: {sentence(result)}",
                "check_name": result.check,
                "fingerprint": _fingerprint(result),
                "severity": "info" if result.verdict == Verdict.UNKNOWN else "major",
                "location": {"path": path, "lines": {"begin": line}},
            }
        )
    return json.dumps(issues, indent=1) + "\n"


def sarif(results: Sequence[Result]) -> str:
    """A run with a rule for each check, and a result for each pair that fails."""
    promises = {result.check: result.promise.text for result in results}
    names = list(promises)
    found = []
    for result in _wrong(results):
        path, line = _place(result)
        found.append(
            {
                "ruleId": result.check,
                "ruleIndex": names.index(result.check),
                "level": "warning" if result.verdict == Verdict.UNKNOWN else "error",
                "message": {"text": details(result)},
                "locations": [
                    {
                        "physicalLocation": {
                            "artifactLocation": {"uri": path},
                            "region": {"startLine": line},
                        }
                    }
                ],
                "partialFingerprints": {"pair/v1": _fingerprint(result)},
            }
        )
    driver = {
        "name": "lr-resume-harness",
        "version": harness.__version__,
        "rules": [
            {"id": name, "shortDescription": {"text": promises[name] or name},
             "help": {"text": f"lr-resume-harness explain {name}"}}
            for name in names
        ],
    }  # fmt: skip
    whole = {
        "$schema": SARIF_SCHEMA,
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "results": found}],
    }
    return json.dumps(whole, indent=1) + "\n"


FORMATS = {"junit": junit, "gitlab": gitlab, "sarif": sarif}
"""The text of results in each format."""


def sentence(result: Result) -> str:
    """What is wrong, in a line."""
    found = result.counterexample
    if result.verdict != Verdict.BROKEN or found is None:
        return result.reason
    rows = dict(report.difference_rows(found, result.promise, result.check))
    return f"expected {rows['expected']}; got {rows['got']}; at {rows['at']}"


def details(result: Result) -> str:
    """What is wrong, with all that the report says."""
    if result.verdict != Verdict.BROKEN:
        return f"{result.verdict} {result.subject}: {result.check}: {result.reason}"
    [failure] = failures([result])
    return report.broken_text(failure)


def _wrong(results: Sequence[Result]) -> list[Result]:
    return [result for result in results if result.verdict in FAILING]


def _place(result: Result) -> tuple[str, int]:
    """The file and the line to look at; the subject's name if no file is known."""
    path, _, line = result.place.rpartition(":")
    if not line.isdigit():
        path, line = result.place, "1"
    return path or result.subject, max(int(line), 1)


def _fingerprint(result: Result) -> str:
    """A text that stays the same as long as the same pair fails in the same way."""
    return hashlib.sha256(f"{result.subject} {result.check} {result.verdict}".encode()).hexdigest()


def _xml(text: str) -> str:
    """Text without the characters that XML can't hold."""
    return _NOT_XML.sub("?", text)
