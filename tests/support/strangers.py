"""A program that keeps hundreds of connections to a page, without its token, and replaces those that are closed.

    python -m tests.support.strangers KIND HOST PORT COUNT

KIND is ``nothing`` (nothing is sent), ``half`` (half a request line) or ``trickle`` (a header byte by byte). It
prints a line as soon as COUNT connections have been opened, and ends with its standard input.
"""

from __future__ import annotations

import contextlib
import resource
import selectors
import socket
import sys

#: Seconds between two bytes of each connection that trickles.
PAUSE = 0.05


def main(kind: str, host: str, port: int, count: int) -> None:
    """Keep the connections."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    selector = selectors.DefaultSelector()
    selector.register(sys.stdin, selectors.EVENT_READ)
    opened = 0
    while True:
        for _ in range(count - len(selector.get_map()) + 1):
            with contextlib.suppress(OSError):
                selector.register(_connect(kind, host, port), selectors.EVENT_READ)
            opened += 1
            if opened == count:
                print("here", flush=True)
        for key, _ in selector.select(PAUSE):
            if key.fileobj is sys.stdin:
                return
            _close_if_ended(selector, key.fileobj)
        if kind == "trickle":
            for key in list(selector.get_map().values()):
                if isinstance(key.fileobj, socket.socket):
                    with contextlib.suppress(OSError):
                        key.fileobj.send(b"x")


def _connect(kind: str, host: str, port: int) -> socket.socket:
    made = socket.create_connection((host, port), timeout=1)
    made.setblocking(False)
    if kind != "nothing":
        made.send(b"GET / HT" if kind == "half" else b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ")
    return made


def _close_if_ended(selector: selectors.BaseSelector, connection: object) -> None:
    assert isinstance(connection, socket.socket)
    try:
        is_open = bool(connection.recv(1000))
    except BlockingIOError:
        is_open = True
    except OSError:
        is_open = False
    if not is_open:
        selector.unregister(connection)
        connection.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
