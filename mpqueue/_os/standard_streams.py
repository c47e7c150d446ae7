"""The descriptors 0, 1 and 2 of a program that has closed them."""

from __future__ import annotations

import contextlib
import os

from mpqueue._os.system import IS_WINDOWS


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
