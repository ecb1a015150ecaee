"""The command ``plot``."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli.options import OK, options_of

MOST_CURVES = 5
"""So many can be told apart."""


@click.command()
@click.argument("subject")
@click.option("--kwargs", metavar="OPTIONS", multiple=True,
              help="Options for the SUBJECT; repeated, several curves.")  # fmt: skip
@click.option("--epochs", metavar="N", type=click.IntRange(1, 5000), multiple=True,
              help="Epochs to draw; repeated, a panel each.  [default: its length]")  # fmt: skip
@click.option("-o", "--output", metavar="FILE", type=click.Path(path_type=Path),
              help="A name that ends with .svg or .png.  [default: SUBJECT.svg]")  # fmt: skip
def plot(
    subject: str, kwargs: tuple[str, ...], epochs: tuple[int, ...], output: Path | None
) -> int:
    """Draw the schedule of SUBJECT, and what a resume at each epoch would do.

    Marked on the curve are the epochs where a resume, in the documented order or by last_epoch,
    goes on as if nothing had happened; where it does not, the wrong LR, with a thin line along
    which it goes on. Needs matplotlib.
    """
    from harness.core.files import check_writable, file_name, write_bytes
    from harness.engine.every_epoch import schedule_of
    from harness.report.picture import check_drawable, drawn
    from harness.report.plot import figure_of, names_of, sentences
    from harness.subjects.registered import choose_subjects

    if len(kwargs) > MOST_CURVES:
        raise click.UsageError(f"--kwargs: more than {MOST_CURVES} curves can't be told apart")
    chosen = [choose_subjects((subject,), options_of(said)).subjects for said in kwargs or ("",)]
    if len(chosen[0]) > 1:
        names = ", ".join(found.reference for found in chosen[0])
        raise click.UsageError(f"{subject} holds several subjects: name one of {names}")
    subjects = [found for (found,) in chosen]
    path = output or Path(f"{file_name(subjects[0].name)}.svg")
    check_drawable(path.suffix, "plot")
    check_writable(path)
    schedules = [schedule_of(found, max(epochs, default=0)) for found in subjects]
    title, labels = names_of(subjects)
    curves = list(zip(labels, schedules, strict=True))
    write_bytes(path, drawn(lambda: figure_of(title, curves, epochs), path.suffix, "plot",
                            **{"svg.fonttype": "none"}))  # fmt: skip
    click.echo(f"wrote {path}")
    click.echo("\n".join(sentences(schedules)))
    return OK
