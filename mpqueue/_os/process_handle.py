"""A handle on one process: signals to it, and its end; and this process's own forks, made and reaped here.

Handles are used on any thread; nothing waits.

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
import warnings
from collections.abc import Callable
from typing import Any, NoReturn, Protocol
from weakref import WeakSet

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


#: Whether this system can fork a process.
CAN_FORK: bool = hasattr(os, "fork")


def in_each_fork(call: Callable[[], object]) -> None:
    """Call the function first in each fork of this process. Windows has no forks."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=call)


class _Closed(Protocol):
    def close(self) -> None: ...


_closed_in_forks: WeakSet[_Closed] = WeakSet()


def close_in_each_fork(file: _Closed) -> None:
    """Close the object in each fork of this process: a fork shares what is open, with locks and positions of files.

    A buffered file would write its buffer there.
    """
    _closed_in_forks.add(file)


def _close_in_fork() -> None:
    for file in [*_closed_in_forks]:
        with contextlib.suppress(OSError):
            file.close()
    _closed_in_forks.clear()


in_each_fork(_close_in_fork)


def around_forks(before: Callable[[], object], in_child: Callable[[], object]) -> None:
    """Call ``before`` in this process before each fork of it, and ``in_child`` in the fork."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=before, after_in_child=in_child)


def fork_here() -> int:
    """Fork; 0 in the child, there the child's number. Raises OSError if there is no room for it.

    If there are threads, Python 3.12 and newer warn; the caller has to deal with that.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def end_at_once(code: int = 0) -> NoReturn:
    """End this process without any cleanup."""
    os._exit(code)


def try_fork() -> None:
    """Fork a child that does nothing, and wait for its end: everything that a first fork triggers has then happened."""
    if (pid := fork_here()) == 0:
        end_at_once()
    os.waitpid(pid, 0)


def exit_code(pid: int) -> int:
    """Return the exit code of a fork that has ended: from 0 on, or minus the signal's number. It can be read again.

    255 if the system has no call for that, as macOS before Python 3.13.
    """
    if not hasattr(os, "waitid"):
        return 255
    try:
        ended: Any = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # never None: it waits
    except OSError:  # a filter of system calls refuses it
        return 255
    code: int = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
    return code


def bury(pid: int) -> None:
    """Reap a fork that has ended. From now on its number may be another process's."""
    os.waitpid(pid, 0)


def _draw() -> str:
    return os.urandom(8).hex()


_name = _draw()


def _renew() -> None:
    global _name
    _name = _draw()  # a fork is another process


in_each_fork(_renew)


def process_name() -> str:
    """The name of this process, 16 hexadecimal digits, unique among all processes on all machines. Costs nothing."""
    return _name
