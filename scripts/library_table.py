"""Checks the schedulers of other libraries, and writes ``lr_schedules/libraries/README.md``.

``python scripts/library_table.py --results DIR`` checks each installed library of
``scripts/libraries/packages.toml`` without configuration, keeps the results of each in DIR, and
writes the table from them. A library whose results are in DIR already is not checked again, so the
work can be stopped and continued. ``--search N`` draws N traces per pair in addition to the sweep.

The path of ``scripts/libraries/stand_ins`` is given to each check: timm and speechbrain can be
imported there without torchvision and torchaudio.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from harness.core.ledger import Ledger, read_ledger
from harness.core.result import Result
from harness.core.verdict import Verdict
from harness.report.result_file import ResultFile, read_results

ROOT = Path(__file__).parent.parent
PACKAGES = ROOT / "scripts/libraries/packages.toml"
STAND_INS = ROOT / "scripts/libraries/stand_ins"
LEDGER = ROOT / "lr_schedules/libraries/known_failures_of_libraries.toml"
DEFECTS = ROOT / "scripts/libraries/defects"
"""A script for each defect, written by the command ``script``."""
TABLE = ROOT / "lr_schedules/libraries/README.md"
VERDICTS = (Verdict.HOLDS, Verdict.BROKEN, Verdict.DECLINED, Verdict.UNKNOWN)
KINDS = ("bug", "by-design", "rounding")
"""The kinds of entries in the ledger."""


@dataclass(frozen=True)
class Library:
    """A library: the module to check, and what it has, by reading its source.

    `also` is our module with subjects for what discovery can't build or drive.
    """

    name: str
    distribution: str
    module: str
    has: tuple[str, ...]
    also: str = ""

    @property
    def installed(self) -> str:
        """Its installed version, or empty."""
        try:
            return version(self.distribution)
        except PackageNotFoundError:
            return ""


def libraries() -> list[Library]:
    """The libraries of `PACKAGES`."""
    tables = tomllib.loads(PACKAGES.read_text(encoding="utf-8"))
    return [
        Library(
            name, each["distribution"], each["module"], tuple(each["has"]), each.get("also", "")
        )
        for name, each in tables.items()
    ]


def check(module: str, path: Path, search: int) -> None:
    """Check a module without configuration, and keep the results at `path`."""
    paths = [str(ROOT), str(STAND_INS), os.environ.get("PYTHONPATH", "")]
    command = [
        sys.executable, "-m", "lr_resume_harness", "check", module, "--max-examples", str(search),
        "--json", str(path),
    ]  # fmt: skip
    subprocess.run(
        command, env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        stdout=subprocess.DEVNULL, check=False,
    )  # fmt: skip


def name_of(subject: str) -> str:
    """The name of a class or function in a reference, or in the name of a subject."""
    return subject.rpartition(":")[2].rpartition(".")[2].partition("-")[0]


def cells(
    library: Library, results: ResultFile | None, own: ResultFile | None, ledger: Ledger
) -> Iterator[str]:
    """The cells of a library's row."""
    found = results.results if results is not None else ()
    missed = results.not_checked if results is not None else {}
    checked = {name_of(result.references[0] or result.subject) for result in found}
    listed = {name_of(place) for place in missed}
    silent = [name for name in library.has if name not in checked | listed]
    yield f"{library.distribution} {library.installed}"
    yield f"`{library.module}`"
    yield str(len(library.has))
    yield str(len(library.has) - len(silent)) + (f" (not {', '.join(silent)})" if silent else "")
    yield str(len(checked & {*library.has}))
    yield ", ".join(sorted(listed & {*library.has} - checked)) or "none"
    yield from counts(found)
    yield argued(found, ledger)
    yield ", ".join(sorted({name_of(r.subject) for r in own.results})) if own is not None else ""


def counts(results: Sequence[Result]) -> Iterator[str]:
    """The number of pairs with each verdict."""
    number = Counter(result.verdict for result in results)
    yield from (str(number[verdict]) for verdict in VERDICTS)


def argued(results: Sequence[Result], ledger: Ledger) -> str:
    """How the ledger argues the broken pairs: the number of each kind, and of those it lacks."""
    broken = [result for result in results if result.verdict == Verdict.BROKEN]
    entries = [ledger.about({r.references[0], r.subject}, r.check) for r in broken]
    number = Counter(each[0].kind if each else "not in the ledger" for each in entries)
    return ", ".join(
        f"{number[kind]} {kind}" for kind in (*KINDS, "not in the ledger") if number[kind]
    )


def table(found: Mapping[str, ResultFile]) -> str:
    """The table of all libraries whose results were found."""
    head = (
        "library", "module", "has", "found", "checked", "listed with the reason",
        *(verdict.value for verdict in VERDICTS), "the broken pairs", "in `lr_schedules.libraries`",
    )  # fmt: skip
    lines = [f"| {' | '.join(head)} |", f"| {' | '.join('---' for _ in head)} |"]
    ledger = read_ledger([LEDGER])
    for library in libraries():
        results, own = found.get(library.module), found.get(library.also)
        if results is not None or own is not None:
            lines.append(f"| {' | '.join(cells(library, results, own, ledger))} |")
    return "\n".join(lines)


INTRODUCTION = """# Schedulers of other libraries

`python scripts/library_table.py --results DIR` made this table: `check MODULE` of each library,
without configuration{how}, on torch {torch}.

"has" is the number of classes and factories in the module that behave like schedulers, counted by
reading its source (`scripts/libraries/packages.toml` names them); "found" is how many of them
`check` checked or listed with the reason. The verdicts count pairs of a scheduler and a check. timm
was imported with a stand-in for torchvision, and speechbrain with one for torchaudio
(`scripts/libraries/stand_ins`), which their schedulers do not use. The last column names the
subjects in our modules for what needs a configuration. schedulefree and prodigyopt have no
scheduler: the schedule is inside the optimizer.

"""


def main() -> None:
    """Check what has no results yet, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, required=True, help="a folder for the results")
    parser.add_argument("--search", type=int, default=25, help="traces to draw per pair")
    options = parser.parse_args()
    options.results.mkdir(parents=True, exist_ok=True)
    found: dict[str, ResultFile] = {}
    for library in libraries():
        if not library.installed:
            print(f"{library.distribution} is not installed: left out", file=sys.stderr)
            continue
        for module in filter(None, (library.module if library.has else "", library.also)):
            path = options.results / f"{module}.json"
            if not path.exists() or not read_results(path).complete:
                check(module, path, options.search)
            if path.exists():
                found[module] = read_results(path)
    versions = sorted({results.torch for results in found.values()})
    how = " and the sweep alone" if not options.search else f" and {options.search} drawn traces"
    text = INTRODUCTION.format(how=how, torch=", ".join(versions)) + table(found) + "\n"
    TABLE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
