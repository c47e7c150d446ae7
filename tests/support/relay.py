"""A tunnel to a server, as ``ssh -L`` makes one, that can be cut and opened again."""

from __future__ import annotations

import selectors
import socket
import threading
from typing import Self
from urllib.parse import urlsplit


class Relay:
    """Hands on what comes, on a thread of its own. Cut, it ends all connections and refuses new ones.

    ``url`` is the server's address at this end; ``sent``: bytes that the server has sent.
    """

    def __init__(self, url: str) -> None:
        """``url`` of the server, such as tcp://127.0.0.1:8786."""
        parts = urlsplit(url)
        self._server = (parts.hostname or "", parts.port or 0)
        self.sent = 0
        self._others: dict[socket.socket, socket.socket] = {}
        self._lock = threading.Lock()
        self._selector = selectors.DefaultSelector()
        self._end, self._ended = socket.socketpair()
        self._selector.register(self._ended, selectors.EVENT_READ)
        self._listener: socket.socket | None = None
        self._port = 0
        self.open()
        self.url = parts._replace(netloc=f"127.0.0.1:{self._port}").geturl()
        self._thread = threading.Thread(target=self._serve, name="relay", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.close()
        self._thread.join()
        self.cut()
        self._ended.close()
        self._selector.close()

    def cut(self) -> None:
        """From now on nothing gets through."""
        with self._lock:
            if self._listener is not None:
                self._selector.unregister(self._listener)
                self._listener.close()
                self._listener = None
            for end in list(self._others):
                self._drop(end)

    def open(self) -> None:
        """New connections get through again."""
        with self._lock:
            self._listener = socket.create_server(("127.0.0.1", self._port))
            self._port = self._listener.getsockname()[1]
            self._selector.register(self._listener, selectors.EVENT_READ)

    def _serve(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._ended:
                    return
                with self._lock:  # what was ready may be closed by now
                    if key.fileobj is self._listener:
                        self._accept(self._listener)
                    elif isinstance(key.fileobj, socket.socket) and key.fileobj in self._others:
                        self._hand_on(key.fileobj, from_server=key.data)

    def _accept(self, listener: socket.socket) -> None:
        here, _ = listener.accept()
        there = socket.create_connection(self._server)
        self._others |= {here: there, there: here}
        self._selector.register(here, selectors.EVENT_READ, False)
        self._selector.register(there, selectors.EVENT_READ, True)

    def _hand_on(self, end: socket.socket, *, from_server: bool) -> None:
        try:
            data = end.recv(1 << 20)
            self._others[end].sendall(data)
        except OSError:
            data = b""
        self.sent += len(data) if from_server else 0
        if not data:
            self._drop(end)

    def _drop(self, end: socket.socket) -> None:
        other = self._others.pop(end, None)
        if other is None:
            return
        del self._others[other]
        for one in (end, other):
            self._selector.unregister(one)
            one.close()
