"""The kind of file system that a file is on, whether there is room for more of it, and locks on files."""

from __future__ import annotations

import errno
import os
import re
import struct
import sys
from contextlib import suppress
from io import FileIO
from typing import NamedTuple

from mpqueue._os.files import read_beginning
from mpqueue._os.process_handle import close_in_each_fork
from mpqueue._os.system import IS_LINUX, IS_WINDOWS, PROC

if sys.platform == "win32":
    from mpqueue._os.windows import file_handles as windows
else:
    import fcntl

#: The kernel's escape of a byte that would end a name.
_ESCAPE = re.compile(rb"\\([0-7]{3})")


class FileSystem(NamedTuple):
    """A file system in the kernel's terms."""

    kind: str  #: ``ext4``, ``nfs4``, ``fuse.sshfs``, ...
    source: str  #: the mounted thing: a device, ``server:/home``, any text
    root: str  #: where it is mounted


def mounted_as(mounts: bytes, number: int) -> FileSystem | None:
    """Return the file system mounted under that number, by the text of ``/proc/self/mountinfo``, or None."""
    for line in mounts.splitlines():
        first, separator, last = line.partition(b" - ")
        fields, described = first.split(b" "), last.split(b" ")
        if separator and len(fields) > 4 and len(described) > 1 and fields[0] == b"%d" % number:
            return FileSystem(*(_plain(field) for field in (described[0], described[1], fields[4])))
    return None


def _plain(field: bytes) -> str:
    return os.fsdecode(_ESCAPE.sub(lambda found: bytes((int(found[1], 8) & 255,)), field))


def _by_mount(path: str) -> FileSystem | None:
    if not IS_LINUX:
        return None  # without O_PATH, closing it would end this process's locks on it
    flags = os.O_CLOEXEC | (os.O_DIRECTORY if os.path.isdir(path) else 0)  # opening it mounts it
    try:
        opened = os.open(path, flags | os.O_PATH)  # type: ignore[attr-defined,unused-ignore]
        try:
            told = read_beginning(f"{PROC}/self/fdinfo/{opened}")
        finally:
            os.close(opened)
        with open(f"{PROC}/self/mountinfo", "rb") as file:
            mounts = file.read()
    except OSError:
        return None
    number = re.search(rb"^mnt_id:\s*(\d+)$", told, re.MULTILINE)
    return None if number is None else mounted_as(mounts, int(number[1]))


def _by_drive(path: str) -> FileSystem | None:
    if sys.platform == "win32" and windows.is_on_network(path):
        drive = windows.drive_of(path)
        return FileSystem("network drive", drive, drive)
    return None


#: The file system of an existing file or folder. 100 us, and longer if thousands are mounted. None if it is not known:
#: on other systems than Linux, and if the kernel's own files can't be read. Windows reports network drives.
file_system_of = _by_drive if IS_WINDOWS else _by_mount


def reserve_room(fd: int, first: int, count: int) -> None:
    """Reserve disk space for that many bytes of the file from there on, or raise OSError; the file is longer then.

    Does nothing if that is not supported, on other systems and on some file systems: writing shows whether there is
    room.
    """
    if not IS_LINUX:
        return
    try:
        os.posix_fallocate(fd, first, count)  # type: ignore[attr-defined,unused-ignore]
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # this file system does not support it
            raise


# -- Locks on files, which end with their process in any case. ---------------------------------------------------------
#
# On Linux they are locks of open file descriptions, which see the record locks of processes, and are seen by them. If
# these are refused (by gVisor, or by a filter), and on other POSIX systems, they are locks of `flock`: processes with
# one kind of lock don't see locks of the other kind.

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
    """Keep writers' record locks off these bytes of a file, until `release_bytes` or the descriptor's end.

    It ends when a `lock_file` would end, also in forks. False if the system has no such locks, or a program has a
    writer's lock there.
    """
    close_in_each_fork(file)
    with suppress(*_REFUSED):
        _ask(file.fileno(), fcntl.F_OFD_SETLK, fcntl.F_RDLCK, first, count)
        return True
    return False


def release_bytes(file: FileIO, first: int, count: int) -> None:
    """End `hold_bytes`, without closing the descriptor: that would end all record locks of this process on the file."""
    with suppress(*_REFUSED):
        _ask(file.fileno(), fcntl.F_OFD_SETLK, fcntl.F_UNLCK, first, count)


#: ``struct flock``: type, whence, first byte, how many (0: all), process.
_FLOCK = struct.Struct("@hhqqi0q")


def _ask(fd: int, command: int, kind: int, first: int, count: int) -> int:
    asked = _FLOCK.pack(kind, os.SEEK_SET, first, count, 0)
    found: int = _FLOCK.unpack(fcntl.fcntl(fd, command, asked))[0]
    return found
