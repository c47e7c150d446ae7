"""The journal's tables, the checksum of a job's line, and how tables of older versions become these.

``jobs``: a line each. ``slots`` is how many slots it has, ``places`` the slots of its items in their order (NULL: all
slots). With ``slots`` NULL version 1 wrote it, and ``ids`` are those of all its items. With a negative ``total`` its
maker ended before all of it was written. ``cpu`` and ``ran`` are of its last run: CPU seconds of the workers (NULL: not
measured) and how many items. ``codes`` are what its handler was made of, in each version that made results, the last
one last; version 2 had ``code_hash``. ``seal`` is a checksum over the line, see below. ``slots``: what the items are,
in blocks; what is beyond the job's ``slots`` does not count. ``payloads``: the items. ``chunks``: their outcomes, and
of which slots these are. ``files``: the big values beside the journal. ``added_items``: the items of a job that grew
while it ran, a line for each lot that came together, in the slots from the ``first`` on: of one that ``is_open``, and
of a stream, whose ``generation`` is not NULL. Of a stream, what has ended is counted. ``written_by``: a line for each
time that a queue opened it to write, with how often that one committed. Bodies are sealed, see
`mpqueue._parent.journal.kept_values`.

The checksum of a job's line covers all that it says. The database makes it itself, whatever statement has written the
line, see `seal_lines`; and it refuses to change a line that is not as it was written, so that no damage is sealed.
Readers compare it, see `is_whole`.

From one version of the tables to the next there is a function each, run in one transaction. Before that, a copy is made
beside the file; where one fails, the file is as it was. A reader, who changes nothing, migrates a temporary copy of its
own.

The next version needs: another `SCHEMA` and `VERSION`, a function in `MIGRATIONS`, and a journal of the version before
in the tests.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import sqlite3
import zlib
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mpqueue._os.files import NO_LINKS, open_file, sync_folder
from mpqueue._parent.journal.chunk_rows import NUMBERS, chunk_statement, row_of, written_numbers
from mpqueue._parent.journal.kept_values import CHECK, Kept, Place, Unreadable, bind, restore, unseal
from mpqueue._parent.journal.lots import BY_USER, AddedRow
from mpqueue.errors import JournalError, shown
from mpqueue.status import COMPLETED, FAILED

# -- schema ------------------------------------------------------------------------------------------------------------

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


# -- job lines ---------------------------------------------------------------------------------------------------------

#: What a line says, in this order.
COLUMNS = (
    *("number", "id", "total", "rule", "payload_hash", "code_hash", "seed", "created_at", "status", "started_at"),
    *("finished_at", "duration", "completed", "failed", "retries", "version", "python", "slots", "handler_name"),
    *("generation", "is_open", "cpu", "ran"),
)
#: Bodies, which are sealed by themselves: the line says only which of them are there.
BODIES = ("ids", "handler", "suspects", "places", "codes")
#: All that ``seal`` covers, for a SELECT.
SAID = ", ".join((*COLUMNS, *(f"{name} IS NULL" for name in BODIES)))
#: How many values that is.
COUNT = len(COLUMNS) + len(BODIES)

_RESEAL = f"UPDATE jobs SET seal = mpqueue_seal({SAID}) WHERE number = NEW.number"  # noqa: S608
_CHECK = f"""SELECT RAISE(ABORT, 'the line of a job is damaged') FROM jobs
WHERE number = OLD.number AND seal IS NOT mpqueue_seal({SAID})"""  # noqa: S608
_CHANGED = f"UPDATE OF {', '.join(COLUMNS + BODIES)} ON main.jobs"
_TRIGGERS = (
    f"CREATE TEMP TRIGGER seal_new AFTER INSERT ON main.jobs BEGIN {_RESEAL}; END",
    f"CREATE TEMP TRIGGER check_changed BEFORE {_CHANGED} BEGIN {_CHECK}; END",
    f"CREATE TEMP TRIGGER seal_changed AFTER {_CHANGED} BEGIN {_RESEAL}; END",
)


def seal_lines(connection: Any) -> None:
    """From now on each line that is written through this connection is sealed. Costs 20 us for a change of a line."""
    connection.create_function("mpqueue_seal", COUNT, lambda *said: seal_of(said), deterministic=True)
    for statement in _TRIGGERS:
        connection.execute(statement)


def seal_of(said: Sequence[Any]) -> int:
    """The checksum of what a line says."""
    return zlib.crc32(repr(tuple(said)).encode())


def is_whole(said: Sequence[Any], seal: Any) -> bool:
    """True for a line that is as it was written."""
    return type(seal) is int and seal == seal_of(said)


def damaged_line(path: str, number: object) -> JournalError:
    """What is said of another one."""
    return JournalError(
        f"{path}: expected line {shown(number)} of its jobs as it was written, got something damaged; it is left as it "
        "is: put a copy back, or use another file"
    )


# -- migrations --------------------------------------------------------------------------------------------------------

#: Items that are converted at a time.
LOT = 1024


def migrate(connection: Any, version: int) -> None:
    """Bring tables of that version to `VERSION`, within the caller's transaction. Raises what the database raises."""
    for each in range(version, VERSION):
        MIGRATIONS[each](connection)


