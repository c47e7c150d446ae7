"""That one queue at a time writes a journal: a lock on a file beside it, which ends with its process in any case.

The file says which process holds it, and how much of what that process committed is on disk. It goes when the journal
is closed. So one that is still there says what must be in the journal: if it is not, something has removed, damaged or
exchanged a file of it. It is never synced: after a power cut it may say less than there is.

Nothing has to be cleared up after a crash.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from io import FileIO
from typing import NamedTuple

from mpqueue._os.file_lock import is_locked, lock_file, unlock_file
from mpqueue._os.files import NO_LINKS, open_file, read_at, write_at
from mpqueue._os.process.own_forks import in_each_fork
from mpqueue._parent.journal.guards.ownership import check_stat
from mpqueue.errors import JournalError

#: The paths of the journals that queues of this process have open, or are about to.
_held: set[str] = set()
_guard = threading.Lock()
#: Bytes of a lock file.
SIZE = 96


class Mark(NamedTuple):
    """How much is on disk: by which opening (its line in the journal, and when that began), how many commits."""

    pid: int
    number: int = 0
    at: float = 0.0
    commits: int = 0

    def to_bytes(self) -> bytes:
        """Always of the same size, so that writing it needs no room."""
        return f"{self.pid} {self.number} {self.at!r} {self.commits}".ljust(SIZE - 1).encode() + b"\n"


def _parse(content: bytes) -> Mark | None:
    """None for what says nothing."""
    try:
        pid, number, at, commits = content.split()
        return Mark(int(pid), int(number), float(at), int(commits))
    except ValueError:
        return None


class JournalLock:
    """Held from its making until `release`. Raises `JournalError` where another queue holds it."""

    def __init__(self, journal: str) -> None:
        self._path = f"{journal}.lock"
        self._key = os.path.realpath(journal)
        with _guard:
            if self._key in _held:
                raise JournalError(f"{journal}: expected a journal that is not open, got one that another queue of "
                                   "this process has open; close that first")  # fmt: skip
            _held.add(self._key)
        try:
            self._file = self._acquire(journal)
        except BaseException:
            self._give_back()
            raise
        #: What the last process left, where it did not close the journal.
        self.left = _parse(read_at(self._file.fileno(), SIZE, 0))
        self.mark((self.left or Mark(0))._replace(pid=os.getpid()))

    def _acquire(self, journal: str) -> FileIO:
        while True:
            try:
                file = FileIO(open_file(self._path, os.O_RDWR | os.O_CREAT | NO_LINKS, 0o600), "r+")
            except OSError as error:
                raise JournalError(
                    f"{journal}: expected a folder in which a journal and its lock file {self._path} can be made, got "
                    f"{error.strerror!r}; nothing was changed"
                ) from error
            try:
                _check_empty_lock(self._path, file)
                lock_file(file)
                if _is_at(file, self._path):  # else its holder removed it just now
                    return file
                file.close()
            except JournalError:
                file.close()
                raise
            except OSError as error:
                words = read_at(file.fileno(), SIZE, 0).decode(errors="replace").split()
                file.close()
                raise JournalError(f"{journal}: expected a journal that is not open, got one that process "
                                   f"{words[0] if words else 'unknown'} has open; two writers are never allowed"
                                   ) from error  # fmt: skip

    def mark(self, mark: Mark) -> None:
        """Say how much is on disk. Costs a system call."""
        with contextlib.suppress(OSError):  # a full disk, at the first time
            write_at(self._file.fileno(), mark.to_bytes(), 0)

    @property
    def is_in_place(self) -> bool:
        """False if the lock file was removed or exchanged."""
        return _is_at(self._file, self._path)

    def release(self, *, keep: bool = False) -> None:
        """Let others have it; the file goes. With ``keep`` it stays with what it said, if that was anything."""
        if keep and self.left is not None:
            self.mark(self.left)
        elif self.is_in_place:
            with contextlib.suppress(OSError):
                os.unlink(self._path)
        unlock_file(self._file.fileno())
        self._file.close()
        self._give_back()

    def _give_back(self) -> None:
        with _guard:
            _held.discard(self._key)


def _check_empty_lock(path: str, file: FileIO) -> None:
    """Raise `JournalError` unless it is a lock file of this user's, which is about to be written."""
    found = os.fstat(file.fileno())
    check_stat(path, found)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1 or found.st_size > SIZE:
        raise JournalError(f"{path}: expected a lock file, got something else; it is left as it is")


def _is_at(file: FileIO, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except OSError:
        return False


def marked(journal: str) -> Mark | None:
    """What a process that has not closed the journal says it has written; None where the last one did close it."""
    try:
        with open(open_file(f"{journal}.lock", os.O_RDONLY | NO_LINKS), "rb") as file:
            return _parse(file.read(SIZE))
    except OSError:
        return None


def is_held(journal: str) -> bool:
    """True while a queue, of whatever process, has the journal open. Never stands in the way of one that opens it."""
    with _guard:
        if os.path.realpath(journal) in _held:
            return True
    try:
        fd = open_file(f"{journal}.lock", os.O_RDWR)
    except OSError:
        return False
    try:
        return is_locked(fd)
    except OSError:
        return False
    finally:
        os.close(fd)


in_each_fork(_held.clear)
