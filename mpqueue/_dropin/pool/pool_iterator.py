"""`PoolIterator`: what `Pool.imap` and `Pool.imap_unordered` return.

Lazy at both ends: the input is read by an `InputFeed`, only so far ahead as keeps the workers busy.
"""

from __future__ import annotations

import itertools
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
from mpqueue._dropin.stream_results import StreamResults, not_an_end, torn_error

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
_NONE = object()


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
        self._lock = threading.RLock()  #: only to know whether this thread has it
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
        outcome: Any = _NONE
        error: BaseException | None = None
        try:
            if timeout is None:
                with self._lock:
                    outcome = self._take(None)
            else:
                outcome = self._take_within(timeout)
            if type(outcome) is Failure:
                error = not_an_end(error_of(outcome), "a call")
        except BaseException:
            if outcome is not _NONE:  # interrupted: it comes next
                with self._lock:
                    self._block = itertools.chain([outcome], self._block)
            raise
        if error is not None:
            raise error
        return cast(R, outcome)

    def _take_within(self, timeout: float) -> Any:
        deadline = self._now() + timeout
        try:
            if not self._lock.acquire(timeout=max(0.0, timeout)):
                raise multiprocessing.TimeoutError
            return self._take(deadline)
        finally:
            if self._lock._is_owned():  # type: ignore[attr-defined]
                self._lock.release()

    def _take(self, deadline: float | None) -> Any:
        while True:
            for outcome in self._block:
                return outcome
            if self._results.is_torn:
                self._abandon()
                raise torn_error()
            feed = self._feed
            if feed is None:
                raise StopIteration
            self._results.is_torn = True
            feed.took(self._block_size)
            self._block_size = 0
            while not self._begin_block() and not self._at_end(feed, deadline):
                self._await_news(deadline)

    def _begin_block(self) -> bool:
        """Take the next outcomes; False where the next one is still to come."""
        outcomes = self._results.take_block()
        self._block, self._block_size = iter(outcomes), len(outcomes)
        self._results.is_torn = False
        return bool(outcomes)

    def _abandon(self) -> None:
        """End the work: an interruption came while results were being taken."""
        feed = self._feed
        if feed is not None:
            feed.stop()
            self._results.stream.run._end_bar()
            self._feed = self._pool = None

    def _at_end(self, feed: InputFeed, deadline: float | None) -> bool:
        if feed.drained:
            error = feed.error
        elif self._results.is_over:
            error = self._results.stream.fault or ended_error()
            feed.stop()
        else:
            return False
        pool = self._pool
        run = self._results.stream.run
        run._end_bar()
        if feed.drained:
            run._await_last_call(self._left(deadline))
        if run._spoke and pool is not None:
            pool._await_told()
        self._feed = self._pool = None  # last: what is interrupted here is done again
        if error is not None:
            raise error
        return True

    def _await_news(self, deadline: float | None) -> None:
        try:
            self._results.news.wait(self._left(deadline))
        except TimeoutError:
            raise multiprocessing.TimeoutError from None

    def _left(self, deadline: float | None) -> float | None:
        return None if deadline is None else max(0.0, deadline - self._now())

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
        any_read = feed.taken or self._block_size  # the former counts blocks that were read to their ends
        if not any_read and not self._results.is_over and not feed.drained:
            log.warning("an iterator of Pool.imap was dropped before a result was read from it; its work was ended")
        feed.stop()
