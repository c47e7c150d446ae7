"""The ends of pipes and sockets between the processes of a queue, each known by a number.

On POSIX systems the number is a descriptor. On Windows only sockets can be waited for together, so all ends are sockets
there, and the number is the socket's handle, see `mpqueue._os.windows.sockets`.
"""

from __future__ import annotations

import os
import selectors
import socket
import sys
from collections.abc import Callable
from typing import Any, Protocol

#: For `socket.socket.send`: raise if the other end is closed, with any setting of SIGPIPE. 0 if that is not supported.
NO_SIGNAL: int = getattr(socket, "MSG_NOSIGNAL", 0)

if sys.platform == "win32":
    from mpqueue._os.windows import sockets as windows
    from mpqueue._os.windows.sockets import WokenSelector

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
# Other threads may add and remove ends meanwhile. On POSIX systems a selector of the standard library does it. `select`
# of Windows only looks at the ends that it was called with: so there each change wakes it up.


class Selector(Protocol):
    """The methods of `selectors.BaseSelector` that are used; all but `select` may be called on any thread."""

    def register(self, fileobj: int, events: int, data: Any = None) -> object:
        """Watch that end. KeyError: it is watched already; ValueError: the selector is closed."""

    def modify(self, fileobj: int, events: int, data: Any = None) -> object:
        """Watch an end for other events. KeyError: it is not watched."""

    def unregister(self, fileobj: int) -> object:
        """Stop watching an end. KeyError: it is not watched."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return the ends that are ready within that many seconds."""

    def close(self) -> None:
        """Free its resources."""


if sys.platform == "win32":
    make_selector: Callable[[], Selector] = WokenSelector
else:
    make_selector: Callable[[], Selector] = selectors.DefaultSelector
