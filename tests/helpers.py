"""What several tests share. They import it by name; a `conftest` would be one of several."""

from pathlib import Path

from harness.checks.registry import as_check
from harness.engine.option_sets import what_torch_lacks

ROOT = Path(__file__).parent.parent


def served(names):
    """Those of the checks called `names` that the installed torch has what they need for."""
    return {name for name in names if not any(map(what_torch_lacks, as_check(name).needs))}


def verdicts_of(results):
    """The verdicts on checks that the installed torch can serve; on others it is DECLINED."""
    results = list(results)
    can = served(result.check for result in results)
    assert {result.verdict for result in results if result.check not in can} <= {"DECLINED"}
    return {result.verdict for result in results if result.check in can}
