"""The parent's end of `mpqueue._wire.memory.asking`: hands segments over to a worker that can't open them by name."""

from __future__ import annotations

import array
import contextlib
import os
import socket
import threading

from mpqueue._os.descriptors import message_pair
from mpqueue._parent.inbox import Inbox
from mpqueue._wire.memory import asking
from mpqueue._wire.memory.segments import reopen

#: Questions that are answered at a time, between two messages of the coordinator.
AT_A_TIME = 16


class Answering:
    """Made with the worker's end, which its owner closes once the worker has it; closed by `close`. Never blocks."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self._socket, worker_end = message_pair()
        self._socket.setblocking(False)
        self.worker_end = worker_end.detach()
        self._fd = self._socket.fileno()
        self._lock = threading.Lock()  # held while the descriptor is used: it must not be another's by then
        self._closed = False

    def open(self) -> None:
        """From now on look for questions."""
        self._inbox.watch(self._fd, self._ready)

    def close(self) -> None:
        """Look no more."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._inbox.forget(self._fd)
                self._socket.close()

    def _ready(self) -> None:
        """On the inbox's thread."""
        with self._lock:
            try:
                for _ in range(0 if self._closed else AT_A_TIME):
                    data, descriptors = asking.receive(self._socket)
                    for fd in descriptors:  # nothing is to be had from a worker here
                        os.close(fd)
                    if not data:
                        self._inbox.forget(self._fd)
                        return
                    self._answer(data)
            except BlockingIOError:
                pass
            except OSError:  # reset, or no descriptor left: the worker asks no more, or goes without
                if self._socket.fileno() >= 0:
                    self._inbox.forget(self._fd)

    def _answer(self, data: bytes) -> None:
        key = asking.decode(data)
        if key is None:
            return
        fd = reopen(*key)
        with contextlib.suppress(OSError):  # no room: it does not read what it has asked for
            if fd is None:
                self._socket.send(data)
            else:
                rights = array.array("i", [fd])
                self._socket.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        if fd is not None:
            os.close(fd)
