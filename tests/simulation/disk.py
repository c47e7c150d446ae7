"""A simulated disk under the real journal: SQLite writes real files, and each step to it may fail, or be the last.

A program that is killed leaves the files as they are: so its end is a copy of them, in the middle of a transaction too.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mpqueue._parent.journal import journal_file as store
from tests.simulation.world import World


class Disk:
    """What is wrong with it now."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.is_full = False
        self.fsync_fails = False
        self.was_bad = False  #: at any time
        self.in_transaction = False
        self.short_writes = 0
        self.on_step: Callable[[str], object] = lambda _: None

    @property
    def is_bad(self) -> bool:
        """True where nothing can be written."""
        return self.is_full or self.fsync_fails

    def connect(self, path: str) -> Any:
        """Instead of `mpqueue._parent.journal.journal_file.connect`."""
        return _Connection(self, store.connect(path))

    def step(self, name: str) -> None:
        """A moment at which others may go on, or the program be killed."""
        self.on_step(name)
        self.world.wait(lambda: True)


class _Connection:
    def __init__(self, disk: Disk, real: sqlite3.Connection) -> None:
        self._disk, self._real = disk, real
        real.execute("PRAGMA synchronous=OFF")

    def execute(self, sql: str, arguments: Any = ()) -> Any:
        disk, verb = self._disk, sql.split(None, 1)[0]
        if sql.startswith(("PRAGMA synchronous", "PRAGMA fullfsync")):
            return None  # what the system lost with its power is another test's, see `tests.support.power`
        if verb in ("BEGIN", "INSERT", "UPDATE", "DELETE", "COMMIT"):
            disk.step(verb)
            if disk.is_full and verb in ("INSERT", "UPDATE"):
                raise sqlite3.OperationalError("database or disk is full")
            if disk.fsync_fails and verb == "COMMIT":
                raise sqlite3.OperationalError("disk I/O error")
        found = self._real.execute(sql, arguments)
        disk.in_transaction = self._real.in_transaction
        return found

    def create_function(self, *arguments: Any, **named: Any) -> None:
        self._real.create_function(*arguments, **named)

    def close(self) -> None:
        self._real.close()


class SystemCalls:
    """What `os` is to `mpqueue._parent.journal.journal_file`: writes may be short."""

    def __init__(self, disk_of: Callable[[], Disk | None]) -> None:
        self._disk_of = disk_of

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def write(self, fd: int, data: memoryview) -> int:
        disk = self._disk_of()
        if disk is None:
            return os.write(fd, data)
        disk.step("write")
        if disk.is_full:
            raise OSError(28, "No space left on device")
        if len(data) > 1 and disk.world.rng.random() < 0.3:
            disk.short_writes += 1
            data = data[: len(data) // 2]
        return os.write(fd, data)

    def fsync(self, fd: int) -> None:
        disk = self._disk_of()
        if disk is not None:
            disk.step("fsync")
            if disk.fsync_fails:
                raise OSError(5, "Input/output error")


def left_by_kill(folder: Path, name: str, copy: Path) -> None:
    """The journal's files as a killed program leaves them."""
    copy.mkdir()
    for found in folder.iterdir():
        if not found.name.startswith(name) or found.name.endswith(".lock"):
            continue
        (shutil.copytree if found.is_dir() else shutil.copy)(found, copy / found.name)
