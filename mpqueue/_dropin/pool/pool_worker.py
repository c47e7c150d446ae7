"""`PoolWorker`: one worker of a pool, as far as programs ask for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from mpqueue.errors import QueueClosedError

if TYPE_CHECKING:
    from mpqueue._queue.job_queue import JobQueue


class PoolWorker(NamedTuple):
    """Stands in for the `multiprocessing.Process` in the list of a pool's workers."""

    pid: int
    owner: JobQueue

    def is_alive(self) -> bool:
        """True while the pool has this worker."""
        try:
            return self.pid in self.owner.worker_pids()
        except QueueClosedError:
            return False
