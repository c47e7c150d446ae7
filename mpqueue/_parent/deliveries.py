"""Deliveries: the results of a job's items on their way into a sink, on the job's own thread.

A sink is users' code and may be as slow as its disk. Only its job waits for it: no more of its items are sent while too
many results wait to be written, and the job ends once its sink has been closed. An error of a sink stops its job.

It comes after the journal: results are in the journal before they go into a sink. `Backlog` counts what waits for
either.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Protocol

from mpqueue._core.commands import AnnounceFinished, AnnounceItems
from mpqueue._core.messages import JobCancelled
from mpqueue._core.state.job_book import JobBook
from mpqueue._parent.inbox import text_of
from mpqueue._parent.replies import Reply
from mpqueue._parent.users_threads import Errands
from mpqueue.errors import InternalError, SinkError
from mpqueue.status import OVER

if TYPE_CHECKING:
    from mpqueue._parent.coordinator import Coordinator

log = logging.getLogger("mpqueue")

#: Bytes of results that may wait for a sink, or for the journal, before no more items are sent.
MOST_WAITING = 64 << 20
#: Bytes of an object in memory beside its content: a whole number takes 32, but one or two when written.
OBJECT = 48


class Backlog:
    """The bytes of results that wait to be written in one place: a sink, or the journal. On the coordinator's thread.

    While they are too many, the jobs that bring more are held back (``hold_back``): no more of their items are sent.
    """

    def __init__(self, hold_back: Callable[[JobBook, bool], object]) -> None:
        self._hold_back = hold_back
        self._held_back: dict[int, JobBook] = {}
        self.waiting = 0

    def add(self, announced: AnnounceItems) -> int:
        """Add the results of these items; returns their bytes, for `remove`."""
        job, size = announced.job, announced.size + OBJECT * len(announced.indices)
        self.waiting += size
        if self.waiting > MOST_WAITING and job.number not in self._held_back:
            self._held_back[job.number] = job
            self._hold_back(job, True)
        return size

    def remove(self, size: int) -> None:
        """Remove results that are written, or given up."""
        self.waiting -= size
        if self._held_back and self.waiting <= MOST_WAITING // 2:
            jobs, self._held_back = self._held_back, {}
            for job in jobs.values():
                self._hold_back(job, False)


class Outlet(Protocol):
    """A sink with the maker of its rows. Used by one thread at a time; may raise anything."""

    def open(self) -> None:
        """Prepare for rows."""

    def put(self, indices: Sequence[int], size: int) -> None:
        """Write the rows of these ended items; ``size``: bytes of their results, as far as known."""

    def finish(self) -> None:
        """Complete the sink: all rows have come."""

    def leave(self) -> str:
        """End without the missing rows. Returns a text about the kept rows."""


class Delivery:
    """The way of one job's results. Made with the job."""

    # set when the job starts, used on the coordinator's thread:
    job: JobBook
    errands: Errands
    backlog: Backlog

    def __init__(self, outlet: Outlet) -> None:
        self.outlet = outlet
        self.error: SinkError | None = None
        self.over = False  #: its sink has been closed, or is not waited for any more
        self.kept: str | None = None  #: a text about the kept rows of a job if some are missing
        #: Given once the sink is open, or could not be opened.
        self.opened: Reply[None] = Reply()
        self.then: Callable[[], object] | None = None  #: called once its sink has been closed; on the coordinator's
        # used on its own thread:
        self.broken_by: BaseException | None = None  #: or set on the coordinator's if it has no thread of its own
        self.is_open = False


