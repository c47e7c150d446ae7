"""The output of a handler to stdout and stderr: kept with its item, or put beside the parent's bar.

It captures at the level of descriptors, so it includes output of C code and child processes. While a chunk of such a
job runs, descriptors 1 and 2 are files in memory (`mpqueue._worker.capture`), which are read after each call.
Threads and processes of the handler may write to them at any time.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from mpqueue._os import standard_streams
from mpqueue._os.descriptors import close_all, duplicate_high, move_high
from mpqueue._os.files import read_at
from mpqueue._os.memory_files import free_beginning, make_appended
from mpqueue._os.standard_streams import in_lines
from mpqueue._os.system import c_library

#: Go to the line's start, and clear everything below: bars are there, and are drawn again soon.
_CLEAR = "\r\x1b[J"

#: Bytes of output from which on the next chunk begins with another file, if the system can't free what was read.
_MOST_KEPT = 16 << 20


class Capture:
    """Captures the output of one job's handler."""

    def __init__(self) -> None:
        #: The output of the current chunk's items, by position, in the order in which it was read.
        self._kept: deque[tuple[int, bytes, bytes]] = deque()
        self._taken = 0  #: up to this position it was taken
        self._out, self._err = _KeptStream(1, "stdout"), _KeptStream(2, "stderr")
        self._flush_c = c_library().fflush

    @contextlib.contextmanager
    def around_chunk(self) -> Iterator[None]:
        """Keep the output in the block, and what processes have written to the files since the last chunk."""
        # Output that came after the report of its item counts as that of this chunk's first item.
        late = [(0, out, err) for position, out, err in self._kept if position < self._taken and (out or err)]
        self._kept.clear()
        self._kept.extend(late)
        self._taken = 0
        self._flush()
        begun: list[_KeptStream] = []
        try:
            begun.extend(kept for kept in (self._out, self._err) if kept.begin())
            self._flush()  # reopens streams that were closed before this chunk
            with _line_by_line():
                yield
        finally:
            self._flush()
            for kept in begun:
                kept.end()

    def wrap(self, call: Callable[..., Any], position: Callable[[], int]) -> Callable[..., Any]:
        """Return the call, wrapped to leave its output at its position before it returns or raises."""

        def kept(*args: Any) -> Any:
            try:
                return call(*args)
            finally:
                self.keep(position())

        return kept

    def keep(self, position: int) -> None:
        """Keep output since the last call for that item.

        If the item has closed its stream, that is opened again, and unflushed output is lost.
        """
        self._flush()
        self._kept.append((position, self._out.take(), self._err.take()))

    def take(self, first: int, done: int) -> dict[int, tuple[str, str]]:
        """Return the output of items from ``first`` to ``done``, by position from there. On any thread, one at a time.

        Late output of an earlier item counts as the first one's.
        """
        self._taken = done
        written: dict[int, tuple[bytes, bytes]] = {}
        while self._kept and (position := max(self._kept[0][0], first)) < done:
            _, out, err = self._kept.popleft()
            before_out, before_err = written.get(position, (b"", b""))
            written[position] = (before_out + out, before_err + err)
        return {position - first: (_text(out), _text(err)) for position, (out, err) in written.items()}

    def close(self) -> None:
        """Close the files: the job has ended."""
        for kept in (self._out, self._err):
            kept.close()

    def _flush(self) -> None:
        self._out.flush()
        self._err.flush()
        self._flush_c(None)


def _text(output: bytes) -> str:
    """Return output as text. Bytes that are not UTF-8 become U+FFFD."""
    return in_lines(output.decode("utf-8", "replace"))


@contextlib.contextmanager
def _line_by_line() -> Iterator[None]:
    """Make Python write each line at once in the block, so that the files show an item's output while it runs."""
    changed: list[TextIO] = []
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # it is a handler's own
            if not stream.line_buffering:
                stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
                changed.append(stream)
    try:
        yield
    finally:
        for stream in changed:
            with contextlib.suppress(Exception):
                stream.reconfigure(line_buffering=False)  # type: ignore[attr-defined]


