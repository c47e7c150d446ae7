"""Descriptors of this process: their numbers, further ones of a file, their limits, and room for more.

The ends of the pipes and sockets between the processes of a queue, its *channels*, are known by a number. On POSIX
systems that is a descriptor. On Windows only sockets can be waited for together, so all ends are sockets there, and the
number is the socket's handle, see `mpqueue._os.windows.sockets`.
"""

from __future__ import annotations

import _thread
import array
import contextlib
import errno
import math
import os
import select
import selectors
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
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


def _limits(kind: int) -> tuple[float, float]:
    """The current limit, and the highest that may be set."""
    try:
        limits = resource.getrlimit(kind)
    except OSError:  # a filter refuses the system call
        return math.inf, math.inf
    now, most = (math.inf if limit == resource.RLIM_INFINITY else limit for limit in limits)
    return now, most


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


# -- Room for more descriptors, threads and processes: checked before something is half made; how to get more. ---------

#: Python's message if the system starts no more threads; it has no error type of its own.
NO_THREAD = "can't start new thread"


def no_descriptors(what: str) -> OSError:
    """The error of a process with too few descriptors left: ``what`` needs them; it says how to allow more."""
    limit, most = descriptor_limits()
    more = min(max(1024, 2 * limit), most)
    cure = f"raise the limit with `ulimit -n {more}`"
    if more <= limit:
        cure = "raise the hard limit (`ulimit -Hn`), which only root can"
    return OSError(errno.EMFILE, f"{os.strerror(errno.EMFILE)}: {what}, of the {limit} that are allowed; {cure}, or "
                                 "close files")  # fmt: skip


def check_descriptors(count: int, what: str) -> None:
    """Raise `no_descriptors` unless that many more are available now. 0.1 ms for 32."""
    with contextlib.ExitStack() as stack:
        for free in range(count):
            try:
                stack.callback(os.close, os.open(os.devnull, os.O_RDONLY))
            except OSError as error:
                if error.errno != errno.EMFILE:
                    raise
                raise no_descriptors(f"{what} takes {count} descriptors, {free} are free") from None


def no_threads(what: str) -> OSError:
    """The error of a process that can start no more threads or processes: ``what`` needs them; it says what to do."""
    limit = math.inf if sys.platform == "win32" else _limits(resource.RLIMIT_NPROC)[0]  # of this user
    cure = "raise the limit of the container (`docker run --pids-limit`, pids.max of its control group)"
    if limit < math.inf:
        cure = f"this user may have {limit} in all: raise the limit with `ulimit -u`, or {cure[6:]}"
    return OSError(errno.EAGAIN, f"{NO_THREAD}: {what}; {cure}")


def check_threads(count: int, what: str) -> None:
    """Raise `no_threads` unless that many more threads or processes can be started now. 0.3 ms for 12."""
    gate, started = _thread.allocate_lock(), 0

    def wait() -> None:
        with gate:
            pass

    with gate:
        try:
            while started < count:
                _thread.start_new_thread(wait, ())
                started += 1
        except RuntimeError:
            raise no_threads(f"{what} takes {count} threads and processes, {started} can be had") from None


@contextlib.contextmanager
def told(what: str) -> Iterator[None]:
    """Turn an error in the block for lack of a descriptor or a thread into an OSError that names the limit."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.EMFILE:
            raise
        raise no_descriptors(f"{what} takes more descriptors than are free") from None
    except RuntimeError as error:
        if NO_THREAD not in str(error):  # the interpreter exits
            raise
        raise no_threads(f"{what} takes more threads than can be had") from None


#: For `socket.socket.send`: raise if the other end is closed, with any setting of SIGPIPE. 0 if that is not supported.
NO_SIGNAL: int = getattr(socket, "MSG_NOSIGNAL", 0)

if sys.platform == "win32":
    adopt = detach = windows.adopt
    socket_pair, pipe, read, write = windows.pair, windows.pipe, windows.read, windows.write
    close, close_socket, set_blocking = windows.close, windows.close_socket, windows.set_blocking

else:

    def adopt(end: socket.socket) -> int:
        """Return the number of a socket that keeps its owner, who closes it."""
        return end.fileno()

    #: Two connected sockets.
    socket_pair = socket.socketpair

    def detach(end: socket.socket) -> int:
        """Return the number of a socket, which now has to be closed by it."""
        return end.detach()

    def close_socket(end: socket.socket) -> None:
        """Close an adopted socket."""
        end.close()

    #: Two ends: the first reads the data written at the second.
    pipe = os.pipe
    #: Read at most that many bytes at a number; none at the end. Raises BlockingIOError if it does not block.
    read = os.read
    #: Write these bytes at a number; returns how many were taken. Otherwise like `read`.
    write = os.write
    close = os.close
    set_blocking = os.set_blocking


# -- waiting for many of them at once ----------------------------------------------------------------------------------
#
# Other threads may add and remove ends meanwhile. `select`, as `poll` where epoll is refused, only looks at the ends
# that it was called with: so the thread that changes them wakes the one that waits.

#: What it is made of: only `select` waits, all else may be called on any thread.
Selector = selectors.BaseSelector

if sys.platform == "win32":
    make_selector: Callable[[], Selector] = windows.SocketSelector
else:
    make_selector: Callable[[], Selector] = selectors.DefaultSelector
