"""Files by their descriptors: opened for this process only, read and written at an offset.

Open files are binary, and can be removed and renamed meanwhile, on Windows too.
"""

from __future__ import annotations

import os
import stat
import sys

if sys.platform == "win32":
    from mpqueue._os.windows import file_handles as windows

    NO_LINKS = windows.NO_LINKS
    #: Whether `os.replace` can give the name of an open file to another one.
    REPLACES_OPEN_FILES = False
    open_file = windows.open_file
    read_at, read_into, write_at = windows.read_at, windows.read_into, windows.write_at

    def check_replaceable(path: str | os.PathLike[str]) -> None:
        """Raise PermissionError if the file can't be replaced now; a missing file is fine."""
        windows.check_replaceable(path)

    def open_unseen(path: str) -> int:
        """Open the file of that name to read."""
        return open_file(path, os.O_RDONLY)

    def this_user() -> int:
        """Return 0: on Windows `os.stat` does not tell a file's owner."""
        return 0

    def others_may_write(found: os.stat_result) -> bool:  # noqa: ARG001 - it tells nothing of that
        """Return False: Windows does not report it; the folder's rights decide."""
        return False

    def sync_folder(folder: str | os.PathLike[str]) -> None:
        """Do nothing: NTFS logs its names itself."""

    def set_rights(fd: int, mode: int) -> None:
        """Do nothing: Windows gives a file the rights of its folder."""

else:
    #: For `open_file`: raise OSError if the last part of the path is a link.
    NO_LINKS: int = os.O_NOFOLLOW
    REPLACES_OPEN_FILES = True

    def open_file(path: str | os.PathLike[str], flags: int, mode: int = 0o777) -> int:
        """Open a file as `os.open` does, private to this process."""
        return os.open(path, flags | os.O_CLOEXEC, mode)

    def check_replaceable(path: str | os.PathLike[str]) -> None:
        """Do nothing: the folder decides, which the caller has checked; in one like ``/tmp``, the file's owner too."""
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
        """Open the file of that name to read, without waiting and without making it this process's terminal."""
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)

    #: Read bytes of a file: descriptor, how many at most, offset. Like `os.pread`.
    read_at = os.pread

    def read_into(fd: int, memory: memoryview, offset: int) -> int:
        """Read a file from an offset on into memory; return how many bytes."""
        return os.preadv(fd, [memory], offset)

    #: Write into a file: descriptor, bytes, offset; returns how many. Like `os.pwrite`.
    write_at = os.pwrite

    #: The user whose rights this process has, as `os.stat` reports owners.
    this_user = os.geteuid

    def others_may_write(found: os.stat_result) -> bool:
        """Tell whether another user than its owner may write a file."""
        return bool(found.st_mode & stat.S_IWOTH or (found.st_mode & stat.S_IWGRP and not _is_private(found)))

    def _is_private(found: os.stat_result) -> bool:
        """True for a file of its owner's private group; many systems make one for each user, with umask 002."""
        import grp
        import pwd

        try:
            group = grp.getgrgid(found.st_gid)
            owner = pwd.getpwuid(found.st_uid).pw_name
        except KeyError:  # in a container
            return found.st_gid == found.st_uid
        return group.gr_name == owner and set(group.gr_mem) <= {owner}

    def sync_folder(folder: str | os.PathLike[str]) -> None:
        """Write the names in it to disk. Raises OSError."""
        fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    #: Set the rights of a file, by its descriptor. Raises OSError.
    set_rights = os.fchmod


def read_beginning(path: str) -> bytes:
    """Return the first 4 KiB of a file. Raises OSError if there is none.

    It is not kept open: a handler may close descriptors that are not its own, and reuse the number for its own file.
    `open` would make four more system calls.
    """
    file = open_file(path, os.O_RDONLY)
    try:
        return os.read(file, 4096)
    finally:
        os.close(file)


#: Kinds of files, for people.
_KINDS = {
    stat.S_IFREG: "a file",
    stat.S_IFDIR: "a folder",
    stat.S_IFLNK: "a link",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
}


def kind_of(found: os.stat_result) -> str:
    """``a folder``, ``a named pipe``: the kind of a file, for people."""
    return _KINDS.get(stat.S_IFMT(found.st_mode), "a device")
