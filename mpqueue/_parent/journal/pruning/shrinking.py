"""Giving what a journal's file does not need any more back to the disk.

A file has its free pages given back one by one where it was made so (``auto_vacuum``); one of an older version is
written anew once. Both are transactions of SQLite's own: a kill leaves the file as it was.
"""

from __future__ import annotations

import os
import shutil
from typing import Any

from mpqueue.errors import JournalError

#: Makes a file, before anything is in it, one whose pages can be given back.
AUTO_VACUUM = "PRAGMA auto_vacuum=INCREMENTAL"
#: Pages that are given back to the disk in one go, at most: that takes 0.1 s.
AT_ONCE = 2000
#: Times its size that a file needs to be written anew: a copy, and the log that brings it home.
NEEDS = 2


def give_back(connection: Any) -> int:
    """Give free pages back, at most `AT_ONCE`; returns how many are left. Raises `sqlite3.Error`."""
    free = _number(connection, "freelist_count")
    if not free or not _number(connection, "auto_vacuum"):
        return free
    connection.execute("BEGIN IMMEDIATE")
    try:
        for _ in range(min(AT_ONCE, free)):
            connection.execute("PRAGMA incremental_vacuum(1)").fetchall()  # more in one go are not more
    finally:
        connection.execute("COMMIT")
    return _number(connection, "freelist_count")


def make_shrinkable(connection: Any, path: str) -> None:
    """Have pages given back one by one from now on, also those of a file that was not made so.

    Raises `JournalError` where there is no room to write that anew, and `sqlite3.Error`; then it is as it was.
    """
    if _number(connection, "auto_vacuum"):
        return
    pages = _number(connection, "page_count") - _number(connection, "freelist_count")
    needed = NEEDS * pages * _number(connection, "page_size")
    free = shutil.disk_usage(os.path.dirname(path)).free
    if free < needed:
        raise JournalError(
            f"{path}: expected {needed >> 20} MB of free disk to write it anew, got {free >> 20} MB; make room, or "
            "leave it as it is"
        )
    connection.execute(AUTO_VACUUM)
    connection.execute("VACUUM")


def end_log(connection: Any) -> None:
    """Move what is in the log into the file, so that both are as small as they can be; not while others read it."""
    patience = _number(connection, "busy_timeout")
    connection.execute("PRAGMA busy_timeout=0").fetchall()
    try:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    finally:
        connection.execute(f"PRAGMA busy_timeout={patience}").fetchall()


def _number(connection: Any, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])
