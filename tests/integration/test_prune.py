"""`JobQueue.prune` and `clear_job`: a journal gets smaller, and says the same of all that is left."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mpqueue import JobNotFoundError, JobQueue, JobStateError, JournalError, Rerun
from tests.support import handlers as do
from tests.support.command_line import main
from tests.support.disk import Disk
from tests.support.journals import all_told as told
from tests.support.journals import cells_of, queue_of, rows_in, values_of
from tests.support.programs import PATIENCE, run_program
from tests.support.waiting import Gate

pytestmark = pytest.mark.usefixtures("forked_workers")

#: A result that has a file of its own.
BIG = b"big" * 100_000


def work(item: str) -> Any:
    if item == "bad":
        raise ValueError(item)
    return BIG if item.startswith("big") else f"result of {item}"


ITEMS = ["big 1", "bad", *(f"item {number}" for number in range(40)), "big 2"]


def run(path: Path, items: list[str] = ITEMS, job_id: str = "job", **options: Any) -> list[str]:
    """Run a job whose items are written one by one; returns the items that ran."""
    ran: list[str] = []
    with queue_of(path) as queue:
        queue.on("job:progress", lambda event: ran.append(event.item.payload))
        queue.create_job(job_id, items, work, chunksize=1, **options)
        queue.start(job_id).result(300)
    return ran


def prune(path: Path, *arguments: Any, **options: Any) -> Any:
    with queue_of(path) as queue:
        return queue.prune(*arguments, **options)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


def rows(path: Path) -> int:
    with opened(path) as connection:
        return len(rows_in(connection))


def files(path: Path) -> int:
    return len(values_of(path))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A journal with two jobs, of the first of which two items are gone."""
    path = tmp_path_factory.mktemp("made") / "run.db"
    run(path)
    run(path, ITEMS[1:-1], rerun=Rerun(update=True))
    run(path, ["a", "b", "big"], "other")
    return path


@pytest.fixture
def path(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made.parent, tmp_path, dirs_exist_ok=True)
    return tmp_path / "run.db"


@pytest.mark.slow
def test_what_is_gone_goes_and_all_else_is_as_before(path: Path) -> None:
    run(path, ITEMS[1:-1], rerun=Rerun(redo="all"))
    before, size, count = told(path), path.stat().st_size, rows(path)
    assert files(path) == 3
    pruned = prune(path)
    assert (pruned.jobs, pruned.items) == (0, 2)
    assert pruned.bytes > 2 * len(BIG) - 4096
    assert files(path) == 1
    assert told(path) == before
    assert path.stat().st_size < size
    assert rows(path) < count - len(ITEMS) + 4, "what has run again is there once"
    again = prune(path)
    assert (again.jobs, again.items) == (0, 0)
    assert run(path, ITEMS[1:-1]) == [], "nothing is gone any more"
    assert run(path, [*ITEMS, "new"], rerun=Rerun(update=True)) == ["big 1", "big 2", "new"], (
        "what has come back runs again"
    )
    assert run(path, ["a", "b", "big"], "other") == []


def test_what_is_gone_stays_where_that_was_asked_for_and_only_the_named_job_is_pruned(path: Path) -> None:
    pruned = prune(path, "job", gone=False)
    assert (pruned.jobs, pruned.items, files(path)) == (0, 0, 3)
    with opened(path) as connection:
        assert connection.execute("SELECT count(*) FROM files").fetchone() == (3,)
    assert run(path, ITEMS, rerun=Rerun(update=True)) == []


