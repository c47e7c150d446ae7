"""Tasks that stand for a queue's waiting items, so that an adaptive Dask cluster is as large as they need.

Dask's scheduler goes by the tasks that it knows: `adaptive_target` divides the time that they will take by the
``target_duration`` of the cluster, and asks for no more workers than there are tasks. Of a queue it knows one task
for each lane that works. So tasks that no worker can run stand for the items that wait: as many as these, up to `MOST`,
with the same time in all, by the average that the scheduler has of tasks of their name.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import uuid
from typing import TYPE_CHECKING, Any

from mpqueue._engines.dask import dask_side

if TYPE_CHECKING:
    from mpqueue._engines.dask.dask_pool import DaskPool

_log = logging.getLogger("mpqueue")

#: Tasks at most, each of which costs the scheduler 2 kB.
MOST = 1000
#: The resource that they need, which no worker has.
NOWHERE = "mpqueue-waits"


class Standins:
    """The stand-in tasks of one pool, on its event loop."""

    def __init__(self, pool: DaskPool) -> None:
        self._pool = pool
        self._name = f"mpqueue_waits_{uuid.uuid4().hex}"
        self._numbers = itertools.count()
        self._tasks: list[Any] = []
        self._demand = 0, 0.0
        self._told = 0.0  #: seconds of one task, as the scheduler knows them; 0: it does not
        self._is_telling = False

    def follow(self, lanes: int, seconds: float) -> None:
        """Follow the demand: items for so many lanes wait, and take so many seconds (0: that is not known)."""
        self._demand = lanes, seconds
        self.renew()

    def renew(self) -> None:
        """Let there be as many tasks as items wait, and as the queue could use workers."""
        if not self._is_telling:
            self._is_telling = True
            self._pool.run(self._tell())

    async def _tell(self) -> None:
        try:
            while (wanted := self._wanted()) != (len(self._tasks), self._told):
                await self._change(*wanted)
        except Exception as error:  # a cluster of a fixed size needs none of it
            _log.info("Dask does not know how much work waits: %r", error)
        finally:
            self._is_telling = False

    def _wanted(self) -> tuple[int, float]:
        lanes, seconds = self._demand
        most = self._pool.most_standins
        count = min(lanes, MOST) if most is None else min(lanes, MOST, most)
        return count, seconds / count if count and seconds else self._told

    async def _change(self, count: int, each: float) -> None:
        if each != self._told:
            await self._pool.client.run_on_scheduler(dask_side.expect, self._name, each)
            self._told = each
        del self._tasks[count:]  # which releases them
        if count > len(self._tasks):
            keys = [f"{self._name}-{next(self._numbers)}" for _ in range(count - len(self._tasks))]
            self._tasks += self._pool.client.map(
                dask_side.wait_for_items, keys, key=keys, resources={NOWHERE: 1}, pure=False, retries=0
            )

    def forget(self) -> None:
        """Forget the tasks: the scheduler is gone, and has forgotten them."""
        self._tasks.clear()
        self._told = 0.0

    async def end(self) -> None:
        """End the tasks: nothing waits any more."""
        self._demand = 0, 0.0
        had_any, self._tasks = bool(self._told or self._tasks), []
        if had_any:
            with contextlib.suppress(Exception):  # there is no scheduler any more
                await self._pool.client.run_on_scheduler(dask_side.expect, self._name, None)
