"""The CPUs and GPUs that this worker has for the items at hand: for their inner threads, and to be seen by them."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import sys

from mpqueue._wire.frames import THREAD_VARIABLES, Means
from mpqueue._worker.station import Station


def take_up(station: Station, means: Means | None) -> None:
    """Give the worker these means, before anything is imported for the items."""
    station.uses = {} if means is None else means.uses
    if means is not None and means.variables:
        os.environ.update(means.variables)
    cpus = 1 if means is None else means.cpus
    if cpus != station.cpus and station.is_own_process:
        _set_threads(station, cpus)
    station.cpus = cpus


def _set_threads(station: Station, cpus: int) -> None:
    """Multiply the threads that a worker starts with: libraries imported later read them, those here are set."""
    if station.threads is None:
        station.threads = {name: int(text) for name in THREAD_VARIABLES if (text := os.environ.get(name, "")).isdigit()}
    os.environ.update((name, str(count * cpus)) for name, count in station.threads.items())
    count = max(station.threads.values(), default=1) * cpus
    with contextlib.suppress(Exception):  # what is of other versions than known here stays as it is
        if "numpy" in sys.modules and importlib.util.find_spec("threadpoolctl") is not None:
            importlib.import_module("threadpoolctl").threadpool_limits(count)
        if (torch := sys.modules.get("torch")) is not None:
            torch.set_num_threads(count)
