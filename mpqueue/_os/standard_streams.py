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
    """Open the null device in place of those of them that are closed. Three microseconds.

    A pipe or a socket of ours that got such a number would be the standard output of the workers, and take what C code
    in this process writes to it. SQLite does the same for its files.
    Does nothing on Windows, where sockets have no such numbers.
    """
    if IS_WINDOWS:
        return
    with contextlib.suppress(OSError):  # no descriptor left: then nothing of ours gets one either
        while (null := os.open(os.devnull, os.O_RDWR | getattr(os, "O_CLOEXEC", 0))) <= 2:
            os.set_inheritable(null, True)
        os.close(null)


def follow_numbers() -> None:
    """Have Python's streams write where their numbers lead, also once that is no longer what it was.

    They do so but on Windows, where those that began with a console take nothing else. What has one already keeps it.
    """
    if sys.platform == "win32":
        windows.follow_numbers()


def understand_codes() -> None:
    """Have the terminal take the codes that move its cursor and change its colours. All do but consoles of Windows."""
    if sys.platform == "win32":
        windows.understand_codes()


@contextlib.contextmanager
def pipes_break() -> Iterator[None]:
    """A pipe that has no reader any more raises BrokenPipeError here, where Windows may call it EINVAL."""
    try:
        yield
    except OSError as error:
        if not IS_WINDOWS or error.errno != errno.EINVAL:
            raise
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)) from error


def write_utf_8(stream: Any) -> Callable[[], None]:
    """Have a stream of Python's write UTF-8, whatever it writes by itself: on Windows another encoding to files.

    Returns what takes that back. Nothing changes in one of another class. It must not be in the middle of a character.
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
    """Return text written to a stream with lines ended as Python ends them: Windows has two characters for that."""
    return text.replace("\r\n", "\n") if IS_WINDOWS else text
