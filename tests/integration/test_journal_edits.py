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
from hypothesis import given, settings
from hypothesis import strategies as st

import mpqueue
from mpqueue import JobPlan, JobQueue, current_item
from mpqueue._core.state.item_table import Failure, make_table
from mpqueue._options import JobOptions
from mpqueue._parent.journal.chunk_rows import make_row
from mpqueue._parent.journal.journal_file import chunk_statement
from mpqueue._parent.journal.journal_writer import Entry, Journal
from mpqueue._parent.journal.recorder import Recorder
from mpqueue._queue.new_job import NewJob, RecordOptions, record_options
from mpqueue.errors import JournalError, JournalMismatchError
from mpqueue.retry import RetryPolicy
from mpqueue.status import COMPLETED
from tests.support import handlers as do
from tests.support.results import results_of
from tests.support.small_blocks import small_blocks

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked_workers")]


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
            assert table.result_of(index) == result_of(payload)
        assert all(tried.message == result_of(payload) for tried in table.history.get(index, ()))


DAYS = st.lists(
    st.tuples(
        st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2)), max_size=14, unique_by=lambda item: item[0]),
        st.sets(st.integers(0, 13)),
        st.sets(st.integers(0, 13)),
    ),
    min_size=2,
    max_size=5,
)


@settings(max_examples=60)
@given(DAYS, st.booleans())
def test_whatever_is_added_removed_changed_or_moved_no_result_is_another_items(
    days: list[tuple[list[tuple[int, int]], set[int], set[int]]], has_ids: bool
) -> None:
    done: dict[int, tuple[int, bool]] = {}  # of each id ever seen: its value then, and whether it has ended
    last: dict[int, int] | None = None
    with tempfile.TemporaryDirectory() as folder, small_blocks():
        path = os.path.join(folder, "run.db")
        for listed, ending, failing in days:
            items = [{"id": at, "value": value} for at, value in listed] if has_ids else [at for at, _ in listed]
            journal = opened(path)
            try:
                is_same = last is None or last == {at: value if has_ids else 0 for at, value in listed}
                with contextlib.nullcontext() if is_same else pytest.raises(JournalMismatchError):
                    taken_up(journal, items, RecordOptions())
                last = {at: value if has_ids else 0 for at, value in listed}
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
                assert (seen.status, seen.all_results()) == (table.status, table.all_results())
                check_whose(seen)
            finally:
                journal.close()


@settings(max_examples=40)
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


def waiting(journal: Journal, items: list[Any], handler: Any = do.succeed, **options: Any) -> list[Any]:
    """The items that would run; they end then."""
    job = NewJob("job", make_table(items), JobOptions(RetryPolicy()), handler, None)
    job.record_or_go_on(Recorder(journal), 0.0, record_options(**options))
    indices = job.book.table.unfinished()
    if indices:
        end(journal, job, indices, set())
    return [items[index] for index in indices]


def test_another_version_runs_everything_again_also_what_comes_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = opened(str(tmp_path / "run.db"))
    try:
        assert waiting(journal, ["a", "b"], version="1") == ["a", "b"]
        assert waiting(journal, ["a", "b"], do.square, version="1", strict=True) == []
        assert waiting(journal, ["a"], update=True) == []
        assert waiting(journal, ["a"], do.square, version="2") == ["a"]
        assert not caplog.records
        with pytest.raises(JournalMismatchError, match="others: 1 back"):
            waiting(journal, ["b", "a"], do.square, version="2")
        assert waiting(journal, ["b", "a"], do.square, version="2", update=True) == ["b"]
        assert waiting(journal, ["a", "b"], do.square, version="2", redo="changed-code") == []
    finally:
        journal.close()


def test_what_has_ended_runs_again_where_that_is_said(tmp_path: Path) -> None:
    journal = opened(str(tmp_path / "run.db"))
    items = [{"id": each} for each in "abc"]
    try:
        assert waiting(journal, items) == items
        assert waiting(journal, items, redo=["b"]) == [items[1]]
        assert waiting(journal, items, redo="changed-code") == []
        assert waiting(journal, items, do.square, redo="changed-code") == items
        assert waiting(journal, items, do.square, strict=True) == []
        assert waiting(journal, items, do.square, redo="all") == items
        for redo, error in (
            ("b", "redo: expected one of"),
            (["x"], "redo: expected ids"),
            (3, "redo: expected one of"),
        ):
            with pytest.raises((TypeError, ValueError), match=error):
                waiting(journal, items, do.square, redo=redo)
        assert waiting(journal, items, do.square) == []
    finally:
        journal.close()


