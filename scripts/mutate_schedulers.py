"""Runs the check on mutants of PyTorch's schedulers and of ours, and counts those it notices.

    python scripts/mutate_schedulers.py [--only NAME] [--jobs N] [--json FILE] [--markdown FILE]
    python scripts/mutate_schedulers.py --from FILE [--again] [--json FILE] [--markdown FILE]

Each mutant of ``scripts/scheduler_mutants.py`` has one change in the source of a scheduler. First
the subjects that use the class run without interruption: 300 epochs with several options and
optimizers. If any value differs from the unchanged run, the mutant is *discarded*: no comparison
of a resumed run with an uninterrupted one needs to notice it. Then these subjects are checked as
``lr-resume-harness check`` does, with its ledger, until a pair is BROKEN or STALE: the mutant is
*killed*. If none is, it is *equivalent* if ``scripts/surviving_mutants.toml`` argues so, and has
*survived* otherwise; that file says why for the survivors too. The uninterrupted runs are compared
exactly.

``--from FILE --again`` tries only those that survived in FILE, as after a change of the harness.
NAME is a part of a mutant's name. Exit status: 0 if at least ``--at-least`` percent of the mutants
that are not equivalent are killed, 1 if fewer are, 2 if a pair that killed a mutant is also
broken without it, or if an argument is wrong.
"""

from __future__ import annotations

import collections
import functools
import hashlib
import json
import os
import sys
import textwrap
import time
import tomllib
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path

import click
import scheduler_mutants
import torch
from scheduler_mutants import Mutant

from harness import Budget, Subject, Term
from harness.core.training_loop import describe, observe
from harness.core.verdict import Verdict
from harness.engine import ordering
from harness.engine.machine import DRAWN_ROUNDS
from harness.engine.ordering import Checker, Pair
from harness.engine.plan import Plan, Selection, make_plan
from harness.engine.workers import Died, Pool, Tell
from harness.subjects.drawn_options import draw_options
from lr_schedules import controls, subjects

EPOCHS = 300
DRAWN_SETS = 10
"""How many sets of drawn options run without interruption, in addition to the subject's own."""
OPTIMIZERS = (
    Term.of("AdamW", groups=2),
    Term.of("SGD", groups=2, momentum=0.9, lr="tensor"),
    Term.of("SGD", groups=3, momentum=0.9),
)
"""The optimizers that run too; one that a subject's options don't fit gives the same error."""
LIMIT = 200.0
"""The time limit for a pair, in seconds: longer than that of `check`, for a busy machine."""
PATIENCE = 300.0
"""Seconds without a message after which a mutant's process is killed."""
ROOT = Path(__file__).resolve().parent.parent
REASONS = ROOT / "scripts/surviving_mutants.toml"


class Fate(StrEnum):
    """What became of a mutant."""

    KILLED = "killed"
    EQUIVALENT = "equivalent"
    SURVIVED = "survived"
    DISCARDED = "discarded"


@dataclass(frozen=True)
class Outcome:
    """A mutant with its fate; `by` is the subject and the check that noticed it, or the reason."""

    name: str
    fate: Fate
    by: str = ""
    verdict: str = ""
    trace: str = ""
    seconds: float = 0.0
    """CPU seconds."""
    pair: tuple[str, str] = ("", "")
    again: bool = False
    """Whether it was tried after a run of all the others."""


@dataclass(frozen=True)
class Task:
    """A mutant, with the digests of the plain runs of the subjects that use its class.

    The first `most` of them are checked. With a `pair` only that is checked, without a mutant.
    """

    mutant: Mutant | None
    digests: Mapping[str, str]
    most: int | None = None
    pair: tuple[str, str] = ("", "")


# -------------------------------------------------------------------------------- subjects


def all_subjects() -> dict[str, Subject]:
    """The subjects of the default run, and the controls, by reference."""
    found = {subject.name: subject for subject in subjects.SUBJECTS}
    for name, value in vars(controls).items():
        if isinstance(value, Subject) and value in controls.CONTROLS:
            found[f"{controls.__name__}:{name}"] = value
    return found


