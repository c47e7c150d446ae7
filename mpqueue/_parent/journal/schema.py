"""The journal's tables, the checksum of a job's line, and the conversion of older versions' journals.

``jobs``: a line each. ``slots`` is how many slots it has, ``places`` the slots of its items in their order (NULL: all
slots). With a negative ``total`` its maker ended before all of it was written. ``cpu`` and ``ran`` are of its last run:
CPU seconds of the workers (NULL: not measured) and how many items. ``uses`` are its items' needs, as JSON: an object,
or null if functions give them (NULL: none). ``label`` is the key or attribute that names them. ``codes`` are the codes
that made its results, its handler's last. ``seal`` is a checksum over the line, see below. ``lots``: the items, in the
slots from the ``first`` on; lots beyond the job's ``slots`` do not count. ``body`` has their identities. Of an open job
and of a stream, by its ``kind``, there is one for each lot that came together. For a stream, ended items are counted.
``chunks``: their outcomes, with the slots. ``files``: the big values beside the journal. ``passed``: values on their
way between stages. ``written_by``: a line for each time that a queue opened it to write, with how often that one
committed. Bodies are sealed, see `mpqueue._parent.journal.kept_values`.

The checksum of a job's line covers all of it. The database makes it itself for every statement that writes the line,
see `seal_lines`; and it refuses to change a line that is not as it was written, so that no damage is sealed. Readers
compare it, see `is_whole`.

Only the conversion knows older versions. In one transaction it makes all tables anew, except those of outcomes and
files. Before that, a copy is made beside the file; if it fails, the file is unchanged. A reader, which changes nothing,
converts its own temporary copy. The next version needs another `SCHEMA` and `VERSION`, more code in the conversion, and
a journal of the version before in the tests.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import sqlite3
import weakref
import zlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mpqueue._os.files import NO_LINKS, open_file, sync_folder
from mpqueue._parent.journal.chunk_rows import NUMBERS, chunk_statement, numbers_of, row_of, written_numbers
from mpqueue._parent.journal.identity import UNKNOWN, NoIdentityError, What, digest, state_of
from mpqueue._parent.journal.kept_values import (
    CHECK,
    Kept,
    NotKept,
    Place,
    Unreadable,
    bind,
    no_file,
    restore,
    seal,
    unseal,
)
from mpqueue._parent.journal.lots import NOBODY, OF_LIST, KeptItems, Lot, Part, keep_items
from mpqueue.errors import JournalError, shown
from mpqueue.status import COMPLETED, FAILED, JobKind

# -- schema ------------------------------------------------------------------------------------------------------------

#: SQLite's ``application_id``: "mpqj".
APPLICATION = 0x6D70716A
#: SQLite's ``user_version``: the form of the tables and rows.
VERSION = 7
#: Those that can be read. No release of mpqueue wrote versions 3 to 6.
READABLE = (1, 2, VERSION)

SCHEMA = (
    """CREATE TABLE jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, total INTEGER NOT NULL, rule TEXT NOT NULL,
    handler BLOB, seed TEXT, created_at REAL NOT NULL,
    status TEXT NOT NULL, started_at REAL, finished_at REAL, duration REAL,
    completed INTEGER NOT NULL DEFAULT 0, failed INTEGER NOT NULL DEFAULT 0, retries INTEGER NOT NULL DEFAULT 0,
    version TEXT, python TEXT, handler_name TEXT, suspects BLOB, slots INTEGER NOT NULL DEFAULT 0, places BLOB,
    kind TEXT NOT NULL DEFAULT 'list', cpu REAL, ran INTEGER, uses TEXT, label TEXT, codes BLOB,
    seal INTEGER
)""",
    """CREATE TABLE lots (
    number INTEGER PRIMARY KEY, job INTEGER NOT NULL, first INTEGER NOT NULL, count INTEGER NOT NULL,
    body BLOB NOT NULL, items BLOB NOT NULL, UNIQUE (job, first)
)""",
    "CREATE TABLE chunks (number INTEGER PRIMARY KEY, job INTEGER NOT NULL, body BLOB NOT NULL, slots BLOB)",
    "CREATE INDEX chunks_of_job ON chunks (job)",
    "CREATE TABLE files (name TEXT PRIMARY KEY, job INTEGER NOT NULL, size INTEGER, digest BLOB) WITHOUT ROWID",
    """CREATE TABLE passed (
    number INTEGER PRIMARY KEY, job INTEGER NOT NULL, row INTEGER NOT NULL, body BLOB NOT NULL, UNIQUE (job, row)
)""",
    """CREATE TABLE written_by (
    number INTEGER PRIMARY KEY, at REAL NOT NULL, mpqueue TEXT NOT NULL, python TEXT NOT NULL, host TEXT NOT NULL,
    program TEXT NOT NULL, commits INTEGER NOT NULL DEFAULT 0
)""",
)

#: Tables with data of a job, as the beginnings of conditions.
OWNED = ("lots WHERE job", "chunks WHERE job", "files WHERE job", "passed WHERE job", "jobs WHERE number")


#: Those whose items may come while they run: other slots than those of their line may have rows meanwhile.
GROWING = (JobKind.OPEN, JobKind.STREAM)


def check_version(path: str, application: int, version: int) -> None:
    """Raise `JournalError` unless this version can read it, directly or after conversion."""
    if application != APPLICATION:
        raise JournalError(
            f"{path}: expected a journal, got an SQLite database of another program; it is left as it is"
        )
    if version > VERSION:
        raise JournalError(
            f"{path}: expected a journal of version {VERSION} at most, got version {version}, which a newer mpqueue "
            "wrote; it is left as it is: use that one, or another file"
        )
    if version not in READABLE:
        raise JournalError(
            f"{path}: expected a journal of version {' or '.join(map(str, READABLE))}, got version {version}, which no "
            "release of mpqueue wrote; it is left as it is"
        )


# -- job lines ---------------------------------------------------------------------------------------------------------

#: The contents of a line, in this order.
COLUMNS = (
    *("number", "id", "total", "rule", "seed", "created_at", "status", "started_at"),
    *("finished_at", "duration", "completed", "failed", "retries", "version", "python", "slots", "handler_name"),
    *("kind", "cpu", "ran", "uses", "label"),
)
#: Bodies, which have their own seals: the line's seal covers only which of them exist.
BODIES = ("handler", "suspects", "places", "codes")
#: All that ``seal`` covers, for a SELECT.
SAID = ", ".join((*COLUMNS, *(f"{name} IS NULL" for name in BODIES)))
#: The number of these values.
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
    """Seal each line that is written through this connection from now on. Costs 20 us per change of a line."""
    connection.create_function("mpqueue_seal", COUNT, lambda *said: seal_of(said), deterministic=True)
    for statement in _TRIGGERS:
        connection.execute(statement)


def seal_of(said: Sequence[Any]) -> int:
    """Return the checksum of a line's contents."""
    return zlib.crc32(repr(tuple(said)).encode())


