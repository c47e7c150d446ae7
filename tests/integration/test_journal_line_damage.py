"""What a disk does to the line of a job, and to the marks of what ran: a `JournalError`, or the right answer."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import tarfile
from contextlib import closing
from pathlib import Path

import pytest

import mpqueue
from mpqueue.errors import JournalError
from tests.support import journal_rc1
from tests.support.programs import run_program
from tests.support.systems import not_on_windows

pytestmark = [pytest.mark.slow, not_on_windows("memory is limited by RLIMIT_AS")]

DAMAGES = """
import resource, shutil, sqlite3, sys
from contextlib import closing, suppress
from pathlib import Path
import mpqueue
from mpqueue.errors import JournalError

LISTS = {
    "list": [{"id": f"item {number}"} for number in range(5)],
    "moved": [{"id": f"item {number}"} for number in (7, 3, 4)],
    "open": [*range(5)],
    "waiting": [*range(4)],
    "stream": [*range(6)],
}

def work(item):
    return repr(item)

def make(path):
    with mpqueue.JobQueue(1, journal=path) as queue:
        queue.run(LISTS["list"], work, id="list", rerun=mpqueue.Rerun(version="1"))
        queue.run([{"id": f"item {number}"} for number in range(5)], work, id="moved")
        queue.open_job("open", [], work)
        queue.add_items("open", LISTS["open"])
        queue.seal("open")
        queue.start("open").result()
        queue.create_job("waiting", LISTS["waiting"], work)
    with mpqueue.JobQueue(1, journal=path) as queue:
        queue.create_job("moved", LISTS["moved"], work, rerun=mpqueue.Rerun(update=True))
        queue.start("moved").result()
    resume_stream(path)

def resume_stream(path):
    return [*mpqueue.imap(work, LISTS["stream"], journal=path, job_id="stream", concurrency=1)]

def state_of(job):
    results = [] if job.status is mpqueue.JobStatus.PENDING else job.results
    return job.id, job.status, job.total, job.completed, job.failed, [item.id for item in job.items], results

def listed(queue, _):
    return [(job.id, job.status, job.total, job.completed, job.failed) for job in queue.jobs()]

def loaded(queue, job_id):
    return state_of(queue.load_job(job_id))

def resumed(queue, job_id):
    options = {"rerun": mpqueue.Rerun(version="1")} if job_id == "list" else {}
    create = queue.open_job if job_id == "open" else queue.create_job
    return state_of(create(job_id, LISTS[job_id], work, **options))

def answers(path, job_id):
    "What each says; None where that is a JournalError."
    asks = [listed, loaded] if job_id == "stream" else [listed, loaded, resumed]
    found = {}
    with mpqueue.JobQueue(1, journal=path) as queue:
        for ask in asks:
            with suppress(JournalError):
                found[ask.__name__] = ask(queue, job_id)
    if job_id == "stream":
        with suppress(JournalError):
            found["resumed"] = resume_stream(path)
    return found

def flipped(value):
    if isinstance(value, int):
        yield from (value ^ 1, value ^ 1 << 40)
    elif isinstance(value, float):
        yield from (value + 2**-10, value * 2**30)
    elif isinstance(value, str) and value:
        yield from (chr(ord(value[0]) ^ 1) + value[1:], value[:-1] + chr(ord(value[-1]) ^ 2))
    elif isinstance(value, bytes) and value:
        yield from (value[:at] + bytes([value[at] ^ 1]) + value[at + 1:] for at in (0, len(value) // 2))

def damaged(good, copy, column, job_id):
    "Each time the copy has another value there."
    with closing(sqlite3.connect(good)) as connection:
        now, = connection.execute(f"SELECT {column} FROM jobs WHERE id = ?", (job_id,)).fetchone()
        others = [value for value, in connection.execute(f"SELECT DISTINCT {column} FROM jobs")]
    for value in (-1, 2**40, "text", b"bytes", None, *flipped(now), *others):
        shutil.copy(good, copy)
        with closing(sqlite3.connect(copy)) as connection, suppress(sqlite3.IntegrityError):
            connection.execute("PRAGMA synchronous=OFF")
            connection.execute(f"UPDATE jobs SET {column} = ? WHERE id = ?", (value, job_id))
            connection.commit()
            yield value

if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
    good, copy, job_id = Path("good.db"), Path("copy.db"), sys.argv[1]
    make(good)
    with closing(sqlite3.connect(good)) as connection:
        columns = [name for _, name, *_ in connection.execute("PRAGMA table_info(jobs)")]
    shutil.copy(good, copy)
    right, refused = answers(copy, job_id), 0
    for column in columns:
        for value in damaged(good, copy, column, job_id):
            try:
                found = answers(copy, job_id)
            except BaseException as error:
                print(f"{column} {value!r}: {type(error).__name__}: {error}")
                continue
            refused += len(right) - len(found)
            for ask in found:
                if found[ask] != right[ask]:
                    print(f"{ask} with {column} {value!r}: {found[ask]}")
    print(len(columns) > 20, len(right), refused > 300)
"""


@pytest.mark.long(but=["open"])
@pytest.mark.parametrize("job_id", ["list", "moved", "open", "waiting", "stream"])
def test_a_damaged_line_of_a_job_is_refused_or_changes_nothing(tmp_path: Path, job_id: str) -> None:
    done = run_program(tmp_path, DAMAGES, job_id, timeout=240)
    assert done.stdout == "True 3 True\n", done.stderr


def test_a_journal_whose_lines_have_no_checksum_yet_is_read_as_it_is_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    with tarfile.open(Path(journal_rc1.__file__).with_name("journal_rc1.tar.xz")) as packed:
        packed.extractall(tmp_path, filter="data")
    before = path.read_bytes()
    shown = subprocess.run(
        [sys.executable, "-m", "mpqueue", "status", path], capture_output=True, text=True, check=True
    ).stdout
    assert [line.split()[-1] for line in shown.splitlines()] == ["JOB", "values", "named", "open", "stream"]
    assert path.read_bytes() == before
    with mpqueue.JobQueue(1, journal=path) as queue:
        results = [journal_rc1.show(value) for value in journal_rc1.VALUES]
        assert queue.create_job("values", journal_rc1.VALUES, journal_rc1.show).results == results
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE jobs SET total = 4 WHERE id = 'values'")
        connection.commit()
    with mpqueue.JobQueue(1, journal=path) as queue:
        with pytest.raises(JournalError, match="line 1 of its jobs"):
            queue.load_job("values")
        assert queue.load_job("named").completed == 2
        with pytest.raises(JournalError, match="line 1 of its jobs"):  # which may be that of this job
            queue.create_job("new", range(3), abs)
