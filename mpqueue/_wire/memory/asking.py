"""A worker asks the parent for descriptors: of segments that it can't open by name, and of resource trackers.

The name of a segment is a path below ``/proc/<pid>``. Opening it needs rights that a worker whose handler has dropped
its privileges does not have, and no process has if ``/proc`` shows other processes than these. A descriptor that is
handed over needs no such right. That costs a question and an answer, so it is done only if the name fails.

A question is the key of a segment. The answer is the same key, with a descriptor if the parent still has the segment.
They use a separate socket, from and to any thread of the worker; in the parent the coordinator answers. Other bytes
that a handler writes there are no key, and ignored.

A resource tracker is a process of `multiprocessing` or loky that removes names left in /dev/shm. All processes of a
program share one: a worker's own would be killed together with it, or remove things that others still use. But few jobs
need any, so the parent starts it when a worker asks for it.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
from typing import NamedTuple

from mpqueue._os import descriptors
from mpqueue._wire.memory.segments import DESCRIPTOR_WAIT_S, SegmentRef

_KEY = struct.Struct("=4sQQ")
_MAGIC = b"mpq?"

#: Modules with a resource tracker; a module's name is the question for its descriptor.
TRACKERS = ("multiprocessing.resource_tracker", "loky.backend.resource_tracker")

#: A longer message, in bytes, is no question.
_LONGEST = 64

#: The most answers to earlier questions that are skipped.
_SKIPPED = 64


class Key(NamedTuple):
    """The identity of a segment, as a worker sends it to ask for its descriptor."""

    serial: int
    inode: int


def encode(key: Key) -> bytes:
    """Return the key as it is sent."""
    return _KEY.pack(_MAGIC, *key)


def decode(data: bytes) -> Key | None:
    """Return the key; None if the bytes are none."""
    if len(data) != _KEY.size:
        return None
    magic, serial, inode = _KEY.unpack(data)
    return Key(serial, inode) if magic == _MAGIC else None


def receive(end: socket.socket) -> tuple[bytes, list[int]]:
    """Receive a message and the descriptors sent with it; a message over 64 bytes is none of this module's."""
    return descriptors.receive(end, _LONGEST)


class Asking:
    """The worker's end, for questions on any of its threads. Its forks ask nothing."""

    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(fileno=fd)
        self._socket.settimeout(DESCRIPTOR_WAIT_S)
        self._process = os.getpid()
        self._lock = threading.Lock()

    def ask(self, ref: SegmentRef) -> int | None:
        """Return a descriptor of the segment, which the caller closes; None if the parent has none or does not answer.

        Raises OSError with `EMFILE` if this process has no descriptor left.
        """
        return self._ask(encode(Key(ref.serial, ref.inode)))

    def ask_for_tracker(self, module: str) -> int | None:
        """Return a descriptor of the resource tracker of that module, one of `TRACKERS`; otherwise like `ask`."""
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

    def _answer(self, question: bytes) -> int | None:
        self._socket.send(question)
        for _ in range(_SKIPPED):
            data, received = receive(self._socket)
            if data == question:
                return received[0] if received else None
            descriptors.close_all(*received)
        return None
