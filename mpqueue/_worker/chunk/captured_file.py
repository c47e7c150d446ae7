"""A file in memory that stands for stdout or stderr, and what is read of it as text.

Threads and processes write to its end at any time. So it is read on from where it was read to, and never emptied: what
they wrote between the last read and that would be lost. Instead the memory of what was read is freed in its place.
Where that can't be, another file takes over in time, and this one is read on: others may still write to it.
"""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterable

from mpqueue._os.descriptors import Descriptor, file_size_limit, identify, reopen_to_write
from mpqueue._os.files import read_at, write_at
from mpqueue._os.memory.memory_files import free_beginning, make_appended
from mpqueue._os.standard_streams import in_lines

#: Bytes of the first read, and of each more.
_AT_A_TIME, _MORE_AT_A_TIME = 1 << 12, 1 << 20
#: Bytes that a file has at most whose memory can't be freed.
_MOST_KEPT = 16 << 20


class CapturedFile:
    """A file in memory that takes what items write. Raises OSError where it can't be made."""

    def __init__(self, label: str) -> None:
        self.descriptor = Descriptor(make_appended(label))
        self._read = 0  #: up to here it was read
        self._last = b""  #: the byte before that, as it is now: a zero where that can be, which no text has
        self._most = file_size_limit() / 2  #: the other half is for the next item

    def rest(self, fd: int) -> bytes:
        """Return what was written to the file since the last call, if it is open under that number. Raises OSError."""
        data = _read_from(fd, self._read - len(self._last))
        if data == self._last or identify(fd) != self.descriptor.identity:
            return b""
        if data.startswith(self._last):
            data = data[len(self._last) :]
        else:  # a program has truncated it, as the shell does for `echo text > /dev/stderr`
            data = _read_from(fd, 0)
            self._read, self._last = 0, b""
        if data:
            self._read += len(data)
            if free_beginning(fd, self._read):
                self._last = b"\0"
            else:
                self._last = b"\0" if _cleared(fd, self._read - 1) else data[-1:]
                self._most = min(self._most, _MOST_KEPT)
        return data

    def close(self) -> None:
        """Close it, where a handler has not."""
        if self.descriptor.is_there():
            os.close(self.descriptor.fd)

    @property
    def is_full(self) -> bool:
        """True where another one should take over."""
        return self._read > self._most


def _cleared(fd: int, offset: int) -> bool:
    """Make that byte a zero. False where the system can't, other than at the file's end."""
    try:
        anew = reopen_to_write(fd)
    except OSError:
        return False
    try:
        return write_at(anew, b"\0", offset) == 1
    except OSError:
        return False
    finally:
        os.close(anew)


def _read_from(fd: int, offset: int) -> bytes:
    """Read all from there on."""
    data = read_at(fd, _AT_A_TIME, offset)
    if len(data) < _AT_A_TIME:
        return data
    parts, offset = [data], offset + len(data)
    while part := read_at(fd, _MORE_AT_A_TIME, offset):
        parts.append(part)
        offset += len(part)
    return b"".join(parts)


class CapturedText:
    """Makes text of what one item after another wrote, also where a character is cut between two of them."""

    def __init__(self) -> None:
        self._cut = b""  #: what may be the first bytes of a character

    def of_each(self, written: Iterable[bytes]) -> list[str]:
        """The text of each: a character is in the one that has its last byte. Bytes that are not UTF-8 are U+FFFD."""
        texts: list[str] = []
        cut_in: int | None = None  #: the text that the first bytes of the character at hand are missing in
        for data in written:
            text = ""
            if data:
                joined = self._cut + data
                if self._cut and not _begins_with_character(joined):
                    joined = data
                    if cut_in is not None:
                        texts[cut_in] += "\ufffd"
                text, used = codecs.utf_8_decode(joined, "replace", False)
                self._cut = joined[used:]
                cut_in = len(texts) if self._cut else None
            texts.append(in_lines(text))
        if cut_in is not None:  # the rest may never be written
            texts[cut_in] += "\ufffd"
        return texts


def _begins_with_character(data: bytes) -> bool:
    """Tell whether the first byte and those after it are a character, or the beginning of one."""
    size = 2 + (data[0] >= 0xE0) + (data[0] >= 0xF0)
    try:
        codecs.utf_8_decode(data[:size], "strict", False)
    except UnicodeDecodeError:
        return False
    return True
