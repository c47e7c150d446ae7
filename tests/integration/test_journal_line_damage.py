"""What a disk does to the line of a job: a `JournalError`, not another answer."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from mpqueue import JobQueue
from mpqueue.errors import JournalError
from tests.support import journal_rc1
from tests.support.disk import Disk
from tests.support.journals import lines_of, queue_of, unpacked
from tests.support.kinds import EACH_KIND, JOB, Kind

pytestmark = pytest.mark.slow

#: The columns that have seals of their own: see `test_journal_damage.py`.
WITH_SEALS = {"handler", "suspects", "places", "codes"}
ITEMS = [{"id": f"item {number}"} for number in range(5)]


@EACH_KIND
def test_a_damaged_line_of_a_job_is_refused_by_each_way_to_look(tmp_path: Path, disk: Disk, kind: Kind) -> None:
    disk.syncs = False
    good, copy = tmp_path / "good.db", tmp_path / "copy.db"
    with queue_of(good) as queue:
        queue.run(ITEMS[:2], str, id="another")
    expected = kind.run(repr, ITEMS, good)
    with closing(sqlite3.connect(good)) as connection:
        columns = [name for _, name, *_ in connection.execute("PRAGMA table_info(jobs)")]
    for column in set(columns) - WITH_SEALS:
        shutil.copy(good, copy)
        with closing(sqlite3.connect(copy)) as connection:
            connection.execute(f"UPDATE jobs SET {column} = 7 WHERE id = ?", (JOB,))
            connection.commit()
        with queue_of(copy) as queue:
            for look in (queue.jobs, lambda queue=queue: queue.load_job(JOB)):
                with pytest.raises(JournalError):
                    look()
        with pytest.raises(JournalError):
            kind.run(repr, ITEMS, copy)
    assert kind.run(repr, ITEMS, good) == expected


def test_a_journal_whose_lines_have_no_checksum_yet_is_read_as_it_is_and_goes_on(tmp_path: Path) -> None:
    path = unpacked(journal_rc1, tmp_path)
    before = path.read_bytes()
    assert [*lines_of(path)] == ["values", "named", "open", "stream"]
    assert path.read_bytes() == before
    with JobQueue(1, journal=path) as queue:
        results = [journal_rc1.show(value) for value in journal_rc1.VALUES]
        assert queue.create_job("values", journal_rc1.VALUES, journal_rc1.show).results == results
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE jobs SET total = 4 WHERE id = 'values'")
        connection.commit()
    with JobQueue(1, journal=path) as queue:
        with pytest.raises(JournalError, match="line 1 of its jobs"):
            queue.load_job("values")
        assert queue.load_job("named").completed == 2
        with pytest.raises(JournalError, match="line 1 of its jobs"):  # which may be that of this job
            queue.create_job("new", range(3), abs)
