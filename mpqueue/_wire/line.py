"""The line between the coordinator and a worker: what a message on it looks like. Used at both ends.

A stream socket of their own, with nobody in between: a frame that goes through loky's queues wakes three threads on
its way there and back, and one item on an idle queue costs little else (docs/adr/0014).

| direction | written by | read by |
|---|---|---|
| frames | the coordinator's thread | the worker's main thread |
| answers, the first of them empty | the worker's main thread | the coordinator's thread |

A message is its length and one fact about it, then its bytes. Whoever dies in the middle leaves an end of the stream
behind, and what had arrived of the last message is dropped.
"""

from __future__ import annotations

import os
import struct
from typing import NamedTuple

_HEADER = struct.Struct("=Q?")

#: Bytes that are read at once. More would be mapped and unmapped by the allocator each time.
_PORTION = 1 << 16
#: As many where a message is known to be that long.
_BIG_PORTION = 1 << 20


class Answer(NamedTuple):
    """One message. ``plain``: to unpickle what is in it runs nobody's code, so it may be done wherever it arrives."""

    data: bytes
    plain: bool = False


def encode(data: bytes, *, plain: bool = False) -> bytes:
    """The message as it is written."""
    return _HEADER.pack(len(data), plain) + data


class Incoming:
    """Cuts what a descriptor gives into messages."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._buffer = bytearray()
        self._portion = _PORTION

    def read(self) -> list[Answer] | None:
        """Read once; returns the messages that are whole by then, None at the end of the stream.

        Raises BlockingIOError where the descriptor does not block and there is nothing.
        """
        data: bytes | bytearray = os.read(self._fd, self._portion)
        if not data:
            return None
        if self._buffer:
            self._buffer += data
            data = self._buffer
        messages, at, missing = [], 0, 0
        while len(data) - at >= _HEADER.size:
            length, plain = _HEADER.unpack_from(data, at)
            begin = at + _HEADER.size
            missing = begin + length - len(data)
            if missing > 0:
                break
            messages.append(Answer(bytes(data[begin : begin + length]), plain))
            at = begin + length
        self._portion = _BIG_PORTION if missing > _BIG_PORTION else _PORTION
        if data is self._buffer:
            del self._buffer[:at]
        else:
            self._buffer += data[at:]
        return messages


def write_whole(fd: int, data: bytes) -> None:
    """Write all of it, however often that blocks."""
    written = os.write(fd, data)
    if written < len(data):
        rest = memoryview(data)[written:]
        while rest:
            rest = rest[os.write(fd, rest) :]