def own_options(subject: Subject) -> dict[str, object]:
    """Options that complete those of the subject: empty if it has a value for each."""
    strategy = subject.strategy
    if strategy is None or not subject.drawn_fields:
        return {}
    return draw_options(strategy, 1, 0)[0]


def classes_in(value: object, seen: set[int]) -> Iterator[type]:
    """The classes of a scheduler and of the schedulers in it, with their bases."""
    if id(value) in seen or isinstance(value, (torch.optim.Optimizer, type)):
        return
    seen.add(id(value))
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from classes_in(item, seen)
    elif hasattr(value, "__dict__"):
        yield from type(value).__mro__
        for item in vars(value).values():
            yield from classes_in(item, seen)


@functools.cache
def users() -> dict[str, tuple[type, ...]]:
    """The classes of the schedulers in each subject, by reference."""
    found = {}
    for reference, subject in all_subjects().items():
        bound = subject.bind(own_options(subject))
        scheduler = bound.build(bound.new_optimizer())
        found[reference] = tuple(dict.fromkeys(classes_in(scheduler, set())))
    return found


def users_of(mutant: Mutant) -> list[str]:
    """The references of the subjects that use a mutant's class.

    Those whose own class has the mutant's methods come first, those that replace one come last.
    """
    owner, methods = scheduler_mutants.class_of(mutant), scheduler_mutants.methods_in(mutant)

    def distance(reference: str) -> tuple[int, int]:
        mro = users()[reference][0].__mro__
        own = mro[: mro.index(owner)] if owner in mro else mro
        replaced = [cls for cls in own if any(method in vars(cls) for method in methods)]
        return len(replaced), len(own)

    return sorted((each for each in users() if owner in users()[each]), key=distance)


# ------------------------------------------------------------------------------ plain runs


def digest(subject: Subject, epochs: int = EPOCHS) -> str:
    """A digest of everything that is observed in the uninterrupted runs of a subject.

    A run that ends with an exception contributes its text.
    """
    strategy, own = subject.strategy, own_options(subject)
    drawn = [] if strategy is None else draw_options(strategy, DRAWN_SETS, 0)
    sets = [own, *drawn, *({**own, "optimizer": optimizer} for optimizer in OPTIMIZERS)]
    seen = hashlib.sha256()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a mutant of the base class may make PyTorch warn
        for options in sets:
            try:
                bound = subject.bind(options)
                optimizer = bound.new_optimizer()
                scheduler = bound.build(optimizer)
                seen.update(repr(observe(optimizer, scheduler)).encode())
                for epoch in range(epochs):
                    optimizer.step()  # without gradients it computes nothing
                    bound.step(scheduler, epoch)
                    seen.update(repr(observe(optimizer, scheduler)).encode())
            except Exception as error:  # such as OneCycleLR's at its end
                seen.update(describe(error).encode())
    return seen.hexdigest()


# --------------------------------------------------------------------------------- a mutant


@functools.cache
def plan() -> Plan:
    """What the default run checks and what is known, for the controls too."""
    return make_plan(Selection(tuple(all_subjects())))


def pairs_of(reference: str) -> dict[int, Pair]:
    """The pairs of a subject with the checks of the default run."""
    (named,) = (each for each in plan().subjects if reference in (each.name, each.reference))
    return {number: (named, check) for number, check in enumerate(plan().checks_of(named))}


def settings() -> ordering.WorkerSettings:
    """The settings of the default run."""
    return ordering.WorkerSettings(
        tuple(check.name for check in plan().checks), ledger=plan().ledger
    )


def try_mutant(task: Task) -> Outcome:
    """What becomes of a mutant in this process, which it changes."""
    assert task.mutant is not None
    started = time.process_time()
    scheduler_mutants.apply(task.mutant)
    found = Outcome(task.mutant.name, Fate.SURVIVED)
    differs = (name for name in task.digests if digest(all_subjects()[name]) != task.digests[name])
    if (reference := next(differs, None)) is not None:
        found = replace(found, fate=Fate.DISCARDED, by=f"the plain run of {reference}")
    else:
        found = noticed(found, list(task.digests)[: task.most])
    return replace(found, seconds=round(time.process_time() - started, 2))


