"""`file_key` and `content_key`: the state of a file, for ``Rerun(key=)``."""

from __future__ import annotations

import hashlib
import os

from mpqueue.errors import shown

Path = str | bytes | os.PathLike[str] | os.PathLike[bytes]


def file_key(path: Path) -> str:
    """The size of a file and the time of its last change (in ns): for ``Rerun(key=mpqueue.file_key)``.

    Costs one file system call, about 2 us on a local disk; the file is not read. It misses changes by tools that
    restore a file's size and time; `content_key` finds them. Raises OSError if there is no such file, TypeError if the
    item is no path.
    """
    found = os.stat(_check_path("file_key", path))
    return f"{found.st_size} {found.st_mtime_ns}"


def content_key(path: Path) -> bytes:
    """The BLAKE2b digest of a file's content: for ``Rerun(key=mpqueue.content_key)``.

    Reads the whole file, about 1 s per GB. Raises OSError if the file can't be read, TypeError if the item is no path.
    """
    with open(_check_path("content_key", path), "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=32)).digest()


def _check_path(name: str, path: Path) -> Path:
    if not isinstance(path, str | bytes | os.PathLike):
        raise TypeError(
            f"{name}: expected the path of a file, got {shown(path)} of type {type(path).__name__}; for items that "
            f"hold one pass key=lambda item: mpqueue.{name}(item[...])"
        )
    return path
