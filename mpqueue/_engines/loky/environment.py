"""The environment variables that a worker starts with, over and above those of the parent."""

from __future__ import annotations

from collections.abc import Mapping

from mpqueue._parent.lane_protocol import LaneSettings
from mpqueue._wire.frames import THREAD_VARIABLES
from mpqueue._wire.seed import COOKIE_VARIABLE

#: Bytes of freed memory that a worker keeps for the next item, and up to which size what it asks for is taken from that
#: (32 MB are the most that glibc allows). By itself glibc may give back the memory of a picture after each picture, and
#: new pages cost a fifth of a thumbnail's time (docs/adr/0010).
KEPT_MEMORY, KEPT_SIZE = 64 << 20, 32 << 20
#: A worker with a limit keeps it where the limit is so many times as much.
KEPT_PART = 8


def worker_environment(settings: LaneSettings, cpus: int, cookie: str, inherited: Mapping[str, str]) -> dict[str, str]:
    """The variables for a worker: so many threads that all workers together keep the CPUs busy, and no more.

    What the user set himself (``inherited``) stands, but for the threads where he also gave ``threads_per_worker``.
    """
    threads = settings.threads_per_worker
    if threads is None:
        share = str(max(1, cpus // settings.concurrency))
        variables = {name: share for name in THREAD_VARIABLES if name not in inherited}
    else:
        variables = dict.fromkeys(THREAD_VARIABLES, str(threads))
    # loky replaces a worker that has grown by 300 MB, which loading a model does; memory limits are our business.
    # A number, since "inf" would overflow.
    variables |= {"LOKY_MAX_MEMORY_LEAK_SIZE": "1e18", COOKIE_VARIABLE: cookie, **settings.variables}
    return variables | _memory_variables(settings.max_memory, inherited)


def _memory_variables(limit: int | None, inherited: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that glibc's malloc reads as a process starts; other ones read nothing of it."""
    if limit is not None and limit < KEPT_PART * KEPT_MEMORY:
        return {}
    if any(name.startswith("MALLOC_") for name in inherited) or "glibc.malloc" in inherited.get("GLIBC_TUNABLES", ""):
        return {}
    return {"MALLOC_TRIM_THRESHOLD_": str(KEPT_MEMORY), "MALLOC_MMAP_THRESHOLD_": str(KEPT_SIZE)}
