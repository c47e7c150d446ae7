"""That one queue at a time writes a journal: a lock on a file beside it, which ends with its process in any case.

A forked child does not inherit it, and nothing has to be cleared up after a crash. It does not keep the same process
out, so a table of what this process holds does.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading

from mpqueue._os.file_lock import lock_file
from mpqueue._parent.journal.ownership import check_stat
from mpqueue.errors import JournalError

#: The paths that queues of this process hold.
_held: set[str] = set()
_guard = threading.Lock()
#: Bytes of a lock file: the number of the process that holds it.
MOST = 32


class JournalLock:
    """Held from its making until `release`. Raises `JournalError` where another queue holds it."""

    def __init__(self, journal: str) -> None:
        self._path = f"{journal}.lock"
        self._key = os.path.realpath(journal)
        with _guard:
            if self._key in _held:
                raise JournalError(f"{journal}: expected a journal that nobody writes, got one that another queue of "
                                   "this process has open; close that first")  # fmt: skip
            _held.add(self._key)
        try:
            self._fd = self._acquire(journal)
        except BaseException:
            self._give_back()
            raise

    def _acquire(self, journal: str) -> int:
        while True:
            try:
                fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            except OSError as error:
                raise JournalError(f"{journal}: expected a folder to write in, got {error.strerror!r} for its lock "
                                   f"{self._path}; nothing was changed") from error  # fmt: skip
            try:
                _check_empty_lock(self._path, fd)
                lock_file(fd)
                if _is_at(fd, self._path):  # else its holder removed it just now
                    with contextlib.suppress(OSError):  # a full disk; it is for people only
                        os.ftruncate(fd, 0)
                        os.pwrite(fd, b"%d\n" % os.getpid(), 0)
                    return fd
                os.close(fd)
            except JournalError:
                os.close(fd)
                raise
            except OSError as error:
                owner = os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"
                os.close(fd)
                raise JournalError(f"{journal}: expected a journal that nobody writes, got one that process {owner} "
                                   "has open; two writers are never allowed") from error  # fmt: skip

    def release(self) -> None:
        """Let others have it; the file goes."""
        if _is_at(self._fd, self._path):
            with contextlib.suppress(OSError):
                os.unlink(self._path)
        os.close(self._fd)
        self._give_back()

    def _give_back(self) -> None:
        with _guard:
            _held.discard(self._key)


def _check_empty_lock(path: str, fd: int) -> None:
    """Raise `JournalError` unless it is a lock file of this user's, which is about to be written."""
    found = os.fstat(fd)
    check_stat(path, found)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1 or found.st_size > MOST:
        raise JournalError(f"{path}: expected a lock file, got something else; it is left as it is")


def _is_at(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except OSError:
        return False


def is_held(journal: str) -> bool:
    """True while a queue, of whatever process, has the journal open."""
    with _guard:
        if os.path.realpath(journal) in _held:
            return True
    try:
        fd = os.open(f"{journal}.lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        lock_file(fd)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False


def _forget_in_fork() -> None:
    _held.clear()


os.register_at_fork(after_in_child=_forget_in_fork)
