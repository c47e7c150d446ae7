"""The line between the coordinator and a worker, and the form of its messages. Used at both ends.

It is a stream socket between the two processes: a frame through loky's queues wakes three threads on its way there and
back, which is most of the cost of one item on an idle queue (docs/adr/0002).

| direction | written by | read by |
|---|---|---|
| frames | the coordinator's thread | the worker's main thread |
| answers, the first of them empty | the worker's main thread, one message at a time | the coordinator's thread |
| early reports, in the middle of a chunk | any thread of the worker, likewise | the coordinator's thread |

A message is a header and its bytes. The header begins with a magic number and has a checksum of the message, since a
handler may write into every descriptor that it finds, or read from it.

If a writer dies in the middle of a message, the stream ends, and the reader drops the incomplete message.
"""

from __future__ import annotations

import struct
from typing import NamedTuple
from zlib import crc32

from mpqueue._os import descriptors

#: The beginning of every message.
MAGIC = b"\xb5mq1"
#: Magic, bytes after the header, whether they are plain, and early; then the checksum of all that and of the bytes.
_FACTS = struct.Struct("=4sQ??")
_CHECK = struct.Struct("=I")
HEADER_SIZE = _FACTS.size + _CHECK.size

#: Bytes per read. The allocator would map and unmap more each time.
_PORTION = 1 << 16
#: Bytes per read if a message is known to be that long.
_BIG_PORTION = 1 << 20


class DamagedError(Exception):
    """Bytes at the place of a message are none: others were written there, or some were taken away."""


class Answer(NamedTuple):
    """One message. ``plain``: unpickling its contents runs no users' code, so any thread may do it.

    ``early``: it is a report in the middle of a chunk, and answers no frame.
    """

    data: bytes
    plain: bool = False
    early: bool = False


def encode(data: bytes, *, plain: bool = False, early: bool = False) -> bytes:
    """Return the message as it is written. Costs 0.7 us, and 1 ms per megabyte."""
    facts = _FACTS.pack(MAGIC, len(data), plain, early)
    return facts + _CHECK.pack(crc32(data, crc32(facts))) + data


def _header(data: bytes | bytearray, at: int) -> tuple[int, bool, bool]:
    """Read the header that begins there; returns how many bytes follow it, and whether they are plain, and early.

    Raises `DamagedError` if no header begins there.
    """
    magic, length, plain, early = _FACTS.unpack_from(data, at)
    if magic != MAGIC:
        raise DamagedError("found bytes where a message should begin")
    return length, plain, early


def _opened(message: bytes | bytearray, at: int, end: int, plain: bool, early: bool) -> Answer:
    """Return the message that begins there. Raises `DamagedError` if it differs from the one that was sent."""
    begin = at + HEADER_SIZE
    data = bytes(message[begin:end])
    (check,) = _CHECK.unpack_from(message, begin - _CHECK.size)
    if crc32(data, crc32(message[at : begin - _CHECK.size])) != check:
        raise DamagedError(f"{len(data)} bytes are not what was sent")
    return Answer(data, plain, early)


def decode(data: bytes) -> list[Answer]:
    """Return the messages in these bytes, up to a damaged or incomplete one."""
    messages, at = [], 0
    try:
        while len(data) - at >= HEADER_SIZE:
            length, plain, early = _header(data, at)
            end = at + HEADER_SIZE + length
            if end > len(data):
                break
            messages.append(_opened(data, at, end, plain, early))
            at = end
    except DamagedError:
        pass
    return messages


class Incoming:
    """Messages from a descriptor, cut out of its bytes."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._buffer = bytearray()
        self._portion = _PORTION
        self.damage: DamagedError | None = None  #: set once it has met no message: it returns no more

    def read(self) -> list[Answer] | None:
        """Read once; returns the complete messages, None at the end of the stream.

        Raises BlockingIOError if the descriptor does not block and has no data.
        """
        data: bytes | bytearray = descriptors.read(self._fd, self._portion)
        if not data:
            return None
        if self.damage is not None:
            return []
        if self._buffer:
            self._buffer += data
            data = self._buffer
        messages: list[Answer] = []
        at = missing = 0
        try:
            while len(data) - at >= HEADER_SIZE:
                length, plain, early = _header(data, at)
                end = at + HEADER_SIZE + length
                missing = end - len(data)
                if missing > 0:
                    break
                messages.append(_opened(data, at, end, plain, early))
                at = end
        except DamagedError as error:
            self.damage = error
            self._buffer.clear()
            return messages
        self._portion = _BIG_PORTION if missing > _BIG_PORTION else _PORTION
        if data is self._buffer:
            del self._buffer[:at]
        else:
            self._buffer += data[at:]
        return messages


def write_whole(fd: int, data: bytes) -> None:
    """Write all the bytes, even if that blocks several times."""
    written = descriptors.write(fd, data)
    if written < len(data):
        rest = memoryview(data)[written:]
        while rest:
            rest = rest[descriptors.write(fd, rest) :]
