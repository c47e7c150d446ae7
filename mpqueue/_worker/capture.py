"""What a handler writes to stdout and stderr: kept with its item, or put beside the bar that the parent shows.

Keeping is done at the level of descriptors, so it takes in what C code and child processes write. While a chunk of such
a job runs, descriptors 1 and 2 are files in memory, which are read and emptied after each call.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from mpqueue._wire.ledger import make_file

_STDOUT, _STDERR = 1, 2
#: Back to the line's start, and clear all below: bars are drawn there, and are drawn again soon.
_CLEAR = "\r\x1b[J"


class Capture:
    """One job's. ``output`` has what the items of the chunk at hand wrote, by position."""

    def __init__(self) -> None:
        self.output: dict[int, tuple[str, str]] = {}
        self._files = (make_file("stdout"), make_file("stderr"))
        self._flush_c = ctypes.CDLL(None).fflush

    @contextlib.contextmanager
    def around_chunk(self) -> Iterator[None]:
        """Keep what is written meanwhile."""
        self.output.clear()
        self._flush()
        before = [_duplicate(_STDOUT), _duplicate(_STDERR)]
        try:
            os.dup2(self._files[0], _STDOUT)
            os.dup2(self._files[1], _STDERR)
            yield
        finally:
            self._flush()
            for descriptor, at in zip(before, (_STDOUT, _STDERR), strict=True):
                if descriptor is None:
                    os.close(at)
                else:
                    os.dup2(descriptor, at)
                    os.close(descriptor)

    def wrap(self, call: Callable[..., Any], position: Callable[[], int]) -> Callable[..., Any]:
        """The call, which leaves what it wrote at its position, before it returns or raises."""

        def kept(*args: Any) -> Any:
            try:
                return call(*args)
            finally:
                self.keep(position())

        return kept

    def keep(self, position: int) -> None:
        """What was written since the last call is that item's; of one that returned an awaitable, what follows too."""
        self._flush()
        out, err = self.output.get(position, ("", ""))
        self.output[position] = (out + _take(self._files[0]), err + _take(self._files[1]))

    def take(self, first: int, done: int) -> dict[int, tuple[str, str]]:
        """What the items from ``first`` to ``done`` wrote, by position from there."""
        return {at - first: self.output.pop(at) for at in range(first, done) if at in self.output}

    def close(self) -> None:
        """The job has ended."""
        for file in self._files:
            os.close(file)

    def _flush(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):  # None, closed, or whatever the handler has put there
                stream.flush()
        self._flush_c(None)


def _duplicate(descriptor: int) -> int | None:
    try:
        return os.dup(descriptor)
    except OSError:  # it was closed
        return None


def _take(file: int) -> str:
    size = os.fstat(file).st_size
    if not size:
        return ""
    data = os.pread(file, size, 0)
    os.ftruncate(file, 0)
    os.lseek(file, 0, os.SEEK_SET)
    return data.decode(errors="replace")


class BesideBar:
    """A stream to a terminal on which the parent shows bars: whole lines, in the place of the bars, at once."""

    def __init__(self, stream: TextIO) -> None:
        self.under = stream  #: the terminal itself
        self._begun = ""  #: a line that has no end yet

    def write(self, text: str) -> int:
        """Write what is a whole line by now."""
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
