"""A tunnel to a page, as ``ssh -L`` makes one, which counts what comes through to the browser."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

#: What its thread is woken for.
_CUT, _END = b"c", b"e"


class Relay:
    """As a context manager. ``url`` is the page's address at this end; ``sent``: bytes that the page has sent."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname or "", parts.port or 0)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._listening.setblocking(False)
        port = self._listening.getsockname()[1]
        self.url = parts._replace(netloc=f"127.0.0.1:{port}").geturl()
        self.sent = 0
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listening, selectors.EVENT_READ)
        self._wake, self._woken = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._wake.send(_END)
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._wake.close()
        self._selector.close()

    def cut(self) -> None:
        """Close the connections that there are, soon; new ones come through."""
        self._wake.send(_CUT)

    def _close_connections(self) -> None:
        for key in list(self._selector.get_map().values()):
            if key.data is not None:
                self._selector.unregister(key.fileobj)
                key.fileobj.close()  # type: ignore[union-attr]

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._woken:
                    if self._woken.recv(1) == _END:
                        return
                    self._close_connections()
                    break  # what else was ready may be closed by now
                if key.fileobj is self._listening:
                    self._connect()
                else:
                    self._pass_on(*key.data)

    def _connect(self) -> None:
        browser, _ = self._listening.accept()
        page = socket.create_connection(self._target)
        self._selector.register(browser, selectors.EVENT_READ, (browser, page, False))
        self._selector.register(page, selectors.EVENT_READ, (page, browser, True))

    def _pass_on(self, source: socket.socket, sink: socket.socket, from_page: bool) -> None:
        data = b""
        with contextlib.suppress(OSError):
            data = source.recv(65536)
            sink.sendall(data)
        self.sent += len(data) if from_page else 0
        if not data:
            for end in (source, sink):
                with contextlib.suppress(KeyError, ValueError):
                    self._selector.unregister(end)
                end.close()
