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

#: For `socket.socket.send`: raise if the other end is closed, with any setting of SIGPIPE. 0 if that is not supported.
NO_SIGNAL: int = getattr(socket, "MSG_NOSIGNAL", 0)

if sys.platform == "win32":
    from mpqueue._os.windows import sockets as windows
    from mpqueue._os.windows.sockets import SocketSelector

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
    make_selector: Callable[[], Selector] = SocketSelector
else:
    make_selector: Callable[[], Selector] = selectors.DefaultSelector
