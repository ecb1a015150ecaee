"""Ways to break the harness: each puts a function that misbehaves in the place of one of its own.

An edit is a function decorated with `edit`. It is given the original function and the arguments
of the call. `install` makes the edit in this process: the function is replaced as soon as its
module is imported, so every other module imports the edited one.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.abc
import importlib.machinery
import inspect
import math
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, SupportsIndex

__all__ = ["EDITS", "Edit", "edit", "edit_value", "install", "noting_mistakes", "why_not_callable"]


@dataclass(frozen=True)
class Edit:
    """One way to break the harness.

    `target` is ``module:name`` of a function, a method or, if `value` is True, of a value, in the
    namespace where it is replaced. `test` is the name of the test that must fail.
    """

    function: Callable[..., Any]
    target: str
    test: str
    value: bool = False

    @property
    def name(self) -> str:
        """The name of the edit's function, as words."""
        return self.function.__name__.replace("_", " ")

    def put(self, module: ModuleType) -> None:
        """Replace the target in its module."""
        owner: Any = module
        *path, name = self.target.rpartition(":")[2].split(".")
        for part in path:
            owner = getattr(owner, part)
        original = vars(owner)[name]
        if self.value:
            new = self.function(original)
        elif isinstance(original, property):
            new = property(_replacement(self.function, original.fget))
        else:
            new = _replacement(self.function, original)
        setattr(owner, name, new)


def _replacement(function: Callable[..., Any], original: Any) -> Callable[..., Any]:
    @functools.wraps(original)
    def replacement(*args: Any, **kwargs: Any) -> Any:
        with noting_mistakes():
            made = function(original, *args, **kwargs)
        return _watched(made) if inspect.isgenerator(made) else made

    return replacement


def _watched(made: Iterator[Any]) -> Iterator[Any]:
    with noting_mistakes():
        yield from made


HERE = Path(__file__).resolve()
OURS = [HERE.parent.parent / name for name in ("harness", "lr_schedules", "tests", "scripts")]
MISTAKES = (AttributeError, ImportError, LookupError, NameError, TypeError)
noted: list[Path] = []
"""The file for the mistakes in an edit, if there is one."""


@contextlib.contextmanager
def noting_mistakes() -> Iterator[None]:
    """Write an exception of `MISTAKES` to the file in `noted` if the code of an edit raises it.

    That is so if no function of the harness or of a test that the edit calls is being run.
    """
    try:
        yield
    except MISTAKES as error:
        frames = [Path(frame.filename) for frame in traceback.extract_tb(error.__traceback__)]
        ours = [path for path in frames if any(folder in path.parents for folder in OURS)]
        if noted and ours[-1] == HERE:
            with noted[0].open("a") as file:
                file.write("".join(traceback.format_exception(error)))
        raise


def why_not_callable(edit: Edit, original: object) -> str:
    """Why the edit can't take the arguments of the function that it replaces; empty if it can."""
    if edit.value or not isinstance(original, FunctionType):
        return ""
    takes = inspect.signature(edit.function)
    parameters = list(inspect.signature(original).parameters.values())
    named = {each.name: None for each in parameters if each.kind is each.KEYWORD_ONLY}
    by_place = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    placed = [each for each in parameters if each.kind in by_place]
    try:
        takes.bind(original, *placed, **named)
    except TypeError as error:
        return f"the edit can't be called like {edit.target}: {error}"
    return ""


EDITS: list[Edit] = []


