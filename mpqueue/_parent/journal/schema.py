"""The journal's tables, and the version of them.

``jobs``: a line each. ``slots`` is how many slots it has, ``places`` the slots of its items in their order (NULL: all
slots). With ``slots`` NULL version 1 wrote it, and ``ids`` are those of all its items. With a negative ``total`` its
maker ended before all of it was written. ``cpu`` and ``ran`` are of its last run: CPU seconds of the workers (NULL: not
measured) and how many items. ``codes`` are what its handler was made of, in each version that made results, the last
one last; version 2 had ``code_hash``. ``seal`` is a checksum over the line, see
`mpqueue._parent.journal.guards.job_lines`. ``slots``: what the items are, in blocks; what is beyond the job's ``slots``
does not count. ``payloads``: the items. ``chunks``: their outcomes, and of which slots these are. ``files``: the big
values beside the journal. ``added_items``: the items of a job that grew while it ran, a line for each lot that came
together, in the slots from the ``first`` on: of one that ``is_open``, and of a stream, whose ``generation`` is not
NULL. Of a stream, what has ended is counted. ``written_by``: a line for each time that a queue opened it to write,
with how often that one committed.
Bodies are sealed, see `mpqueue._parent.journal.sealed`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mpqueue.errors import JournalError

#: One statement of a transaction, and its arguments.
Statement = tuple[str, Sequence[Any]]

#: SQLite's ``application_id``: "mpqj".
APPLICATION = 0x6D70716A
#: SQLite's ``user_version``: what the tables and rows look like.
VERSION = 4

ADDED_ITEMS = """CREATE TABLE added_items (
    number INTEGER PRIMARY KEY, job INTEGER NOT NULL, first INTEGER NOT NULL, count INTEGER NOT NULL,
    body BLOB NOT NULL, UNIQUE (job, first)
)"""

SCHEMA = (
    """CREATE TABLE jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, total INTEGER NOT NULL, rule TEXT NOT NULL,
    ids BLOB, payload_hash TEXT, code_hash TEXT, handler BLOB, seed TEXT, created_at REAL NOT NULL,
    status TEXT NOT NULL, started_at REAL, finished_at REAL, duration REAL,
    completed INTEGER NOT NULL DEFAULT 0, failed INTEGER NOT NULL DEFAULT 0, retries INTEGER NOT NULL DEFAULT 0,
    version TEXT, python TEXT, handler_name TEXT, suspects BLOB, slots INTEGER, places BLOB,
    generation INTEGER, is_open INTEGER, cpu REAL, ran INTEGER, codes BLOB, seal INTEGER
)""",
    """CREATE TABLE slots (
    number INTEGER PRIMARY KEY, job INTEGER NOT NULL, first INTEGER NOT NULL, body BLOB NOT NULL, ids BLOB,
    UNIQUE (job, first)
)""",
    "CREATE TABLE payloads (number INTEGER PRIMARY KEY, job INTEGER NOT NULL, body BLOB NOT NULL)",
    "CREATE INDEX payloads_of_job ON payloads (job)",
    "CREATE TABLE chunks (number INTEGER PRIMARY KEY, job INTEGER NOT NULL, body BLOB NOT NULL, slots BLOB)",
    "CREATE INDEX chunks_of_job ON chunks (job)",
    "CREATE TABLE files (name TEXT PRIMARY KEY, job INTEGER NOT NULL, size INTEGER, digest BLOB) WITHOUT ROWID",
    ADDED_ITEMS,
    """CREATE TABLE written_by (
    number INTEGER PRIMARY KEY, at REAL NOT NULL, mpqueue TEXT NOT NULL, python TEXT NOT NULL, host TEXT NOT NULL,
    program TEXT NOT NULL, commits INTEGER NOT NULL DEFAULT 0
)""",
)

#: What belongs to a job, as the beginnings of conditions.
OWNED = (
    *("payloads WHERE job", "slots WHERE job", "chunks WHERE job", "files WHERE job", "added_items WHERE job"),
    "jobs WHERE number",
)


def check_version(path: str, application: int, version: int) -> None:
    """Raise `JournalError` unless this version can read it, as it is or once it is migrated."""
    if application != APPLICATION:
        raise JournalError(
            f"{path}: expected a journal, got an SQLite database of another program; it is left as it is"
        )
    if version > VERSION:
        raise JournalError(
            f"{path}: expected a journal of version {VERSION} at most, got version {version}, which a newer mpqueue "
            "wrote; it is left as it is: use that one, or another file"
        )
    if version < 1:
        raise JournalError(
            f"{path}: expected a journal of version 1 to {VERSION}, got version {version}, which no mpqueue wrote: it "
            "is damaged; it is left as it is"
        )
