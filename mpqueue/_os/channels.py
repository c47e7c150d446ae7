"""The ends of pipes and sockets by which the processes of a queue talk, each known by a number.

On POSIX systems the number is a descriptor. On Windows only sockets can be waited for together, so all are sockets
there, and the number is that of the socket's handle, see `mpqueue._os.windows.sockets`.
"""

from __future__ import annotations

import io
import os
import selectors
import socket
import sys
from collections.abc import Callable
from typing import Any, Protocol

from mpqueue._os.descriptors import Descriptor

#: For `socket.socket.send`: where the other end is closed, that raises, whatever SIGPIPE does. 0 where it can't.
NO_SIGNAL: int = getattr(socket, "MSG_NOSIGNAL", 0)

if sys.platform == "win32":
    from mpqueue._os.windows import sockets as windows
    from mpqueue._os.windows.sockets import WokenSelector

    adopt = detach = windows.adopt
    socket_pair, pipe, read, write = windows.pair, windows.pipe, windows.read, windows.write
    as_file = windows.EndFile
    close, close_socket, set_blocking = windows.close, windows.close_socket, windows.set_blocking

    class End:
        """An end, as it was when this was made. A handler closes descriptors; it has no number of a socket."""

        __slots__ = ("fd",)

        def __init__(self, fd: int) -> None:
            self.fd = fd

        def is_there(self) -> bool:
            """True where it is still open."""
            return windows.is_there(self.fd)

        def checked(self) -> int:
            """The number, to be used now."""
            return self.fd

else:

    def adopt(end: socket.socket) -> int:
        """The number of a socket that goes on to be its owner's, who closes it."""
        return end.fileno()

    #: Two sockets, each the other's end.
    socket_pair = socket.socketpair

    def detach(end: socket.socket) -> int:
        """The number of a socket, to be closed by it."""
        return end.detach()

    def close_socket(end: socket.socket) -> None:
        """Close one that was adopted."""
        end.close()

    #: Two ends: what is written at the second can be read at the first.
    pipe = os.pipe
    #: Of a number, so many bytes at most; none at the end. Raises BlockingIOError where it does not block.
    read = os.read
    #: To a number, these bytes; returns how many were taken. As `read` otherwise.
    write = os.write
    close = os.close
    #: An end as a file without a buffer, by number and mode: closed, it is never another one's.
    as_file = io.FileIO
    set_blocking = os.set_blocking

    End = Descriptor


# -- waiting for many of them at once ----------------------------------------------------------------------------------
#
# While other threads add some and take some away. On POSIX systems a selector of the standard library's does it. That
# of Windows, `select`, looks at what was there when it was called: so there it is woken up by each change.


class Selector(Protocol):
    """The methods of `selectors.BaseSelector` that are used, on any thread but for `select`, with its promises."""

    def register(self, fileobj: int, events: int, data: Any = None) -> object:
        """Look at that end. KeyError: it is looked at already; ValueError: this is closed."""

    def modify(self, fileobj: int, events: int, data: Any = None) -> object:
        """Look at it for something else. KeyError: it is not looked at."""

    def unregister(self, fileobj: int) -> object:
        """Look at it no more. KeyError: it is not looked at."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready within so many seconds."""

    def close(self) -> None:
        """Give back what this has."""


if sys.platform == "win32":
    make_selector: Callable[[], Selector] = WokenSelector
else:
    make_selector: Callable[[], Selector] = selectors.DefaultSelector
