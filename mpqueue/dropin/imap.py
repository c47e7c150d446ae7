"""`imap` and `imap_unordered`: results one by one while the work goes on, lazy at both ends.

The input is read on the consumer's thread, and only so far ahead as keeps the workers busy: an endless generator works,
memory stays constant, and when the consumer stops reading, so does the reading of the input.
"""

from __future__ import annotations

import itertools
import queue
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, Literal, Self, TypeVar

from mpqueue._core.item_table import Failure
from mpqueue.dropin.policy import DROPIN_RETRY
from mpqueue.dropin.shared_pool import shared_pool
from mpqueue.options import check_timeout, choose_policy
from mpqueue.queue import JobQueue
from mpqueue.retry import RetryPolicy, check_number
from mpqueue.run import Ended
from mpqueue.stream import Stream, open_stream

T = TypeVar("T")
R = TypeVar("R")
Missing = Literal["raise", "collect", "skip"]
ON_ERROR = ("raise", "collect", "skip")


class ItemIterator(Generic[R]):
    """The results of one `imap`. An item that failed raises in its place, and the iterator goes on behind it.

    ``close`` (or ``contextlib.closing``, or dropping the last reference) ends the work and its running items. One
    thread reads at a time.
    """

    def __init__(
        self,
        owner: JobQueue,
        open_: Callable[[Callable[[Ended], None]], Stream],
        items: Iterator[Any],
        *,
        ordered: bool,
        on_error: Missing,
        buffersize: int | None,
        give_back: Callable[[], object],
    ) -> None:
        self._items = items
        self._ordered = ordered
        self._on_error = on_error
        self._buffersize = buffersize
        self._workers = owner.concurrency
        self._give_back: Callable[[], object] | None = give_back
        self._news: queue.SimpleQueue[Ended] = queue.SimpleQueue()
        self._ended: set[int] = set()
        self._arrived: deque[int] = deque()
        self._next = 0
        self._added = self._taken = 0
        self._exhausted = False
        self._input_error: BaseException | None = None
        self._stream: Stream | None = open_(self._news.put)

    def start(self) -> None:
        """Read the first items, so that the work begins before the first result is asked for."""
        self._fill()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> R:
        while True:
            index = self._wait()
            if index is None:
                self._finish()
            else:
                result, failure = self._take(index)
                if failure is None:
                    return result
                if self._on_error == "collect":
                    collected: Any = failure.error
                    return collected  # type: ignore[no-any-return]
                if self._on_error == "raise":
                    raise failure.error

    def _finish(self) -> None:
        """The input is over and all of it was taken: whatever the input raised comes now."""
        self.close()
        error, self._input_error = self._input_error, None
        if error is not None:
            raise error
        raise StopIteration

    def _take(self, index: int) -> tuple[R, Failure | None]:
        assert self._stream is not None
        self._taken += 1
        result, failure = self._stream.take(index)
        return result, failure

    def _wait(self) -> int | None:
        """The index of the next item that ended; None where there is none left."""
        while self._stream is not None:
            self._fill()
            if self._taken == self._added:
                return None
            if self._ordered and self._next in self._ended:
                self._ended.discard(self._next)
                self._next += 1
                return self._next - 1
            if not self._ordered and self._arrived:
                return self._arrived.popleft()
            self._hear(self._news.get())
        return None

    def _hear(self, indices: Ended) -> None:
        """Items ended; None: the stream was ended from outside, so nothing more will."""
        if indices is None:
            self.close()
            raise RuntimeError("the pool was closed while results were still to come")
        if self._ordered:
            self._ended.update(indices)
        else:
            self._arrived.extend(indices)

    def _fill(self) -> None:
        """Read the input up to the window."""
        if self._exhausted or self._stream is None:
            return
        room = self._window() - (self._added - self._taken)
        if room <= 0 or (self._added > self._taken and room < self._window() // 4):
            return  # a few at a time would be many messages
        batch: list[Any] = []
        try:
            batch.extend(itertools.islice(self._items, room))
            self._exhausted = len(batch) < room
        except BaseException as error:  # noqa: BLE001 - the input's own; it is raised in its place
            self._exhausted, self._input_error = True, error
        self._added += len(batch)
        self._stream.add(batch)

    def _window(self) -> int:
        """How many items may be under way or waiting to be read."""
        if self._buffersize is not None:
            return self._buffersize
        assert self._stream is not None
        return self._stream.window(self._workers)

    def close(self) -> None:
        """End the work: what waits does not run, what runs is ended. Idempotent."""
        stream, self._stream = self._stream, None
        give_back, self._give_back = self._give_back, None
        if stream is not None:
            if self._exhausted and self._taken == self._added:
                stream.seal()
            else:
                stream.cancel(kill=True)
        if give_back is not None:
            give_back()

    def __del__(self) -> None:
        if getattr(self, "_stream", None) is not None:
            self.close()


def imap(
    fn: Callable[[T], R],
    items: Iterable[T],
    *,
    concurrency: int | None = None,
    max_retries: int | None = None,
    retry: RetryPolicy | None = None,
    timeout: float | None = None,
    chunksize: int | None = None,
    buffersize: int | None = None,
    on_error: Missing = "raise",
) -> ItemIterator[R]:
    """The results of ``fn`` over the items, in order, one by one while the work goes on.

    Lazy at both ends: at most ``buffersize`` items are read ahead of the result that was taken last (None: as many as
    keep the workers busy for a quarter of a second), so an endless input works. The other options are those of `map`.
    A failure is raised in its item's place, and the iterator goes on; ``on_error`` as in `map`, without ``"group"``.
    A generator that raises delivers what came before it, then its error. The first items begin at once.
    """
    return _iterate("imap", fn, items, True, concurrency, max_retries, retry, timeout, chunksize, buffersize, on_error)


def imap_unordered(
    fn: Callable[[T], R],
    items: Iterable[T],
    *,
    concurrency: int | None = None,
    max_retries: int | None = None,
    retry: RetryPolicy | None = None,
    timeout: float | None = None,
    chunksize: int | None = None,
    buffersize: int | None = None,
    on_error: Missing = "raise",
) -> ItemIterator[R]:
    """Like `imap`, in the order in which the items end: no result waits for a slower one."""
    return _iterate(
        "imap_unordered", fn, items, False, concurrency, max_retries, retry, timeout, chunksize, buffersize, on_error
    )


def _iterate(
    name: str,
    fn: Callable[[T], R],
    items: Iterable[T],
    ordered: bool,
    concurrency: int | None,
    max_retries: int | None,
    retry: RetryPolicy | None,
    timeout: float | None,
    chunksize: int | None,
    buffersize: int | None,
    on_error: Missing,
) -> ItemIterator[R]:
    if on_error not in ON_ERROR:
        raise ValueError(f"on_error: expected one of {', '.join(repr(value) for value in ON_ERROR)}, got {on_error!r}")
    check_timeout(timeout)
    for option, value in (("buffersize", buffersize), ("chunksize", chunksize)):
        if value is not None:
            check_number(option, value, low=1, integer=True)
    policy = choose_policy(name, max_retries, retry, delays=DROPIN_RETRY) or DROPIN_RETRY
    iterator = iter(items)
    owner = shared_pool.borrow(concurrency)

    def open_(on_ended: Callable[[Ended], None]) -> Stream:
        return open_stream(
            owner, fn, on_ended, retry=policy, timeout=timeout, chunksize=chunksize, max_workers=concurrency
        )

    try:
        made: ItemIterator[R] = ItemIterator(
            owner,
            open_,
            iterator,
            ordered=ordered,
            on_error=on_error,
            buffersize=buffersize,
            give_back=lambda: shared_pool.give_back(owner),
        )
    except BaseException:
        shared_pool.give_back(owner)
        raise
    made.start()
    return made
