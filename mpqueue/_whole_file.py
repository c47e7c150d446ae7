"""Files that are written whole or not at all, and that no other user can redirect.

Other users may write into the same folder (``/tmp``): a file is made under a random name that must be new (``O_EXCL``),
and gets its own name once it is on disk. A link at that name is replaced, never followed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from mpqueue._os.files import NO_LINKS, open_file, set_rights, this_user

_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | NO_LINKS


@contextmanager
def whole_file(target: Path, mode: int | None = None) -> Iterator[IO[bytes]]:
    """A file that gets its name once all of it is on disk; if writing fails, the file that had that name stays.

    Its rights are ``mode``; by default those of the file that it replaces, else those that the umask leaves. Raises
    OSError.
    """
    check_target(target)
    part = target.parent / f".{os.urandom(8).hex()}.part"
    fd = open_file(part, _NEW, 0o666 if mode is None else mode)
    try:
        with open(fd, "wb") as file:
            if mode is None and (replaced := rights_of(target)) is not None:
                set_rights(fd, replaced)
            yield file
            file.flush()
            os.fsync(fd)
        os.replace(part, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(part)
        raise


def write_whole(path: str | os.PathLike[str], data: bytes) -> Path:
    """Write a `whole_file` with these data; returns its path. Raises OSError."""
    target = Path(path)
    with whole_file(target) as file:
        file.write(data)
    return target


def check_target(target: Path) -> None:
    """Raise OSError for a folder, a device or a pipe, which no file may replace."""
    if target.is_dir():
        raise IsADirectoryError(f"expected a file, got the folder {str(target)!r}")
    if target.exists() and not target.is_file():
        raise OSError(f"expected a file, got the device or pipe {str(target)!r}")


def rights_of(target: Path) -> int | None:
    """Return the rights of this user's own file; None for another user's."""
    with suppress(OSError):
        found = os.lstat(target)
        if stat.S_ISREG(found.st_mode) and found.st_uid == this_user():
            return stat.S_IMODE(found.st_mode) & 0o777
    return None
