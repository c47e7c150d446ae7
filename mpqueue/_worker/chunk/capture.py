"""What a handler writes to stdout and stderr: kept with its item, or put beside the bar that the parent shows.

Keeping is done at the level of descriptors, so it takes in what C code and child processes write. While a chunk of such
a job runs, descriptors 1 and 2 are files in memory, which are read and emptied after each call.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from mpqueue._os import standard_streams
from mpqueue._os.descriptors import Descriptor, descriptors_left, duplicate
from mpqueue._os.files import read_at
from mpqueue._os.memory.memory_files import make_file
from mpqueue._os.system import c_library
from mpqueue._worker.signals import calls_users_code

#: Back to the line's start, and clear all below: bars are drawn there, and are drawn again soon.
_CLEAR = "\r\x1b[J"


class Capture:
    """One job's. ``output`` has what the items of the chunk at hand wrote, by position."""

    def __init__(self) -> None:
        self.output: dict[int, tuple[str, str]] = {}
        self._out, self._err = _Place(1, "stdout"), _Place(2, "stderr")
        self._flush_c = c_library().fflush

    @contextlib.contextmanager
    def around_chunk(self) -> Iterator[None]:
        """Keep what is written meanwhile."""
        self.output.clear()
        self._flush()
        begun: list[_Place] = []
        try:
            for place in (self._out, self._err):
                place.begin()
                begun.append(place)
            self._flush()  # opens streams again that were closed before this chunk
            for place in begun:
                place.take()  # what could not be written before is no item's
            with _line_by_line():
                yield
        finally:
            self._flush()
            for place in begun:
                place.end()

    def wrap(self, call: Callable[..., Any], position: Callable[[], int]) -> Callable[..., Any]:
        """The call, which leaves what it wrote at its position, before it returns or raises."""

        @calls_users_code
        def kept(*args: Any) -> Any:
            try:
                return call(*args)
            finally:
                self.keep(position())

        return kept

    def keep(self, position: int) -> None:
        """What was written since the last call is that item's; of one that returned an awaitable, what follows too.

        Where the item has closed what it writes to, that is opened again, and what it had not yet flushed is lost.
        """
        self._flush()
        out, err = self.output.get(position, ("", ""))
        self.output[position] = (out + self._out.take(), err + self._err.take())

    def take(self, first: int, done: int) -> dict[int, tuple[str, str]]:
        """What the items from ``first`` to ``done`` wrote, by position from there."""
        return {at - first: self.output.pop(at) for at in range(first, done) if at in self.output}

    def is_whole(self) -> bool:
        """False where stdout or stderr can't be put back after the chunk, since a handler has closed that too."""
        return self._out.can_end() and self._err.can_end()

    def close(self) -> None:
        """The job has ended."""
        for place in (self._out, self._err):
            place.close()

    def _flush(self) -> None:
        self._out.flush()
        self._err.flush()
        self._flush_c(None)


