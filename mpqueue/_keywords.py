"""The options that calls take, for type checkers; `make options` writes this out of `mpqueue._options`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    from mpqueue._core.state.resources import Uses
    from mpqueue._options import Concurrency
    from mpqueue._output.progress import ShowProgress
    from mpqueue._output.row_outlet import Results
    from mpqueue._parent.lane_protocol import Backend
    from mpqueue._queue.arguments import Cost
    from mpqueue._queue.recorded.record_options import Rerun
    from mpqueue._wire.item_names import Label
    from mpqueue.retry import RetryPolicy


class PerWorker(TypedDict, total=False):
    """The limits of ``JobQueue(per_worker=)``.

    ``threads``: Threads of numerical libraries (BLAS, OpenMP); None: CPUs / workers.
    ``items``: A worker is replaced after this many items.
    ``memory``: A worker with more private memory is replaced: bytes, or ``"2GB"``.
    ``setup_timeout``: The time that one run of a `setup` may take.
    """

    threads: int | None
    items: int | None
    memory: int | str | None
    setup_timeout: float | str | None


class QueueKeywords(TypedDict, total=False):
    """The options of `JobQueue`."""

    retry: RetryPolicy | None
    timeout: float | str | None
    progress_interval: float | str
    per_worker: PerWorker | None
    journal: str | os.PathLike[str] | None
    backend: str | Backend
    initializer: Callable[[], object] | None
    preload: Sequence[str] | Callable[[], object] | None
    resources: Mapping[str, int | str] | None
    gpu_env: bool


class StageKeywords(TypedDict, total=False):
    """The options of `Stage`."""

    chunksize: int | None
    capture_output: bool
    max_waiting: int | None
    concurrency: Concurrency
    max_retries: int | None
    retry: RetryPolicy | None
    timeout: float | str | None
    setup: Callable[[], Any] | None
    uses: Uses | None
    ordered: bool


class StagesKeywords(TypedDict, total=False):
    """The options of `run_stages`."""

    priority: int
    max_failures: int | None
    deadline: float | str | None
    profile: bool
    seed: int | None
    results: Results
    label: Label
    rerun: Rerun | None


class OneJobKeywords(StagesKeywords, total=False):
    """The keywords of both `create_job` and `open_job`."""

    chunksize: int | None
    capture_output: bool
    concurrency: Concurrency
    max_retries: int | None
    retry: RetryPolicy | None
    timeout: float | str | None
    uses: Uses | None
    replace: bool


class JobKeywords(OneJobKeywords, total=False):
    """The keywords of `create_job` that choose no overload."""

    cost: Cost


class OpenKeywords(OneJobKeywords, total=False):
    """The keywords of `open_job` that choose no overload."""

    max_waiting: int | None


class PoolKeywords(TypedDict, total=False):
    """The options of `Pool` and `Executor` beside those of the originals."""

    max_retries: int | None
    retry: RetryPolicy | None
    timeout: float | str | None
    seed: int | None
    backend: str | Backend
    progress: ShowProgress


class StagedMapKeywords(PoolKeywords, total=False):
    """The options of `mpqueue.stages`."""

    max_failures: int | None
    concurrency: Concurrency


class MapKeywords(StagedMapKeywords, total=False):
    """The options of `map`, `starmap` and `amap`."""

    chunksize: int | None
    rerun: Rerun | None
    journal: str | os.PathLike[str] | None
    job_id: str | None


class StreamKeywords(MapKeywords, total=False):
    """The options of `imap` and `imap_unordered`."""

    buffersize: int | None