class _KeptStream:
    """Standard output or error: a number under which a file in memory is open while a chunk runs.

    Raises OSError if no file can be made, except for lack of descriptors: then output is not kept.
    """

    def __init__(self, at: int, name: str) -> None:
        self._at = at
        self._name = name
        self._file: CapturedFile | None = None  #: None if no descriptor was left for it
        try:
            self._file = CapturedFile(name)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
        self._before: int | None = None  #: the original file; None if there is none, or no chunk runs
        self._has_begun = False  #: the file was put in its place
        self._take_back: Callable[[], None] = lambda: None  #: undoes the chunk's change of Python's stream

    def begin(self) -> bool:
        """Put the file in its place; False if no descriptor is left for that: then output is not kept."""
        try:
            self._before = duplicate_high(self._at)
        except OSError as error:
            if error.errno != errno.EBADF:
                return False
            self._before = None  # it was closed
        if self._file is not None and self._file.is_full:
            self._file.close()
            self._file = None
        try:
            self._put()
        except OSError:
            if self._before is not None:
                os.close(self._before)
            return False
        self._has_begun = True
        self._take_back = standard_streams.write_utf_8(getattr(sys, self._name, None))
        return True

    def _put(self) -> None:
        """Put the file in its place; a new one if it was closed, by a handler or for its size. Raises OSError."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                os.dup2(self._file.fd, self._at)
                return
        self._file = CapturedFile(self._name)
        os.dup2(self._file.fd, self._at)

    def flush(self) -> None:
        """Flush Python's stream. Never raises.

        If the handler has closed, detached or removed the stream, the next item finds a new one. The number comes
        first: it may be closed, so that the flush would be lost, or be another file's by now.
        """
        stream: Any = getattr(sys, self._name, None)
        try:
            if self._has_begun:
                with contextlib.suppress(OSError):
                    self._put()
            stream.flush()
        except BaseException:  # the handler's own, which may raise anything
            if self._has_begun and _is_useless(stream):
                with contextlib.suppress(OSError):
                    again = os.fdopen(self._at, "w", 1, "utf-8", "backslashreplace", closefd=False)
                    setattr(sys, self._name, again)

    def take(self) -> bytes:
        """Return output since the last call. Never raises. Call after `flush`, which puts the file back."""
        if self._has_begun and self._file is not None:
            with contextlib.suppress(OSError):
                return self._file.rest()
        return b""

    def end(self) -> None:
        """Put back the original file. Raises OSError if a handler has closed it: then this worker is replaced."""
        before, self._before, self._has_begun = self._before, None, False
        self._take_back()
        if before is None:
            close_all(self._at)
        else:
            os.dup2(before, self._at)
            os.close(before)

    def close(self) -> None:
        """Close the file: the job has ended."""
        if self._file is not None:
            self._file.close()


def _is_useless(stream: Any) -> bool:
    """True if it can't be written to: it is closed, detached, or None."""
    try:
        return stream is None or stream.closed is True
    except ValueError:  # a detached stream raises this for every call
        return True
    except BaseException:
        return False


class BesideBar:
    """A stream to a terminal with the parent's bars: it writes whole lines at once, in the place of the bars."""

    def __init__(self, stream: TextIO) -> None:
        self.under = stream  #: the terminal itself
        self._begun = ""  #: a line that has no end yet

    def write(self, text: str) -> int:
        """Write the complete lines. Characters that the terminal's encoding lacks raise UnicodeEncodeError now.

        Otherwise it would be raised at the line's end, in another item.
        """
        encoding = getattr(self.under, "encoding", None)
        if encoding is not None:
            text.encode(encoding, getattr(self.under, "errors", None) or "strict")
        lines, newline, self._begun = (self._begun + text).rpartition("\n")
        if newline:
            self.under.write(f"{_CLEAR}{lines}\n")
            self.under.flush()
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.under, name)

    def end(self) -> TextIO:
        """Return the stream itself, after its last line is complete."""
        if self._begun:
            with contextlib.suppress(OSError, ValueError):  # the terminal is gone; the items have ended
                self.write("\n")
        return self.under


@contextlib.contextmanager
def beside_bar() -> Iterator[None]:
    """Keep prints in the block from tearing the parent's bar, if both are on a terminal."""
    shown: dict[str, BesideBar] = {}
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        with contextlib.suppress(Exception):
            if stream.isatty():
                shown[name] = BesideBar(stream)
                setattr(sys, name, shown[name])
    try:
        yield
    finally:
        for name, ours in shown.items():
            if getattr(sys, name) is ours:
                setattr(sys, name, ours.end())


# -- A file in memory that replaces stdout or stderr. ------------------------------------------------------------------
#
# Threads and processes write to its end at any time. So each read goes on where the last one ended, and the file is
# never emptied: output written between the last read and that would be lost. Instead the memory of the part already
# read is freed, if the system can do that.

#: Bytes of the first read, and of each further one.
_AT_A_TIME, _MORE_AT_A_TIME = 1 << 12, 1 << 20


class CapturedFile:
    """A file in memory that takes the items' output. Raises OSError if it can't be made."""

    def __init__(self, label: str) -> None:
        self.fd = move_high(make_appended(label))
        self._read = 0  #: it was read up to here
        self._last = b""  #: the byte before that, which a program that truncates the file changes, most likely
        self._frees = True  #: memory that was read: then the byte is a zero, which no text has

    def rest(self) -> bytes:
        """Return output since the last call. Raises OSError."""
        data = _read_from(self.fd, self._read - len(self._last))
        if data == self._last:
            return b""
        if data.startswith(self._last):
            data = data[len(self._last) :]
        else:  # a program has truncated it, as the shell does for `echo text > /dev/stderr`
            data = _read_from(self.fd, 0)
            self._read, self._last = 0, b""
        if data:
            self._read += len(data)
            self._frees = free_beginning(self.fd, self._read)
            self._last = b"\0" if self._frees else data[-1:]
        return data

    def close(self) -> None:
        """Close it, unless a handler has."""
        close_all(self.fd)

    @property
    def is_full(self) -> bool:
        """True if it has much memory that can't be freed."""
        return not self._frees and self._read > _MOST_KEPT


def _read_from(fd: int, offset: int) -> bytes:
    data = read_at(fd, _AT_A_TIME, offset)
    if len(data) < _AT_A_TIME:
        return data
    parts, offset = [data], offset + len(data)
    while part := read_at(fd, _MORE_AT_A_TIME, offset):
        parts.append(part)
        offset += len(part)
    return b"".join(parts)
