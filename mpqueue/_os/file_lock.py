"""Locks on files, which end with their process in any case."""

from __future__ import annotations

import os
import struct
import sys
from contextlib import suppress
from io import FileIO

from mpqueue._os.process.own_forks import close_in_each_fork
from mpqueue._os.system import choose

if sys.platform == "win32":
    from mpqueue._os.windows import file_handles as windows
else:
    import fcntl

#: Locks the whole of a file: from its beginning, without an end.
WHOLE = (0, 0)


def lock_file(file: FileIO) -> None:
    """Lock the file, which is open for writing. Never waits. Raises OSError if another opening of it is locked.

    The lock belongs to the opening, not to the process: it ends when the last descriptor of the opening is closed, and
    not when this process opens the same file again and closes it, as copying it does. A fork would share it, so the
    file is closed there. It also keeps out other openings by this process.
    """
    close_in_each_fork(file)
    _lock(file.fileno())


def unlock_file(fd: int) -> None:
    """End `lock_file`, just before the file is closed: a fork that has just been made may not have closed it yet."""
    _unlock(fd)


def is_locked(fd: int) -> bool:
    """True if another opening of the file, which is open for writing, is locked; also by a record lock.

    On Linux it only asks. Elsewhere it takes a lock for a moment, which may refuse another lock at that moment.
    """
    return _is_locked(fd)


def hold_bytes(file: FileIO, first: int, count: int) -> bool:
    """Keep writers' record locks off these bytes of a file, until `let_go_bytes` or the descriptor's end.

    It ends when a `lock_file` would end, also in forks. False if the system has no such locks, or a program has a
    writer's lock there.
    """
    close_in_each_fork(file)
    return _hold(file.fileno(), first, count)


def let_go_bytes(file: FileIO, first: int, count: int) -> None:
    """End `hold_bytes`, without closing the descriptor: that would end all record locks of this process on the file."""
    _let_go(file.fileno(), first, count)


# -- Linux: locks of open file descriptions, which see the record locks of processes, and are seen by them -------------
#
# If these are refused (by gVisor, or by a filter), the portable form is used: processes with one form don't see locks
# of the other form.

#: ``struct flock``: type, whence, first byte, how many (0: all), process.
_FLOCK = struct.Struct("@hhqqi0q")


def _ask(fd: int, command: int, kind: int, first: int, count: int) -> int:
    asked = _FLOCK.pack(kind, os.SEEK_SET, first, count, 0)
    found: int = _FLOCK.unpack(fcntl.fcntl(fd, command, asked))[0]
    return found


def _lock_opening(fd: int) -> None:
    try:
        _ask(fd, fcntl.F_OFD_SETLK, fcntl.F_WRLCK, *WHOLE)
    except BlockingIOError:
        raise
    except OSError:
        _flock(fd)


def _unlock_opening(fd: int) -> None:
    with suppress(OSError):
        _ask(fd, fcntl.F_OFD_SETLK, fcntl.F_UNLCK, *WHOLE)
    _unflock(fd)


def _opening_is_locked(fd: int) -> bool:
    try:
        return _ask(fd, fcntl.F_OFD_GETLK, fcntl.F_WRLCK, *WHOLE) != fcntl.F_UNLCK
    except OSError:
        return _is_flocked(fd)


def _hold_of_opening(fd: int, first: int, count: int) -> bool:
    try:
        _ask(fd, fcntl.F_OFD_SETLK, fcntl.F_RDLCK, first, count)
    except OSError:
        return False
    return True


def _let_go_of_opening(fd: int, first: int, count: int) -> None:
    _ask(fd, fcntl.F_OFD_SETLK, fcntl.F_UNLCK, first, count)


# -- every POSIX system ------------------------------------------------------------------------------------------------


def _flock(fd: int) -> None:
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _unflock(fd: int) -> None:
    fcntl.flock(fd, fcntl.LOCK_UN)


def _is_flocked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    _unflock(fd)
    return False


def _leave_locked(fd: int) -> None:
    """Do nothing: there are no forks, and a lock ends with its handle."""


def _hold_nothing(fd: int, first: int, count: int) -> bool:  # noqa: ARG001
    return False


def _let_go_nothing(fd: int, first: int, count: int) -> None:
    """Do nothing: it held nothing."""


if sys.platform == "win32":
    _lock, _is_locked, _unlock = windows.lock_file, windows.is_locked, _leave_locked
else:
    _lock = choose(linux=_lock_opening, posix=_flock)
    _unlock = choose(linux=_unlock_opening, posix=_unflock)
    _is_locked = choose(linux=_opening_is_locked, posix=_is_flocked)
_hold = choose(linux=_hold_of_opening, posix=_hold_nothing)
_let_go = choose(linux=_let_go_of_opening, posix=_let_go_nothing)
