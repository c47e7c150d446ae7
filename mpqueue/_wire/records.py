"""Log records as bytes: each is pickled once, where it is logged.

What no report has brought yet also stands in the outbox's file: the number of the chunk, then each record, each of them
a message as on the line. A worker writes the record first and the size after it, so what the size covers is whole.
"""

from __future__ import annotations

import struct

from mpqueue._wire.frames import RecordFrame, dump_frame, load_frame
from mpqueue._wire.line import decode, encode

_CHUNK = struct.Struct("<Q")


def dump_record(frame: RecordFrame) -> bytes:
    """The record, to be sent in a report."""
    return dump_frame(frame)


def load_record(data: bytes) -> RecordFrame:
    """The record again."""
    frame: RecordFrame = load_frame(data)
    return frame


def begin_unsent(chunk: int) -> bytes:
    """What stands before the records of this chunk."""
    return encode(_CHUNK.pack(chunk))


def unsent(record: bytes) -> bytes:
    """The record, to follow others."""
    return encode(record)


def load_unsent(data: bytes) -> tuple[int, list[RecordFrame]] | None:
    """The chunk's number, and the records, as far as they are whole; None where there is not even the number."""
    messages = decode(data)
    if not messages or len(messages[0].data) != _CHUNK.size:
        return None
    (chunk,) = _CHUNK.unpack(messages[0].data)
    return chunk, [load_record(message.data) for message in messages[1:]]
