"""What a disk does to the line of a job, and to the marks of what ran: a `JournalError`, or the right answer."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import tarfile
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from mpqueue import Job, JobQueue, JobStatus
from mpqueue.errors import JournalError
from tests.support import journal_rc1
from tests.support.disk import Disk
from tests.support.journals import lines_of, queue_of
from tests.support.kinds import EACH_KIND, JOB, Kind
from tests.support.length import IS_LONG
from tests.support.systems import not_on_windows

pytestmark = [pytest.mark.slow, not_on_windows("memory is limited by RLIMIT_AS")]

ITEMS = [{"id": f"item {number}"} for number in range(5)]


@contextlib.contextmanager
def little_memory() -> Iterator[None]:
    """A damaged count of items takes no more than 4 GB beyond what there is."""
    import resource  # which Windows does not have

    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (4 << 30), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def flipped(value: object) -> Iterator[object]:
    """The value with another bit."""
    if isinstance(value, int):
        yield from (value ^ 1, value ^ 1 << 40)
    elif isinstance(value, float):
        yield from (value + 2**-10, value * 2**30)
    elif isinstance(value, str) and value:
        yield from (chr(ord(value[0]) ^ 1) + value[1:], value[:-1] + chr(ord(value[-1]) ^ 2))
    elif isinstance(value, bytes) and value:
        yield from (value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :] for at in (0, len(value) // 2))


def damaged(good: Path, copy: Path) -> Iterator[str]:
    """Each time the copy has another value in the job's line; returns which."""
    with closing(sqlite3.connect(good)) as connection:
        columns = [name for _, name, *_ in connection.execute("PRAGMA table_info(jobs)")]
        lines = connection.execute("SELECT * FROM jobs WHERE id = ? UNION ALL SELECT * FROM jobs", (JOB,)).fetchall()
    for at, column in enumerate(columns):
        for value in (-1, 2**40, "text", b"bytes", None, *flipped(lines[0][at]), *(line[at] for line in lines)):
            shutil.copy(good, copy)
            with closing(sqlite3.connect(copy)) as connection, suppress(sqlite3.IntegrityError):
                connection.execute("PRAGMA synchronous=OFF")
                connection.execute(f"UPDATE jobs SET {column} = ? WHERE id = ?", (value, JOB))
                connection.commit()
                yield f"{column} {value!r}"


def state_of(job: Job[Any, Any]) -> tuple[Any, ...]:
    results = [] if job.status is JobStatus.PENDING else job.results
    return job.id, job.status, job.total, job.completed, job.failed, [item.id for item in job.items], results


def answers(path: Path, resume: Callable[[], object]) -> dict[str, object]:
    """What each way to look says; without those that refuse."""
    found: dict[str, object] = {}
    with suppress(JournalError), queue_of(path) as queue:
        with suppress(JournalError):
            found["listed"] = [(job.id, job.status, job.total, job.completed, job.failed) for job in queue.jobs()]
        with suppress(JournalError):
            found["loaded"] = state_of(queue.load_job(JOB))
    with suppress(JournalError):
        found["resumed"] = resume()
    return found


@EACH_KIND
def test_a_damaged_line_of_a_job_is_refused_or_changes_nothing(tmp_path: Path, disk: Disk, kind: Kind) -> None:
    disk.syncs = False
    good, copy = tmp_path / "good.db", tmp_path / "copy.db"
    with queue_of(good) as queue:
        queue.run(ITEMS[:2], str, id="another")
    kind.run(repr, [ITEMS[number] for number in (1, 0, 2, 3)], good)
    kind.run(repr, ITEMS, good)

    def resume() -> object:
        return kind.run(repr, ITEMS, copy)

    shutil.copy(good, copy)
    right, refused = answers(copy, resume), 0
    assert len(right) == 3
    with little_memory():
        for what in islice(damaged(good, copy), None, None, 1 if IS_LONG else 3):
            found = answers(copy, resume)
            for way, answer in found.items():
                assert answer == right[way], f"{way} with {what}"
            refused += len(right) - len(found)
    assert refused > (200 if IS_LONG else 60)


def test_a_journal_whose_lines_have_no_checksum_yet_is_read_as_it_is_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    with tarfile.open(Path(journal_rc1.__file__).with_name("journal_rc1.tar.xz")) as packed:
        packed.extractall(tmp_path, filter="data")
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
