"""`map` and `starmap`: the whole batch, then its results; and `amap`, the same for coroutines.

They share one warm pool, see `mpqueue.dropin.shared_pool`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal, TypeVar

from mpqueue._core.item_table import Failure
from mpqueue.dropin.batch import start_batch
from mpqueue.dropin.policy import DROPIN_RETRY
from mpqueue.dropin.shared_pool import shared_pool
from mpqueue.errors import TooManyFailuresError
from mpqueue.options import check_timeout, choose_policy, refuse_until_built
from mpqueue.queue import JobQueue
from mpqueue.retry import RetryPolicy, check_number
from mpqueue.run import Ended, JobRun

T = TypeVar("T")
R = TypeVar("R")
OnError = Literal["raise", "collect", "skip", "group"]
ON_ERROR = ("raise", "collect", "skip", "group")


def map(  # noqa: A001 - the name that people know
    fn: Callable[[T], R],
    items: Iterable[T],
    *,
    concurrency: int | None = None,
    max_retries: int | None = None,
    retry: RetryPolicy | None = None,
    timeout: float | None = None,
    chunksize: int | None = None,
    progress: bool = False,
    on_error: OnError = "raise",
    max_failures: int | None = None,
    journal: str | None = None,
) -> list[R]:
    """``[fn(item) for item in items]`` on all cores; a worker that dies costs its item one try, and nothing else.

    A call that raises is tried again, ``max_retries`` (3) times after the first, after 0.1, 0.2 and 0.4 s; say
    ``max_retries=0`` for once only, or give a ``retry`` policy. ``timeout`` is seconds a try. ``concurrency`` caps the
    workers (None: one for each CPU). ``chunksize`` is how many items travel together (None: as many as take 20 ms).

    Items that fail for good, by ``on_error``: ``"raise"``: after all is done, the first failure in item order is
    raised as itself, with a note that names its item and the others; ``"collect"``: the exception stands in the
    result's place; ``"skip"``: they are left out; ``"group"``: an `ExceptionGroup` of all is raised. With
    ``max_failures`` the work ends as soon as more than so many items have failed, with `TooManyFailuresError`.

    An interruption (Ctrl-C) ends the running items, and goes on.
    """
    refuse_until_built(progress=progress or None, journal=journal)
    _check_on_error(on_error, max_failures)
    check_timeout(timeout)
    policy = choose_policy("map", max_retries, retry, delays=DROPIN_RETRY) or DROPIN_RETRY
    with shared_pool.lease(concurrency) as queue:
        watch = FailureWatch(queue, max_failures)
        run = start_batch(
            queue,
            fn,
            items,
            retry=policy,
            timeout=timeout,
            chunksize=chunksize,
            max_workers=concurrency,
            on_ended=watch.on_ended,
        )
        watch.run = run
        try:
            run.result()
        except BaseException:
            run.kill()
            raise
    return outcomes(run, on_error, watch)


def starmap(fn: Callable[..., R], items: Iterable[Iterable[Any]], **options: Any) -> list[R]:
    """Like `map`, for items that are tuples of arguments: ``[fn(*item) for item in items]``."""
    return map(StarCall(fn), items, **options)


async def amap(
    fn: Callable[[T], R],
    items: Iterable[T],
    *,
    concurrency: int | None = None,
    max_retries: int | None = None,
    retry: RetryPolicy | None = None,
    timeout: float | None = None,
    chunksize: int | None = None,
    on_error: OnError = "raise",
    max_failures: int | None = None,
) -> list[R]:
    """Like `map`, for coroutines: does not block the loop. Cancelling it ends its work and its running items.

    Works in asyncio, and in trio.
    """
    _check_on_error(on_error, max_failures)
    check_timeout(timeout)
    policy = choose_policy("amap", max_retries, retry, delays=DROPIN_RETRY) or DROPIN_RETRY
    with shared_pool.lease(concurrency) as queue:
        watch = FailureWatch(queue, max_failures)
        run = watch.run = start_batch(
            queue,
            fn,
            items,
            retry=policy,
            timeout=timeout,
            chunksize=chunksize,
            max_workers=concurrency,
            on_ended=watch.on_ended,
        )
        try:
            await run
        except BaseException:
            run.kill()
            raise
    return outcomes(run, on_error, watch)


class StarCall:
    """Calls a function with an item's entries as its arguments."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.fn = fn

    def __call__(self, item: Iterable[Any]) -> Any:
        """``fn(*item)``."""
        return self.fn(*item)


class FailureWatch:
    """Ends a run when more than ``limit`` of its items have failed."""

    def __init__(self, queue: JobQueue, limit: int | None) -> None:
        self._queue = queue
        self._limit = limit
        self.run: JobRun | None = None
        self.exceeded = False

    def on_ended(self, ended: Ended) -> None:
        """On the coordinator's thread: items ended."""
        run = self.run
        if ended is None or self._limit is None or self.exceeded or run is None:
            return
        if run.job.failed > self._limit:
            self.exceeded = True
            run.kill()


def outcomes(run: JobRun, on_error: OnError, watch: FailureWatch | None = None) -> list[Any]:
    """What a finished batch returns, or raises."""
    results, failures = run.outcomes()
    if watch is not None and watch.exceeded:
        first = min(failures)
        raise TooManyFailuresError(
            f"{len(failures)} items failed, which is more than max_failures; the first is item {first}: "
            f"{failures[first].message}. The rest was not run."
        ) from failures[first].error
    if not failures or on_error == "collect":
        for index, failure in failures.items():
            results[index] = failure.error
        return results
    if on_error == "skip":
        return [result for index, result in enumerate(results) if index not in failures]
    errors = [failures[index].error for index in sorted(failures)]
    if on_error == "group":
        raise BaseExceptionGroup(f"{len(errors)} of {len(results)} items failed", errors)
    raise with_note(errors[0], failures)


def with_note(error: BaseException, failures: dict[int, Failure]) -> BaseException:
    """The error, with a note that names its item, and how many others failed."""
    first, *others = sorted(failures)
    note = f"mpqueue: raised by item {first}"
    if others:
        named = ", ".join(str(index) for index in others[:10])
        note += f"; {len(others)} more failed: items {named}{', ...' if len(others) > 10 else ''}"
    error.add_note(note)
    return error


def _check_on_error(on_error: str, max_failures: int | None) -> None:
    if on_error not in ON_ERROR:
        raise ValueError(f"on_error: expected one of {', '.join(repr(value) for value in ON_ERROR)}, got {on_error!r}")
    if max_failures is not None:
        check_number("max_failures", max_failures, low=0, integer=True)
