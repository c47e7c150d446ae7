"""Facts about this process: those visible from outside, and those that it counts itself."""

from __future__ import annotations

import contextlib
import os
import threading

from mpqueue._os.process.process_facts import read
from mpqueue._os.system import choose


def _list_in_proc() -> list[str]:
    main, names = str(os.getpid()), []
    for thread in os.listdir("/proc/self/task"):
        if thread != main:
            with contextlib.suppress(OSError):  # it has ended
                names.append(read(f"/proc/self/task/{thread}/comm").decode(errors="replace").strip())
    return sorted(names)


def python_threads() -> list[str]:
    """The names of Python's threads beside the main one."""
    return sorted(thread.name for thread in threading.enumerate() if thread is not threading.main_thread())


#: The names of this process's threads beside its main one, as the system has them, those of C libraries too; if it has
#: none, Python's names. Raises OSError on Linux without /proc.
other_threads = choose(linux=_list_in_proc, posix=python_threads)
