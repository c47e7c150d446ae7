"""`map` and `starmap`: a whole batch, then its results; `amap` for coroutines; `stages` for several functions.

They share one warm pool, see `mpqueue._dropin.lent_queues`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

from mpqueue._call_checks import check_callable, check_one_iterable
from mpqueue._core.state.item_table import ItemTable, read_all
from mpqueue._declared import At, read, takes
from mpqueue._dropin.lent_queues import Loan, lend
from mpqueue._options import GivenOptions, JobOptions, OnError, QueueOptions, check_on_error, job_options
from mpqueue._output.progress import Showing, ShowProgress, label_of
from mpqueue._parent.lane_protocol import Backend
from mpqueue._queue.arguments import check_job, choose_backend
from mpqueue._queue.job_items import R, T
from mpqueue._wire.item_names import IdRule
from mpqueue._wire.pickling.packed_functions import is_found
from mpqueue._worker.handlers.called import StarCall
from mpqueue.errors import QueueClosedError
from mpqueue.retry import RetryPolicy

if TYPE_CHECKING:
    from mpqueue._keywords import MapKeywords, StagedMapKeywords
    from mpqueue._queue.growing_jobs import Stage
    from mpqueue._queue.job_items import Handler, MaybeCoroutine
    from mpqueue._queue.job_queue import JobQueue
    from mpqueue._queue.run import JobRun


@overload
def map(
    fn: Handler[T, R], items: Iterable[T], *, on_error: Literal["collect"], **options: Unpack[MapKeywords]
) -> list[R | BaseException]: ...
@overload
def map(
    fn: Handler[T, R], items: Iterable[T], *, on_error: OnError = "raise", **options: Unpack[MapKeywords]
) -> list[R]: ...
@takes(GivenOptions, At.MAP)
def map(
    fn: Callable[[Any], Any],
    items: Iterable[Any],
    *more: object,
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
    check_one_iterable("map", more)
    return _map("map", fn, items, on_error, options)


@overload
def starmap(
    fn: Callable[..., MaybeCoroutine[R]],
    items: Iterable[Iterable[Any]],
    *,
    on_error: Literal["collect"],
    **options: Unpack[MapKeywords],
) -> list[R | BaseException]: ...
@overload
def starmap(
    fn: Callable[..., MaybeCoroutine[R]],
    items: Iterable[Iterable[Any]],
    *,
    on_error: OnError = "raise",
    **options: Unpack[MapKeywords],
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
    fn: Handler[T, R], items: Iterable[T], *, on_error: Literal["collect"], **options: Unpack[MapKeywords]
) -> list[R | BaseException]: ...
@overload
async def amap(
    fn: Handler[T, R], items: Iterable[T], *, on_error: OnError = "raise", **options: Unpack[MapKeywords]
) -> list[R]: ...
@takes(GivenOptions, At.MAP)
async def amap(
    fn: Callable[[Any], Any],
    items: Iterable[Any],
    *more: object,
    on_error: OnError = "raise",
    **options: Any,
) -> list[Any]:
    """Like `map`, for coroutines: does not block the loop. Cancelling it ends its work and its running items.

    Works in asyncio and in trio. The items are read and copied at once, in the loop's thread; with ``journal`` they are
    also compared with the record there, about 500,000 items per second.
    """
    check_one_iterable("amap", more)
    borrow, begin = _prepare("amap", fn, items, on_error, options)
    async with borrow() as queue:
        run = begin(queue)
        with ended_by_interruptions(run):
            await run
    return outcomes_of(run, on_error, options.get("max_failures"))


def _map(
    name: str, fn: Callable[..., Any], items: Iterable[Any], on_error: OnError, options: dict[str, Any]
) -> list[Any]:
    borrow, begin = _prepare(name, fn, items, on_error, options)
    with borrow() as queue:
        run = begin(queue)
        with ended_by_interruptions(run):
            run._check_waiting_allowed(f"mpqueue.{name}()", instead="await mpqueue.amap(...)")
            run._await_job()
    return outcomes_of(run, on_error, options.get("max_failures"))


def _prepare(
    name: str, fn: Callable[..., Any], items: Iterable[Any], on_error: OnError, options: dict[str, Any]
) -> tuple[Callable[[], Loan], Callable[[JobQueue], JobRun]]:
    """Check a call, and read its items; returns the loan of its queue, and the function that starts it there."""
    check_on_error(on_error, ON_ERROR)
    asked, engine, job = read_call(f"mpqueue.{name}", At.MAP, options)
    record = record_of("map", fn, asked)
    rows = read_all(items)

    def begin(queue: JobQueue) -> JobRun:
        if record is None:
            return start_batch(queue, fn, rows, job, progress=asked.progress)
        table, showing = ItemTable(rows, None, IdRule.POSITION), Showing(asked.progress, label_of(fn))
        job_id, names_one = record
        return queue._host.start_recorded(job_id, table, job, fn, asked, names_one=names_one, showing=showing)

    return partial(lend, enough_workers(job.max_lanes, len(rows)), asked, engine), begin


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
    check_on_error(on_error, ON_ERROR)
    asked, engine, whole = read_call("mpqueue.stages", At.STAGED_MAP, options, ("items", "stages", "on_error"))
    given = read_all(items)
    with lend(whole.max_lanes, asked, engine) as queue:
        defaults = replace(queue._options, retry=whole.retry, timeout=whole.timeout)
        run = queue._host.start_stages(given, stages, asked, defaults, whole.max_lanes, progress=asked.progress)
        with ended_by_interruptions(run):
            run._check_waiting_allowed("mpqueue.stages()", instead="await asyncio.to_thread(mpqueue.stages, ...)")
            run._await_job()
    return outcomes_of(run, on_error, asked.max_failures)


# -- A finite batch for the map-like drop-ins: an ordinary job on a given queue, whose ids are always positions. -------

ON_ERROR = ("raise", "collect", "skip", "group")


def record_of(kind: str, fn: Callable[..., Any], asked: GivenOptions) -> tuple[str, bool] | None:
    """Return the id by which a journal records such a call of ``fn``, and whether that stands for one function.

    Without ``job_id``, it is named after the function. None without a journal, for which it raises if one is needed.
    """
    if asked.journal is None and asked.rerun is None:
        return None
    from mpqueue._queue.recorded.record_options import check_rerun  # only journals need it

    check_rerun(asked.rerun, has_journal=asked.journal is not None)
    if asked.job_id is not None:
        return asked.job_id, True
    # Lambdas, closures, partials and methods of objects have no such name.
    return f"{kind} {name_of(fn)}", is_found(fn.function if isinstance(fn, StarCall) else fn)


def start_batch(
    queue: JobQueue,
    fn: Callable[..., Any],
    items: list[Any],
    options: JobOptions,
    *,
    progress: ShowProgress = False,
) -> JobRun:
    """Start ``fn`` over the items, a list that it takes over; the run has the `outcomes` by position.

    Raises `HandlerPicklingError`.
    """
    table = ItemTable(items, None, IdRule.POSITION)
    _, run = queue._host.start_table(table, options, fn, showing=Showing(progress, label_of(fn)))
    return run


def name_of(fn: Callable[..., Any]) -> str:
    """Return a function's name in a journal."""
    while isinstance(fn, partial | StarCall):
        fn = fn.func if isinstance(fn, partial) else fn.function
    named = fn if hasattr(fn, "__qualname__") else type(fn)
    home = getattr(named, "__objclass__", named)  # methods of built-in types have no module of their own
    return f"{home.__module__}.{named.__qualname__}"


