"""The kind of file system that a file is on, and whether there is room for more of it."""

from __future__ import annotations

import errno
import os
import re
import sys
from typing import NamedTuple

from mpqueue._os.process import process_facts
from mpqueue._os.system import IS_WINDOWS, choose

if sys.platform == "win32":
    from mpqueue._os.windows import file_handles as windows

#: What the kernel writes for a byte in a name that would end it.
_ESCAPE = re.compile(rb"\\([0-7]{3})")


class FileSystem(NamedTuple):
    """A file system as the kernel names it."""

    kind: str  #: ``ext4``, ``nfs4``, ``fuse.sshfs``, ...
    source: str  #: what is mounted: a device, ``server:/home``, any text
    root: str  #: where it is mounted


def mounted_as(mounts: bytes, number: int) -> FileSystem | None:
    """The file system that is mounted under that number, by the text of ``/proc/self/mountinfo``; None: it has none."""
    for line in mounts.splitlines():
        first, separator, last = line.partition(b" - ")
        fields, described = first.split(b" "), last.split(b" ")
        if separator and len(fields) > 4 and len(described) > 1 and fields[0] == b"%d" % number:
            return FileSystem(*(_plain(field) for field in (described[0], described[1], fields[4])))
    return None


def _plain(field: bytes) -> str:
    return os.fsdecode(_ESCAPE.sub(lambda found: bytes((int(found[1], 8) & 255,)), field))


def _by_mount(path: str) -> FileSystem | None:
    flags = os.O_CLOEXEC | (os.O_DIRECTORY if os.path.isdir(path) else 0)  # so that it is mounted by now
    try:
        opened = os.open(path, flags | os.O_PATH)  # type: ignore[attr-defined,unused-ignore]
        try:
            told = process_facts.read(f"/proc/self/fdinfo/{opened}")
        finally:
            os.close(opened)
        with open("/proc/self/mountinfo", "rb") as file:
            mounts = file.read()
    except OSError:
        return None
    number = re.search(rb"^mnt_id:\s*(\d+)$", told, re.MULTILINE)
    return None if number is None else mounted_as(mounts, int(number[1]))


def _do_not_know(_path: str) -> FileSystem | None:
    return None


def _by_drive(path: str) -> FileSystem | None:
    if sys.platform == "win32" and windows.is_on_network(path):
        drive = windows.drive_of(path)
        return FileSystem("network drive", drive, drive)
    return None


#: The file system that holds this file or folder, which is there. 100 us, and longer where thousands are mounted. None
#: where that is not told: elsewhere than on Linux, and where the kernel's own files can't be read. Windows tells of
#: network drives.
file_system_of = _by_drive if IS_WINDOWS else choose(linux=_by_mount, posix=_do_not_know)


def _allocate(fd: int, first: int, count: int) -> None:
    try:
        os.posix_fallocate(fd, first, count)  # type: ignore[attr-defined,unused-ignore]
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # this file system can't tell
            raise


def _take_for_granted(_fd: int, _first: int, _count: int) -> None:
    """Do nothing: writing tells whether there is room."""


#: Have room on the disk for so many bytes of the file from there on, or raise OSError; the file is longer then. Does
#: nothing where that can't be had: elsewhere than on Linux, and on some file systems.
reserve_room = choose(linux=_allocate, posix=_take_for_granted)
