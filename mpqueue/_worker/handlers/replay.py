"""One item run once more in this process, for example with its handler under a debugger.

The steps are those of a worker, setup included, except for those that make a process a worker: signals, limits, the
capture of output and of log records. The handler's errors are raised unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

from mpqueue._wire.frames import HandlerFrame
from mpqueue._wire.item_names import IdRule
from mpqueue._wire.memory.ledger import Ledger
from mpqueue._worker.exchange import make_context
from mpqueue._worker.handlers import current_item
from mpqueue._worker.handlers.loaded_jobs import LoadedJob
from mpqueue._worker.worker_links import WorkerLinks, as_worker

#: The number of no job.
NO_JOB = -1


def replay(frame: HandlerFrame, item: Any, index: int, attempt: int, slots: Sequence[int] = ()) -> Any:
    """Return the handler's result for the item at ``index``. Raises the errors of the handler, or of the setup."""
    ledger = cast("Ledger", SimpleNamespace(words={}, reals={}))  # it is not read
    links = WorkerLinks(0, 0, ledger, lambda _: (False, False), None, is_own_process=False)
    with as_worker(links):
        job = LoadedJob(NO_JOB, frame, make_context(links, shares_memory=True, is_in_program=True))
        try:
            running = current_item.Running(links, NO_JOB, frame.job_id, IdRule(frame.id_rule), frame.seed)
            running.items, running.indices, running.attempts = [item], [index], [attempt]
            running.slots, running.is_open = slots, frame.is_open  # items that it adds are dropped
            current_item.enter(links, running)
            return next(job.map([item], running.out))
        finally:
            job.close()
