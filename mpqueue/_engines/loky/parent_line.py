"""The parent's end of the line to one worker. Never blocks; answers arrive on the thread that sleeps in the inbox."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import deque
from collections.abc import Callable

from mpqueue._os import channels
from mpqueue._parent.inbox import Inbox
from mpqueue._wire.line import Answer, DamagedError, Incoming, encode


class Line:
    """The line to one worker. Its owner closes the worker's end once the worker has it, and calls `close` at the end.

    ``on_answer`` is called for each answer, in order, and ``on_end`` once, when the worker's end is closed or something
    else than a message comes, which it gets then: on the inbox's thread. Any thread may call `send`, one at a time.
    """

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self._socket, worker_end = channels.socket_pair()
        self._socket.setblocking(False)
        self.worker_end = channels.detach(worker_end)
        channels.set_blocking(self.worker_end, True)  # gevent's are not
        self._fd = channels.adopt(self._socket)
        self._incoming = Incoming(self._fd)
        self._unsent: deque[memoryview] = deque()
        self._lock = threading.Lock()  # held while the descriptor is used: it must not be another's by then
        self._closed = False
        self._on_answer: Callable[[Answer], object] | None = None
        self._on_end: Callable[[DamagedError | None], object] | None = None

    def open(self, on_answer: Callable[[Answer], object], on_end: Callable[[DamagedError | None], object]) -> None:
        """Look for answers from now on."""
        self._on_answer, self._on_end = on_answer, on_end
        self._inbox.watch(self._fd, self._ready)

    def send(self, frame: bytes) -> None:
        """Send a frame now, as far as the worker has room; the rest as it reads. What it does not read is lost."""
        with self._lock:
            if self._closed:
                return
            is_first = not self._unsent
            self._unsent.append(memoryview(encode(frame)))
            if is_first:
                self._write()
                if self._unsent:
                    self._inbox.watch_writing(self._fd, self._ready, wanted=True)

    def end(self) -> None:
        """Let the worker read the end of the stream: it has answered everything."""
        with self._lock, contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close the line, and look at it no more."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._unsent.clear()
                self._inbox.forget(self._fd)
                channels.close_socket(self._socket)
                # Their owner holds this: what goes round is collected late, and holds descriptors.
                self._on_answer = self._on_end = None

    def _write(self) -> None:
        try:
            while self._unsent:
                rest = self._unsent[0][self._socket.send(self._unsent[0], channels.NO_SIGNAL) :]
                if rest:
                    self._unsent[0] = rest
                else:
                    self._unsent.popleft()
        except BlockingIOError:
            pass
        except OSError:  # it is dead; its end is on the way
            self._unsent.clear()

    def _ready(self) -> None:
        """Read what has come, and write what is unsent. On the inbox's thread."""
        with self._lock:
            if self._closed:
                return
            if self._unsent:
                self._write()
                if not self._unsent:
                    self._inbox.watch_writing(self._fd, self._ready, wanted=False)
            answers, on_answer, on_end = self._read(), self._on_answer, self._on_end
            damage = self._incoming.damage
            is_over = answers is None or damage is not None
            if is_over:
                self._inbox.forget(self._fd)
        if on_answer is not None:
            for answer in answers or ():
                on_answer(answer)
        if is_over and on_end is not None:
            on_end(damage)

    def _read(self) -> list[Answer] | None:
        try:
            return self._incoming.read()
        except BlockingIOError:
            return []
        except OSError:  # reset: it died with frames unread
            return None
