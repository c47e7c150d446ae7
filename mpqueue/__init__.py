"""mpqueue: run a function over many items in worker processes, and lose nothing.

Data flows in one direction, one arrow per step:

    user call -> queue (facade, emitter) -> coordinator (the one thread that owns all state) -> scheduler (pure logic)
              -> lanes (one per worker) -> worker process
              -> future -> coordinator -> scheduler -> job state -> listeners (their own thread)

Names that begin with ``_`` are private. `_queue` has the objects that users hold; `_dropin`, `_output`, `_report`,
`_live_page` and `_cli` are built on it. `_engines` run workers, each engine in its own folder; `_parent` is the
program's half and knows no engine; `_core` decides, and can run in any process; `_worker` runs in the workers, `_wire`
on both sides. `_os` has everything about the operating system. Names are resolved on first use, so that a worker never
loads the program's half.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mpqueue import backends as backends
    from mpqueue import errors as errors
    from mpqueue import events as events
    from mpqueue import joblib_backend as joblib_backend
    from mpqueue import otel as otel
    from mpqueue import pandas as pandas
    from mpqueue import retry as retry
    from mpqueue import sinks as sinks
    from mpqueue import status as status
    from mpqueue import testing as testing
    from mpqueue._core.state.item_table import FailedTry
    from mpqueue._dropin.lazy_map import imap, imap_unordered
    from mpqueue._dropin.process_executor import Executor
    from mpqueue._dropin.process_pool import Pool
    from mpqueue._dropin.whole_map import amap, map, stages, starmap  # noqa: A004 - the name that people know
    from mpqueue._output.failure_groups import FailureGroup
    from mpqueue._output.job_facts import Progress
    from mpqueue._queue.growing.stages import Stage
    from mpqueue._queue.job import Job
    from mpqueue._queue.job_items import JobItem
    from mpqueue._queue.job_queue import JobQueue
    from mpqueue._queue.recorded.item_keys import content_key, file_key
    from mpqueue._queue.recorded.job_plan import JobPlan
    from mpqueue._queue.recorded.record_options import Rerun
    from mpqueue._queue.run import JobRun
    from mpqueue._wire.memory.shared import Shared, share
    from mpqueue._worker.handlers.current_item import CurrentItem, current_item
    from mpqueue.errors import (
        GiveUp,
        HandlerPicklingError,
        InternalError,
        ItemCancelledError,
        ItemError,
        ItemPicklingError,
        ItemTimeoutError,
        JobExistsError,
        JobFullError,
        JobNotFoundError,
        JobStateError,
        JournalError,
        JournalMismatchError,
        MemoryLimitError,
        MPQueueError,
        QueueClosedError,
        RemoteError,
        ResultPicklingError,
        Retry,
        SetupError,
        SinkError,
        StageError,
        TooManyFailuresError,
        WorkerCrashedError,
        WorkerStartError,
    )
    from mpqueue.events import ItemRetry, JobFinished, JobProgress, JobStarted
    from mpqueue.retry import RetryPolicy
    from mpqueue.status import ItemStatus, JobStatus, Pruned, QueueStats

__version__ = "1.0.0rc1"

_HOMES = {
    "mpqueue._core.state.item_table": ("FailedTry",),
    "mpqueue._worker.handlers.current_item": ("CurrentItem", "current_item"),
    "mpqueue._wire.memory.shared": ("Shared", "share"),
    "mpqueue._dropin.process_executor": ("Executor",),
    "mpqueue._dropin.lazy_map": ("imap", "imap_unordered"),
    "mpqueue._dropin.whole_map": ("amap", "map", "stages", "starmap"),
    "mpqueue._dropin.process_pool": ("Pool",),
    "mpqueue.errors": (
        "GiveUp",
        "HandlerPicklingError",
        "InternalError",
        "ItemCancelledError",
        "ItemError",
        "ItemPicklingError",
        "ItemTimeoutError",
        "JobExistsError",
        "JobFullError",
        "JobNotFoundError",
        "JobStateError",
        "JournalError",
        "JournalMismatchError",
        "MPQueueError",
        "MemoryLimitError",
        "QueueClosedError",
        "RemoteError",
        "ResultPicklingError",
        "Retry",
        "SetupError",
        "SinkError",
        "StageError",
        "TooManyFailuresError",
        "WorkerCrashedError",
        "WorkerStartError",
    ),
    "mpqueue.events": ("ItemRetry", "JobFinished", "JobProgress", "JobStarted"),
    "mpqueue._queue.recorded.item_keys": ("content_key", "file_key"),
    "mpqueue._queue.recorded.job_plan": ("JobPlan",),
    "mpqueue._queue.recorded.record_options": ("Rerun",),
    "mpqueue._queue.growing.stages": ("Stage",),
    "mpqueue._queue.job": ("Job", "JobItem"),
    "mpqueue._output.failure_groups": ("FailureGroup",),
    "mpqueue._output.job_facts": ("Progress",),
    "mpqueue._queue.job_queue": ("JobQueue",),
    "mpqueue.retry": ("RetryPolicy",),
    "mpqueue._queue.run": ("JobRun",),
    "mpqueue.status": ("ItemStatus", "JobStatus", "Pruned", "QueueStats"),
}
#: Modules that are available without an import by name.
_MODULES = (
    *("backends", "errors", "events", "joblib_backend", "otel", "pandas", "retry", "sinks", "status", "testing"),
)
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "CurrentItem",
    "Executor",
    "FailedTry",
    "FailureGroup",
    "GiveUp",
    "HandlerPicklingError",
    "InternalError",
    "ItemCancelledError",
    "ItemError",
    "ItemPicklingError",
    "ItemRetry",
    "ItemStatus",
    "ItemTimeoutError",
    "Job",
    "JobExistsError",
    "JobFinished",
    "JobFullError",
    "JobItem",
    "JobNotFoundError",
    "JobPlan",
    "JobProgress",
    "JobQueue",
    "JobRun",
    "JobStarted",
    "JobStateError",
    "JobStatus",
    "JournalError",
    "JournalMismatchError",
    "MPQueueError",
    "MemoryLimitError",
    "Pool",
    "Progress",
    "Pruned",
    "QueueClosedError",
    "QueueStats",
    "RemoteError",
    "Rerun",
    "ResultPicklingError",
    "Retry",
    "RetryPolicy",
    "SetupError",
    "Shared",
    "SinkError",
    "Stage",
    "StageError",
    "TooManyFailuresError",
    "WorkerCrashedError",
    "WorkerStartError",
    "amap",
    "content_key",
    "current_item",
    "file_key",
    "imap",
    "imap_unordered",
    "map",
    "share",
    "stages",
    "starmap",
]


if not TYPE_CHECKING:  # otherwise each misspelled name would have a type

    def __getattr__(name: str) -> Any:
        if name in _MODULES:
            return importlib.import_module(f"mpqueue.{name}")
        home = _HOME_OF.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(home), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
