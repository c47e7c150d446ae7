"""`Recall`: which items of a stream a journal knows, looked up as they come, in constant memory.

Equal items are told apart by their order: the third "a" of an input is the third that is recorded. How often each has
come in this run is counted in a private database of SQLite's, in a temporary file without a name, which goes with the
connection.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mpqueue._parent.journal.items.streams.stream_items import StreamItem
from mpqueue._parent.journal.items.streams.told import Named, Told, read_result, read_row
from mpqueue._parent.journal.journal_file import connect_privately, explained
from mpqueue._parent.journal.kept_values import ReadFile, Unreadable
from mpqueue.errors import JournalError
from mpqueue.status import COMPLETED, FAILED

log = logging.getLogger("mpqueue")

#: Bytes of each of two caches of SQLite's.
CACHE = 8 << 20
TABLES = (
    "PRAGMA journal_mode=OFF",
    "PRAGMA synchronous=OFF",
    f"PRAGMA cache_size=-{CACHE >> 10}",
    "CREATE TABLE came (identity BLOB PRIMARY KEY, count INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE asked (at INTEGER PRIMARY KEY, identity BLOB NOT NULL, nth INTEGER NOT NULL)",
)
ASK = "INSERT INTO asked VALUES (?, ?, ?)"
#: ``nth`` of what is asked is counted within it.
ANSWER = """SELECT coalesce(came.count, 0) + asked.nth, items.status, items.body
FROM asked LEFT JOIN came USING (identity) LEFT JOIN journal.stream_items AS items
ON items.job = ? AND items.identity = asked.identity AND items.nth = coalesce(came.count, 0) + asked.nth
ORDER BY asked.at"""
COUNT = """INSERT INTO came SELECT identity, count(*) FROM asked WHERE true GROUP BY identity
ON CONFLICT (identity) DO UPDATE SET count = count + excluded.count"""
FORGET = "DELETE FROM asked"


class Found(NamedTuple):
    """What is known of an item: which it is, the status in its row (None: it has none), and how to have its result.

    ``result`` is empty where it is to run.
    """

    named: Named
    status: int | None = None
    result: tuple[object, ...] = ()


class Recall:
    """Looks up the items of one run of a stream, which have been recorded before it began. Not for several threads."""

    def __init__(
        self, path: str, read_file: ReadFile, job: int, generation: int, tell: Callable[[str], object]
    ) -> None:
        self._path = path
        self._read_whole = read_file
        self._job = job
        self._generation = generation
        self._tell = tell  #: hears once, for people, that something can't be read
        self._owner = os.getpid()
        self.size = 0  #: bytes that were read by the last look
        with explained(path):
            self._database = connect_privately()
            for statement in TABLES:
                self._database.execute(statement)
            self._attach()
        _open.add(self)

    def _attach(self) -> None:
        """The journal, to be read. It has been written, so that it has a log, which is noted."""
        self._log = self._log_now()
        self._database.execute("ATTACH ? AS journal", (f"{Path(self._path).absolute().as_uri()}?mode=ro",))
        self._database.execute(f"PRAGMA journal.cache_size=-{CACHE >> 10}")

    def _log_now(self) -> tuple[int, int] | None:
        """Which file is the log; None while it has been removed, and the journal has not noticed."""
        try:
            found = os.stat(f"{self._path}-wal")
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino

    def find(self, entries: Sequence[StreamItem]) -> list[Found]:
        """What is known of these items, which come next. Raises `JournalError`: then the run can't go on."""
        self.size = 0
        came: Counter[bytes] = Counter()
        asked = []
        for at, entry in enumerate(entries):
            asked.append((at, entry.identity, came[entry.identity]))
            came[entry.identity] += 1
        execute = self._database.execute
        with explained(self._path):
            if self._log_now() not in (None, self._log):  # it was removed, and there is a new one
                execute("DETACH journal")
                self._attach()
            execute("BEGIN")
            self._database.executemany(ASK, asked)
            answers = execute(ANSWER, (self._job,)).fetchall()
            execute(COUNT)
            execute(FORGET)
            execute("COMMIT")
        return [self._found(entry, *answer) for entry, answer in zip(entries, answers, strict=True)]

    def _found(self, entry: StreamItem, nth: int, status: object, body: Any) -> Found:
        named = Named(entry.identity, nth)
        if body is None:
            return Found(named)
        result = self._result(entry, named, status, body)
        return Found(named, status if status in (COMPLETED, FAILED) else None, result)

    def _result(self, entry: StreamItem, named: Named, status: object, body: Any) -> tuple[object, ...]:
        if status != COMPLETED:
            return ()
        try:
            told = read_row(body, named, self._job, self._path)
            if not self._is_current(told, entry.state):
                return ()
            result = read_result(told, self._read_file, self._path)
        except JournalError as error:
            self._tell(str(error))
            return ()
        if isinstance(result, Unreadable):
            self._tell(result.reason)
            return ()
        self.size += len(body)
        return (result,)

    def _read_file(self, name: str) -> bytes:
        content = self._read_whole(name)
        self.size += len(content)
        return content

    def _is_current(self, told: Told, state: bytes) -> bool:
        return told.status == COMPLETED and told.state == state and told.generation >= self._generation

    def close(self) -> None:
        """Idempotent. In a fork it does nothing, since to close a file there may free the locks of another's."""
        if os.getpid() == self._owner:
            _open.discard(self)
            with contextlib.suppress(sqlite3.Error):
                self._database.close()


#: Kept, so that no fork collects them.
_open: set[Recall] = set()
