"""`Stream`: a job whose items come while it runs, and whose outcomes are taken one by one. What the drop-ins stand on.

A stream holds only the items between the one that was added last and the one that was taken last, so an endless input
takes constant memory as long as the consumer keeps its window bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from mpqueue._core.item_table import Failure
from mpqueue._core.messages import ItemDropped, ItemsAdded, JobCancelled, StreamSealed
from mpqueue._core.stream_table import StreamTable
from mpqueue.options import JobOptions
from mpqueue.retry import RetryPolicy

if TYPE_CHECKING:
    from mpqueue._core.job_book import JobBook
    from mpqueue.queue import JobQueue
    from mpqueue.run import JobRun


OnEnded = Callable[[Sequence[int] | None], None]


def open_stream(
    queue: JobQueue,
    handler: Callable[..., Any],
    on_ended: OnEnded,
    *,
    retry: RetryPolicy,
    timeout: float | None = None,
    chunksize: int | None = None,
    max_workers: int | None = None,
) -> Stream:
    """Start a job whose items are added while it runs. It is not among the queue's `jobs`.

    ``on_ended`` gets the indices of items that have ended, and None at the end, on the coordinator's thread: it must
    return at once and may call nothing of the queue. ``max_workers`` caps how many workers serve the stream.
    Raises what `create_job` raises.
    """
    table = StreamTable()
    options = JobOptions(retry, timeout, None, 0, chunksize, max_workers)
    book, run = queue.start_table(table, options, handler, on_ended, sealed=False)
    return Stream(queue, book, table, run)


class Stream:
    """Made by `open_stream`. One thread adds and takes at a time; the other methods may be called anywhere."""

    def __init__(self, owner: JobQueue, book: JobBook, table: StreamTable, run: JobRun) -> None:
        self._owner = owner
        self._book = book
        self._table = table
        self.run = run  #: resolves when the stream has ended

    def add(self, items: Iterable[Any]) -> range:
        """Add items; returns their indices. Does not wait."""
        lo = len(self._table)
        for item in items:
            self._table.append(item)
        indices = range(lo, len(self._table))
        self._owner.post(ItemsAdded(self._book, indices))
        return indices

    def take(self, index: int) -> tuple[Any, Failure | None]:
        """The outcome of an item that has ended: its result, or its failure. It can be taken once."""
        return self._table.take(index)

    def window(self, workers: int) -> int:
        """How many items should be under way or untaken at most, to keep so many workers busy."""
        return self._book.sizer.window(workers)

    def is_running(self, index: int) -> bool:
        """True while a worker runs the item."""
        return index in self._table.running()

    def drop(self, index: int, *, kill: bool = False) -> bool:
        """Cancel one item: True where it will not run, or (``kill``) its worker is being ended for it.

        It ends with an `ItemCancelledError`, as any failure. An item that a worker has, or is about to have, is left
        alone without ``kill``; with it, the worker's other items run again elsewhere, uncharged.
        """

        def dropped() -> bool:
            self._owner.handle(ItemDropped(self._book, index, kill))
            return index in self._book.dropped

        return self._owner.ask(dropped)

    def seal(self) -> None:
        """No more items will come: the stream ends when all that were added have."""
        self._owner.post(StreamSealed(self._book))

    def cancel(self, *, kill: bool = True) -> None:
        """End the stream: what waits does not run, what runs is ended with ``kill``. Does not wait."""
        self._owner.post(JobCancelled(self._book, 0.0, kill))