def noticed(mutant: Outcome, references: Iterable[str]) -> Outcome:
    """The mutant, killed by the first pair of these subjects that fails, or as it was.

    One that is not killed but makes a pair UNKNOWN has that pair as `Outcome.by`.
    """
    for reference in references:
        for checked in Checker(settings(), 0).check(pairs_of(reference), Budget(time_limit=LIMIT)):
            result, shown = checked.result, checked.result.counterexample
            by = f"{result.subject} {result.check}"
            if result.verdict in (Verdict.BROKEN, Verdict.STALE):
                return replace(
                    mutant, fate=Fate.KILLED, by=by, verdict=str(result.verdict),
                    trace="" if shown is None else str(shown.trace), pair=(reference, result.check),
                )  # fmt: skip
            if result.verdict == Verdict.UNKNOWN and not mutant.by:
                reason = result.reason.replace(f"{ROOT}{os.sep}", "")
                mutant = replace(mutant, by=f"{by} is UNKNOWN: {reason}")
    return mutant


def verdict_without(pair: tuple[str, str]) -> str:
    """The verdict on a pair without a mutant."""
    all_pairs = pairs_of(pair[0])
    pairs = {number: each for number, each in all_pairs.items() if each[1].name == pair[1]}
    (checked,) = Checker(settings(), 0).check(pairs, Budget(time_limit=LIMIT))
    return str(checked.result.verdict)


def work(task: Task, tell: Tell) -> None:
    """Do a task, and tell what was drawn, for the next."""
    before = set(DRAWN_ROUNDS)
    tell(try_mutant(task) if task.mutant is not None else verdict_without(task.pair))
    tell({key: DRAWN_ROUNDS[key] for key in DRAWN_ROUNDS if key not in before})


def run(tasks: Iterable[Task], jobs: int) -> Iterator[tuple[Task, object]]:
    """Each task with what its process told."""
    ordering.warm_up()
    plan()  # here, so that no process makes it
    with Pool(work, jobs, PATIENCE) as pool:
        for task in tasks:
            pool.add(task)
        for task, message in pool:
            if isinstance(message, dict):
                DRAWN_ROUNDS.update(message)
            else:
                yield task, message


# ---------------------------------------------------------------------------------- reports


Reasons = Mapping[str, tuple[Fate, str]]
"""Why each mutant that isn't killed is equivalent or has survived, by its name."""


def reasons(names: Iterable[str]) -> Reasons:
    """What the file of reasons says; raises `UsageError` if it names no mutant of `names`."""
    groups = tomllib.loads(REASONS.read_text())
    found = {
        name: (fate, group["because"])
        for table, fate in (("equivalent", Fate.EQUIVALENT), ("survivor", Fate.SURVIVED))
        for group in groups.get(table, [])
        for name in group["mutants"]
    }
    if unknown := sorted(set(found) - set(names)):
        raise click.UsageError(f"{REASONS.name} names {unknown[0]!r}, which is not a mutant")
    return found


def tasks_of(mutants: Sequence[Mutant], most: int | None = None) -> Iterator[Task]:
    """A task for each mutant, which checks at most `most` subjects."""
    digests: dict[str, str] = {}
    for mutant in mutants:
        used_by = users_of(mutant)
        for reference in used_by:
            if reference not in digests:
                digests[reference] = digest(all_subjects()[reference])
        yield Task(mutant, {reference: digests[reference] for reference in used_by}, most)


def outcome_of(task: Task, message: object) -> Outcome:
    """The outcome that a task told, or that its death means."""
    assert task.mutant is not None
    if isinstance(message, Died):
        return Outcome(task.mutant.name, Fate.SURVIVED, f"its process {message.how}")
    assert isinstance(message, Outcome)
    return message


