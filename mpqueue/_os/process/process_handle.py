"""A handle on one process: signals to it, and its end. Used on any thread; nothing waits.

A Linux handle is a pidfd (Linux 5.3): it never means another process that was given the same number, and is readable
once the process has ended. The portable handle is the number, and a *sentinel*: a descriptor that is readable once the
process has ended, which its starter has made. A user of the number must stop when the sentinel has reported the end. On
Windows it is a handle of the system, which never means another process either.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
from typing import Protocol

from mpqueue._os.descriptors import is_readable
from mpqueue._os.system import IS_LINUX

if sys.platform == "win32":
    from mpqueue._os.windows.processes import WindowsProcess


class ProcessHandle(Protocol):
    """A process that can be signalled and waited for, from the making of the handle until `close`."""

    def fileno(self) -> int:
        """The descriptor that is readable once the process has ended."""

    def send(self, number: int) -> None:
        """Send a signal to the process only. Nothing is sent if it has ended, or if the system refuses.

        Once a Linux handle is closed, nothing is sent to another process with its number either.
        """

    def has_false_end(self) -> bool:
        """True if the descriptor is readable although the process lives on: it has written into its sentinel."""

    def close(self) -> None:
        """Close the descriptors of the handle. May be called again."""


class LinuxProcess:
    """A `ProcessHandle` by a pidfd.

    Raises OSError if the kernel has none or refuses it, or the process has ended.
    """

    def __init__(self, pid: int) -> None:
        if not IS_LINUX:
            raise OSError(errno.ENOTSUP, f"this system has no hold on process {pid} but its number")
        self._fd: int = os.pidfd_open(pid)  # type: ignore[attr-defined,unused-ignore]

    def fileno(self) -> int:
        return self._fd

    def send(self, number: int) -> None:
        if self._fd >= 0:
            with contextlib.suppress(OSError):  # it has ended, or the system refuses
                signal.pidfd_send_signal(self._fd, number)  # type: ignore[attr-defined,unused-ignore]

    def has_false_end(self) -> bool:
        """Return False: no process can write into a pidfd."""
        return False

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class PosixProcess:
    """A `ProcessHandle` by the number and the sentinel, which the starter closes."""

    def __init__(self, pid: int, sentinel: int) -> None:
        self._pid = pid
        self._sentinel = sentinel

    def fileno(self) -> int:
        return self._sentinel

    def send(self, number: int) -> None:
        with contextlib.suppress(OSError):  # it has ended, or the system refuses
            os.kill(self._pid, number)

    def has_false_end(self) -> bool:
        """Read from the sentinel: at its end there is nothing, since the process has closed it."""
        return is_readable(self._sentinel, 0) and os.read(self._sentinel, 1) != b""

    def close(self) -> None:
        """Do nothing: the starter closes the sentinel."""


def open_process(pid: int, sentinel: int) -> ProcessHandle:
    """Open the best handle on a process. It may mean a stranger once the sentinel has reported the end."""
    if sys.platform == "win32":
        return WindowsProcess(pid, sentinel)
    try:
        return LinuxProcess(pid)
    except OSError:  # the system has no pidfds, or it has ended
        return PosixProcess(pid, sentinel)


#: A handle that never means a stranger with the same number. Raises OSError if there is none, or no such process.
if sys.platform == "win32":
    open_exactly = WindowsProcess
else:
    open_exactly = LinuxProcess


def is_reaped(pid: int) -> bool:
    """Tell whether that child is no process any more: other code has read its exit code, which can't be read again.

    False on Windows, where everyone can read it.
    """
    if sys.platform == "win32":
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:  # it is another user's by now
        pass
    return False
