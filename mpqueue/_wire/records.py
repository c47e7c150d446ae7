"""Log records as bytes: each is pickled once, where it is logged.

What no report has brought yet also stands in the outbox's file: the number of the chunk, then each record after its
length. A worker writes the record first and the size after it, so what the size covers is whole.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from mpqueue._wire.frames import RecordFrame, dump_frame, load_frame

_CHUNK = struct.Struct("<Q")
_LENGTH = struct.Struct("<I")


def dump_record(frame: RecordFrame) -> bytes:
    """The record, to travel in a report."""
    return dump_frame(frame)


def load_record(data: bytes) -> RecordFrame:
    """The record again."""
    frame: RecordFrame = load_frame(data)
    return frame


def begin_unsent(chunk: int) -> bytes:
    """What stands before the records of this chunk."""
    return _CHUNK.pack(chunk)


def unsent(record: bytes) -> bytes:
    """The record, to follow others."""
    return _LENGTH.pack(len(record)) + record


def load_unsent(data: bytes) -> tuple[int, list[RecordFrame]]:
    """The chunk's number, and the records."""
    (chunk,) = _CHUNK.unpack_from(data)
    return chunk, [load_record(record) for record in _split(data)]


def _split(data: bytes) -> Iterator[bytes]:
    at = _CHUNK.size
    while at < len(data):
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        yield data[at : at + length]
        at += length
