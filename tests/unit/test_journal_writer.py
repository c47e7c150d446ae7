"""A journal's writer: what is posted is on disk before it counts, also where the disk fails or a row is bad.

Its thread does not start: a test lets it do what it would.
"""

from __future__ import annotations

import contextlib
import os
import platform
import socket
import sqlite3
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import mpqueue
from mpqueue._parent.journal.checks import is_held
from mpqueue._parent.journal.chunk_rows import ADD_CHUNK
from mpqueue._parent.journal.journal_file import MOST_WRITERS, Store, connect
from mpqueue._parent.journal.journal_writer import GROUP, TRY_AGAIN, Entry, Journal
from mpqueue._parent.replies import Reply
from mpqueue.errors import JournalError, QueueClosedError
from tests.support.this_system import IS_WINDOWS

pytestmark = pytest.mark.skipif(IS_WINDOWS, reason="a journal that no thread closes is in use there")

LINE = {
    "id": "job",
    "total": 3,
    "rule": "position",
    "seed": "0x10",
    "created_at": 1.5,
    "status": "pending",
    "completed": 0,
    "failed": 0,
    "retries": 0,
}


class Disk:
    """What a journal is written to, and a clock."""

    def __init__(self) -> None:
        self.now = 100.0
        self.error: Exception | None = None
        self.opens = True

    def connect(self, path: str) -> Any:
        """A connection that begins no transaction while there is an error, or can't be made at all."""
        if self.error is not None and not self.opens:
            raise self.error
        disk, made = self, connect(path)

        class Connection:
            def execute(self, sql: str, *arguments: Any) -> Any:
                if disk.error is not None and sql.startswith("BEGIN"):
                    raise disk.error
                return made.execute(sql, *arguments)

            def __getattr__(self, name: str) -> Any:
                return getattr(made, name)

        return Connection()


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def journal(tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch) -> Iterator[Journal]:
    monkeypatch.setattr(threading.Thread, "start", lambda _: None)
    made = Journal(str(tmp_path / "run.db"), lambda: disk.now, disk.connect)
    yield made
    if not made._has_ended:
        disk.error = None
        end(made)


def end(journal: Journal) -> None:
    """Close it, and let its thread do all that is left."""
    journal.close(wait=False)
    journal._loop()


def put_job(store: Store, **changed: Any) -> int:
    return store.put_job(None, LINE | changed)


def row(number: int, **more: Any) -> Entry:
    return Entry([(ADD_CHUNK, (number, 1, b"row", None))], **more)


def rows(path: str) -> list[int]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return [number for (number,) in connection.execute("SELECT number FROM chunks ORDER BY number")]


def test_what_is_posted_is_on_disk_before_it_is_said_to_be_done_and_before_what_is_asked_then(journal: Journal) -> None:
    told: list[Any] = []
    for number in (1, 2):
        journal.post(row(number, done=lambda _, number=number: told.append((number, rows(journal.path)))))
    asked = journal.ask_later(lambda store: rows(store.path))
    assert is_held(journal.path)
    end(journal)
    assert told == [(1, [1, 2]), (2, [1, 2])]
    assert asked.result() == [1, 2]
    assert journal.lost is None
    assert not is_held(journal.path)


def test_who_has_written_a_journal_stands_in_it(journal: Journal) -> None:
    journal.ask_later(put_job)
    end(journal)
    with contextlib.closing(sqlite3.connect(journal.path)) as connection:
        written_by = connection.execute("SELECT mpqueue, python, host FROM written_by").fetchall()
    assert written_by == [(mpqueue.__version__, platform.python_version(), socket.gethostname())]


def test_of_those_who_have_written_a_journal_the_last_stand_in_it(journal: Journal) -> None:
    journal.ask_later(put_job)
    end(journal)
    with contextlib.closing(sqlite3.connect(journal.path)) as connection:
        connection.execute(
            "INSERT INTO written_by (number, at, mpqueue, python, host, program) "
            "SELECT number + ?, at, mpqueue, python, host, program FROM written_by",
            (MOST_WRITERS,),
        )
        connection.commit()
        again = Journal(journal.path, lambda: 0.0, connect)
        again.ask_later(partial(put_job, id="another"))
        end(again)
        numbers = [number for (number,) in connection.execute("SELECT number FROM written_by ORDER BY number")]
    assert numbers == [1 + MOST_WRITERS, 2 + MOST_WRITERS]


