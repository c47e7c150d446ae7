"""Reading a journal, also while somebody writes it: each question has a connection of its own, which can't write."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Any

from mpqueue._core.state.item_table import ItemTable
from mpqueue._parent.journal import journal_lock as lock
from mpqueue._parent.journal.chunk_rows import read_row, unseal
from mpqueue._parent.journal.journal_file import (
    check_version,
    column_to_id,
    explained,
    folder_of,
    id_to_column,
    open_to_read,
)
from mpqueue._parent.journal.kept_payloads import read_payloads
from mpqueue._parent.journal.ownership import check_own, check_stat
from mpqueue._wire.ids import IdRule
from mpqueue.errors import JournalError
from mpqueue.status import JobStatus


@dataclass(frozen=True, slots=True)
class RecordedJob:
    """A job's line: all but its items."""

    number: int
    id: str
    total: int
    rule: str
    payload_hash: str | None
    code_hash: str | None
    seed: int
    created_at: float
    status: JobStatus
    started_at: float | None
    finished_at: float | None
    duration: float | None
    completed: int
    failed: int
    retries: int


_COLUMNS = (
    "number, id, total, rule, payload_hash, code_hash, seed, created_at, status, started_at, finished_at, duration, "
    "completed, failed, retries"
)
#: What SQLite may give for each: it keeps anything in any column.
_TEXT, _TIME = (str, type(None)), (float, int, type(None))
_TYPES: tuple[Any, ...] = (
    *(int, (str, bytes), int, str, _TEXT, _TEXT, str, (float, int), str, _TIME, _TIME, _TIME),
    *(int, int, int),
)


class Reader:
    """Any thread, any process. Every method raises `JournalError` for what it can't read, and changes nothing."""

    def __init__(self, path: str) -> None:
        self.path = path

    @property
    def in_use(self) -> bool:
        """True while a queue, of whatever process, writes it."""
        return lock.is_held(self.path)

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with explained(self.path):
            check_own(self.path)
            if not os.path.exists(self.path):
                raise JournalError(f"{self.path}: expected a journal, got a name that is not there")
            if not os.path.isfile(self.path):
                raise JournalError(f"{self.path}: expected a file, got something else; it is left as it is")
            with contextlib.closing(open_to_read(self.path)) as connection:
                application = connection.execute("PRAGMA application_id").fetchone()[0]
                check_version(self.path, application, connection.execute("PRAGMA user_version").fetchone()[0])
                yield connection

    def jobs(self) -> list[RecordedJob]:
        """All jobs, in the order in which they were created."""
        with self._open() as connection:
            return [_job(row) for row in connection.execute(f"SELECT {_COLUMNS} FROM jobs ORDER BY number")]  # noqa: S608

    def find(self, job_id: str) -> RecordedJob | None:
        """The job of that id."""
        with self._open() as connection:
            # Without the index, which may be damaged: what `jobs` lists is found here, or said to be damaged.
            query = f"SELECT {_COLUMNS} FROM jobs NOT INDEXED WHERE id = ?"  # noqa: S608
            row = connection.execute(query, (id_to_column(job_id),)).fetchone()
            return None if row is None else _job(row)

    def ids(self, job: RecordedJob) -> list[Hashable] | None:
        """Its items' ids; None where they are positions."""
        body = self._value("ids", job)
        return None if body is None else list(unseal(body, f"{self.path}: the ids of job {job.id!r}"))

    def handler(self, job: RecordedJob) -> Any:
        """Its handler as it was written, None where that was not kept."""
        body = self._value("handler", job)
        return None if body is None else unseal(body, f"{self.path}: the handler of job {job.id!r}")

    def _value(self, column: str, job: RecordedJob) -> bytes | None:
        with self._open() as connection:
            row = connection.execute(f"SELECT {column} FROM jobs WHERE number = ?", (job.number,)).fetchone()  # noqa: S608
        if row is None:
            raise JournalError(f"{self.path}: expected job {job.id!r}, which has been removed from it")
        found: bytes | None = row[0]
        return found

    def table(self, job: RecordedJob) -> ItemTable:
        """The job's items as they stood, with the payloads that were kept."""
        ids = self.ids(job)
        with self._open() as connection:
            bodies = connection.execute("SELECT body FROM payloads WHERE job = ? ORDER BY number", (job.number,))
            payloads = read_payloads(job.total, (row[0] for row in bodies), self.path)
        if ids is not None and len(ids) != job.total:
            raise JournalError(f"{self.path}: expected {job.total} ids, got {len(ids)}; it is left as it is")
        table = ItemTable(payloads, ids, IdRule(job.rule))
        self.fill(table, job)
        return table

    def fill(self, table: ItemTable, job: RecordedJob) -> list[int]:
        """Write into the table what became of its items; returns those whose results can't be read here."""
        unreadable: set[int] = set()
        with self._open() as connection:
            for (body,) in connection.execute("SELECT body FROM chunks WHERE job = ? ORDER BY number", (job.number,)):
                unreadable.update(read_row(body, table, self.read_file, self.path))
        return sorted(unreadable)

    def read_file(self, name: str) -> bytes:
        """A big value's file. Raises OSError, and `JournalError` for one that another user has put there."""
        path = folder_of(self.path) / os.path.basename(name)
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
            check_stat(str(path), os.fstat(file.fileno()))
            return file.read()


def _job(row: tuple[Any, ...]) -> RecordedJob:
    """Raises TypeError or ValueError for what nobody has written."""
    fields = list(row)
    if not all(map(isinstance, fields, _TYPES)):
        raise TypeError(f"the line of job {fields[1]!r}")
    IdRule(fields[3])
    fields[1] = column_to_id(fields[1])
    fields[6], fields[8] = int(fields[6], 16 if fields[6].startswith("0x") else 10), JobStatus(fields[8])
    return RecordedJob(*fields)
