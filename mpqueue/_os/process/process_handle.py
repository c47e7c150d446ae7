"""A handle on one process: signals to it, its end, and its exit code. Used on any thread; only `wait` methods wait.

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
import threading
from collections.abc import Callable
from typing import Any, Protocol

from mpqueue._os.descriptors import is_readable
from mpqueue._os.system import IS_LINUX, IS_WINDOWS

if sys.platform == "win32":
    from mpqueue._os.windows.processes import WindowsProcess

#: Options of `os.waitid` for an exit code that can be read again.
_HOW = 0 if IS_WINDOWS else os.WEXITED | os.WNOWAIT | os.WNOHANG

#: A sentinel is closed some microseconds before its process has ended, and earlier if the machine is busy: the number
#: of looks at it, and the seconds between them.
_LAST_LOOKS, _LAST_PAUSE = 250, 0.001


class ProcessHandle(Protocol):
    """A process that can be signalled and waited for, from the making of the handle until `close`."""

    def fileno(self) -> int:
        """The descriptor that is readable once the process has ended; -1 if there is none."""

    def send(self, number: int) -> None:
        """Send a signal to the process only. Nothing is sent if it has ended, or if the system refuses.

        Once a Linux handle is closed, nothing is sent to another process with its number either.
        """

    def wait(self, seconds: float) -> bool:
        """Wait for its end, at most that long; returns whether it has ended. False at once without a descriptor."""

    def exit_code(self) -> int | None:
        """Return the exit code: from 0 on, or minus the number of the signal. The starter can still reap it afterwards.

        None if it has not ended, other code has reaped it, or it is no child.
        """

    def has_false_end(self) -> bool:
        """True if the descriptor is readable although the process lives on: it has written into its sentinel."""

    def await_last_moments(self, has_ended: Callable[[], bool]) -> None:
        """Return once ``has_ended`` is true. Call it after the descriptor has reported the end and a kill was sent.

        Returns at once for a pidfd, which reports it in time; within 0.25 s if it does not end.
        """

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

    def wait(self, seconds: float) -> bool:
        return self._fd >= 0 and is_readable(self._fd, seconds)

    def exit_code(self) -> int | None:
        if self._fd < 0:
            return None
        try:
            ended: Any = os.waitid(os.P_PIDFD, self._fd, _HOW)  # type: ignore[attr-defined,unused-ignore]
        except OSError:  # reaped, no child, or the system has no such call
            return None
        return _code_of(ended)

    def has_false_end(self) -> bool:
        """Return False: no process can write into a pidfd."""
        return False

    def await_last_moments(self, has_ended: Callable[[], bool]) -> None:
        """Return at once: a pidfd reports the end in time."""

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class PosixProcess:
    """A `ProcessHandle` by the number and the sentinel, which the starter closes; -1: there is none."""

    def __init__(self, pid: int, sentinel: int = -1) -> None:
        self._pid = pid
        self._sentinel = sentinel

    def fileno(self) -> int:
        return self._sentinel

    def send(self, number: int) -> None:
        with contextlib.suppress(OSError):  # it has ended, or the system refuses
            os.kill(self._pid, number)

    def wait(self, seconds: float) -> bool:
        return self._sentinel >= 0 and is_readable(self._sentinel, seconds)

    def exit_code(self) -> int | None:
        if not hasattr(os, "waitid"):  # macOS before Python 3.13
            return None
        try:
            ended = os.waitid(os.P_PID, self._pid, _HOW)
        except OSError:  # reaped, no child, or the system has no such call
            return None
        return _code_of(ended)

    def has_false_end(self) -> bool:
        """Read from the sentinel: at its end there is nothing, since the process has closed it."""
        return self.wait(0) and os.read(self._sentinel, 1) != b""

    def await_last_moments(self, has_ended: Callable[[], bool]) -> None:
        """Look every `_LAST_PAUSE` seconds, at most `_LAST_LOOKS` times."""
        for _ in range(_LAST_LOOKS):
            if has_ended():
                return
            threading.Event().wait(_LAST_PAUSE)

    def close(self) -> None:
        """Do nothing: the starter closes the sentinel."""


def open_process(pid: int, sentinel: int = -1) -> ProcessHandle:
    """Open the best handle on a process. It may mean a stranger once the sentinel has reported the end.

    Raises ProcessLookupError if there is neither such a process, as far as the system reports, nor a sentinel.
    """
    if sys.platform == "win32":
        return WindowsProcess(pid, sentinel)
    try:
        return LinuxProcess(pid)
    except ProcessLookupError:
        if sentinel < 0:
            raise
    except OSError:
        pass  # the system has no pidfds
    return PosixProcess(pid, sentinel)


#: A handle that never means a stranger with the same number. Raises OSError if there is none, or no such process.
if sys.platform == "win32":
    open_exactly = WindowsProcess
else:
    open_exactly = LinuxProcess


def is_reaped(pid: int) -> bool:
    """Tell whether other code has reaped that child, so that its exit code can't be read any more.

    False if the system does not report it (macOS before Python 3.13, a filter of system calls).
    """
    if not hasattr(os, "waitid"):
        return False
    try:
        os.waitid(os.P_PID, pid, _HOW)
    except ChildProcessError:
        return True
    except OSError:
        return False
    return False


def _code_of(ended: Any) -> int | None:
    if ended is None:
        return None
    code: int = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
    return code