def test_failed_items_run_again_with_their_history_where_that_is_said(tmp_path: Path) -> None:
    failing = do.only("b", do.fail_with(ValueError("no")), do.succeed)
    for redo, tries in ((None, 1), (None, 1), ("failed", 2), ("failed", 3)):
        with JobQueue(1, journal=tmp_path / "run.db", max_retries=0) as queue:
            job = queue.run(["a", "b"], failing, id="job", redo=redo)
            assert (job.completed, job.failed) == (1, 1)
            assert len(job.items[1].history) == tries
            assert len(queue.load_job("job").items[1].history) == tries


def test_a_plan_says_what_would_run_and_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    failing = do.only("b", do.fail_with(ValueError("no")), do.succeed)
    with JobQueue(1) as queue:
        assert queue.plan_job("job", list("abc"), failing) == JobPlan(new=(0, 1, 2), to_run=3)
    with JobQueue(1, journal=path, max_retries=0) as queue:
        assert queue.plan_job("job", list("abc"), failing, update=True) == JobPlan(new=(0, 1, 2), to_run=3)
        assert queue.jobs() == []
        queue.run(list("abc"), failing, id="job")
        queue.create_job("ids", [{"id": "a", "n": 1}, {"id": "b", "n": 1}], failing)
    before = path.read_bytes()
    with JobQueue(1, journal=path) as queue:
        plan = queue.plan_job("job", list("xba"), failing)
        assert plan == JobPlan(same=(1, 2), new=(0,), gone=("c",), failed=(1,), to_run=1)
        assert str(plan) == "2 same, 0 changed, 1 new, 1 gone, 1 failed; 1 to run"
        assert queue.plan_job("job", list("xba"), failing, redo="failed").to_run == 2
        assert queue.plan_job("job", ["b", "a"], do.succeed).code_changed
        assert queue.plan_job("job", ["b", "a"], failing, version="2").changed == (0, 1)
        plan = queue.plan_job("ids", [{"id": "a", "n": 2}, {"id": "c", "n": 1}], failing)
        assert plan == JobPlan(changed=("a",), new=("c",), gone=("b",), to_run=2)
    assert len(path.read_bytes()) == len(before)


def test_an_item_without_identity_is_refused_with_what_to_do_about_it(tmp_path: Path) -> None:
    journal = opened(str(tmp_path / "run.db"))
    try:
        with pytest.raises(TypeError, match=r'items\[1\].*no identity.*give each item an "id"'):
            taken_up(journal, [1, threading.Lock()], RecordOptions())
        assert journal.reader.jobs() == []
        assert taken_up(journal, [{"id": 1, "lock": threading.Lock()}], RecordOptions()).book.total == 1
    finally:
        journal.close()


def test_a_job_that_could_not_be_written_to_the_end_is_none(tmp_path: Path) -> None:
    def fail_late(item: int) -> str:
        if item == 15:
            raise OSError("no such state")
        return "state"

    journal = opened(str(tmp_path / "run.db"))
    try:
        with small_blocks():
            with pytest.raises(OSError, match="the key of item 15: no such state"):
                taken_up(journal, list(range(20)), RecordOptions(key=fail_late))
            assert journal.reader.jobs() == []
            assert taken_up(journal, list(range(20)), RecordOptions()).book.total == 20
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


@pytest.mark.parametrize("has_ids", [False, True])
def test_new_items_of_an_update_that_ended_halfway_do_not_count(
    tmp_path: Path, has_ids: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def items(*values: int) -> list[Any]:
        return [{"id": value, "value": value} for value in values] if has_ids else list(values)

    update = RecordOptions(update=True)
    with small_blocks():
        journal = opened(str(tmp_path / "run.db"))
        try:
            end(journal, taken_up(journal, items(0, 1, 2, 3), RecordOptions()), [0, 1, 3], set())
            ask, left = journal.ask, iter(range(2))

            def ask_twice(do_it: Any) -> Any:
                if next(left, None) is None:
                    raise JournalError("the disk is full")
                return ask(do_it)

            monkeypatch.setattr(journal, "ask", ask_twice)
            with pytest.raises(JournalError):
                taken_up(journal, items(*range(30)), update)
            monkeypatch.undo()
            assert taken_up(journal, items(0, 1, 2, 3), RecordOptions()).book.completed == 3
            job = taken_up(journal, items(0, 1, 2, 3, *range(50, 70)), update)
            end(journal, job, [*range(10, 20)], {15})
            recorded = journal.reader.find("job")
            assert recorded is not None
            table = journal.reader.table(recorded)
            assert table.payloads == items(0, 1, 2, 3, *range(50, 70))
            assert table.status.count(COMPLETED) == 12
            check_whose(table)
            same = taken_up(journal, items(*range(50, 70), 0, 1, 2, 3), update)
            assert (same.book.completed, same.book.failed) == (12, 1)
            check_whose(same.book.table)
        finally:
            journal.close()
