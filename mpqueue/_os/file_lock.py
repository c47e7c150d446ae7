"""A lock on a file, which ends with its process in any case."""

from __future__ import annotations

import fcntl


def lock_file(fd: int) -> None:
    """Lock the file, which is open for writing, for this process. Never waits. Raises OSError where another has it.

    The system's record lock: a forked child does not inherit it, nothing has to be cleared up after a crash, and it
    ends as soon as this process closes *any* descriptor of the file. It does not keep the same process out.
    """
    fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
