"""Facts about a process, this one or another: its use of CPU and memory, and what it writes into a file.

Told by Linux in /proc; elsewhere most of it is None. Nothing is kept open, and nothing is done to the process.
"""

from __future__ import annotations

import mmap
import os
import stat
from typing import NamedTuple

from mpqueue._os.system import IS_LINUX, choose


def read(path: str) -> bytes:
    """Return the content of a file, its first 4 KiB at most. Raises OSError where there is none.

    It is not kept open: a handler that closes descriptors which are not its own may have given the number of this one
    to a file of its own. `open` would ask four things of it that are not needed.
    """
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(file, 4096)
    finally:
        os.close(file)


class ProcessUse(NamedTuple):
    """The resources a process uses. ``started`` tells it from another one that has its number later."""

    started: int
    cpu: float  #: CPU seconds since its start, all threads together
    memory: int  #: resident bytes, mapped files included


def _read_use(pid: int) -> ProcessUse | None:
    try:
        # The name, which comes before, may hold anything.
        fields = read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
        return ProcessUse(
            int(fields[19]), (int(fields[11]) + int(fields[12])) / _TICKS, int(fields[21]) * mmap.PAGESIZE
        )
    except (OSError, ValueError, IndexError):
        return None


def _use_is_not_told(pid: int) -> ProcessUse | None:  # noqa: ARG001
    return None


#: What the process of that number uses. 20 us. None where it is gone, or the system does not tell.
use_of = choose(linux=_read_use, posix=_use_is_not_told)

_TICKS: int = os.sysconf("SC_CLK_TCK") if IS_LINUX else 1


def _read_end(pid: int, descriptor: int, most: int) -> bytes | None:
    try:
        # Without waiting, for it may be a pipe; and no terminal becomes this process's own.
        file = os.open(f"/proc/{pid}/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return None
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            return None
        return os.pread(file, most, max(0, status.st_size - most))
    except OSError:
        return None
    finally:
        os.close(file)


def _end_is_not_told(pid: int, descriptor: int, most: int) -> bytes | None:  # noqa: ARG001
    return None


#: The last ``most`` bytes of the file that another process has open under a number. 20 us. None where it has none, or
#: something else than a file, or the system does not tell.
end_of_file = choose(linux=_read_end, posix=_end_is_not_told)


#: What the kernel knows of this process's main thread: nanoseconds on a CPU, nanoseconds ready but without one, ...
_SCHEDULED = "/proc/self/schedstat"


def _read_run_delay() -> int | None:
    try:
        return int(read(_SCHEDULED).split()[1])
    except (OSError, ValueError, IndexError):
        return None


def _do_not_know() -> int | None:
    return None


#: Nanoseconds for which the main thread was ready to run since its start, and had no CPU. 10 us. None where that is not
#: told: elsewhere than on Linux, and where no descriptor is left.
read_run_delay = choose(linux=_read_run_delay, posix=_do_not_know)


def busy_machine() -> str:
    """``; the machine is busy: load 90 on 2 CPUs``; empty where a CPU is idle, or the system does not tell."""
    try:
        load, cpus = os.getloadavg()[0], os.cpu_count() or 1
    except (AttributeError, OSError):  # there is none on Windows
        return ""
    return f"; the machine is busy: load {load:.0f} on {cpus} CPUs" if load > cpus else ""
