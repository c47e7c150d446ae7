"""The output of a handler to stdout and stderr: kept with its item, or put beside the parent's bar.

It captures at the level of descriptors, so it includes output of C code and child processes. While a chunk of such a
job runs, descriptors 1 and 2 are files in memory (`mpqueue._worker.chunk.capture`), which are read after each call.
Threads and processes of the handler may write to them at any time.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TextIO

from mpqueue._os import standard_streams
from mpqueue._os.descriptors import (
    Descriptor,
    close_all,
    descriptors_left,
    duplicate,
    file_size_limit,
    identify,
    reopen_to_write,
)
from mpqueue._os.files import read_at, write_at
from mpqueue._os.memory.memory_files import free_beginning, make_appended
from mpqueue._os.standard_streams import in_lines
from mpqueue._os.system import c_library

#: Go to the line's start, and clear everything below: bars are there, and are drawn again soon.
_CLEAR = "\r\x1b[J"

#: The most files beside each current one that are still read after others took over.
_MOST_OLDER = 4


class Capture:
    """Captures the output of one job's handler."""

    def __init__(self) -> None:
        #: The output of the current chunk's items, by position, in the order in which it was read.
        self._kept: deque[tuple[int, bytes, bytes]] = deque()
        self._taken = 0  #: up to this position it was taken
        self._out, self._err = _Place(1, "stdout"), _Place(2, "stderr")
        self._out_text, self._err_text = CapturedText(), CapturedText()
        self._flush_c = c_library().fflush

    @contextlib.contextmanager
    def around_chunk(self) -> Iterator[None]:
        """Keep the output in the block, and what processes have written to the files since the last chunk."""
        self._begin_anew()
        could_flush = self._flush()
        begun: list[_Place] = []
        try:
            for place in (self._out, self._err):
                place.begin()
                begun.append(place)
            if not could_flush:
                self._drop_unwritten([place for place in begun if place.has_begun])
            self._flush()  # reopens streams that were closed before this chunk
            with _line_by_line():
                yield
        finally:
            self._flush()
            for place in begun:
                place.end()

    def _begin_anew(self) -> None:
        """Give output that came after the report of its item to the first item of this chunk."""
        late = [(0, out, err) for position, out, err in self._kept if position < self._taken and (out or err)]
        self._kept.clear()
        self._kept.extend(late)
        self._taken = 0

    def _drop_unwritten(self, places: list[_Place]) -> None:
        """Drop output that could not be written before this chunk: it belongs to no item."""
        for place in places:
            place.put_null()
        for place in places:
            place.flush_as_it_is()
        self._flush_c(None)
        for place in places:
            place.put()

    def wrap(self, call: Callable[..., Any], position: Callable[[], int]) -> Callable[..., Any]:
        """Return the call, wrapped to leave its output at its position before it returns or raises."""

        def kept(*args: Any) -> Any:
            try:
                return call(*args)
            finally:
                self.keep(position())

        return kept

    def keep(self, position: int) -> None:
        """Keep output since the last call for that item; if it returned an awaitable, also what follows.

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
        outs = self._out_text.of_each(out for out, _ in written.values())
        errs = self._err_text.of_each(err for _, err in written.values())
        return {position - first: texts for position, texts in zip(written, zip(outs, errs, strict=True), strict=True)}

    def close(self) -> None:
        """Close the files: the job has ended."""
        for place in (self._out, self._err):
            place.close()

    def _flush(self) -> bool:
        """Flush everything; False if something could not be written."""
        done = [self._out.flush(), self._err.flush(), not self._flush_c(None)]
        return all(done)


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


class _Place:
    """Standard output or error: a number under which a file in memory is open while a chunk runs."""

    def __init__(self, at: int, name: str) -> None:
        self._at = at
        self._name = name
        self._file: CapturedFile | None = None  #: None if no descriptor was left for it
        self._older: list[CapturedFile] = []  #: others may still write to them
        try:
            self._make_file()
        except OSError as error:
            # If no temporary file can be made, the error's number is another one.
            if error.errno not in (errno.EMFILE, errno.ENFILE) and descriptors_left():
                raise
        self._before: Descriptor | None = None  #: the original file; None if there is none, or no chunk runs
        self.has_begun = False  #: the file was put in its place
        self._take_back: Callable[[], None] = _nothing  #: undoes the chunk's change of Python's stream

    def begin(self) -> None:
        """Put the file in its place; if no descriptor is left for that, output is not kept."""
        try:
            self._make_file()
            self._before = Descriptor(duplicate(self._at))
        except OSError as error:
            if error.errno != errno.EBADF:
                return
            self._before = None  # it was closed
        self.has_begun = True
        self.put()
        self._take_back = standard_streams.write_utf_8(getattr(sys, self._name, None))

    def put(self) -> None:
        """Put the file in its place. Raises OSError."""
        os.dup2(self._make_file().descriptor.fd, self._at)

    def put_null(self) -> None:
        """Put the null device there. Never raises."""
        with contextlib.suppress(OSError):
            _put_null(self._at)

    def _make_file(self) -> CapturedFile:
        """Make the file if a handler has closed it, and return it. Raises OSError."""
        if self._file is None or not self._file.descriptor.is_there():
            self._file = CapturedFile(self._name)
        return self._file

    def flush(self) -> bool:
        """Flush Python's stream; False if it could not be flushed. Never raises.

        If the handler has closed, detached or removed the stream, the next item finds a new one. The number comes
        first: it may be closed, so that the flush would be lost, or be another file's by now.
        """
        stream: Any = getattr(sys, self._name, None)
        try:
            if self.has_begun:
                with contextlib.suppress(OSError):
                    self._put_back()
            stream.flush()
        except BaseException as error:  # the handler's own, which may raise anything
            if self.has_begun:
                with contextlib.suppress(BaseException):
                    self._mend(stream)
            return not isinstance(error, OSError)
        return True

    def flush_as_it_is(self) -> None:
        """Flush the stream to its current file. Never raises."""
        with contextlib.suppress(BaseException):
            getattr(sys, self._name).flush()

    def _mend(self, stream: Any) -> None:
        """Make a stream that can't be flushed write to the file again; first its number, which it needs open."""
        self._put_back()
        if _is_useless(stream):
            setattr(sys, self._name, os.fdopen(self._at, "w", 1, "utf-8", "backslashreplace", closefd=False))
        else:
            stream.flush()

    def take(self) -> bytes:
        """Return output since the last call. Never raises. Call after `flush`, which puts the file back."""
        file = self._file
        if not self.has_begun or file is None:
            return b""
        data = b""
        for older in self._older:
            with contextlib.suppress(OSError):
                data += older.rest(older.descriptor.checked())
        with contextlib.suppress(OSError):
            data += file.rest(self._at)
            if file.is_full:
                self._replace(file)
        return data

    def _replace(self, file: CapturedFile) -> None:
        """Put a new file in its place. Raises OSError."""
        new = CapturedFile(self._name)
        os.dup2(new.descriptor.fd, self._at)
        self._file = new
        self._older.append(file)
        if len(self._older) > _MOST_OLDER:
            self._older.pop(0).close()

    def _put_back(self) -> None:
        """Put the file back if it is not in its place. Raises OSError."""
        if self._file is None or identify(self._at) != self._file.descriptor.identity:
            self.put()

    def end(self) -> None:
        """Put back the original file. Raises OSError if a handler has closed it: then this worker is replaced."""
        if not self.has_begun:
            return
        before, self._before, self.has_begun = self._before, None, False
        self._take_back()
        if before is None:
            close_all(self._at)
        else:
            os.dup2(before.checked(), self._at)
            os.close(before.fd)

    def close(self) -> None:
        """Close the files: the job has ended."""
        for file in (*self._older, self._file):
            if file is not None:
                file.close()


