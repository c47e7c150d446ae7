"""`map` and `starmap`: a whole batch, then its results; `amap` for coroutines; `stages` for several functions.

They share one warm pool, see `mpqueue._dropin.lent_queues`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Unpack, overload

from mpqueue._call_checks import SEVERAL, check_callable, names_options
from mpqueue._core.state.item_table import read_all
from mpqueue._declared import At, read, takes
from mpqueue._dropin.batch import ON_ERROR, OWN_NAMES, Batch, Later, RecordAs, enough_workers, job_options, start_batch
from mpqueue._dropin.lent_queues import WarmQueue, queue_for
from mpqueue._options import GivenOptions, OnError, check_on_error
from mpqueue._output.progress import check_progress
from mpqueue._queue.recorded.record_options import record_options
from mpqueue._worker.handlers.called import StarCall

if TYPE_CHECKING:
    from mpqueue._keywords import MapKeywords, StagedMapKeywords
    from mpqueue._queue.growing.stages import Stage
    from mpqueue._queue.job_queue import JobQueue

T = TypeVar("T")
R = TypeVar("R")


@overload
def map(
    fn: Callable[[T], Later[R]], items: Iterable[T], *, on_error: Literal["collect"], **options: Unpack[MapKeywords]
) -> list[R | BaseException]: ...
@overload
def map(
    fn: Callable[[T], Later[R]], items: Iterable[T], *, on_error: OnError = "raise", **options: Unpack[MapKeywords]
) -> list[R]: ...
@overload
def map(
    fn: Callable[[T], R], items: Iterable[T], *, on_error: Literal["collect"], **options: Unpack[MapKeywords]
) -> list[R | BaseException]: ...
@overload
def map(
    fn: Callable[[T], R], items: Iterable[T], *, on_error: OnError = "raise", **options: Unpack[MapKeywords]
) -> list[R]: ...
@names_options("mpqueue.map", SEVERAL)
@takes(GivenOptions, At.MAP)
def map(
    fn: Callable[[Any], Any],
    items: Iterable[Any],
    *,
    on_error: OnError = "raise",
    **options: Any,
) -> list[Any]:
    """``[fn(item) for item in items]`` on all cores; if a worker dies, only its item loses a try.

    ``items`` is any iterable, as for the built-in `map` and ``Pool.map``: each character of a text is an item, and each
    key of a mapping. `create_job` refuses these.

    A call that raises is tried again, ``max_retries`` (3) times, after 0.1, 0.2 and 0.4 s; ``max_retries=0`` means one
    try, ``retry`` is a policy. ``timeout`` is in seconds per try. ``concurrency`` caps the workers (None: one per CPU).
    ``chunksize`` items are sent together (None: as many as take 45 ms).

    ``on_error`` is for items that fail for good. ``"raise"``: at the end, the first failure in item order is raised as
    itself, with a note that names its item and the others; ``"collect"``: the exception takes the result's place;
    ``"skip"``: they are left out; ``"group"``: an `ExceptionGroup` of all is raised. With ``max_failures`` the work
    ends with `TooManyFailuresError` as soon as more than that many items have failed.

    ``progress=True`` draws a bar on stderr if that is a terminal, or in a notebook, and writes a line every 5 s
    elsewhere, unless pytest runs or ``MPQUEUE_PROGRESS=0``. A callable gets a `Progress` 10 times per second and at the
    end, on a thread of the pool.

    With ``journal``, the path of a file, the same call, made again after the program has ended for any reason, runs
    only the missing items, see `JobQueue`. ``job_id`` names the call in the journal (None: the function's name). Other
    items are refused with `JournalMismatchError`, unless ``rerun=Rerun(update=True)`` allows the list to change from
    call to call; `Rerun` also sets which items run again. Ids are positions. Such a call has workers of its own.

    ``seed`` makes ``current_item().rng`` give the same numbers each time; None: different ones each time.

    ``backend`` is the engine that the call runs on, one of `mpqueue.backends`, such as a Dask cluster: such a call has
    a queue of its own, which is closed at its end, and takes all workers if ``concurrency`` is None. Options that the
    engine does not support raise ValueError.

    An interruption (Ctrl-C) ends the running items, and goes on.
    """
    return _map("map", fn, items, on_error, options)


@overload
def starmap(
    fn: Callable[..., Later[R]],
    items: Iterable[Iterable[Any]],
    *,
    on_error: Literal["collect"],
    **options: Unpack[MapKeywords],
) -> list[R | BaseException]: ...
@overload
def starmap(
    fn: Callable[..., Later[R]],
    items: Iterable[Iterable[Any]],
    *,
    on_error: OnError = "raise",
    **options: Unpack[MapKeywords],
) -> list[R]: ...
@overload
def starmap(
    fn: Callable[..., R],
    items: Iterable[Iterable[Any]],
    *,
    on_error: Literal["collect"],
    **options: Unpack[MapKeywords],
) -> list[R | BaseException]: ...
@overload
def starmap(
    fn: Callable[..., R], items: Iterable[Iterable[Any]], *, on_error: OnError = "raise", **options: Unpack[MapKeywords]
) -> list[R]: ...
@takes(GivenOptions, At.MAP)
def starmap(
    fn: Callable[..., Any], items: Iterable[Iterable[Any]], *, on_error: OnError = "raise", **options: Any
) -> list[Any]:
    """Like `map`, for items that are tuples of arguments: ``[fn(*item) for item in items]``."""
    check_callable(fn, "fn")
    return _map("starmap", StarCall(fn), items, on_error, options)


@overload
async def amap(
    fn: Callable[[T], Later[R]], items: Iterable[T], *, on_error: Literal["collect"], **options: Unpack[MapKeywords]
) -> list[R | BaseException]: ...
@overload
async def amap(
    fn: Callable[[T], Later[R]], items: Iterable[T], *, on_error: OnError = "raise", **options: Unpack[MapKeywords]
) -> list[R]: ...
@overload
async def amap(
    fn: Callable[[T], R], items: Iterable[T], *, on_error: Literal["collect"], **options: Unpack[MapKeywords]
) -> list[R | BaseException]: ...
@overload
async def amap(
    fn: Callable[[T], R], items: Iterable[T], *, on_error: OnError = "raise", **options: Unpack[MapKeywords]
) -> list[R]: ...
@takes(GivenOptions, At.MAP)
async def amap(
    fn: Callable[[Any], Any],
    items: Iterable[Any],
    *,
    on_error: OnError = "raise",
    **options: Any,
) -> list[Any]:
    """Like `map`, for coroutines: does not block the loop. Cancelling it ends its work and its running items.

    Works in asyncio and in trio. The items are read and copied at once, in the loop's thread; with ``journal`` they are
    also compared with the record there, about 500,000 items per second.
    """
    lend, begin = _prepare("amap", fn, items, on_error, options)
    async with lend() as queue:
        batch = begin(queue)
        with batch as run:
            await run
    return batch.outcomes(on_error)


def _map(
    name: str, fn: Callable[..., Any], items: Iterable[Any], on_error: OnError, options: dict[str, Any]
) -> list[Any]:
    lend, begin = _prepare(name, fn, items, on_error, options)
    with lend() as queue:
        batch = begin(queue)
        with batch as run:
            run._check_waiting_allowed(f"mpqueue.{name}()", instead="await mpqueue.amap(...)")
            run._await_job()
    return batch.outcomes(on_error)


def _prepare(
    name: str, fn: Callable[..., Any], items: Iterable[Any], on_error: OnError, options: dict[str, Any]
) -> tuple[Callable[[], WarmQueue | JobQueue], Callable[[JobQueue], Batch]]:
    """Check a call, and read its items; returns the loan of its queue, and the function that starts it there."""
    asked = read(GivenOptions, At.MAP, f"mpqueue.{name}", options, OWN_NAMES)
    check_progress(asked.progress)
    check_on_error(on_error, ON_ERROR)
    job, journal = job_options(name, asked), asked.journal
    options_of_record = record_options(asked.rerun, has_journal=journal is not None)
    record = None if journal is None else RecordAs(asked.job_id, options_of_record)
    rows, given = read_all(items), asked.seed is not None

    def begin(queue: JobQueue) -> Batch:
        start = partial(start_batch, queue, fn, rows, job, progress=asked.progress, record=record, seed_given=given)
        return Batch(start, asked.max_failures)

    return partial(queue_for, enough_workers(job.max_lanes, len(rows)), journal, asked.backend), begin


@takes(GivenOptions, At.STAGED_MAP)
def stages(
    items: Iterable[Any],
    stages: Sequence[Stage | Callable[..., Any]],
    *,
    on_error: OnError = "raise",
    **options: Unpack[StagedMapKeywords],
) -> list[Any]:
    """Run each item through several functions, on all cores; returns the results in the items' order.

    The value that a stage returns is the next one's item, and goes there as soon as it can; values that it yields are
    an item each. If a stage yields, an item's result is the list of all results made from it. See
    `JobQueue.run_stages`, and `Stage` for the options of one stage. ``max_retries`` (3, after 0.1, 0.2 and 0.4 s),
    ``retry`` and ``timeout`` apply to stages without their own. ``concurrency`` caps the workers of all stages together
    (None: one per CPU). ``progress`` shows a line for each stage. ``on_error`` and ``max_failures`` are as for `map`;
    the failure of an item is a `StageError` that names the stage. ``backend`` is as for `map`.

    An interruption (Ctrl-C) ends the running items, and goes on.
    """
    asked = read(GivenOptions, At.STAGED_MAP, "mpqueue.stages", options, ("items", "stages", "on_error"))
    check_progress(asked.progress)
    check_on_error(on_error, ON_ERROR)
    whole = job_options("stages", asked)
    given = read_all(items)
    with queue_for(whole.max_lanes, None, asked.backend) as queue:
        defaults = replace(queue._options, retry=whole.retry, timeout=whole.timeout)
        workers = whole.max_lanes
        start = partial(queue._host.start_stages, given, stages, asked, defaults, workers, progress=asked.progress)
        batch = Batch(start, asked.max_failures)
        with batch as run:
            run._check_waiting_allowed("mpqueue.stages()", instead="await asyncio.to_thread(mpqueue.stages, ...)")
            run._await_job()
    return batch.outcomes(on_error)
