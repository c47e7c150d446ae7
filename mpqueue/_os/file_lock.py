"""Locks on files, which end with their process in any case.

On Linux they are locks of open file descriptions, which see the record locks of processes, and are seen by them. If
these are refused (by gVisor, or by a filter), and on other POSIX systems, they are locks of `flock`: processes with one
kind of lock don't see locks of the other kind.
"""

from __future__ import annotations

import os
import struct
import sys
from contextlib import suppress
from io import FileIO

from mpqueue._os.process.own_forks import close_in_each_fork

if sys.platform == "win32":
    from mpqueue._os.windows import file_handles as windows
else:
    import fcntl

#: Locks the whole of a file: from its beginning, without an end.
WHOLE = (0, 0)
#: What a system raises that does not have locks of open file descriptions.
_REFUSED = (OSError, AttributeError)


def lock_file(file: FileIO) -> None:
    """Lock the file, which is open for writing. Never waits. Raises OSError if another opening of it is locked.

    The lock belongs to the opening, not to the process: it ends when the last descriptor of the opening is closed, and
    not when this process opens the same file again and closes it, as copying it does. A fork would share it, so the
    file is closed there. It also keeps out other openings by this process.
    """
    close_in_each_fork(file)
    if sys.platform == "win32":
        windows.lock_file(file.fileno())
        return
    try:
        _ask(file.fileno(), fcntl.F_OFD_SETLK, fcntl.F_WRLCK, *WHOLE)
    except BlockingIOError:
        raise
    except _REFUSED:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)


def unlock_file(fd: int) -> None:
    """End `lock_file`, just before the file is closed: a fork that has just been made may not have closed it yet."""
    if sys.platform == "win32":  # it has no forks
        return
    with suppress(*_REFUSED):
        _ask(fd, fcntl.F_OFD_SETLK, fcntl.F_UNLCK, *WHOLE)
    fcntl.flock(fd, fcntl.LOCK_UN)


def is_locked(fd: int) -> bool:
    """True if another opening of the file, which is open for writing, is locked; also by a record lock.

    On Linux it only asks. Elsewhere it takes a lock for a moment, which may refuse another lock at that moment.
    """
    if sys.platform == "win32":
        return windows.is_locked(fd)
    with suppress(*_REFUSED):
        return _ask(fd, fcntl.F_OFD_GETLK, fcntl.F_WRLCK, *WHOLE) != fcntl.F_UNLCK
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    fcntl.flock(fd, fcntl.LOCK_UN)
    return False


def hold_bytes(file: FileIO, first: int, count: int) -> bool:
    """Keep writers' record locks off these bytes of a file, until `let_go_bytes` or the descriptor's end.

    It ends when a `lock_file` would end, also in forks. False if the system has no such locks, or a program has a
    writer's lock there.
    """
    close_in_each_fork(file)
    with suppress(*_REFUSED):
        _ask(file.fileno(), fcntl.F_OFD_SETLK, fcntl.F_RDLCK, first, count)
        return True
    return False


def let_go_bytes(file: FileIO, first: int, count: int) -> None:
    """End `hold_bytes`, without closing the descriptor: that would end all record locks of this process on the file."""
    with suppress(*_REFUSED):
        _ask(file.fileno(), fcntl.F_OFD_SETLK, fcntl.F_UNLCK, first, count)


#: ``struct flock``: type, whence, first byte, how many (0: all), process.
_FLOCK = struct.Struct("@hhqqi0q")


def _ask(fd: int, command: int, kind: int, first: int, count: int) -> int:
    asked = _FLOCK.pack(kind, os.SEEK_SET, first, count, 0)
    found: int = _FLOCK.unpack(fcntl.fcntl(fd, command, asked))[0]
    return found