class Deliveries:
    """The deliveries under way. On the coordinator's thread, unless a method says otherwise."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        self._under_way: dict[int, Delivery] = {}
        self._own = threading.local()  #: on each job's own thread: the job

    @property
    def all_done(self) -> bool:
        """True if nothing is under way."""
        return not self._under_way

    @property
    def job_here(self) -> JobBook | None:
        """The job whose sink calls this, on the job's own thread. On any thread."""
        job: JobBook | None = getattr(self._own, "job", None)
        return job

    def is_under_way(self, job: JobBook) -> bool:
        """True from the job's start until its sink has been closed."""
        return job.number in self._under_way

    def start(self, job: JobBook, ended: Sequence[range]) -> None:
        """Start the delivery of a job that starts: its sink is opened, and gets the rows of ``ended`` items.

        Until the sink is open, the scheduler holds the job back.
        """
        delivery = job.delivery
        if not isinstance(delivery, Delivery) or delivery.over:
            return
        self._under_way[job.number] = delivery
        delivery.job, delivery.backlog = job, Backlog(self._coordinator.hold_back)
        delivery.errands = Errands(f"mpqueue-sink-{job.number}", _tell_fault, self._coordinator.inbox.call_later)
        delivery.errands.put(partial(self._open, delivery))
        if delivery.errands.thread is None:
            self._refuse(delivery, RuntimeError("there is no room for the thread that writes results"))
        for stretch in ended:
            delivery.errands.put(partial(self._write, delivery, stretch, 0))

    def put(self, announced: AnnounceItems, ended: Sequence[int]) -> None:
        """Write the rows of items that have ended: of those announced, all that are not tried again."""
        if (delivery := self._under_way.get(announced.job.number)) is not None:
            size = delivery.backlog.add(announced)
            delivery.errands.put(partial(self._write, delivery, ended, size))

    def end(self, announced: AnnounceFinished, then: Callable[[], object]) -> None:
        """End the delivery of an ended job: once all rows are written and the sink is closed, ``then`` is called."""
        delivery = self._under_way[announced.job.number]
        delivery.then = then
        delivery.errands.put(partial(self._close, delivery, announced.status in OVER))

    def drop_all(self) -> None:
        """End all deliveries, since an internal error has ended their jobs; no caller waits for their sinks."""
        for delivery in self._under_way.values():
            delivery.then = None
            delivery.errands.put(partial(self._close, delivery, False))

    def abandon(self) -> None:
        """Go on without unfinished deliveries: their threads are left behind."""
        for delivery in list(self._under_way.values()):
            delivery.errands.abandon()
            error = _sink_error(delivery.job, TimeoutError("it takes too long"), "what it has written by now")
            delivery.opened.set_exception(error)  # it may hang in `open`
            self._ended(delivery, error)

    # -- on the job's own thread -----------------------------------------------------------------------------

    def _open(self, delivery: Delivery) -> None:
        self._own.job = delivery.job
        if delivery.broken_by is not None:
            return
        try:
            delivery.outlet.open()
        except BaseException as error:
            self._refuse(delivery, error)
        else:
            delivery.is_open = True
            self._coordinator.hold_back(delivery.job, False)
            delivery.opened.set_result(None)

    def _refuse(self, delivery: Delivery, error: BaseException) -> None:
        self._break(delivery, error)
        delivery.opened.set_exception(error)

    def _break(self, delivery: Delivery, error: BaseException) -> None:
        delivery.broken_by = error
        self._coordinator.do_later(partial(self._stop, delivery.job, error))

    def _write(self, delivery: Delivery, indices: Sequence[int], size: int) -> None:
        self._own.job = delivery.job
        if delivery.broken_by is not None or delivery.over:
            return
        try:
            delivery.outlet.put(indices, size)
        except BaseException as error:
            self._break(delivery, error)
        else:
            self._coordinator.do_later(partial(self._written, delivery, indices, size))

    def _close(self, delivery: Delivery, is_whole: bool) -> None:
        self._own.job = delivery.job
        if delivery.over:
            return
        if is_whole and delivery.broken_by is None:
            try:
                delivery.outlet.finish()
            except BaseException as error:
                delivery.broken_by = error
        failure = None
        if not is_whole or delivery.broken_by is not None:
            kept = _leave(delivery)
            if delivery.broken_by is not None:
                failure = _sink_error(delivery.job, delivery.broken_by, kept)
        self._coordinator.do_later(partial(self._ended, delivery, failure))

    # -- on the coordinator's thread -------------------------------------------------------------------------

    def _written(self, delivery: Delivery, indices: Sequence[int], size: int) -> None:
        table = delivery.job.table
        if table.source is None:  # otherwise the journal's results, which it frees itself
            results = table.release(indices)
            if table.live.has_user_objects:
                self._coordinator.scheduler.books.free_later(results)
        delivery.backlog.remove(size)

    def _stop(self, job: JobBook, reason: BaseException) -> None:
        why = f"its results can't be written: {text_of(reason)}"
        self._coordinator.handle(JobCancelled(job, self._coordinator.clock.wall(), kill=True, why=why))

    def _ended(self, delivery: Delivery, error: SinkError | None) -> None:
        if delivery.over:
            return
        delivery.error, delivery.over = error, True
        if error is not None and error.__cause__ is not None:
            with contextlib.suppress(InternalError):  # it has ended all jobs
                self._stop(delivery.job, error.__cause__)
        delivery.backlog.remove(delivery.backlog.waiting)
        delivery.errands.end()
        del self._under_way[delivery.job.number]
        then, delivery.then = delivery.then, None
        if then is not None:
            then()


def _leave(delivery: Delivery) -> str:
    """Leave the outlet, and return a text about the kept rows."""
    if not delivery.is_open:
        return "nothing"
    try:
        delivery.kept = delivery.outlet.leave()
    except BaseException as error:
        delivery.kept = "what it had written before"
        delivery.broken_by = delivery.broken_by or error
    return delivery.kept


def _sink_error(job: JobBook, reason: BaseException, kept: str) -> SinkError:
    error = SinkError(f"job {job.id!r}: its results can't be written: {text_of(reason)}; kept: {kept}")
    error.__cause__ = reason
    return error


def _tell_fault(error: BaseException) -> None:
    log.critical("mpqueue made a mistake while it wrote results; please report it", exc_info=error)
