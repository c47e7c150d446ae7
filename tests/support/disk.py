"""The disk, as SQLite has it in this process: it fills, it takes long, and each step on it can be looked at."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from unittest import mock

#: A file may have so many pages while there is room.
ROOM = 1_000_000


class Disk:
    """What SQLite does to the files that this process opens meanwhile. See `watched`."""

    def __init__(self) -> None:
        self.is_full = False  #: no file gets larger
        self.syncs = True  #: else it only says that something is on disk
        #: Called before each statement, with its text and its arguments; what it raises, the statement raises.
        self.before: Callable[[str, tuple[Any, ...]], object] = lambda _sql, _arguments: None
        self.reached = threading.Event()  #: a commit waits for `release`
        self._free = threading.Event()
        self._free.set()

    def hold(self) -> None:
        """Nothing is written from now on."""
        self.reached.clear()
        self._free.clear()

    def release(self) -> None:
        """What waits is written."""
        self._free.set()

    def wait(self) -> None:
        """In the thread that commits."""
        if not self._free.is_set():
            self.reached.set()
            assert self._free.wait(300)


class _Connection(sqlite3.Connection):
    disk: Disk
    _changes = 0

    def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
        disk, word = self.disk, sql.split(None, 1)[0].upper()
        if word == "COMMIT" and self.total_changes != self._changes:
            disk.wait()
        disk.before(sql, arguments)
        if word == "BEGIN":
            pages = super().execute("PRAGMA page_count").fetchone()[0] if disk.is_full else ROOM
            super().execute(f"PRAGMA max_page_count={pages}")
            self._changes = self.total_changes
        elif sql.startswith("PRAGMA synchronous") and not disk.syncs:
            sql = "PRAGMA synchronous=OFF"
        return super().execute(sql, *arguments)


@contextlib.contextmanager
def watched() -> Iterator[Disk]:
    """What is opened meanwhile is on this disk."""
    disk = Disk()
    kind = type("Connection", (_Connection,), {"disk": disk})
    with mock.patch.object(sqlite3, "connect", partial(sqlite3.connect, factory=kind)):
        try:
            yield disk
        finally:
            disk.release()