@contextlib.contextmanager
def _line_by_line() -> Iterator[None]:
    """Python writes each line at once meanwhile, so that the files show what an item does."""
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
        self._file: Descriptor | None = None  #: None where no descriptor was left for it
        try:
            self._make_file()
        except OSError as error:
            # A temporary file is called impossible, where none is left.
            if error.errno not in (errno.EMFILE, errno.ENFILE) and descriptors_left():
                raise
        self._before: Descriptor | None = None  #: what is there else; None where nothing is, or no chunk runs
        self._has_begun = False  #: the file was put in its place
        self._take_back: Callable[[], None] = _nothing  #: what the chunk has changed in Python's stream

    def begin(self) -> None:
        """Put the file in its place; where no descriptor is left for that, what is written is not kept."""
        try:
            self._make_file()
            self._before = Descriptor(duplicate(self._at))
        except OSError as error:
            if error.errno != errno.EBADF:
                return
            self._before = None  # it was closed
        self._has_begun = True
        self._put()
        self._take_back = standard_streams.write_utf_8(getattr(sys, self._name, None))

    def _put(self) -> None:
        os.dup2(self._make_file().fd, self._at)

    def _make_file(self) -> Descriptor:
        """The file, made if a handler has closed it. Raises OSError."""
        if self._file is None or not self._file.is_there():
            self._file = Descriptor(make_file(self._name))
        return self._file

    def flush(self) -> None:
        """Have Python write what it holds back. Never raises.

        Where the handler has closed, detached or removed the stream, the next one finds a new one. The number goes
        first: it may be closed, so that what is held back would be lost, or be another file's by now.
        """
        stream: Any = getattr(sys, self._name, None)
        try:
            if self._has_begun:
                with contextlib.suppress(OSError):
                    self._status()
            stream.flush()
        except BaseException:  # the handler's own, which may raise anything
            if self._has_begun:
                with contextlib.suppress(BaseException):
                    self._mend(stream)

    def _mend(self, stream: Any) -> None:
        """Have a stream that can't be flushed write to the file again; first its number, which it needs open."""
        self._status()
        if _is_useless(stream):
            setattr(sys, self._name, os.fdopen(self._at, "w", 1, "utf-8", "backslashreplace", closefd=False))
        else:
            stream.flush()

    def take(self) -> str:
        """What was written since the last call. Never raises."""
        if not self._has_begun:
            return ""
        with contextlib.suppress(OSError):
            size = self._status().st_size
            if size:
                return self._empty(size)
        return ""

    def _status(self) -> os.stat_result:
        """That of the file, which is put back where it is not in its place. Raises OSError."""
        with contextlib.suppress(OSError):  # the number was closed
            status = os.fstat(self._at)
            if self._file is not None and (status.st_dev, status.st_ino) == self._file.identity:
                return status
        self._put()
        return os.fstat(self._at)

    def _empty(self, size: int) -> str:
        data = read_at(self._at, size, 0)
        os.ftruncate(self._at, 0)
        os.lseek(self._at, 0, os.SEEK_SET)
        return standard_streams.text_of(data)

    def can_end(self) -> bool:
        """True where `end` can put back what was there before."""
        return self._before is None or self._before.is_there()

    def end(self) -> None:
        """Put back what was there before."""
        if not self._has_begun:
            return
        before, self._before, self._has_begun = self._before, None, False
        self._take_back()
        with contextlib.suppress(OSError):
            if before is None:
                os.close(self._at)
            elif before.is_there():
                os.dup2(before.fd, self._at)
                os.close(before.fd)
            else:  # this worker is replaced
                null = os.open(os.devnull, os.O_RDWR)
                os.dup2(null, self._at)
                if null != self._at:
                    os.close(null)

    def close(self) -> None:
        """The job has ended."""
        if self._file is not None and self._file.is_there():
            os.close(self._file.fd)


def _nothing() -> None:
    pass


def _is_useless(stream: Any) -> bool:
    """True where nothing can be written to it: it is closed, detached, or none at all."""
    try:
        return stream is None or stream.closed is True
    except ValueError:  # a detached one says so by everything that it does
        return True
    except BaseException:
        return False


class BesideBar:
    """A stream to a terminal on which the parent shows bars: whole lines, in the place of the bars, at once."""

    def __init__(self, stream: TextIO) -> None:
        self.under = stream  #: the terminal itself
        self._begun = ""  #: a line that has no end yet

    def write(self, text: str) -> int:
        """Write what is a whole line by now. What the terminal's encoding does not have raises UnicodeEncodeError now.

        Else it would be raised where that line ends, in another item.
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
        """The stream itself again, with the last line whole."""
        if self._begun:
            with contextlib.suppress(OSError, ValueError):  # the terminal is gone; the items have ended
                self.write("\n")
        return self.under


@contextlib.contextmanager
def beside_bar() -> Iterator[None]:
    """What is printed meanwhile does not tear the parent's bar, where both are on a terminal."""
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
