"""The system this is, and the form of a facility that is used on it. Nothing else in the package decides that.

Where the forms of a facility differ, its module has one for Linux and one for every POSIX system, and takes one of them
by `choose` while it is loaded. So a call costs what a plain one costs, and a test can run each form anywhere. The form
for Windows is in `mpqueue._os.windows`, which other systems don't load; where there is none, Windows takes the portable
one.
"""

from __future__ import annotations

import functools
import os
import sys
from typing import Any, TypeVar

_L = TypeVar("_L")
_P = TypeVar("_P")

#: What Python calls this system: ``linux``, ``darwin``, ``win32``, ... Tests set ``MPQUEUE_PORTABLE=1``, which workers
#: inherit, so that the portable forms are used on Linux too, as on a system without a form of its own.
NAME: str = "portable" if os.environ.get("MPQUEUE_PORTABLE") == "1" else sys.platform

#: True where the kernel is Linux: forms for Linux are used, each with its portable form where the kernel refuses.
IS_LINUX: bool = NAME == "linux"

#: True on Windows. For type checkers this is asked by `sys.platform` itself, which they know.
IS_WINDOWS: bool = NAME == "win32"


def choose(*, linux: _L, posix: _P) -> _L | _P:
    """The form for this system: ``posix`` asks for nothing that is not the same on every POSIX system."""
    return linux if IS_LINUX else posix


@functools.cache
def c_library() -> Any:
    """The C library of this process, called with the global lock released. AttributeError: it has no such function."""
    import ctypes  # only where it is used

    return ctypes.CDLL("ucrtbase" if IS_WINDOWS else None, use_errno=True)


def checked(result: int) -> int:
    """Return the result of a function of `c_library`; raise the OSError that it stands for, if negative."""
    if result < 0:
        import ctypes

        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result