def test_a_journal_that_nobody_closes_holds_up_no_program(journal: Journal) -> None:
    assert journal._thread.daemon


def test_what_is_asked_fails_alone(journal: Journal) -> None:
    def fail(error: Exception, _: Store) -> None:
        raise error

    bad = journal.ask_later(lambda store: store.write([("INSERT INTO nowhere VALUES (1)", ())]))
    own = journal.ask_later(partial(fail, KeyError("mine")))
    good = journal.ask_later(put_job)
    end(journal)
    with pytest.raises(JournalError, match=r"run\.db: .*nowhere.*; nothing was changed") as caught:
        bad.result()
    assert isinstance(caught.value.__cause__, sqlite3.Error)
    with pytest.raises(KeyError, match="mine"):
        own.result()
    assert good.result() == 1


def test_a_journal_that_was_closed_refuses_and_is_read_all_the_same(journal: Journal) -> None:
    journal.ask_later(put_job)
    end(journal)
    journal.await_asked()
    for ask in (journal.flush, lambda: journal.ask(put_job)):
        with pytest.raises(QueueClosedError, match="got one that was closed; make a new one"):
            ask()
    found = journal.find("job")
    assert found is not None
    assert found.number == 1


def test_a_row_that_can_never_be_written_is_left_out_and_no_other(
    journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[Any] = []
    for at, number in enumerate((1, 1, 2, 3)):
        journal.post(row(number, done=lambda is_written, at=at: told.append((at, is_written))))
    end(journal)
    assert told == [(0, True), (1, False), (2, True), (3, True)]
    assert rows(journal.path) == [1, 2, 3]
    assert caplog.text.count("a row can't be written (IntegrityError") == 1


def test_what_is_not_urgent_is_written_with_all_that_comes_within_the_time_of_a_group(
    journal: Journal, disk: Disk
) -> None:
    journal._keep(row(1))
    due = disk.now + GROUP
    assert journal._due == due
    disk.now += GROUP / 2
    journal._keep(row(2))
    assert journal._due == due
    journal._keep(row(3, urgent=True))
    assert journal._due == disk.now
    journal._commit()
    assert rows(journal.path) == [1, 2, 3]


def test_its_thread_wakes_up_to_write_when_the_time_of_a_group_is_over(
    journal: Journal, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[tuple[float | None, list[int]]] = []

    def take(timeout: float | None) -> Any:
        if journal._posted.empty():
            waits.append((timeout, rows(journal.path)))
            journal._stopping = timeout is None
            if timeout != GROUP:
                disk.now += timeout or 0.0
                return None
            disk.now += GROUP / 2
            journal.post(row(3))
        return journal._posted.get()

    monkeypatch.setattr(journal, "_take", take)
    for number in (1, 2):
        journal.post(row(number))
    disk.now = 0.0
    journal._serve()
    assert waits == [(0.0, []), (GROUP, []), (0.0, []), (GROUP / 2, []), (None, [1, 2, 3])]


def test_to_await_what_was_asked_is_to_wait_until_it_is_done(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    awaited: list[Reply[Any]] = []

    def wait(reply: Reply[Any]) -> None:
        awaited.append(reply)

    monkeypatch.setattr(Reply, "wait", wait)
    asked = journal.ask_later(lambda _: [each.done() for each in awaited])
    journal.await_asked()
    end(journal)
    assert asked.result() == [False]
    assert awaited[0].done()


def test_a_disk_that_fails_is_told_of_once_it_lasts_and_what_waits_is_written_later(
    journal: Journal, disk: Disk
) -> None:
    troubles: list[JournalError | None] = []
    done: list[int] = []
    journal.on_trouble = troubles.append
    disk.error = sqlite3.OperationalError("database or disk is full")
    journal._keep(row(1, urgent=True, done=lambda _: done.append(1)))
    assert journal._due == disk.now, "it is urgent"
    journal._commit()
    assert (troubles, done) == ([], []), "it may pass"
    assert journal._due == disk.now + TRY_AGAIN
    journal._keep(row(2, urgent=True, done=lambda _: done.append(2)))
    assert journal._due == disk.now + TRY_AGAIN, "no sooner"
    for _ in range(2):
        disk.now += TRY_AGAIN
        journal._commit()
    [trouble] = troubles
    assert "expected room on the disk" in str(trouble)
    disk.error = None
    journal._commit()
    assert troubles[1:] == [None]
    assert done == [1, 2]
    journal._keep(row(3))
    journal._commit()
    disk.error = sqlite3.OperationalError("disk I/O error")
    journal._keep(row(4))
    for _ in range(2):
        journal._commit()
        disk.now += TRY_AGAIN
    journal._commit()
    assert len(troubles) == 3, "the trouble is reported again"


def test_a_log_that_was_removed_is_made_anew_once_it_can_be_and_nothing_is_lost(journal: Journal, disk: Disk) -> None:
    written: list[int] = []
    for number, disk.opens in enumerate((True, False, True, False), 1):
        journal._keep(row(2 * number))
        journal._commit()
        os.unlink(f"{journal.path}-wal")
        disk.error = sqlite3.OperationalError("unable to open database file")
        journal._keep(row(2 * number + 1, done=written.append))
        journal._commit()
        assert journal.fails
        disk.error = None
        journal._commit()
        assert written == [True] * number
        assert rows(journal.path) == [*range(2, 2 * number + 2)]


@pytest.mark.parametrize("found", ["older state", "nothing"])
def test_a_file_that_was_exchanged_while_its_log_could_not_be_made_anew_is_not_written(
    journal: Journal, disk: Disk, tmp_path: Path, found: str
) -> None:
    moved = tmp_path / "moved.db"
    journal._keep(row(1))
    journal._commit()
    os.unlink(f"{journal.path}-wal")
    disk.error, disk.opens = sqlite3.OperationalError("unable to open database file"), False
    journal._keep(row(2))
    journal._commit()
    os.rename(journal.path, moved)
    if found == "older state":
        Store(journal.path).close()
    disk.error = None
    journal._commit()
    assert "an older state of it" in str(journal._trouble)
    os.replace(moved, journal.path)
    journal._commit()
    assert rows(journal.path) == [1, 2]


def test_while_the_disk_fails_what_is_asked_is_refused_and_at_the_end_what_was_not_written_is_lost(
    journal: Journal, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[str] = []
    disk.error = sqlite3.OperationalError("database or disk is full")
    journal.post(row(1, done=lambda _: told.append("done")))
    asked = journal.ask_later(put_job)
    end(journal)
    with pytest.raises(JournalError, match="expected room on the disk"):
        asked.result()
    assert told == []
    assert "It was closed before that: those items will run again" in str(journal.lost)
    assert rows(journal.path) == []
    assert not is_held(journal.path)


def test_a_job_is_found_by_its_id_unless_its_line_is_not_what_was_written(journal: Journal) -> None:
    store = journal._store
    for job_id, total in (("job", 3), ("other", -1), ("empty", 0)):
        put_job(store, id=job_id, total=total)
    found = [journal.find(job_id) for job_id in ("job", "other", "empty", "none")]
    assert [job and job.number for job in found] == [1, None, 3, None]
    store.numbers["none"] = 1
    with pytest.raises(JournalError, match="expected job 'none' in line 1 of its jobs, got 'job'"):
        journal.find("none")
    store.numbers["none"] = 9
    with pytest.raises(JournalError, match="in line 9 of its jobs, got none"):
        journal.find("none")
    del store.numbers["none"]
    store.damaged.add(1)
    with pytest.raises(JournalError, match="expected line 1 of its jobs as it was written"):
        journal.find("none")
