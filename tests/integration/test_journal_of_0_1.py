"""A journal that mpqueue 0.1 wrote opens, tells what it told then, and goes on; see `tests.support.journal_0_1`."""

from __future__ import annotations

import contextlib
import pickle
import sqlite3
import zlib
from pathlib import Path
from typing import Any

import pytest

import mpqueue
from mpqueue import ItemStatus, JobQueue, JobStatus, RetryPolicy
from mpqueue.errors import (
    ItemTimeoutError,
    JournalError,
    JournalMismatchError,
    RemoteError,
    ResultPicklingError,
    SetupError,
    WorkerCrashedError,
)
from tests.support import journal_0_1 as old
from tests.support.disk import Disk
from tests.support.journals import lines_of, rows_of, unpacked
from tests.support.results import results_of

pytestmark = pytest.mark.usefixtures("forked_workers")

FAILED = {
    "fails": ValueError,
    "gives up": mpqueue.GiveUp,
    "crashes": WorkerCrashedError,
    "hangs": ItemTimeoutError,
    "unpicklable": ResultPicklingError,
    "can't be raised": RemoteError,
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The journal, unpacked."""
    return unpacked(old, tmp_path)


@pytest.fixture
def healed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What failed then ends well now."""
    monkeypatch.setenv(old.HEALED, "1")


def test_results_failures_and_histories_are_what_they_were(path: Path) -> None:
    with JobQueue(1, journal=path) as queue:
        assert [(job.id, job.status, job.completed, job.failed) for job in queue.jobs()] == [
            ("measures", JobStatus.COMPLETED_WITH_ERRORS, 4, 6),
            ("no setup", JobStatus.COMPLETED_WITH_ERRORS, 0, 2),
            ("interrupted", JobStatus.PENDING, 9, 0),
        ]
        job = queue.load_job("measures")
        assert "Python 3.11" in str(job.report())
        plain, big, policy, *_ = job.items
        assert (plain.result, big.result) == ({"kind": "plain"}, b"x" * 300_000)
        retry = RetryPolicy(max_retries=1, base_delay=0.01)
        assert (policy.payload and policy.payload["retry"], policy.result) == (retry, old.Measure("policy", retry))
        assert {failure.item.id: type(failure.item.exception) for failure in job.failures} == FAILED
        assert all(item.traceback for item in job.items if item.id in ("fails", "can't be raised"))
        late = job.items[-1]
        assert (late.attempts, [repr(tried.exception) for tried in late.history]) == (2, ["ValueError('not yet')"])
        assert isinstance(queue.load_job("no setup").items[0].exception, SetupError)
        with pytest.raises(ValueError, match="fails"):
            job.items[3].replay()


def columns(path: Path) -> dict[str, list[Any]]:
    """The columns of each table."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: connection.execute(f"PRAGMA table_info({name})").fetchall() for name in tables}


def everything(path: Path) -> list[Any]:
    """What others see of it, who do not open it to write."""
    lines = lines_of(path)
    return [lines, *(rows_of(path, name) for name in lines)]


def test_where_the_migration_fails_it_is_left_as_it_was(path: Path, tmp_path: Path, disk: Disk) -> None:
    def refuse(sql: str, _: object) -> None:
        if sql == "COMMIT":
            raise sqlite3.OperationalError("database or disk is full")

    before, tables = everything(path), columns(path)
    disk.before = refuse
    with pytest.raises(JournalError, match="room"):
        JobQueue(1, journal=path)
    disk.before = lambda _, __: None
    assert (everything(path), columns(path)) == (before, tables)
    with JobQueue(1, journal=path), JobQueue(1, journal=tmp_path / "new.db"):
        assert tables != columns(path) == columns(tmp_path / "new.db")
    assert everything(path) == before


@pytest.mark.usefixtures("healed")
def test_what_failed_runs_again_with_the_handler_that_is_in_it(path: Path) -> None:
    with JobQueue(1, journal=path) as queue:
        job = queue.retry_failed("measures").result()
    assert (job.status, job.failed) == (JobStatus.COMPLETED, 0)
    assert [item.result for item in job.items if item.id in FAILED] == [{"kind": kind} for kind in FAILED]
    with JobQueue(1, journal=path) as queue:
        assert queue.load_job("measures").status is JobStatus.COMPLETED


@pytest.mark.usefixtures("healed")
def test_a_job_that_was_interrupted_goes_on_with_what_is_left(path: Path) -> None:
    with JobQueue(1, journal=path) as queue:
        job = queue.create_job("interrupted", range(10), old.double, rerun=mpqueue.Rerun(strict=True))
        assert [item.id for item in job.items if item.status is not ItemStatus.COMPLETED] == [5]
        assert results_of(queue.start("interrupted").result()) == [2 * item for item in range(10)]
        assert [item.attempts for item in job.items] == [1] * 10


def test_its_items_are_known_by_what_was_kept_of_them_and_from_then_on_by_what_they_are(path: Path) -> None:
    measures = [{"id": kind, "kind": kind, "retry": RetryPolicy(max_retries=1, base_delay=0.01)} for kind in old.KINDS]
    for _ in range(2):
        with JobQueue(1, journal=path) as queue:
            with pytest.raises(JournalMismatchError, match="1 new, 3 gone"):
                queue.create_job("interrupted", [11, *range(7)], old.double)
            job = queue.create_job("interrupted", range(9, -1, -1), old.double)
            assert [item.result for item in job.items if item.payload != 5] == [
                2 * at for at in range(9, -1, -1) if at != 5
            ]
            assert [item.payload for item in job.items if item.status is not ItemStatus.COMPLETED] == [5]
            measured = queue.create_job("measures", measures[::-1], old.measure)
            assert (measured.completed, measured.failed) == (4, 6)
            assert measured.items[-1].result == {"kind": "plain"}
    measures[0]["kind"] = "policy"
    with JobQueue(1, journal=path) as queue:
        plan = queue.plan_job("measures", measures[:-1], old.measure)
        assert (plan.changed, plan.gone, len(plan.same)) == (("plain",), ("at last",), 8)


def leave_out_first(path: Path, items: int) -> None:
    """As 0.1 wrote a job's items of which the first was too big: each for itself, with a checksum before them."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        number = connection.execute("SELECT max(number) FROM payloads").fetchone()[0]
        body = connection.execute("SELECT body FROM payloads WHERE number = ?", (number,)).fetchone()[0]
        first, (_, *rest) = pickle.loads(body[4:])
        kept = [None, *((pickle.dumps(item), *rest) for item in range(1, items))]
        body = pickle.dumps((first, kept))
        body = zlib.crc32(body).to_bytes(4, "little") + body
        connection.execute("UPDATE payloads SET body = ? WHERE number = ?", (body, number))
        connection.commit()


def test_items_that_were_not_kept_are_new_and_the_others_are_known(path: Path) -> None:
    leave_out_first(path, 10)
    with JobQueue(1, journal=path) as queue:
        before = everything(path)
        with pytest.raises(JournalMismatchError, match="1 new, 1 gone"):
            queue.create_job("interrupted", range(10), old.double)
        assert everything(path) == before
        assert queue.create_job("interrupted", range(11), old.double, rerun=mpqueue.Rerun(update=True)).completed == 8
