"""Facts about a process, this one or another: its use of CPU and memory, and its output in a file.

Linux reports them in /proc; elsewhere most of them are None. Nothing is kept open, and nothing is done to the process.
"""

from __future__ import annotations

import mmap
import os
import stat
from typing import NamedTuple

from mpqueue._os.files import open_file, open_unseen, read_at
from mpqueue._os.system import IS_LINUX, PROC


def read(path: str) -> bytes:
    """Return the content of a file, at most its first 4 KiB. Raises OSError if there is none.

    It is not kept open: a handler may close descriptors that are not its own, and reuse the number for its own file.
    `open` would make four more system calls.
    """
    file = open_file(path, os.O_RDONLY)
    try:
        return os.read(file, 4096)
    finally:
        os.close(file)


class ProcessUse(NamedTuple):
    """The resources that a process uses. ``started`` distinguishes it from a later one with its number."""

    started: int
    cpu: float  #: CPU seconds since its start, all threads together
    memory: int  #: resident bytes, mapped files included


def use_of(pid: int) -> ProcessUse | None:
    """Return the resources of the process with that number. 20 us. None if it has ended, or they are not reported."""
    try:
        # the name before these fields may hold any bytes
        fields = read(f"{PROC}/{pid}/stat").rpartition(b")")[2].split()
        return ProcessUse(
            int(fields[19]), (int(fields[11]) + int(fields[12])) / _TICKS, int(fields[21]) * mmap.PAGESIZE
        )
    except (OSError, ValueError, IndexError):
        return None


_TICKS: int = os.sysconf("SC_CLK_TCK") if IS_LINUX else 1


def end_of_file(pid: int, descriptor: int, most: int) -> bytes | None:
    """Return the last ``most`` bytes of the file that another process has open under a number. 20 us.

    None if it has none, or it is no file, or the system does not report it.
    """
    try:
        # Without waiting, since it may be a pipe; and no terminal becomes this process's own.
        file = open_unseen(f"{PROC}/{pid}/fd/{descriptor}")
    except OSError:
        return None
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            return None
        return read_at(file, most, max(0, status.st_size - most))
    except OSError:
        return None
    finally:
        os.close(file)


def read_run_delay() -> int | None:
    """Return the nanoseconds since its start in which the main thread was ready to run and had no CPU. 10 us.

    None if not known: on other systems than Linux, or if no descriptor is left.
    """
    try:
        # Nanoseconds on a CPU, nanoseconds ready but without one, ...
        return int(read(f"{PROC}/self/schedstat").split()[1])
    except (OSError, ValueError, IndexError):
        return None


def busy_machine() -> str:
    """``; the machine is busy: load 90 on 2 CPUs``; empty if a CPU is idle, or the system does not report it."""
    try:
        load, cpus = os.getloadavg()[0], os.cpu_count() or 1
    except (AttributeError, OSError):  # there is none on Windows
        return ""
    return f"; the machine is busy: load {load:.0f} on {cpus} CPUs" if load > cpus else ""
