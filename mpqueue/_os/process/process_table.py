"""Facts about other processes: their numbers, start times and environments. Nothing is done to them.

On Linux they are read in /proc. Other systems report them only to a program that is run for it: there, no other
processes are known, and every process counts as ended. An unknown fact means nothing: no process may be killed for it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import threading
from collections.abc import Iterator

from mpqueue._os.system import PROC

if sys.platform == "win32":
    from mpqueue._os.windows import processes as windows

#: A program that is just being loaded shows no environment yet: the number of looks at it, seconds between them, and
#: its highest age.
_EXEC_LOOKS = 10
_EXEC_PAUSE = 0.001
_YOUNG = 2.0


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

    Waits for a process that has just been started, at most `_EXEC_LOOKS` times `_EXEC_PAUSE`.
    """
    try:
        for _ in range(_EXEC_LOOKS):
            with open(f"{PROC}/{pid}/environ", "rb") as file:
                environ = file.read()
            if environ or not _may_be_in_exec(pid):
                return environ
            threading.Event().wait(_EXEC_PAUSE)
    except OSError:  # it ended, or is another user's
        pass
    return None


def _may_be_in_exec(pid: int) -> bool:
    """Tell whether a process without an environment has just started, and will soon have one."""
    os.readlink(f"{PROC}/{pid}/exe")  # raises without a program: for dead ones, and the kernel's own
    with open(f"{PROC}/uptime", encoding="ascii") as file:
        seconds = float(file.read().split()[0])
    return seconds - start_time(pid) / os.sysconf("SC_CLK_TCK") < _YOUNG


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on; the name before it may hold any bytes. Dead processes have none.

    Raises OSError if it can't be read for lack of a descriptor: a living process must never count as dead.
    """
    try:
        with open(f"{PROC}/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()
    except (FileNotFoundError, NotADirectoryError, ProcessLookupError, PermissionError):
        return []
