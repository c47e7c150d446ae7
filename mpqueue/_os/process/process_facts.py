"""Processes, this one and others, as the system reports them: numbers, start times, environments, threads, resources.

Linux reports them in /proc. Other systems report them only to a program that is run for it: there, no other processes
are known, and every process counts as ended. An unknown fact means nothing: no process may be killed for it. Nothing is
kept open, and nothing is done to the process.
"""

from __future__ import annotations

import contextlib
import functools
import mmap
import os
import stat
import sys
import threading
from collections.abc import Iterator
from typing import NamedTuple

from mpqueue._os.files import open_unseen, read_at, read_beginning
from mpqueue._os.system import IS_LINUX, PROC

if sys.platform == "win32":
    from mpqueue._os.windows import processes as windows


class ProcessUse(NamedTuple):
    """The resources that a process uses. ``started`` distinguishes it from a later one with its number."""

    started: int
    cpu: float  #: CPU seconds since its start, all threads together
    memory: int  #: resident bytes, mapped files included


def use_of(pid: int) -> ProcessUse | None:
    """Return the resources of the process with that number. 20 us. None if it has ended, or they are not reported."""
    try:
        fields = _stat(pid)
        return ProcessUse(
            int(fields[19]), (int(fields[11]) + int(fields[12])) / _TICKS, int(fields[21]) * mmap.PAGESIZE
        )
    except (OSError, IndexError):
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
        return int(read_beginning(f"{PROC}/self/schedstat").split()[1])
    except (OSError, ValueError, IndexError):
        return None


def busy_machine() -> str:
    """``; the machine is busy: load 90 on 2 CPUs``; empty if a CPU is idle, or the system does not report it."""
    try:
        load, cpus = os.getloadavg()[0], os.cpu_count() or 1
    except (AttributeError, OSError):  # there is none on Windows
        return ""
    return f"; the machine is busy: load {load:.0f} on {cpus} CPUs" if load > cpus else ""


# -- The processes of this user, and the threads of this one. ----------------------------------------------------------


def others() -> Iterator[int]:
    """The numbers of all processes of this user, without this one and its ancestors. 1 ms per 100.

    Raises OSError if they can't be read: on other systems, or for lack of a descriptor.
    """
    names = os.listdir(PROC)  # first, since Windows has no user ids either
    spared, user = set(_ancestors()), os.geteuid()
    for name in names:
        if name.isdecimal() and int(name) not in spared:
            with contextlib.suppress(OSError):
                if os.stat(f"{PROC}/{name}").st_uid == user:
                    yield int(name)


def _ancestors() -> Iterator[int]:
    pid = os.getpid()
    while pid > 0:
        yield pid
        fields = _stat(pid)
        pid = int(fields[1]) if fields else 0


def start_time(pid: int) -> int:
    """Return when a process was started, in the system's unit; 0 if there is none, or it is unknown.

    With its number it names a process, as long as the machine runs. Raises OSError for lack of a descriptor.
    """
    if sys.platform == "win32":
        return windows.start_time(pid)
    fields = _stat(pid)
    return int(fields[19]) if fields else 0


@functools.cache
def namespace() -> str:
    """Return the namespace in which numbers of processes are valid for this one; empty if there is only one."""
    try:
        return "".join(filter(str.isdecimal, os.readlink(f"{PROC}/self/ns/pid")))
    except OSError:
        return ""


def environment(pid: int) -> bytes | None:
    """Return the variables that it was started with, each ended by a null byte; None if not known.

    Empty while its program is being loaded.
    """
    try:
        with open(f"{PROC}/{pid}/environ", "rb") as file:
            return file.read()
    except OSError:  # it ended, or is another user's
        return None


def _stat(pid: int) -> list[bytes]:
    """The fields of /proc/PID/stat from the state on; the name before it may hold any bytes. Dead processes have none.

    Raises OSError if it can't be read for lack of a descriptor: a living process must never count as dead.
    """
    try:
        return read_beginning(f"{PROC}/{pid}/stat").rpartition(b")")[2].split()
    except (FileNotFoundError, NotADirectoryError, ProcessLookupError, PermissionError):
        return []


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
                names.append(read_beginning(f"{PROC}/self/task/{thread}/comm").decode(errors="replace").strip())
    return sorted(names)
