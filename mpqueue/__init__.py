"""mpqueue: run a function over many items in worker processes, and lose nothing.

Data flows in one direction, one arrow per step:

    user call -> queue (facade, emitter) -> coordinator (the one thread that owns all state) -> scheduler (pure logic)
              -> lanes (one per worker) -> worker process
              -> future -> coordinator -> scheduler -> job state -> listeners (their own thread)

Names that begin with ``_`` are private. `_queue` has the objects that users hold; `_dropin`, `_output`, `_report`,
`_live_page` and `_cli` are built on it. `_engines` run workers, each engine in its own folder; `_parent` is the
program's half and knows no engine; `_core` decides, and can run in any process; `_worker` runs in the workers, `_wire`
on both sides. `_os` has everything about the operating system. Names other than errors are resolved on first use, so
that a worker never loads the program's half.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# ruff: noqa: I001 - each name twice, so that type checkers let programs import it from here
from mpqueue import errors as errors
from mpqueue.errors import (
    GiveUp as GiveUp,
    HandlerPicklingError as HandlerPicklingError,
    InternalError as InternalError,
    ItemCancelledError as ItemCancelledError,
    ItemError as ItemError,
    ItemPicklingError as ItemPicklingError,
    ItemTimeoutError as ItemTimeoutError,
    JobExistsError as JobExistsError,
    JobFullError as JobFullError,
    JobNotFoundError as JobNotFoundError,
    JobStateError as JobStateError,
    JournalError as JournalError,
    JournalMismatchError as JournalMismatchError,
    MemoryLimitError as MemoryLimitError,
    MPQueueError as MPQueueError,
    QueueClosedError as QueueClosedError,
    RemoteError as RemoteError,
    ResultPicklingError as ResultPicklingError,
    Retry as Retry,
    SetupError as SetupError,
    SinkError as SinkError,
    StageError as StageError,
    TooManyFailuresError as TooManyFailuresError,
    WorkerCrashedError as WorkerCrashedError,
    WorkerStartError as WorkerStartError,
)

if TYPE_CHECKING:
    from mpqueue import (
        backends as backends,
        events as events,
        joblib_backend as joblib_backend,
        otel as otel,
        pandas as pandas,
        retry as retry,
        sinks as sinks,
        status as status,
        testing as testing,
    )
    from mpqueue._core.state.item_table import FailedTry as FailedTry
    from mpqueue._dropin.lazy_map import imap as imap, imap_unordered as imap_unordered
    from mpqueue._dropin.process_executor import Executor as Executor
    from mpqueue._dropin.process_pool import Pool as Pool
    from mpqueue._dropin.whole_map import amap as amap, map as map, stages as stages, starmap as starmap  # noqa: A004
    from mpqueue._output.failure_groups import FailureGroup as FailureGroup
    from mpqueue._output.job_facts import Progress as Progress
    from mpqueue._queue.growing_jobs import Stage as Stage
    from mpqueue._queue.job import Job as Job
    from mpqueue._queue.job_items import JobItem as JobItem
    from mpqueue._queue.job_queue import JobQueue as JobQueue
    from mpqueue._queue.recorded.record_options import content_key as content_key, file_key as file_key
    from mpqueue._queue.recorded.job_record import JobPlan as JobPlan
    from mpqueue._queue.recorded.record_options import Rerun as Rerun
    from mpqueue._queue.run import JobRun as JobRun
    from mpqueue._wire.memory.shared import Shared as Shared, share as share
    from mpqueue._worker.handlers.current_item import CurrentItem as CurrentItem, current_item as current_item
    from mpqueue.events import (
        ItemRetry as ItemRetry,
        JobFinished as JobFinished,
        JobProgress as JobProgress,
        JobStarted as JobStarted,
    )
    from mpqueue.retry import RetryPolicy as RetryPolicy
    from mpqueue.status import (
        ItemStatus as ItemStatus,
        JobStatus as JobStatus,
        Pruned as Pruned,
        QueueStats as QueueStats,
    )

__version__ = "1.0.0rc1"

_HOMES = {
    "mpqueue._core.state.item_table": ("FailedTry",),
    "mpqueue._worker.handlers.current_item": ("CurrentItem", "current_item"),
    "mpqueue._wire.memory.shared": ("Shared", "share"),
    "mpqueue._dropin.process_executor": ("Executor",),
    "mpqueue._dropin.lazy_map": ("imap", "imap_unordered"),
    "mpqueue._dropin.whole_map": ("amap", "map", "stages", "starmap"),
    "mpqueue._dropin.process_pool": ("Pool",),
    "mpqueue.events": ("ItemRetry", "JobFinished", "JobProgress", "JobStarted"),
    "mpqueue._queue.recorded.record_options": ("Rerun", "content_key", "file_key"),
    "mpqueue._queue.recorded.job_record": ("JobPlan",),
    "mpqueue._queue.growing_jobs": ("Stage",),
    "mpqueue._queue.job": ("Job", "JobItem"),
    "mpqueue._output.failure_groups": ("FailureGroup",),
    "mpqueue._output.job_facts": ("Progress",),
    "mpqueue._queue.job_queue": ("JobQueue",),
    "mpqueue.retry": ("RetryPolicy",),
    "mpqueue._queue.run": ("JobRun",),
    "mpqueue.status": ("ItemStatus", "JobStatus", "Pruned", "QueueStats"),
}
#: Modules that are available without an import by name.
_MODULES = ("backends", "errors", "events", "joblib_backend", "otel", "pandas", "retry", "sinks", "status", "testing")
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

if not TYPE_CHECKING:  # otherwise each misspelled name would have a type, and `import *` would get no names
    __all__ = sorted([*_HOME_OF, *(name for name in errors.__all__ if name in globals())])  # noqa: PLE0605

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
