"""`imap` and `imap_unordered`: results one by one while the work goes on, lazy at both ends."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Sized
from typing import Any, Literal, TypeVar, Unpack, overload

from mpqueue._dropin.map.input_reader import InputReader
from mpqueue._dropin.map.item_iterator import ItemIterator
from mpqueue._dropin.map.map_options import (
    OnItemError,
    StreamOptions,
    check_on_error,
    check_optional_count,
    enough_workers,
    job_options,
)
from mpqueue._dropin.shared_pool import shared_pool
from mpqueue._engines.loky.loky_pool import count_cpus
from mpqueue._options import JobOptions
from mpqueue._output.progress import ShowProgress, showing_stream
from mpqueue._queue.run import Ended
from mpqueue._queue.stream import Stream, open_stream
from mpqueue.retry import RetryPolicy

T = TypeVar("T")
R = TypeVar("R")
ON_ERROR = ("raise", "collect", "skip")


@overload
def imap(
    fn: Callable[[T], Coroutine[Any, Any, R]],
    items: Iterable[T],
    *,
    on_error: Literal["collect"],
    **options: Unpack[StreamOptions],
) -> ItemIterator[R | BaseException]: ...
@overload
def imap(
    fn: Callable[[T], Coroutine[Any, Any, R]],
    items: Iterable[T],
    *,
    on_error: OnItemError = "raise",
    **options: Unpack[StreamOptions],
) -> ItemIterator[R]: ...
@overload
def imap(
    fn: Callable[[T], R], items: Iterable[T], *, on_error: Literal["collect"], **options: Unpack[StreamOptions]
) -> ItemIterator[R | BaseException]: ...
@overload
def imap(
    fn: Callable[[T], R], items: Iterable[T], *, on_error: OnItemError = "raise", **options: Unpack[StreamOptions]
) -> ItemIterator[R]: ...
def imap(
    fn: Callable[[Any], Any],
    items: Iterable[Any],
    *,
    concurrency: int | None = None,
    max_retries: int | None = None,
    retry: RetryPolicy | None = None,
    timeout: float | None = None,
    chunksize: int | None = None,
    buffersize: int | None = None,
    progress: ShowProgress = False,
    on_error: OnItemError = "raise",
    max_failures: int | None = None,
    seed: int | None = None,
) -> ItemIterator[Any]:
    """The results of ``fn`` over the items, in order, one by one while the work goes on; also for ``async for``.

    Lazy at both ends: at most ``buffersize`` items are read ahead of the result that was taken last (None: as many as
    keep the workers busy for a quarter of a second), so an endless input works. The other options are those of `map`.
    A failure is raised in its item's place, and the iterator goes on; ``on_error`` as in `map`, without ``"group"``.
    With ``max_failures`` it ends, with `TooManyFailuresError`, at the first failure beyond so many. A generator that
    raises delivers what came before it, then its error. The first items begin at once. ``progress`` is as in `map`; a
    bar has a total where the input has a length.
    """
    job = job_options("imap", concurrency, max_retries, retry, timeout, chunksize, seed)
    return _iterate(fn, items, job, True, buffersize, on_error, max_failures, progress)


@overload
def imap_unordered(
    fn: Callable[[T], Coroutine[Any, Any, R]],
    items: Iterable[T],
    *,
    on_error: Literal["collect"],
    **options: Unpack[StreamOptions],
) -> ItemIterator[R | BaseException]: ...
@overload
def imap_unordered(
    fn: Callable[[T], Coroutine[Any, Any, R]],
    items: Iterable[T],
    *,
    on_error: OnItemError = "raise",
    **options: Unpack[StreamOptions],
) -> ItemIterator[R]: ...
@overload
def imap_unordered(
    fn: Callable[[T], R], items: Iterable[T], *, on_error: Literal["collect"], **options: Unpack[StreamOptions]
) -> ItemIterator[R | BaseException]: ...
@overload
def imap_unordered(
    fn: Callable[[T], R], items: Iterable[T], *, on_error: OnItemError = "raise", **options: Unpack[StreamOptions]
) -> ItemIterator[R]: ...
def imap_unordered(
    fn: Callable[[Any], Any],
    items: Iterable[Any],
    *,
    concurrency: int | None = None,
    max_retries: int | None = None,
    retry: RetryPolicy | None = None,
    timeout: float | None = None,
    chunksize: int | None = None,
    buffersize: int | None = None,
    progress: ShowProgress = False,
    on_error: OnItemError = "raise",
    max_failures: int | None = None,
    seed: int | None = None,
) -> ItemIterator[Any]:
    """Like `imap`, in the order in which the items end: no result waits for a slower one."""
    job = job_options("imap_unordered", concurrency, max_retries, retry, timeout, chunksize, seed)
    return _iterate(fn, items, job, False, buffersize, on_error, max_failures, progress)


def _iterate(
    fn: Callable[[Any], Any],
    items: Iterable[Any],
    job: JobOptions,
    ordered: bool,
    buffersize: int | None,
    on_error: OnItemError,
    max_failures: int | None,
    progress: ShowProgress,
) -> ItemIterator[Any]:
    check_on_error(on_error, ON_ERROR)
    check_optional_count("buffersize", buffersize, low=1)
    check_optional_count("max_failures", max_failures, low=0)
    showing = showing_stream(progress, fn, items)
    iterator = iter(items)
    workers = enough_workers(job.max_lanes, len(items) if isinstance(items, Sized) else None)
    queue = shared_pool.borrow(workers)

    def open_(on_ended: Callable[[Ended], None]) -> Stream:
        return open_stream(queue, fn, on_ended, job, showing=showing)

    try:
        made: ItemIterator[Any] = ItemIterator(
            open_,
            InputReader(iterator, queue._host.now),
            ordered=ordered,
            on_error=on_error,
            window=lambda stream: buffersize or stream.window(workers or count_cpus()),
            max_failures=max_failures,
            give_back=lambda: shared_pool.give_back(queue),
            await_told=queue._host.await_told,
        )
    except BaseException:
        shared_pool.give_back(queue)
        raise
    made._start()
    return made