def judged(outcome: Outcome, because: Reasons) -> Outcome:
    """The outcome; one that isn't killed has its reason, if there is one, as its `by`."""
    if outcome.fate not in (Fate.SURVIVED, Fate.EQUIVALENT):
        return outcome
    if outcome.name in because:
        fate, reason = because[outcome.name]
        return replace(outcome, fate=fate, by=reason)
    return replace(
        outcome, fate=Fate.SURVIVED, by=outcome.by if outcome.fate == Fate.SURVIVED else ""
    )


def dumped(outcomes: Iterable[Outcome]) -> str:
    """The outcomes as JSON."""
    return json.dumps([asdict(outcome) for outcome in outcomes], indent=1) + "\n"


def loaded(path: Path) -> list[Outcome]:
    """The outcomes that a run wrote as JSON."""
    rows = json.loads(path.read_text())
    return [
        Outcome(**{**row, "fate": Fate(row["fate"]), "pair": tuple(row["pair"])}) for row in rows
    ]


def rate(outcomes: Iterable[Outcome]) -> float:
    """The percentage of the mutants, other than equivalent and discarded ones, that were killed."""
    counts = collections.Counter(outcome.fate for outcome in outcomes)
    counted = counts[Fate.KILLED] + counts[Fate.SURVIVED]
    return 100.0 * counts[Fate.KILLED] / counted if counted else 100.0


def summary(outcomes: Sequence[Outcome]) -> str:
    """The counts in one line."""
    counts = collections.Counter(outcome.fate for outcome in outcomes)
    parts = ", ".join(f"{counts[fate]} {fate}" for fate in Fate)
    seconds = sum(outcome.seconds for outcome in outcomes)
    return f"{parts}; {rate(outcomes):.1f}% killed; {seconds:.0f} CPU seconds"


def line_of(outcome: Outcome) -> str:
    """An outcome in one line."""
    by = f"  {outcome.by}" if outcome.by else ""
    return f"{outcome.fate:10} {outcome.seconds:6.1f} s  {outcome.name}{by}"


def markdown(outcomes: Sequence[Outcome], mutants: Mapping[str, Mutant]) -> str:
    """The document: a table by class, one by kind, and the names of the survivors."""
    shown = [outcome for outcome in outcomes if outcome.fate != Fate.DISCARDED]
    again = sum(outcome.again for outcome in outcomes)
    kept = (
        f"{again} of them were tried again (`--again`) after a change of the harness or of this "
        "script; the other outcomes are of the run before it."
    )
    lines = [
        "# Mutants of the schedulers",
        "",
        "`python scripts/mutate_schedulers.py --markdown lr_schedules/mutants.md` made this page, "
        f"on torch {torch.__version__.partition('+')[0]}.",
        "Each mutant has one change in the source of a scheduler that leaves the uninterrupted "
        "run as it is. It is",
        "killed if the default run of `check` reports a pair as BROKEN or STALE because of it.",
        "It is discarded if it also changes the uninterrupted run, and equivalent if no resumed",
        "run can show it.",
        f"{len(outcomes)} of {len(mutants)} changes were tried: {summary(outcomes)}.",
        *([kept] if again else []),
        "",
    ]
    by_class = {outcome.name: outcome.name.partition(":")[0] for outcome in shown}
    by_kind = {outcome.name: mutants[outcome.name].kind for outcome in shown}
    for title, key in (("class", by_class), ("kind", by_kind)):
        lines += [f"| {title} | killed | equivalent | survived |", "| --- | --: | --: | --: |"]
        for group in dict.fromkeys(key.values()):
            of_it = [outcome for outcome in shown if key[outcome.name] == group]
            counts = collections.Counter(outcome.fate for outcome in of_it)
            row = (counts[fate] for fate in (Fate.KILLED, Fate.EQUIVALENT, Fate.SURVIVED))
            lines.append(f"| {group} | {' | '.join(map(str, row))} |")
        lines.append("")
    survivors = [outcome for outcome in shown if outcome.fate == Fate.SURVIVED]
    lines += ["## Survivors" if survivors else "No mutant survived.", ""]
    if survivors:
        lines += ["`--list --only NAME` prints the source of one.", ""]
    lines += [f"- `{each.name}`{f': {each.by}' if each.by else ''}" for each in survivors]
    return "\n".join(lines).rstrip("\n") + "\n"


