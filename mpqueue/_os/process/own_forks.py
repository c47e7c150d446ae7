"""The globally unique name of this process, and its forks: made and reaped here.

A `mpqueue._os.process.process_handle` reports their ends.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from typing import Any, NoReturn, Protocol
from weakref import WeakSet

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
    """Close the object in each fork of this process: a fork shares open files, with their locks and positions.

    A buffered file would write its buffer there.
    """
    _closed_in_forks.add(file)


def _close_in_fork() -> None:
    for file in [*_closed_in_forks]:
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
