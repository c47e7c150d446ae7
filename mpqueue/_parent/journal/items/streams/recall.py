"""`Recall`: which items of a stream a journal knows, looked up as they come, in constant memory.

Equal items are distinguished by their order: the third "a" of an input is the third that is recorded. How often each
has come in this run is counted in memory, and, of those that came longer ago, in a private database of SQLite's, in a
temporary file without a name, which goes with the connection.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from mpqueue._parent.journal.items.identity import UNKNOWN, why_unstable
from mpqueue._parent.journal.items.streams.many_rows import rows_at_once
from mpqueue._parent.journal.items.streams.sieve import Sieve
from mpqueue._parent.journal.items.streams.stream_items import StreamItem
from mpqueue._parent.journal.items.streams.told import Named, Told, read_result, read_row
from mpqueue._parent.journal.journal_file import address_of, connect_privately, explained
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
ASK = "INSERT INTO asked VALUES "
ANSWER = """SELECT asked.at, items.status, items.body FROM asked JOIN journal.stream_items AS items
ON items.job = ? AND items.identity = asked.identity AND items.nth = asked.nth"""
COUNTED = "SELECT identity, count FROM asked JOIN came USING (identity)"
COUNT = "INSERT OR REPLACE INTO came VALUES "
FORGET = "DELETE FROM asked"
#: Identities whose counts are in memory, at most; 150 bytes each.
MOST_RECENT = 1 << 16


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
        self,
        path: str,
        read_file: ReadFile,
        job: int,
        generation: int,
        left: int,
        tell: Callable[[str], object],
        counts: Callable[[int], bool] = lambda _: True,
    ) -> None:
        self._path = path
        self._read_whole = read_file
        self._job = job
        self._generation = generation
        self._tell = tell  #: gets a text, for people, why the row of an item does not count
        self._counts_by = counts  #: whether a result counts that the code of that number made
        self._owner = os.getpid()
        self._left = left  #: rows that the stream has, and no item has come for: with none left, there is none to find
        self._counts: dict[bytes, int] = {}  #: how often each came, of those that came last
        self._put_away: Sieve | None = None  #: which others may be in the database
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
        self._database.execute("ATTACH ? AS journal", (address_of(self._path, "mode=ro"),))
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
        with explained(self._path):
            if self._put_away is not None:
                self._recall_counts(entries, self._put_away)
            counts = self._counts
            found = []
            for entry in entries:
                identity = entry.identity
                nth = counts.get(identity, 0)
                counts[identity] = nth + 1
                found.append(Found(Named(identity, nth)))
            if self._left > 0:
                self._look_up(entries, found)
            if len(counts) > MOST_RECENT:
                self._put_counts_away()
        return found

    def _recall_counts(self, entries: Sequence[StreamItem], put_away: Sieve) -> None:
        """Have those in memory of items that may have come before."""
        counts = self._counts
        unknown = {entry.identity for entry in entries if entry.identity in put_away and entry.identity not in counts}
        if unknown:
            rows = [value for identity in unknown for value in (None, identity, 0)]
            counts.update(self._asked(rows, COUNTED))

    def _put_counts_away(self) -> None:
        """In the order of the table, which writes each of its pages once."""
        counts, self._counts = self._counts, {}
        if self._put_away is None:
            self._put_away = Sieve()
        for identity in counts:
            self._put_away.add(identity)
        rows = [value for pair in sorted(counts.items()) for value in pair]
        execute = self._database.execute
        execute("BEGIN")
        for statement, values in rows_at_once(COUNT, rows, 2):
            execute(statement, values)
        execute("COMMIT")

    def _look_up(self, entries: Sequence[StreamItem], found: list[Found]) -> None:
        """Put in what the journal has of these."""
        if self._log_now() not in (None, self._log):  # it was removed, and there is a new one
            self._database.execute("DETACH journal")
            self._attach()
        rows = [value for at, one in enumerate(found) for value in (at, one.named.identity, one.named.nth)]
        for at, status, body in self._asked(rows, ANSWER, (self._job,)):
            self._left -= 1
            result = self._result(entries[at], found[at].named, status, body)
            found[at] = Found(found[at].named, status if status in (COMPLETED, FAILED) else None, result)

    def _asked(self, rows: Sequence[Any], question: str, arguments: Sequence[Any] = ()) -> list[Any]:
        execute = self._database.execute
        execute("BEGIN")
        for statement, values in rows_at_once(ASK, rows, 3):
            execute(statement, values)
        answers = execute(question, arguments).fetchall()
        execute(FORGET)
        execute("COMMIT")
        return answers

    def _result(self, entry: StreamItem, named: Named, status: object, body: Any) -> tuple[object, ...]:
        if status != COMPLETED:
            return ()
        try:
            told = read_row(body, named, self._job, self._path)
            if not self._is_current(told, entry.state):
                return ()
            if entry.state == UNKNOWN:
                self._tell(why_unstable(entry.item))
                return ()
            result = read_result(told, self._read_file, self._path)
        except JournalError as error:
            self._tell(f"the result of an item can't be read ({error})")
            return ()
        if isinstance(result, Unreadable):
            self._tell(f"the result of an item can't be read from {self._path} ({result.reason})")
            return ()
        if not self._counts_by(told.code):
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
