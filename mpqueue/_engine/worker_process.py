"""A worker's process as the kernel sees it: whether it lives, how it ended, and signals to it and its group.

By its pidfd where the kernel has them (Linux 5.3), so no signal can hit a stranger that was given the same number.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import struct
import sys
import threading
from multiprocessing import connection

#: `PIDFD_GET_INFO` asked for the exit code: Linux 6.15 tells it even after somebody else has reaped the process.
_PIDFD_GET_INFO = 0xC040FF0B
_PIDFD_INFO_EXIT = 1 << 3
_EXIT_CODE_AT = 60
_INFO_SIZE = 64


class WorkerProcess:
    """One process, from its start until `close`. Any thread may call any method; none blocks.

    Signals go nowhere after `exited` was called, since the number may be somebody else's by then, or in a fork.
    """

    def __init__(self, pid: int, sentinel: int) -> None:
        self.pid = pid
        self._owner = os.getpid()
        self._sentinel = sentinel
        self._lock = threading.RLock()
        self._pidfd = -1
        if sys.platform == "linux":
            with contextlib.suppress(OSError):  # no pidfds here, or it is gone already: the sentinel tells too
                self._pidfd = os.pidfd_open(pid)
        self._is_gone = False

    def fileno(self) -> int:
        """The descriptor that is readable once the process has ended."""
        return self._pidfd if self._pidfd >= 0 else self._sentinel

    def send(self, number: int) -> None:
        """Send a signal to the process alone."""
        with self._lock:
            if self._is_gone or os.getpid() != self._owner:
                return
            with contextlib.suppress(ProcessLookupError):
                if sys.platform == "linux" and self._pidfd >= 0:
                    signal.pidfd_send_signal(self._pidfd, number)
                else:
                    os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL the process and its group."""
        with self._lock:
            # Both: the group exists only once the worker's initializer has run.
            self.send(signal.SIGKILL)
            self.kill_group()

    def kill_group(self) -> None:
        """SIGKILL what is left of the group; the number stays taken while any of it lives."""
        with self._lock:
            if self._is_gone or os.getpid() != self._owner:
                return
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def await_end(self, patience: float) -> None:
        """Wait until the process has ended, where its sentinel says that it is about to. On loky's thread."""
        with self._lock:
            if self._pidfd < 0 or not connection.wait([self._sentinel], 0):
                return
            try:
                pidfd = os.dup(self._pidfd)  # `close` may come meanwhile
            except OSError:
                return
        try:
            connection.wait([pidfd], patience)
        finally:
            os.close(pidfd)

    def exited(self) -> int | None:
        """To be called once `fileno` is readable: kills the rest of the group and returns the exit code.

        Negative: minus the signal's number. None: somebody else has reaped the process and the kernel does not tell.
        """
        with self._lock:
            code = self._exit_code()
            # The process too: a sentinel can also be closed by a worker that lives on.
            self.kill()
            self._is_gone = True
        return code

    def is_stopped(self) -> bool:
        """Whether a signal has stopped it; False where the system does not tell."""
        try:
            with open(f"/proc/{self.pid}/stat", "rb") as stat:
                return stat.read().rpartition(b")")[2].split()[0] in (b"T", b"t")
        except (OSError, IndexError):
            return False

    def is_reaped(self) -> bool:
        """Whether somebody has asked the kernel for the exit code already, so that nobody else can."""
        if not hasattr(os, "waitid"):  # macOS before Python 3.13
            return False
        try:
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        except ChildProcessError:
            return True
        return False

    def _exit_code(self) -> int | None:
        if sys.platform != "linux" or self._pidfd < 0:
            return None
        try:
            # Leaves it to be reaped by its executor.
            ended = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        except ChildProcessError:
            return self._told_by_kernel()
        if ended is None:
            return None
        return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status

    def _told_by_kernel(self) -> int | None:
        info = bytearray(struct.pack("Q", _PIDFD_INFO_EXIT).ljust(_INFO_SIZE, b"\0"))
        try:
            fcntl.ioctl(self._pidfd, _PIDFD_GET_INFO, info)
        except OSError:
            return None
        (told,) = struct.unpack_from("Q", info)
        if not told & _PIDFD_INFO_EXIT:
            return None
        (status,) = struct.unpack_from("i", info, _EXIT_CODE_AT)
        return os.waitstatus_to_exitcode(status)

    def close(self) -> None:
        """Close the pidfd."""
        with self._lock:
            self._is_gone = True
            if self._pidfd >= 0:
                os.close(self._pidfd)
                self._pidfd = -1


def signal_name(exitcode: int | None) -> str | None:
    """The name of the signal that ended a process with that exit code; None where none did."""
    if exitcode is None or exitcode >= 0:
        return None
    try:
        return signal.Signals(-exitcode).name
    except ValueError:
        return f"signal {-exitcode}"
