"""A worker's process as the kernel sees it: whether it lives, how it ended, and signals to it and its group.

By its pidfd where the kernel has them (Linux 5.3), so no signal can hit a stranger that was given the same number. A
kill goes each way that there is, since any of them may be refused: a filter of system calls may not know pidfds, and a
parent that has dropped its privileges may send nothing to workers that have kept theirs.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import struct
import sys
import threading
from collections.abc import Callable
from multiprocessing import connection

from mpqueue._os.process.parent_death import Leash

#: `PIDFD_GET_INFO` asked for the exit code: Linux 6.15 tells it even after somebody else has reaped the process.
_PIDFD_GET_INFO = 0xC040FF0B
_PIDFD_INFO_EXIT = 1 << 3
_EXIT_CODE_AT = 60
_INFO_SIZE = 64


class WorkerProcess:
    """One process, from its start until `close`. Any thread may call any method; none blocks.

    Signals go nowhere after `exited` was called, since the number may be somebody else's by then, or in a fork.
    """

    def __init__(self, pid: int, sentinel: int, leash: Leash | None = None) -> None:
        self.pid = pid
        self.when_killed: Callable[[], object] | None = None  #: called at each kill, on whatever thread that is
        self._leash = leash  #: closed with this; None: signals only
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
        """Send a signal to the process alone. Nothing is sent where the system refuses that."""
        with self._lock:
            if self._is_gone or os.getpid() != self._owner:
                return
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if not self._send_by_pidfd(number):
                    os.kill(self.pid, number)

    def _send_by_pidfd(self, number: int) -> bool:
        """Whether that is done: False where there are no pidfds, or none that signals go to."""
        if sys.platform != "linux" or self._pidfd < 0:
            return False
        try:
            signal.pidfd_send_signal(self._pidfd, number)
        except ProcessLookupError:
            return True
        except OSError:
            return bool(connection.wait([self._pidfd], 0))  # dead: the number may be a stranger's in a moment
        return True

    def kill(self) -> None:
        """SIGKILL the process and its group."""
        with self._lock:
            # All three: the group, and the worker's hold on its leash, exist only once its initializer has run.
            self.send(signal.SIGKILL)
            self.kill_group()
            if self._leash is not None:
                self._leash.pull()
            if self.when_killed is not None:
                self.when_killed()

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
        """Close the pidfd and let go of the leash, which ends what is left of the group."""
        with self._lock:
            self._is_gone = True
            self.when_killed = None  # it knows the lane, which holds this: what goes round is collected late
            if self._leash is not None:
                self._leash.close()
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
