"""Copies of a journal of an older version: one beside it before it is converted, and, for readers, a converted one.

A reader changes nothing: it reads a temporary file, which goes with it.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tempfile
import threading
import weakref
from collections.abc import Callable
from pathlib import Path

from mpqueue._os.files import NO_LINKS, open_file, sync_folder
from mpqueue._parent.journal.migrations import migrate


def keep_copy(source: sqlite3.Connection, target: str) -> None:
    """Write all that the connection sees into a file of that name, whole or not at all. Raises what SQLite raises."""
    part = f"{target}.part"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(part)
    os.close(open_file(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | NO_LINKS, 0o600))
    try:
        _copy(source, part)
        os.replace(part, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(part)
        raise
    sync_folder(Path(target).parent)


def _copy(
    source: sqlite3.Connection, target: str, change: Callable[[sqlite3.Connection], object] | None = None
) -> None:
    """On disk when this returns, with what ``change`` does to the copy."""
    with contextlib.closing(sqlite3.connect(target, isolation_level=None)) as copy:
        source.backup(copy)
        copy.execute("PRAGMA journal_mode=DELETE")
        copy.execute("PRAGMA synchronous=FULL")
        copy.execute("BEGIN IMMEDIATE")
        if change is not None:
            change(copy)
        copy.execute("COMMIT")


class ConvertedCopy:
    """That of one journal, made again where that has changed. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._of: object = None
        self._path: str | None = None

    def of(self, state: object, source: sqlite3.Connection, version: int) -> str:
        """Where it is. ``source`` sees the journal, of that version, in that state. A copy where that has changed."""
        with self._lock:
            if self._path is None:
                fd, self._path = tempfile.mkstemp(prefix="mpqueue-", suffix=".db")
                os.close(fd)
                weakref.finalize(self, _remove, self._path, os.getpid())
            if self._of != state:
                self._of = None
                _copy(source, self._path, lambda copy: migrate(copy, version))
                self._of = state
            return self._path


def _remove(path: str, owner: int) -> None:
    if os.getpid() == owner:
        with contextlib.suppress(OSError):
            os.unlink(path)