def keep_copy(source: sqlite3.Connection, target: str) -> None:
    """Write all that the connection sees into a file of that name, whole or not at all. Raises what SQLite raises."""
    part = f"{target}.part"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(part)
    os.close(open_file(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | NO_LINKS, 0o600))
    try:
        with contextlib.closing(sqlite3.connect(part, isolation_level=None)) as copy:
            _copy(source, copy)
        os.replace(part, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(part)
        raise
    sync_folder(Path(target).parent)


def _copy(source: sqlite3.Connection, copy: sqlite3.Connection, change: Callable[[], object] = lambda: None) -> None:
    """On disk when this returns, with what ``change`` does to the copy."""
    source.backup(copy)
    copy.execute("PRAGMA journal_mode=DELETE")
    copy.execute("PRAGMA synchronous=FULL")
    copy.execute("BEGIN IMMEDIATE")
    change()
    copy.execute("COMMIT")


class ConvertedCopy:
    """What a connection sees, of that version, in a private file without a name, converted. Costs a copy."""

    def __init__(self, source: sqlite3.Connection, version: int) -> None:
        self.connection = copy = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        copy.text_factory = source.text_factory
        _copy(source, copy, lambda: migrate(copy, version))

    def __del__(self) -> None:
        self.connection.close()  # Python 3.13 warns of one that is not


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


def _to_4(connection: Any) -> None:
    """A stream is written as an open job is: its items in lots, and their outcomes by slots."""
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'stream_items'").fetchone() is None:
        return  # none was written since version 1
    lines = connection.execute(f"SELECT {SAID}, seal FROM jobs NOT INDEXED WHERE generation IS NOT NULL")  # noqa: S608
    for *said, check in lines.fetchall():
        if is_whole(said, check):
            _convert_stream(connection, said[0], dict(zip(COLUMNS, said, strict=False))["generation"])
    connection.execute("DROP TABLE stream_items")


def _convert_stream(connection: Any, job: int, generation: int) -> None:
    """What is damaged, and what was to run again, is left out: such an item is a new one."""
    rows = connection.execute(
        "SELECT identity, nth, body, item FROM stream_items WHERE job = ? ORDER BY nth, number", (job,)
    )
    slots, counts = 0, Counter[int]()
    while some := rows.fetchmany(LOT):
        ended = [one for row in some if (one := _ended_item(job, generation, *row)) is not None]
        if ended:
            _write_lot(connection, job, slots, ended)
        slots += len(ended)
        counts.update(one.status for one in ended)
    connection.execute(
        "UPDATE jobs SET generation = 1, slots = ?, completed = ?, failed = ?, total = ?, suspects = NULL "
        "WHERE number = ?",
        (slots, counts[COMPLETED], counts[FAILED], slots, job),
    )
    said = connection.execute(f"SELECT {SAID} FROM jobs WHERE number = ?", (job,)).fetchone()  # noqa: S608
    connection.execute("UPDATE jobs SET seal = ? WHERE number = ?", (seal_of(said), job))


class _EndedItem(NamedTuple):
    """An item of a stream of version 3. ``outcome`` is its result, alone in a tuple, or what its row says, pickled."""

    identity: bytes
    state: bytes
    item_id: Any
    kept: Any
    status: int
    outcome: tuple[Any] | bytes
    code: int


def _ended_item(job: int, generation: int, identity: bytes, nth: int, body: Any, item: Any) -> _EndedItem | None:
    try:
        place = b"%d %d %b" % (job, nth, identity)
        status, state, its_generation, outcome, *code = unseal(body, b"stream_items " + place, "")
        item_id, kept = unseal(item, b"stream_items.item " + place, "")
    except Exception:
        return None
    if its_generation < generation:
        return None
    return _EndedItem(identity, state, item_id, kept, status, outcome, *(code or (0,)))


def _write_lot(connection: Any, job: int, first: int, ended: Sequence[_EndedItem]) -> None:
    identities, states = b"".join([one.identity for one in ended]), b"".join([one.state for one in ended])
    ids = None
    if all(one.item_id is not None for one in ended):
        ids = [restore(Kept(*one.item_id)) for one in ended]
        ids = None if Unreadable in set(map(type, ids)) else ids
    makers = written_numbers(array("q", (BY_USER,)))
    lot = AddedRow(first, len(ended), [one.kept for one in ended], ids, identities, makers, (),
                   None if states == identities else states)  # fmt: skip
    connection.execute(*lot.put(job))
    plain = [(slot, one) for slot, one in enumerate(ended, first) if not isinstance(one.outcome, bytes)]
    zeros = {name: bytes(4) for name in NUMBERS}
    if plain:
        content = {
            **zeros,
            "status": bytes((COMPLETED,)) * len(plain),
            "attempts": written_numbers(array("I", (1,))),
            "code": written_numbers(array("I", (one.code for _, one in plain))),
            "results": tuple(Kept(pickle.dumps([one.outcome[0] for _, one in plain], pickle.HIGHEST_PROTOCOL))),
        }
        _write_row(connection, job, [slot for slot, _ in plain], content)
    for slot, one in enumerate(ended, first):
        if isinstance(one.outcome, bytes):
            content = pickle.loads(one.outcome)
            code = {} if "row" in content else {"code": written_numbers(array("I", (one.code,)))}
            _write_row(connection, job, [slot], content | code)


def _write_row(connection: Any, job: int, slots: list[int], content: dict[str, Any]) -> None:
    number = connection.execute("SELECT coalesce(max(number), 0) + 1 FROM chunks").fetchone()[0]
    connection.execute(*chunk_statement(number, job, row_of(content, slots)))


def _bound(body: Any, place: Place) -> Any:
    """A body of version 1, with its checksum bound to its place; one that is damaged stays so."""
    if not isinstance(body, bytes):
        return body
    return bind(int.from_bytes(body[:CHECK], "little"), place).to_bytes(CHECK, "little") + body[CHECK:]


TO_2 = (
    *(f"ALTER TABLE jobs ADD COLUMN {name} {kind}" for name, kind in MORE_OF_JOBS),
    *(f"ALTER TABLE files ADD COLUMN {name} {kind}" for name, kind in MORE_OF_FILES),
    "ALTER TABLE chunks ADD COLUMN slots BLOB",
    """CREATE TABLE slots (
    number INTEGER PRIMARY KEY, job INTEGER NOT NULL, first INTEGER NOT NULL, body BLOB NOT NULL, ids BLOB,
    UNIQUE (job, first)
)""",
    ADDED_ITEMS,
    """CREATE TABLE written_by (
    number INTEGER PRIMARY KEY, at REAL NOT NULL, mpqueue TEXT NOT NULL, python TEXT NOT NULL, host TEXT NOT NULL,
    program TEXT NOT NULL, commits INTEGER NOT NULL DEFAULT 0
)""",
)

MIGRATIONS: dict[int, Callable[[Any], None]] = {1: _to_2, 2: _to_3, 3: _to_4}
