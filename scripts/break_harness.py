"""Breaks the harness, one small edit at a time, and checks that a test fails each time.

    python scripts/break_harness.py

Each edit is made in a copy of the working tree, and the test that it names is run there. The
exit status is 1 if an edit survives, if it no longer applies, or if its test fails without the
edit. When this script was new, seven of the first fifty edits survived.
"""

from __future__ import annotations

import concurrent.futures
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("harness", "lr_schedules", "tests", "scripts", "pyproject.toml", "README.md", "LICENSE")


@dataclass(frozen=True)
class Edit:
    """One way to break the harness: in `file` (in ``harness/``), `old` becomes `new`.

    `test` is the test that must fail.
    """

    what: str
    file: str
    old: str
    new: str
    test: str

    def problem(self) -> str:
        """Why the edit can't be made, or nothing."""
        count = (ROOT / "harness" / self.file).read_text().count(self.old)
        return (
            ""
            if count == 1
            else f"its text occurs {count} times in harness/{self.file} instead of once"
        )


RUN, CHECK = "tests/core/test_run.py::", "tests/test_check.py::"
RECORD = "tests/test_selftest.py::test_the_trace_of_a_record_breaks_its_check_and_not_the_repair"
SHOWS = RUN + "test_a_break_is_found_where_it_shows"
EDITS = (
    # What is compared.
    Edit("skip the second group", "core/training_loop.py",
         "for group in optimizer.param_groups if name in group",
         "for group in optimizer.param_groups[:1] if name in group",
         "tests/core/test_training_loop.py::test_an_observation_holds_every_group"),
    Edit("compare with a tolerance", "core/run.py",
         "return bool(expected == actual or",
         "return bool(expected == actual or isinstance(expected, float) and "
         "math.isclose(expected, actual, rel_tol=1e-6) or",
         f"{RECORD}[SavesInSinglePrecision]"),
    Edit("leave out momentum", "core/training_loop.py",
         '("lr", "momentum", "betas", "weight_decay")', '("lr", "betas", "weight_decay")',
         "tests/core/test_training_loop.py::test_an_observation_holds_every_group"),
    Edit("leave out weight decay", "core/training_loop.py",
         '("lr", "momentum", "betas", "weight_decay")', '("lr", "momentum", "betas")',
         f"{RECORD}[DecayNotSaved]"),
    Edit("treat a tensor like a float", "core/training_loop.py",
         'return {"tensor": value.tolist(), "dtype": str(value.dtype)}', "return value.tolist()",
         "tests/core/test_training_loop.py::test_an_observation_holds_what_the_optimizer_will_use"),
    Edit("leave out get_last_lr", "core/training_loop.py",
         'if hasattr(scheduler, "get_last_lr"):', 'if hasattr(scheduler, "last_lr"):',
         f"{RECORD}[StaleReport]"),
    Edit("leave out the weights", "engine/one_run.py",
         "        if not self.weights:\n", "        if True:\n",
         RUN + "test_every_group_and_the_weights_are_compared"),
    Edit("compare no values", "engine/one_run.py",
         "        if not same(expected, actual):\n", "        if not same(expected, expected):\n",
         SHOWS),
    Edit("look only after steps", "engine/one_run.py",
         "        self._look(self._expected())\n", "",
         f"{RECORD}[FirstGroupForAll]"),
    # The uninterrupted run.
    Edit("let the two runs share their scheduler", "engine/runner.py",
         'scheduler = self._make("build", self.bound.build, optimizer)',
         'scheduler = self.made = getattr(self, "made", None) or '
         'self._make("build", self.bound.build, optimizer)',
         CHECK + "test_correct_schedulers_raise_no_alarm"),
    Edit("take any uninterrupted run for the branch", "engine/runner.py",
         "if known.path.startswith(path):", "if len(known.path) >= len(path):",
         RUN + "test_references_are_reused_where_one_begins_with_another"),
    Edit("forget that going back cuts the branch", "core/operations.py",
         "            path = slots[operation.slot]\n", "            pass\n",
         CHECK + "test_correct_schedulers_raise_no_alarm"),
    Edit("go on with the gradients of the interrupted run", "engine/one_run.py",
         '        self.index = gradients(self.path)\n', "",
         CHECK + "test_correct_schedulers_raise_no_alarm"),
    Edit("do not restore the weights", "engine/one_run.py",
         "            restore_parameters(self.optimizer, checkpoint)\n", "            pass\n",
         CHECK + "test_correct_schedulers_raise_no_alarm"),
    # Copies of checkpoints.
    Edit("drop the deep copy", "core/training_loop.py",
         "        return copy.deepcopy(value)\n", "        return value\n",
         RUN + "test_each_resume_gets_its_own_copy_of_the_checkpoint"),
    Edit("copy the dict for each run that should share it", "engine/one_run.py",
         "if route.same_dict:", "if False:",
         SHOWS),
    # Rare events.
    Edit("sweep no rare events", "engine/search.py",
         "in sweep_events(check, case.events):", "in ():",
         "tests/test_events.py::test_each_fault_of_an_event_is_found_through_that_event_alone"),
    Edit("resume without the groups that were added", "engine/one_run.py",
         "if groups := groups_added(self.path):", "if groups := 0:",
         "tests/test_events.py::test_each_fault_of_an_event_is_found_through_that_event_alone"),
    Edit("let a resumed run go on after the schedule ends", "engine/one_run.py",
         "            if beyond:\n", "            if beyond and False:\n",
         "tests/test_events.py::test_a_resumed_run_ends_where_the_uninterrupted_one_does"),
    Edit("do not count a lone scheduler step as an epoch", "core/operations.py",
         "scheduler_alone, epochs=True", "scheduler_alone",
         "tests/core/test_operations.py::test_a_row_says_what_its_function_does"),
    Edit("write every gradient of a loop like the first", "report/script.py",
         '"index": "i" if kind.gradients else str(index)', '"index": str(index)',
         "tests/core/test_operations.py::test_a_script_performs_it"),
    # Drawn options.
    Edit("never try the subject's own options first", "engine/search.py",
         "if not subject.open and breaks({}):", "if False:",
         "tests/subjects/test_drawn_options.py::test_own_options_come_before_drawn_ones"),
    Edit("shrink no options", "engine/search.py",
         "return trace if values is None else with_options(values)", "return trace",
         "tests/subjects/test_drawn_options.py::test_options_are_shrunk"),
    Edit("blame the scheduler for the faults of a drawn optimizer", "engine/trials.py",
         "        if control is None or not excuses(control, broken, self.check):\n"
         "            return True\n", "        return True\n",
         "tests/subjects/test_drawn_options.py::test_what_a_drawn_optimizer_does_itself_is_excused"),
    # Sweep, search, minimise.
    Edit("sweep from the second epoch on", "engine/sweep.py",
         "range(check.from_epoch, epochs + 1)", "range(check.from_epoch + 1, epochs + 1)",
         "tests/test_sweep.py::test_every_epoch_is_a_save_point_the_first_and_the_last_too"),
    Edit("resume once", "engine/sweep.py",
         "*save, *back, *again, *rest, *back, *to_the_end)", "*save, *back, *to_the_end)",
         CHECK + "test_a_fault_of_the_second_resume_is_found_by_the_sweep"),
    Edit("ignore the seed", "engine/machine.py",
         'seed(f"{seed_number} {done}")', 'seed(f"{done}")',
         "tests/test_machine.py::test_the_same_seed_draws_the_same_traces"),
    Edit("draw from the numbers of local modules", "engine/machine.py",
         "        with without_local_constants():\n            run_state",
         "        if True:\n            run_state",
         "tests/test_machine.py::test_the_same_seed_draws_the_same_traces_whatever_is_imported"),
    Edit("search nothing", "engine/search.py",
         'if check.kind == "resume" and check.search and budget.max_examples:', "if False:",
         CHECK + "test_the_search_finds_what_the_sweep_cannot"),
    Edit("mix each way only with itself", "engine/sweep.py",
         "        for second in ways:\n", "        for second in [first]:\n",
         "tests/test_sweep.py::test_every_way_follows_every_other"),
    Edit("let minimise return its input", "engine/search.py",
         "    smaller = True\n    while smaller:", "    smaller = False\n    while smaller:",
         "tests/test_minimise.py::test_what_comes_out_breaks_and_nothing_smaller_does"),
    Edit("merge nothing", "engine/search.py",
         "        if merged:\n", "        if False:\n",
         "tests/test_minimise.py::test_neighbours_are_all_there_is"),
    # Verdicts.
    Edit("swallow the subject's exception", "engine/one_run.py",
         '        actual = {"raises": describe(error)}\n', "        return\n",
         RUN + "test_an_exception_of_the_subject_is_shown"),
    Edit("report HOLDS on an empty run", "engine/verdict.py",
         "if trials.tally.traces and trials.tally.steps and trials.tried():", "if True:",
         CHECK + "test_nothing_tried_is_no_hold"),
    Edit("report HOLDS for an error of the harness", "engine/verdict.py",
         "        decision = undecided(error, trials.limit.so_far())\n    return result_of",
         "        decision = Decision(Verdict.HOLDS)\n    return result_of",
         CHECK + "test_an_error_of_the_harness_is_unknown_and_says_where"),
    Edit("accept a schedule that depends on the clock", "engine/option_sets.py",
         "if first.error != again.error or not same(first.observations, again.observations):",
         "if False:",
         CHECK + "test_what_does_not_depend_on_the_steps_alone_is_unknown"),
    Edit("blame the scheduler for the optimizer's faults", "engine/trials.py",
         "        if control is None:\n            return False\n", "        return False\n",
         CHECK + "test_what_the_optimizer_raises_is_not_charged_to_the_scheduler"),
    Edit("excuse any failure if a scheduler that does nothing also fails", "engine/trials.py",
         "        if broken is not None and not excuses(control, broken, self.check):\n"
         "            return False\n", "",
         CHECK + "test_the_control_excuses_no_subject_for_what_a_constant_schedule_lacks"),
    Edit("ignore the deadline", "engine/runner.py",
         "        if time.monotonic() > self.deadline:\n", "        if False:\n",
         RUN + "test_a_run_stops_at_the_deadline"),
    Edit("decline nothing", "engine/verdict.py",
         "    if check.name in declines:\n", "    if False:\n",
         CHECK + "test_declined_checks_have_their_reason"),
    # The ledger.
    Edit("believe an entry that shows something else", "engine/verdict.py",
         "    if shows_of(replay.found) != entry.shows:\n", "    if False:\n",
         "tests/core/test_ledger.py::test_an_entry_that_is_not_true_is_stale"),
    Edit("believe the ranges of a ledger", "engine/verdict.py",
         "    told = max((r for r in replays if r.found),", "    told = max((r for r in ()),",
         "tests/core/test_ledger.py::test_an_entry_about_other_versions_that_breaks_here_has_too_short_a_range"),
    Edit("replay events that the scheduler can't handle", "engine/verdict.py",
         "        for kind, reason in find_untried(bound, trials.runner(bound), kinds).items():\n",
         "        for kind, reason in ():\n",
         "tests/core/test_ledger.py::test_an_event_that_cannot_be_with_these_options_breaks_nothing"),
    Edit("accept entries with overlapping ranges", "core/ledger.py",
         "if other != index and overlap(", "if False and overlap(",
         "tests/core/test_ledger.py::test_ranges_of_one_pair_must_not_overlap"),
    Edit("take every failure for the known one", "engine/trials.py",
         "        if known and alike(self.check.promise, known, evidence(self, trace, broken)):\n",
         "        if known:\n",
         "tests/core/test_ledger.py::test_a_second_defect_behind_a_known_one_is_found_where_it_is_searched"),
    Edit("pass a run with a stale entry", "cli/show.py",
         "verdicts & {Verdict.BROKEN, Verdict.STALE}:", "Verdict.BROKEN in verdicts:",
         "tests/core/test_ledger.py::test_a_stale_entry_fails_the_run"),
    # What is reported.
    Edit("exit with 0 although something is broken", "cli/show.py",
         "        return BROKEN_FOUND\n", "        return OK\n",
         "tests/test_cli.py::test_a_broken_check_exits_1_with_all_that_is_needed"),
    Edit("exit with 0 although something is unknown", "cli/show.py",
         "    return FAILED if Verdict.UNKNOWN in verdicts else OK\n", "    return OK\n",
         "tests/test_cli.py::test_unknown_exits_2_and_broken_comes_first"),
    Edit("write scripts that always exit with 0", "report/script_helpers.py",
         "    return int(bug)\n",
         "    return 0\n",
         "tests/test_script.py::test_a_subject_that_is_no_lr_scheduler_has_a_script"),
    Edit("take a false alarm for exact", "engine/selftest.py",
         "return not (self.missed or self.alarms or", "return not (self.missed or",
         "tests/test_selftest.py::test_a_false_alarm_is_said"),
    Edit("take a missed fault for exact", "engine/selftest.py",
         "return tuple(name for name in self.expected if name not in self.caught_by)",
         "return ()",
         "tests/test_selftest.py::test_a_fault_that_is_missed_is_said"),
    Edit("report an undecided check as a failure in pytest", "pytest_plugin.py",
         "report.lr_resume_undecided = undecided", "report.lr_resume_undecided = False",
         "tests/test_pytest_plugin.py::test_each_verdict_has_its_outcome"),
    Edit("pass a broken check in pytest", "parametrize.py",
         "if result.counterexample is not None:\n            text",
         "if result.replays:\n            text",
         "tests/test_pytest_plugin.py::test_each_verdict_has_its_outcome"),
    Edit("prepare a subject for each of its tests", "parametrize.py",
         "key = (id(subject), self.wanted, self.names)",
         "key = (id(self), self.wanted, self.names)",
         "tests/test_pytest_plugin.py::test_a_subject_is_prepared_once"),
    Edit("mistake a user's class for PyTorch's class of the same name", "subjects/registered.py",
         "return one.name == other.name and _built(one) is _built(other)",
         "return one.name == other.name",
         "tests/test_pytest_plugin.py::test_a_name_of_pytorchs_is_no_entry_of_pytorchs"),
    # Other parts of the gate.
    Edit("write a file in place", "core/files.py",
         "if path.exists() and not path.is_file():", "if path.exists():",
         "tests/test_killed.py::test_half_a_file_takes_no_name"),
    Edit("report HOLDS for a pair that the time budget did not reach", "engine/ordering.py",
         "subject.name, check.name, Verdict.UNKNOWN, reason, torch",
         "subject.name, check.name, Verdict.HOLDS, reason, torch",
         "tests/test_profiles.py::test_what_was_not_got_to_is_said"),
    Edit("leave one pair out of all shards", "engine/ordering.py",
         "return list(pairs[number - 1 :: count])", "return list(pairs[number::count])",
         "tests/test_profiles.py::test_shards_part_the_pairs"),
    Edit("merge although a shard is missing", "report/merge.py",
         "    if missing:\n", "    if missing and not parts:\n",
         "tests/test_profiles.py::test_what_is_no_whole_run_is_refused"),
    Edit("do not save what the explorer finds", "engine/search.py",
         "self.database.save(_key(subject, check), str(trace).encode())", "pass",
         "tests/test_profiles.py::test_an_explorer_that_is_killed_has_kept_what_it_found"),
    Edit("do not restore the default dtype that a subject changed", "core/guard.py",
         "(torch.get_default_dtype, torch.set_default_dtype),",
         "(torch.get_default_dtype, lambda dtype: None),",
         "tests/test_hostile.py::test_what_a_subject_changes_is_as_before"),
    Edit("let a subject's output through", "core/guard.py",
         "contextlib.redirect_stdout(heard)", "contextlib.redirect_stdout(sys.stdout)",
         "tests/test_hostile.py::test_what_is_printed_is_said_once_a_subject"),
    Edit("annotate checks that hold", "report/github.py",
         "if result.verdict in WRONG]", "if result.verdict]",
         "tests/test_github.py::test_what_is_as_it_must_be_has_no_annotation"),
    Edit("pass a package whose schedulers could not be built", "cli/check.py",
         "        status = status or FAILED\n", "        pass\n",
         "tests/subjects/test_discover.py::test_what_cannot_be_built_is_no_pass"),
    Edit("interrupt only once", "cli/interrupts.py",
         "    timer.start()\n", "",
         "tests/test_killed.py::test_an_interrupt_is_not_lost"),
    Edit("interrupt the import of torch", "cli/interrupts.py",
         'if not hasattr(sys.modules.get("harness.checks.registry"), "CHECKS"):', "if False:",
         "tests/test_killed.py::test_a_signal_ends_the_import_of_torch_at_once"),
    Edit("draw nothing from type hints", "subjects/type_hints.py",
         "return simple[hint]", "return None",
         "tests/subjects/test_discover.py::test_every_scheduler_of_a_package_is_found"),
    Edit("compare attributes that the methods do not read", "engine/counterexample.py",
         "sorted(_read(type(uninterrupted)) & must.keys())", "sorted(must.keys())",
         "tests/test_attributes.py::test_what_the_methods_of_the_class_do_not_read_is_no_evidence"),
)  # fmt: skip


