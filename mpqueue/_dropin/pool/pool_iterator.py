"""`PoolIterator`: what `Pool.imap` and `Pool.imap_unordered` return.

Lazy at both ends: the input is read by an `InputFeed`, only so far ahead as keeps the workers busy.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Iterator
from multiprocessing.pool import IMapIterator
from types import GenericAlias
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from mpqueue._core.state.item_table import Failure
from mpqueue._dropin.pool.input_feed import InputFeed
from mpqueue._dropin.pool.pool_errors import ended_error, error_of
from mpqueue._dropin.stream_results import StreamResults, not_an_end

if TYPE_CHECKING:
    from mpqueue._dropin.pool.process_pool import Pool
    from mpqueue._queue.growing.stream import Stream
    from mpqueue._queue.run import Ended

    Standard = IMapIterator
else:

    class Standard(IMapIterator):
        """The standard library's, which can't be subscripted when it runs."""

        __class_getitem__ = classmethod(GenericAlias)


log = logging.getLogger("mpqueue")

R = TypeVar("R")


class PoolIterator(Standard[R]):
    """The results, in order or as they come. A call that failed raises in its place, and the iterator goes on.

    Dropping it ends the work and its running calls; so nothing runs for an iterator that is no longer referenced. Any
    number of threads may read from it. Holds its pool until it is at its end.
    """

    def __init__(
        self,
        pool: Pool,
        items: Iterator[Any],
        open_: Callable[[Callable[[Ended], None]], Stream],
        window: Callable[[Stream], int],
        *,
        ordered: bool,
    ) -> None:
        self._pool: Pool | None = pool
        self._owner = os.getpid()  #: a fork has no part in it
        self._now = pool._now
        self._lock = threading.Lock()
        self._block: Iterator[Any] = iter(())
        self._block_size = 0
        self._results = StreamResults(open_, window, ordered=ordered)
        self._feed: InputFeed | None = InputFeed(items, self._results.stream, self._results.window)
        self._feed.start()

    def __iter__(self) -> Self:
        return self

    def __next__(self, timeout: float | None = None) -> R:
        return self.next(timeout)

    def next(self, timeout: float | None = None) -> R:
        """The next result. Raises `multiprocessing.TimeoutError` where none comes for ``timeout`` seconds."""
        deadline = None if timeout is None else self._now() + timeout
        if not self._lock.acquire(timeout=-1 if timeout is None else max(0.0, timeout)):
            raise multiprocessing.TimeoutError
        try:
            outcome = self._take(deadline)
        finally:
            self._lock.release()
        if type(outcome) is Failure:
            raise not_an_end(error_of(outcome), "a call")
        return cast(R, outcome)

    def _take(self, deadline: float | None) -> Any:
        while True:
            for outcome in self._block:
                return outcome
            feed = self._feed
            if feed is None:
                raise StopIteration
            feed.took(self._block_size)
            self._block_size = 0
            while not (outcomes := self._results.take_block()) and not self._at_end(feed):
                self._hear(deadline)
            self._block, self._block_size = iter(outcomes), len(outcomes)

    def _at_end(self, feed: InputFeed) -> bool:
        if feed.drained:
            error = feed.error
        elif self._results.is_over:
            error = self._results.stream.fault or ended_error()
            feed.stop()
        else:
            return False
        pool = self._pool
        self._feed = self._pool = None
        run = self._results.stream.run
        run._end_display()
        if run._spoke and pool is not None:
            pool._await_told()
        if error is not None:
            raise error
        return True

    def _hear(self, deadline: float | None) -> None:
        timeout = None if deadline is None else max(0.0, deadline - self._now())
        try:
            self._results.hear(self._results.news.take(timeout))
        except TimeoutError:
            raise multiprocessing.TimeoutError from None

    # -- for the pool ----------------------------------------------------------------------------------------

    def _run_out(self) -> None:
        """Read all of the input, although the results are not taken: a caller waits for the pool."""
        feed = self._feed
        if feed is not None:
            feed.lift_window()

    def _give_up(self) -> None:
        """The pool has ended: waiting for the next result ends."""
        feed = self._feed
        if feed is not None:
            feed.stop()
        self._results.news.put(None)

    def __del__(self) -> None:
        feed = getattr(self, "_feed", None)
        if feed is None or sys.is_finalizing() or os.getpid() != self._owner:
            return
        if not feed.taken and not self._results.is_over and not feed.drained:
            log.warning("an iterator of Pool.imap was dropped before a result was read from it; its work was ended")
        feed.stop()
