"""Forks of this process: made, and buried. Of their ends a `mpqueue._os.process.process_handle` tells."""

from __future__ import annotations

import os
import warnings
from typing import NoReturn


def fork_here() -> int:
    """Fork; 0 in the child, there the child's number. Raises OSError where there is no room for it.

    With threads about, Python 3.12 and newer warn; that is for the caller to know.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def end_at_once(code: int = 0) -> NoReturn:
    """End this process with nothing done any more."""
    os._exit(code)


def try_fork() -> None:
    """Fork a child that does nothing, and wait for its end: what is to happen before a fork has happened."""
    if (pid := fork_here()) == 0:
        end_at_once()
    os.waitpid(pid, 0)


def bury(pid: int) -> None:
    """A fork that has ended is not asked for any more: its number may be another's from now on."""
    os.waitpid(pid, 0)
