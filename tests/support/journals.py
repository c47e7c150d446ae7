"""What others see of a journal: its commands, and a second queue."""

from __future__ import annotations

import contextlib
import io
import json
import re
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from mpqueue import Job, JobQueue
from mpqueue.errors import JournalError
from mpqueue.testing import InlinePool
from tests.support.command_line import main
from tests.support.waiting import wait_until


class Line(NamedTuple):
    """A job, as `mpqueue status` shows it."""

    status: str
    completed: int
    failed: int
    total: int


def unpacked(version: ModuleType, folder: Path) -> Path:
    """The journal that a version wrote: that of `journal_0_1` or `journal_rc1`, which lies beside it."""
    with tarfile.open(Path(str(version.__file__)).with_suffix(".tar.xz")) as packed:
        packed.extractall(folder, filter="data")
    return folder / "run.db"


def lines_of(path: Path | str) -> dict[str, Line]:
    """The jobs of a journal by their ids, also while a queue has it open; none if it is not there or can't be read."""
    with contextlib.redirect_stdout(io.StringIO()) as shown, contextlib.redirect_stderr(io.StringIO()):
        main(["status", str(path)])
    found = {}
    for line in shown.getvalue().splitlines()[1:]:
        status, completed, failed, total, _, name = re.split("  +", line, maxsplit=5)
        found[name] = Line(status, int(completed), int(failed), int(total))
    return found


def rows_of(path: Path | str, job_id: str, *columns: str) -> list[dict[str, Any]]:
    """The items of a job, as `mpqueue export` writes them, also while a queue has the journal open."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        rows = Path(folder, "rows.jsonl")
        if main(["export", str(path), job_id, "-o", str(rows), *(["--columns", ",".join(columns)] if columns else [])]):
            return []
        return [json.loads(line) for line in rows.read_text().splitlines()]


def queue_of(path: Path | str, **options: Any) -> JobQueue:
    """A queue with the journal, and no process."""
    return JobQueue(1, backend=InlinePool(), journal=path, max_retries=0, **options)


@contextlib.contextmanager
def recorded(path: Path | str, job_id: str = "job") -> Iterator[Job[Any, Any]]:
    """A job as a second queue finds it."""
    with queue_of(path) as queue:
        yield queue.load_job(job_id)


def told(job: Job[Any, Any]) -> list[Any]:
    """All that can be told of a job, but for times and process ids."""
    return [
        *(job.status, job.completed, job.failed, job.total),
        [
            (
                *(item.id, item.payload, item.status, item.attempts, item.error, item.traceback, item.result),
                repr(item.exception),
                [(tried.error, repr(tried.exception)) for tried in item.history],
            )
            for item in job.items
        ],
    ]


def all_told(path: Path | str) -> dict[str, list[Any]]:
    """That of each job of a journal."""
    with queue_of(path) as queue:
        return {job.id: told(job) for job in queue.jobs()}


def is_free(path: Path | str) -> bool:
    """Whether a queue can have it."""
    try:
        queue_of(path).close()
    except JournalError as error:
        if "has open" not in str(error):
            raise
        return False
    return True


def wait_until_free(path: Path | str) -> None:
    """Wait until no queue has the journal open."""
    wait_until(lambda: is_free(path), what="the journal to be closed")


def values_of(path: Path | str) -> list[Path]:
    """The files of big values."""
    folder = Path(f"{path}.files")
    return sorted(folder.iterdir()) if folder.exists() else []


#: A value in the file: table, column, row.
Cell = tuple[str, str, int]


def cells_of(path: Path) -> Iterator[Cell]:
    """All values of bytes in a journal, whatever they are: table, column, row."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        query = "SELECT name FROM sqlite_master WHERE type = 'table' AND sql NOT LIKE '%WITHOUT ROWID%'"
        for (table,) in connection.execute(query).fetchall():
            for column in (each[1] for each in connection.execute(f"PRAGMA table_info({table})").fetchall()):
                query = f"SELECT rowid FROM {table} WHERE typeof({column}) = 'blob' ORDER BY rowid"
                yield from [(table, column, row) for (row,) in connection.execute(query).fetchall()]


def rows_in(connection: sqlite3.Connection) -> list[Any]:
    """All rows of the file, whatever they are."""
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()]
    return [row for table in tables for row in connection.execute(f"SELECT * FROM {table}").fetchall()]
