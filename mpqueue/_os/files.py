"""Files by their descriptors: opened for this process alone, read and written at an offset.

What is opened is binary, and can be removed and renamed meanwhile, on Windows too.
"""

from __future__ import annotations

import os
import stat
import sys

if sys.platform == "win32":
    from mpqueue._os.windows import file_handles as windows

    NO_LINKS = windows.NO_LINKS
    #: Whether `os.replace` can give the name of a file that is open to another one.
    REPLACES_OPEN_FILES = False
    open_file = windows.open_file
    read_at, read_into, write_at = windows.read_at, windows.read_into, windows.write_at

    def check_replaceable(path: str | os.PathLike[str]) -> None:
        """Raise PermissionError where another file can't get this one's name now; one that is not there is fine."""
        windows.check_replaceable(path)

    def open_unseen(path: str) -> int:
        """Open to read whatever has that name."""
        return open_file(path, os.O_RDONLY)

    def this_user() -> int:
        """Return 0: on Windows `os.stat` does not tell a file's owner."""
        return 0

    def others_may_write(found: os.stat_result) -> bool:  # noqa: ARG001 - it tells nothing of that
        """Windows does not say who may write a file: who may is the folder's to settle."""
        return False

    def sync_folder(folder: str | os.PathLike[str]) -> None:
        """Windows has no such thing: NTFS keeps its names by a log of its own."""

    def set_rights(fd: int, mode: int) -> None:
        """Windows gives a file the rights of its folder."""

else:
    #: For `open_file`: raise OSError where the last part of the path is a link.
    NO_LINKS: int = os.O_NOFOLLOW
    REPLACES_OPEN_FILES = True

    def open_file(path: str | os.PathLike[str], flags: int, mode: int = 0o777) -> int:
        """Open a file as `os.open` does, private to this process."""
        return os.open(path, flags | os.O_CLOEXEC, mode)

    def check_replaceable(path: str | os.PathLike[str]) -> None:
        """The folder decides, which the caller has asked; in one as ``/tmp``, the file's owner, too."""
        try:
            found, folder = os.lstat(path), os.stat(os.path.dirname(os.path.abspath(path)))
        except FileNotFoundError:
            return
        if folder.st_mode & stat.S_ISVTX and this_user() not in (0, found.st_uid, folder.st_uid):
            raise PermissionError(
                f"expected a file that can be replaced, got {os.fspath(path)!r}, which is user {found.st_uid}'s, in a "
                "folder where users can replace only their own (sticky bit)"
            )

    def open_unseen(path: str) -> int:
        """Open to read whatever has that name, without waiting and without making it this process's terminal."""
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)

    #: Bytes of a file from an offset on: descriptor, how many at most, from where. As `os.pread`.
    read_at = os.pread

    def read_into(fd: int, memory: memoryview, offset: int) -> int:
        """Read a file from an offset on into memory; return how many bytes."""
        return os.preadv(fd, [memory], offset)

    #: Write there: descriptor, bytes, from where; returns how many. As `os.pwrite`.
    write_at = os.pwrite

    #: The user whose rights this process has, as `os.stat` tells of owners.
    this_user = os.geteuid

    def others_may_write(found: os.stat_result) -> bool:
        """Tell whether another user than its owner may write a file."""
        return bool(found.st_mode & stat.S_IWOTH or (found.st_mode & stat.S_IWGRP and not _is_private(found)))

    def _is_private(found: os.stat_result) -> bool:
        """True for a file of its owner's private group, which many systems make for each user, with umask 002."""
        import grp
        import pwd

        try:
            group = grp.getgrgid(found.st_gid)
            owner = pwd.getpwuid(found.st_uid).pw_name
        except KeyError:  # in a container
            return found.st_gid == found.st_uid
        return group.gr_name == owner and set(group.gr_mem) <= {owner}

    def sync_folder(folder: str | os.PathLike[str]) -> None:
        """Have the names in it on disk. Raises OSError."""
        fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    #: Give a file, by its descriptor, these rights. Raises OSError.
    set_rights = os.fchmod


#: What may have the name of a file, for people.
_KINDS = {
    stat.S_IFREG: "a file",
    stat.S_IFDIR: "a folder",
    stat.S_IFLNK: "a link",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
}


def kind_of(found: os.stat_result) -> str:
    """``a folder``, ``a named pipe``: what it is, for people."""
    return _KINDS.get(stat.S_IFMT(found.st_mode), "a device")
