"""What runs elsewhere than in the suite: under wine, on a bare POSIX system, and on other Pythons.

Most of what the suite asks has the same answer there, so each of these lots has what may have another one: what asks
the system or Python itself, each once. ``python -m tests.support.lots windows`` prints what pytest is to be given; with
``--all`` whole files, as in the long form (tests/support/length.py). The table of held promises is made from this too.
Names are without ``tests/`` and ``test_``; a file without names is run whole.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass

#: file -> tests of it, or cases of these
Tests = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Lot:
    """One of them."""

    title: str  #: in the table of held promises
    chosen: Tests
    whole: tuple[str, ...]  #: files of which ``--all`` runs everything, and tests that only ``--all`` runs


def _rows(*names: str) -> tuple[str, ...]:
    return tuple(f"only_the_culprit_pays[{name}]" for name in names)


def _with_loky(*names: str) -> tuple[str, ...]:
    return tuple(f"{name}[loky]" for name in names)


_KILLED_FROM_OUTSIDE = (
    "a_worker_that_is_killed_while_idle_is_replaced_and_nobody_charged[9-2]",
    "a_worker_that_is_killed_while_busy_costs_its_item_one_try[9]",
)
#: How a worker ends or hangs, each once.
_ENDS = (
    *_rows(
        "run: Exception-one chunk",
        "run: os._exit(3)-one chunk",
        "run: segfault-one chunk",
        "run: SIGKILL-one chunk",
        "run: chance in the ledger, segfault-one chunk",
        "run: Python loop-one chunk",
        "run: C code that holds the GIL-one chunk",
    ),
    *_KILLED_FROM_OUTSIDE,
)
#: What our own engine does with processes, memory and flags.
_OF_AN_ENGINE = _with_loky(
    "results_come_in_item_order_and_events_are_right",
    "big_items_handlers_and_results_travel",
    "what_is_shared_arrives",
    "an_item_that_always_kills_its_worker_fails_in_the_end",
    "a_time_limit_ends_the_item_or_is_refused",
    "setup_runs_once_a_worker_and_is_finished",
    "pause_reaches_a_chunk_that_runs_and_resume_goes_on",
    "cancel_with_kill_ends_what_runs_or_waits_for_it",
    "closing_at_once_leaves_nothing",
    "what_was_finished_comes_home_before_a_slow_item_ends",
    "capture_output_works_or_is_refused",
    "workers_are_replaced",
    "modules_are_preloaded_or_that_is_refused",
    "where_handlers_are_is_sampled",
)
_OF_A_WORKER = (
    "tiny_items_run_in_stretches_that_grow_from_one[real]",
    "flags_are_looked_at_between_two_items[real-pause]",
    "an_item_that_kills_its_worker_is_named_by_the_claim[real]",
    "a_killed_worker_says_where_it_was_if_asked[real-True]",
)
_PAUSE_AND_CANCEL = (
    "cancel_with_kill_ends_active_items_at_once",
    "cancel_at_any_moment_ends_the_job_and_balances_the_books[4]",
)

LOTS = {
    "windows": Lot(
        "Windows",
        {
            "integration/test_on_windows.py": (),
            "unit/test_os_files.py": (),
            "unit/test_part_files.py": (),
            # segfaults, hangs and what a program prints are in the first file
            "integration/test_crash_table.py": (
                *_rows("run: Exception-one chunk", "run: os._exit(3)-one chunk"),
                *_rows("run: C code that holds the GIL-one chunk"),
                *_KILLED_FROM_OUTSIDE,
            ),
            "contract/test_engines.py": _with_loky(
                "results_come_in_item_order_and_events_are_right",
                "what_is_shared_arrives",
                "setup_runs_once_a_worker_and_is_finished",
                "pause_reaches_a_chunk_that_runs_and_resume_goes_on",
                "closing_at_once_leaves_nothing",
                "workers_are_replaced",
                "where_handlers_are_is_sampled",
            ),
            "integration/test_job_queue.py": ("many_tiny_items_come_home_in_order",),
            "integration/test_pause_cancel.py": _PAUSE_AND_CANCEL,
            "integration/test_journal.py": (
                "an_item_that_kills_its_program_fails_in_the_end[list]",
                "what_can_be_no_path_is_refused",
                "a_queue_that_nobody_holds_lets_go_of_its_journal",
                "big_results_go_to_files_and_come_back",
                "a_full_disk_pauses_the_job_and_room_lets_it_go_on",
            ),
            "integration/test_journal_damage.py": (
                "a_journal_that_has_lost_something_is_refused_and_nothing_is_removed[log deleted]",
                "a_journal_that_is_taken_away_stops_loudly_and_goes_on_when_it_is_back[lock removed]",
                "looking_whether_a_journal_is_in_use_never_refuses_one_that_opens_it",
            ),
            "integration/test_journal_file.py": (
                "what_is_no_journal_is_refused_and_left_as_it_is",
                "a_journal_may_have_any_name",
                "a_second_process_is_refused_until_the_first_is_gone_however_it_went",
                "parts_of_files_go_with_the_next_writer_and_files_of_a_job_with_it",
            ),
            "integration/test_journal_edits.py": (
                "a_file_that_has_changed_is_done_again_also_if_it_changed_meanwhile[file_key]",
            ),
            "integration/test_journal_of_0_1.py": ("where_the_migration_fails_it_is_left_as_it_was",),
            "integration/test_big_data.py": (
                "arrays_arrive_writable_and_are_nobody_else_s",
                "an_array_outlives_the_death_of_the_worker_that_had_it",
            ),
            "integration/test_map.py": ("ctrl_c_ends_the_running_items_and_goes_on",),
            "integration/test_command_line.py": (
                "a_reader_that_goes_ends_the_run_quietly",
                "stdin_that_begins_with_a_mark_is_utf_8_whatever_the_locale_has",
            ),
            "integration/test_live_page.py": ("a_port_that_is_taken_is_said_at_once",),
        },
        (
            "contract/test_engines.py",
            "simulation/test_workers.py",
            "integration/test_crash_table.py",
            "integration/test_job_queue.py",
            "integration/test_pause_cancel.py",
            "integration/test_retries.py",
            "integration/test_journal.py",
            "integration/test_journal_damage.py",
            "integration/test_journal_edits.py",
            "integration/test_journal_file.py",
            "integration/test_journal_of_0_1.py",
            "integration/test_journal_streams.py",
            "integration/test_capture_output.py::test_c_code_and_child_processes_are_heard",
            "integration/test_command_line.py::test_captured_output_is_in_the_rows",
            "integration/test_pool.py::test_the_initializer_runs_once_in_each_worker_in_its_main_thread",
        ),
    ),
    "portable": Lot(
        "any POSIX system",
        {
            "unit/test_segments.py": (),
            "contract/test_engines.py": _OF_AN_ENGINE,
            "simulation/test_workers.py": _OF_A_WORKER,
            "integration/test_crash_table.py": (*_ENDS, *_rows("run: garbage into every descriptor-one chunk")),
            "integration/test_parent_end.py": ("workers_die_with_a_parent_that_is_killed[9]",),
            "integration/test_pause_cancel.py": _PAUSE_AND_CANCEL,
            "integration/test_closing.py": (
                "started_jobs_are_waited_for",
                "queue_that_nobody_holds_is_collected_with_its_workers",
            ),
            "integration/test_worker_starts.py": (
                "close_with_kill_ends_workers_that_hang_and_says_nothing[sigterm_ignore_and_hang]",
            ),
            "integration/test_journal.py": (
                "an_item_that_kills_its_program_fails_in_the_end[list]",
                "a_second_queue_is_refused_while_the_first_is_open",
                "a_full_disk_pauses_the_job_and_room_lets_it_go_on",
                "big_results_go_to_files_and_come_back",
            ),
            "integration/test_big_data.py": (
                "arrays_arrive_writable_and_are_nobody_else_s",
                "an_array_outlives_the_death_of_the_worker_that_had_it",
                "handlers_with_fresh_tables_find_their_own_in_what_others_were_in",
            ),
        },
        (
            "contract/test_engines.py",
            "simulation/test_workers.py",
            *(f"unit/test_{name}.py" for name in ("os_forms", "process_handle")),
            *(f"integration/test_{name}.py" for name in ("big_data", "closing", "crash_table", "forks", "journal")),
            *(f"integration/test_{name}.py" for name in ("parent_end", "pause_cancel", "stages", "worker_ends")),
            "integration/test_worker_starts.py",
        ),
    ),
    "pythons": Lot(
        "other Pythons",
        {
            # what looks into functions, classes, frames, threads and modules, and what newer Pythons have of their own
            **{
                f"unit/test_{name}.py": ()
                for name in (
                    *("alarm", "bad_programs", "captured_file", "classes", "fields", "imports", "picklers"),
                    *("item_identity", "item_labels", "os_files", "os_forms", "packed_functions"),
                    *("function_packer", "pipelines", "process_handle", "profile", "reducers", "script", "segments"),
                    *("shared", "text"),
                )
            },
            "contract/test_cpython_pool.py": (),
            "integration/test_crash_table.py": _rows(
                "run: ExceptionGroup-two workers",
                "run: Exception with a cause-two workers",
                "run: StopIteration-two workers",
                "run: RecursionError-two workers",
                "run: Python loop-two workers",
                "coroutine: CancelledError-two workers",
                "item pickling: RecursionError-two workers",
                "result pickling: lock-two workers",
                "result unpickling: a class that only the worker has-two workers",
                "exception unpickling: two arguments-two workers",
            ),
            # how a worker is killed and replaced is the system's, see `portable`
            "contract/test_engines.py": _with_loky(
                "results_come_in_item_order_and_events_are_right",
                "big_items_handlers_and_results_travel",
                "what_is_shared_arrives",
                "setup_runs_once_a_worker_and_is_finished",
                "pause_reaches_a_chunk_that_runs_and_resume_goes_on",
                "capture_output_works_or_is_refused",
                "modules_are_preloaded_or_that_is_refused",
                "where_handlers_are_is_sampled",
            ),
        },
        (
            "unit",
            "contract/test_cpython_pool.py",
            "contract/test_engines.py",
            "contract/test_payload_kinds.py",
            "simulation/test_workers.py",
            "integration/test_crash_table.py",
        ),
    ),
}


def arguments(lot: Lot, *, everything: bool = False) -> list[str]:
    """What pytest is to be given."""
    whole = lot.whole if everything else ()
    found = [f"tests/{file}" for file in whole]
    for file, tests in lot.chosen.items():
        if not f"tests/{file}".startswith(tuple(found[: len(whole)])):
            found += [f"tests/{file}::test_{test}" for test in tests] or [f"tests/{file}"]
    return found


def lots_of(test: str) -> list[str]:
    """The titles of the lots that have some of a test, which is given as file::test."""
    file = test.partition("::")[0]
    return [
        lot.title
        for lot in LOTS.values()
        if any(one == file or one.partition("[")[0] == test for one in arguments(lot))
    ]


if __name__ == "__main__":
    print("\n".join(arguments(LOTS[sys.argv[1]], everything="--all" in sys.argv)))
