"""The command ``plot``."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli.options import Exit, path_option
from harness.cli.outputs import print_out


@click.command()
@click.argument("subject")
@click.option("--kwargs", metavar="OPTIONS", multiple=True,
              help="Options for the SUBJECT; repeat it to draw several curves.")  # fmt: skip
@click.option("--epochs", metavar="N", type=click.IntRange(1, 5000), multiple=True,
              help="Number of epochs to draw; repeat it to draw several panels.  [default: the "
              "length of the schedule]")  # fmt: skip
@path_option(
    "-o", "--output", help_="Write the picture to FILE, an .svg or .png.  [default: SUBJECT.svg]"
)
def plot(
    subject: str, kwargs: tuple[str, ...], epochs: tuple[int, ...], output: Path | None
) -> int:
    """Draw the schedule of SUBJECT, and what a resume at each epoch does.

    At each epoch, training is resumed in the documented order and by last_epoch. A marker on
    the curve means that training goes on as if nothing had happened. A marker off the curve
    shows the wrong LR, and a thin line shows how training goes on. Needs matplotlib.
    """
    from harness.core.files import file_name, require_writable, write_bytes
    from harness.core.trace import parse_options
    from harness.engine.every_epoch import schedule_of
    from harness.report.picture import drawn, picture_kind
    from harness.report.plot import CURVES, figure_of, names_of, sentences
    from harness.subjects.lookup import choose_subjects

    if len(kwargs) > len(CURVES):
        raise click.UsageError(f"--kwargs: at most {len(CURVES)} curves fit in one picture")
    chosen = [choose_subjects((subject,), parse_options(text)).subjects for text in kwargs or ("",)]
    if len(chosen[0]) > 1:
        names = ", ".join(found.reference for found in chosen[0])
        raise click.UsageError(f"{subject} contains several subjects: choose one of {names}")
    subjects = [found for (found,) in chosen]
    path = output or Path(f"{file_name(subjects[0].name)}.svg")
    picture_kind(path.suffix, "plot")
    require_writable(path)
    schedules = [schedule_of(found, max(epochs, default=0)) for found in subjects]
    title, labels = names_of(subjects)
    curves = list(zip(labels, schedules, strict=True))
    write_bytes(path, drawn(lambda: figure_of(title, curves, epochs), path.suffix, "plot"))
    print_out(f"wrote {path}")
    print_out("\n".join(sentences(schedules)))
    return Exit.OK
