"""Pairs of sockets in place of pipes: only sockets can be waited for together.

A socket has no descriptor here. Its number is its handle, under which this module keeps it until `close`.
"""

from __future__ import annotations

import select
import selectors
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
    """Two connected sockets; data is sent at once."""
    ends = socket.socketpair()
    for end in ends:
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return ends


def pipe() -> tuple[int, int]:
    """Two ends: the first reads the data written at the second."""
    read, write = pair()
    return adopt(read), adopt(write)


def read(number: int, size: int) -> bytes:
    """Read from an end, like `os.read`. If the other end's process has died, that is the end of the data."""
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
    """Close an adopted socket."""
    _sockets.pop(end.fileno(), None)
    end.close()


def set_blocking(number: int, blocking: bool) -> None:
    """Set whether an end blocks, as `os.set_blocking` does."""
    _end(number).setblocking(blocking)


def is_readable(number: int, seconds: float | None) -> bool:
    """Tell whether data, or the end, can be read within that many seconds; None: wait for that."""
    return bool(select.select([number], [], [], seconds)[0])


def _end(number: int) -> socket.socket:
    try:
        return _sockets[number]
    except KeyError:
        raise OSError(9, "this end is closed") from None


class SocketSelector(selectors.SelectSelector):
    """Waits for at most 512 sockets, by their numbers. A change while it waits counts from the next call on."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return the ready ones; none if one of them is closed, which is no longer watched then."""
        try:
            return super().select(timeout)
        except OSError:
            for number in [*self.get_map()]:
                try:
                    select.select([number], [], [], 0)
                except OSError:
                    self.unregister(number)
            return []
