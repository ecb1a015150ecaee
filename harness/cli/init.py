"""The command ``init``."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import click

from harness.cli.options import Exit
from harness.cli.outputs import print_out
from harness.core.output import make_folder, write_text

PLACES = {
    "workflow.yml": ".github/workflows/lr-schedules.yml",
    "tox.ini": "tox.ini",
    "pre-commit-config.yaml": ".pre-commit-config.yaml",
    "test_schedules.py.txt": "tests/test_schedules.py",
}
"""The templates, and where they are written."""


@click.command()
@click.argument("package", required=False)
def init(package: str | None) -> int:
    """Write a workflow for GitHub, a tox environment, a pre-commit hook and a first test.

    They are for PACKAGE, or for the package in the current folder or in src, if there is just one.
    No file is overwritten: what would go into one that is there is printed.
    """
    name = package or _package()
    subjects = _subjects(name)
    for template, place in PLACES.items():
        text = files("harness.cli").joinpath("templates", template).read_text(encoding="utf-8")
        text = text.replace("my_package", name)
        text = text.replace("SUBJECTS_HERE", "\n".join(f'    "{one}",' for one in subjects))
        path = Path(place)
        if path.exists():
            print_out(f"{place} is there already, and stays as it is. To add to it:\n\n{text}")
            continue
        make_folder(path.parent)
        write_text(path, text)
        print_out(f"wrote {place}")
    print_out(f"\nNext: lr-resume-harness check {name}")
    return Exit.OK


def _package() -> str:
    """The only package in the current folder, or in src."""
    for folder in (Path("src"), Path()):
        names = sorted(
            path.parent.name for path in folder.glob("*/__init__.py")
            if path.parent.name not in ("tests", "test", "docs", "scripts", "examples")
        )  # fmt: skip
        if len(names) == 1:
            return names[0]
        if names:
            raise click.UsageError(f"there are several packages: name one of {', '.join(names)}")
    raise click.UsageError(
        "there is no package in this folder or in src: name it, as in lr-resume-harness init "
        "my_package"
    )


def _subjects(package: str) -> Sequence[str]:
    """The references of the schedulers in a package."""
    from harness.core.references import module_of
    from harness.subjects.lookup import choose_subjects

    folder = Path("src", package)
    if folder.is_dir():
        module_of(folder)
    found = choose_subjects([package], {})
    return [subject.reference for subject in found.subjects]