@click.command()
@click.option("--only", metavar="NAME", multiple=True,
              help="Try only mutants with this in their name; repeatable.")  # fmt: skip
@click.option("--jobs", type=click.IntRange(min=1), default=os.cpu_count() or 1,
              show_default="all cores", help="How many mutants to try at a time.")  # fmt: skip
@click.option("--from", "from_file", type=click.Path(path_type=Path, exists=True),
              help="Run nothing: read the outcomes that --json wrote.")  # fmt: skip
@click.option("--again", is_flag=True,
              help="With --from: try those that survived again, keep the others.")  # fmt: skip
@click.option("--json", "json_file", type=click.Path(path_type=Path),
              help="Write the outcomes as JSON.")  # fmt: skip
@click.option("--markdown", "markdown_file", type=click.Path(path_type=Path),
              help="Write the tables and the survivors as Markdown.")  # fmt: skip
@click.option("--sample", metavar="N", type=click.IntRange(min=1),
              help="Try only N mutants, always the same.")  # fmt: skip
@click.option("--subjects", "most", metavar="N", type=click.IntRange(min=1),
              help="Check at most N of the subjects that use a class.  [default: all]")  # fmt: skip
@click.option("--at-least", type=click.FloatRange(0, 100), default=97.0, show_default=True,
              help="The percentage that must be killed.")  # fmt: skip
@click.option("--list", "list_", is_flag=True, help="Print the names and the sources, and stop.")
def main(
    only: tuple[str, ...],
    jobs: int,
    from_file: Path | None,
    again: bool,
    sample: int | None,
    most: int | None,
    json_file: Path | None,
    markdown_file: Path | None,
    at_least: float,
    list_: bool,
) -> None:
    """Change the schedulers, one mutant at a time, and see whether the check notices."""
    everything = {mutant.name: mutant for mutant in scheduler_mutants.all_mutants()}
    because = reasons(everything)
    chosen = [name for name in everything if not only or any(part in name for part in only)]
    if sample is not None:
        chosen = sorted(chosen, key=lambda name: hashlib.sha256(name.encode()).digest())[:sample]
    if not chosen:
        raise click.UsageError(f"no mutant's name contains {' or '.join(map(repr, only))}")
    if list_:
        for name in chosen:
            click.echo(f"{name}\n{textwrap.indent(everything[name].source, '    ')}")
        return
    kept = [] if from_file is None else [each for each in loaded(from_file) if each.name in chosen]
    survived = [each.name for each in kept
                if again and Fate.SURVIVED in (each.fate, judged(each, because).fate)]  # fmt: skip
    kept = [each for each in kept if each.name not in survived]
    outcomes = [judged(outcome, because) for outcome in kept]
    names = chosen if from_file is None else survived
    tried = []
    for task, message in run(tasks_of([everything[name] for name in names], most), jobs):
        tried.append(replace(judged(outcome_of(task, message), because), again=again))
        outcomes.append(tried[-1])
        click.echo(line_of(tried[-1]))
        if json_file is not None:  # now, so that a run that is stopped loses nothing
            json_file.write_text(dumped(outcomes))
    outcomes.sort(key=lambda outcome: chosen.index(outcome.name))
    if json_file is not None:
        json_file.write_text(dumped(outcomes))
    if markdown_file is not None:
        markdown_file.write_text(markdown(outcomes, everything))
    click.echo(summary(outcomes))
    pairs = sorted({outcome.pair for outcome in tried if outcome.fate == Fate.KILLED})
    wrong = False
    for task, message in run([Task(None, {}, pair=pair) for pair in pairs], jobs):
        if message in (Verdict.BROKEN, Verdict.STALE) or isinstance(message, Died):
            click.echo(f"{' '.join(task.pair)}: {message} without any mutant", err=True)
            wrong = True
    sys.exit(2 if wrong else rate(outcomes) < at_least)


if __name__ == "__main__":
    main()