@contextlib.contextmanager
def ended_by_interruptions(run: JobRun) -> Iterator[None]:
    """Cancel the job, and end its running items, if an interruption ends the wait for it in this block."""
    try:
        yield
    except BaseException:
        run._kill()
        run._end_bar()
        raise


def outcomes_of(run: JobRun, on_error: OnError, max_failures: int | None) -> list[Any]:
    """Return the value of the call that this run was, or raise its error."""
    results, failures = run._outcomes()
    if max_failures is not None and len(failures) > max_failures:
        raise run._too_many(failures, max_failures)
    if run.job.cancelled:
        raise QueueClosedError("the pool was closed while results were still to come")
    if not failures or on_error == "collect":
        for index, failure in failures.items():
            results[index] = failure.error
        return results
    if on_error == "skip":
        return [result for index, result in enumerate(results) if index not in failures]
    raise run._error_of(failures, on_error)


# -- The options of `map` and the like, and their other checks. --------------------------------------------------------

#: Three tries after the first, 0.1, 0.2 and 0.4 s apart: short enough for a script that a person waits for.
DROPIN_RETRY = RetryPolicy(max_retries=3, base_delay=0.1)

#: Arguments of `map` and the like beside the options.
OWN_NAMES = ("fn", "items", "on_error")


def read_call(
    public_name: str, at: At, given: Mapping[str, Any], own_names: tuple[str, ...] = OWN_NAMES
) -> tuple[GivenOptions, Backend, JobOptions]:
    """Return the options that a call or a pool was given, its engine, and the options of its job, or of all its calls.

    ``own_names`` are its other arguments. Raises TypeError or ValueError for options that it does not have, that the
    engine does not support, or that exclude each other.
    """
    asked = read(GivenOptions, at, public_name, given, own_names)
    engine = choose_backend(asked.backend)
    defaults = QueueOptions(concurrency=1, retry=DROPIN_RETRY)
    job = job_options(defaults, asked, where=public_name, count_cores=getattr(engine, "count_cores", None))
    check_job(engine, job)
    return asked, engine, replace(job, stops_at_once=True)


def enough_workers(concurrency: int | None, items: int | None) -> int | None:
    """Return how many workers a call with ``concurrency`` needs: no more than its items, if those are known."""
    return concurrency if concurrency is None or items is None else max(1, min(concurrency, items))
