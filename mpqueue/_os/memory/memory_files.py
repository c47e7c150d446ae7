"""Unnamed files in memory, which a process shares with those that inherit or are handed a descriptor of them."""

from __future__ import annotations

import errno
import fcntl
import os
import sys
import tempfile


class SharedFile:
    """An unnamed file in memory that the parent makes and its workers inherit: nothing is left when both are gone.

    A memfd where the system has them and allows them, so that it does not count against the size of /dev/shm. Else a
    temporary file without a name.
    """

    def __init__(self, label: str, size: int) -> None:
        self.fd = make_file(label)
        os.ftruncate(self.fd, size)

    @property
    def path(self) -> str:
        """By which another process on Linux opens it, which has the same user."""
        return f"/proc/{os.getpid()}/fd/{self.fd}"

    def close(self) -> None:
        """Close the descriptor; mappings stay valid."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def make_file(label: str) -> int:
    """The descriptor of such a file, which is no standard stream. Raises OSError."""
    if sys.platform == "linux" and hasattr(os, "memfd_create"):  # a Python built for an old glibc has it not
        try:
            return os.memfd_create(f"mpqueue-{label}", os.MFD_CLOEXEC)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EACCES, errno.ENOSYS):
                raise
    with tempfile.TemporaryFile(prefix=f"mpqueue-{label}-") as file:
        return fcntl.fcntl(file.fileno(), fcntl.F_DUPFD_CLOEXEC, 3)
