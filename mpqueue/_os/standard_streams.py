"""The descriptors 0, 1 and 2 of a program that has closed them, and Python's streams over them."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from mpqueue._os.system import IS_WINDOWS

if sys.platform == "win32":
    from mpqueue._os.windows import consoles as windows


def keep_taken() -> None:
    """Open the null device in place of closed ones. 3 us.

    Otherwise a pipe or a socket of ours could get such a number: it would be the workers' standard output, and receive
    output of C code in this process. SQLite does the same for its files.
    Does nothing on Windows, where sockets have no such numbers.
    """
    if IS_WINDOWS:
        return
    with contextlib.suppress(OSError):  # no descriptor is left: then ours don't get one either
        while (null := os.open(os.devnull, os.O_RDWR | getattr(os, "O_CLOEXEC", 0))) <= 2:
            os.set_inheritable(null, True)
        os.close(null)


def follow_numbers() -> None:
    """Make Python's streams write where their numbers lead, even after these were redirected.

    Elsewhere than on Windows they do so anyway; there, streams that began with a console write to nothing else. Other
    streams are kept.
    """
    if sys.platform == "win32":
        windows.follow_numbers()


def understand_codes() -> None:
    """Make the terminal accept codes that move its cursor and change its colours. Only Windows consoles need that."""
    if sys.platform == "win32":
        windows.understand_codes()


@contextlib.contextmanager
def pipes_break() -> Iterator[None]:
    """Raise BrokenPipeError for a pipe that has no reader any more; Windows may call it EINVAL."""
    try:
        yield
    except OSError as error:
        if not IS_WINDOWS or error.errno != errno.EINVAL:
            raise
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)) from error


def write_utf_8(stream: Any) -> Callable[[], None]:
    """Make a Python stream write UTF-8 instead of its own encoding: on Windows that is another one for files.

    Returns a function that undoes this. Streams of other classes are not changed. It must not be in the middle of a
    character.
    """
    if type(stream) is not io.TextIOWrapper or stream.encoding.lower() in ("utf-8", "utf8"):
        return lambda: None
    encoding, errors = stream.encoding, stream.errors

    def set_to(name: str) -> None:
        with contextlib.suppress(ValueError, OSError):  # it was closed
            stream.reconfigure(encoding=name, errors=errors)

    set_to("utf-8")
    return lambda: set_to(encoding)


def in_lines(text: str) -> str:
    """Return text written to a stream with Python's line ends: Windows writes two characters for one."""
    return text.replace("\r\n", "\n") if IS_WINDOWS else text
