"""A way to a server, by TCP, that can be cut and opened again."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from typing import Self
from urllib.parse import urlsplit


class Way:
    """Hands on what comes, on a thread of its own. Cut, it ends all connections and refuses new ones."""

    def __init__(self, address: str) -> None:
        """``address`` of the server, such as tcp://127.0.0.1:8786."""
        there = urlsplit(address)
        self._there = (there.hostname, there.port)
        self._is_over = False
        self._others: dict[socket.socket, socket.socket] = {}
        self._lock = threading.Lock()
        self._selector = selectors.DefaultSelector()
        self._listener: socket.socket | None = None
        self._port = 0
        self.open()
        self.address = f"tcp://127.0.0.1:{self._port}"
        self._thread = threading.Thread(target=self._serve, name="way")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        self._thread.join()
        self.cut()
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
        while not self._is_over:
            for key, _ in self._selector.select(0.1):
                with self._lock:
                    if key.fileobj is self._listener:
                        self._accept(self._listener)
                    elif isinstance(key.fileobj, socket.socket) and key.fileobj in self._others:
                        self._hand_on(key.fileobj)

    def _accept(self, listener: socket.socket) -> None:
        here, _ = listener.accept()
        there = socket.create_connection(self._there)
        self._others |= {here: there, there: here}
        for end in (here, there):
            self._selector.register(end, selectors.EVENT_READ)

    def _hand_on(self, end: socket.socket) -> None:
        try:
            data = end.recv(1 << 20)
            self._others[end].sendall(data)
        except OSError:
            data = b""
        if not data:
            self._drop(end)

    def _drop(self, end: socket.socket) -> None:
        other = self._others.pop(end, None)
        if other is None:
            return
        del self._others[other]
        for one in (end, other):
            self._selector.unregister(one)
            with contextlib.suppress(OSError):
                one.close()
