"""The choice of the workers of a Dask cluster that a queue may use."""

from __future__ import annotations

import math
from typing import Any

from mpqueue._engines.dask.dask_side import WorkerThere
from mpqueue._text import shown


class Choice:
    """A user's choice: ``workers`` by names, addresses or hosts (None: all), with ``resources`` per slot.

    Raises TypeError or ValueError for anything else.
    """

    def __init__(self, workers: Any, resources: Any) -> None:
        if workers is not None and (isinstance(workers, str) or not all(isinstance(one, str | int) for one in workers)):
            raise TypeError(
                f"workers: expected a list of names, addresses or hosts of Dask workers, got {shown(workers)}"
            )
        for name, amount in (resources or {}).items():
            if isinstance(amount, bool) or not isinstance(amount, int | float) or not amount > 0:
                raise ValueError(f"resources: expected an amount above 0 for {name!r}, got {shown(amount)}")
        self._workers = None if workers is None else frozenset(workers)
        self._resources = dict(resources or {})

    def slots_of(self, address: str, worker: WorkerThere) -> int:
        """Return how many slots the worker has for this queue."""
        names = {address, address.partition("://")[2], worker.name, worker.host}
        if self._workers is not None and self._workers.isdisjoint(names):
            return 0
        fitting = [math.floor(worker.resources.get(name, 0.0) / amount) for name, amount in self._resources.items()]
        return min(worker.threads, *fitting) if fitting else worker.threads

    def __str__(self) -> str:
        said = [] if self._workers is None else [f"workers={sorted(self._workers, key=str)}"]
        return ", ".join([*said, *([f"resources={self._resources}"] if self._resources else [])])
