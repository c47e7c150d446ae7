"""Forks of this process: made, heard of, and buried. On every POSIX system but for their ends, which need Linux."""

from __future__ import annotations

import os
import warnings
from typing import NoReturn


def fork_here() -> int:
    """Fork; 0 in the child, there the child's number. Raises OSError where there is no room for it.

    With threads about, Python 3.12 and newer warn; that is for the caller to know.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def end_at_once(code: int = 0) -> NoReturn:
    """End this process with nothing done any more."""
    os._exit(code)


def try_fork() -> None:
    """Fork a child that does nothing, and wait for its end: what is to happen before a fork has happened."""
    if (pid := fork_here()) == 0:
        end_at_once()
    os.waitpid(pid, 0)


class Child:
    """A fork of this process. Its number stays its own until `bury`, so that signals by number hit nobody else."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._pidfd = os.pidfd_open(pid)

    def fileno(self) -> int:
        """The descriptor that is readable once it has ended; closed by `exit_code`."""
        return self._pidfd

    def exit_code(self) -> int:
        """How it has ended, which `fileno` says: a number from 0 on, or minus the number of a signal. Once."""
        os.close(self._pidfd)
        ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        assert ended is not None, "without WNOHANG it waits for the end"
        return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status

    def bury(self) -> None:
        """Nobody asks for it any more."""
        os.waitpid(self.pid, 0)
