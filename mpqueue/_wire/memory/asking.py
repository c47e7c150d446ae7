"""A worker asks the parent for descriptors: of segments that it can't open by name, and of resource trackers.

The name of a segment is a path below ``/proc/<pid>``. Who may open it depends on what both processes are: not a worker
whose handler has dropped its privileges, and no process if ``/proc`` shows other processes than these. A descriptor
that is handed over needs no such right. That costs a question and an answer, so it is done only where the name fails.

A question is a key: which segment. The answer is the same key, with a descriptor where the parent still has the
segment. They go over a socket of their own, from and to any thread of the worker; in the parent the coordinator
answers. What else a handler writes there is not a key, and ignored.

A resource tracker is a process of `multiprocessing` or loky that removes the names of what is left in /dev/shm. All
processes of a program have one in common: one of the worker's own would be killed together with it, or take away what
others still use. But few jobs need any, so the parent starts it when a worker asks for it.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
from typing import NamedTuple

from mpqueue._os import descriptors
from mpqueue._wire.memory.segments import PATIENCE, SegmentRef

_KEY = struct.Struct("=4sQQ")
_MAGIC = b"mpq?"

#: Modules with a resource tracker; the name of one is the question for its descriptor.
TRACKERS = ("multiprocessing.resource_tracker", "loky.backend.resource_tracker")

#: Bytes from which on a message is no question.
_LONGEST = 64

#: Answers to earlier questions that are skipped.
_SKIPPED = 64


class Key(NamedTuple):
    """The identity of a segment, as a worker sends it to ask for its descriptor."""

    serial: int
    inode: int


def encode(key: Key) -> bytes:
    """The key as it is sent."""
    return _KEY.pack(_MAGIC, *key)


def decode(data: bytes) -> Key | None:
    """The key; None where it is none."""
    if len(data) != _KEY.size:
        return None
    magic, serial, inode = _KEY.unpack(data)
    return Key(serial, inode) if magic == _MAGIC else None


def receive(end: socket.socket) -> tuple[bytes, list[int]]:
    """Receive a message and the descriptors sent with it; a message over 64 bytes is none of this module's."""
    return descriptors.receive(end, _LONGEST)


class Asking:
    """The worker's end, for questions on any of its threads. A process that it forks asks nothing."""

    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(fileno=fd)
        self._socket.settimeout(PATIENCE)
        self._inode = os.fstat(fd).st_ino
        self._process = os.getpid()
        self._lock = threading.Lock()

    def ask(self, ref: SegmentRef) -> int | None:
        """A descriptor of the segment, to be closed by the caller; None where the parent has none or does not answer.

        Raises OSError with `EMFILE` where this process has no descriptor left.
        """
        return self._ask(encode(Key(ref.serial, ref.inode)))

    def ask_for_tracker(self, module: str) -> int | None:
        """A descriptor of the resource tracker of that module, one of `TRACKERS`; otherwise as `ask`."""
        return self._ask(module.encode())

    def _ask(self, question: bytes) -> int | None:
        if os.getpid() != self._process:
            return None
        with self._lock:
            try:
                return self._answer(question)
            except OSError as error:
                if error.errno == errno.EMFILE:
                    raise
                return None

    def _is_ours(self) -> bool:
        """Tell whether the socket is still ours: a handler may have closed it, and opened a file of that number."""
        return os.fstat(self._socket.fileno()).st_ino == self._inode

    def _answer(self, question: bytes) -> int | None:
        if not self._is_ours():
            return None
        self._socket.send(question)
        for _ in range(_SKIPPED):
            data, received = receive(self._socket)
            if data == question:
                return received[0] if received else None
            descriptors.close_all(*received)
        return None
