"""The kind of file system that a file is on, and whether there is room for more of it."""

from __future__ import annotations

import errno
import os
import re
import sys
from typing import NamedTuple

from mpqueue._os.process import process_facts
from mpqueue._os.system import IS_LINUX, IS_WINDOWS, PROC

if sys.platform == "win32":
    from mpqueue._os.windows import file_handles as windows

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
            told = process_facts.read(f"{PROC}/self/fdinfo/{opened}")
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
