"""A worker that can't open a segment by its name asks the parent for a descriptor of it. Used at both ends.

The name of a segment is a path below ``/proc/<pid>``. Who may open it depends on what both processes are: not a worker
whose handler has dropped its privileges, and nobody where ``/proc`` shows other processes than these. A descriptor that
is handed over needs no such right. That costs a question and an answer, so it is done only where the name fails.

A question is a key: which segment. The answer is the same key, with a descriptor where the parent still has the
segment. They go over a socket of their own, from and to any thread of the worker; in the parent the coordinator
answers. What else a handler writes there is not a key, and ignored.
"""

from __future__ import annotations

import array
import errno
import os
import socket
import struct
import threading
from typing import NamedTuple

from mpqueue._wire.memory.segments import PATIENCE, SegmentRef

_KEY = struct.Struct("=4sQQ")
_MAGIC = b"mpq?"

#: Answers to earlier questions that are skipped.
_SKIPPED = 64


class Key(NamedTuple):
    """Which segment."""

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
    """One message, and the descriptors that came with it. Raises OSError: `EMFILE` where there was no room for one."""
    data, ancillary, flags, _ = end.recvmsg(_KEY.size + 1, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
    received = array.array("i")
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            received.frombytes(content[: len(content) - len(content) % received.itemsize])
    if flags & socket.MSG_CTRUNC and not received:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    return data, received.tolist()


class Asking:
    """The worker's end, on any of its threads. A process that it forks asks nothing."""

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
        if os.getpid() != self._process:
            return None
        with self._lock:
            try:
                return self._answer(encode(Key(ref.serial, ref.inode)))
            except OSError as error:
                if error.errno == errno.EMFILE:
                    raise
                return None

    def _answer(self, key: bytes) -> int | None:
        # A handler may have closed it, and have something of its own under this number.
        if os.fstat(self._socket.fileno()).st_ino != self._inode:
            return None
        self._socket.send(key)
        for _ in range(_SKIPPED):
            data, descriptors = receive(self._socket)
            if data == key:
                return descriptors[0] if descriptors else None
            for fd in descriptors:
                os.close(fd)
        return None
