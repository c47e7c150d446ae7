"""Descriptors of this process: their numbers, their limits, and further ones of a file."""

from __future__ import annotations

import array
import contextlib
import errno
import math
import os
import select
import socket
import sys
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from mpqueue._os.system import IS_WINDOWS, PROC, choose

if sys.platform == "win32":
    from mpqueue._os.windows import sockets as windows
else:
    import fcntl
    import resource

#: If the system can't list the open descriptors, those up to this number are looked at: 20 ms.
_MOST_DESCRIPTORS = 1 << 16

#: The numbers of `duplicate_high` are the last ones below this, or below the limit.
_HIGH, _HIGH_NUMBERS = 1024, 64


# -- the open ones -----------------------------------------------------------------------------------------------------


def open_descriptors() -> Iterable[int]:
    """Return the open descriptors; if the system can't list them, all possible ones.

    Some may be closed by the time that they are looked at: at least the one that listed them.
    """
    with contextlib.suppress(OSError):
        return [int(name) for name in os.listdir("/dev/fd")]
    return range(int(min(descriptor_limits().now, _MOST_DESCRIPTORS)))


class DescriptorLimits(NamedTuple):
    """The number of descriptors that this process may have open now, and the highest that it may set.

    `math.inf`: any number.
    """

    now: float
    most: float


def descriptor_limits() -> DescriptorLimits:
    """Return the system's limits: whole numbers, or infinity, also if the system gives no limit."""
    if sys.platform == "win32":  # a few thousand, and no call reports it
        return DescriptorLimits(math.inf, math.inf)
    return DescriptorLimits(*_limits(resource.RLIMIT_NOFILE))


def process_limit() -> float:
    """Return how many processes and threads this user may have in total; `math.inf`: any number."""
    if sys.platform == "win32":
        return math.inf
    return _limits(resource.RLIMIT_NPROC)[0]


def _limits(kind: int) -> tuple[float, float]:
    """The current limit, and the highest that may be set."""
    try:
        now, most = resource.getrlimit(kind)
    except OSError:  # a filter refuses the system call
        return math.inf, math.inf
    return _as_number(now), _as_number(most)


def _as_number(limit: int) -> float:
    return math.inf if limit == resource.RLIM_INFINITY else limit


def descriptors_left() -> float:
    """Return how many more this process may open; `math.inf`: unknown. 5 us with few open ones, 1 ms with 1,000.

    Without /dev/fd it is unknown.
    """
    most = descriptor_limits().now
    if IS_WINDOWS:
        return most
    try:
        return most if most == math.inf else most - len(os.listdir("/dev/fd"))
    except OSError as error:
        return 0 if error.errno in (errno.EMFILE, errno.ENFILE) else math.inf


def is_readable(fd: int, seconds: float | None) -> bool:
    """Tell whether data, or the end, can be read within that many seconds; None: wait for that."""
    if sys.platform == "win32":
        return windows.is_readable(fd, seconds)
    looker = select.poll()
    looker.register(fd, select.POLLIN)
    return bool(looker.poll(None if seconds is None else seconds * 1000))


def close_all(*fds: int) -> None:
    """Close these, as far as they are open."""
    for fd in fds:
        with contextlib.suppress(OSError):
            os.close(fd)


def duplicate(fd: int) -> int:
    """Another descriptor of the same open file, private to this process, and no standard stream. Raises OSError."""
    if sys.platform == "win32":
        return os.dup(fd)
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)


def duplicate_high(fd: int) -> int:
    """Like `duplicate`, under a number that the system gives to no other file unless a thousand are open.

    A handler may close any number, in a range or because it closes its own twice. Its next file then gets a low one:
    so what is written to this number never gets there.
    """
    if sys.platform == "win32":
        return os.dup(fd)
    lowest = max(3, int(min(descriptor_limits().now, _HIGH)) - _HIGH_NUMBERS)
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, lowest)


def move_high(fd: int) -> int:
    """Move an open file to a number of `duplicate_high`. On Windows, where this is not needed, it stays."""
    if IS_WINDOWS:
        return fd
    try:
        return duplicate_high(fd)
    finally:
        os.close(fd)


def move(fds: Sequence[int], numbers: Sequence[int]) -> None:
    """Move the open files ``fds`` to these numbers, private to this process; files open under them are closed."""
    beyond = max(*numbers, *fds) + 1
    aside = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, beyond) for fd in fds]
    close_all(*fds)
    for fd, number in zip(aside, numbers, strict=True):
        os.dup2(fd, number, inheritable=False)
    close_all(*aside)


# -- others of the same file, and pairs --------------------------------------------------------------------------------


def reopen(fd: int, flags: int) -> int:
    """Open again the file under a number, with new flags, whether or not it has a name.

    Unlike a duplicate, it has its own offset and modes. Private to this process. Raises OSError if that is not
    possible, as always on other systems than Linux.
    """
    return os.open(f"{PROC}/self/fd/{fd}", flags | getattr(os, "O_CLOEXEC", 0))


def reopen_to_read(fd: int) -> int:
    """Reopen a file to read; it never waits, even if the number is now another file's. Raises as `reopen` does."""
    return reopen(fd, os.O_RDONLY | _NEVER_WAIT)


def reopen_to_write(fd: int) -> int:
    """Reopen a file to write; data without room is not written. Raises as `reopen` does."""
    return reopen(fd, os.O_WRONLY | _NEVER_WAIT)


_NEVER_WAIT: int = getattr(os, "O_NONBLOCK", 0)


#: Whether a process can send a descriptor to another one.
CAN_PASS: bool = hasattr(socket, "send_fds")


def receive(end: socket.socket, size: int) -> tuple[bytes, list[int]]:
    """Receive one message of at most that size, and the descriptor with it, if any, private to this process.

    Raises OSError: `EMFILE` if there was no room for the descriptor.
    """
    data, ancillary, flags, _ = end.recvmsg(size, socket.CMSG_SPACE(4), _KEEP_PRIVATE)
    received = array.array("i")
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            received.frombytes(content[: len(content) - len(content) % received.itemsize])
    if flags & socket.MSG_CTRUNC and not received:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    descriptors = received.tolist()
    for fd in descriptors if not _KEEP_PRIVATE else ():
        os.set_inheritable(fd, False)
    return data, descriptors


#: Makes received descriptors private; 0 if that is not supported.
_KEEP_PRIVATE: int = choose(linux=getattr(socket, "MSG_CMSG_CLOEXEC", 0), posix=0)


def message_pair() -> tuple[socket.socket, socket.socket]:
    """Two sockets: a message sent at one of them arrives complete at the other. Raises OSError.

    On Linux, unless that is refused, each sees the other's end.
    """
    try:
        return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    except OSError:
        return socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
