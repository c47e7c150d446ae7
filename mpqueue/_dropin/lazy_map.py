"""`imap` and `imap_unordered`: results one by one while the work goes on, lazy at both ends.

The input is read on the consumer's thread, and only as far ahead as needed to keep the workers busy: an endless
generator works, memory stays constant, and when the consumer stops, reading stops.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, Unpack, cast, overload

from mpqueue._call_checks import check_one_iterable, iterator_of
from mpqueue._core.state.item_table import Failure
from mpqueue._declared import At, takes
from mpqueue._dropin.lent_queues import Loan, lend
from mpqueue._dropin.stream_results import Arrivals, StreamResults, ToRaise
from mpqueue._dropin.whole_map import enough_workers, read_call, record_of
from mpqueue._options import GivenOptions, OnItemError, check_on_error
from mpqueue._output.progress import DRAWING_WAIT_S, length_of, showing_stream
from mpqueue._parent.replies import Turns
from mpqueue._queue.growing_jobs import Stream, open_stream
from mpqueue._queue.job_items import R, T
from mpqueue.errors import TooManyFailuresError

if TYPE_CHECKING:
    from mpqueue._keywords import StreamKeywords
    from mpqueue._queue.job_items import Handler

F = TypeVar("F", bound=Callable[..., Any])
ON_ERROR = ("raise", "collect", "skip")


@overload
def imap(
    fn: Handler[T, R], items: Iterable[T], *, on_error: Literal["collect"], **options: Unpack[StreamKeywords]
) -> ItemIterator[R | BaseException]: ...
@overload
def imap(
    fn: Handler[T, R], items: Iterable[T], *, on_error: OnItemError = "raise", **options: Unpack[StreamKeywords]
) -> ItemIterator[R]: ...
@takes(GivenOptions, At.STREAM)
def imap(
    fn: Callable[[Any], Any],
    items: Iterable[Any],
    *more: object,
    on_error: OnItemError = "raise",
    **options: Any,
) -> ItemIterator[Any]:
    """Yield the results of ``fn`` over the items, in order, while the work goes on; also for ``async for``.

    Lazy at both ends: at most ``buffersize`` items are read ahead of the last result taken (None: as many as keep the
    workers busy for 0.25 s), so an endless input works. The other options are those of `map`. A failure is raised in
    its item's place, and the iterator goes on; ``on_error`` as in `map`, without ``"group"``. With ``max_failures`` it
    ends with `TooManyFailuresError` at the first failure beyond that number. If the input raises, the results of
    earlier items come first, then its error. The first items begin at once. ``progress`` is as in `map`; a bar has a
    total if the input has a length.

    With ``journal``, the path of a file, the same call, made again after it or the program has ended for any reason,
    runs only the missing items, and yields recorded results in their places. An item is recognized by its id
    (``item["id"]`` or ``item.id``) if the first item has one, else by its value, never by its position; equal items by
    their order. New items run; changed ones (another value with the same id, or another key, see `Rerun`) and failed
    ones run again. So do all items with another version of the function or ``rerun=Rerun(redo="all")``, and with
    ``redo="changed-code"`` those with results of other code. Items that are gone from the input stay in the journal. A
    result is yielded once it is on disk. ``job_id`` names the stream in the journal (None: the function's name). Such a
    call has workers of its own, see `map`; ``close()`` and the end of the loop wait until the journal is closed. Memory
    does not grow with the items, recorded or not. Raises `JournalError`; and, in the item's place, TypeError for an
    item without identity, and errors of ``key``.
    """
    check_one_iterable("imap", more)
    return _iterate("imap", fn, items, on_error, options, ordered=True)


def _typed_as(_: F) -> Callable[[Callable[..., Any]], F]:
    """For type checkers, the decorated function gets the types of the other one."""
    return lambda function: cast("F", function)


@_typed_as(imap)
@takes(GivenOptions, At.STREAM)
def imap_unordered(
    fn: Callable[[Any], Any],
    items: Iterable[Any],
    *more: object,
    on_error: OnItemError = "raise",
    **options: Any,
) -> ItemIterator[Any]:
    """Like `imap`, in the order in which the items end: no result waits for a slower one.

    With ``journal``, recorded results come as soon as their items are read. `imap` with the same function or ``job_id``
    is the same stream.
    """
    check_one_iterable("imap_unordered", more)
    return _iterate("imap_unordered", fn, items, on_error, options, ordered=False)


def _iterate(
    name: str,
    fn: Callable[[Any], Any],
    items: Iterable[Any],
    on_error: OnItemError,
    options: dict[str, Any],
    *,
    ordered: bool,
) -> ItemIterator[Any]:
    check_on_error(on_error, ON_ERROR)
    asked, engine, of_call = read_call(f"mpqueue.{name}", At.STREAM, options)
    job = dataclasses.replace(of_call, max_failures=None)  # it ends itself
    if (record := record_of("imap", fn, asked)) is not None:
        from mpqueue._queue.recorded.record_options import Rerun, check_of_stream  # only journals need it

        check_of_stream(asked.rerun or Rerun())
    showing = showing_stream(asked.progress, fn, items)
    iterator = iterator_of(items)
    workers = enough_workers(job.max_lanes, length_of(items))
    lent, arrivals = lend(workers, asked, engine), Arrivals(ordered)
    queue = lent.queue

    def window() -> int:
        return asked.buffersize or stream.window(workers or lent.count_workers())  # there may be more of them later

    try:
        if record is None:
            stream = open_stream(queue, fn, arrivals.news.put, job, showing=showing)
        else:  # only journals need it
            from mpqueue._queue.recorded.growing_record import open_recorded_stream

            job_id, names_one = record
            stream = open_recorded_stream(
                queue, job_id, fn, arrivals.news.put, job, asked, names_one=names_one, showing=showing
            )
        made: ItemIterator[Any] = ItemIterator(
            stream, arrivals, iterator, window, lent, on_error=on_error, max_failures=asked.max_failures
        )
    except BaseException:
        lent.end(kill=True)
        lent.await_end()
        raise
    while made._read() and arrivals.news.is_empty():  # the work begins before the first result is requested
        pass
    return made


class ItemIterator(StreamResults[R]):
    """The results of one `imap`, also for ``async for``. A failed item raises in its place, and the iterator goes on.

    ``close`` and ``aclose`` (by `contextlib.closing` and `contextlib.aclosing`), or dropping the last reference, end
    the work and its running items. Any number of threads may read, or one coroutine. The input is read by one of the
    readers at a time: while the input makes it wait, results wait too.
    """

    def __init__(
        self,
        stream: Stream,
        arrivals: Arrivals,
        items: Iterator[Any],
        window: Callable[[], int],
        lent: Loan,
        *,
        on_error: OnItemError,
        max_failures: int | None,
    ) -> None:
        self._on_error = on_error
        self._max_failures = max_failures
        self._failed = 0
        self._one_too_many: Failure | None = None  #: the error that ends it, by ``max_failures``
        super().__init__(stream, arrivals, items, window, lent)
        self._turns = Turns(self._now)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> R:
        await self._turns.give()  # before an outcome is taken, so that an interrupted turn loses none
        while True:
            for outcome in self._block:
                if type(outcome) is ToRaise:  # as in `__next__`
                    error, outcome.error = outcome.error, None
                    try:
                        del self, outcome
                        raise error
                    finally:
                        del error
                return outcome  # type: ignore[no-any-return]
            self._end_block()
            await self._turns.give()
            while not self._begin_block():
                if self._is_closed:
                    if self._all_done:
                        await self._stream.run._await_last_call_later()
                    await self._lent.await_end_later()
                    self._raise_input_error()
                    raise StopAsyncIteration
                if self._read():
                    await self._turns.give()
                else:
                    self._expect()
                    await self._arrivals.news.wait_later()

    # -- failures -----------------------------------------------------------------------------------------------

    def _treated(self, outcomes: list[Any]) -> list[Any]:
        if Failure not in map(type, outcomes):
            return outcomes
        treated = []
        for outcome in outcomes:
            if type(outcome) is not Failure:
                treated.append(outcome)
                continue
            self._failed += 1
            if self._max_failures is not None and self._failed > self._max_failures:
                self._one_too_many = Failure(self._too_many(outcome))
                return [*treated, self._one_too_many]
            if self._on_error == "raise":
                treated.append(outcome)
            elif self._on_error == "collect":
                treated.append(outcome.error)
        return treated

    def _error_of(self, failure: Failure) -> BaseException:
        if failure is self._one_too_many:  # the type is no proof: a handler may raise it too
            self._one_too_many = None
            self._close()
        return failure.error

    def _too_many(self, last: Failure) -> TooManyFailuresError:
        error = TooManyFailuresError(
            f"{self._failed} items failed, which is more than max_failures={self._max_failures}; the last one: "
            f"{last.shown}. What had not run by then was not run."
        )
        error.__cause__ = last.error
        return error

    # -- the end ---------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End the work: waiting items do not run, running ones are killed. Idempotent.

        Waits up to 1 s until a function given as ``progress`` has got the last state, and with a journal until that is
        closed. Raises `JournalError` if not all of it could be written.
        """
        self._close()
        self._stream.run._await_last_call(DRAWING_WAIT_S)
        self._lent.await_end()

    async def aclose(self) -> None:
        """`close`, for `contextlib.aclosing`: the event loop goes on meanwhile."""
        self._close()
        await self._stream.run._await_last_call_later(DRAWING_WAIT_S)
        await self._lent.await_end_later()
