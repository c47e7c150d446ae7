"""The facilities of this system that work: each has its form for Linux, or is off."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable

from mpqueue._os import locks, process_facts
from mpqueue._os.memory_files import can_be_opened_by_others, leases_tell
from mpqueue._os.parent_death import kernel_holds_leashes
from mpqueue._os.process_handle import open_exactly


@functools.cache
def facts() -> dict[str, bool]:
    """Return for each facility, by name, whether it works; tried out once in this process, 0.2 ms."""
    return {
        "leases": leases_tell(),
        "leash": _is_there(kernel_holds_leashes),
        "pidfd": _is_there(_try_handle),
        "process table": process_facts.environment(os.getpid()) is not None,
        "shared memory": _is_there(can_be_opened_by_others),
        "unnamed semaphores": locks.AVAILABLE,
    }


def _is_there(tried: Callable[[], bool]) -> bool:
    try:
        return tried()
    except OSError:
        return False


def _try_handle() -> bool:
    open_exactly(os.getpid()).close()
    return True
