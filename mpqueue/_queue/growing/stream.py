"""`Stream`: a job whose items arrive while it runs, and whose outcomes are taken one by one; the drop-ins use it.

A stream holds only the items that were added and not yet taken, so an endless input takes constant memory as long as
the consumer keeps its window bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from mpqueue._core.messages import ItemsAdded, ItemsDropped, JobCancelled, JobSealed
from mpqueue._core.state.item_table import Failure, ItemTable
from mpqueue._options import JobOptions
from mpqueue._output.progress import Showing

if TYPE_CHECKING:
    from mpqueue._core.state.job_book import JobBook
    from mpqueue._queue.job_queue import JobQueue
    from mpqueue._queue.run import JobRun
    from mpqueue.errors import InternalError


OnEnded = Callable[[Sequence[int] | None], None]


def open_stream(
    queue: JobQueue,
    handler: Callable[..., Any],
    on_ended: OnEnded,
    options: JobOptions,
    *,
    showing: Showing = Showing(),  # noqa: B008 - frozen
) -> Stream:
    """Start a job whose items are added while it runs. It is not among the queue's `jobs`.

    ``on_ended`` gets the indices of items that have ended, and None at the end, on the coordinator's thread: it must
    return at once and must not call the queue. Raises the errors of `create_job`. The display ``showing`` ends with the
    run.
    """
    table = ItemTable.of_stream()
    book, run = queue._host.start_table(table, options, handler, on_ended, sealed=False, showing=showing)
    return Stream(queue, book, table, run)


class Stream:
    """A stream, made by `open_stream`.

    One thread at a time adds and takes; the other methods may be called on any thread.
    """

    def __init__(self, owner: JobQueue, book: JobBook, table: ItemTable, run: JobRun) -> None:
        self._owner = owner  #: held until the stream is dropped
        self._host = owner._host
        self._book = book
        self._table = table
        self._told = 0  #: how many items the coordinator has
        self._telling = False  #: a message is posted to pass it the rest
        self.run = run  #: resolves when the stream has ended

    def add(self, items: Any) -> range:
        """Add items, as `look_at` returns them; returns their indices. Does not wait.

        If interrupted (Ctrl-C), it has added all or none; they reach the coordinator with the next items or at the end.
        """
        try:
            return self._table.add(items)
        finally:
            self._tell_soon()

    def look_at(self, items: list[Any]) -> tuple[Any, int, Exception | None]:
        """Return what `add` needs of these items, up to the first at fault; how many these are; and its error.

        It may run users' code.
        """
        return items, len(items), None

    def _tell_soon(self) -> None:
        """Ask the coordinator to take the items that were added."""
        if self._telling:
            return
        try:
            self._telling = True
            self._host.do_later(self._tell, self._book)
        except BaseException:  # interrupted, perhaps before the message was posted; a second one does no harm
            self._telling = False
            raise

    def _tell(self) -> None:
        """Pass on all items added since the last call. On the coordinator's thread."""
        self._telling = False  # first: items added from now on are passed on by another call
        told, self._told = self._told, self._table.added
        if told < self._told:
            self._host.handle(ItemsAdded(self._book, range(told, self._told)))

    @property
    def next_index(self) -> int:
        """The index of the next item to be added."""
        return self._table.added

    def take(self, index: int) -> tuple[Any, Failure | None]:
        """Return the outcome of an item that has ended: its result, or its failure. It can be taken once."""
        return self._table.take(index)

    def take_all(self, indices: Sequence[int]) -> list[Any]:
        """Return the outcomes of items that have ended, each a result or its `Failure`. Costs 0.1 us per result."""
        return self._table.take_all(indices)

    def expect(self) -> None:
        """Prepare to wait for the next outcome; call it before each wait."""

    @property
    def fault(self) -> InternalError | None:
        """The internal error of mpqueue that ended the stream."""
        return self._book.fault

    @property
    def foreign(self) -> bool:
        """True if its items and outcomes may hold objects of users' classes, which may run code when they are freed."""
        return self._table.live.foreign

    def window(self, workers: int) -> int:
        """Return how many items should be running or untaken at most, to keep that many workers busy."""
        return self._book.sizer.window(workers)

    def is_running(self, index: int) -> bool:
        """True while a worker runs the item."""
        return index in self._table.live.running()

    def drop(self, indices: Sequence[int], *, kill: bool = False) -> list[int]:
        """Cancel these items; returns those that will not run, or (``kill``) whose workers are being ended.

        They fail with an `ItemCancelledError`. An item that a worker has, or is about to get, runs on unless ``kill``
        is given; then the worker's other items run again elsewhere without losing a try.
        """

        def dropped() -> list[int]:
            self._host.handle(ItemsDropped(self._book, indices, kill))
            return [index for index in indices if index in self._book.dropped]

        return self._host.ask(dropped)

    def drop_later(self, indices: Sequence[int]) -> None:
        """`drop` without an answer. Does not wait, so a garbage collection on any thread may call it."""
        self._host.post(ItemsDropped(self._book, indices))

    def check(self) -> None:
        """Raise `JournalError` while ended items can't be written into the journal; their results wait for that."""
        self.run._check_trouble()

    def seal(self) -> None:
        """Seal the stream: it ends when all items that were added have ended."""
        self._host.do_later(self._tell, self._book)  # those of an interrupted `add`
        self._host.post(JobSealed(self._book))

    def cancel(self, *, kill: bool = True) -> None:
        """End the stream: waiting items do not run; with ``kill`` running items are ended. Does not wait."""
        self._host.post(JobCancelled(self._book, 0.0, kill))