def is_whole(said: Sequence[Any], seal: Any) -> bool:
    """True for a line that is as it was written."""
    return type(seal) is int and seal == seal_of(said)


def damaged_line(path: str, number: object) -> JournalError:
    """Return the error for a line that is not as it was written."""
    return JournalError(
        f"{path}: expected line {shown(number)} of its jobs as it was written, got something damaged; it is left as it "
        "is: put a copy back, or use another file"
    )


# -- conversion --------------------------------------------------------------------------------------------------------
#
# Facts that an older version did not record stay unknown. Version 1 (0.1) had lists only. It did not record the
# identities of items: they are computed from the kept items; the others count as new, or, if they have ids, as changed.
# Version 2 (1.0.0rc1) had a row for each ended item of a stream, in its own table, and a list's items in blocks, and
# beside them. Neither recorded which code made a result, and their lines had no checksums.

#: Items of a block of slots; and items of streams that are converted at a time.
BLOCK, LOT = 4096, 1024
#: Tables that are made anew.
_ANEW = ("jobs", "slots", "payloads", "added_items", "stream_items")
#: The code of results whose code is not known.
_UNKNOWN_CODE = ("unknown", dict[str, str](), dict[str, str]())


Run = Callable[..., Any]


def keep_copy(source: sqlite3.Connection, target: str) -> None:
    """Write all that the connection sees into that file, completely or not at all. Raises errors of SQLite."""
    part = f"{target}.part"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(part)
    os.close(open_file(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | NO_LINKS, 0o600))
    try:
        with contextlib.closing(sqlite3.connect(part, isolation_level=None)) as copy:
            source.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")
        os.replace(part, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(part)
        raise
    sync_folder(Path(target).parent)


class ConvertedCopy:
    """A private converted copy, without a name, of a connection's data. Costs a copy."""

    def __init__(self, source: sqlite3.Connection) -> None:
        self.connection = copy = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        # Python 3.13 warns of one that is not closed, as it would be if both were garbage and `__del__` came second.
        weakref.finalize(self, copy.close)
        copy.text_factory = source.text_factory
        source.backup(copy)
        convert(copy)


def convert(connection: Any) -> None:
    """Convert the tables to today's form. Raises the database's errors.

    If it raises, they are half converted: the caller rolls its transaction back, or drops its copy.
    """
    run = connection.execute
    tables = {name for (name,) in run("SELECT name FROM sqlite_master WHERE type = 'table'")}
    is_first = "slots" not in tables
    old = _make_tables(run, tables, is_first=is_first)
    cursor = run("SELECT * FROM old_jobs NOT INDEXED ORDER BY number")
    names = [each[0] for each in cursor.description]
    for values in cursor.fetchall():
        job = _OldJob(run, dict(zip(names, values, strict=True)), unbound=is_first)
        job.convert()
        job.write()
    for said in run(f"SELECT {SAID} FROM jobs NOT INDEXED").fetchall():  # noqa: S608
        run("UPDATE jobs SET seal = ? WHERE number = ?", (seal_of(said), said[0]))
    run("DELETE FROM sqlite_sequence WHERE name = 'jobs'")  # numbers are never used again
    run("UPDATE sqlite_sequence SET name = 'jobs' WHERE name = 'old_jobs'")
    for table in old:
        run(f"DROP TABLE old_{table}")


def _make_tables(run: Run, tables: set[str], *, is_first: bool) -> set[str]:
    """Make today's tables, empty except for those that stay; returns the ones that exist under another name."""
    old = tables.intersection(_ANEW)
    for table in old:
        run(f"ALTER TABLE {table} RENAME TO old_{table}")
    stay = tuple(f"CREATE {what}" for what in ("TABLE chunks", "INDEX chunks", "TABLE files"))
    for statement in SCHEMA:
        if not statement.startswith(stay if is_first else (*stay, "CREATE TABLE written_by")):
            run(statement)
    if is_first:
        run("ALTER TABLE chunks ADD COLUMN slots BLOB")
        run("ALTER TABLE files ADD COLUMN size INTEGER")
        run("ALTER TABLE files ADD COLUMN digest BLOB")
    return old


class _OldJob:
    """A job in the tables of an older version. Checksums of version 1 are ``unbound``: they did not cover the place."""

    def __init__(self, run: Run, line: dict[str, Any], *, unbound: bool) -> None:
        self._run = run
        self._line = line
        self._unbound = unbound
        self._number: int = line["number"]

    def convert(self) -> None:
        """Convert the job. Damaged parts stay damaged, or are dropped."""
        run, line, number = self._run, self._line, self._number
        is_first = line.get("slots") is None
        count = line["slots"] = line["total"] if is_first else line["slots"]
        for row, body in run("SELECT number, body FROM chunks WHERE job = ? AND slots IS NULL", (number,)).fetchall():
            self._convert_row(row, body)
        line["kind"] = JobKind.LIST
        if line.get("generation") is not None:
            line["kind"] = JobKind.STREAM
            self._convert_stream()
        elif line.get("is_open"):
            line["kind"] = JobKind.OPEN
            self._convert_lots()
        elif line["total"] >= 0:  # otherwise it is dropped: its maker ended before it was complete
            for lot in self._lots_of_list(count, is_first=is_first):
                run(*lot.put(number))
        if self._unbound:
            line["handler"] = self._bound(line["handler"], Place("jobs.handler", number))
        line["codes"] = seal([_UNKNOWN_CODE], Place("jobs.codes", number))
        line["handler_name"] = (line.get("handler_name") or "").partition(" ")[0].replace(":", ".", 1) or None
        line["python"] = line.get("python") or (line["code_hash"] or "").partition(":")[0] or None

    def write(self) -> None:
        """Write its line, without a checksum."""
        run, line = self._run, self._line
        names = [name for name in (*COLUMNS, *BODIES) if name in line and (name != "slots" or line[name] is not None)]
        marks = ", ".join("?" * len(names))
        run(f"INSERT INTO jobs ({', '.join(names)}) VALUES ({marks})", [line[name] for name in names])  # noqa: S608

    def _read(self, body: Any, place: Place | bytes) -> Any:
        """Return the sealed content; None if it is damaged, or can't be unpickled."""
        try:
            return unseal(self._bound(body, place) if self._unbound else body, place, "")
        except Exception:  # any error of unpickling
            return None

    @staticmethod
    def _bound(body: Any, place: Place | bytes) -> Any:
        """Return a body of version 1, with its checksum bound to its place; a damaged one stays damaged."""
        if not isinstance(body, bytes):
            return body
        return bind(int.from_bytes(body[:CHECK], "little"), place).to_bytes(CHECK, "little") + body[CHECK:]

    def _convert_row(self, row: int, body: Any) -> None:
        """Give the slots of a row their own checksum. A damaged row may have been about any slots."""
        place = Place("chunks", self._number, row)
        content, slots = self._read(body, place), (0, self._line["slots"])
        if content is not None:
            slots = content.pop("at")
            body = seal(content, place)
        at = seal(slots, Place("chunks.slots", self._number, row))
        self._run("UPDATE chunks SET body = ?, slots = ? WHERE number = ?", (body, at, row))

    # -- lists -----------------------------------------------------------------------------------------------

    def _lots_of_list(self, count: int, *, is_first: bool) -> Iterator[Lot]:
        parts = self._parts(count)
        for first in range(0, count, BLOCK):
            size = min(BLOCK, count - first)
            if is_first:
                (identities, states), ids = self._found_out(first, size, parts)
            else:
                (identities, states), ids = self._block(first, size)
            states_of = None if states == identities else states
            mine = parts.get(first, ())
            yield Lot(first, size, identities, states_of, ids=ids, parts=mine)

    def _block(self, first: int, size: int) -> tuple[What, list[Any] | None]:
        row = self._run("SELECT body, ids FROM old_slots WHERE job = ? AND first = ?", (self._number, first)).fetchone()
        body, ids = row or (None, None)
        block = self._read(body, Place("slots", self._number, first))
        identities, keys = (NOBODY * size, None) if block is None else block[:2]
        named = None
        if ids is not None:
            named = self._read(ids, Place("slots.ids", self._number, first)) or [
                Unreadable("its row in the journal is damaged") for _ in range(size)
            ]
        return (identities, keys or identities), named

    def _found_out(self, first: int, size: int, parts: dict[int, list[Part]]) -> tuple[What, list[Any] | None]:
        """Compute, for a job of version 1, the data that `_block` reads."""
        items = Lot(first, size, None, parts=parts.get(first, ())).items(no_file)
        unknown = [isinstance(item, NotKept | Unreadable) for item in items]
        states = [UNKNOWN if is_unknown else state_of(item) for is_unknown, item in zip(unknown, items, strict=True)]
        ids = self._line["ids"]
        if ids is not None:
            ids = self._read(ids, Place("jobs.ids", self._number)) or [Unreadable("damaged")] * self._line["slots"]
            ids = ids[first : first + size]
        named = states if ids is None else [NOBODY if isinstance(each, Unreadable) else _identity(each) for each in ids]
        return (b"".join(named), b"".join(states)), ids

    def _parts(self, count: int) -> dict[int, list[Part]]:
        """Return the items, by the first slots of lots, in the lots' form."""
        found: dict[int, list[Part]] = {}
        rows = self._run("SELECT number, body FROM old_payloads WHERE job = ? ORDER BY number", (self._number,))
        for number, body in rows.fetchall():
            read = self._read(body, Place("payloads", self._number, number))
            if read is None:
                continue
            named, kept = read
            if isinstance(named, bytes):
                slots: Sequence[int] = numbers_of("Q", named)
            else:  # version 1 wrote the first slot only
                slots = range(*named) if isinstance(named, tuple) else range(named, min(named + OF_LIST, count))
            for first in sorted({slot - slot % BLOCK for slot in slots if slot < count}):
                which = [nth for nth, slot in enumerate(slots) if first <= slot < min(first + BLOCK, count)]
                places = tuple(slots[nth] - first for nth in which)
                mine = kept if len(which) == len(slots) else _some(kept, which)
                is_all = places == (*range(min(BLOCK, count - first)),)
                found.setdefault(first, []).append((None if is_all else places, mine))
        return found

    # -- what grew -------------------------------------------------------------------------------------------

    def _convert_lots(self) -> None:
        """Convert the lots of an open job."""
        query = "SELECT first, count, body FROM old_added_items WHERE job = ? ORDER BY first"
        for first, count, body in self._run(query, (self._number,)).fetchall():
            found = self._read(body, Place("added_items", self._number, first))
            if found is None:
                damaged = (self._number, first, count, b"", b"")
                self._run("INSERT INTO lots (job, first, count, body, items) VALUES (?, ?, ?, ?, ?)", damaged)
                continue
            kept, ids, identities, makers, gone = (*found, ())[:5]
            lot = Lot(first, count, identities, None, makers, gone, ids=ids, parts=[(None, kept)])
            self._run(*lot.put(self._number))

    def _convert_stream(self) -> None:
        """Convert a stream. Items that are damaged, or had to run again, are left out: they are then new."""
        line, query = (
            self._line,
            "SELECT identity, nth, body, item FROM old_stream_items WHERE job = ? ORDER BY nth, number",
        )
        rows = self._run(query, (self._number,))
        slots, counts = 0, Counter[int]()
        while some := rows.fetchmany(LOT):
            ended = [one for row in some if (one := self._ended_item(line["generation"], *row)) is not None]
            if ended:
                self._write_ended(slots, ended)
            slots += len(ended)
            counts.update(one.status for one in ended)
        line |= {"slots": slots, "total": slots, "suspects": None}
        line |= {"completed": counts[COMPLETED], "failed": counts[FAILED]}

    def _ended_item(self, generation: int, identity: bytes, nth: int, body: Any, item: Any) -> _EndedItem | None:
        place = b"%d %d %b" % (self._number, nth, identity)
        said, of_item = self._read(body, b"stream_items " + place), self._read(item, b"stream_items.item " + place)
        if said is None or of_item is None or said[2] < generation:
            return None
        status, state, _, outcome = said
        return _EndedItem(identity, state, of_item[0], of_item[1], status, outcome)

    def _write_ended(self, first: int, ended: Sequence[_EndedItem]) -> None:
        identities, states = b"".join([one.identity for one in ended]), b"".join([one.state for one in ended])
        ids = None
        if all(one.item_id is not None for one in ended):
            ids = [restore(Kept(*one.item_id)) for one in ended]
            ids = None if Unreadable in set(map(type, ids)) else ids
        lot = Lot(first, len(ended), identities, None if states == identities else states, ids=ids,
                  parts=[(None, [one.kept for one in ended])])  # fmt: skip
        self._run(*lot.put(self._number))
        plain = [(slot, one) for slot, one in enumerate(ended, first) if not isinstance(one.outcome, bytes)]
        zeros = {name: bytes(4) for name in NUMBERS}
        if plain:
            content = {
                **zeros,
                "status": bytes((COMPLETED,)) * len(plain),
                "attempts": written_numbers(array("I", (1,))),
                "results": tuple(Kept(pickle.dumps([one.outcome[0] for _, one in plain], pickle.HIGHEST_PROTOCOL))),
            }
            self._write_row([slot for slot, _ in plain], content)
        for slot, one in enumerate(ended, first):
            if isinstance(one.outcome, bytes):
                self._write_row([slot], pickle.loads(one.outcome))

    def _write_row(self, slots: list[int], content: dict[str, Any]) -> None:
        number = self._run("SELECT coalesce(max(number), 0) + 1 FROM chunks").fetchone()[0]
        self._run(*chunk_statement(number, self._number, row_of(content, slots)))


class _EndedItem(NamedTuple):
    """An item of a stream. ``outcome``: its result in a tuple, or its row's data, pickled."""

    identity: bytes
    state: bytes
    item_id: Any
    kept: Any
    status: int
    outcome: tuple[Any] | bytes


def _identity(item_id: Any) -> bytes:
    try:
        return digest(item_id)
    except NoIdentityError:
        return NOBODY


def _some(kept: KeptItems, which: Sequence[int]) -> KeptItems:
    """Return some of the kept items, by their places."""
    values = kept if isinstance(kept, list) else restore(Kept(*kept))
    if not isinstance(values, list):
        return [None] * len(which)
    some = [values[nth] for nth in which if nth < len(values)]
    return some if isinstance(kept, list) else keep_items(some)