def copy_of_the_tree(folder: Path) -> None:
    """Copy what the tests need into an empty folder."""
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=ignore)
        else:
            shutil.copy(source, folder / part)


def run_tests(folder: Path, tests: Sequence[str]) -> tuple[int, str]:
    """The exit status of pytest and the end of its output."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout[-1500:] + done.stderr[-500:]


def survives(edit: Edit) -> str:
    """What is wrong if the edit's test does not fail; empty if it fails."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy_of_the_tree(folder)
        file = folder / "harness" / edit.file
        file.write_text(file.read_text().replace(edit.old, edit.new))
        status, output = run_tests(folder, [edit.test])
    if status == 0:
        return f"it survives {edit.test}"
    if status != 1:  # no test failed, but pytest could not run it
        return f"{edit.test} could not be run:\n{output}"
    return ""


@click.command()
@click.option("--jobs", type=click.IntRange(min=1), default=os.cpu_count() or 1,
              show_default="all cores", help="How many edits to try at a time.")  # fmt: skip
def main(jobs: int) -> None:
    """Break the harness with each of `EDITS`, and check that a test notices."""
    problems = [f"{edit.what}: {edit.problem()}" for edit in EDITS if edit.problem()]
    with tempfile.TemporaryDirectory() as name:
        copy_of_the_tree(Path(name))
        status, output = run_tests(Path(name), list(dict.fromkeys(edit.test for edit in EDITS)))
    if status:
        problems.append(f"the tests fail, or can't be run, without any edit:\n{output}")
    if not problems:
        with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
            for edit, problem in zip(EDITS, pool.map(survives, EDITS), strict=True):
                click.echo(f"{'SURVIVES' if problem else 'noticed '} {edit.what}")
                if problem:
                    problems.append(f"{edit.what}: {problem}")
    for problem in problems:
        click.echo(problem, err=True)
    click.echo(f"{len(EDITS)} edits, {len(problems)} problems")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
