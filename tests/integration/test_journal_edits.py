"""A list of items that changes from start to start, and a journal: whose results are whose."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tempfile
import threading
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mpqueue
from mpqueue import JobQueue, current_item
from mpqueue._core.state.item_table import Failure, make_table
from mpqueue._options import JobOptions
from mpqueue._parent.journal.chunk_rows import make_row
from mpqueue._parent.journal.journal_file import chunk_statement
from mpqueue._parent.journal.journal_writer import Entry, Journal
from mpqueue._parent.journal.recorder import Recorder
from mpqueue._queue.new_job import NewJob, RecordOptions
from mpqueue.errors import JournalMismatchError
from mpqueue.retry import RetryPolicy
from mpqueue.status import COMPLETED
from tests.support import handlers as do
from tests.support.results import results_of
from tests.support.small_blocks import small_blocks

pytestmark = pytest.mark.slow


class Unsynced(sqlite3.Connection):
    """Does not wait for the disk."""

    def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
        return super().execute("PRAGMA synchronous=OFF" if sql.startswith("PRAGMA synchronous") else sql, *arguments)


def opened(path: str) -> Journal:
    """The journal, whose clock stands still."""
    make = partial(sqlite3.connect, isolation_level=None, check_same_thread=False, factory=Unsynced)
    return Journal(path, lambda: 0.0, make)


def taken_up(journal: Journal, items: list[Any], options: RecordOptions) -> NewJob:
    """The job as `create_job` makes it."""
    job = NewJob("job", make_table(items), JobOptions(RetryPolicy()), do.succeed, None)
    job.record_or_go_on(Recorder(journal), 0.0, options)
    return job


def result_of(item: Any) -> str:
    return f"result of {item!r}"


def end(journal: Journal, job: NewJob, indices: list[int], failing: set[int]) -> None:
    """These items end, as the recorder would write it."""
    table = job.book.table
    for index in indices:
        if index in failing:
            failure = Failure(ValueError(result_of(table.payloads[index])))
            table.fail_try(index, failure, 1)
            table.fail(index, failure)
        else:
            table.complete([index], [result_of(table.payloads[index])])
    recorded = journal.reader.find("job")
    assert recorded is not None
    row = make_row(table, indices, {})
    assert row.body is not None
    journal.post(Entry([chunk_statement(journal.next_chunk(), recorded.number, row)]))
    journal.flush()


def check_whose(table: Any) -> None:
    """Every result and every error is the item's own."""
    for index, payload in enumerate(table.payloads):
        if table.status[index] == COMPLETED:
            assert table.results[index] == result_of(payload)
        assert all(tried.error == result_of(payload) for tried in table.history.get(index, ()))


DAYS = st.lists(
    st.tuples(
        st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2)), max_size=14, unique_by=lambda item: item[0]),
        st.sets(st.integers(0, 13)),
        st.sets(st.integers(0, 13)),
    ),
    min_size=2,
    max_size=5,
)


@given(DAYS, st.booleans())
def test_whatever_is_added_removed_changed_or_moved_no_result_is_another_items(
    days: list[tuple[list[tuple[int, int]], set[int], set[int]]], has_ids: bool
) -> None:
    done: dict[int, tuple[int, bool]] = {}  # of each id ever seen: its value then, and whether it has ended
    with tempfile.TemporaryDirectory() as folder, small_blocks():
        path = os.path.join(folder, "run.db")
        for listed, ending, failing in days:
            items = [{"id": at, "value": value} for at, value in listed] if has_ids else [at for at, _ in listed]
            journal = opened(path)
            try:
                with contextlib.suppress(JournalMismatchError):
                    taken_up(journal, items, RecordOptions())
                job = taken_up(journal, items, RecordOptions(update=True))
                table = job.book.table
                for at, value in listed:
                    if at not in done or (has_ids and done[at][0] != value):
                        done[at] = (value, False)
                assert [table.ended(index) for index in range(len(items))] == [done[at][1] for at, _ in listed]
                check_whose(table)
                now = [index for index in sorted(ending) if index < len(items) and not table.ended(index)]
                end(journal, job, now, failing)
                for index in now:
                    done[listed[index][0]] = (listed[index][1], True)
                recorded = journal.reader.find("job")
                assert recorded is not None
                seen = journal.reader.table(recorded)
                assert (seen.payloads, seen.ids) == (table.payloads, table.ids)
                assert (seen.status, seen.results) == (table.status, table.results)
                check_whose(seen)
            finally:
                journal.close()


@given(st.lists(st.lists(st.sampled_from("aab"), max_size=8), min_size=2, max_size=4))
def test_equal_values_count_as_often_as_they_are_there(days: list[list[str]]) -> None:
    seen: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder, small_blocks():
        path = os.path.join(folder, "run.db")
        for items in days:
            journal = opened(path)
            try:
                table = (job := taken_up(journal, items, RecordOptions(update=True))).book.table
                there = Counter(items)
                ended = Counter(item for index, item in enumerate(items) if table.ended(index))
                assert ended == there & seen
                check_whose(table)
                end(journal, job, table.unfinished(), set())
                seen |= there
            finally:
                journal.close()


