"""Processes that outlive the worker they come from: those that left its group, found by a cookie in their environment.

A worker's children die with its process group. One that made itself a session of its own, or a program that was
started from it, escapes that; but its environment still names the lane that it came from::

    MPQUEUE_LANE=<parent's id>.<its start time>.<its pid namespace>/<pool>/<lane>/<generation>/

One that was given another environment is not found. Linux only; elsewhere nothing is. Where no descriptor is left to
look with, nobody is killed: whoever looks next finds them.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator

from mpqueue._wire.seed import COOKIE_VARIABLE

_PATTERN = re.compile(rb"(?:^|\0)" + COOKIE_VARIABLE.encode() + rb"=((\d+)\.(\d+)\.([^/\0]*)/[^\0]*)")

#: How often to look again after having killed some: their children may have been born meanwhile.
_LOOKS = 3

#: A program that is just being loaded shows no environment yet: looks at it, seconds between them, and its age at most.
_EXEC_LOOKS = 10
_EXEC_PAUSE = 0.001
_YOUNG = 2.0


def cookie(*path: int) -> str:
    """The cookie of everything under ``path``: pool, lane, generation, or fewer of these."""
    return "".join(f"{part}/" for part in (_identity(os.getpid()), *path))


@functools.lru_cache(maxsize=1)
def _identity(pid: int) -> str:
    return f"{pid}.{_start_time(pid)}.{_namespace()}"


def kill_strays(prefix: str) -> None:
    """SIGKILL every process whose cookie begins with ``prefix``. Takes 1.3 ms when the machine has 140 processes."""
    wanted = prefix.encode()
    _kill_where(lambda found: found[1].startswith(wanted))


@functools.cache
def kill_orphans() -> None:
    """SIGKILL what workers left whose parent died without sweeping: killed, say, or with a machine out of memory.

    Once in this process; later calls do nothing.
    """

    def is_orphan(found: re.Match[bytes]) -> bool:
        # Of another pid namespace (a container's), the parent's number means nothing here.
        return found[4].decode() == _namespace() and _start_time(int(found[2])) != int(found[3])

    _kill_where(is_orphan)


def _kill_where(condemned: Callable[[re.Match[bytes]], bool]) -> None:
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError):
        for _ in range(_LOOKS):
            any_killed = False
            for pid in _others():
                found = _cookie_of(pid)
                if found is not None and condemned(found):
                    any_killed |= _kill(pid, found[1])
            if not any_killed:
                return


def _kill(pid: int, of_cookie: bytes) -> bool:
    """SIGKILL that very process, or nobody if the number is somebody else's by now."""
    if sys.platform != "linux":
        return False
    with contextlib.suppress(OSError):
        pidfd = os.pidfd_open(pid)
        try:
            found = _cookie_of(pid)
            if found is not None and found[1] == of_cookie:
                try:
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                except PermissionError:  # by a filter of system calls; it was that process a moment ago
                    os.kill(pid, signal.SIGKILL)
                return True
        finally:
            os.close(pidfd)
    return False


def _others() -> Iterator[int]:
    """All processes of this user but this one and those it descends from."""
    spared = set(_ancestors())
    user = os.geteuid()
    for name in os.listdir("/proc"):
        if name.isdecimal() and int(name) not in spared:
            with contextlib.suppress(OSError):
                if os.stat(f"/proc/{name}").st_uid == user:
                    yield int(name)


def _ancestors() -> Iterator[int]:
    pid = os.getpid()
    while pid > 0:
        yield pid
        fields = _stat(pid)
        pid = int(fields[1]) if fields else 0


def _cookie_of(pid: int) -> re.Match[bytes] | None:
    try:
        for _ in range(_EXEC_LOOKS):
            with open(f"/proc/{pid}/environ", "rb") as file:
                environ = file.read()
            if environ or not _may_be_in_exec(pid):
                return _PATTERN.search(environ)
            threading.Event().wait(_EXEC_PAUSE)
    except OSError:  # it ended, or is somebody else's
        pass
    return None


def _may_be_in_exec(pid: int) -> bool:
    """Whether a process without an environment is one that has just been started, and will have one in a moment."""
    os.readlink(f"/proc/{pid}/exe")  # raises for what has no program: the dead, and the kernel's own threads
    with open("/proc/uptime", encoding="ascii") as file:
        seconds = float(file.read().split()[0])
    return seconds - _start_time(pid) / os.sysconf("SC_CLK_TCK") < _YOUNG


def _start_time(pid: int) -> int:
    """In clock ticks since the machine started; 0 where there is no such process."""
    fields = _stat(pid)
    return int(fields[19]) if fields else 0


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on; the name before it may hold anything. None of the dead.

    Raises OSError where that can't be told, for want of a descriptor: whoever takes the living for dead kills theirs.
    """
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return []


@functools.lru_cache(maxsize=1)
def _namespace() -> str:
    try:
        return "".join(filter(str.isdecimal, os.readlink("/proc/self/ns/pid")))
    except OSError:
        return ""
