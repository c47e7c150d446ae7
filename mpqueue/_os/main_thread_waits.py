"""Long waits of the main thread, which signals must be able to end.

Python calls a signal's handler between two bytecodes of the main thread. A signal that comes after the last look at
whether there is one, but before the thread sleeps, does not wake it, so its handler is called when the wait is over: a
Ctrl-C or SIGTERM that seems to have no effect. So does one that the system gives to another thread. Beside busy threads
that was 1 signal in 300 in CPython 3.11, where each came within 40 us of the wait's begin. In such a wait the main
thread therefore looks up at intervals.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from mpqueue._os.monotonic import monotonic

#: Seconds between two looks.
LOOK_UP = 0.5


def wait_long(wait: Callable[[float | None], bool], timeout: float | None = None) -> bool:
    """Have ``wait(seconds)`` wait for what it waits for, at most ``timeout`` seconds; returns what it returns at last.

    ``wait`` returns whether that has come. On other threads than the main one it is called once.
    """
    if threading.current_thread() is not threading.main_thread():
        return wait(timeout)
    end = None if timeout is None else monotonic() + timeout
    while True:
        left = LOOK_UP if end is None else end - monotonic()
        if wait(max(0.0, min(LOOK_UP, left))):
            return True
        if left <= LOOK_UP and end is not None:
            return False


def join_long(thread: threading.Thread) -> None:
    """Wait for the thread's end."""

    def join(seconds: float | None) -> bool:
        thread.join(seconds)
        return not thread.is_alive()

    wait_long(join)
