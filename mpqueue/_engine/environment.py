"""The environment variables that a worker starts with, over and above those of the parent."""

from __future__ import annotations

from collections.abc import Mapping

from mpqueue._engine.protocol import LaneSettings
from mpqueue._wire.seed import COOKIE_VARIABLE

#: What the numerical libraries read, while they are being imported, to know how many threads to start.
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)


def worker_environment(settings: LaneSettings, cpus: int, cookie: str, inherited: Mapping[str, str]) -> dict[str, str]:
    """The variables for a worker: so many threads that all workers together keep the CPUs busy, and no more.

    What the user set himself (``inherited``) stands, unless he also gave ``threads_per_worker``.
    """
    threads = settings.threads_per_worker
    if threads is None:
        share = str(max(1, cpus // settings.concurrency))
        variables = {name: share for name in THREAD_VARIABLES if name not in inherited}
    else:
        variables = dict.fromkeys(THREAD_VARIABLES, str(threads))
    # loky replaces a worker that has grown by 300 MB, which loading a model does; memory limits are our business.
    # A number, since "inf" would overflow.
    return {**variables, "LOKY_MAX_MEMORY_LEAK_SIZE": "1e18", COOKIE_VARIABLE: cookie}
