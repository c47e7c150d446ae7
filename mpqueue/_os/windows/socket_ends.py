"""Pairs of sockets in the place of pipes: all that can be waited for, together with others, is a socket.

A socket has no descriptor here. Its number is that of its handle, under which this module keeps it until `close`.
"""

from __future__ import annotations

import select
import socket
import sys

assert sys.platform == "win32"

_sockets: dict[int, socket.socket] = {}


def adopt(end: socket.socket) -> int:
    """Take a socket, and return the number under which it can be used until `close`."""
    number = end.fileno()
    _sockets[number] = end
    return number


def arrive(shared: bytes) -> int:
    """Adopt a shared end, in the process for which it was shared; return its number."""
    return adopt(socket.fromshare(shared))


def share(number: int, pid: int) -> bytes:
    """Return the bytes that `arrive` takes in that process."""
    return _sockets[number].share(pid)


def pair() -> tuple[socket.socket, socket.socket]:
    """Two sockets, each the other's end; what is sent goes at once."""
    ends = socket.socketpair()
    for end in ends:
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return ends


def pipe() -> tuple[int, int]:
    """Two ends: what is written at the second can be read at the first."""
    read, write = pair()
    return adopt(read), adopt(write)


def read(number: int, size: int) -> bytes:
    """Read from an end, as `os.read` does. Where the other end's process has died, that is the end."""
    try:
        return _sockets[number].recv(size)
    except (ConnectionError, KeyError):
        return b""


def write(number: int, data: bytes | memoryview) -> int:
    """Write to an end, as `os.write` does."""
    return _end(number).send(data)


def close(number: int) -> None:
    """Close an end."""
    _sockets.pop(number).close()


def close_socket(end: socket.socket) -> None:
    """Close one that was adopted."""
    _sockets.pop(end.fileno(), None)
    end.close()


def set_blocking(number: int, blocking: bool) -> None:
    """Set whether an end blocks, as `os.set_blocking` does."""
    _end(number).setblocking(blocking)


def is_there(number: int) -> bool:
    """Tell whether an end of that number is open here."""
    return number in _sockets and _sockets[number].fileno() == number


def is_readable(number: int, seconds: float | None) -> bool:
    """Tell whether there is something to read, or the end of it, within so many seconds; None: wait for that."""
    return bool(select.select([number], [], [], seconds)[0])


class EndFile:
    """An end as `io.FileIO`, as far as that is used. One that does not block has nothing to read as None."""

    def __init__(self, number: int, _mode: str = "r") -> None:
        self._number = number
        self._end: socket.socket | None = _sockets.pop(number)

    def fileno(self) -> int:
        return self._number

    def read(self, size: int) -> bytes | None:
        """Read once; None where an end that does not block has nothing to read."""
        try:
            return self._open().recv(size)
        except BlockingIOError:
            return None
        except ConnectionError:
            return b""

    def write(self, data: bytes) -> int | None:
        """Write once; None where an end that does not block takes nothing."""
        try:
            return self._open().send(data)
        except BlockingIOError:
            return None

    def close(self) -> None:
        end, self._end = self._end, None
        if end is not None:
            end.close()

    def _open(self) -> socket.socket:
        if (end := self._end) is None:
            raise ValueError("I/O operation on closed file")
        return end


def _end(number: int) -> socket.socket:
    try:
        return _sockets[number]
    except KeyError:
        raise OSError(9, "this end is closed") from None
