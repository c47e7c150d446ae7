"""The files of an open journal: that they are still those which were opened, and that no other program ends its log.

SQLite's own locks are record locks: all that a process has on a file are gone once it closes any descriptor of it, as a
copy of the journal made inside the program does. Another program would then treat the log as left behind, move its
content into the file and remove it. So the same bytes are held a second time, in a way that no copy ends.
"""

from __future__ import annotations

import contextlib
import os
from io import FileIO

from mpqueue._os.file_lock import hold_bytes, let_go_bytes
from mpqueue._os.files import NO_LINKS, open_file
from mpqueue._os.process.own_forks import close_in_each_fork
from mpqueue._os.system import IS_WINDOWS

#: The bytes that SQLite locks (https://www.sqlite.org/walformat.html): of the database for as long as it is open, so
#: that no program ends the log; of the shared memory, so that none takes it to be a dead process's.
#: On Windows none is held: while SQLite has a file open there, it can't be removed or renamed, and no copy ends a lock.
LOCKED = {} if IS_WINDOWS else {"": (0x40000002, 510), "-wal": None, "-shm": (128, 1)}


class MovedError(OSError):
    """A file of an open journal is not under its name any more."""


class HeldFiles:
    """From its making, which is when the journal has a log, until `close`."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._files: dict[str, FileIO] = {}
        self._is_held = True
        for suffix, held in LOCKED.items():
            try:
                file = FileIO(open_file(f"{path}{suffix}", os.O_RDWR | NO_LINKS), "r+")
            except FileNotFoundError:  # a connection that shares no memory
                continue
            self._files[suffix] = file
            close_in_each_fork(file)  # also the log, of which no byte is held
            if held is not None:
                self._is_held = hold_bytes(file, *held) and self._is_held

    def check(self) -> None:
        """Raise `MovedError` where a file was removed, moved or exchanged. Costs three looks at names."""
        for suffix in self._files:
            if not self._is_in_place(suffix):
                name = f"{self._path}{suffix}"
                found = "another file" if os.path.exists(name) else "nothing"
                raise MovedError(f"expected the {name} that was opened, got {found} there; put it back")

    @property
    def only_log_is_gone(self) -> bool:
        """True where the log was removed, while the file is in place, and no other program can have written it."""
        log = [suffix for suffix in self._files if suffix]
        changed = [suffix for suffix in log if not self._is_in_place(suffix)]
        others = any(os.path.exists(f"{self._path}{suffix}") for suffix in changed)
        return self._is_held and bool(changed) and not others and self._is_in_place("")

    def _is_in_place(self, suffix: str) -> bool:
        try:
            return os.path.samestat(os.fstat(self._files[suffix].fileno()), os.stat(f"{self._path}{suffix}"))
        except OSError:
            return False

    def let_go(self) -> None:
        """From now on SQLite may end the log, if no other program reads it."""
        for suffix, file in self._files.items():
            held = LOCKED[suffix]
            if held is not None:
                with contextlib.suppress(OSError):
                    let_go_bytes(file, *held)

    def close(self) -> None:
        """To be called once SQLite has closed the files: its own locks end with any descriptor of them."""
        for file in self._files.values():
            file.close()
        self._files.clear()
