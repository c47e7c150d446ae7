"""Facts about a process, this one or another: its use of CPU and memory, and its output in a file.

Linux reports them in /proc; elsewhere most of them are None. Nothing is kept open, and nothing is done to the process.
"""

from __future__ import annotations

import mmap
import os
import stat
from typing import NamedTuple

from mpqueue._os.system import IS_LINUX, choose


def read(path: str) -> bytes:
    """Return the content of a file, at most its first 4 KiB. Raises OSError if there is none.

    It is not kept open: a handler may close descriptors that are not its own, and reuse the number for its own file.
    `open` would make four more system calls.
    """
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(file, 4096)
    finally:
        os.close(file)


class ProcessUse(NamedTuple):
    """The resources that a process uses. ``started`` distinguishes it from a later one with its number."""

    started: int
    cpu: float  #: CPU seconds since its start, all threads together
    memory: int  #: resident bytes, mapped files included


def _read_use(pid: int) -> ProcessUse | None:
    try:
        # the name before these fields may hold any bytes
        fields = read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
        return ProcessUse(
            int(fields[19]), (int(fields[11]) + int(fields[12])) / _TICKS, int(fields[21]) * mmap.PAGESIZE
        )
    except (OSError, ValueError, IndexError):
        return None


def _use_is_not_told(pid: int) -> ProcessUse | None:  # noqa: ARG001
    return None


#: The resources of the process with that number. 20 us. None if it has ended, or the system does not report them.
use_of = choose(linux=_read_use, posix=_use_is_not_told)

_TICKS: int = os.sysconf("SC_CLK_TCK") if IS_LINUX else 1


def _read_end(pid: int, descriptor: int, most: int) -> bytes | None:
    try:
        # Without waiting, since it may be a pipe; and no terminal becomes this process's own.
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


#: The last ``most`` bytes of the file that another process has open under a number. 20 us. None if it has none, or it
#: is no file, or the system does not report it.
end_of_file = choose(linux=_read_end, posix=_end_is_not_told)


#: The kernel's figures of this process's main thread: nanoseconds on a CPU, nanoseconds ready but without one, ...
_SCHEDULED = "/proc/self/schedstat"


def _read_run_delay() -> int | None:
    try:
        return int(read(_SCHEDULED).split()[1])
    except (OSError, ValueError, IndexError):
        return None


def _do_not_know() -> int | None:
    return None


#: Nanoseconds since its start in which the main thread was ready to run and had no CPU. 10 us. None if not known: on
#: other systems than Linux, or if no descriptor is left.
read_run_delay = choose(linux=_read_run_delay, posix=_do_not_know)


def busy_machine() -> str:
    """``; the machine is busy: load 90 on 2 CPUs``; empty if a CPU is idle, or the system does not report it."""
    try:
        load, cpus = os.getloadavg()[0], os.cpu_count() or 1
    except (AttributeError, OSError):  # there is none on Windows
        return ""
    return f"; the machine is busy: load {load:.0f} on {cpus} CPUs" if load > cpus else ""
