"""From one version of the journal's tables to the next: a function each, run in one transaction.

Where one fails, the file is as it was. A reader does not migrate: it looks at an old file through views that have the
names and columns of the newest tables (`look_at`).

The next version needs: `SCHEMA` and `VERSION` in `mpqueue._parent.journal.schema`, a function in `MIGRATIONS`, the
views in `VIEWS`, and a journal of the version before in the tests.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mpqueue._parent.journal.guards.job_lines import SAID, seal_of
from mpqueue._parent.journal.schema import ADDED_ITEMS, STREAM_ITEMS, VERSION
from mpqueue._parent.journal.sealed import CHECK, Place, bind
from mpqueue.errors import JournalError


def migrate(connection: Any, version: int) -> None:
    """Bring tables of that version to `VERSION`, within the caller's transaction. Raises what the database raises."""
    for each in range(version, VERSION):
        MIGRATIONS[each](connection)


def look_at(connection: Any, version: int) -> None:
    """Let a connection that only reads see tables of that version as if they were of `VERSION`."""
    for view in VIEWS.get(version, ()):
        connection.execute(view)


#: What jobs and files have since version 2.
MORE_OF_JOBS = (
    ("version", "TEXT"),
    ("python", "TEXT"),
    ("handler_name", "TEXT"),
    ("suspects", "BLOB"),
    ("slots", "INTEGER"),
    ("places", "BLOB"),
    ("generation", "INTEGER"),
    ("is_open", "INTEGER"),
    ("cpu", "REAL"),
    ("ran", "INTEGER"),
)
MORE_OF_FILES = (("size", "INTEGER"), ("digest", "BLOB"))
#: What jobs have since version 3.
NEWER_OF_JOBS = (("codes", "BLOB"), ("seal", "INTEGER"))


def _to_2(connection: Any) -> None:
    """Checksums cover the place; jobs have columns more; slots, items of streams, and who wrote it.

    Identities of the items are not filled in: they are known once a program comes with the items.
    """
    for statement in TO_2:
        connection.execute(statement)
    for number, ids, handler in connection.execute("SELECT number, ids, handler FROM jobs").fetchall():
        columns = (_bound(ids, Place("jobs.ids", number)), _bound(handler, Place("jobs.handler", number)))
        connection.execute("UPDATE jobs SET ids = ?, handler = ? WHERE number = ?", (*columns, number))
    for table in ("payloads", "chunks"):
        for (row,) in connection.execute(f"SELECT number FROM {table}").fetchall():  # noqa: S608
            # Of the same size: SQLite writes the page that changes.
            job, body = connection.execute(f"SELECT job, body FROM {table} WHERE number = ?", (row,)).fetchone()  # noqa: S608
            body = _bound(body, Place(table, job, row))
            connection.execute(f"UPDATE {table} SET body = ? WHERE number = ?", (body, row))  # noqa: S608


def _to_3(connection: Any) -> None:
    """Each job's line has a checksum, and the codes that made its results: of those that are there, none is known."""
    for name, kind in NEWER_OF_JOBS:
        connection.execute(f"ALTER TABLE jobs ADD COLUMN {name} {kind}")
    for said in connection.execute(f"SELECT {SAID} FROM jobs NOT INDEXED").fetchall():  # noqa: S608
        connection.execute("UPDATE jobs SET seal = ? WHERE number = ?", (seal_of(said), said[0]))


def _bound(body: Any, place: Place) -> Any:
    """A body of version 1, with its checksum bound to its place; one that is damaged stays so."""
    if body is None:
        return None
    if not isinstance(body, bytes):
        raise JournalError(f"expected bytes in {place.table}, got {type(body).__name__}")
    return bind(int.from_bytes(body[:CHECK], "little"), place).to_bytes(CHECK, "little") + body[CHECK:]


def _nulls(columns: tuple[tuple[str, str], ...]) -> str:
    return ", ".join(f"NULL AS {name}" for name, _ in columns)


TO_2 = (
    *(f"ALTER TABLE jobs ADD COLUMN {name} {kind}" for name, kind in MORE_OF_JOBS),
    *(f"ALTER TABLE files ADD COLUMN {name} {kind}" for name, kind in MORE_OF_FILES),
    "ALTER TABLE chunks ADD COLUMN slots BLOB",
    """CREATE TABLE slots (
    number INTEGER PRIMARY KEY, job INTEGER NOT NULL, first INTEGER NOT NULL, body BLOB NOT NULL, ids BLOB,
    UNIQUE (job, first)
)""",
    STREAM_ITEMS,
    ADDED_ITEMS,
    """CREATE TABLE written_by (
    number INTEGER PRIMARY KEY, at REAL NOT NULL, mpqueue TEXT NOT NULL, python TEXT NOT NULL, host TEXT NOT NULL,
    program TEXT NOT NULL, commits INTEGER NOT NULL DEFAULT 0
)""",
)

MIGRATIONS: dict[int, Callable[[Any], None]] = {1: _to_2, 2: _to_3}

#: By version: temporary views that hide the tables of that version, and are like the newest.
VIEWS: dict[int, tuple[str, ...]] = {
    1: (
        f"CREATE TEMP VIEW jobs AS SELECT *, {_nulls(MORE_OF_JOBS + NEWER_OF_JOBS)} FROM main.jobs",  # noqa: S608
        f"CREATE TEMP VIEW files AS SELECT *, {_nulls(MORE_OF_FILES)} FROM main.files",  # noqa: S608
        "CREATE TEMP VIEW chunks AS SELECT *, NULL AS slots FROM main.chunks",
        (
            "CREATE TEMP VIEW stream_items AS SELECT 0 number, 0 job, NULL identity, 0 nth, 0 status, NULL body, "
            "NULL item WHERE 0"
        ),
        "CREATE TEMP VIEW added_items AS SELECT 0 number, 0 job, 0 first, 0 count, NULL body WHERE 0",
        "CREATE TEMP VIEW slots AS SELECT 0 AS number, 0 AS job, 0 AS first, NULL AS body, NULL AS ids WHERE 0",
        (
            "CREATE TEMP VIEW written_by AS "
            "SELECT 0 number, 0 at, '' mpqueue, '' python, '' host, '' program, 0 commits WHERE 0"
        ),
    ),
    2: (f"CREATE TEMP VIEW jobs AS SELECT *, {_nulls(NEWER_OF_JOBS)} FROM main.jobs",),  # noqa: S608
}
