"""`PoolIterator`: what `Pool.imap` and `Pool.imap_unordered` return."""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from multiprocessing.pool import IMapIterator
from types import GenericAlias
from typing import TYPE_CHECKING, Any, TypeVar

from mpqueue._core.state.item_table import Failure
from mpqueue._dropin.pool.pool_errors import error_of
from mpqueue._dropin.stream_results import StreamResults

if TYPE_CHECKING:
    from mpqueue._dropin.pool.process_pool import Pool
    from mpqueue._queue.growing.stream import Stream
    from mpqueue._queue.job_queue import JobQueue
    from mpqueue._queue.run import Ended

    Standard = IMapIterator
else:

    class Standard(IMapIterator):
        """The standard library's, which can't be subscripted when it runs."""

        __class_getitem__ = classmethod(GenericAlias)


log = logging.getLogger("mpqueue")

R = TypeVar("R")


class PoolIterator(StreamResults[R], Standard[R]):
    """The results, in order or as they come. A call that failed raises in its place, and the iterator goes on.

    Dropping it ends the work and its running calls; so nothing runs for an iterator that is no longer referenced. Any
    number of threads may read from it. Holds its pool until it is at its end. The input is read on a thread of its own.
    """

    _timed_out = multiprocessing.TimeoutError

    def __init__(
        self,
        pool: Pool,
        items: Iterator[Any],
        open_: Callable[[Callable[[Ended], None]], Stream],
        window: Callable[[Stream], int],
        *,
        ordered: bool,
    ) -> None:
        self._owner = os.getpid()
        super().__init__(open_, items, window, _LentByPool(pool), ordered=ordered)
        self._input.start()

    def next(self, timeout: float | None = None) -> R:
        """The next result. Raises `multiprocessing.TimeoutError` where none comes for ``timeout`` seconds."""
        return self.__next__(timeout)

    def _error_of(self, failure: Failure) -> BaseException:
        return error_of(failure)

    # -- for the pool ----------------------------------------------------------------------------------------

    def _run_out(self) -> None:
        """Read all of the input, although the results are not taken: a caller waits for the pool."""
        self._input.lift_window()

    def _give_up(self) -> None:
        """The pool has ended: waiting for the next result ends."""
        self._input.stop()
        self._arrivals.news.put(None)

    def __del__(self) -> None:
        if not hasattr(self, "_all_done") or sys.is_finalizing() or os.getpid() != self._owner:
            return
        any_read = self._input.taken or self._block_size  # the former counts blocks that were read to their ends
        if not (any_read or self._is_closed or self._arrivals.are_over or self._input.drained):
            log.warning("an iterator of Pool.imap was dropped before a result was read from it; its work was ended")
        super().__del__()


class _LentByPool:
    """The queue of a pool, which is held until the end."""

    def __init__(self, pool: Pool) -> None:
        self.queue: JobQueue = pool._queue
        self._pool: Pool | None = pool

    def end(self, *, kill: bool) -> None:  # noqa: ARG002 - the workers stay
        """See `Loan`."""
        self._pool = None

    def await_end(self) -> None:
        """See `Loan`."""
