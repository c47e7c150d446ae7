"""Reading what the kernel tells in /proc."""

from __future__ import annotations

import os


def read(path: str) -> bytes:
    """What is in the file, its first 4 KiB at most. Raises OSError where there is none.

    It is not kept open: a handler that closes descriptors which are not its own may have given the number of this one
    to a file of its own. `open` would ask four things of it that are not needed.
    """
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(file, 4096)
    finally:
        os.close(file)
