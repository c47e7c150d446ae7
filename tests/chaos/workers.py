"""The worker processes of this program, as the operating system lists them."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

#: What the command line of a worker has, and that of no other process of the program.
WORKER = b"worker_entry"
#: Seconds after its start within which a worker may not have answered yet.
YOUNG = 1.0

_TICKS = os.sysconf("SC_CLK_TCK")


def workers() -> list[int]:
    """The living workers of all queues of this process, also such as have not answered yet."""
    found: set[int] = set()
    with contextlib.suppress(OSError):  # of a thread that ends just now, or no descriptor is left
        for task in os.listdir("/proc/self/task"):
            with contextlib.suppress(OSError):
                found.update(map(int, Path(f"/proc/self/task/{task}/children").read_text().split()))
    return sorted(filter(is_worker, found))


def is_worker(pid: int) -> bool:
    """Whether that process is a worker: not a program that a handler has started, once that is loaded."""
    try:
        return WORKER in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def is_young(pid: int) -> bool:
    """Whether that worker may be starting still."""
    try:
        began = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]) / _TICKS
    except (OSError, IndexError):
        return True
    return time.clock_gettime(time.CLOCK_BOOTTIME) - began < YOUNG


class Target:
    """A worker that is struck; never another process that has its number later."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._fd = os.pidfd_open(pid)

    @property
    def is_worker(self) -> bool:
        """Asked once the process is held: it is the one that was meant."""
        return is_worker(self.pid)

    def send(self, number: int) -> None:
        """Send it a signal, if it lives."""
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(self._fd, number)

    def close(self) -> None:
        """Strike it no more."""
        os.close(self._fd)


def strike(pid: int, number: int) -> bool:
    """Send a signal to that worker; False where it is none any more, or no descriptor is left."""
    try:
        target = Target(pid)
    except OSError:
        return False
    with contextlib.closing(target):
        if target.is_worker:
            target.send(number)
            return True
    return False