def _nothing() -> None:
    pass


def _put_null(at: int) -> None:
    """Open the null device under that number. Raises OSError."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, at)
    if null != at:
        os.close(null)


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


# -- A file in memory that replaces stdout or stderr, and its content as text. -----------------------------------------
#
# Threads and processes write to its end at any time. So each read goes on where the last one ended, and the file is
# never emptied: output written between the last read and that would be lost. Instead the memory of the part already
# read is freed. If that is not possible, another file takes over in time, and this one is still read, since others may
# still write to it.

#: Bytes of the first read, and of each further one.
_AT_A_TIME, _MORE_AT_A_TIME = 1 << 12, 1 << 20
#: The most bytes of a file whose memory can't be freed.
_MOST_KEPT = 16 << 20


class CapturedFile:
    """A file in memory that takes the items' output. Raises OSError if it can't be made."""

    def __init__(self, label: str) -> None:
        self.descriptor = Descriptor(make_appended(label))
        self._read = 0  #: it was read up to here
        self._last = b""  #: the byte before that, in its current form: a zero if possible, which no text has
        self._most = file_size_limit() / 2  #: the other half is for the next item

    def rest(self, fd: int) -> bytes:
        """Return output since the last call, if the file is open under that number. Raises OSError."""
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
        """Close it, unless a handler has."""
        if self.descriptor.is_there():
            os.close(self.descriptor.fd)

    @property
    def is_full(self) -> bool:
        """True if another file should take over."""
        return self._read > self._most


def _cleared(fd: int, offset: int) -> bool:
    """Make that byte a zero. False if the system can't, except at the file's end."""
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
    data = read_at(fd, _AT_A_TIME, offset)
    if len(data) < _AT_A_TIME:
        return data
    parts, offset = [data], offset + len(data)
    while part := read_at(fd, _MORE_AT_A_TIME, offset):
        parts.append(part)
        offset += len(part)
    return b"".join(parts)


class CapturedText:
    """Decodes the output of consecutive items, even if a character is cut between two of them."""

    def __init__(self) -> None:
        self._cut = b""  #: bytes that may begin a character

    def of_each(self, written: Iterable[bytes]) -> list[str]:
        """Return each item's text: a character belongs to the one with its last byte. Bytes not in UTF-8 are U+FFFD."""
        texts: list[str] = []
        cut_in: int | None = None  #: the text that lacks the first bytes of the current character
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
    """Tell whether the bytes begin with a complete character, or with the beginning of one."""
    size = 2 + (data[0] >= 0xE0) + (data[0] >= 0xF0)
    try:
        codecs.utf_8_decode(data[:size], "strict", False)
    except UnicodeDecodeError:
        return False
    return True
