"""What a journal holds, with a checksum that also covers where it belongs.

A body begins with its checksum, which covers the content and its `Place`: the table, the job and the row. So rows or
jobs that were exchanged are noticed like a flipped bit.
"""

from __future__ import annotations

import pickle
import zlib
from typing import Any, NamedTuple

from mpqueue.errors import JournalError

#: Bytes of the checksum.
CHECK = 4


class Place(NamedTuple):
    """Where a body belongs: the table (and column), the job's number there, and the row."""

    table: str
    job: int
    row: int = 0


class Unsealed(NamedTuple):
    """A content that is pickled and whose checksum is known, but for its place."""

    data: bytes
    check: int

    def seal(self, place: Place | bytes) -> bytes:
        """The body. Costs one copy."""
        return bind(self.check, place).to_bytes(CHECK, "little") + self.data


def prepare(content: Any) -> Unsealed:
    """Anything plain, ready to be sealed once its place is known."""
    data = pickle.dumps(content, pickle.HIGHEST_PROTOCOL)
    return Unsealed(data, zlib.crc32(data))


def seal(content: Any, place: Place) -> bytes:
    """Anything plain, with a checksum."""
    return prepare(content).seal(place)


def unseal(body: Any, place: Place | bytes | None, what: str) -> Any:
    """What was sealed; with ``place`` None as version 1 did, which did not cover the place.

    Raises `JournalError` where it is damaged, or belongs elsewhere.
    """
    data = body[CHECK:] if isinstance(body, bytes) else b""
    check = zlib.crc32(data)
    if place is not None:
        check = bind(check, place)
    if not data or check.to_bytes(CHECK, "little") != body[:CHECK]:
        raise JournalError(f"{what}: expected it as it was written, got something damaged; it is left as it is")
    return pickle.loads(data)


def bind(check: int, place: Place | bytes) -> int:
    """The checksum of a content and its place, from that of the content. A place may be bytes that say which it is."""
    return zlib.crc32(place if isinstance(place, bytes) else repr(tuple(place)).encode(), check)
