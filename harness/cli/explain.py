"""The command ``explain``."""

from __future__ import annotations

import textwrap

import click

from harness.cli.options import Exit
from harness.cli.outputs import print_out


@click.command()
@click.argument("check_name", metavar="CHECK")
def explain(check_name: str) -> int:
    """Explain CHECK: what it promises, who relies on it, and how to mend a failure.

    Shows a scheduler that keeps the promise and one that breaks it, and how to say that a
    scheduler does not promise it.
    """
    from harness.checks.explanations import EXPLANATIONS, why_decline
    from harness.checks.registry import as_check
    from harness.report.text import aligned

    check = as_check(check_name)
    known = EXPLANATIONS.get(check.name) if check.reference == check.name else None
    print_out(f"{check.name}: {check.doc}\n")
    runs = "by default" if check.default else f"if asked for: --check {check.name}, or --all-checks"
    rows = [("topic", check.about), ("runs", runs)]
    if known is not None:
        rows += [("who", known.who), ("mend", known.mend)]
    for line in aligned([*rows, ("decline", why_decline(check.name))]):
        print_out(
            textwrap.fill(
                line[2:], 98, subsequent_indent=" " * 9, break_long_words=False,
                break_on_hyphens=False,
            )
        )  # fmt: skip
    if known is not None:
        for title, text in (("This keeps it", known.holds), ("This breaks it", known.fails)):
            print_out(f"\n{title}:\n\n{textwrap.indent(text.rstrip(), '    ')}")
    return Exit.OK