def draw(item: dict[str, Any]) -> tuple[str, int]:
    """The item's id, and a random number of its own."""
    return item["id"], int(current_item().rng.integers(1 << 40))


def test_workers_run_what_is_new_or_changed_and_random_numbers_follow_the_item(tmp_path: Path) -> None:
    def run(*items: tuple[str, int], **options: Any) -> tuple[dict[str, int], dict[Any, int]]:
        with JobQueue(1, journal=tmp_path / "run.db") as queue:
            listed = [{"id": each, "value": value} for each, value in items]
            job = queue.run(listed, draw, id="job", update=True, **options)
            drawn = dict(results_of(job))
            assert list(drawn) == [each for each, _ in items]
            return drawn, {item.id: item.attempts for item in queue.load_job("job").items}

    first, _ = run(("a", 0), ("b", 0), ("c", 0), ("d", 0), seed=7)
    second, _ = run(("d", 0), ("new", 0), ("c", 1), ("a", 0))
    third, attempts = run(("new", 0), ("b", 0), ("a", 1), ("c", 1), ("d", 0))
    assert {**second, **third} == {**first, "new": third["new"]}
    assert attempts == dict.fromkeys(["new", "b", "a", "c", "d"], 1)


@pytest.mark.parametrize("key", [mpqueue.file_key, mpqueue.content_key])
def test_a_file_that_has_changed_is_done_again_also_if_it_changed_meanwhile(tmp_path: Path, key: Any) -> None:
    files = [tmp_path / name for name in "abc"]
    for file in files:
        file.write_text("before")

    def run(*change: Path) -> int:
        with JobQueue(1, journal=tmp_path / "run.db") as queue:
            job = queue.create_job("job", files, do.succeed, update=True, key=key)
            waiting = job.total - job.completed
            for file in change:
                file.write_text("after it all")
            queue.start("job").result()
            return waiting

    assert run(files[0]) == 3
    assert run() == 1
    assert run() == 0
    os.utime(files[1], ns=(1, 1))
    assert run() == (1 if key is mpqueue.file_key else 0)


def untyped_key(_: Any) -> Any:
    """No key."""
    return 3


def test_a_key_that_fails_names_the_item_and_nothing_is_created(tmp_path: Path) -> None:
    with JobQueue(1, journal=tmp_path / "run.db") as queue:
        missing = str(tmp_path / "missing")
        with pytest.raises(FileNotFoundError, match="key of item 0"):
            queue.create_job("job", [missing], do.succeed, key=mpqueue.file_key)
        with pytest.raises(TypeError, match=r"expected the path of a file, got \{'path'"):
            queue.create_job("job", [{"path": missing}], do.succeed, key=mpqueue.content_key)
        with pytest.raises(TypeError, match="returns bytes or a str, got 3 for item 0"):
            queue.create_job("job", [missing], do.succeed, key=untyped_key)
        with pytest.raises(TypeError, match="key: expected a function"):
            queue.create_job("job", [missing], do.succeed, key="file")  # type: ignore[call-overload]
        assert queue.jobs() == []


def test_another_kind_of_key_makes_everything_another(tmp_path: Path) -> None:
    journal = opened(str(tmp_path / "run.db"))
    try:
        taken_up(journal, ["a", "b"], RecordOptions())
        with pytest.raises(JournalMismatchError, match="2 changed"):
            taken_up(journal, ["a", "b"], RecordOptions(key=str.upper))
        assert taken_up(journal, ["b", "a"], RecordOptions(update=True, key=str.upper)).book.total == 2
        assert taken_up(journal, ["a", "b"], RecordOptions(key=str.upper)).book.total == 2
    finally:
        journal.close()


def test_an_item_without_identity_is_refused_with_what_to_do_about_it(tmp_path: Path) -> None:
    journal = opened(str(tmp_path / "run.db"))
    try:
        with pytest.raises(TypeError, match=r'items\[1\].*no identity.*give each item an "id"'):
            taken_up(journal, [1, threading.Lock()], RecordOptions())
        assert journal.reader.jobs() == []
        assert taken_up(journal, [{"id": 1, "lock": threading.Lock()}], RecordOptions()).book.total == 1
    finally:
        journal.close()


def test_a_job_whose_maker_ended_before_all_of_it_was_there_is_none(tmp_path: Path) -> None:
    path = str(tmp_path / "run.db")
    with small_blocks():
        journal = opened(path)
        taken_up(journal, list(range(20)), RecordOptions())
        journal.ask(lambda store: store._connection.execute("UPDATE jobs SET total = -1"))
        assert journal.reader.find("job") is None
        assert journal.reader.jobs() == []
        journal.close()
        journal = opened(path)
        assert taken_up(journal, list("abc"), RecordOptions()).book.total == 3
        journal.close()
