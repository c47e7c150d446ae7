"""Facts about this process: those visible from outside, and those that it counts itself."""

from __future__ import annotations

import contextlib
import os
import threading

from mpqueue._os.process.process_facts import read
from mpqueue._os.system import PROC


def python_threads() -> list[str]:
    """The names of Python's threads beside the main one."""
    return sorted(thread.name for thread in threading.enumerate() if thread is not threading.main_thread())


def other_threads() -> list[str]:
    """The names of this process's threads beside its main one, as the system has them, those of C libraries too.

    Raises OSError if the system does not report them.
    """
    main, names = str(os.getpid()), []
    for thread in os.listdir(f"{PROC}/self/task"):
        if thread != main:
            with contextlib.suppress(OSError):  # it has ended
                names.append(read(f"{PROC}/self/task/{thread}/comm").decode(errors="replace").strip())
    return sorted(names)
