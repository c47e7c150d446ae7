"""Descriptors that a worker holds, and whether they still are what they were.

A handler may close any descriptor, by a closed range or by closing one of its own twice, and the number may then belong
to a file of the handler's. So a worker looks at a number before it writes there.
"""

from __future__ import annotations

import errno
import os

#: Tells an open file from all others, as long as it is open: its device and its inode.
Identity = tuple[int, int]


def identify(fd: int) -> Identity | None:
    """What is open under that number; None where nothing is. Costs 0.6 us."""
    try:
        status = os.fstat(fd)
    except OSError:
        return None
    return status.st_dev, status.st_ino


class Descriptor:
    """A descriptor, as it was when this was made."""

    __slots__ = ("fd", "identity")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.identity = identify(fd)

    def is_there(self) -> bool:
        """True where the same file is still open under that number."""
        return identify(self.fd) == self.identity

    def checked(self) -> int:
        """The number, to be used now. Raises OSError (EBADF) where the file is not open under it any more."""
        if not self.is_there():
            raise OSError(errno.EBADF, f"descriptor {self.fd} was closed by a handler")
        return self.fd