def test_jobs_that_ended_long_ago_are_removed_and_no_others(path: Path, tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    assert prune(path, older_than=3600).jobs == 0
    with JobQueue(1, journal=path) as queue:
        queue.create_job("pending", ["a"], do.succeed)
        queue.create_job("active", ["a"], do.block_until_told(gate))
        active = queue.start("active")
        gate.wait_for("a")
        with pytest.raises(JobStateError, match="got one that is running"):
            queue.prune("active")
        held = queue.create_job("other", ["a", "b", "big"], work)
        queue.start("other").result(300)
        assert queue.prune(older_than=0).jobs == 2
        gate.open()
        assert active.result(300).results == ["a"]
        assert {job.id for job in queue.jobs()} == {"pending", "active"}
        assert held.results[:2] == ["result of a", "result of b"], "it is still held"
    assert {*told(path)} == {"pending", "active"}
    assert files(path) == 0


def test_a_job_is_named_by_itself_or_by_its_id(path: Path, tmp_path: Path) -> None:
    with JobQueue(1, journal=path) as queue:
        recorded = queue.load_job("job")
        assert queue.get_job(recorded) is queue.get_job("job") is recorded
        assert queue.prune(recorded, older_than=0).jobs == 1
        assert queue.get_job(recorded) is None
        with pytest.raises(JobNotFoundError, match="expected a job of this queue"):
            queue.prune(recorded)
        job = queue.run(["a", "b", "big"], work, id="other")
        assert queue.get_job(job) is queue.get_job("other") is job
        assert queue.prune(job).jobs == 0
    with JobQueue(1, journal=tmp_path / "another.db") as another:
        assert another.get_job(job) is None
        with pytest.raises(JobNotFoundError, match="expected a job of this queue"):
            another.prune(job)
    assert queue.load_job(job) is queue.load_job("other") is job, "also when it is closed"


def test_a_wrong_call_is_refused(path: Path) -> None:
    with JobQueue(1) as queue, pytest.raises(JournalError, match="expected a queue with a journal"):
        queue.prune()
    with JobQueue(1, journal=path) as queue:
        with pytest.raises(JobNotFoundError, match="'nobody'"):
            queue.prune("nobody")
        for arguments in ({"older_than": -1}, {"gone": 1}, {"job_id": 3}, {"older_than": "soon"}):
            with pytest.raises((TypeError, ValueError), match="expected"):
                queue.prune(**arguments)


@pytest.mark.slow
@pytest.mark.long
def test_a_job_whose_rows_are_damaged_is_left_as_it_is(
    made: Path, tmp_path: Path, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    disk.syncs, refused = False, 0
    for nth, (table, column, row) in enumerate(cells_of(made)):
        path = tmp_path / str(nth) / "run.db"
        shutil.copytree(made.parent, path.parent)
        with opened(path) as connection:
            connection.execute(f"UPDATE {table} SET {column} = zeroblob(100) WHERE rowid = ?", (row,))
        before = told_or_refused(path)
        caplog.clear()
        with contextlib.suppress(JournalError):
            prune(path, "job")
            continue
        prune(path)
        assert "job 'job' is left as it is, and the others are pruned" in caplog.text
        assert told_or_refused(path) == before
        refused += 1
    assert refused >= len(ITEMS)


def told_or_refused(path: Path) -> str:
    try:
        return repr(told(path))
    except JournalError as error:
        return str(error)


def test_a_file_of_an_older_version_is_written_anew_once_and_only_where_there_is_room(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(path) as connection:
        connection.execute("PRAGMA auto_vacuum=NONE")
        connection.execute("VACUUM")
        assert connection.execute("PRAGMA auto_vacuum").fetchone() == (0,)
    before, count = told(path), rows(path)
    usage = shutil.disk_usage(path)
    with monkeypatch.context() as full:
        full.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
        with pytest.raises(JournalError, match="MB of free disk to write it anew, got 0 MB"):
            prune(path)
    assert (told(path), rows(path)) == (before, count)
    prune(path)
    with opened(path) as connection:
        assert connection.execute("PRAGMA auto_vacuum").fetchone() == (2,)
    assert told(path) == before


def test_a_reader_sees_what_was_there_and_is_in_nobody_s_way(path: Path) -> None:
    with opened(path) as reader, queue_of(path) as queue:
        reader.execute("BEGIN")
        before = rows_in(reader)
        queue.prune(older_than=0)
        assert rows_in(reader) == before
        reader.execute("COMMIT")
        assert len(rows_in(reader)) < len(before) - len(ITEMS)


def test_a_cleared_job_gives_its_pages_back(path: Path) -> None:
    size = path.stat().st_size
    with JobQueue(1, journal=path) as queue:
        queue.clear_job("job")
    with opened(path) as connection:
        assert connection.execute("PRAGMA freelist_count").fetchone() == (0,)
    assert path.stat().st_size < size
    assert run(path, ["a", "b", "big"], "other") == []


#: Prunes copies of a journal, each in a process that ends at another one of its steps.
PROGRAM = """
import sys
from pathlib import Path
from mpqueue import JobQueue
from mpqueue.testing import InlinePool
from tests.support.ended_early import end_at_each

def prune(folder):
    with JobQueue(1, journal=folder / "run.db", backend=InlinePool()) as queue:
        queue.prune("job")
        queue.clear_job("other")

made, folder = map(Path, sys.argv[1:])
print(end_at_each(made, folder, prune, lambda sql: not sql.startswith("SELECT")))
"""


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("auto_vacuum", ["INCREMENTAL", "NONE"])
def test_a_kill_at_any_step_loses_nothing(path: Path, auto_vacuum: str, tmp_path: Path, disk: Disk) -> None:
    with opened(path) as connection:
        connection.execute(f"PRAGMA auto_vacuum={auto_vacuum}")
        connection.execute("VACUUM")
    before, copies = told(path), tmp_path / "copies"
    disk.syncs = False
    made = tmp_path / "made" / "run.db"
    made.parent.mkdir()
    shutil.copy(path, made)
    shutil.copytree(f"{path}.files", f"{made}.files")
    copies.mkdir()
    steps = int(run_program(tmp_path, PROGRAM, made.parent, copies, timeout=2 * PATIENCE).stdout)
    assert steps > 50
    for step in range(1, steps + 1):
        copy = copies / str(step) / "run.db"
        after = told(copy)
        assert after["job"] == before["job"]
        assert after.get("other") in (None, before["other"])
        if step % 40 == 0:
            assert run(copy, ITEMS[1:-1], rerun=Rerun(update=True)) == []


@pytest.mark.slow
def test_the_command_prunes(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prune", str(path), "--no-gone"]) == 0
    assert "0 jobs and 0 gone items removed" in capsys.readouterr().err
    assert main(["prune", str(path), "--job", "job"]) == 0
    assert "0 jobs and 2 gone items removed, " in capsys.readouterr().err
    assert main(["prune", str(path), "--older-than", "0s"]) == 0
    assert "2 jobs and 0 gone items removed, " in capsys.readouterr().err
    assert main(["prune", str(path), "--job", "job"]) == 2
    assert "expected the id of a job that is there, got 'job'" in capsys.readouterr().err
    assert main(["prune", str(path.parent / "no.db")]) == 2
    assert os.listdir(path.parent) == [path.name]