def edit(target: str, test: str, *, value: bool = False) -> Callable[[Any], Any]:
    """Make a function an edit of `target` that makes `test` fail."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        EDITS.append(Edit(function, f"harness.{target}", test, value))
        return function

    return register


edit_value = functools.partial(edit, value=True)
"""The same for a value: the function is given the original and returns another."""


class _Finder(importlib.abc.MetaPathFinder):
    """Makes an edit as soon as the module of its target is imported."""

    def __init__(self, edit: Edit) -> None:
        self.edit = edit

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self.edit.target.partition(":")[0]:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            self.edit.put(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


class _Finders(list[Any]):
    """``sys.meta_path`` whose first finder stays first: pytest inserts its own at 0."""

    def insert(self, index: SupportsIndex, finder: Any) -> None:
        super().insert(max(int(index), 1), finder)


def install(number: int, mistakes: str | Path) -> None:
    """Make edit `number` of `EDITS` in this process; write what it raises itself to a file."""
    noted[:] = [Path(mistakes)]
    sys.meta_path = _Finders([_Finder(EDITS[number]), *sys.meta_path])


HYPERPARAMETERS = ("lr", "momentum", "betas", "weight_decay")
GROUPS = "test_an_observation_holds_every_group"
CORRECT = "test_correct_schedulers_raise_no_alarm"
SHOWS = "test_a_break_is_found_where_it_shows"
RECORD = "test_the_trace_of_a_record_breaks_its_check_and_not_the_repair"
EVENT = "test_each_fault_of_an_event_is_found_through_that_event_alone"
OUTCOMES = "test_each_verdict_has_its_outcome"

# ------------------------------------------------------------------------ what is compared


@edit("core.training_loop:observe", GROUPS)
def skip_the_second_group(original, optimizer, scheduler):
    seen = original(optimizer, scheduler)
    return {name: seen[name][:1] if name in HYPERPARAMETERS else seen[name] for name in seen}


@edit("core.run:same", f"{RECORD}[SavesInSinglePrecision]")
def compare_with_a_tolerance(original, expected, actual):
    floats = isinstance(expected, float) and isinstance(actual, float)
    return original(expected, actual) or (floats and math.isclose(expected, actual, rel_tol=1e-6))


@edit("core.training_loop:observe", GROUPS)
def leave_out_momentum(original, optimizer, scheduler):
    seen = original(optimizer, scheduler)
    return {name: seen[name] for name in seen if name != "momentum"}


@edit("core.training_loop:observe", f"{RECORD}[DecayNotSaved]")
def leave_out_weight_decay(original, optimizer, scheduler):
    seen = original(optimizer, scheduler)
    return {name: seen[name] for name in seen if name != "weight_decay"}


@edit("core.training_loop:observe", f"{RECORD}[StaleReport]")
def leave_out_get_last_lr(original, optimizer, scheduler):
    seen = original(optimizer, scheduler)
    return {name: seen[name] for name in seen if name != "get_last_lr"}


@edit("core.training_loop:numbers", "test_an_observation_holds_what_the_optimizer_will_use")
def treat_a_tensor_like_a_float(original, value):
    value = original(value)
    return value.get("tensor", value) if isinstance(value, dict) else value


@edit("engine.one_run:TraceRun._differs", "test_every_group_and_the_weights_are_compared")
def leave_out_the_weights(original, self, expected, seen):
    original(self, {**expected, "weights": []}, {**seen, "weights": []})


@edit("engine.one_run:TraceRun._values", SHOWS)
def compare_no_values(original, self):
    from harness.engine.one_run import Stop

    with contextlib.suppress(Stop):
        original(self)


@edit("engine.one_run:TraceRun._go_back", f"{RECORD}[FirstGroupForAll]")
def look_only_after_steps(original, self, slot, route):
    self._look = lambda expected: None
    original(self, slot, route)
    del self._look


# -------------------------------------------------------------------- the uninterrupted run


@edit("engine.one_run:Runner.start", CORRECT)
def let_the_two_runs_share_their_scheduler(original, self):
    optimizer, scheduler = original(self)
    self.shared = getattr(self, "shared", scheduler)
    return optimizer, self.shared


@edit(
    "engine.one_run:Runner.uninterrupted",
    "test_uninterrupted_runs_are_reused_where_one_begins_with_another",
)
def take_any_uninterrupted_run_that_is_long_enough(original, self, path):
    known = (run for run in self._runs.values() if len(run.path) >= len(path))
    return next(known, None) or original(self, path)


@edit("core.operations:walk", CORRECT)
def forget_that_a_resume_goes_back(original, operations):
    path = ""
    for operation, before, after in original(operations):
        start, path = path, path + after[len(before) :]
        yield operation, start, path


@edit("engine.one_run:TraceRun._go_back", CORRECT)
def go_on_with_the_gradients_of_the_interrupted_run(original, self, slot, route):
    index = self.index
    original(self, slot, route)
    self.index = index


@edit("engine.one_run:restore_parameters", CORRECT)
def do_not_restore_the_weights(original, optimizer, checkpoint):
    pass


# ------------------------------------------------------- optimizer steps that are not computed


@edit("engine.one_run:_compute_nothing", "test_the_hooks_of_an_optimizer_are_called")
def call_no_hooks(original, optimizer, *arguments):
    pass


@edit("engine.option_sets:_alike", "test_a_schedule_that_depends_on_computed_steps_gets_them")
def regard_every_schedule_as_independent_of_computed_steps(original, first, second, **options):
    return True


@edit(
    "engine.pair_tester:PairTester.run",
    "test_what_breaks_only_without_computed_steps_is_not_reported",
)
def believe_what_breaks_without_computed_steps(original, self, trace):
    from harness.engine.runs import run_trace

    if self.needs_compute(trace):
        return original(self, trace)
    runner = self.runners.of(self.bound(trace), self.limit.deadline, compute=False)
    return run_trace(runner, self.check, trace)


# ------------------------------------------------------------------- copies of checkpoints


@edit("core.training_loop:snapshot", "test_a_snapshot_shares_nothing_that_can_be_copied")
def drop_the_deep_copy(original, value):
    return value


@edit("engine.one_run:Slot.checkpoint", "test_each_resume_gets_its_own_copy_of_the_checkpoint")
def give_all_resumes_the_same_checkpoint(original, self, save):
    return self.saved[save]


@edit("engine.one_run:TraceRun._go_back", SHOWS)
def copy_the_dict_that_all_resumes_share(original, self, slot, route):
    original(self, slot, replace(route, same_dict=False))


# ----------------------------------------------------------------------------- rare events


@edit("engine.search:swept_traces", EVENT)
def sweep_no_rare_events(original, *args, **kwargs):
    from harness.core.operations import EVENTS

    for trace in original(*args, **kwargs):
        if not any(operation.kind in EVENTS for operation in trace.operations):
            yield trace


@edit("engine.one_run:groups_added", EVENT)
def resume_without_the_groups_that_were_added(original, path):
    return 0


@edit("engine.one_run:TraceRun._steps", "test_a_resumed_run_ends_where_the_uninterrupted_one_does")
def let_a_resumed_run_go_on_after_the_schedule_ends(original, self, letter, count):
    from harness.engine.one_run import Stop

    try:
        original(self, letter, count)
    except Stop as stop:
        difference = stop.outcome.difference
        if (
            difference is None
            or "raises" not in difference.expected
            or "raises" in difference.actual
        ):
            raise


@edit_value("core.operations:KINDS", "test_a_row_says_what_its_function_does")
def do_not_count_a_lone_scheduler_step_as_an_epoch(original):
    return tuple(
        replace(k, steps_scheduler=False) if k.word == "scheduler" else k for k in original
    )


@edit("subjects.source_code:Source.inline", "test_a_script_performs_it")
def write_every_gradient_of_a_loop_like_the_first(original, self, function, given, *rest):
    index = "0" if given.get("index") == "i" else given.get("index", "")
    return original(self, function, {**given, "index": index}, *rest)


# --------------------------------------------------------------------------- drawn options


@edit("subjects.subject:Subject.drawn_fields", "test_own_options_come_before_drawn_ones")
def never_try_the_subjects_own_options_first(original, self):
    class Some(dict):
        def __bool__(self):
            return True

    return Some(original(self))


@edit("engine.search:shrink_options", "test_options_are_shrunk")
def shrink_no_options(original, *args):
    return None


@edit("engine.pair_tester:excuses", "test_a_fault_of_a_drawn_optimizer_itself_is_excused")
def blame_the_scheduler_for_the_faults_of_a_drawn_optimizer(original, *args):
    return False


# ---------------------------------------------------------------- sweep, search, minimise


@edit("engine.sweep:sweep", "test_every_epoch_is_a_save_point_the_first_and_the_last_too")
def sweep_from_the_second_epoch_on(original, check, epochs, beyond=0):
    return original(replace(check, from_epoch=check.from_epoch + 1), epochs, beyond)


@edit("engine.sweep:sweep", "test_a_fault_of_the_second_resume_is_found_by_the_sweep")
def resume_once(original, check, epochs, beyond=0):
    for operations in original(check, epochs, beyond):
        yield tuple(operation for operation in operations if operation.slot != "b")


@edit("engine.machine:draw_operations", "test_the_same_seed_draws_the_same_traces")
def ignore_the_seed(original, plan, count, seed_number):
    return original(plan, count, 0)


@edit(
    "engine.machine:without_local_constants",
    "test_the_same_seed_draws_the_same_traces_whatever_is_imported",
)
def draw_from_the_numbers_of_local_modules(original):
    return contextlib.nullcontext()


@edit("engine.search:drawn_traces", "test_the_search_finds_what_the_sweep_cannot")
def search_nothing(original, *args):
    return ()


@edit("engine.sweep:sweep_pairs", "test_every_way_follows_every_other")
def mix_each_way_only_with_itself(original, ways, epochs):
    for operations in original(ways, epochs):
        if len({operation.check for operation in operations if operation.check}) == 1:
            yield operations


@edit("engine.minimise:minimise", "test_what_comes_out_breaks_and_nothing_smaller_does")
def let_minimise_return_its_input(original, trace, breaks):
    return trace


@edit("engine.minimise:_merge", "test_neighbours_are_all_there_is")
def merge_nothing(original, first, second):
    return None


# -------------------------------------------------------------------------------- verdicts


@edit("engine.one_run:TraceRun._raised", "test_an_exception_of_the_subject_is_shown")
def swallow_the_subjects_exception(original, self, error, expected):
    pass


@edit("engine.verdict:_require_something_tried", "test_nothing_tried_is_no_hold")
def report_HOLDS_on_an_empty_run(original, tester):
    pass


@edit("engine.verdict:undecided", "test_an_error_of_the_harness_is_unknown_and_says_where")
def report_HOLDS_for_an_error_of_the_harness(original, error, so_far):
    from harness.core.verdict import Verdict
    from harness.engine.verdict import Decision

    return Decision(Verdict.HOLDS)


@edit("engine.option_sets:same", "test_what_does_not_depend_on_the_steps_alone_is_unknown")
def accept_a_schedule_that_depends_on_the_clock(original, expected, actual):
    return True


@edit(
    "engine.pair_tester:PairTester.excuse_weights",
    "test_what_the_optimizer_raises_is_not_charged_to_the_scheduler",
)
def blame_the_scheduler_for_the_faults_of_the_optimizer(original, self, trace):
    return False


@edit(
    "engine.pair_tester:excuses",
    "test_the_control_excuses_no_subject_for_what_a_constant_schedule_lacks",
)
def excuse_any_failure_if_a_scheduler_that_does_nothing_also_fails(original, *args):
    return True


@edit("engine.one_run:Runner.check_time", "test_a_run_stops_at_the_deadline")
def ignore_the_deadline(original, self):
    pass


@edit("engine.verdict:_declined", "test_declined_checks_have_their_reason")
def decline_nothing(original, *args):
    from harness.core.verdict import Reason

    why, reason = original(*args)
    return why, "" if why == Reason.SUBJECT_DECLINES else reason


# ------------------------------------------------------------------------------ the ledger


@edit("core.ledger:Entry.is_shown_by", "test_an_entry_whose_trace_shows_something_else_is_broken")
def believe_an_entry_that_shows_something_else(original, self, found):
    return True


@edit(
    "engine.verdict:_without_entry",
    "test_an_entry_about_other_versions_that_breaks_here_has_too_short_a_range",
)
def believe_the_ranges_of_a_ledger(original, tester, question, replays):
    return original(tester, question, ())


@edit(
    "engine.verdict:find_untried",
    "test_an_event_that_cannot_happen_with_these_options_breaks_nothing",
)
def replay_events_that_the_scheduler_cannot_handle(original, *args):
    return {}


@edit("core.ledger:overlap", "test_ranges_of_one_trace_must_not_overlap")
def accept_entries_with_overlapping_ranges(original, one, other):
    return False


@edit("core.ledger:KnownFailure.explains", "test_a_second_defect_behind_a_known_one_is_found")
def take_every_failure_for_the_known_one(original, *args, **kwargs):
    return True


@edit("cli.show:status_of", "test_a_stale_entry_fails_the_run")
def pass_a_run_with_a_stale_entry(original, results):
    return original([result for result in results if result.verdict != "STALE"])


# ------------------------------------------------------------------------- what is reported


@edit("cli.show:status_of", "test_a_broken_check_exits_1_with_all_that_is_needed")
def exit_with_0_although_something_is_broken(original, results):
    status = original(results)
    return 0 if status == 1 else status


@edit("cli.show:status_of", "test_unknown_exits_2_and_broken_comes_first")
def exit_with_0_although_something_is_unknown(original, results):
    status = original(results)
    return 0 if status == 2 else status


@edit("report.script:script_of", "test_a_subject_that_is_not_an_lr_scheduler_has_a_script")
def write_scripts_that_always_exit_with_0(original, *args, **kwargs):
    return f"{original(*args, **kwargs)}\nexit_status = 0\n"


@edit("engine.selftest:Trial.exact", "test_a_false_alarm_is_said")
def take_a_false_alarm_for_exact(original, self):
    return not (self.missed or self.unknown or self.problems)


@edit("engine.selftest:Trial.missed", "test_a_fault_that_is_missed_is_said")
def take_a_missed_fault_for_exact(original, self):
    return ()


@edit("pytest_plugin:_mark", OUTCOMES)
def report_an_undecided_check_as_a_failure_in_pytest(original, report, error):
    ours = original(report, error)
    report.lr_resume_is_error = False
    return ours


@edit("parametrize:PairCheck.__call__", OUTCOMES)
def pass_a_broken_check_in_pytest(original, self, subject):
    from harness.core.result import BrokenSchedule

    with contextlib.suppress(BrokenSchedule):
        original(self, subject)


@edit("parametrize:PairCheck.session", "test_a_subject_is_prepared_once")
def prepare_a_subject_for_each_of_its_tests(original, self, subject):
    return original(type(self)(self.check, self.wanted, self.names | {str(id(self))}), subject)


@edit("subjects.known_failures:_same", "test_a_name_of_pytorchs_is_no_entry_of_pytorchs")
def mistake_a_users_class_for_pytorchs_class_of_the_same_name(original, one, other):
    return one.name == other.name


# --------------------------------------------------------------------- other parts of the gate


@edit("core.output:write_bytes", "test_half_a_file_takes_no_name")
def write_a_file_in_place(original, path, content):
    path.write_bytes(content)


@edit("engine.ordering:gate", "test_what_was_not_got_to_is_said")
def report_HOLDS_for_a_pair_that_the_time_budget_did_not_reach(original, *args, **kwargs):
    from harness.core.verdict import Reason, Verdict

    for one in original(*args, **kwargs):
        late = one.result.why == Reason.OUT_OF_TIME
        result = replace(one.result, verdict=Verdict.HOLDS) if late else one.result
        yield replace(one, result=result)


@edit("engine.ordering:shard_of", "test_shards_part_the_pairs")
def leave_one_pair_out_of_all_shards(original, plan, number, count):
    pairs = original(plan, number, count)
    return {index: pairs[index] for index in pairs if index}


@edit("engine.ordering:_together", "test_shards_part_the_pairs")
def divide_a_check_from_those_it_depends_on(original, checks):
    return [[index] for index in range(len(checks))]


@edit("report.result_file:merged", "test_what_is_no_whole_run_is_refused")
def merge_although_a_shard_is_missing(original, files):
    from harness.core.errors import ResultsError

    try:
        return original(files)
    except ResultsError as error:
        if "missing" not in str(error):
            raise
        return files[0][1]


@edit("engine.examples:Examples.save", "test_an_explorer_that_is_killed_has_kept_what_it_found")
def do_not_save_what_the_explorer_finds(original, self, *args):
    pass


@edit("core.guard:_keep", "test_what_a_subject_changes_is_as_before")
def do_not_restore_the_default_dtype_that_a_subject_changed(original, get, set_):
    import torch

    return original(get, (lambda dtype: None) if get is torch.get_default_dtype else set_)


@edit("core.guard:Guard.on", "test_what_is_printed_is_said_once_a_subject")
@contextlib.contextmanager
def let_a_subjects_output_through(original, self):
    shown = sys.stdout
    with original(self), contextlib.redirect_stdout(shown):
        yield


@edit("training.recording:_inside_saves", "test_a_torn_file_is_named_with_its_size")
def see_nothing_inside_a_save(original, events, snapshots):
    return []


@edit("training.check:_joined", "test_what_a_chain_of_attempts_shows")
def align_each_attempt_with_the_recorded_run(original, before, attempt, starts):
    return dict(before)


@edit("training.check:_steps_left", "test_a_resumed_run_stops_where_the_recorded_run_did")
def stop_resumed_runs_late(original, recordings, total):
    return {}


@edit("training.processes:_all_end", "test_a_run_lasts_until_its_last_process_ends")
def wait_for_one_process(original, group, run, began, time_limit):
    return True


@edit("report.training_picture:_seen", "test_the_steps_of_one_optimizer_are_drawn")
def draw_a_resumed_training_run_from_the_first_step(original, steps, optimizer, start):
    return original(steps, optimizer, 0)


@edit("report.github:_wrong", "test_what_is_as_it_must_be_has_no_annotation")
def annotate_checks_that_hold(original, results):
    return list(results)


@edit("cli.check:_status", "test_a_class_that_cannot_be_built_is_not_a_pass")
def pass_a_package_whose_schedulers_could_not_be_built(original, status, *, all_checked):
    return status


@edit("engine.session:SubjectSession.sweep", "test_every_pair_is_swept_before_any_is_searched")
def search_each_pair_right_after_its_sweep(original, self, check, budget):
    return self.check(check, budget)


@edit("cli.main:_torch_is_imported", "test_a_signal_ends_the_import_of_torch_at_once")
def interrupt_the_import_of_torch(original):
    return True


@edit("subjects.type_hints:by_hint", "test_every_scheduler_of_a_package_is_found")
def draw_nothing_from_type_hints(original, hint):
    return None


@edit(
    "engine.counterexample:_read", "test_what_the_methods_of_the_class_do_not_read_is_no_evidence"
)
def compare_attributes_that_the_methods_do_not_read(original, kind):
    class Every(set):
        def __and__(self, names):
            return set(names)

    return Every()
