"""Processes that outlive the worker they come from: those that left its group, found by a cookie in their environment.

A worker's children die with its process group. One that made itself a group or a session of its own, or a program that
was started from it, escapes that; but its environment still names the lane that it came from::

    MPQUEUE_LANE=<parent's id>.<its start time>.<its pid namespace>/<pool>/<lane>/<generation>/

One that was given another environment is not found; nor is any where the system does not list processes, see
`mpqueue._os.process.process_table`. If no descriptor is left to look with, no process is killed: the next look
finds them.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
from collections.abc import Callable

from mpqueue._os.process.process_handle import open_exactly
from mpqueue._os.process.process_signals import KILL
from mpqueue._os.process.process_table import processes
from mpqueue._wire.seed import COOKIE_VARIABLE

_PATTERN = re.compile(rb"(?:^|\0)" + COOKIE_VARIABLE.encode() + rb"=((\d+)\.(\d+)\.([^/\0]*)/[^\0]*)")

#: How often to look again after having killed some: their children may have been born meanwhile.
_LOOKS = 3


def cookie(*path: int) -> str:
    """The cookie of everything under ``path``: pool, lane, generation, or fewer of these."""
    return "".join(f"{part}/" for part in (_identity(os.getpid()), *path))


@functools.lru_cache(maxsize=1)
def _identity(pid: int) -> str:
    return f"{pid}.{processes.start_time(pid)}.{processes.namespace()}"


def kill_strays(prefix: str) -> None:
    """SIGKILL every process whose cookie begins with ``prefix``, and `kill_orphans`.

    Reads the environment of each process of this user: 4 ms of CPU time for 140 of them.
    """
    wanted = prefix.encode()
    _kill_where(lambda found: found[1].startswith(wanted) or _is_orphan(found))


@functools.cache
def kill_orphans() -> None:
    """SIGKILL what workers left whose parent died without sweeping: killed, say, or with a machine out of memory.

    Once in this process; later calls do nothing.
    """
    _kill_where(_is_orphan)


def _is_orphan(found: re.Match[bytes]) -> bool:
    # Of another pid namespace (a container's), the parent's number means nothing here.
    return found[4].decode() == processes.namespace() and processes.start_time(int(found[2])) != int(found[3])


def _kill_where(condemned: Callable[[re.Match[bytes]], bool]) -> None:
    with contextlib.suppress(OSError):
        for _ in range(_LOOKS):
            any_killed = False
            for pid in processes.others():
                found = _cookie_of(pid)
                if found is not None and condemned(found):
                    any_killed |= _kill(pid, found[1])
            if not any_killed:
                return


def _kill(pid: int, of_cookie: bytes) -> bool:
    """SIGKILL that very process, or none if the number is another process's by now."""
    with contextlib.suppress(OSError), contextlib.closing(open_exactly(pid)) as process:
        found = _cookie_of(pid)
        if found is not None and found[1] == of_cookie:
            process.send(KILL)
            return True
    return False


def _cookie_of(pid: int) -> re.Match[bytes] | None:
    environment = processes.environment(pid)
    return None if environment is None else _PATTERN.search(environment)
